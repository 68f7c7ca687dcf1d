"""Transfer, inpainting, super-resolution, mixtures, negative prompts and long sounds, on the tiny and bundled model."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import audioldm
from audioldm.audio import log_mel
from audioldm.conditioning import condition, condition_all
from audioldm.errors import InputError
from audioldm.generation import generate
from audioldm.inputs.prompt import read_prompt
from audioldm.inputs.sounds import read_original
from audioldm.inputs.vector import write_vector
from audioldm.latent_diffusion import codec as decoding
from audioldm.latent_diffusion import editing
from audioldm.latent_diffusion.model import LatentDiffusion
from audioldm.latent_diffusion.sampling import predictor
from audioldm.options import GenerateOptions

RATE = 16_000
QUICK = {"ddim_steps": 2, "n_candidate_gen_per_text": 1}


@pytest.fixture(scope="session")
def starter() -> LatentDiffusion:
    return audioldm.build_model(device="cpu", precision="fp32")


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A second of noise that comes and goes."""
    rng = np.random.default_rng(0)
    wave = rng.normal(size=RATE) * np.sin(np.linspace(0, 9, RATE)) ** 2
    soundfile.write(tmp_path / "noise.wav", wave / np.abs(wave).max() * 0.8, RATE)
    return tmp_path / "noise.wav"


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    time = np.arange(RATE) / RATE
    soundfile.write(tmp_path / "tone.wav", 0.3 * np.sin(2 * np.pi * 440 * time), RATE)
    return tmp_path / "tone.wav"


def modes(model: LatentDiffusion, file: Path, **more: object) -> dict[str, np.ndarray]:
    more = {**QUICK, **more}
    return {
        "generation": audioldm.text_to_audio(model, "rain", duration=0.5, **more),
        "audio": audioldm.text_to_audio(model, "", str(file), duration=0.5, **more),
        "transfer": audioldm.style_transfer(model, "rain", file, 0.6, **more),
        "inpaint": audioldm.super_resolution_and_inpainting(model, "rain", file, **more),
        "superres": audioldm.super_resolution_and_inpainting(
            model, "rain", file, time_mask_ratio_start_and_end=(1, 1), freq_mask_ratio_start_and_end=(0.75, 1), **more
        ),
    }


# Same seed, same bytes


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "unipc"])
def test_same_bytes_whatever_the_batch_in_every_mode(
    tiny_model: LatentDiffusion, noise: Path, sampler: str
) -> None:
    alone, four = (modes(tiny_model, noise, batchsize=n, sampler=sampler, seed=7) for n in (1, 4))
    for mode, waves in four.items():
        assert waves.shape[:2] == (4, 1) and waves.dtype == np.float32
        assert waves[0].tobytes() == alone[mode][0].tobytes(), mode
        assert len({wave.tobytes() for wave in waves}) == 4, f"{mode}: each sound must have noise of its own"
    assert len({waves.tobytes() for waves in alone.values()}) == len(alone)


@pytest.mark.parametrize("mode", ["transfer", "inpaint", "superres"])
def test_candidates_are_ranked_in_every_mode(tiny_model: LatentDiffusion, noise: Path, mode: str) -> None:
    original = read_original(noise, mode)
    given = {"mode": mode, "duration": 1.0, "ddim_steps": 2, "sampler": "ddim"}
    given |= {"time_range": (0.2, 0.6)} if mode == "inpaint" else {}
    vector = condition(tiny_model, read_prompt("waves"))
    options = GenerateOptions.build({**given, "n_candidates": 3, "batchsize": 2})
    for kept in generate(tiny_model, vector, options, original=original):
        cosines = []
        for candidate in range(3):
            seed = audioldm.generation.noise_seed(options.seed, kept.item, candidate)
            (sound,) = generate(tiny_model, vector, GenerateOptions.build({**given, "seed": seed}), original=original)
            cosines.append(float(tiny_model.clap.encode_audio([sound.wave]) @ vector[0]))
            assert candidate != kept.candidate or sound.wave.tobytes() == kept.wave.tobytes()
        assert kept.candidate == int(np.argmax(cosines)) and kept.similarity == pytest.approx(max(cosines))


