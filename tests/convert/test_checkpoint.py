"""Original checkpoints: every tensor finds its place, and what is no checkpoint is refused in a sentence."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from upstream import GOLDEN, KEYS, medium, on_meta, small

from audioldm.commands.convert import main
from audioldm.convert import checkpoint as convert
from audioldm.convert import clap, unet, vae, vocoder
from audioldm.convert.tables import rename
from audioldm.errors import InputError
from audioldm.latent_diffusion.model import LatentDiffusion

needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="shared/golden is not beside this checkout")
needs_keys = pytest.mark.skipif(not KEYS.is_file(), reason="shared/upstream_keys_s.json is not beside this checkout")
CHECKPOINT = GOLDEN / "tiny.ckpt"


def extra() -> convert.ExtraSettings:
    return convert.ExtraSettings.from_config(json.loads((GOLDEN / "config.json").read_text()))


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return convert.read(CHECKPOINT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("converted") / "tiny"
    return convert.convert(CHECKPOINT, where, tokenizer=GOLDEN / "tokenizer", extra=extra())


@needs_keys
@pytest.mark.parametrize(
    ("shapes", "unet_size", "clap_size", "heads", "depths"),
    [
        (small, 185_036_552, 153_542_171, [4, 8, 12, 20], [2, 2, 6, 2]),
        (medium, 415_954_568, 193_987_739, [6, 12, 18, 30], [2, 2, 12, 2]),
    ],
    ids=["audioldm-s-full-v2", "audioldm-m-full"],
)
def test_the_full_size_architectures_fit_with_no_key_left_over(shapes, unet_size, clap_size, heads, depths):
    parts = convert.split(on_meta(shapes()))
    config, tensors = unet.convert(parts["unet"])
    assert sum(t.numel() for t in tensors.values()) == unet_size
    assert config["attention_head_dim"] == heads
    config, tensors = vae.convert(parts["vae"], 1.0)
    assert len(tensors) == len(parts["vae"]) == 88 + 112 + 4
    _, tensors = vocoder.convert(parts["vocoder"])
    assert len(tensors) == len(parts["vocoder"]) + 2 == 196
    config, tensors = clap.convert(parts["clap"])
    assert sum(t.numel() for t in tensors.values()) == clap_size
    assert config["audio_config"]["depths"] == depths
    assert config["text_config"]["num_attention_heads"] == 12
    assert config["text_config"]["layer_norm_eps"] == 1e-5


@needs_golden
def test_the_averaged_weights_are_used(state, folder: Path):
    name = "input_blocks.1.0.in_layers.2.weight"
    with safe_open(folder / "unet" / "diffusion_pytorch_model.safetensors", framework="pt") as file:
        weight = file.get_tensor("down_blocks.0.resnets.0.conv1.weight")
    assert torch.equal(weight, state[f"model_ema.diffusion_model{name.replace('.', '')}"])
    assert not torch.equal(weight, state[f"model.diffusion_model.{name}"])


@needs_golden
def test_a_checkpoint_without_averages_gives_its_live_weights(state):
    live = {name: tensor for name, tensor in state.items() if not name.startswith("model_ema.")}
    averaged = convert.split(live)["unet"]
    assert torch.equal(averaged["film_emb.weight"], state["model.diffusion_model.film_emb.weight"])


@needs_golden
def test_a_missing_average_is_an_error(state):
    damaged = {name: t for name, t in state.items() if name != "model_ema.diffusion_modelfilm_embweight"}
    with pytest.raises(InputError, match="averages for only .* of the UNet's"):
        convert.split(damaged)


@needs_golden
@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("unet", "model.diffusion_model.middle_block.0.in_layers.0.weight"),
        ("vae", "first_stage_model.decoder.mid.attn_1.q.weight"),
        ("vocoder", "first_stage_model.vocoder.ups.1.bias"),
        ("clap", "cond_stage_model.model.audio_branch.layers.1.blocks.0.attn.qkv.weight"),
    ],
)
def test_a_missing_tensor_is_an_error_in_every_part(state, part: str, name: str):
    damaged = {key: t for key, t in state.items() if key != name and not key.startswith("model_ema.")}
    with pytest.raises(InputError, match="the checkpoint"):
        _convert_parts(convert.split(damaged))


@needs_golden
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "first_stage_model.", "cond_stage_model.model."])
def test_an_unknown_tensor_is_an_error_in_every_part(state, prefix: str):
    live = {key: t for key, t in state.items() if not key.startswith("model_ema.")}
    with pytest.raises(InputError, match="new_thing"):
        _convert_parts(convert.split(live | {f"{prefix}new_thing.weight": torch.zeros(1)}))


def _convert_parts(parts) -> None:
    known = extra()
    unet.convert(parts["unet"], known.head_channels)
    vae.convert(parts["vae"], 1.0)
    vocoder.convert(parts["vocoder"])
    clap.convert(parts["clap"], known.text_heads)


def test_two_tensors_for_one_place_are_an_error():
    with pytest.raises(InputError, match="two tensors"):
        rename({"a.x": torch.zeros(1), "b.x": torch.ones(1)}, {"a": "c", "b": "c"})


@needs_golden
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_halves_the_weights_and_nearly_keeps_the_output(folder: Path, tmp_path: Path, dtype: str):
    half = convert.convert(CHECKPOINT, tmp_path / "half", dtype, GOLDEN / "tokenizer", extra())
    sizes = [(f / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size for f in (folder, half)]
    assert 0.45 < sizes[1] / sizes[0] < 0.55
    vectors = [LatentDiffusion.from_folder(f, "cpu").clap.encode_text(["a dog"]) for f in (folder, half)]
    assert (vectors[0] - vectors[1]).abs().max() < 0.02


@needs_golden
def test_the_result_is_whole_or_not_there(tmp_path: Path):
    with pytest.raises(InputError, match="the UNet is 32 channels wide"):
        convert.convert(CHECKPOINT, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@needs_golden
@pytest.mark.parametrize("name", ["first_stage_model.vocoder.conv_pre.bias", "cond_stage_model.model.logit_scale_a"])
def test_nan_in_a_checkpoint_names_the_file_and_the_tensor(state, tmp_path: Path, name: str):
    spoilt = {**state, name: torch.full_like(state[name], float("nan"))}
    torch.save({"state_dict": spoilt}, tmp_path / "bad.ckpt")
    with pytest.raises(InputError, match=rf"bad.ckpt is damaged: its tensor .*{name.rpartition('.')[2]} holds NaN"):
        convert.convert(tmp_path / "bad.ckpt", tmp_path / "out", extra=extra())
    assert not (tmp_path / "out").exists()


@needs_golden
def test_nothing_is_overwritten(folder: Path):
    with pytest.raises(InputError, match="already exists"):
        convert.convert(CHECKPOINT, folder, extra=extra())


class Bomb:
    """What a hostile pickle does."""

    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle was run')",)


@pytest.mark.parametrize("kind", ["empty", "text", "pickle", "hostile", "other keys", "not tensors", "truncated"])
def test_what_is_no_checkpoint_is_refused_and_not_run(tmp_path: Path, kind: str):
    path = tmp_path / "file.ckpt"
    if kind == "hostile":
        torch.save({"state_dict": Bomb()}, path)
    elif kind == "other keys":
        torch.save({"weights": {}}, path)
    elif kind == "not tensors":
        torch.save({"state_dict": {"scale_factor": 1.0}}, path)
    elif kind == "truncated":
        torch.save({"state_dict": {"scale_factor": torch.zeros(10_000)}}, path)
        path.write_bytes(path.read_bytes()[:20_000])
    else:
        path.write_bytes({"empty": b"", "text": b"hello", "pickle": pickle.dumps(Bomb())}[kind])
    with pytest.raises(InputError, match="is damaged or not an AudioLDM checkpoint"):
        convert.read(path)


@needs_golden
def test_the_first_load_caches_and_the_next_reuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AUDIOLDM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(convert, "find_tokenizer", lambda path: None)
    monkeypatch.setattr(unet, "HEAD_CHANNELS", {32: 8})
    first = convert.cached(CHECKPOINT)
    monkeypatch.setattr(convert, "convert", lambda *args, **more: pytest.fail("converted again"))
    assert convert.cached(CHECKPOINT) == first
    model = LatentDiffusion.from_folder(first, "cpu")
    assert model.unconditional.shape == (1, 64)
    with pytest.raises(InputError, match="tokenizer"):
        model.clap.encode_text(["a dog"])
    monkeypatch.setattr(convert, "find_tokenizer", lambda path: GOLDEN / "tokenizer")  # put there since
    model = LatentDiffusion.from_folder(convert.cached(CHECKPOINT), "cpu")
    assert model.clap.encode_text(["a dog"]).shape == (1, 64)


@needs_golden
def test_a_file_of_an_older_torch_is_read_too(state, tmp_path: Path):
    old = {name: tensor.clone() for name, tensor in state.items() if name.startswith("first_stage_model.vocoder.")}
    torch.save({"state_dict": old}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    assert convert.read(tmp_path / "old.ckpt").keys() == old.keys()


@needs_golden
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    command = [str(CHECKPOINT), str(out), "--tokenizer", str(GOLDEN / "tokenizer")]
    assert main(command) == 2  # its width is none of AudioLDM's six
    assert "audioldm-convert --config" in capsys.readouterr().err
    command += ["--config", str(GOLDEN / "config.json")]
    assert main(command) == 0
    assert capsys.readouterr().out.strip() == str(out)
    for wrong in (command, [str(tmp_path / "nothing.ckpt"), str(out)], ["--dtype", "int8"]):
        assert main(wrong) == 2
        told = capsys.readouterr().err
        assert told.startswith("audioldm-convert: error: ") and len(told.splitlines()) == 1
