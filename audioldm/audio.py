"""Waveforms and the log-mel spectrogram that VAE and vocoder speak: resample and analyse.

The front end is AudioLDM's: 16 kHz, 10 ms hop, 64 Slaney mel bands of STFT *magnitude* (not power), natural
logarithm. Numbers as measured on audioldm 0.1.1; checked against its output in ``tests/test_audio.py``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NoReturn

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from .errors import missing_name

SAMPLE_RATE = 16_000  # Hz
N_FFT = 1024  # samples, also the Hann window's length: 64 ms
HOP_LENGTH = 160  # samples: 10 ms
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH  # 100
N_MELS = 64
F_MIN, F_MAX = 0.0, 8_000.0  # Hz
ZERO_CROSSINGS, ROLLOFF = 6, 0.99  # of the resampling filter, and the share of the band that it keeps
TAPS = 1 << 20  # samples of the input that are weighted at once
GONE = {
    "wav_to_fbank": "use audioldm.audio.log_mel of audioldm.inputs.sounds.read_wave",
    "TacotronSTFT": "use audioldm.audio.log_mel",
    "read_wav_file": "use audioldm.inputs.sounds.read_wave",
}
LOG_FLOOR = 1e-5  # magnitudes below are raised to it before the logarithm, so log-mel >= -11.51


def mel_filters(n_mels: int = N_MELS, f_min: float = F_MIN, f_max: float = F_MAX) -> Tensor:
    """Slaney's triangular mel filters, each of unit area in Hz: (n_mels, N_FFT // 2 + 1), float32."""
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(N_FFT // 2 + 1, n_mels, f_min, f_max, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(rearrange(bank, "bin band -> band bin").astype(np.float32))


_filters = lru_cache(maxsize=1)(mel_filters)
_window = lru_cache(maxsize=1)(lambda: torch.hann_window(N_FFT, dtype=torch.float64))


def log_mel(wave: Tensor) -> Tensor:
    """Log-mel spectrogram of (B, N) float32 waves in [-1, 1] at 16 kHz: (B, 1, 1 + N // 160, 64), >= -11.51.

    Time before frequency, as the latents are laid out. Frames are centred, the ends reflected; N > 512. Computed
    as float64: near silence the logarithm magnifies what a float32 spectrum rounds off (7e-5 against 7e-6 of
    upstream's own numbers).
    """
    precise = wave.double()
    spectrum = torch.stft(precise, N_FFT, HOP_LENGTH, window=_window().to(precise), return_complex=True)
    mel = _filters().to(precise) @ spectrum.abs()
    return rearrange(mel.clamp(min=LOG_FLOOR).log(), "b band t -> b 1 t band").to(wave.dtype)


def resample(wave: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Float32 (N,) at ``rate`` Hz -> float32 (ceil(N * new_rate / rate),), band-limited.

    By a sinc under a Hann window, six zero crossings to each side, cut off at 99 % of the lower Nyquist frequency:
    upstream's own filter, so CLAP gets the same input as there
    (https://ccrma.stanford.edu/~jos/resample/).
    """
    if rate == new_rate:
        return wave
    common = math.gcd(rate, new_rate)
    step, phases = rate // common, new_rate // common
    cutoff = ROLLOFF * min(1.0, phases / step)  # zero crossings for a sample of the input
    reach = math.ceil(ZERO_CROSSINGS / cutoff)  # samples of the input to each side
    length = math.ceil(len(wave) * phases / step)
    padded = np.pad(wave.astype(np.float32), reach + 1)
    offsets = np.arange(-reach, reach + 2)
    result = np.empty(length, np.float32)
    block = max(1, TAPS // len(offsets))  # at once: the taps of a long sound would fill the memory
    for first in range(0, length, block):
        position = np.arange(first, min(first + block, length)) * step
        whole, rest = position // phases, position % phases / phases
        t = np.clip((offsets - rest[:, None]) * cutoff, -ZERO_CROSSINGS, ZERO_CROSSINGS)
        weights = (cutoff * np.sinc(t) * np.cos(t * np.pi / (2 * ZERO_CROSSINGS)) ** 2).astype(np.float32)
        result[first : first + block] = np.einsum("nk,nk->n", padded[whole[:, None] + offsets + reach + 1], weights)
    return result


def __getattr__(name: str) -> NoReturn:
    raise missing_name(__name__, name, GONE)