def test_every_step_is_told(tiny_model: LatentDiffusion, noise: Path) -> None:
    original = read_original(noise, "transfer")
    vector = condition(tiny_model, read_prompt("waves"))
    for strength, count in ((0, 0), (0.5, 5), (1, 10)):
        given = {"mode": "transfer", "transfer_strength": strength, "duration": 0.5, "ddim_steps": 10}
        calls: list[int] = []
        list(generate(tiny_model, vector, GenerateOptions.build(given), lambda: calls.append(1), original=original))  # noqa: B023
        assert len(calls) == count == GenerateOptions.build(given).steps_run


# Transfer


def through_the_vae(model: LatentDiffusion, file: Path) -> tuple[np.ndarray, torch.Tensor]:
    """A sound of a second encoded (without sampling) and decoded by the libraries; and its own log-mel."""
    wave, _ = soundfile.read(file, dtype="float32")
    shape = decoding.latent_shape(model, 1.0)
    wave = wave - wave.mean()
    padded = np.zeros(shape[2] * model.sizes.factor * 160, dtype=np.float32)
    padded[:RATE] = wave * 0.5 / np.abs(wave).max()
    mel = log_mel(torch.from_numpy(padded)[None])[:, :, :-1]
    with torch.no_grad():
        decoded = model.vae.decode(model.vae.encode(mel).latent_dist.mean).sample
        return model.vocoder(decoded[:, 0])[0, :RATE].numpy(), mel


def mel_of(wave: np.ndarray) -> np.ndarray:
    return log_mel(torch.from_numpy(np.ascontiguousarray(wave))[None])[0, 0].numpy()


def test_a_transfer_of_strength_0_is_the_sound_itself(starter: LatentDiffusion, noise: Path, tone: Path) -> None:
    for file, other in ((noise, tone), (tone, noise)):
        (wave,), *_ = audioldm.style_transfer(starter, "a dog barking", file, 0, **QUICK)
        expected, mel = through_the_vae(starter, file)
        loud = mel[0, 0, :100].numpy() > -6  # below, nobody hears a difference
        assert np.abs(mel_of(wave)[:100] - mel_of(expected)[:100])[loud].mean() < 0.25  # the posterior's noise
        theirs, _ = through_the_vae(starter, other)
        assert np.abs(mel_of(wave)[:100] - mel_of(theirs)[:100])[loud].mean() > 1
    again, *_ = audioldm.style_transfer(starter, "rain", file, 0, sampler="ddim", **QUICK)
    assert again[0].tobytes() == wave.tobytes(), "the prompt must not matter"


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "unipc"])
def test_a_transfer_of_strength_1_forgets_the_sound(
    tiny_model: LatentDiffusion, noise: Path, tone: Path, sampler: str
) -> None:
    options = {**QUICK, "sampler": sampler}
    one, other = (audioldm.style_transfer(tiny_model, "rain", file, 1, **options) for file in (noise, tone))
    assert one.tobytes() == other.tobytes()
    assert one.tobytes() == audioldm.text_to_audio(tiny_model, "rain", duration=1.0, **options).tobytes()


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "unipc"])
def test_the_stronger_the_transfer_the_less_is_left(starter: LatentDiffusion, noise: Path, sampler: str) -> None:
    _, mel = through_the_vae(starter, noise)
    away = []
    for strength in (0, 0.3, 1):
        options = {"ddim_steps": 10, "n_candidate_gen_per_text": 1, "guidance_scale": 1, "sampler": sampler}
        (wave,), *_ = audioldm.style_transfer(starter, "church bells", noise, strength, **options)
        away.append(float(np.abs(mel_of(wave)[:100] - mel[0, 0, :100].numpy()).mean()))
    assert away[0] < away[1] < away[2]


