"""What the command says, and where: closed streams, odd names, words without quotes, no terminal, options twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

import audioldm
from audioldm.commands import common
from audioldm.commands import generate as cli
from audioldm.commands.common import Progress
from audioldm.errors import InputError
from audioldm.utils import save_wave

ROOT = Path(audioldm.__file__).parents[1]
QUICK = ("-dur", "0.5", "--ddim_steps", "2")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def command(tiny_folder: Path, capsys):
    def run(*arguments: str) -> tuple[int, list[str], list[str]]:
        code = cli.main(["--model_name", str(tiny_folder), *QUICK, *arguments])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


def refused(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence with which the command, before it reads a model, refuses its arguments."""
    assert cli.main(["--model_name", "none", *arguments]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == "" and list(Path().rglob("*.wav")) == [] and line.startswith("audioldm: error: ")
    return line


def picture(name: str = "photo.jpg") -> None:
    Image.effect_noise((40, 30), 60).convert("RGB").save(name, "PNG")


# 16: arguments


def test_a_prompt_without_t(command) -> None:
    picture()
    code, (wav,), _ = command("photo.jpg")
    record = json.loads(Path(wav).with_suffix(".json").read_text())
    assert code == 0 and (record["kind"], record["prompt"]) == ("image", "photo.jpg")
    code, (wav,), _ = command("a dog barking")
    assert code == 0 and json.loads(Path(wav).with_suffix(".json").read_text())["prompt"] == "a dog barking"


def test_an_empty_negative_prompt_is_none(command) -> None:
    plain, empty, blank = (
        command("-t", "rain", *more)[1] for more in ((), ("--negative_prompt", ""), ("--negative_prompt", "  "))
    )
    assert len({Path(*wavs).read_bytes() for wavs in (plain, empty, blank)}) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("a", "dog", "barking"), 'put words in quotes: audioldm "a dog barking"'),
        (("photo.jpg", "a", "dog"), "put words in quotes"),
        (("-t", "rain", "-f", "a.wav", "-f", "b.wav"), "-f/--file_path: it was given twice"),
        (("-t", "rain", "-o", "a.wav", "-o", "b.wav"), "given twice"),
        (("-t", "rain", "--negative_prompt", "a", "--negative_prompt", "b"), "given twice"),
        (("-f", "."), "is a folder; give the name of one sound file"),
        (("-f", "https://example.org/rain.wav"), "is an address; a sound is read from a file: download it first"),
        (("-f", "photo.jpg"), "is a picture, not a sound; give it with -t"),
        (("-f", "none.wav"), "no such audio file"),
        (("-f", "~nosuch/a.wav"), "no such audio file"),
        (("-t", "~nosuch/a.jpg"), "no such file"),
        (("-t", "rain.wav"), "give it with -f"),
        (("rain.mp3",), "give it with -f"),
        (("-t", "paper.pdf"), "is not a file that -t takes"),
        (("-t", "a", "-t", "b", "--weights", "nan", "1"), "weight 1 is NaN, which is not a number"),
        (("-t", "a", "-t", "b", "--weights", "1", "NaN"), "weight 2 is NaN"),
        (("-t", "a", "-t", "b", "--weights", "inf", "1"), "finite"),
    ],
)
def test_what_is_answered_in_a_sentence(arguments: tuple[str, ...], says: str, capsys) -> None:
    picture()
    assert says in refused(*arguments, capsys=capsys)


# 16: no terminal


def test_a_line_every_ten_seconds(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    now = [0.0]
    monkeypatch.setattr(common.time, "monotonic", lambda: now[0])
    with Progress(100, "step") as steps:
        for _ in range(100):
            now[0] += 0.5
            steps.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"audioldm: {20 * n} of 100 steps are done, about {50 - 10 * n} s left" for n in (1, 2, 3, 4)]
    with Progress(3, "row") as rows:
        for _ in range(3):
            now[0] += 3_700
            rows.update()
    assert capsys.readouterr().err.splitlines()[0] == "audioldm: 1 of 3 rows are done, about 2 h left"


