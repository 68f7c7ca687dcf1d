"""A picture with a model for which nobody has trained a translator, as after the download of AudioLDM's own."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hub_layout import write_hub_folder
from safetensors.torch import load_file, save_file
from server import Server

from audioldm import registry
from audioldm.checkpoints import download, hub
from audioldm.checkpoints.layout import CLAP_BOTH_TOWERS, clap_fingerprint, clip_fingerprint, fingerprint
from audioldm.checkpoints.published import UPSTREAM, Checkpoint
from audioldm.commands.generate import main
from audioldm.commands.translator import main as translator_main
from audioldm.latent_diffusion.model import LatentDiffusion
from translator.model import Memory, Translator, load_translator, save_translator

CAPTIONS = ["a dog barks", 'someone says "hush"', "rain on a roof", "an engine hums", "waves at the sea", "wind"]
Run = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """audioldm with a cache of its own and few captions to remember: exit code, paths of wavs, stderr."""
    bundled = tmp_path / "bundled" / "translators"
    bundled.mkdir(parents=True)
    (bundled / "captions.txt").write_text("\n".join(CAPTIONS) + "\n")
    monkeypatch.setattr(registry, "models_dir", lambda: tmp_path / "bundled")
    monkeypatch.setenv("AUDIOLDM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, list[str], str]:
        code = main([*map(str, arguments), "-dur", "0.5"])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return run


@pytest.fixture
def blind(copy: Path) -> Path:
    """The tiny model as one from the network: without translators, and without a choice of one."""
    shutil.rmtree(copy.parent / "translators")
    index = json.loads((copy / "model_index.json").read_text())
    del index["default_translator"]
    (copy / "model_index.json").write_text(json.dumps(index))
    return copy


def spaces(folder: Path) -> tuple[str, str]:
    weights = [folder / part / "model.safetensors" for part in ("clip", "clap")]
    return clip_fingerprint(weights[0]), clap_fingerprint(weights[1])


def install(folder: Path, cache: Path, *names: str) -> None:
    clip, clap = spaces(folder)
    for name in names:
        path = cache / "translators" / f"{clip}-{clap}" / f"{name}.safetensors"
        save_translator(path, Translator(8), {"clip_space": clip, "clap_space": clap})


def test_a_picture_sounds_with_no_other_flag(run: Run, blind: Path, picture: Path, tmp_path: Path) -> None:
    code, (wav,), said = run("-t", picture, "--model_name", blind)
    assert code == 0
    (line,) = [line for line in said.splitlines() if "no trained translator" in line]
    command = shlex.split(line.split("a better one: ")[1])
    assert Path(command[0]).name == "audioldm-translator" and command[1:3] == ["make", "audiocaps_cos_512"]
    assert command[3:] == ["--model", str(blind)] and "6 captions" in said
    record = json.loads(Path(wav).with_suffix(".json").read_text())
    assert record["translator"]["name"] == "memory" and "captions" not in record["translator"]
    leaned_on = record["leaned_on"]
    assert len(leaned_on) == 5 and {one["caption"] for one in leaned_on} < set(CAPTIONS)
    assert 0.5 < sum(one["weight"] for one in leaned_on) <= 1.001
    assert leaned_on[0]["weight"] == max(one["weight"] for one in leaned_on)

    code, (again,), said = run("-t", picture, "--model_name", blind)
    assert code == 0 and "6 captions" not in said and "no trained translator" in said
    assert Path(again).read_bytes() == Path(wav).read_bytes()


def test_a_memory_is_what_both_towers_say(run: Run, blind: Path, picture: Path, tmp_path: Path) -> None:
    code, (wav,), said = run("-t", picture, "--model_name", blind, "--translator", "memory")
    assert code == 0 and "no trained translator" not in said, "it was asked for"
    (leaned,) = [line for line in said.splitlines() if "leaned on" in line]
    assert int(leaned.split("%")[0].split()[-1]) > 25, "one counts more than others: the tower sees something"
    kept = load_translator(tmp_path / "cache" / "translators" / "-".join(spaces(blind)) / "memory.safetensors")
    assert type(kept) is Memory and kept.captions == CAPTIONS
    model = LatentDiffusion.from_folder(blind, "cpu")
    for caption, clip, clap in zip(CAPTIONS, kept.clip, kept.clap, strict=True):
        for one, tower in ((clip, model.clip), (clap, model.clap)):
            assert torch.cosine_similarity(one, tower.encode_text([caption])[0], dim=0) > 0.9999


def test_a_memory_that_cannot_be_kept_is_used(
    run: Run, blind: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("AUDIOLDM_CACHE_DIR", str(tmp_path / "file"))
    code, (wav,), said = run("-t", picture, "--model_name", blind)
    assert code == 0 and "the memory is not kept" in said and said.count("6 captions") == 1
    assert json.loads(Path(wav).with_suffix(".json").read_text())["translator"]["kind"] == "memory"


def test_a_trained_translator_goes_before_memory(run: Run, blind: Path, picture: Path, tmp_path: Path) -> None:
    install(blind, tmp_path / "cache", "memory", "audiocaps_cos_512", "zzz", "wit_cl_512", "wit_cos_256")
    code, (wav,), said = run("-t", picture, "--model_name", blind)
    assert code == 0 and "no trained translator" not in said
    assert json.loads(Path(wav).with_suffix(".json").read_text())["translator"]["name"] == "wit_cos_256"


@pytest.mark.parametrize(
    "name, said, pictures",
    [
        ("wit_cos_512", 'this model has no translator "wit_cos_512"', True),
        ("audiocaps_mse_256_noise", 'this model has no translator "audiocaps_mse_256_noise"; memory', False),
        ("ridge", 'no translator "ridge"', False),
    ],
)
def test_a_translator_that_is_missing_is_refused_with_the_command_that_makes_it(
    run: Run, blind: Path, picture: Path, name: str, said: str, pictures: bool
) -> None:
    code, wavs, err = run("-t", picture, "--model_name", blind, "--translator", name)
    assert (code, wavs) == (2, []) and said in err and len(err.splitlines()) == 1
    command = shlex.split(err.split("to make this one: ")[1])
    assert command[1:5] == ["make", name, "--model", str(blind)]
    assert ("--wit" in command) == pictures == ("--contact" in command)


@pytest.mark.parametrize("name, near", [("wit_cos_51", "wit_cos_512"), ("rigde", "ridge"), ("memry", "memory")])
def test_a_typo_is_answered_with_the_nearest_names(run: Run, blind: Path, picture: Path, name: str, near: str) -> None:
    code, _, err = run("-t", picture, "--model_name", blind, "--translator", name)
    assert code == 2 and f"did you mean {near}" in err and "make" not in err


@pytest.mark.parametrize(
    "name, said",
    [
        ("wit_cos_512", "to make this one"), ("wit_cos_51", "; did you mean wit_cos_512 or "), ("", "it may have: "),
        ("other", "it may have: audiocaps_mse_256, "), ("nowhere.pth", "no such translator file: nowhere.pth"),
        ("whole.pth", "whole.pth is not a readable translator file"), ("small.pth", "spaces of 256 dimensions"),
        ("bundled/translators/x/other.safetensors", "belongs to a bundled model"),
    ],
)  # fmt: skip
def test_nothing_is_downloaded_or_converted_for_a_translator_that_cannot_be_there(
    run: Run, blind: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, name: str,
    said: str,
) -> None:  # fmt: skip
    clip, clap = "c" * 12, "a" * 12  # a bundled model's translators are not for AudioLDM's checkpoints
    bundled = tmp_path / "bundled" / "translators" / "x" / "other.safetensors"
    save_translator(bundled, Translator(8), {"clip_space": clip, "clap_space": clap})
    torch.save(torch.nn.Linear(2, 2), "whole.pth")
    torch.save(Translator(8, 256).state_dict(), "small.pth")
    Path("mine.ckpt").write_text("no checkpoint, which reading it would tell")
    without_clip(blind)
    monkeypatch.setattr(hub, "is_cached", lambda *_: False)
    monkeypatch.setattr(hub, "clip", lambda **_: pytest.fail("CLIP was asked for"))
    monkeypatch.setitem(UPSTREAM, "audioldm-s-full-v2", Checkpoint(server.answer("/ckpt", b"x"), about=1))
    for flag, model in (("--model_name", "audioldm-s-full-v2"), ("--model_name", "mine.ckpt"), ("-ckpt", "mine.ckpt"),
                        ("--model_name", "owner/name"), ("--model_name", blind), ("-ckpt", blind)):  # fmt: skip
        code, _, err = run("-t", picture, flag, model, "--translator", name)
        assert code == 2 and len(err.splitlines()) == 1 and server.paths == [] and said in err
        if name != "wit_cos_512":
            assert " make " not in err
        else:
            called = str(tmp_path / model) if flag == "-ckpt" else str(model)
            assert "did you mean" not in err
            assert shlex.split(err.split("this one: ")[1])[1:5] == ["make", name, "--model", called]


def without_clip(folder: Path) -> None:
    """Make the model in ``folder`` one that needs the hub's CLIP."""
    shutil.rmtree(folder / "clip")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({name: index[name] for name in index if name != "clip"}))


