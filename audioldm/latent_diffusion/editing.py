"""Modes that begin with a sound: style transfer, inpainting, super-resolution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..audio import FRAMES_PER_SECOND, HOP_LENGTH, N_FFT, SAMPLE_RATE, mel_filters
from ..errors import InputError
from . import sampling
from .codec import clamp_runaway, compute_mel, encode, finish_kept, latent_shape, normalise, splice, to_mel, vocode

if TYPE_CHECKING:
    from ..inputs.sounds import Original
    from ..options import GenerateOptions
    from .model import LatentDiffusion
    from .sampling import Predict, Scheduler

FADE = 4  # mel frames, 40 ms: length of the fade from the kept to the new part


@dataclass(frozen=True)
class Region:
    """What inpainting keeps, on the CPU: ``mask`` (1, 1, T, F) 1 or 0 of the latents; and as shares from 0 to 1 whose
    product is kept, ``frames`` (T * f,) of the mel and the wave, ``bands`` (64,) of the mel and ``bins`` (513,) of the
    wave's spectrum."""

    mask: Tensor
    frames: Tensor
    bands: Tensor
    bins: Tensor

    @property
    def keep(self) -> Tensor:
        """The original's share of the mel: (1, 1, T * f, 64)."""
        return (self.frames[:, None] * self.bands)[None, None]


@dataclass(frozen=True)
class Source:
    """A sound made ready for one model.

    ``wave`` (N,) as upstream levels it, gain * (the original - offset), on the CPU; ``mel`` (1, 1, T * f, 64), its
    log-mel; ``mean`` and ``deviation`` (1, C, T, F), the latents that the VAE takes it for; ``region``: what inpainting
    keeps of it.
    """

    wave: Tensor
    mel: Tensor
    mean: Tensor
    deviation: Tensor
    region: Region | None = None
    gain: float = 1.0
    offset: float = 0.0


def prepare(model: LatentDiffusion, original: Original, options: GenerateOptions) -> Source:
    """Bring ``original`` to the options' duration, cut or followed by silence, and encode it. Raises InputError."""
    frames = latent_shape(model, options.duration)[2] * model.sizes.factor
    wave, gain, offset = normalise(original.wave, frames * HOP_LENGTH)
    mel = compute_mel(wave).to(model.device)
    kept = make_region(model, options) if options.mode in ("inpaint", "superres") else None
    return Source(wave, mel, *encode(model, mel), kept, gain, offset)


def transfer(
    predict: Predict,
    scheduler: Scheduler,
    options: GenerateOptions,
    seeds: Sequence[int],
    source: Source,
    on_step: Callable[[], object] | None = None,
    stop: int | None = None,
) -> Tensor:
    """Latents (B, C, T, F) of ``source`` with the last ``options.steps_run`` steps made new, for each of B seeds.

    0 steps return the latents of the source as they are. ``stop``: the first step to leave to another call, with the
    same ``scheduler``.
    """
    generators, clean = _begin(source, seeds)
    return sampling.denoise_from(
        predict, scheduler, clamp_runaway(clean), options.steps_run, generators, on_step=on_step, stop=stop
    )


def inpaint(
    model: LatentDiffusion,
    predict: Predict,
    options: GenerateOptions,
    seeds: Sequence[int],
    source: Source,
    region: Region,
    on_step: Callable[[], object] | None = None,
) -> Tensor:
    """Latents (B, C, T, F): those of ``source`` where ``region`` keeps them, new elsewhere, for each of B seeds."""
    mask = region.mask.to(model.device)
    generators, clean = _begin(source, seeds)
    noise = sampling.draw(clean.shape, generators).to(model.device)
    scheduler = sampling.make_scheduler(model.scheduler, options.sampler, options.ddim_steps)
    latents = sampling.denoise_masked(predict, scheduler, noise, clean, mask, generators, on_step=on_step)
    return mask * clean + (1 - mask) * latents


def inpainted_mel(model: LatentDiffusion, source: Source, region: Region, latents: Tensor) -> Tensor:
    """Log-mel (1, 1, frames, 64) of inpainted latents (1, C, T, F), with that of ``source`` where it is kept."""
    keep = region.keep.to(model.device)
    return keep * source.mel + (1 - keep) * to_mel(model, latents)


def inpainted_wave(
    model: LatentDiffusion, source: Source, region: Region, latents: Tensor, duration: float
) -> tuple[np.ndarray, float]:
    """Inpainted latents (1, C, T, F) -> float32 (N,), with the source's samples where they are kept, and its gain."""
    wave = vocode(model, inpainted_mel(model, source, region, latents))
    return finish_kept(put_back(source, region, wave), duration)


def put_back(source: Source, region: Region, wave: Tensor) -> Tensor:
    """The vocoder's wave with the source's own samples (N,) where they are kept, which no vocoder quite gives.

    As loud as the original, and with its offset.
    """
    spliced = splice(source.wave, wave[: len(source.wave)].cpu(), region.frames, region.bins)
    return spliced / source.gain + source.offset


