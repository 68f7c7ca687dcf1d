"""A folder or a list as the prompt: what is made, what the manifest says, and what a second run does."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import audioldm
from audioldm import registry
from audioldm.commands import generate as cli
from audioldm.inputs import rows as lists
from audioldm.inputs.prompt import is_list
from translator import files

ROOT = Path(audioldm.__file__).parents[1]
MANIFEST = Path("output/manifest.jsonl")
QUICK = ("-dur", "0.5", "--ddim_steps", "2")


@pytest.fixture
def command(tiny_folder: Path, tmp_path: Path, monkeypatch, capsys):
    """Runs the command in an empty folder with the tiny model: exit code, lines of stdout and of stderr."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def run(*arguments: str, model: Path = tiny_folder) -> tuple[int, list[str], list[str]]:
        code = cli.main(["--model_name", str(model), *QUICK, *arguments])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


def pictures(folder: str, *names: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"{folder}/{name}", "PNG")


def manifest() -> list[dict]:
    return [json.loads(line) for line in MANIFEST.read_text().splitlines()]


def content(folder: str = "output") -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def everything() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*"))


# What is a list


def test_what_is_a_list(command) -> None:
    pictures("photos", "dog.png")
    for name in ("prompts.txt", "table.CSV", "rows.jsonl", "rain", "dog.jpg"):
        Path(name).touch()
    taken = ["photos/", "./photos", ".", "..", "~", "prompts.txt", "table.CSV", "./rows.jsonl", " photos/ "]
    assert [prompt for prompt in taken if not is_list(prompt)] == []
    others = ["photos", "rain", "dog.jpg", "photos/dog.png", "none.txt", "none/", "", "http://a.b/c.txt", "AC/DC"]
    assert [prompt for prompt in others if is_list(prompt)] == []


def test_a_bare_word_stays_words_beside_a_folder_of_that_name(command) -> None:
    pictures("rain", "dog.png")
    code, (wav,), err = command("-t", "rain")
    assert err == ['audioldm: "rain" is taken as words; rain/ is the folder of that name']
    assert code == 0 and json.loads(Path(wav).with_suffix(".json").read_text())["kind"] == "text"
    assert not MANIFEST.exists()


@pytest.mark.parametrize("name", ["none.txt", "none.csv", "my none.jsonl"])
def test_a_missing_list_is_not_taken_for_words(command, name: str) -> None:
    code, out, (sentence,) = command("-t", name)
    assert (code, out) == (2, []) and f'no such file: "{name}"' in sentence


# What is made


def test_a_folder_of_pictures(command) -> None:
    pictures("photos", "b.png", "a (1).JPG", "._c.png", ".hidden.jpg")
    Path("photos/notes.md").touch()
    Path("photos/more.png").mkdir()
    code, out, err = command("-t", "photos/")
    assert (code, out) == (0, ["output/a_1_0.wav", "output/b_0.wav"])
    assert err == ["audioldm: 2 made, 0 made before, 0 failed; output/manifest.jsonl has a line for each"]
    names = ["output/a_1_0.json", "output/a_1_0.wav", "output/b_0.json", "output/b_0.wav", "output/manifest.jsonl"]
    assert list(content()) == names
    first, second = manifest()
    assert (first["id"], first["prompt"], first["files"]) == ("a (1).JPG", "photos/a (1).JPG", ["a_1_0.wav"])
    assert (second["status"], second["error"], second["seed"]) == ("ok", None, 42)
    assert (second["model"], second["translator"]) == ("tiny", "tiny_cos")
    assert second["seconds"] > 0 and len(second["key"]) == 64 and second["key"] != first["key"]
    record = json.loads(Path("output/b_0.json").read_text())
    assert (record["file"], record["prompt"], record["kind"]) == ("b_0.wav", "photos/b.png", "image")