def test_a_quick_run_says_nothing(command) -> None:
    assert command("-t", "rain")[2] == []


# 5: more than is read


@pytest.mark.parametrize("words", ["rain and wind and thunder " * 40, "дождь и ветер " * 40])
def test_what_is_not_read_of_a_long_prompt(command, words: str, caplog) -> None:
    code, _, err = command("-t", words)
    assert code == 0
    (line,) = [record.getMessage() for record in caplog.records] or err
    assert line.startswith("the prompt is longer than the model reads; not read: ")
    said = line.partition('"')[2].rstrip('"').rstrip("…")
    assert said and " ".join(said.split()) in " ".join(words.split())


def test_what_is_not_read_of_a_row(command) -> None:
    Path("list.txt").write_text("rain\n" + "wind " * 100 + "\n")
    assert command("-t", "list.txt")[0] == 0
    rows = [json.loads(line) for line in Path("output/manifest.jsonl").read_text().splitlines()]
    assert rows[0]["warning"] is None and "not read" in rows[1]["warning"]


# 10: each row its own negative prompt


def test_negative_prompts_of_rows(command) -> None:
    picture()
    rows = [{"prompt": "rain"}, {"prompt": "rain", "negative_prompt": "wind"},
            {"prompt": "rain", "negative_prompt": "photo.jpg"},
            {"prompt": "rain", "negative_prompt": "none.jpg"}]  # fmt: skip
    Path("list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, _ = command("-t", "list.jsonl", "-gs", "3")
    assert code == 1 and len(out) == 3 and len({Path(wav).read_bytes() for wav in out}) == 3
    _, (alone,), _ = command("-t", "rain", "-gs", "3", "--negative_prompt", "wind", "-s", "alone")
    assert Path(alone).read_bytes() == Path(out[1]).read_bytes()
    assert json.loads(Path(out[1]).with_suffix(".json").read_text())["negative_prompt"]["prompt"] == "wind"
    assert command("-t", "list.jsonl", "-gs", "3")[1] == []  # made before


# 11: streams, and the environment


def run(*arguments: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own; ``shell`` is what a shell is to do with its streams."""
    left_out = ("HOME", "PYTHONIOENCODING", "PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    line = ["sh", "-c", f'"$@" {shell}', "sh", sys.executable, "-m", "audioldm", *arguments]
    return subprocess.run(line, capture_output=True, env={**kept, "PYTHONPATH": str(ROOT), **environment}, timeout=300)


@pytest.mark.parametrize("shell", ["2>&-", "2>/dev/full", "2>&- 0<&-"])
def test_a_closed_stderr(tiny_folder: Path, shell: str) -> None:
    for buffered in ({}, {"PYTHONUNBUFFERED": "1"}):
        done = run("--model_name", "none", "-t", "none.jpg", shell=shell, **buffered)
        assert done.returncode == 2 and done.stdout == b""
    done = run("--model_name", str(tiny_folder), *QUICK, "-t", "rain", shell=shell)
    assert done.returncode == 0, done.stderr
    (wav,) = done.stdout.decode().split()
    assert soundfile.info(wav).frames == 8_000 and json.loads(Path(wav).with_suffix(".json").read_text())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_remarks_that_cannot_be_written_end_no_run() -> None:
    """With the bundled model, a folder that is taken as words, a list and its failed row, each has a remark."""
    Path("rain").mkdir()
    done = run(*QUICK, "-t", "rain", shell="2>/dev/full")
    assert done.returncode == 0 and soundfile.info(done.stdout.decode().strip()).frames == 8_000
    Path("list.txt").write_text("rain\nnone.jpg\n")
    done = run(*QUICK, "-t", "list.txt", shell="2>/dev/full", PYTHONUNBUFFERED="1")
    assert done.returncode == 1 and len(done.stdout.split()) == 1
    assert len(Path("output/manifest.jsonl").read_text().splitlines()) == 2


def test_a_closed_stdout(tiny_folder: Path) -> None:
    done = run("--model_name", str(tiny_folder), *QUICK, "-t", "rain", shell=">&-")
    assert (done.returncode, done.stderr) == (0, b"") and len(list(Path("output").glob("*.wav"))) == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict"])
def test_a_stdout_that_cannot_encode_a_name(tiny_folder: Path, encoding: str) -> None:
    picture("犬.webp")
    folder = b"caf\xe9"
    done = run(
        "--model_name", str(tiny_folder), *QUICK, "-t", "犬.webp", "-s", os.fsdecode(folder), PYTHONIOENCODING=encoding
    )
    assert (done.returncode, done.stderr) == (0, b"")
    wav = done.stdout.rstrip(b"\n")
    assert os.path.isfile(wav) and wav.startswith(folder) and wav.endswith("_犬_0.wav".encode())


def test_names_of_rows_of_any_script(command) -> None:
    Path("photos").mkdir()
    for name in ("犬.webp", "che\u0302vre.webp"):
        picture(f"photos/{name}")
    code, out, _ = command("-t", "photos/")
    assert code == 0 and out == ["output/chêvre_0.wav", "output/犬_0.wav"] and all(map(os.path.isfile, out))


def test_no_home(tiny_folder: Path) -> None:
    done = run("--model_name", str(tiny_folder), *QUICK, "-t", "rain")
    assert (done.returncode, done.stderr) == (0, b"")
    assert run("--list").returncode == 0


# 12 and 6: what Python gives and takes


def test_waves_of_all_kinds_are_saved(caplog) -> None:
    wave = np.sin(np.arange(800) / 10).astype(np.float32) * 0.5
    for given in (wave, wave[None], wave[None, None], (wave * 32768).astype(np.int16), wave.tolist()):
        (path,) = save_wave(given, "out", "x")
        assert np.abs(soundfile.read(path)[0] - wave).max() < 1e-3
    assert not caplog.records


@pytest.mark.parametrize("scale", [3, 40_000])
def test_waves_beyond_full_scale_are_scaled_as_a_whole(scale: float, caplog) -> None:
    wave = np.sin(np.arange(800) / 10).astype(np.float32)
    (path,) = save_wave((wave * scale)[None, None], "out", "x")
    written = soundfile.read(path)[0]
    assert np.abs(written - wave).max() < 1e-3 and (np.abs(written) > 0.9999).sum() < 20
    assert "beyond full scale" in caplog.text


def test_a_name_for_each_wave() -> None:
    paths = save_wave(np.zeros((2, 1, 10), np.float32), "out", ["a dog.wav", "photos/犬.jpg"])
    assert [path.name for path in paths] == ["a_dog_0.wav", "犬_1.wav"]


@pytest.mark.parametrize(
    ("wave", "name", "says"),
    [
        (np.zeros((2, 1, 10), np.float32), ["x"], "2 sounds"),
        (np.zeros((1, 1, 10), np.float32), [7], "name"),
        (np.zeros((1, 1, 10), np.float32), None, "name"),
        (np.zeros((1, 2, 10), np.float32), "x", "shape"),
        (np.zeros((0, 1, 10), np.float32), "x", "shape"),
        (np.zeros((1, 1, 10), np.int64), "x", "int64"),
        (np.full((1, 1, 10), np.nan), "x", "NaN"),
        (None, "x", "shape|array"),
        ("rain", "x", "shape|array"),
    ],
)
def test_what_cannot_be_saved(wave: object, name: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        save_wave(wave, "out", name)
    assert not list(Path().rglob("*.wav"))


def test_the_seed_in_the_third_place(tiny_model) -> None:
    short = {"duration": 0.5, "ddim_steps": 2}
    wanted = audioldm.text_to_audio(tiny_model, "rain", seed=7, **short)
    assert (audioldm.text_to_audio(tiny_model, "rain", 7, **short) == wanted).all()
    assert (audioldm.text_to_audio(tiny_model, "rain", None, 7, **short) == wanted).all()
    assert (audioldm.text_to_audio(tiny_model, "rain", 7, 2, 0.5, 1, 2.0, 1) == wanted).all()


def test_objects_as_prompts_and_sounds(tiny_model) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    short = {"duration": 0.5, "ddim_steps": 2}
    wanted = audioldm.image_to_audio(tiny_model, Image.fromarray(pixels), **short)
    assert (audioldm.image_to_audio(tiny_model, pixels, **short) == wanted).all()
    assert (audioldm.image_to_audio(tiny_model, pixels / 255, **short) == wanted).all()
    tone = np.sin(np.arange(8_000) / 5).astype(np.float32) / 2
    assert audioldm.text_to_audio(tiny_model, None, (16_000, tone), **short).shape == (1, 1, 8_000)
    assert audioldm.style_transfer(tiny_model, "rain", tone, 0.5, ddim_steps=2).shape == (1, 1, 8_000)


def test_a_guidance_scale_of_zero(tiny_model, caplog) -> None:
    options = {"duration": 0.5, "ddim_steps": 2, "guidance_scale": 0}
    made = [audioldm.text_to_audio(tiny_model, text, **options) for text in ("a", "b")]
    assert (made[0] == made[1]).all() and "the prompt is not used" in caplog.text


@pytest.mark.parametrize(
    "call",
    [
        lambda model: audioldm.text_to_audio(None, "rain"),
        lambda model: audioldm.text_to_audio(model, None),
        lambda model: audioldm.text_to_audio(model, 7),
        lambda model: audioldm.text_to_audio(model, []),
        lambda model: audioldm.text_to_audio(model, "rain", 3.5),
        lambda model: audioldm.text_to_audio(model, "rain", duration="5"),
        lambda model: audioldm.text_to_audio(model, "rain", guidance_scale=-1),
        lambda model: audioldm.text_to_audio(model, "rain", seed="x"),
        lambda model: audioldm.text_to_audio(model, "rain", translator=5),
        lambda model: audioldm.text_to_audio(model, "rain", weights="ab"),
        lambda model: audioldm.text_to_audio(model, "rain", weights=[float("nan")]),
        lambda model: audioldm.text_to_audio(model, "rain", negative_prompt=7),
        lambda model: audioldm.image_to_audio(model, None),
        lambda model: audioldm.image_to_audio(model, np.zeros((2, 2, 7))),
        lambda model: audioldm.style_transfer(model, "rain", None, 0.5),
        lambda model: audioldm.style_transfer(model, "rain", (16_000, "x"), 0.5),
        lambda model: audioldm.style_transfer(model, "rain", np.zeros(8_000), "much"),
        lambda model: audioldm.super_resolution_and_inpainting(model, "rain", 7),
        lambda model: audioldm.build_model(7),
        lambda model: audioldm.build_model(model_name=None),
        lambda model: audioldm.get_duration("none.wav"),
    ],
)
def test_what_is_wrong_is_an_input_error(tiny_model, call) -> None:
    with pytest.raises(InputError) as caught:
        call(tiny_model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given, expected", [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_while_they_wait_unless_told_otherwise(given: str | None, expected: str) -> None:
    """Where other programs have the cores, threads that wait actively take five times as long."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    code = (
        "import os; from audioldm.commands.common import command\n"
        "raise SystemExit(command(lambda: print(os.environ['OMP_WAIT_POLICY']) or 0, as_program=True))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
        env=environment | ({"OMP_WAIT_POLICY": given} if given else {}),
    )  # fmt: skip
    assert run.stdout.split() == [expected]


# 11 and 16: where results go


@pytest.mark.parametrize("place", [("-s", ""), ("-s", " "), ("-o", ""), ("--save_embedding", "")])
def test_an_output_without_a_name(command, place: tuple[str, str]) -> None:
    code, out, (line,) = command("-t", "rain", *place)
    assert (code, out) == (2, []) and ("the name of the output is empty" in line or "must end in" in line)
    assert not list(Path().rglob("*.wav"))


@pytest.mark.parametrize("place", [("-s", "~nosuch/x"), ("-o", "~nosuch/x.wav")])
def test_the_home_of_nobody_is_no_folder(command, place: tuple[str, str]) -> None:
    code, _, (line,) = command("-t", "rain", *place)
    assert code == 2 and "is in the home folder of nobody" in line and not Path("~nosuch").exists()


def test_a_list_into_the_home_of_nobody(command) -> None:
    Path("list.txt").write_text("rain\n")
    code, _, (line,) = command("-t", "list.txt", "-s", "~nosuch/x")
    assert code == 2 and "is in the home folder of nobody" in line


def test_a_folder_that_is_a_file(command) -> None:
    Path("taken").touch()
    code, _, (line,) = command("-t", "rain", "-s", "taken")
    assert code == 2 and "cannot write to the output folder taken: it is a file" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_stdout_is_told_in_a_sentence(tiny_folder: Path) -> None:
    done = run("--model_name", str(tiny_folder), *QUICK, "-t", "rain", shell=">/dev/full")
    assert (done.returncode, done.stderr) == (1, b"audioldm: error: No space left on device\n")


def test_a_folder_that_is_gone(here: Path) -> None:
    (here / "gone").mkdir()
    text = f'cd gone && rmdir ../gone && "{sys.executable}" -m audioldm -t rain'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(text, shell=True, capture_output=True, env=environment, timeout=300)
    assert done.returncode == 2 and b"audioldm: error: the current folder does not exist any more" in done.stderr


@pytest.mark.parametrize("name", ["no/such/model", "./nope"])
def test_a_model_that_is_not_there(name: str) -> None:
    with pytest.raises(InputError, match="no such model folder"):
        audioldm.build_model(name)


@pytest.mark.parametrize("device", [5, "tpu", object()])
def test_devices_that_are_none(tiny_folder: Path, device: object) -> None:
    with pytest.raises(InputError, match="unknown device"):
        audioldm.build_model(str(tiny_folder), device=device)  # pyright: ignore[reportArgumentType]


# 12: more of Python


def test_waves_of_tensors_that_learn() -> None:
    import torch

    (path,) = save_wave(torch.full((1, 1, 800), 0.5, requires_grad=True), "out", "x")
    assert path.is_file()


@pytest.mark.parametrize(
    ("wave", "name", "says"),
    [(np.zeros((900, 2)), "x", "has the shape"), (np.zeros((1, 1, 9)), 5, "one name"), (np.zeros(99), None, "name")],
)
def test_more_that_cannot_be_saved(wave: object, name: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        save_wave(wave, "out", name)
    with pytest.raises(InputError, match="home folder of nobody"):
        save_wave(np.zeros(900), "~nosuch/x", "x")


def test_a_translator_given_by_its_path(tiny_model, tiny_folder: Path) -> None:
    picture()
    path = tiny_folder.parent / "translators" / "tiny" / "tiny_mse.safetensors"
    waves = [
        audioldm.image_to_audio(tiny_model, "photo.jpg", translator=given, duration=0.5, ddim_steps=2)  # pyright: ignore[reportArgumentType]
        for given in (path, "tiny_mse")
    ]
    assert (waves[0] == waves[1]).all()


def test_a_number_beyond_all_floats(tiny_model) -> None:
    with pytest.raises(InputError, match="the duration must be a number"):
        audioldm.text_to_audio(tiny_model, "rain", duration=10**400)
