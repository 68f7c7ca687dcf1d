"""The command as a person meets it: what it writes, where, and what it says when something is wrong."""

from __future__ import annotations

import base64
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import audioldm
from audioldm import registry
from audioldm.commands import generate as cli
from translator.model import Translator

ROOT = Path(audioldm.__file__).parents[1]
ERROR = "audioldm: error: "


@pytest.fixture
def command(tiny_folder: Path, tmp_path: Path, monkeypatch, capsys):
    """Runs the command in an empty folder with the tiny model: exit code, lines of stdout and of stderr.

    Lines about the progress are left out: a slow machine has some.
    """
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def run(*arguments: str, model: str = str(tiny_folder)) -> tuple[int, list[str], list[str]]:
        code = cli.main(["--model_name", model, *arguments])
        out, err = capsys.readouterr()
        return code, out.splitlines(), [line for line in err.splitlines() if " steps are done" not in line]

    return run


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def everything() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*"))


# What is written


def test_wavs_and_their_jsons(command, picture: Path) -> None:
    code, out, err = command("-t", str(picture), "-b", "3", "-dur", "0.77", "-n", "2", "--seed", "5")
    assert (code, err) == (0, [])
    assert len(out) == 3 and files() == sorted(out + [name.replace(".wav", ".json") for name in out])
    for index, name in enumerate(out):
        assert name.startswith("output/") and name.endswith(f"_picture_{index}.wav")
        info = soundfile.info(name)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        assert info.frames == round(0.77 * 16_000)
        record = json.loads(Path(name).with_suffix(".json").read_text())
        assert record["file"] == Path(name).name and record["prompt"] == str(picture)
        assert (record["kind"], record["item"], record["options"]["seed"]) == ("image", index, 5)
        assert record["translator"]["name"] == "tiny_cos" and len(record["model"]["sha256"]) == 64
        assert record["elapsed_seconds"] > 0 and record["versions"]["audioldm"] == audioldm.__version__


def test_the_json_is_enough_to_make_the_same_bytes(command) -> None:
    _, out, _ = command("-t", "waves at the sea", "-b", "2", "-n", "2", "-dur", "0.6", "--sampler", "ddim")
    for name in out:
        record = json.loads(Path(name).with_suffix(".json").read_text())
        options = record["options"]
        again = ["-t", record["prompt"], "--seed", str(record["noise_seed"]), "-b", "1", "-n", "1"]
        again += ["-dur", str(options["duration"]), "--ddim_steps", str(options["ddim_steps"])]
        again += ["-gs", str(options["guidance_scale"]), "--sampler", options["sampler"], "-s", "again"]
        code, (copy,), _ = command(*again)
        assert code == 0 and Path(copy).read_bytes() == Path(name).read_bytes()