def test_a_text_list(command) -> None:
    pictures("lists", "dog.png")
    Path("lists/prompts.txt").write_bytes(b"\xef\xbb\xbfrain\r\n\r\n# no prompt\r\n  dog.png \r\nun \xc3\xa9t\xc3\xa9")
    code, out, _ = command("-t", "lists/prompts.txt", "-s", "there")
    assert (code, out) == (0, [f"there/{name}_0.wav" for name in ("00001_rain", "00004_dog", "00005_un_été")])
    rows = [json.loads(line) for line in Path("there/manifest.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["1", "4", "5"]
    assert [row["prompt"] for row in rows] == ["rain", "lists/dog.png", "un été"]
    assert [row["translator"] for row in rows] == [None, "tiny_cos", None]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table(command, delimiter: str) -> None:
    pictures("lists", "dog.png")
    table = [
        "Caption,ID,seed,translator,duration,batchsize,author",
        '"rain, and ""wind"" \non a roof",r/1,7,,0.75,2,me',
        "dog.png,,8.0,tiny_mse,,,",
        ",,,,,,",
        "waves",
    ]
    quoted = "\r\n".join(table).replace('"rain, and', '"rain; and').replace(",", delimiter)
    Path("lists/table.csv").write_text(quoted)
    code, out, err = command("-t", "lists/table.csv", "--seed", "3")
    assert (code, out) == (0, [f"output/{name}.wav" for name in ("r_1_0", "r_1_1", "00004_dog_0", "00006_waves_0")])
    assert len(err) == 2 and "not used: column author" in err[0]
    rain, dog, waves = manifest()
    assert (rain["id"], rain["prompt"], rain["seed"]) == ("r/1", 'rain; and "wind" \non a roof', 7)
    assert (dog["id"], dog["seed"], dog["translator"], waves["seed"]) == ("4", 8, "tiny_mse", 3)
    options = json.loads(Path("output/r_1_1.json").read_text())["options"]
    assert (options["seed"], options["duration"], options["batchsize"]) == (7, 0.75, 2)


def test_columns_that_are_not_used_are_told_once(command, caplog) -> None:
    Path("table.csv").write_text("prompt,author,licence\nrain,me,MIT\nwaves,me,MIT\n")
    assert command("-t", "table.csv")[0] == 0
    assert [record.getMessage() for record in caplog.records] == ["table.csv: not used: column author, licence"]


def test_json_lines(command) -> None:
    pictures("lists", "dog.png")
    rows = ['"rain"', "", '{"prompt": "", "image": "dog.png", "name": "my dog", "id": 12, "seed": "5"}',
            '{"text": "waves", "caption": "the sea", "guidance_scale": 1, "seed": null}']  # fmt: skip
    Path("lists/rows.jsonl").write_text("\n".join(rows) + "\n")
    code, out, _ = command("-t", "lists/rows.jsonl")
    assert (code, out) == (0, [f"output/{name}_0.wav" for name in ("00001_rain", "my_dog", "00004_the_sea")])
    assert [(row["id"], row["seed"]) for row in manifest()] == [("1", 42), ("12", 5), ("4", 42)]


def test_a_file_beside_the_list_goes_before_one_in_the_current_folder(command) -> None:
    pictures("lists", "dog.png", "bare")
    pictures(".", "cat.png", "dog.png")
    Path("lists/rain").write_text("a file that is called like a prompt")
    Path("lists/prompts.txt").write_text("dog.png\ncat.png\nrain\nbare\n./bare\nhttps:dog.png\n")
    assert command("-t", "lists/prompts.txt")[0] == 1
    assert [row["prompt"] for row in manifest()] == [
        "lists/dog.png", "cat.png", "rain", "lists/bare", "lists/./bare", "https:dog.png"]  # fmt: skip


def test_a_row_gives_the_bytes_of_a_run_of_its_own(command) -> None:
    pictures("photos", "dog.png")
    Path("prompts.txt").write_text("rain\nphotos/dog.png\nwaves at the sea\n")
    options = ("-b", "2", "-n", "2", "--seed", "9", "--translator", "tiny_mse")
    _, out, _ = command("-t", "prompts.txt", *options)
    assert len(out) == 6
    for index, prompt in enumerate(("rain", "photos/dog.png", "waves at the sea")):
        _, alone, _ = command("-t", prompt, *options, "-s", "alone")
        assert [Path(wav).read_bytes() for wav in alone] == [Path(wav).read_bytes() for wav in out[2 * index :][:2]]


@pytest.mark.parametrize(
    "arguments",
    [("--negative_prompt", "wind"), ("--negative_prompt", "dog.png"), ("--mode", "transfer", "-f", "bark.wav")],
)
def test_what_goes_for_all_rows(command, arguments: tuple[str, ...]) -> None:
    pictures(".", "dog.png")
    assert command("-t", "a dog", "-o", "bark.wav", "--save_embedding", "bark.npy")[0] == 0
    Path("prompts.txt").write_text("rain\ndog.png\nbark.npy\n")
    code, plain, _ = command("-t", "prompts.txt")
    assert code == 0 and len(plain) == 3
    code, out, _ = command("-t", "prompts.txt", *arguments)
    assert code == 0 and len(out) == 3
    for prompt, wav, other in zip(("rain", "dog.png", "bark.npy"), out, plain, strict=True):
        _, (alone,), _ = command("-t", prompt, *arguments, "-s", "alone")
        assert Path(alone).read_bytes() == Path(wav).read_bytes() != Path(other).read_bytes()
    assert command("-t", "prompts.txt", *arguments)[:2] == (0, [])


def test_the_model_is_read_once(command, monkeypatch: pytest.MonkeyPatch) -> None:
    from audioldm.latent_diffusion import model as module

    loads, load = [], module.load
    monkeypatch.setattr(module, "load", lambda build, path, *a, **k: loads.append(path) or load(build, path, *a, **k))
    Path("prompts.txt").write_text("rain\nwaves\nwind\n")
    assert command("-t", "prompts.txt")[0] == 0
    assert len(loads) == len(set(loads)) >= 3


# What fails

BAD_ROWS = {
    "rows.jsonl": (
        b'"rain"\n{"prompt": "rain", "seed": 1.5}\n{"prompt": "rain", "seed": -1}\n'
        b'{"prompt": "rain", "sampler": "x"}\n'
        b'{"prompt": 5}\n{"prompt": " "}\n{}\n[1]\n{"prompt": \n"\xff"\n{"image": "none.png"}\n'
        b'{"prompt": "\\u001b[1m.png"}\n'
        b'{"prompt": "a/", "id": [1]}\n'
        b'{"prompt": "lists/"}\n{"prompt": "rain", "translator": 5}\n{"prompt": "table.csv"}\n{"url": "ftp://a.b/c"}\n'
        b'{"image": "table.csv", "translator": "tiny_coz"}\n"waves"',
        17,
    ),
    "prompts.txt": (b"rain\nnone.jpg\nlists/\nab\xffc\nftp://a.b/c\n\nwaves\n", 4),
    "table.csv": (
        b'prompt,seed\nrain,1\nrain,x\nrain,1.5\nrain, wind and rain,4\n,5\n"rain,6\na \xff,7\n"a" b,8\n'
        b"none.png,9\nwaves,10\n",
        8,
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_a_failed_row(command, name: str) -> None:
    Path("lists").mkdir()
    Path("table.csv").touch()
    data, failures = BAD_ROWS[name]
    Path(name).write_bytes(data)
    code, out, err = command("-t", name)
    rows = manifest()
    failed = [row for row in rows if row["status"] == "failed"]
    assert [row["prompt"] for row in rows if row["status"] == "ok"] == ["rain", "waves"] and len(out) == 2
    assert (code, len(failed), len(err)) == (1, failures, failures + 1)
    for row, line in zip(failed, err, strict=False):
        assert line == f"audioldm: row {row['id']} failed: {row['error']}".replace("\x1b", "?")
        assert row["error"] and row["files"] == [] and "Error" not in row["error"] and line.isprintable()
    assert err[-1].startswith(f"audioldm: 2 made, 0 made before, {failures} failed")
    assert list(content()) == sorted(out + [wav.replace(".wav", ".json") for wav in out] + [str(MANIFEST)])


def test_an_unclosed_quotation_mark_costs_one_row(command) -> None:
    Path("table.csv").write_text('prompt,seed\n"rain,1\nwaves,2\nwind,3\n')
    code, out, _ = command("-t", "table.csv")
    assert code == 1 and [(row["prompt"], row["status"]) for row in manifest()] == [
        ('"rain,1', "failed"), ("waves", "ok"), ("wind", "ok")]  # fmt: skip


def test_a_failure_of_any_kind_goes_no_further_than_its_row(command, monkeypatch: pytest.MonkeyPatch) -> None:
    from audioldm import generation

    decode, calls = generation.decode, []

    def sometimes(*arguments):
        calls.append(0)
        if len(calls) == 2:  # the second sound of the first row
            raise RuntimeError("the\nmoon is full")
        return decode(*arguments)

    monkeypatch.setattr(generation, "decode", sometimes)
    Path("prompts.txt").write_text("rain\nwaves\n")
    code, out, err = command("-t", "prompts.txt", "-b", "2")
    assert (code, out) == (1, ["output/00002_waves_0.wav", "output/00002_waves_1.wav"])
    assert err[0] == "audioldm: row 1 failed: RuntimeError: the moon is full"
    assert [name for name in content() if "rain" in name] == []


BAD_LISTS = {
    "an empty text": ("a.txt", b"", "no prompts"),
    "comments only": ("a.txt", b"\n# rain\n\n", "no prompts"),
    "an empty table": ("a.csv", b"\n\n", "no prompts"),
    "a header only": ("a.csv", b"prompt,seed\n", "no prompts"),
    "no prompt column": ("a.csv", b"rain,wind\nrain,wind\n", "no column of prompts"),
    "empty JSON lines": ("a.jsonl", b"\n", "no prompts"),
    "UTF-16 without a byte order mark": ("a.txt", "rain\n".encode("utf-16-le"), "UTF-8"),
    "bytes": ("a.csv", b"PK\3\4" + bytes(60), "is not a text"),
}


@pytest.mark.parametrize(("name", "data", "sentence"), BAD_LISTS.values(), ids=BAD_LISTS.keys())
def test_a_bad_list_is_one_sentence_and_exit_code_2(command, name: str, data: bytes, sentence: str) -> None:
    Path(name).write_bytes(data)
    before = everything()
    code, out, err = command("-t", name)
    assert (code, out, len(err), everything()) == (2, [], 1, before) and sentence in err[0]


def test_a_folder_without_pictures_is_a_bad_list(command) -> None:
    Path("photos").mkdir()
    assert "photos/ has no image files" in command("-t", "photos/")[2][0]


@pytest.mark.parametrize(
    "arguments",
    [("-o", "a.wav"), ("-f", "a.wav"), ("--translator", "tiny_coz"), ("-gs", "-1"), ("-s", "prompts.txt"), ("-t", "a")],
)
def test_a_run_that_cannot_be_meant(command, arguments: tuple[str, str]) -> None:
    Path("prompts.txt").write_text("rain\n")
    before = everything()
    code, out, err = command("-t", "prompts.txt", *arguments)
    assert (code, out, len(err), everything()) == (2, [], 1, before)


def test_the_default_model_is_announced_unless_the_list_is_bad(
    command, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(registry, "models_dir", lambda: tiny_folder.parent)
    monkeypatch.setattr(registry, "DEFAULT_MODEL", "tiny")
    Path("prompts.txt").write_text("rain\n")
    assert cli.main([*QUICK, "-t", "prompts.txt"]) == 0
    notice, summary = capsys.readouterr().err.splitlines()
    assert "tiny" in notice and summary.startswith("audioldm: 1 made")
    Path("prompts.txt").write_text("# rain\n")
    assert cli.main([*QUICK, "-t", "prompts.txt"]) == 2
    assert capsys.readouterr().err.splitlines() == ["audioldm: error: prompts.txt has no prompts"]


def test_no_torch_is_needed_to_find_that_all_is_done() -> None:
    code = "import sys, audioldm.commands.batch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == 0


def test_a_damaged_model_is_not_every_rows_failure(command, copy: Path) -> None:
    (copy / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    Path("prompts.txt").write_text("rain\nwaves\n")
    before = everything()
    code, out, err = command("-t", "prompts.txt", model=copy)
    assert (code, out, len(err), everything()) == (2, [], 1, before)


# The second run


def test_a_rerun_skips_what_is_done_and_tries_the_failed_again(command) -> None:
    pictures("photos", "a.png", "b.png")
    Path("photos/c.png").write_text("not an image")
    code, out, _ = command("-t", "photos/")
    assert code == 1 and len(out) == 2
    before = content()
    code, out, err = command("-t", "./photos")
    assert (code, out) == (1, []) and "0 made, 2 made before, 1 failed" in err[-1]
    pictures("photos", "a.png", "b.png", "c.png", "d.png")
    code, out, err = command("-t", "photos/")
    assert (code, out) == (0, ["output/c_0.wav", "output/d_0.wav"]) and "2 made, 2 made before" in err[-1]
    assert all(content()[name].startswith(data) for name, data in before.items())
    assert command("-t", "photos/")[:2] == (0, [])


def test_a_rerun_makes_nothing_to_find_out(command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("prompts.txt").write_text("rain\n")
    assert command("-t", "prompts.txt")[0] == 0
    monkeypatch.setattr("audioldm.generation.generate", lambda *_, **__: pytest.fail("made again"))
    assert command("-t", "prompts.txt")[:2] == (0, [])


def test_what_changes_a_sound_makes_it_again(command, copy: Path) -> None:
    pictures("photos", "a.png", "b.png")

    def made(*arguments: str) -> int:
        return len(command("-t", "photos/", *arguments, model=copy)[1])

    assert [made(), made(), made("--seed", "1"), made("-gs", "3"), made("--translator", "tiny_mse")] == [2, 0, 2, 2, 2]
    assert made("--translator", "tiny_cos") == 0  # the default, by its name
    os.replace("photos/a.png", "photos/b.png")
    assert made() == 1  # other content under an old name
    index = copy / "model_index.json"
    index.write_text(index.read_text() + " ")
    assert made() == 1


def test_a_lost_wav_is_made_again(command) -> None:
    Path("prompts.txt").write_text("rain\nwaves\n")
    _, (rain, waves), _ = command("-t", "prompts.txt")
    data = Path(rain).read_bytes()
    Path(rain).unlink()
    code, (again,), _ = command("-t", "prompts.txt")
    assert code == 0 and Path(again).read_bytes() == data and again == "output/00001_rain_0-2.wav"  # the JSON is there
    assert command("-t", "prompts.txt")[:2] == (0, [])


def test_a_list_may_be_edited_and_have_the_same_prompt_twice(command) -> None:
    Path("prompts.txt").write_text("rain\nwaves\n")
    assert len(command("-t", "prompts.txt")[1]) == 2
    Path("prompts.txt").write_text("wind\nwaves\nrain\nrain\n")
    code, out, _ = command("-t", "prompts.txt")
    assert (code, out) == (0, ["output/00001_wind_0.wav", "output/00004_rain_0.wav"])
    assert command("-t", "prompts.txt")[1] == []


def test_nothing_is_overwritten(command) -> None:
    pictures("photos", "dog.png", "dog.gif")
    Path("output").mkdir()
    Path("output/dog_0.wav").write_text("mine")
    code, out, _ = command("-t", "photos/")
    assert (code, out) == (0, ["output/dog_0-2.wav", "output/dog_0-3.wav"])
    assert Path("output/dog_0.wav").read_text() == "mine"


@pytest.mark.parametrize("torn", [b'{"id": "2", "prom', b"\0\0\0", b"{}"])
def test_a_torn_last_line_is_mended(command, torn: bytes) -> None:
    Path("prompts.txt").write_text("rain\nwaves\n")
    command("-t", "prompts.txt")
    first, second = MANIFEST.read_bytes().splitlines(keepends=True)
    MANIFEST.write_bytes(first + torn)
    code, out, _ = command("-t", "prompts.txt")
    assert (code, out) == (0, ["output/00002_waves_0-2.wav"])
    assert MANIFEST.read_bytes().startswith(first + b'{"id": "2", "prompt": "waves"') and len(manifest()) == 2
    MANIFEST.write_bytes(MANIFEST.read_bytes()[:-1])  # whole, but for its end
    assert command("-t", "prompts.txt")[:2] == (0, []) and len(manifest()) == 2


def test_foreign_lines_of_a_manifest_are_left_alone(command) -> None:
    foreign = b'\xff\n[]\n5\n{"key": "x", "files": 5, "status": "ok"}\n{"key": [], "files": ["a"], "status": "ok"}\n\n'
    MANIFEST.parent.mkdir()
    MANIFEST.write_bytes(foreign)
    Path("prompts.txt").write_text("rain\n")
    assert command("-t", "prompts.txt")[0] == 0 and MANIFEST.read_bytes().startswith(foreign)
    assert command("-t", "prompts.txt")[:2] == (0, [])


def test_two_runs_do_not_share_a_folder(command) -> None:
    Path("prompts.txt").write_text("rain\n")
    MANIFEST.parent.mkdir()
    with files.lock(MANIFEST.with_name(".manifest.lock")):
        code, out, (sentence,) = command("-t", "prompts.txt")
        assert (code, out) == (2, []) and "another run is writing to output" in sentence
    assert command("-t", "prompts.txt")[0] == 0


def test_what_the_model_may_not_know_is_told_in_the_manifest(command, monkeypatch: pytest.MonkeyPatch) -> None:
    from audioldm import conditioning

    def condition(*arguments, **more):
        *arguments, on_note = arguments
        on_note("the model may not know this")
        return conditioning.encode_prompt(*arguments, **more)

    monkeypatch.setattr(conditioning, "condition", condition)
    Path("prompts.txt").write_text("rain\nwaves\n")
    code, _, err = command("-t", "prompts.txt")
    assert code == 0 and len(err) == 1 and "(2 with a warning)" in err[0]
    assert [row["warning"] for row in manifest()] == ["the model may not know this"] * 2


def test_passwords_and_data_are_not_in_the_manifest(command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("prompts.txt").write_text(f"http://me:secret@192.168.0.1/a.png\ndata:image/png;base64,{'A' * 5000}\n")
    assert command("-t", "prompts.txt")[0] == 1
    first, second = manifest()
    assert first["prompt"] == "http://192.168.0.1/a.png" and "secret" not in MANIFEST.read_text()
    assert len(second["prompt"]) < 120


def test_a_huge_list_is_not_read_whole(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "huge.csv"
    path.write_text("prompt,seed\n" + "".join(f"a dog barking {'x' * 100} {n},{n}\n" for n in range(100_000)))
    tracemalloc.start()
    count = sum(row.error is None for row in lists.read(str(path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 100_000 and peak < 2_000_000


# As a program


def program(tiny_folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "audioldm", "--model_name", str(tiny_folder), *arguments]


def test_ctrl_c_keeps_what_is_done(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("".join(f"rain {number}\n" for number in range(200)))
    command = program(tiny_folder, "-t", str(tmp_path / "prompts.txt"), "-s", str(tmp_path / "out"), *QUICK)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=environment)
    assert process.stdout and process.stdout.readline().endswith("00001_rain_0_0.wav\n")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    err = re.sub(r"audioldm: \d+ of 200 rows are done, about .* left\n", "", err)  # on a slow machine
    assert process.returncode == 130 and err.endswith("\naudioldm: interrupted\n") and err.count("\n") == 2
    rows = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    files = {name for row in rows for name in row["files"]}
    assert 1 <= len(rows) < 200 and f"audioldm: {len(rows)} made, 0 made before" in err
    assert {path.name for path in (tmp_path / "out").glob("*.wav")} == files
    (tmp_path / "prompts.txt").write_text("".join(f"rain {number}\n" for number in range(len(rows) + 1)))
    again = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert again.returncode == 0 and again.stdout.count("\n") == 1
    assert f"1 made, {len(rows)} made before, 0 failed" in again.stderr


def test_whoever_stops_reading_ends_the_run(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("".join(f"rain {number}\n" for number in range(200)))
    command = program(tiny_folder, "-t", str(tmp_path / "prompts.txt"), "-s", str(tmp_path / "out"), *QUICK)
    process = subprocess.Popen(command, stdout=-1, stderr=-1, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout and process.stderr and process.stdout.readline()
    process.stdout.close()
    told = re.sub(rb"audioldm: \d+ of 200 rows are done, about .* left\n", b"", process.stderr.read())
    assert told == b"" and process.wait(60) == 1
    rows = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert 2 <= len(rows) < 200 and {json.loads(row)["status"] for row in rows} == {"ok"}


def test_a_bar_for_whoever_watches(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_text("prompt,author\nrain,me\nnone.png,me\nwaves,me\n")
    command = program(tiny_folder, "-t", str(tmp_path / "prompts.csv"), "-s", str(tmp_path / "out"), *QUICK)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=-1, stderr=theirs, text=True, env=environment)
    os.close(theirs)
    out, shown = process.communicate(timeout=60)[0], b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
    os.close(ours)
    assert process.returncode == 1 and len(out.splitlines()) == 2
    text = shown.decode()
    assert "0/3 [" in text and "row 3 failed: no such file" in text and "2 made" in text
    assert text.count("not used: column author") == 1
