"""The command ``audioldm-translator`` as a person meets it, and ``audioldm --translator`` with what it made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pairs import CLAP, CLIP, make_rows, write_shard
from PIL import Image
from safetensors import safe_open

import audioldm.commands.generate
from audioldm import registry
from audioldm.checkpoints.layout import clap_fingerprint, clip_fingerprint
from audioldm.commands.translator import main
from audioldm.latent_diffusion.model import LatentDiffusion
from translator.model import Translator, load_translator, save_translator
from translator.settings import EIGHTEEN
from translator.shards.text_files import write_text_pair

ERROR = "audioldm-translator: error: "
QUICK = ("--epochs", "2", "--hidden", "16")


@pytest.fixture
def command(tmp_path: Path, monkeypatch, capsys):
    """Runs the command in an empty folder, with a cache of its own: exit code, lines of stdout and of stderr."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("AUDIOLDM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, list[str], list[str]]:
        code = main(list(map(str, arguments)))
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def spaces(tiny_folder: Path) -> tuple[str, str]:
    """Fingerprints of the tiny model's."""
    weights = [tiny_folder / part / "model.safetensors" for part in ("clip", "clap")]
    return clip_fingerprint(weights[0]), clap_fingerprint(weights[1])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder / "audiocaps.parquet", make_rows(150))
    write_shard(folder / "wit.parquet", make_rows(100, "w", "image", seed=1), "wit")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(result: tuple[int, list[str], list[str]], *words: str) -> None:
    """Exit code 2, one line, no results."""
    code, out, err = result
    assert (code, out, len(err)) == (2, [], 1), result
    assert err[0].startswith(ERROR) and all(word in err[0] for word in words), err[0]


# Quick, and in words


def test_help_and_list_are_quick_and_need_no_torch() -> None:
    """In a process of their own, as torch alone takes seconds to import."""
    for arguments in ("['-h']", "['train', '-h']", "['list']", "['train', 'x', '--data', '/nowhere']"):
        code = f"""
import sys
from audioldm.commands.translator import main
try:
    main({arguments})
except SystemExit:
    pass
heavy = {{"torch", "pyarrow", "matplotlib", "transformers", "diffusers"}} & set(sys.modules)
assert not heavy, heavy
"""
        root = Path(audioldm.__file__).parents[1]
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
        assert done.returncode == 0, done.stderr
    code = "import sys, translator.cli; assert not {'torch', 'numpy', 'audioldm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


@pytest.mark.parametrize(
    "arguments, words",
    [((), "COMMAND"), (("fly",), "invalid choice"), (("train", "all"), "--data"), (("show",), "FILE"),
     (("train", "all", "--data", "x", "--epochs", "many"), "invalid int"), (("list", "--mod", "x"), "unrecognized")],
)  # fmt: skip
def test_wrong_flags(command, arguments: tuple[str, ...], words: str) -> None:
    refused(command(*arguments), words, "-h lists the options")


# list


def test_list(command, tiny_folder: Path, spaces: tuple[str, str]) -> None:
    code, out, err = command("list", "--model", tiny_folder)
    assert (code, err) == (0, []) and all(space in out[0] for space in spaces) and out[0].startswith("tiny:")
    assert out[1].split() == ["name", "loss", "width", "data", "R@1"]
    names = [line[2:].split()[0] for line in out[2:]]
    assert names == sorted([*EIGHTEEN, "tiny_cos", "tiny_mse", "memory"])
    by_name = dict(zip(names, out[2:], strict=True))
    assert by_name["tiny_cos"].split() == ["*", "tiny_cos", "cos", "16"]
    assert by_name["wit_cos_512"].split(maxsplit=1) == ["wit_cos_512", "not installed"]
    assert by_name["memory"].endswith("made at first use")


def test_a_list_downloads_nothing(command) -> None:
    code, out, err = command("list", "--model", "audioldm-s-full-v2")
    assert (code, len(out), err) == (0, 1, []) and "is not downloaded" in out[0]


def test_list_of_the_starter_and_of_nothing(command) -> None:
    code, out, _ = command("list")
    assert code == 0 and out[0].startswith("starter:") and any(line.startswith("* ") for line in out[1:])
    assert all(line.endswith("%") for line in out if line[2:].startswith(("ridge ", "wit_cos_512 ")))
    refused(command("list", "--model", "nowhere"), "nowhere")


