"""What scripts written for AudioLDM find here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import audioldm
from audioldm.errors import InputError
from audioldm.latent_diffusion.model import LatentDiffusion


def test_a_star_import_brings_the_verbs() -> None:
    names: dict[str, object] = {}
    exec("from audioldm.pipeline import *", names)
    for verb in ("build_model", "text_to_audio", "style_transfer", "super_resolution_and_inpainting"):
        assert names[verb] is getattr(audioldm, verb)
    assert {"seed_everything", "round_up_duration"} <= names.keys()


@pytest.mark.parametrize(
    ("module", "name", "instead"),
    [
        ("pipeline", "set_cond_audio", "original_audio_file_path"),
        ("pipeline", "make_batch_for_text_to_audio", "batchsize"),
        ("utils", "get_metadata", "published"),
        ("utils", "default_audioldm_config", "folder"),
        ("audio", "wav_to_fbank", "log_mel"),
        ("audio", "read_wav_file", "read_wave"),
    ],
)
def test_a_name_that_is_gone_says_what_to_use(module: str, name: str, instead: str) -> None:
    with pytest.raises(ImportError, match=f"audioldm.{module}.{name} does not exist here: .*{instead}"):
        exec(f"from audioldm.{module} import {name}")
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        exec(f"from audioldm.{module} import nonsense")


def test_the_small_functions(tmp_path: Path) -> None:
    from audioldm.utils import get_bit_depth, get_duration, get_time, save_wave

    (path,) = save_wave(np.zeros((1, 1, 8000), np.float32), tmp_path, name=get_time())
    assert (get_duration(path), get_bit_depth(str(path))) == (0.5, 16)
    soundfile.write(tmp_path / "float.wav", np.zeros(100), 16_000, subtype="FLOAT")
    with pytest.raises(InputError, match="not PCM"):
        get_bit_depth(tmp_path / "float.wav")


def test_clap_is_a_module_with_upstreams_call(tiny_folder: Path) -> None:
    clap = LatentDiffusion.from_folder(tiny_folder, "cpu").clap
    assert isinstance(clap, torch.nn.Module) and not clap.training and list(clap.children()) == []
    texts = clap(["a dog", "rain"])
    assert texts.shape == (2, 1, 512) and torch.equal(texts[:, 0], clap.encode_text(["a dog", "rain"]))
    assert torch.equal(clap("rain"), texts[1:])
    empty = clap.get_unconditional_condition(3)
    assert empty.shape == (3, 1, 512) and torch.equal(empty[2, 0], clap.encode_text([""])[0])
    clap.embed_mode = "audio"
    waves = torch.randn(2, 16_000) * 0.1
    heard = clap(waves)
    assert heard.shape == (2, 1, 512) and torch.equal(heard[:, 0], clap.encode_audio(list(waves.numpy())))
    assert len(list(clap.children())) == 2 and not any(p.requires_grad for p in clap.parameters())
    assert next(clap.to(torch.device("meta")).parameters()).device == clap.device == torch.device("meta")


def test_editors_see_what_the_package_resolves() -> None:
    source = Path(audioldm.__file__).read_text(encoding="utf-8")
    for name in set(audioldm.__all__) - {"__version__"}:
        assert f"import {name} as {name}\n" in source and name in audioldm._HOME
    assert (Path(audioldm.__file__).parent / "py.typed").is_file()


def test_the_verbs_cost_no_torch_until_they_are_called() -> None:
    program = "import sys, audioldm.pipeline, audioldm.utils; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
