"""The mel front end against upstream's own output; reading and writing waves."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audioldm.audio import HOP_LENGTH, N_MELS, SAMPLE_RATE, log_mel, mel_filters
from audioldm.errors import InputError
from audioldm.inputs.sounds import read_wave
from audioldm.outputs.destination import write_wave

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "a"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="shared/golden is not beside this checkout")


@needs_golden
def test_mel_is_upstreams():
    golden = np.load(GOLDEN / "mel.npz")
    assert np.abs(mel_filters().numpy() - golden["mel_basis"]).max() < 1e-8
    ours = log_mel(torch.from_numpy(golden["wave_raw"]))[0, 0].numpy().T
    assert np.abs(ours - golden["logmel_raw"][0]).max() < 9.2e-5  # ten times upstream's own float32 noise


def test_mel_of_a_tone_peaks_in_its_band():
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(SAMPLE_RATE) / SAMPLE_RATE)
    mel = log_mel(tone[None])
    assert mel.shape == (1, 1, 1 + SAMPLE_RATE // HOP_LENGTH, N_MELS)
    centres = mel_filters().argmax(dim=1) * SAMPLE_RATE / 1024
    assert abs(centres[mel[0, 0, 50].argmax()] - 1000) < 40


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_any_rate_channels_and_depth_reads_as_16k_mono(tmp_path, rate, channels, subtype):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    soundfile.write(tmp_path / "in.wav", np.stack([tone] * channels, axis=1), rate, subtype=subtype)
    wave = read_wave(tmp_path / "in.wav")
    assert wave.dtype == np.float32 and abs(len(wave) - SAMPLE_RATE) <= 2
    spectrum = np.abs(np.fft.rfft(wave[:SAMPLE_RATE]))
    assert abs(spectrum.argmax() - 440) <= 1
    assert np.abs(wave[1000:-1000]).max() == pytest.approx(0.5, abs=0.02)


def test_what_is_written_reads_back_unclipped_and_exact_to_16_bits(tmp_path):
    wave = np.random.default_rng(0).uniform(-1, 1, 12345).astype(np.float32)
    write_wave(tmp_path / "a.wav", wave)
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (16000, 1, "PCM_16", 12345)
    assert np.abs(read_wave(tmp_path / "a.wav") - wave).max() < 1e-4
    write_wave(tmp_path / "loud.wav", np.array([1.5, -1.5], np.float32))
    assert read_wave(tmp_path / "loud.wav").tolist() == pytest.approx([1, -1], abs=1e-3)  # upstream wraps


def test_no_wave_is_overwritten_and_nothing_half_written_stays(tmp_path):
    write_wave(tmp_path / "a.wav", np.zeros(10, np.float32))
    before = (tmp_path / "a.wav").read_bytes()
    with pytest.raises(FileExistsError):
        write_wave(tmp_path / "a.wav", np.ones(10, np.float32))
    assert (tmp_path / "a.wav").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]
    with pytest.raises(InputError, match="cannot write"):
        write_wave(tmp_path / "missing" / "a.wav", np.zeros(10, np.float32))


def test_a_drive_without_hard_links_is_written_to_as_well(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    write_wave(tmp_path / "a.wav", np.full(100, 0.5, np.float32))
    assert read_wave(tmp_path / "a.wav").tolist() == pytest.approx([0.5] * 100, abs=1e-4)
    with pytest.raises(FileExistsError):
        write_wave(tmp_path / "a.wav", np.zeros(10, np.float32))
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize(
    "content, says", [(None, "no such"), (b"", "not a readable audio"), (b"RIFFhello", "not a readable audio")]
)
def test_bad_files_are_refused_in_a_sentence(tmp_path, content, says):
    path = tmp_path / "bad.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_wave(path)
    assert "\n" not in str(caught.value)


def test_a_wave_without_samples_is_refused(tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 1)), 16000)
    with pytest.raises(InputError, match="contains no sound"):
        read_wave(tmp_path / "none.wav")
