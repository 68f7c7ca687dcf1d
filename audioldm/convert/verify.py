"""Do our parts compute what upstream AudioLDM computed? A line for each, with its error and the tolerance.

    python -m audioldm.convert.verify FOLDER

FOLDER holds a small checkpoint (tiny.ckpt, config.json, tokenizer/) and upstream's results (*.npz: inputs, noise
and outputs). Ten times the noise of float32 arithmetic is allowed, which was measured as the largest difference
between upstream in float32 and in float64.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from .. import audio
from ..checkpoints.layout import read_json
from ..errors import InputError
from ..latent_diffusion import sampling
from ..latent_diffusion.model import LatentDiffusion
from . import checkpoint

# Largest absolute difference allowed: ten times the float32 noise floor.
UNET, DECODE, ENCODE, VOCODER, EMBEDDING, MEL, LATENTS = 2.1e-5, 1.7e-4, 4.9e-5, 1.4e-5, 1.5e-6, 9.2e-5, 8e-5
RESAMPLED = 1e-5  # a filter's coefficients, which upstream rounds to float32
GUIDANCE = 2.5
STEPS = 10  # of a style transfer, which its file does not say

Arrays = dict[str, Tensor]
Check = Iterator[tuple[str, Tensor, Tensor, float]]  # name, ours, upstream's, tolerance


def unet(model: LatentDiffusion, golden: Arrays) -> Check:
    """The averaged weights, at two lengths."""
    for name, (x, t, y, eps) in {
        "UNet": ("x", "t", "y", "eps_ema"),
        "UNet, twice as long": ("x2", "t2", "y2", "eps2_ema"),
    }.items():
        ours = model.unet(golden[x], golden[t], encoder_hidden_states=None, class_labels=golden[y]).sample
        yield name, ours, golden[eps], UNET


def vae(model: LatentDiffusion, golden: Arrays) -> Check:
    """Both ways, with the noise that was drawn from the posterior."""
    scale = model.vae.config["scaling_factor"]
    yield "VAE decode", model.vae.decode(golden["z"]).sample, golden["decode"], DECODE
    yield "VAE decode, scaled", model.vae.decode(golden["z"] / scale).sample, golden["decode_first_stage"], DECODE
    posterior = model.vae.encode(golden["mel_in"]).latent_dist
    yield "VAE encode, mean", posterior.mean, golden["mean"], ENCODE
    yield "VAE encode, deviation", posterior.std, golden["std"], ENCODE
    sample = (posterior.mean + posterior.std * golden["noise"]) * scale
    yield "VAE encode, scaled", sample, golden["scaled_latent"], ENCODE


def vocoder(model: LatentDiffusion, golden: Arrays) -> Check:
    """Mel (B, 64, frames) as upstream lays it out."""
    yield "vocoder", model.vocoder(rearrange(golden["mel"], "b f t -> b t f")), golden["wave"][:, 0], VOCODER


def text(model: LatentDiffusion, golden: dict[str, Any]) -> Check:
    """Six prompts: long, empty, not ASCII …"""
    ours = model.clap.encode_text([str(line) for line in golden["texts"]])
    yield "CLAP text", ours, golden["embed"].reshape(ours.shape), EMBEDDING
    yield "CLAP empty text", model.unconditional, golden["uncond"].reshape(-1, ours.shape[1])[:1], EMBEDDING


def clap_audio(model: LatentDiffusion, golden: Arrays) -> Check:
    """From waves at 16 kHz: resampling, spectrogram, HTSAT, projection."""
    resampled = audio.resample(golden["wave16k"][0].numpy(), 16_000, 48_000)
    head = golden["resampled_48k_first4000"][0]
    yield "resampling, 16 to 48 kHz", torch.from_numpy(resampled[: len(head)]), head, RESAMPLED
    for wave, embedding in (("wave16k", "embed_2p5s"), ("wave16k_3p1s", "embed_3p1s")):
        ours, name = model.clap.encode_audio([golden[wave][0].numpy()]), f"CLAP audio, {golden[wave].shape[1]} samples"
        yield name, ours, golden[embedding].reshape(ours.shape), EMBEDDING


def mel(model: LatentDiffusion, golden: Arrays) -> Check:
    """The log-mel spectrogram, of a plain wave and as upstream prepares its inputs."""
    yield "log-mel", rearrange(audio.log_mel(golden["wave_raw"]), "b 1 t f -> b f t"), golden["logmel_raw"], MEL
    filterbank = golden["fbank_2p5s"]
    ours = audio.log_mel(golden["wave_2p5s"].reshape(1, -1))[0, 0, : len(filterbank)]
    yield "log-mel, of an input file", ours, filterbank, MEL


def ddim(model: LatentDiffusion, golden: Arrays) -> Check:
    """Ten steps with given noise: every step with eta 1, the last with eta 0 and without guidance."""
    condition, unconditional = golden["cond"][:, 0], golden["uncond"][:1, 0]
    for name, eta, guidance in (("eta1_g2p5", 1.0, 2.5), ("eta0_g2p5", 0.0, 2.5), ("eta1_g1", 1.0, 1.0)):
        scheduler, trajectory = _recording(model, len(golden["noise"]))
        predict = sampling.predictor(model.unet, condition, unconditional, guidance)
        final = sampling.denoise(predict, scheduler, golden["x_T"], iter(golden["noise"]), eta=eta)
        if name == "eta1_g2p5":
            yield "DDIM, every step", torch.stack(trajectory), golden["x_each_step_eta1"], LATENTS
        yield f"DDIM, {name.replace('p', '.').replace('_g', ', guidance ')}", final, golden[f"final_{name}"], LATENTS


def transfer(model: LatentDiffusion, golden: Arrays) -> Check:
    """Style transfer: noise on given latents, and the last steps."""
    steps, init = int(golden["t_enc"]), golden["init_latent"]
    noisy = sampling.add_noise(sampling.make_scheduler(model.scheduler, "ddim", STEPS), init, STEPS - steps - 1,
                               iter(golden["encode_noise"][None]))  # fmt: skip
    yield "style transfer, noise added", noisy, golden["z_enc"], LATENTS
    noise = iter([golden["encode_noise"], *golden["decode_noise"]])
    scheduler = sampling.make_scheduler(model.scheduler, "ddim", STEPS)
    predict = sampling.predictor(model.unet, golden["cond"][:, 0], golden["uncond"][:1, 0], GUIDANCE)
    ours = sampling.denoise_from(predict, scheduler, init, steps, noise)
    yield "style transfer", ours, golden["samples"], LATENTS


def masked(model: LatentDiffusion, golden: Arrays) -> Check:
    """Inpainting, as the sampler leaves it."""
    pairs = zip(golden["q_noise"], golden["step_noise"], strict=True)
    scheduler = sampling.make_scheduler(model.scheduler, "ddim", len(golden["q_noise"]))
    predict = sampling.predictor(model.unet, golden["cond"][:, 0], golden["uncond"][:1, 0], GUIDANCE)
    noise = iter([noise for pair in pairs for noise in pair])
    ours = sampling.denoise_masked(predict, scheduler, golden["x_T"], golden["x0"], golden["mask"], noise)
    yield "inpainting", ours, golden["final"], LATENTS


def e2e_text_to_audio(model: LatentDiffusion, golden: dict[str, Any]) -> Check:
    """Whole calls: one candidate from its text and seed; of three, the latents."""
    prompt, steps, guidance = str(golden["text"]), int(golden["ddim_steps"]), float(golden["guidance"])
    for count in (1, 3):
        if f"n{count}_latent" not in golden:
            continue
        latents, seed = golden[f"n{count}_latent"], int(golden[f"n{count}_seed"])
        condition = model.clap.encode_text([prompt])
        yield f"whole call, {count}: condition", condition, golden[f"n{count}_cond"][:1, 0], EMBEDDING
        generator = sampling.upstream_generator(seed)
        scheduler = sampling.make_scheduler(model.scheduler, "ddim", steps)
        predict = sampling.predictor(model.unet, condition.expand(count, -1), model.unconditional, guidance)
        ours = sampling.denoise(predict, scheduler, sampling.draw(latents.shape, generator), generator)
        yield f"whole call, {count}: latents", ours, latents, LATENTS
        if count == 1:
            decoded = model.vae.decode(ours / model.vae.config["scaling_factor"]).sample
            yield "whole call, 1: wave", model.vocoder(decoded[:, 0]), golden["n1_wave"][:, 0], LATENTS


CHECKS: Sequence[Callable[[LatentDiffusion, Any], Check]] = (
    mel, unet, vae, vocoder, text, clap_audio, ddim, transfer, masked, e2e_text_to_audio,
)  # fmt: skip


def _recording(model: LatentDiffusion, steps: int) -> tuple[Any, list[Tensor]]:
    """A DDIM scheduler of ``steps`` steps, and a list that gets the latents after each."""
    scheduler, trajectory = sampling.make_scheduler(model.scheduler, "ddim", steps), []
    step = scheduler.step

    @functools.wraps(step)
    def recorded(*args: Any, **more: Any) -> Any:
        result = step(*args, **more)
        trajectory.append(result)
        return result

    scheduler.step = recorded
    return scheduler, trajectory


@torch.inference_mode()
def verify(folder: Path) -> list[tuple[str, float, float]]:
    """(what, largest absolute error, tolerance) of everything in ``folder``. Raises InputError."""
    config = read_json(folder / "config.json")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        converted = checkpoint.convert(
            folder / "tiny.ckpt", Path(scratch) / "tiny", tokenizer=folder / "tokenizer",
            extra=checkpoint.ExtraSettings.from_config(config),
        )  # fmt: skip
        model = LatentDiffusion.from_folder(converted, "cpu", "fp32")
        for check in CHECKS:
            file = folder / f"{check.__name__}.npz"
            if not file.is_file():
                raise InputError(f"{folder} lacks {file.name}")
            with np.load(file, allow_pickle=False) as arrays:
                golden = {name: array if array.dtype.kind == "U" else torch.from_numpy(array)
                          for name, array in arrays.items()}  # fmt: skip
            for name, ours, theirs, tolerance in _complete(check(model, golden), file):
                if ours.shape != theirs.shape:
                    raise InputError(f"{name}: {tuple(ours.shape)} where upstream has {tuple(theirs.shape)}")
                rows.append((name, float((ours - theirs).abs().max()), tolerance))
    return rows


def _complete(comparisons: Check, file: Path) -> Check:
    try:
        yield from comparisons
    except KeyError as error:
        raise InputError(f"{file} lacks {error}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each comparison; returns 0, 1 if one is beyond its tolerance, or 2 for a bad folder."""
    parser = argparse.ArgumentParser("python -m audioldm.convert.verify", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    try:
        rows = verify(parser.parse_args(argv).folder)
    except InputError as error:
        print(f"verify: error: {error}", file=sys.stderr)
        return 2
    print(f"{'':30}     error  allowed")
    for name, error, tolerance in rows:
        verdict = "" if error <= tolerance else "  TOO LARGE"
        print(f"{name:30} {error:9.1e}  {tolerance:7.1e}{verdict}")
    return int(any(not error <= tolerance for _, error, tolerance in rows))


if __name__ == "__main__":
    sys.exit(main())