# train


def test_train_several(command, shards: Path) -> None:
    names = ("wit_cos_256", "audiocaps_wit_cl_256", "ridge", "procrustes", "memory")
    code, out, err = command("train", *names, "--data", shards, *QUICK, "--captions", 20, "--half")
    assert (code, out) == (0, [])
    assert sorted(files(Path("translators"))) == sorted(
        f"{name}.{suffix}" for name in names
        for suffix in (("csv", "json", "png", "safetensors") if "_" in name else ("json", "safetensors"))
    )  # fmt: skip
    assert any(line.startswith("wit: epoch 2, 1 of 1 learning") and " left" in line for line in err)
    before = files(Path("translators"))
    code, _, err = command("train", *names, "--data", shards, *QUICK, "--captions", 20, "--half")
    assert code == 0 and files(Path("translators")) == before
    assert [f"{name}: already in translators" for name in names[:2]] == [line for line in err if "already" in line]
    wit = shards / "wit.parquet"
    refused(command("train", "wit_cos_256", "--data", wit, *QUICK, "--lr", "0.5"), "already exists, made with other")
    assert files(Path("translators")) == before


def test_train_all_trains_the_eighteen(command, shards: Path) -> None:
    code, _, err = command("train", "all", "--data", shards, "--epochs", "1", "--hidden", "8", "-o", "new/zoo")
    assert code == 0 and {path.stem for path in Path("new/zoo").glob("*.safetensors")} == set(EIGHTEEN)
    epochs = [line for line in err if ": epoch 1, " in line]
    assert sorted(line.split(":")[0] for line in epochs) == ["audiocaps", "audiocaps+wit", "wit"], "one pass for each"
    assert all(", 6 of 6 learning" in line for line in epochs)


def test_flags_change_the_settings(command, shards: Path) -> None:
    flags = {"epochs": 3, "lr": 0.01, "hidden": 12, "batch": 16, "dropout": 0.1, "temperature": 0.2, "noise": 0.5,
             "patience": 1, "gain": 0.5, "held_out": 0.3, "seed": 9}  # fmt: skip
    words = [word for flag, value in flags.items() for word in (f"--{flag}", value)]
    name = "audiocaps_wit_cl_512_centred"
    assert command("train", name, "--data", shards, *words, "--weights", "wit=3", "audiocaps=1")[0] == 0
    made = json.loads(Path(f"translators/{name}.json").read_text())
    assert {flag: made["settings"][flag] for flag in flags} == flags
    assert made["settings"]["weights"] == [1, 3] and made["settings"]["centred"]
    assert made["data"]["wit"]["held_out"] > 15


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("wit_cos_512", "--epochs", 0), "epochs must be 1 or more"), (("wit_cos_512", "--lr", "nan"), "lr must be"),
        (("wit_cos_512", "--held_out", 1), "held_out must be between"), (("ridge", "--held_out", 0), "held-out share"),
        (("wit_cos_512", "--dropout", 1), "dropout must be"), (("wit_cos",), '"wit_cos" is not the name of a'),
        (("clotho_cos_512",), "not the name of a trainable translator"),
        (("audiocaps_wit_cos_512", "--weights", "wit=1"), "--weights needs a share for each source: audiocaps=1 wit=1"),
        (("audiocaps_wit_cos_512", "--weights", "wit=1", "audiocaps=x"), "--weights needs a share for each"),
        (("audiocaps_wit_cos_512", "--weights", "wit=1", "audiocaps=0"), "weights above 0"),
        (("wit_cos_512", "--device", "cuda:77"), 'the device "cuda:77" is not available; --device cpu'),
        (("wit_cos_512", "--device", "toaster"), "toaster"), (("memory", "--captions", 1), "two different captions"),
        (("wit_cos_512", "-o", "taken"), "taken is a file; --out must be a folder"),
    ],
)  # fmt: skip
def test_trainings_that_are_refused(command, shards: Path, arguments: tuple[object, ...], words: str) -> None:
    Path("taken").write_text("mine")
    refused(command("train", *arguments, "--data", shards), words)
    assert files(Path()) == {"taken": b"mine"}


