"""``python -m audioldm.convert.verify`` on upstream's golden outputs: right, wrong, incomplete."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from upstream import GOLDEN

from audioldm.convert import verify

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="shared/golden is not beside this checkout")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden folder that may be written to."""
    shutil.copytree(GOLDEN, tmp_path / "a", copy_function=shutil.copyfile)
    (tmp_path / "a").chmod(0o755)
    return tmp_path / "a"


def test_every_component_equals_upstreams(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(GOLDEN)]) == 0
    printed = capsys.readouterr().out
    for name in ("UNet", "VAE decode", "VAE encode", "vocoder", "CLAP text", "CLAP audio", "log-mel", "DDIM",
                 "style transfer", "inpainting", "whole call, 1: wave"):  # fmt: skip
        assert f"\n{name}" in printed
    assert "TOO LARGE" not in printed


@pytest.mark.parametrize(
    ("file", "array", "line"),
    [("unet", "eps_ema", "UNet"), ("masked", "final", "inpainting"), ("e2e_text_to_audio", "n1_wave", "whole call")],
)
def test_a_difference_is_found(
    folder: Path, capsys: pytest.CaptureFixture[str], file: str, array: str, line: str
) -> None:
    with np.load(folder / f"{file}.npz") as stored:
        arrays = dict(stored)
    arrays[array].flat[7] += 1e-3
    (folder / f"{file}.npz").unlink()
    np.savez(folder / f"{file}.npz", **arrays)
    assert verify.main([str(folder)]) == 1
    wrong = [row for row in capsys.readouterr().out.splitlines() if row.endswith("TOO LARGE")]
    assert len(wrong) == 1 and wrong[0].startswith(line)


@pytest.mark.parametrize("missing", ["config.json", "tiny.ckpt", "tokenizer", "ddim.npz"])
def test_an_incomplete_folder_is_told_in_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    path = folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert verify.main([str(folder)]) == 2
    assert capsys.readouterr().err.startswith("verify: error: ")