@pytest.mark.parametrize(
    ("rate", "channels", "subtype", "seconds"),
    [(44_100, 2, "PCM_24", 0.8), (16_000, 1, "FLOAT", 0.1), (8_000, 1, "PCM_16", 3.0), (48_000, 6, "PCM_16", 1.0)],
)
def test_any_file_at_any_length(
    tiny_model: LatentDiffusion, tmp_path: Path, rate: int, channels: int, subtype: str, seconds: float
) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.wav"
    soundfile.write(path, rng.uniform(-0.5, 0.5, (round(seconds * rate), channels)), rate, subtype=subtype)
    waves = audioldm.style_transfer(tiny_model, "rain", path, 0.5, **QUICK)
    assert waves.shape == (1, 1, max(8000, round(seconds * RATE)))
    for duration in (0.7, 2.0):
        waves = audioldm.style_transfer(tiny_model, "rain", path, 0.5, duration=duration, **QUICK)
        assert waves.shape == (1, 1, round(duration * RATE)) and np.isfinite(waves).all()


def test_silence_is_no_trouble(tiny_model: LatentDiffusion, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.full(RATE, 0.25), RATE)
    for waves in modes(tiny_model, tmp_path / "silence.wav").values():
        assert np.isfinite(waves).all()


def test_upstreams_calls_by_position(tiny_model: LatentDiffusion, noise: Path) -> None:
    from audioldm.pipeline import style_transfer, text_to_audio

    assert style_transfer is audioldm.style_transfer and text_to_audio is audioldm.text_to_audio
    waves = audioldm.style_transfer(tiny_model, "rain", str(noise), 0.5, 3, 0.6, 2, 2.5, 3, None)
    assert waves.shape == (2, 1, 9600)
    made = audioldm.super_resolution_and_inpainting(
        tiny_model, "rain", str(noise), 3, 2, 0.6, 2, 2.5, 2, (0.1, 0.5), (1.0, 1.0), None
    )
    assert made.shape == (2, 1, 9600)
    by_name = audioldm.super_resolution_and_inpainting(
        tiny_model, "rain", original_audio_file_path=str(noise), seed=3, ddim_steps=2, duration=0.6, batchsize=2,
        guidance_scale=2.5, n_candidate_gen_per_text=2, time_mask_ratio_start_and_end=(0.1, 0.5),
        freq_mask_ratio_start_and_end=(1.0, 1.0), config=None,
    )  # fmt: skip
    assert by_name.tobytes() == made.tobytes()


# Inpainting


def inpainted(model: LatentDiffusion, file: Path, **given: object) -> tuple[torch.Tensor, editing.Source]:
    """The mel that an inpainting ends with, and what it began with."""
    options = GenerateOptions.build({"duration": 1.0, "ddim_steps": 4, "guidance_scale": 1.5, **given})
    source = editing.prepare(model, read_original(file, options.mode), options)
    vector = condition(model, read_prompt("a dog barking"))
    predict = predictor(model.unet, vector, model.unconditional, options.guidance_scale, decoding.window_length(model))
    latents = editing.inpaint(model, predict, options, [5], source, source.region)
    return editing.inpainted_mel(model, source, source.region, latents), source


RANGES = [
    {"mode": "inpaint", "time_range": (0.3, 0.6)},
    {"mode": "inpaint", "time_range": (0.0, 0.123)},
    {"mode": "inpaint", "frequency_range": (1000, 2000)},
    {"mode": "inpaint", "time_range": (0.5, 9), "frequency_range": (0, 100)},
    {"mode": "superres"},
]


