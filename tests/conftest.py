"""What several tests need: a tiny model, made once, and an output folder of one's own."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

# Whoever starts the tests in the background leaves them an ignored SIGINT, which commands under test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete model with tiny random networks; two translators lie beside it."""
    import tiny

    return tiny.build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path):
    """That model, on the CPU, for tests that do not mind which of its parts are read already."""
    from audioldm.latent_diffusion.model import LatentDiffusion

    return LatentDiffusion.from_folder(tiny_folder, "cpu", "fp32")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A file with a picture that is not the same everywhere."""
    import numpy as np
    from PIL import Image

    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model (and its translators) to be spoilt."""
    shutil.copytree(tiny_folder.parent, tmp_path / "models")
    return tmp_path / "models" / "tiny"


@pytest.fixture
def server():
    """A local HTTP server; what it answers is up to the test."""
    from server import Server

    with Server() as server:
        yield server