def test_the_translator_of_a_row_is_looked_for_before_clip_is_downloaded(
    run: Run, blind: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_clip(blind)
    monkeypatch.setattr(hub, "is_cached", lambda *_: False)
    monkeypatch.setattr(hub, "clip", lambda **_: pytest.fail("CLIP was asked for"))
    Path("list.csv").write_text(f"image,translator\n{picture},wit_cos_51\n")
    code, _, err = run("-t", "list.csv", "--model_name", blind)
    assert code == 1 and "did you mean wit_cos_512" in err


@pytest.mark.parametrize("name", ["starter", "audioldm-s-full-v2"])
def test_a_folder_that_is_called_as_a_known_model_is_named_by_its_path(
    run: Run, blind: Path, picture: Path, tmp_path: Path, name: str
) -> None:
    folder = blind.rename(blind.with_name(name))
    for flag, given in (("--model_name", f"models/{name}"), ("-ckpt", f"models/{name}")):
        code, _, err = run("-t", picture, flag, given, "--translator", "ridge")
        assert code == 2 and shlex.split(err.split("this one: ")[1])[1:] == ["make", "ridge", "--model", str(folder)]


def test_one_that_may_be_there_is_waited_for(
    run: Run, tiny_folder: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    install(tiny_folder, tmp_path / "cache", "mine")
    monkeypatch.setattr(download, "PAUSES", ())
    monkeypatch.setitem(UPSTREAM, "audioldm-s-full-v2", Checkpoint(server.answer("/ckpt", b"x"), about=1))
    code, _, err = run("-t", picture, "--model_name", "audioldm-s-full-v2", "--translator", "mine")
    assert code == 2 and "/ckpt" in server.paths and "not a whole checkpoint" in err


# Spaces


def test_both_layouts_are_in_one_space(run: Run, blind: Path, picture: Path, tmp_path: Path) -> None:
    made = write_hub_folder(blind, tmp_path / "hub model")
    shutil.copytree(blind / "clip", made / "clip")
    ours, hubs = (LatentDiffusion.from_folder(folder, "cpu").spaces for folder in (blind, made))
    assert ours == hubs
    code, (wav,), said = run("-t", picture, "--model_name", made)
    assert code == 0 and "no trained translator" in said
    code, (wav,), said = run("-t", picture, "--model_name", blind)
    assert code == 0 and "6 captions" not in said, "the memory made with one layout is used with the other"


def test_half_precision_keeps_the_space_and_bfloat16_can_be_read(copy: Path) -> None:
    weights = copy / "clap" / "model.safetensors"
    tensors, before = load_file(weights), clap_fingerprint(weights)
    save_file({name: tensor.half() for name, tensor in tensors.items()}, weights)
    assert clap_fingerprint(weights) == before
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, weights)
    assert clap_fingerprint(weights) != before
    tensors["text_projection.linear2.weight"][0, 0] += 1
    save_file(tensors, weights)
    assert clap_fingerprint(weights) != before


def test_files_with_a_former_name_of_a_space_stay_usable(
    run: Run, blind: Path, picture: Path, tmp_path: Path
) -> None:
    clip, clap = spaces(blind)
    former = fingerprint(blind / "clap" / "model.safetensors", CLAP_BOTH_TOWERS)
    assert former != clap
    path = tmp_path / "cache" / "translators" / f"{clip}-{former}" / "wit_cos_512.safetensors"
    save_translator(path, Translator(8), {"clip_space": clip, "clap_space": former})
    code, (wav,), _ = run("-t", picture, "--model_name", blind)
    assert code == 0 and json.loads(Path(wav).with_suffix(".json").read_text())["translator"]["name"] == "wit_cos_512"


def test_the_bundled_translators_are_the_starters() -> None:
    model = LatentDiffusion.from_folder(registry.models_dir() / "starter", "cpu")
    assert registry.find_translator(model, "wit_cos_512").spaces == model.spaces
    assert registry.find_translator(model).name == model.folder.index["default_translator"]


def test_a_mix_says_that_it_is_one(run: Run, tiny_folder: Path) -> None:
    code, (wav,), _ = run("-t", "a dog", "-t", "rain", "--model_name", tiny_folder)
    record = json.loads(Path(wav).with_suffix(".json").read_text())
    assert code == 0 and record["kind"] == "mix" and [one["kind"] for one in record["prompts"]] == ["text", "text"]


# Files of the thesis, and lists


def test_a_file_that_names_no_spaces_is_used_with_one_warning(run: Run, blind: Path, picture: Path) -> None:
    torch.save({"model_state_dict": Translator(8).state_dict(), "epoch": 50}, "thesis.pth")
    code, wavs, said = run("-t", picture, "-t", picture, "--model_name", blind, "--translator", "thesis.pth")
    assert code == 0 and len(wavs) == 1
    assert said.count("laion_clap") == 1 and "thesis.pth does not say which spaces" in said


def test_a_file_that_named_no_spaces_is_no_default_when_it_is_installed(
    run: Run, blind: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(Translator(8).state_dict(), "wit_cos_512.pth")
    assert translator_main(["install", "wit_cos_512.pth", "--model", str(blind)]) == 0
    assert "wit_cos_512.pth does not say which spaces" in capsys.readouterr().err
    code, lines, _ = run("--list", "--model_name", blind)
    assert code == 0 and [line.split()[1] for line in lines if line.startswith("* ")] == ["memory"]
    assert [line for line in lines if line.startswith("  wit_cos_512")]
    code, (wav,), said = run("-t", picture, "--model_name", blind)
    assert code == 0 and "no trained translator" in said and "laion_clap" not in said
    code, (wav,), said = run("-t", picture, "--model_name", blind, "--translator", "wit_cos_512")
    assert code == 0 and said.count("laion_clap") == 1
    assert json.loads(Path(wav).with_suffix(".json").read_text())["translator"]["spaces"] == "assumed"
    install(blind, tmp_path / "cache", "ridge")
    code, (wav,), said = run("-t", picture, "--model_name", blind)
    assert code == 0 and json.loads(Path(wav).with_suffix(".json").read_text())["translator"]["name"] == "ridge"


def test_the_list_of_one_model(run: Run, blind: Path, tmp_path: Path) -> None:
    install(blind, tmp_path / "cache", "wit_cos_512")
    code, lines, _ = run("--list", "--model_name", blind)
    said = "\n".join(lines)
    assert code == 0 and "* wit_cos_512" in said and "made at first use" in said and "AudioLDM's" not in said
    code, (line,), _ = run("--list", "--model_name", "audioldm-s-full-v2")
    assert code == 0 and "is not downloaded" in line
