"""``audioldm-translator make`` and ``audioldm-embed``, as a person meets them."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from pictures import encode
from PIL import Image
from safetensors import safe_open
from server import Server
from wit_table import wit_line, write_wit

import prior_steps.__main__ as embed_command
from audioldm.latent_diffusion.model import LatentDiffusion
from audioldm.registry import default_name, find_translator
from prior_steps import make, plan
from prior_steps.command import COMMANDS
from translator.model import load_translator

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--limit", "120", "--device", "cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUDIOLDM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("AUDIOLDM_ALLOW_PRIVATE_URLS", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = make.main(["make", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_one_command_from_captions_to_an_installed_translator(cache: Path, tiny_folder: Path, capsys) -> None:
    command = ["audiocaps_cos_16", "ridge", "--model", tiny_folder, *SMALL]
    code, out, err = run(capsys, *command)
    assert code == 0, err
    assert re.search(r"make: about \d+ (s|min): embedding audiocaps \d+ s, training \d+ s", err)
    assert "| audiocaps_cos_16 |" in out and "| ridge |" in out and "| constant |" in out
    model = LatentDiffusion.from_folder(tiny_folder, "cpu")
    for name in ("audiocaps_cos_16", "ridge"):
        entry = find_translator(model, name)
        assert entry.spaces == model.spaces and entry.path.is_relative_to(cache) and load_translator(entry.path)
    record = json.loads(find_translator(model, "audiocaps_cos_16").path.with_suffix(".json").read_text())
    assert record["data"]["audiocaps"]["pairs"] + record["data"]["audiocaps"]["held_out"] > 100

    shards = {path: path.stat().st_mtime_ns for path in cache.rglob("*.parquet")}
    code, out, err = run(capsys, *command)
    assert code == 0 and out == "" and err.count("is made and installed") == 2
    code, out, err = run(capsys, "procrustes", "--model", tiny_folder, *SMALL)
    assert code == 0 and {path: path.stat().st_mtime_ns for path in cache.rglob("*.parquet")} == shards


def test_another_translator_of_the_name_is_not_replaced_unasked(cache: Path, tiny_folder: Path, capsys) -> None:
    assert run(capsys, "ridge", "--model", tiny_folder, *SMALL)[0] == 0
    model = LatentDiffusion.from_folder(tiny_folder, "cpu")
    before = find_translator(model, "ridge").path.read_bytes()
    other = ["ridge", "--model", tiny_folder, "--limit", "150", "--device", "cpu"]
    code, _, err = run(capsys, *other)
    assert code == 2 and "--replace" in err and find_translator(model, "ridge").path.read_bytes() == before
    code, _, err = run(capsys, *other, "--replace")
    assert code == 0 and find_translator(model, "ridge").path.read_bytes() != before


def picture(shade: int) -> bytes:
    return encode(Image.effect_noise((80 + shade % 7, 70), 20 + shade), "PNG")


def tar_of_pictures(path: Path, number: int) -> Path:
    with tarfile.open(path, "w") as tar:
        for i in range(number):
            for ending, content in (("png", picture(100 + i)), ("txt", f"picture {i} of the web".encode())):
                member = tarfile.TarInfo(f"{i:05}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def test_wit_and_conceptual_captions_to_the_end(cache: Path, tiny_folder: Path, tmp_path: Path, server, capsys) -> None:
    lines = [wit_line(server.answer(f"/{i}.png", picture(i)), f"picture {i} of wit", mime="image/png")
             for i in range(60)]  # fmt: skip
    lines.append(wit_line(server.url("/gone.png"), "a picture that is gone", mime="image/png"))
    table = write_wit(tmp_path / "wit.tsv.gz", *lines)
    tar_of_pictures(tmp_path / "cc.tar", 50)
    code, out, err = run(
        capsys, "wit_cos_16", "audiocaps_wit_mse_16", "--wit", table, "--cc", tmp_path / "cc.tar", "--contact",
        "me@example.org", "--model", tiny_folder, *SMALL,
    )  # fmt: skip
    assert code == 0, err
    assert "pairs of text" in out and "pairs of image" in out
    assert "embedding wit" in err and "embedding conceptual_captions" in err
    model = LatentDiffusion.from_folder(tiny_folder, "cpu")
    for name in ("wit_cos_16", "audiocaps_wit_mse_16"):
        record = json.loads(find_translator(model, name).path.with_suffix(".json").read_text())
        assert record["data"]["wit"]["collections"] == {"conceptual_captions": 50, "wit": 60}
    assert default_name(model) == "tiny_cos", "the model's own choice counts"


def test_what_a_name_does_not_learn_from_changes_nothing(cache, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    more = ["--model", tiny_folder, "--limit", "60", "--device", "cpu"]
    assert run(capsys, "audiocaps_cos_16", *more)[0] == 0
    code, _, err = run(capsys, "audiocaps_cos_16", "--cc", "nowhere.tar", *more)
    assert code == 0 and "not used by audiocaps_cos_16: --cc nowhere.tar" in err and "is made and installed" in err
    pictures = tar_of_pictures(tmp_path / "cc.tar", 50)
    names = ["audiocaps_cos_16", "wit_cos_20", "audiocaps_cos_16_centred"]
    code, out, err = run(capsys, *names, "--cc", pictures, *more)
    assert code == 0 and "audiocaps_cos_16 is made and installed" in err
    assert "| wit_cos_20 |" in out and "| audiocaps_cos_16_centred |" in out and "| audiocaps_cos_16 |" not in out
    code, out, err = run(capsys, *names, "--cc", pictures, *more)
    assert code == 0 and out == "" and err.count("is made and installed") == 3
    code, out, err = run(capsys, "wit_cos_20", "--cc", tar_of_pictures(tmp_path / "other.tar", 40), *more)
    assert (code, out, len(err.splitlines())) == (2, "", 1) and "--replace replaces it" in err, "before it is embedded"


def test_rows_that_failed_are_said_and_tried_again(cache, tiny_folder: Path, tmp_path: Path, server, capsys) -> None:
    lines = [wit_line(server.answer(f"/{i}.png", picture(i)), f"picture {i}", mime="image/png") for i in range(50)]
    server.answer("/7.png", status=403)
    lines.append(wit_line(server.url("/gone.png"), "a picture that is gone", mime="image/png"))
    table = write_wit(tmp_path / "wit.tsv.gz", *lines)
    command = ["wit_cos_16", "--wit", table, "--contact", "me@example.org", "--model", tiny_folder, *SMALL]
    code, _, err = run(capsys, *command)
    assert code == 0 and "2 rows of wit failed (" in err and "http_404 1" in err and "http_403 1" in err
    installed = find_translator(LatentDiffusion.from_folder(tiny_folder, "cpu"), "wit_cos_16").path

    def pairs() -> int:
        facts = json.loads(installed.with_suffix(".json").read_text())["data"]["wit"]
        return facts["pairs"] + facts["held_out"]

    first = installed.read_bytes()
    code, out, err = run(capsys, *command, "--retry")
    assert code == 0 and out == "" and "is made and installed" in err, "nothing has changed"
    server.answer("/7.png", picture(7))
    code, _, err = run(capsys, *command, "--retry")
    assert code == 2 and "--replace" in err and installed.read_bytes() == first and pairs() == 49
    installed.unlink()
    assert run(capsys, *command)[0] == 0 and pairs() == 50, "what is embedded now goes to a folder of its own"
    installed.write_bytes(first)
    assert run(capsys, *command, "--replace")[0] == 0 and installed.read_bytes() != first


def test_the_sample_is_downloaded_once(cache: Path, tmp_path: Path, server: Server, monkeypatch) -> None:
    table = write_wit(tmp_path / "sample.tsv.gz", wit_line("http://a/1.jpg", "a picture"))
    url = server.answer("/gresearch/wit/sample.tsv.gz", table.read_bytes())
    monkeypatch.setattr(plan, "SAMPLE_URL", url)
    assert plan.sample().read_bytes() == table.read_bytes() == plan.sample().read_bytes()
    assert len(server.paths) == 1 and plan.sample().is_relative_to(cache)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["wit_cos_512"], "--wit sample"),
        (["all"], "--wit sample"),
        (["wit_cos_512", "--wit", "sample"], "--contact"),
        (["nonsense"], "is not the name of a trainable translator"),
        (["audiocaps_cos_512", "--limit", "0"], "is not a whole number"),
        (["audiocaps_cos_512_centred"], "audiocaps_cos_512_centred learns from pictures with captions: give --wit"),
        (["wit_cos_512", "--wit", "nowhere.tsv.gz", "--contact", "me@example.org"], "no such file"),
        (["wit_cos_512", "--wit", "sample", "--contact", "nonsense"], "the contact must be"),
        (["audiocaps_cos_512", "--device", "nonsense"], 'unknown device "nonsense"'),
        (["audiocaps_cos_512", "--work", "~nobodyx/w"], "the home folder of nobody"),
        (["audiocaps_cos_512", "--work", __file__], "is a file; --work must be a folder"),
        (["audiocaps_cos_512", "--work", f"{__file__}/w"], "is a file; --work must be a folder"),
    ],
)
def test_what_cannot_be_made_is_said_at_once(cache: Path, capsys, arguments: list[str], said: str) -> None:
    """Before the model is downloaded."""
    code, out, err = run(capsys, *arguments, "--model", "audioldm-s-full-v2")
    assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1


def test_it_resumes_after_being_killed_twice(cache: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    command = ["audiocaps_cos_512", "--model", str(tiny_folder), "--device", "cpu", "--limit", "14000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def killed_when(there: str) -> list[str]:
        process = subprocess.Popen([sys.executable, "-m", "prior_steps.make", "make", *command], env=environment)
        deadline = time.monotonic() + 200
        try:
            while not (found := sorted(str(path) for path in cache.rglob(there))) and time.monotonic() < deadline:
                assert process.poll() is None, "it ended before it could be killed"
                time.sleep(0.02)
        finally:
            process.kill()
        assert process.wait() == -signal.SIGKILL and found
        return found

    (cache / "make").mkdir(parents=True)
    killed_when("audiocaps-00001.parquet")
    first = {path: path.stat().st_mtime_ns for path in cache.rglob("*.parquet")}
    killed_when(".audiocaps_cos_512.state")
    assert {path: path.stat().st_mtime_ns for path in first} == first and len(list(cache.rglob("*.parquet"))) == 7
    code, out, err = run(capsys, *command)
    assert code == 0 and "embedding audiocaps 0" not in err and "| audiocaps_cos_512 |" in out
    model = LatentDiffusion.from_folder(tiny_folder, "cpu")
    with safe_open(find_translator(model, "audiocaps_cos_512").path, "np") as file:
        assert file.metadata()["data"].startswith("audiocaps 1")


# audioldm-embed


def test_embed_is_the_scripts_under_one_name(cache: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    assert embed_command.main(["audiocaps", "--limit", "30", "--model", str(tiny_folder), "--out", "shards"]) == 0
    assert "total" in capsys.readouterr().out
    assert embed_command.main(["csvtotxt", "--shards", "shards", "--out", "txt", "--limit", "2"]) == 0
    assert len(list(Path("txt").iterdir())) == 2
    assert embed_command.main(["histograms", "shards", "--out", "norms.png"]) == 0 and Path("norms.png").is_file()


def test_embed_says_what_there_is(capsys) -> None:
    with pytest.raises(SystemExit):
        embed_command.main([])
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    assert embed_command.main(["audiocap"]) == 2
    assert "audiocaps" in capsys.readouterr().err
    assert embed_command.main(["audiocaps", "--limit", "0"]) == 2
    assert capsys.readouterr().err.startswith("audioldm-embed audiocaps: error: ")
    with pytest.raises(SystemExit):
        embed_command.main(["wit", "-h"])
    assert "audioldm-embed wit" in capsys.readouterr().out


