"""The bundled model, end to end through the installed command: photographs and words in, sounds out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from server import Server

from audioldm import registry

REPOSITORY = Path(__file__).resolve().parents[1]
EXAMPLES = REPOSITORY / "examples"
COMMAND = Path(sys.executable).with_name("audioldm")
QUICK = ("--ddim_steps", "8", "-n", "1")


def audioldm(*arguments, cwd, **environment):
    return subprocess.run(
        [COMMAND, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300,
        env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
    )


def checked(wav, seconds):
    """The wav as float64 (N,), after what must hold for every one."""
    info = soundfile.info(wav)
    assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
    assert info.frames == round(seconds * 16000)
    wave, _ = soundfile.read(wav)
    assert np.sqrt(np.mean(wave**2)) > 0.003, "silent"
    assert np.abs(wave).max() < 1, "clipped"
    assert np.abs(wave.mean()) < 0.05, "a constant, not a sound"
    return wave


@pytest.fixture(scope="module")
def starter():
    from audioldm import build_model

    return build_model(device="cpu")


def test_a_photo_becomes_a_sound_with_its_record(tmp_path):
    run = audioldm("-t", EXAMPLES / "dog.jpg", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    checked(tmp_path / line, 5)
    record = json.loads((tmp_path / line).with_suffix(".json").read_text())
    assert record["kind"] == "image" and record["model"]["name"] == "starter"
    assert record["translator"]["name"] and record["options"]["seed"] == 42
    assert "starter" in run.stderr and "Traceback" not in run.stderr
    again = audioldm("-t", EXAMPLES / "dog.jpg", cwd=tmp_path)
    assert again.stdout != run.stdout and (tmp_path / line).exists()
    assert (tmp_path / again.stdout.strip()).read_bytes() == (tmp_path / line).read_bytes()


def test_a_url_is_the_same_as_its_file(tmp_path):
    photo = (EXAMPLES / "dog.jpg").read_bytes()
    with Server() as server:
        server.answer("/dog.jpg", photo)
        url = server.url("/dog.jpg") + "?size=large"
        run = audioldm("-t", url, *QUICK, "-o", "url.wav", cwd=tmp_path, AUDIOLDM_ALLOW_PRIVATE_URLS="1")
        refused = audioldm("-t", url, *QUICK, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert refused.returncode == 2 and refused.stdout == "" and len(refused.stderr.splitlines()) == 1
    audioldm("-t", EXAMPLES / "dog.jpg", *QUICK, "-o", "file.wav", cwd=tmp_path)
    assert (tmp_path / "url.wav").read_bytes() == (tmp_path / "file.wav").read_bytes()


@pytest.mark.parametrize("seconds", [0.5, 1.234, 7.3])
def test_any_duration_to_the_sample(tmp_path, seconds):
    run = audioldm("-t", "rain falling", "-dur", seconds, *QUICK, "-o", "a.wav", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    checked(tmp_path / "a.wav", seconds)


def test_same_seed_same_bytes_whatever_the_batch(tmp_path):
    alone = audioldm("-t", "a dog barking", *QUICK, "-dur", "2", "-o", "alone.wav", cwd=tmp_path)
    both = audioldm("-t", "a dog barking", *QUICK, "-dur", "2", "-b", "2", "-o", "both.wav", cwd=tmp_path)
    other = audioldm("-t", "a dog barking", *QUICK, "-dur", "2", "--seed", "1", "-o", "other.wav", cwd=tmp_path)
    assert (alone.returncode, both.returncode, other.returncode) == (0, 0, 0)
    assert both.stdout.split() == ["both-1.wav", "both-2.wav"]
    first = (tmp_path / "alone.wav").read_bytes()
    assert (tmp_path / "both-1.wav").read_bytes() == first
    assert (tmp_path / "both-2.wav").read_bytes() != first
    assert (tmp_path / "other.wav").read_bytes() != first


def test_a_corrected_wave_has_the_spectrogram_asked_for(starter):
    import torch

    from audioldm.audio import log_mel
    from audioldm.inputs.sounds import read_wave

    mel = log_mel(torch.from_numpy(read_wave(EXAMPLES / "drums.wav"))[None])[:, 0, :480]
    vocoder, n_fft = starter.vocoder, starter.vocoder.config["n_fft"]
    with torch.inference_mode():
        first = torch.istft(vocoder.spectrum(mel), n_fft, 160, window=vocoder.window, length=480 * 160)
        before, after = ((log_mel(wave)[:, 0, :480] - mel).abs().mean() for wave in (first, vocoder(mel)))
    assert vocoder.config["corrections"] and after < 0.5 * before and after < 0.2


def test_a_spectrogram_that_runs_away_stays_near_full_scale(starter):
    import torch

    mel = torch.full((1, 100, 64), -6.0)
    mel[:, 50:53] = 8.0
    with torch.inference_mode():
        wave = starter.vocoder(mel)
    assert wave.isfinite().all() and 0.1 < wave.abs().max() <= 2


def test_every_known_sound_is_nearest_to_its_own_words(starter):
    names, known, _ = starter.known_sounds
    prompts = json.loads((starter.folder.path / "sounds.json").read_text())["sounds"]
    vectors = starter.clap.encode_text([row["prompt"] for row in prompts])
    assert vectors.norm(dim=1).sub(1).abs().max() < 1e-5
    assert (vectors @ known.T).argmax(dim=1).tolist() == list(range(len(names))) and len(names) >= 20


@pytest.mark.parametrize("words, sound", [
    ("a puppy yapping", "dog"), ("surf on the shore", "sea_waves"), ("thunderless downpour of rain", "rain"),
    ("an old grandfather clock", "clock_tick"), ("flames in the fireplace", "crackling_fire"),
    ("a violinist plays a sonata", "violin"),
])
def test_words_never_seen_find_the_sound_they_mean(starter, words, sound):
    names, known, _ = starter.known_sounds
    order = (starter.clap.encode_text([words]) @ known.T)[0].argsort(descending=True)
    assert sound in [names[i] for i in order[:3]]


def test_example_photos_find_their_sounds(starter):
    from audioldm.inputs.images import load_image

    names, known, _ = starter.known_sounds
    photos = sorted(EXAMPLES.glob("*.jpg"))
    assert len(photos) >= 3
    for photo in photos:
        vector = starter.image_encoder([load_image(str(photo))], registry.load_translator(starter))
        order = (vector @ known.T)[0].argsort(descending=True)
        assert photo.stem in [names[i] for i in order[:5]], photo.name


def test_all_translators_are_trained(starter):
    """Each leads photographs of different things to different places, nearer to their own sound than chance."""
    from audioldm.inputs.images import load_image
    from translator import zoo
    from translator.settings import CLOSED_FORM, EIGHTEEN

    names, known, _ = starter.known_sounds
    photos = sorted(EXAMPLES.glob("*.jpg"))
    clip = starter.clip.encode_image([load_image(str(p)) for p in photos])
    own = known[[names.index(p.stem) for p in photos]]
    shipped = {entry.name for entry in zoo.available(registry.translator_roots(starter)[-1])
               if entry.fits(*starter.spaces)}
    assert shipped >= {*EIGHTEEN, *CLOSED_FORM}
    for name in shipped:
        similarity = registry.load_translator(starter, name)(clip) @ own.T
        matched = similarity.diag().mean()
        others = (similarity.sum() - similarity.diag().sum()) / (len(photos) ** 2 - len(photos))
        assert matched > others + 0.05, name


def test_translators_are_small_and_say_what_they_are(starter):
    from translator.zoo import read_entry

    folder = REPOSITORY / "models" / "translators"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 25_000_000
    for path in folder.rglob("*.safetensors"):
        said = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert read_entry(path).spaces == starter.spaces and said["name"] == path.stem
        metrics = said["metrics"]
        assert metrics["held_out_cosine"] > metrics["constant_cosine"] + 0.02, path.stem


def test_a_prompt_for_something_else_says_so(tmp_path):
    run = audioldm("-t", "a tax declaration form", *QUICK, "-dur", "0.5", cwd=tmp_path)
    assert run.returncode == 0 and "nearest sounds it knows" in run.stderr
    known = audioldm("-t", "a dog barking", *QUICK, "-dur", "0.5", cwd=tmp_path)
    assert "nearest sounds" not in known.stderr


def test_list_shows_what_is_installed(tmp_path):
    run = audioldm("--list", cwd=tmp_path)
    assert run.returncode == 0
    for name in ("starter", "wit_cos_512", "audiocaps_cos_512"):
        assert name in run.stdout