def _begin(source: Source, seeds: Sequence[int]) -> tuple[list[torch.Generator], Tensor]:
    """Each sound's generator, and latents (B, C, T, F) drawn with them from the source's distribution.

    As upstream, which draws the latents, then two numbers for its prompts (see upstream_generator), then the rest.
    """
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    clean = source.mean + source.deviation * sampling.draw(source.mean.shape, generators).to(source.mean.device)
    for generator in generators:
        for _ in range(2):
            torch.rand(1, generator=generator)
    return generators, clean


def make_region(model: LatentDiffusion, options: GenerateOptions) -> Region:
    """What inpainting keeps by ``options``.

    Made new is each range given: a time at all frequencies, and frequencies at all times. Latents that hold any of
    it are made new, but in mel and wave all is kept that is outside of it. Inside, along time, the original fades out
    over 40 ms, so that nothing begins abruptly. Raises InputError if the region is empty.
    """
    _, _, length, height = latent_shape(model, options.duration)
    factor = model.sizes.factor
    if options.time_range is not None:
        frames = _frames(options.time_range, options.duration, length * factor)
        times = _cover(frames, factor)
    else:
        times = _share(options.time_mask_ratio, length)
        frames = (times[0] * factor, times[1] * factor)
    middles = _middles(height * factor)
    if options.frequency_range is not None:
        bands = _bands(options.frequency_range, middles)
        heights = _cover(bands, factor)
    else:
        heights = _share(options.frequency_mask_ratio, height)
        bands = (heights[0] * factor, heights[1] * factor)
    if times[0] >= times[1] and heights[0] >= heights[1]:
        raise InputError("the ranges are too small: no part of the sound would change")
    mask = torch.ones(1, 1, length, height)
    mask[:, :, slice(*times)] = 0
    mask[..., slice(*heights)] = 0
    kept = torch.ones(length * factor)
    kept[slice(*frames)] = _fade(*frames, length * factor)
    kept_bands = torch.ones(height * factor)
    kept_bands[slice(*bands)] = 0
    return Region(mask, kept, kept_bands, _bins(bands, middles))


def _frames(seconds: tuple[float, float], duration: float, count: int) -> tuple[int, int]:
    """The mel frames of a time in seconds; with the sound's end, all to the end."""
    start, stop = seconds
    stop = count if stop >= duration else min(count, math.ceil(round(stop * FRAMES_PER_SECOND, 6)))
    return math.floor(round(start * FRAMES_PER_SECOND, 6)), stop


def _middles(count: int) -> np.ndarray:
    """The middles of the mel bands, in Hz."""
    filters = mel_filters(count).double().numpy()
    return (filters @ _bin_frequencies()) / filters.sum(axis=1).clip(min=1e-12)


def _bin_frequencies() -> np.ndarray:
    return np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)


def _bands(hertz: tuple[float, float], middles: np.ndarray) -> tuple[int, int]:
    """The mel bands with their middle in a range of frequencies, or else the one nearest to it."""
    low, high = hertz
    inside = np.flatnonzero((middles >= low) & (middles <= high))
    if not len(inside):
        inside = np.array([np.abs(middles - (low + high) / 2).argmin()])
    return int(inside[0]), int(inside[-1]) + 1


def _bins(bands: tuple[int, int], middles: np.ndarray) -> Tensor:
    """The share kept, 0 or 1, of each frequency of a spectrum where the mel's ``bands`` are made new: (513,).

    The border is half-way between the middles of two bands.
    """
    if bands[0] >= bands[1]:
        return torch.ones(len(_bin_frequencies()))
    borders = np.concatenate([[-np.inf], (middles[1:] + middles[:-1]) / 2, [np.inf]])
    frequencies = _bin_frequencies()
    inside = (frequencies >= borders[bands[0]]) & (frequencies < borders[bands[1]])
    return torch.from_numpy((~inside).astype(np.float32))


def _cover(places: tuple[int, int], factor: int) -> tuple[int, int]:
    """The latents that hold any of the mel's ``places``."""
    return places[0] // factor, -(-places[1] // factor)


def _share(ratio: tuple[float, float] | None, count: int) -> tuple[int, int]:
    return (0, 0) if ratio is None else (int(count * ratio[0]), int(count * ratio[1]))


def _fade(start: int, stop: int, count: int) -> Tensor:
    """The original's share at the frames from ``start`` to before ``stop``: falling from it, rising to what follows.

    Where nothing is before or after, there is nothing to fade from.
    """
    place = torch.arange(start, stop, dtype=torch.float32)
    before = (place - start + 1) if start > 0 else torch.full_like(place, math.inf)
    after = (stop - place) if stop < count else torch.full_like(place, math.inf)
    length = min(FADE, (stop - start) // 4) + 1
    return (1 - torch.minimum(before, after) / length).clamp(min=0)
