"""One's own sounds, as they come: of a phone or a film, too loud, silent, of opposite phase, without a header."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import RATE, TONE, encode, of_16_channels, sndfile

from audioldm import get_duration
from audioldm.errors import InputError
from audioldm.inputs.prompt import read_prompt
from audioldm.inputs.samples import read_samples
from audioldm.inputs.sounds import read_original, read_wave


def pitch(wave: np.ndarray) -> float:
    """Hz of the loudest partial of a sound at 16 kHz."""
    return np.abs(np.fft.rfft(wave)).argmax() * 16_000 / len(wave)


def one_warning(caplog: pytest.LogCaptureFixture, says: str) -> None:
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and says in record.getMessage() and "\n" not in record.getMessage()


def raised(source: object, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read_wave(source)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 250


# 14: what libsndfile does not read

FILES = [
    ("memo.m4a", "aac", False), ("film.mp4", "aac", True), ("film.mov", "aac", True), ("film.webm", "libopus", True),
    ("song.aac", "aac", False), ("song.wma", "wmav2", False), ("film.mkv", "libopus", True),
    ("film.avi", "mp3", True), ("call.3gp", "aac", False), ("song.ac3", "ac3", False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "codec", "video"), FILES, ids=[name for name, _, _ in FILES])
def test_formats(tmp_path: Path, name: str, codec: str, video: bool, caplog: pytest.LogCaptureFixture) -> None:
    rate = 48_000 if codec == "libopus" else RATE
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).astype(np.float32)
    path = encode(tmp_path / name, codec, tone, rate, video)
    wave = read_wave(path)
    assert wave.dtype == np.float32 and len(wave) == pytest.approx(16_000, abs=2_500)
    assert pitch(wave) == pytest.approx(440, abs=5) and np.abs(wave[3000:-3000]).max() == pytest.approx(0.5, abs=0.1)
    assert not caplog.records
    assert get_duration(path) == pytest.approx(1, abs=0.15)
    assert len(read_wave(path, 0.25)) == 4_000
    path.rename(tmp_path / "renamed.wav")  # the content decides
    assert (read_wave(tmp_path / "renamed.wav") == wave).all()


def test_a_film_without_sound(tmp_path: Path) -> None:
    raised(encode(tmp_path / "silent.mp4", "aac", TONE[:0], video=True), "it has no sound track")


def test_a_cut_film(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = encode(tmp_path / "memo.m4a", "aac").read_bytes()
    (tmp_path / "cut.m4a").write_bytes(whole[: len(whole) // 2])  # its index was at the end
    raised(tmp_path / "cut.m4a", "not a readable audio file")
    whole = encode(tmp_path / "song.aac", "aac").read_bytes()
    (tmp_path / "cut.aac").write_bytes(whole[: len(whole) // 2])
    assert 5_000 < len(read_wave(tmp_path / "cut.aac")) < 11_000


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    encode(tmp_path / "memo.aac", "aac")
    lists = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/memo.aac\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{tmp_path}/memo.aac'\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        raised(tmp_path / name, "not a readable audio file")


# 6: beyond full scale


@pytest.mark.parametrize("scale", [3.0, 32_768.0])
def test_a_float_file_beyond_full_scale_is_scaled_as_a_whole(
    tmp_path: Path, scale: float, caplog: pytest.LogCaptureFixture
) -> None:
    soundfile.write(tmp_path / "loud.wav", TONE * 2 * scale, RATE, subtype="FLOAT")
    original = read_original(tmp_path / "loud.wav", "inpaint")
    assert original.gain == pytest.approx(1 / scale, rel=1e-3)
    one_warning(caplog, "beyond full scale")
    assert np.abs(original.wave).max() == pytest.approx(1, abs=0.02) and pitch(original.wave) == 440
    prompt = read_prompt(audio_file=tmp_path / "loud.wav")
    assert prompt.gain == original.gain and (prompt.content == original.wave).all()


def test_a_file_within_full_scale_stays_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soundfile.write(tmp_path / "full.wav", np.array([1.0, -1.0] * 8000), 16_000, subtype="FLOAT")
    assert read_original(tmp_path / "full.wav", "transfer").gain == 1 and not caplog.records


# 8: next to nothing is heard


@pytest.mark.parametrize("right", [-TONE, -0.95 * TONE])
def test_opposite_phase(tmp_path: Path, right: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    soundfile.write(tmp_path / "wide.wav", np.stack([TONE, right], 1), RATE)
    wave = read_wave(tmp_path / "wide.wav")
    one_warning(caplog, "cancel each other out")
    assert np.abs(wave).max() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("value", [0.0, 1e-6, 0.3])
@pytest.mark.parametrize("channels", [1, 2])
def test_silence(tmp_path: Path, value: float, channels: int, caplog: pytest.LogCaptureFixture) -> None:
    soundfile.write(tmp_path / "silent.wav", np.full((8_000, channels), value), 16_000)
    read_original(tmp_path / "silent.wav", "transfer")
    one_warning(caplog, "is silent")


@pytest.mark.parametrize("samples", [1, 100])
def test_next_to_no_samples(tmp_path: Path, samples: int, caplog: pytest.LogCaptureFixture) -> None:
    soundfile.write(tmp_path / "click.wav", np.linspace(0.1, 0.5, samples), 16_000)
    assert len(read_prompt(audio_file=tmp_path / "click.wav").content) == samples
    one_warning(caplog, "seconds long")


def test_an_ordinary_sound_is_not_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soundfile.write(tmp_path / "tone.wav", np.stack([TONE, 0.2 * TONE[::-1]], 1), RATE)
    read_wave(tmp_path / "tone.wav")
    assert not caplog.records


# 11: names and headers


def test_raw_samples_without_a_header(tmp_path: Path) -> None:
    for name in ("voice.raw", "voice.RAW", "voice.pcm"):
        (tmp_path / name).write_bytes((TONE * 32767).astype("<i2").tobytes())
        raised(tmp_path / name, "no header .* save it as WAV")
        soundfile.write(tmp_path / "tone.wav", TONE, RATE)
        (tmp_path / "tone.wav").rename(tmp_path / name)  # only its name is wrong
        assert pitch(read_wave(tmp_path / name)) == 440
    (tmp_path / "voice.wav").write_bytes((TONE * 32767).astype("<i2").tobytes())
    raised(tmp_path / "voice.wav", "not a readable audio file")


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    for codec, suffix in (("wav", b".wav"), ("aac", b".m4a")):
        path = os.fsencode(tmp_path) + b"/caf\xe9" + suffix
        if codec == "wav":
            soundfile.write(tmp_path / "a.wav", TONE, RATE)
            os.rename(tmp_path / "a.wav", path)
        else:
            os.rename(encode(tmp_path / "a.m4a", codec), path)
        assert pitch(read_wave(os.fsdecode(path))) == pytest.approx(440, abs=5)
        assert get_duration(os.fsdecode(path)) == pytest.approx(1, abs=0.1)


def test_what_is_no_file(tmp_path: Path) -> None:
    raised("~no-such-user-here/rain.wav", "no such audio file")
    raised(tmp_path, "is a folder")
    raised("https://example.org/rain.wav", "is an address.*download it first")
    raised("nul\0.wav", "no such audio file|cannot be read")
    os.mkfifo(tmp_path / "pipe.wav")
    raised(tmp_path / "pipe.wav", "not a regular file")
    (tmp_path / "empty.mp3").touch()
    raised(tmp_path / "empty.mp3", "not a readable audio file.*empty")
    (tmp_path / "words.wav").write_text("a dog barking")
    raised(tmp_path / "words.wav", "not a readable audio file")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_answered_with_t(tmp_path: Path, format: str) -> None:
    from PIL import Image

    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "photo", format)
    raised(tmp_path / "photo", "picture.*-t")


# 12: what Python has for a sound


def test_arrays() -> None:
    wave = TONE[:16_000]
    for given in (wave, (16_000, wave), (wave, 16_000), (16_000.0, wave), wave.astype(np.float64), wave[:, None],
                  wave[None], wave[None, None], np.stack([wave, wave]), np.stack([wave, wave], 1), wave.tolist(),
                  (np.int64(16_000), wave)):  # fmt: skip
        assert np.abs(read_wave(given) - wave).max() < 1e-6
    for kind, scale in ((np.int16, 32767), (np.int32, 2**31 - 1)):
        assert np.abs(read_wave((16_000, (wave * scale).astype(kind))) - wave).max() < 1e-3
    assert np.abs(read_wave((16_000, (wave * 127 + 128).round().astype(np.uint8))) - wave).max() < 0.01
    assert len(read_wave((RATE, TONE))) == 16_000 and len(read_original((RATE, TONE), "transfer").wave) == 16_000


def test_a_tensor() -> None:
    import torch

    assert (read_wave((16_000, torch.from_numpy(TONE.copy())[None])) == TONE).all()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (7, "a sound is a file's name"),
        (None, "a sound is a file's name"),
        ({"wave": TONE}, "a sound is a file's name"),
        ((1, 2, 3), "a sound is a file's name"),
        ((16_000, None), "a sound is a file's name"),
        ((-5, TONE), "which no sound has"),
        ((16_000.5, TONE), "whole number"),
        (("16000", TONE), "a sound is a file's name"),
        (np.zeros((3, 4, 5)), "shape"),
        (np.zeros((200, 200)), "shape"),
        (np.zeros(0), "empty"),
        (np.zeros(900, np.int64), "int64"),
        (np.full(900, "x"), "array of"),
        (np.full(900, np.nan), "not numbers"),
        (b"no sound", "not a readable audio file"),
    ],
)
def test_what_is_no_sound(given: object, says: str) -> None:
    raised(given, says)


def test_bytes_and_open_files(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "tone.wav", TONE, RATE)
    wave, memo = read_wave(tmp_path / "tone.wav"), encode(tmp_path / "memo.m4a", "aac")
    for path in (tmp_path / "tone.wav", memo):
        wave, data = read_wave(path), path.read_bytes()
        for given in (data, bytearray(data), io.BytesIO(data), str(path)):
            assert (read_wave(given) == wave).all()
        with open(path, "rb") as file:
            assert (read_wave(file) == wave).all() and read_samples(path).name == str(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_wave(file)
    with open(memo, encoding="latin-1") as file, pytest.raises(InputError, match='mode "rb"'):
        read_wave(file)


# 13: cut and damaged sounds


CUT = [
    ("WAV", None), ("AIFF", None), ("CAF", None), ("W64", None), ("FLAC", None), ("MP3", None), ("OGG", None),
    ("OGG", "OPUS"),
]  # fmt: skip


@pytest.mark.parametrize(("format", "subtype"), CUT)
def test_a_cut_sound_is_used_with_a_remark(tmp_path: Path, format: str, subtype: str | None, capfd) -> None:
    seconds = 30 if format == "OGG" else 3  # of whose pages one is lost
    path, notes = sndfile(tmp_path / "sound", format, subtype, seconds), []
    read_samples(path, on_note=notes.append)
    assert notes == []  # of the whole file
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    found = read_samples(path, on_note=notes.append)
    assert seconds / 4 < len(found.values) / found.rate < seconds - 0.1
    assert len(notes) == 1 and "sound is damaged or cut short: " in notes[0] and "can be read and are used" in notes[0]
    assert capfd.readouterr().err == ""  # libraries say nothing themselves
    notes.clear()
    read_samples(path, 0.25, notes.append)  # so much is there
    assert notes == []


@pytest.mark.parametrize("format", ["MP3", "FLAC"])
def test_a_hole_in_a_sound_is_told(tmp_path: Path, format: str, capfd) -> None:
    path, notes = sndfile(tmp_path / "sound", format), []
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :][:3000] = b""
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    path.write_bytes(data)
    assert len(read_samples(path, on_note=notes.append).values) and len(notes) == 1
    assert capfd.readouterr().err == ""


def test_a_film_whose_index_is_lost(tmp_path: Path) -> None:
    path = encode(tmp_path / "memo.m4a", "aac")
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(InputError, match="its index is missing, as in one that is cut short"):
        read_samples(path)


@pytest.mark.parametrize("name", ["words.mp3", "words.wav"])
def test_words_are_no_sound_whatever_they_are_called(tmp_path: Path, name: str, capfd) -> None:
    (tmp_path / name).write_text("<html>not found</html>")
    with pytest.raises(InputError, match="it is damaged, cut short or of an unknown format"):
        read_samples(tmp_path / name)
    assert capfd.readouterr().err == ""


def test_a_recorder_that_was_not_stopped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = bytearray(sndfile(tmp_path / "a.wav").read_bytes())
    at = data.index(b"data") + 4
    for size in (0, 0xFFFFFFFF):
        data[at : at + 4] = size.to_bytes(4, "little")
        (tmp_path / "a.wav").write_bytes(data)
        assert len(read_samples(tmp_path / "a.wav").values) == pytest.approx(3 * RATE, abs=9)
    assert not caplog.records


@pytest.mark.parametrize(("format", "subtype"), [("WAV", "GSM610"), ("XI", None), ("WAV", "IMA_ADPCM")])
def test_formats_without_a_way_back(tmp_path: Path, format: str, subtype: str | None) -> None:
    found = read_samples(sndfile(tmp_path / "sound", format, subtype))
    assert len(found.values) == pytest.approx(3 * RATE, rel=0.03)


def test_a_stream_that_changes_its_channels_and_rate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import av

    def adts(rate: int, layout: str) -> bytes:
        with av.open(str(path := tmp_path / f"{layout}.aac"), "w") as container:
            stream = container.add_stream("aac", rate=rate, layout=layout)
            channels = {"mono": 1, "stereo": 2}[layout]
            frame = av.AudioFrame.from_ndarray(np.stack([TONE[:rate]] * channels), "fltp", layout)
            frame.sample_rate = rate
            for part in av.AudioResampler(stream.format, layout, rate, frame_size=1024).resample(frame):
                container.mux(stream.encode(part))
            container.mux(stream.encode())
        return path.read_bytes()

    (tmp_path / "radio.aac").write_bytes(adts(44_100, "stereo") + adts(22_050, "mono") + adts(44_100, "stereo"))
    found = read_samples(tmp_path / "radio.aac")
    assert found.rate == 44_100 and found.values.shape[1] == 2
    assert len(found.values) / 44_100 == pytest.approx(3, abs=0.3)


def test_more_channels_than_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has more than 8 channels"):
        read_samples(of_16_channels(tmp_path / "many.mov"))


@pytest.mark.parametrize("name", ["'a.wav'", '"a.wav"', " a.wav ", "\ufeffa.wav", "<a.wav>", "[memo](a.wav)"])
def test_a_name_in_quotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    sndfile(tmp_path / "a.wav")
    assert read_prompt(audio_file=name).kind == "audio"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "the name of the sound is empty"), ("-", "cannot be read from standard input"), ("''", "is empty"),
        ("data:audio/wav;base64,AA", "is an address"), ("s3://a/b.wav", "is an address"),
        ((float("nan"), TONE), "whole number"), ((float("inf"), TONE), "whole number"), (TONE[:0], "it is empty"),
        (np.zeros((0, 2)), "it is empty"),
    ],
)  # fmt: skip
def test_more_that_is_no_sound(given: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_prompt(audio_file=given)


@pytest.mark.parametrize("codec", ["flac", "aac"])
def test_a_small_file_of_a_great_many_samples_is_refused(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / ("a.flac" if codec == "flac" else "a.m4a"), codec, np.zeros(2 * RATE, np.float32))
    monkeypatch.setattr("audioldm.inputs.decoding.MAX_VALUES", RATE)
    with pytest.raises(InputError, match="is too large to decode"):
        read_samples(path, 600)
    assert len(read_samples(path, 0.5).values) == RATE // 2
    assert get_duration(path) == pytest.approx(2, abs=0.1)