def test_data_that_lack(command, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    only = shards / "wit.parquet"
    refused(command("train", "wit_cos_512", "--data", "nowhere"), "no such file or folder: nowhere")
    refused(command("train", "wit_cos_512", "--data", tmp_path / "empty"), "there are no .parquet files in")
    refused(command("train", "all", "--data", only), "_mse_256 learns from audiocaps", "no shards of audiocaps")
    refused(command("train", "wit_cos_512", "--data", only, only), "wit.parquet is given twice")
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(only.read_bytes()[:5000])
    refused(command("train", "wit_cos_512", "--data", cut), "cut.parquet is not a readable Parquet file", "cut short")
    other = write_shard(tmp_path / "other.parquet", make_rows(9), clap_space="e" * 12)
    refused(command("train", "wit_cos_512", "--data", only, other), "different spaces", CLAP, "e" * 12)
    rows = make_rows(60, "w")
    rows[40]["clip"] = rows[40]["clip"] * np.nan
    broken = write_shard(tmp_path / "broken.parquet", rows, "wit")
    for name in ("wit_cos_512", "ridge", "memory"):
        refused(command("train", name, "--data", broken, "--held_out", "0.1"), "damaged: 1 of its clip vectors")
    assert files(Path()) == {}


def test_an_interrupt_is_no_error(command, shards: Path, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("translator.training.train.judge", interrupt)
        code, _, err = command("train", "wit_cos_256", "--data", shards, *QUICK)
    assert (code, err[-1]) == (130, "audioldm-translator: interrupted") and files(Path()) == {}
    assert command("train", "wit_cos_256", "--data", shards, *QUICK)[0] == 0


# show


def test_show(command, shards: Path) -> None:
    command("train", "wit_cos_256", "ridge", "memory", "--data", shards, *QUICK)
    for name, kind in (("wit_cos_256", "Translator"), ("ridge", "LinearTranslator"), ("memory", "Memory")):
        code, out, err = command("show", f"translators/{name}.safetensors")
        assert (code, err) == (0, []) and f": {kind}, " in out[0] and f"  clip_space: {CLIP}" in out
        assert json.loads("\n".join(out[out.index("{") :]))["name"] == name
    torch.save(Translator(16).state_dict(), "thesis.pth")
    code, out, _ = command("show", "thesis.pth")
    assert code == 0 and "  fc1.weight   16 x 512" in out and "does not name its spaces" in out[-1]


def test_show_what_is_none(command) -> None:
    Path("words.safetensors").write_text("hello")
    refused(command("show", "words.safetensors"), "words.safetensors is not a readable translator file")
    refused(command("show", "nothing.safetensors"), "no such translator file: nothing.safetensors")
    save_translator("x.safetensors", Translator(8), {"clip_space": CLIP, "clap_space": CLAP})
    Path("x.json").write_text("{")
    refused(command("show", "x.safetensors"), "x.json")


# install


def make(path: Path, spaces: tuple[str, str], dim: int = 512) -> Path:
    save_translator(path, Translator(16, dim), {"clip_space": spaces[0], "clap_space": spaces[1], "data": "mine"})
    return path


def test_installed_is_found_by_name(command, tiny_folder: Path, spaces, tmp_path: Path, picture: Path, capsys) -> None:
    file = make(tmp_path / "mine.safetensors", spaces)
    file.with_suffix(".json").write_text('{"all": "of it"}')
    code, out, err = command("install", file, "--model", tiny_folder)
    target = tmp_path / "cache" / "translators" / "-".join(spaces) / "mine.safetensors"
    assert (code, out, err) == (0, [], [f"installed: {target}"])
    assert target.with_suffix(".json").read_text() == '{"all": "of it"}'
    assert load_translator(target).metadata["data"] == "mine"
    assert any("mine" in line and "not installed" not in line for line in command("list", "--model", tiny_folder)[1])
    arguments = ["--model_name", str(tiny_folder), "-t", str(picture), "-dur", "0.5", "--translator", "mine"]
    assert audioldm.commands.generate.main(arguments) == 0
    (wav,) = capsys.readouterr().out.splitlines()
    assert "mine" in json.dumps(json.loads(Path(wav).with_suffix(".json").read_text()))
    before = files(tmp_path / "cache")
    make(file, spaces)
    refused(command("install", file, "--model", tiny_folder), "called mine is already installed", str(target))
    assert files(tmp_path / "cache") == before


def test_the_thesis_files_install_for_a_model_that_is_named(command, tiny_folder: Path, spaces, tmp_path: Path) -> None:
    network = Translator(16).eval()
    torch.save(network.state_dict(), "wit_cos_16.pth")
    refused(command("install", "wit_cos_16.pth"), "does not name its spaces; --model names a model")
    assert not (tmp_path / "cache").exists()
    assert command("install", "wit_cos_16.pth", "--model", tiny_folder)[0] == 0
    model, clip = LatentDiffusion.from_folder(tiny_folder, "cpu"), torch.randn(1, 512)
    assert torch.equal(registry.load_translator(model, "wit_cos_16")(clip), network(clip))
    torch.save(Translator(16, 32).state_dict(), "small.pth")
    refused(command("install", "small.pth", "--model", tiny_folder), "32", "512")


def test_a_damaged_file_is_reported_before_the_model(command) -> None:
    torch.save(torch.nn.Linear(2, 2), "whole.pth")
    refused(command("install", "whole.pth", "--model", "nowhere"), "whole.pth is not a readable translator file")


def test_wrong_spaces_do_not_install(command, tiny_folder: Path, spaces, tmp_path: Path) -> None:
    file = make(tmp_path / "mine.safetensors", (CLIP, CLAP))
    refused(command("install", file, "--model", tiny_folder), f"spaces {CLIP} and {CLAP}, not to those of tiny")
    file.write_bytes(file.read_bytes()[:-100])
    refused(command("install", file), "mine.safetensors is not a readable translator file")
    refused(command("install", "nothing.safetensors"), "no such translator file")
    assert not (tmp_path / "cache").exists()


def test_a_file_cannot_say_where_it_is_installed(command, tmp_path: Path) -> None:
    file = make(tmp_path / "evil.safetensors", (f"../../../..{tmp_path}/x", CLAP))
    before = files(tmp_path)
    refused(command("install", file), "evil.safetensors is not a readable translator file")
    assert files(tmp_path) == before


def test_a_half_file_is_installed_as_it_is(command, tmp_path: Path) -> None:
    file = make(tmp_path / "mine.safetensors", (CLIP, CLAP))
    assert command("install", file)[0] == 0
    assert (tmp_path / "cache" / "translators" / f"{CLIP}-{CLAP}" / file.name).read_bytes() == file.read_bytes()


# import


def test_text_files_become_a_shard_that_trains(command, tiny_folder: Path, spaces) -> None:
    Path("texts").mkdir()
    for row in make_rows(60):
        write_text_pair(Path("texts") / f"{row['id']}.txt", row["clip"], row["clap"])
    flags = ("--source", "audiocaps", "--kind", "text")
    refused(command("import", "texts", "-o", "a.parquet", *flags), "give --model or --spaces CLIP CLAP")
    refused(command("import", "nowhere", "-o", "a.parquet", *flags, "--spaces", CLIP, CLAP), "no such file or folder")
    assert not Path("a.parquet").exists()
    code, _, err = command("import", "texts", "-o", "a.parquet", *flags, "--spaces", CLIP, CLAP)
    assert (code, err) == (0, ["60 pairs in a.parquet"])
    before = Path("a.parquet").read_bytes()
    refused(command("import", "texts", "-o", "a.parquet", *flags, "--spaces", CLIP, CLAP), "a.parquet already exists")
    assert Path("a.parquet").read_bytes() == before
    refused(command("import", "texts", "-o", "b", *flags, "--model", "nowhere"), "must end in .parquet, not b")
    refused(command("import", "texts", "-o", "b.parquet", *flags, "--model", tiny_folder), "model's spaces have 512")
    for row in make_rows(60, dim=512):
        Path("texts", f"{row['id']}.txt").unlink()
        write_text_pair(Path("texts") / f"{row['id']}.txt", row["clip"], row["clap"])
    assert command("import", "texts", "-o", "b.parquet", *flags, "--model", tiny_folder)[0] == 0
    assert command("train", "audiocaps_cos_256", "--data", "b.parquet", "--held_out", "0.2", *QUICK)[0] == 0
    with safe_open("translators/audiocaps_cos_256.safetensors", "pt") as file:
        assert (file.metadata()["clip_space"], file.metadata()["clap_space"]) == spaces


# evaluate


def test_evaluate_on_held_out_pairs(command, tiny_folder: Path, spaces, tmp_path: Path) -> None:
    rows, named = make_rows(60, dim=512), {"clip_space": spaces[0], "clap_space": spaces[1]}
    data = write_shard(tmp_path / "a.parquet", rows, dim=512, **named)
    code, out, err = command("evaluate", "tiny_cos", "--model", tiny_folder, "--data", data, "--held_out", "0.3")
    assert (code, err) == (0, []) and "tiny_cos" in "\n".join(out) and "tiny_mse" not in "\n".join(out)
    refused(command("evaluate", "--model", tiny_folder), "--images", "--data")
    refused(command("evaluate", "tiny_coz", "--model", tiny_folder, "--data", data), "did you mean tiny_cos")
    other = write_shard(tmp_path / "b.parquet", make_rows(60, dim=512), dim=512)
    refused(command("evaluate", "--model", tiny_folder, "--data", other), "shards are not those of tiny")


def test_held_out_pairs_are_none_that_were_learnt_from(command, tiny_folder: Path, spaces, tmp_path: Path) -> None:
    named = {"clip_space": spaces[0], "clap_space": spaces[1], "dim": 512}
    data = write_shard(tmp_path / "b.parquet", make_rows(200, dim=512), **named)
    pictures = write_shard(tmp_path / "a.parquet", make_rows(9, "p", "image", 512, paired=False), "photos",
                           **{**named, "clap_space": None})  # fmt: skip
    shards = ("--data", pictures, data)  # the first one says nothing of CLAP
    assert command("train", "audiocaps_cos_16", *shards, "--held_out", "0.1", "--epochs", "1")[0] == 0
    judge = ("evaluate", "translators/audiocaps_cos_16.safetensors", "--model", tiny_folder, *shards)
    refused(command(*judge, "--held_out", "0.2"), "only 0.1 of the pairs held out")
    refused(command(*judge, "--held_out", "0.1", "--seed", "-1"), "seed")
    assert command(*judge, "--held_out", "0.1")[0] == 0


def test_evaluate_on_photographs(command, tiny_folder: Path) -> None:
    draw = np.random.default_rng(0)
    for name in ("dog1", "dog2", "rain1", "rain2"):
        Path("photos").mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (80, 80, 3), dtype=np.uint8)).save(f"photos/{name}.png")
    code, out, err = command("evaluate", "--model", tiny_folder, "--images", "photos", "-o", "judged")
    assert code == 0 and "tiny_cos" in "\n".join(out), err
    assert any(path.suffix == ".json" for path in Path("judged").iterdir())
    before = files(Path("judged"))
    assert command("evaluate", "--model", tiny_folder, "--images", "photos", "-o", "judged")[0] == 2
    assert files(Path("judged")) == before


def test_evaluate_goes_on_after_bad_rows_and_says_so(command, tiny_folder: Path) -> None:
    draw = np.random.default_rng(0)
    for name in "abcd":
        Image.fromarray(draw.integers(0, 255, (80, 80, 3), dtype=np.uint8)).save(f"{name}.png")
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:5000])
    Path("set.csv").write_text("file,label\na.png,dog\nb.png,dog\nx,y.png,dog\ngone.png,dog\ncut.png,rain\nc.png,rain\nd.png,\n")
    code, out, err = command("evaluate", "--model", tiny_folder, "--images", "set.csv", "-o", "judged")
    assert code == 1 and "3 pictures of 2 classes" in "\n".join(out) and "4 could not be read" in "\n".join(out)
    for sentence in ("line 4 is left out: line 4 of set.csv has more fields", "gone.png is left out: no such file",
                     "cut.png is left out: ", "d.png is left out: line 8 of set.csv has no value in the column label"):
        assert sum(sentence in line for line in err) == 1, err
    assert len(json.loads(Path("judged/evaluation.json").read_text())["skipped"]) == 4