def test_nothing_is_overwritten(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audioldm.outputs.destination.get_time", lambda: "now")
    for _ in range(3):
        assert command("-t", "rain", "-dur", "0.5")[0] == 0
    names = [Path(name).name for name in files() if name.endswith(".wav")]
    assert names == ["now_rain_0-2.wav", "now_rain_0-3.wav", "now_rain_0.wav"]


def test_output_to_a_named_file(command) -> None:
    assert command("-t", "rain", "-dur", "0.5", "-o", "there/my.wav")[:2] == (0, ["there/my.wav"])
    before = Path("there/my.wav").read_bytes(), Path("there/my.json").read_bytes()
    code, out, err = command("-t", "a dog", "-dur", "0.5", "-o", "there/my.wav")
    assert (code, out) == (2, []) and len(err) == 1 and "already exists" in err[0]
    assert before == (Path("there/my.wav").read_bytes(), Path("there/my.json").read_bytes())
    code, out, _ = command("-t", "rain", "-dur", "0.5", "-b", "2", "-o", "there/my.wav")
    assert (code, out) == (0, ["there/my-1.wav", "there/my-2.wav"])
    Path("there/other.json").write_text("mine")
    assert command("-t", "rain", "-dur", "0.5", "-o", "there/other.wav")[0] == 2
    named = ("my-1.json", "my-1.wav", "my-2.json", "my-2.wav", "my.json", "my.wav", "other.json")
    assert files() == [f"there/{name}" for name in named]


def test_a_data_uri_is_shortened(command, picture: Path) -> None:
    uri = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    code, (name,), _ = command("-t", uri, "-dur", "0.5")
    record = json.loads(Path(name).with_suffix(".json").read_text())
    assert code == 0 and name.endswith("_image_0.wav")
    assert len(record["prompt"]) < 120 and record["prompt"].startswith("data:image/png;base64,")


@pytest.mark.parametrize("words", ["data: a modem that dials, " * 9, "rain and wind, " * 200])
def test_a_long_text_is_kept_whole(command, words: str) -> None:
    code, (name,), _ = command("-t", words, "-dur", "0.5")
    record = json.loads(Path(name).with_suffix(".json").read_text())
    assert code == 0 and record["prompt"] == words.strip()


def test_a_password_in_a_url_is_not_recorded(command, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audioldm.inputs.images.download", lambda *_, **__: picture.read_bytes())
    for user in ("me:secret@", "me@", "me:se@cret@"):
        code, (name,), _ = command("-t", f"HTTP://{user}example.org:8000/a@b.png?c=d@e", "-dur", "0.5")
        record = json.loads(Path(name).with_suffix(".json").read_text())
        assert code == 0 and record["prompt"] == "HTTP://example.org:8000/a@b.png?c=d@e"


def test_a_sound_file_as_prompt(command) -> None:
    command("-t", "rain", "-dur", "0.6", "-o", "rain.wav")
    code, (name,), _ = command("-f", "rain.wav", "-dur", "0.5")
    assert code == 0 and json.loads(Path(name).with_suffix(".json").read_text())["kind"] == "audio"


def record_of(name: str) -> dict:
    return json.loads(Path(name).with_suffix(".json").read_text())


def test_a_mixture_and_what_it_leaves_on_disk(command, picture: Path) -> None:
    command("-t", "rain", "-dur", "0.6", "-o", "rain.wav")
    mixed = ("-t", "a dog", "-t", str(picture), "-f", "rain.wav", "--weights", "1", "0.5", "-0.25")
    code, (name,), err = command(*mixed, "-dur", "0.5", "--negative_prompt", "waves", "--save_embedding", "new/v.npy")
    record, vector = record_of(name), np.load("new/v.npy")
    assert (code, err) == (0, []) and "_a_dog_picture_rain" in name
    assert [(one["prompt"], one["kind"], one["weight"]) for one in record["prompts"]] == [
        ("a dog", "text", 1), (str(picture), "image", 0.5), ("rain.wav", "audio", -0.25),
    ]  # fmt: skip
    assert all(len(one["content_sha256"]) == 64 for one in record["prompts"])
    assert record["negative_prompt"]["prompt"] == "waves" and record["translator"]["name"] == "tiny_cos"
    assert vector.shape == (512,) and vector.dtype == np.float32 and np.linalg.norm(vector) == pytest.approx(1)
    code, (again,), _ = command("-t", "new/v.npy", "-dur", "0.5", "--negative_prompt", "waves")
    assert code == 0 and Path(again).read_bytes() == Path(name).read_bytes()
    assert record_of(again)["kind"] == "vector"
    before = Path("new/v.npy").read_bytes()
    assert command("-t", "a dog", "-dur", "0.5", "--save_embedding", "new/v.npy")[0] == 2
    assert Path("new/v.npy").read_bytes() == before


MODES = {
    "transfer": ["--transfer_strength", "0.7"],
    "inpaint": ["--time_range", "0.2", "0.4", "--frequency_range", "1000", "2000"],
    "superres": [],
}


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_that_begins_with_a_sound(command, mode: str) -> None:
    rng = np.random.default_rng(0)
    soundfile.write("there.flac", rng.uniform(-0.5, 0.5, (33_075, 2)), 44_100, subtype="PCM_24")
    asked = ("--mode", mode, "-t", "rain", "-f", "there.flac", *MODES[mode])
    code, out, err = command(*asked, "-b", "2", "-n", "2")
    loud = ("too loud for full scale", "beyond full scale")  # random networks may be
    err = [line for line in err if not any(words in line for words in loud)]
    assert (code, err, len(out)) == (0, [], 2)
    for name in out:
        record = record_of(name)
        assert soundfile.info(name).frames == 12_000, "as long as the file"
        assert record["options"]["mode"] == mode and record["similarity"] is not None
        assert record["original"]["file"] == "there.flac" and len(record["original"]["content_sha256"]) == 64
        assert (record["options"].get("transfer_strength") == 0.7) == (mode == "transfer")
        assert ("frequency_range" in record["options"]) == (mode != "transfer")
        code, (again,), _ = command(*asked, "--seed", str(record["noise_seed"]), "-n", "1", "-s", "again")
        assert code == 0 and Path(again).read_bytes() == Path(name).read_bytes()
    assert record["options"].get("frequency_range") == {"inpaint": [1000, 2000], "superres": [4000, 8000]}.get(mode)
    code, (cut,), _ = command(*asked, "-dur", "0.5")
    assert code == 0 and soundfile.info(cut).frames == 8_000


def test_the_default_model_is_announced(command, tiny_folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(registry, "models_dir", lambda: tiny_folder.parent)
    monkeypatch.setattr(registry, "DEFAULT_MODEL", "tiny")
    code = cli.main(["-t", "rain", "-dur", "0.5"])
    out, err = capsys.readouterr()
    assert code == 0 and len(out.splitlines()) == 1
    assert err.count("\n") == 1 and "tiny" in err and "--model_name" in err


def test_list_names_models_and_translators(tiny_folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(registry, "models_dir", lambda: tiny_folder.parent)
    assert cli.main(["--list"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "tiny: installed" in out
    assert ["*", "tiny_cos", "cos", "16"] in [line.split() for line in out.splitlines()] and "tiny_mse" in out


def test_version_and_help(capsys) -> None:
    for flag, expected in (("-V", audioldm.__version__), ("-h", "--n_candidate_gen_per_text")):
        with pytest.raises(SystemExit) as ended:
            cli.main([flag])
        assert ended.value.code == 0 and expected in capsys.readouterr().out


# What is refused

BAD = {
    "no prompt": [],
    "empty prompt": ["-t", ""],
    "blank prompt": ["-t", "  \n "],
    "text and file": ["-t", "rain", "-f", "rain.wav"],
    "missing image": ["-t", "none.jpg"],
    "file scheme": ["-t", "file:///etc/passwd"],
    "ftp scheme": ["-t", "ftp://example.org/dog.jpg"],
    "malformed data URI": ["-t", "data:image/png;base64,@@@"],
    "not an image": ["-t", "notes.png"],
    "missing sound": ["-f", "none.wav"],
    "not a sound": ["-f", "notes.png"],
    "a transfer without a sound": ["-t", "rain", "--mode", "transfer"],
    "a transfer of a missing sound": ["-t", "rain", "--mode", "transfer", "-f", "none.wav"],
    "a transfer of no sound": ["-t", "rain", "--mode", "transfer", "-f", "notes.png"],
    **{f"{mode} without a prompt": ["--mode", mode, "-f", "noise.wav"] for mode in ("transfer", "superres")},
    **{f"--transfer_strength {x}": ["-t", "rain", "--mode", "transfer", "-f", "noise.wav", "--transfer_strength", x]
       for x in ("-0.1", "1.1", "nan", "x")},
    "a strength in another mode": ["-t", "rain", "--transfer_strength", "0.5"],
    "a range in another mode": ["-t", "rain", "--time_range", "0", "1"],
    "inpaint nothing": ["-t", "rain", "--mode", "inpaint", "-f", "noise.wav"],
    **{f"--time_range {x}": ["-t", "rain", "--mode", "inpaint", "-f", "noise.wav", "--time_range", *x.split()]
       for x in ("1 0", "-1 1", "nan 1", "0 inf", "2 3", "0", "0 x")},
    **{f"--frequency_range {x}": ["-t", "a", "--mode", "superres", "-f", "noise.wav", "--frequency_range", *x.split()]
       for x in ("100 100", "0 9000", "x 1")},
    "too long to edit whole": ["-t", "rain", "--mode", "transfer", "-f", "long.wav"],
    "a weight too few": ["-t", "rain", "-t", "a dog", "--weights", "1"],
    "a weight too many": ["-t", "rain", "--weights", "1", "2"],
    "no weight": ["-t", "rain", "--weights", "0"],
    **{f"--weights {x}": ["-t", "rain", "--weights", x] for x in ("nan", "inf", "x")},
    "prompts that cancel out": ["-t", "rain", "-t", "rain", "--weights", "1", "-1"],
    "an empty prompt among others": ["-t", "rain", "-t", ""],
    "negative prompt without guidance": ["-t", "rain", "--negative_prompt", "a dog", "-gs", "1"],
    "missing negative image": ["-t", "rain", "--negative_prompt", "none.jpg"],
    **{f"-t {name}.npy": ["-t", f"{name}.npy"]
       for name in ("none", "text", "zero", "nan", "small", "two", "whole", "pickle", "zip", "huge", "scalar")},
    "embedding exists": ["-t", "rain", "--save_embedding", "zero.npy"],
    "embedding is no npy": ["-t", "rain", "--save_embedding", "rain.txt"],
    "embedding under a file": ["-t", "rain", "-s", "new", "--save_embedding", "notes.png/rain.npy"],
    "unknown mode": ["-t", "rain", "--mode", "dance"],
    "unknown flag": ["-t", "rain", "--loudness", "3"],
    "unknown translator": ["-t", "rain", "--translator", "tiny_cosine"],
    "empty translator": ["-t", "rain", "--translator", ""],
    "missing translator file": ["-t", "rain", "--translator", "none/x.pth"],
    "unknown sampler": ["-t", "rain", "--sampler", "euler"],
    "unknown device": ["-t", "rain", "--device", "abacus"],
    "unknown precision": ["-t", "rain", "--precision", "fp8"],
    "absent device": ["-t", "rain", "--device", "cuda:99"],
    "absurd device": ["-t", "rain", "--device", "cuda:" + "9" * 20],
    "empty device": ["-t", "rain", "--device", ""],
    "empty model": ["-t", "rain", "--model_name", ""],
    "empty ckpt": ["-t", "rain", "-ckpt", ""],
    "a sound of no length": ["-f", "short.wav"],
    "a sliver": ["-t", "sliver.png"],
    "damaged translator": ["-t", "rain", "--translator", "damaged.pth"],
    "translator of another size": ["-t", "picture.png", "--translator", "small.pth"],
    "translator of no numbers": ["-t", "picture.png", "--translator", "nan.pth"],
    "output is no wav": ["-t", "rain", "-o", "rain.mp3"],
    "output is a folder": ["-t", "rain", "-o", "folder.wav"],
    "output name too long": ["-t", "rain", "-o", "x" * 300 + ".wav"],
    "folder is a file": ["-t", "rain", "-s", "notes.png"],
    "folder under a file": ["-t", "rain", "-o", "notes.png/rain.wav"],
    "a folder as ckpt": ["-t", "rain", "-ckpt", "folder.wav"],
    **{f"{flag} {value}": ["-t", "rain", flag, value]
       for flag, values in {
           "-dur": ("0", "-1", "0.4", "601", "1e30", "nan", "inf", "five", ""),
           "--ddim_steps": ("0", "-5", "1001", "2.5", "many"),
           "-gs": ("-0.1", "-2", "1000", "nan", "x"),
           "-b": ("0", "-1", "65", "1.5", "x"),
           "-n": ("0", "-1", "33", "x"),
           "--batch": ("0", "-1", "65", "x"),
           "--seed": ("-1", "9223372036854775808", "1.5", "x"),
       }.items() for value in values},
}  # fmt: skip


def hostile_vectors() -> None:
    """Files that are named like saved vectors."""
    Path("text.npy").write_text("not numbers")
    np.save("zero.npy", np.zeros(512))
    np.save("nan.npy", np.full(512, np.nan))
    np.save("small.npy", np.ones(8))
    np.save("two.npy", np.ones((2, 512)))
    np.save("whole.npy", np.ones(512, dtype=int))
    np.save("scalar.npy", np.array(1.0))
    np.save("pickle.npy", np.array([Path()], dtype=object), allow_pickle=True)
    with open("zip.npy", "wb") as file:
        np.savez(file, a=np.ones(512))
    header = np.lib.format.magic(1, 0) + (118).to_bytes(2, "little")  # says it has a petabyte, and has nothing
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (125000000000000,), }"
    Path("huge.npy").write_bytes(header + text.ljust(117).encode() + b"\n")


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence_and_exit_code_2(command, arguments: list[str]) -> None:
    Path("notes.png").write_text("not an image")
    Path("folder.wav").mkdir()
    soundfile.write("short.wav", np.zeros(0), 192_000)
    Image.new("L", (1, 60_000)).save("sliver.png")
    Image.linear_gradient("L").save("picture.png")
    Path("damaged.pth").touch()
    torch.save(Translator(4, dim=8).state_dict(), "small.pth")
    torch.save({name: tensor * math.nan for name, tensor in Translator(4).state_dict().items()}, "nan.pth")
    hostile_vectors()
    rng = np.random.default_rng(0)
    soundfile.write("noise.wav", rng.uniform(-0.5, 0.5, 16_000), 16_000)
    soundfile.write("long.wav", np.zeros(605 * 1000), 1000)
    before = everything()
    code, out, err = command(*arguments)
    assert (code, out) == (2, [])
    assert len(err) == 1 and err[0].startswith(ERROR) and len(err[0]) > len(ERROR) + 15
    assert everything() == before


@pytest.mark.parametrize(
    "arguments",
    [["--device", "cuda:99"], ["--translator", "damaged.pth"], ["--translator", "small.pth"], ["-gs", "-1"]],
)
def test_an_error_comes_before_the_notice_and_the_folder(
    arguments: list[str], command, tiny_folder: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(registry, "models_dir", lambda: tiny_folder.parent)
    monkeypatch.setattr(registry, "DEFAULT_MODEL", "tiny")
    Path("damaged.pth").touch()
    torch.save(Translator(4, dim=8).state_dict(), "small.pth")
    before = everything()
    assert cli.main(["-t", "rain", "-s", "new/folder", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(ERROR) and err.count("\n") == 1 and everything() == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-t", "rain", "--translator", "tiny_coz"], "tiny_cos"),
        (["-t", "rain", "-dur", "601"], "600"),
        (["-t", "rain", "-dur", "x"], "-dur"),
        (["-t", "rain", "--mode", "transfer"], "-f"),
        (["-t", "rain", "-t", "a dog", "--weights", "1"], "1 weights were given for 2 prompts"),
        (["-t", "rain", "--negative_prompt", "x", "-gs", "1"], "-gs"),
        (["-t", "none.jpg"], "none.jpg"),
    ],
)
def test_the_sentence_says_what_helps(command, arguments: list[str], named: str) -> None:
    assert named in command(*arguments)[2][0]


def test_an_unknown_model_brings_the_nearest_names(command, tiny_folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(registry, "models_dir", lambda: tiny_folder.parent)
    code, _, (sentence,) = command("-t", "rain", model="tinny")
    assert code == 2 and "did you mean tiny?" in sentence
    code, _, (sentence,) = command("-t", "rain", model="no/such/folder")
    assert code == 2 and "no/such/folder" in sentence


def test_the_unexpected_is_one_sentence_too(command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the\nmoon is full")

    monkeypatch.setattr("audioldm.generation.decode", fail)
    Path("mine").mkdir()
    for folder in ("new/folder", "mine/folder", "mine"):
        code, out, err = command("-t", "rain", "-dur", "0.5", "-s", folder)
        assert (code, out, len(err), everything()) == (1, [], 1, ["mine"])
        assert "the moon is full" in err[0]
    monkeypatch.setenv("AUDIOLDM_DEBUG", "1")
    with pytest.raises(RuntimeError):
        command("-t", "rain", "-dur", "0.5")


def test_a_failing_write_leaves_nothing(command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("soundfile.write", fail)
    code, out, err = command("-t", "rain", "-dur", "0.5")
    assert (code, out, len(err), files()) == (130, [], 1, [])


def test_ctrl_c_ends_with_130_and_whole_files(tiny_folder: Path, tmp_path: Path) -> None:
    arguments = ["-t", "rain", "--model_name", str(tiny_folder), "-s", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "audioldm", *arguments, "-dur", "0.5", "-b", "64", "--ddim_steps", "40"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout and process.stdout.readline().endswith(".wav\n")  # it is in the midst of the second
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == "audioldm: interrupted\n"
    wavs = sorted(tmp_path.glob("*.wav"))
    assert 1 <= len(wavs) < 64 and all(soundfile.info(wav).frames == 8000 for wav in wavs)
    assert sorted(tmp_path.iterdir()) == sorted(wavs + [wav.with_suffix(".json") for wav in wavs])


def test_a_time_range_may_lie_anywhere_in_a_long_sound(tiny_folder: Path, tmp_path: Path, capfd) -> None:
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).normal(size=8 * 16_000) * 0.1, 16_000)
    command = ["-ckpt", str(tiny_folder), "--mode", "inpaint", "-f", str(tmp_path / "long.wav"), "-t", "a dog barking",
               "--ddim_steps", "2", "-s", str(tmp_path / "out"), "--time_range"]  # fmt: skip
    assert cli.main([*command, "6", "7"]) == 0
    assert soundfile.info(capfd.readouterr().out.strip()).duration == 8
    assert cli.main([*command, "9", "10"]) == 2
    assert "ends at 8 s" in capfd.readouterr().err