@pytest.mark.parametrize("given", RANGES, ids=str)
@pytest.mark.parametrize("which", ["tiny_model", "starter"])
def test_what_is_outside_the_mask_stays_as_it_was(
    which: str, given: dict, noise: Path, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(which)
    mel, source = inpainted(model, noise, **given)
    kept = source.region.keep.expand_as(mel) == 1
    assert 0.1 < kept.float().mean() < 0.95
    assert torch.equal(mel[kept], source.mel[kept])
    gone = source.region.keep.expand_as(mel) == 0
    assert (mel - source.mel)[gone].abs().mean() > 0.1, "what is not kept is made new"
    other, _ = inpainted(model, noise, **given, sampler="ddim")
    assert (mel - other)[gone].abs().mean() > 0.01


@pytest.mark.parametrize("given", RANGES, ids=str)
def test_the_sound_outside_is_nearer_than_through_the_vae(starter: LatentDiffusion, noise: Path, given: dict) -> None:
    """Heard by the ear of the mel, and the very samples where a time is made new."""
    original = read_original(noise, given["mode"])
    options = GenerateOptions.build({"duration": 1.0, "ddim_steps": 4, "guidance_scale": 1.5, **given})
    (sound,) = generate(starter, condition(starter, read_prompt("a dog barking")), options, original=original)
    source = editing.prepare(starter, original, options)
    kept = (source.region.keep[0, 0, :100] == 1).numpy().copy()
    if "time_range" in given:  # a frame of the mel hears 32 ms to either side
        start, stop = (round(100 * second) for second in given["time_range"])
        kept[max(0, start - 4) : stop + 4] = False
    kept[-4:] = False  # the end of the sound, after which there may be another
    through, mel = through_the_vae(starter, noise)
    ours = np.abs(mel_of(sound.wave) - mel_of(original.wave))[:100][kept].mean()
    theirs = np.abs(mel_of(through)[:100] - mel[0, 0, :100].numpy())[kept].mean()
    assert ours < 0.2 * theirs
    if "frequency_range" not in given and given["mode"] == "inpaint":
        scale = np.abs(original.wave - sound.wave)
        assert scale[: max(0, round(given["time_range"][0] * RATE) - 1024)].max(initial=0) < 1e-5
        assert scale[round(given["time_range"][1] * RATE) + 1024 :].max() < 1e-5
        inside = slice(*(round(second * RATE) for second in given["time_range"]))
        assert scale[inside].max() > 0.01


def test_masks_are_where_they_were_asked_for(tiny_model: LatentDiffusion) -> None:
    def masks(**given: object) -> tuple[np.ndarray, np.ndarray]:
        options = GenerateOptions.build({"mode": "inpaint", "duration": 2.0, **given})
        region = editing.make_region(tiny_model, options)  # 50 latent frames of 4, 16 bands of 4
        hertz = np.flatnonzero(region.bins == 0) * RATE / 1024
        if given.get("frequency_range"):
            low, high = given["frequency_range"]
            assert abs(hertz[0] - low) < 130 and abs(hertz[-1] - high) < 130
        else:
            assert (len(hertz) == 0) == ("frequency_mask_ratio" not in given)
        return region.mask[0, 0].numpy(), region.keep[0, 0].numpy()

    mask, keep = masks(time_range=(0.5, 1.25))
    assert mask.shape == (50, 16) and keep.shape == (200, 64)
    assert not mask[12:32].any() and mask[:12].all() and mask[32:].all(), "latents that hold any of it"
    assert (keep[:50] == 1).all() and (keep[125:] == 1).all() and (keep[54:121] == 0).all()
    assert (np.diff(keep[49:55, 0]) < 0).all() and (np.diff(keep[120:126, 0]) > 0).all(), "it fades inside"
    mask, keep = masks(frequency_range=(4000, 8000))
    bands = np.flatnonzero(keep[0] == 0)
    assert bands[-1] == 63 and 46 <= bands[0] <= 52 and (np.diff(bands) == 1).all()
    assert mask[0].tolist() == [1.0] * (bands[0] // 4) + [0.0] * (16 - bands[0] // 4)
    mask, keep = masks(time_mask_ratio=(0.1, 0.15), frequency_mask_ratio=(0.75, 1.0))
    assert not mask[5:7].any() and not mask[:, 12:].any() and mask[7:, :12].all() and mask[:5, :12].all()
    assert not keep[:, 48:].any() and (keep[:20, :48] == 1).all() and (keep[28:, :48] == 1).all()
    _, keep = masks(frequency_range=(5, 6))
    assert (keep[0] == 0).sum() == 1, "at least the band that is nearest"
    with pytest.raises(InputError, match="no part of the sound would change"):
        masks(time_mask_ratio=(0.5, 0.5))


# Mixtures and negative prompts


def test_weights_1_and_0_are_the_first_prompt_alone(tiny_model: LatentDiffusion, noise: Path) -> None:
    alone = audioldm.text_to_audio(tiny_model, "rain", duration=0.5)
    mixed = audioldm.text_to_audio(tiny_model, ["rain", "a dog"], str(noise), duration=0.5, weights=[1, 0, 0])
    assert mixed.tobytes() == alone.tobytes()
    doubled = audioldm.text_to_audio(tiny_model, ["a dog", "rain"], duration=0.5, weights=(0, 2.5))
    assert doubled.tobytes() == alone.tobytes()


def test_a_mixture_is_the_direction_of_the_weighted_sum(
    tiny_model: LatentDiffusion, noise: Path, picture: Path
) -> None:
    prompts = [read_prompt("rain"), read_prompt(picture), read_prompt(audio_file=noise)]
    vectors = torch.cat([condition(tiny_model, prompt) for prompt in prompts])
    mixed = condition_all(tiny_model, prompts, [1, 0.5, -2])
    expected = vectors[0] + 0.5 * vectors[1] - 2 * vectors[2]
    torch.testing.assert_close(mixed[0], expected / expected.norm())
    torch.testing.assert_close(
        condition_all(tiny_model, prompts), condition_all(tiny_model, prompts, [1e308, 1e308, 1e308])
    )
    assert mixed.dtype == torch.float32


def test_a_saved_vector_gives_the_same_bytes(tiny_model: LatentDiffusion, tmp_path: Path) -> None:
    prompts = [read_prompt("rain"), read_prompt("a dog")]
    vector = condition_all(tiny_model, prompts, [1, 0.3])[0].numpy()
    write_vector(tmp_path / "v.npy", vector)
    mixed = audioldm.text_to_audio(tiny_model, ["rain", "a dog"], weights=[1, 0.3], duration=0.5)
    for saved in (str(tmp_path / "v.npy"), tmp_path / "v.npy"):
        assert audioldm.text_to_audio(tiny_model, saved, duration=0.5).tobytes() == mixed.tobytes()
    np.save(tmp_path / "long.npy", 7 * vector[None].astype(np.float64))
    loaded = read_prompt(str(tmp_path / "long.npy")).content
    np.testing.assert_allclose(loaded, vector, atol=1e-6)
    with pytest.raises(InputError, match="exists"):
        write_vector(tmp_path / "v.npy", vector)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.npy", "v.npy"]


def test_a_negative_prompt_leads_away(starter: LatentDiffusion, tiny_model: LatentDiffusion) -> None:
    options = {"duration": 0.5, "guidance_scale": 2.0}
    without = audioldm.text_to_audio(tiny_model, "rain", **options)
    away = audioldm.text_to_audio(tiny_model, "rain", negative_prompt="a dog", **options)
    assert without.tobytes() != away.tobytes()
    with pytest.raises(InputError, match="guidance"):
        audioldm.text_to_audio(tiny_model, "rain", negative_prompt="a dog", guidance_scale=1)
    latents = {}
    vectors = {words: condition(starter, read_prompt(words)) for words in ("rain falling", "a dog barking")}
    options = GenerateOptions(duration=2.0, ddim_steps=6, guidance_scale=3.0)
    for words, vector in (("none", None), *vectors.items()):
        latents[words] = audioldm.generation.denoise(starter, vectors["rain falling"], options, [1], negative=vector)
    own = audioldm.generation.denoise(starter, vectors["rain falling"], GenerateOptions(
        duration=2.0, ddim_steps=6, guidance_scale=1.0), [1])  # fmt: skip
    torch.testing.assert_close(latents["rain falling"], own, atol=1e-3, rtol=1e-3)  # e + s (e - e)
    assert (latents["a dog barking"] - latents["none"]).abs().mean() > 0.03


# A model that cannot hear


def test_a_model_without_an_encoder_for_sounds(
    tiny_folder: Path, noise: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    deaf = LatentDiffusion.from_folder(tiny_folder, "cpu")
    monkeypatch.setattr(type(deaf.clap), "hears", False, raising=False)
    with pytest.raises(InputError, match="only CLAP's text tower"):
        audioldm.text_to_audio(deaf, None, str(noise))
    with caplog.at_level(logging.WARNING, "audioldm"):
        options = {"duration": 0.5, "ddim_steps": 1, "batchsize": 2}
        waves = audioldm.text_to_audio(deaf, "rain", n_candidate_gen_per_text=3, **options)
    assert len([r for r in caplog.records if r.getMessage().startswith("only one candidate is made: ")]) == 1
    assert waves.tobytes() == audioldm.text_to_audio(deaf, "rain", n_candidate_gen_per_text=1, **options).tobytes()
    assert audioldm.style_transfer(deaf, "rain", noise, 0.5, **QUICK).shape == (1, 1, RATE)


# Long sounds


def test_a_long_sound_is_a_sound(starter: LatentDiffusion) -> None:
    waves = audioldm.text_to_audio(starter, "rain falling", duration=60, ddim_steps=3, n_candidate_gen_per_text=1)
    wave = waves[0, 0]
    assert waves.shape == (1, 1, 60 * RATE) and np.isfinite(wave).all()
    seconds = wave.reshape(60, RATE)
    loud = np.sqrt((seconds**2).mean(axis=1))
    assert loud.min() > 0.003 and loud.max() / loud.min() < 30, "nowhere silent"


@pytest.mark.parametrize("seconds", [11.3, 30])
def test_a_long_sound_in_every_mode(tiny_model: LatentDiffusion, tmp_path: Path, seconds: float) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "long.wav", rng.uniform(-0.5, 0.5, round(seconds * RATE)), RATE)
    for name, waves in modes(tiny_model, tmp_path / "long.wav", ddim_steps=1).items():
        assert np.isfinite(waves).all()
        assert name in ("generation", "audio") or waves.shape == (1, 1, round(seconds * RATE))


def test_pieces_of_a_mel_are_vocoded_as_the_whole(starter: LatentDiffusion, tiny_model: LatentDiffusion) -> None:
    for model in (starter, tiny_model):
        mel = torch.randn(1, 1, 2600, 64, generator=torch.Generator().manual_seed(0)) - 4
        with torch.inference_mode():
            whole = model.vocoder(mel[:, 0])[0, : 2600 * 160].clamp(-1, 1).numpy()
        whole = whole * min(1, 0.99 / np.abs(whole).max())
        np.testing.assert_allclose(decoding.finish(decoding.vocode(model, mel), 26.0), whole, atol=1e-4)


def test_no_seam_where_pieces_meet(starter: LatentDiffusion) -> None:
    """Of the same latents everywhere, decoding in pieces gives the same mel everywhere, but at its two ends."""
    frame = torch.randn(1, starter.sizes.channels, 1, 8, generator=torch.Generator().manual_seed(0))
    mel = decoding.to_mel(starter, frame.expand(-1, -1, 200, -1))[0, 0]
    whole = starter.vae.decode(frame.expand(-1, -1, 64, -1) / starter.vae.config.scaling_factor).sample[0, 0]
    usual, seams = (m.unfold(0, 2, 1).diff(dim=-1).abs().amax(dim=(1, 2)) for m in (whole, mel))
    assert seams[200:-200].max() <= usual.max() * 1.5


def test_encoding_in_pieces_is_near_encoding_at_once(
    starter: LatentDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    mel = decoding.compute_mel(decoding.normalise(rng.normal(size=16 * RATE).astype(np.float32), 16 * RATE)[0])
    pieces, spread = decoding.encode(starter, mel)
    monkeypatch.setattr(decoding, "window_length", lambda model: 10_000)
    whole, _ = decoding.encode(starter, mel)
    assert pieces.shape == whole.shape == (1, starter.sizes.channels, 200, 8) and (spread > 0).all()
    assert (pieces - whole).abs().mean() < 0.2 * whole.std()


def test_short_sounds_are_made_in_one_piece(tiny_model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audioldm.latent_diffusion.codec.starts", None)  # nothing is blended
    assert audioldm.text_to_audio(tiny_model, "rain", duration=10.24, ddim_steps=1).shape == (1, 1, 163_840)
    monkeypatch.undo()
    lengths = []
    real = type(tiny_model.vae).decode
    monkeypatch.setattr(type(tiny_model.vae), "decode", lambda self, z: (lengths.append(z.shape[2]), real(self, z))[1])
    audioldm.text_to_audio(tiny_model, "rain", duration=20.0, ddim_steps=1)
    assert set(lengths) == {256} and len(lengths) > 1
