"""What a visitor sends: words stay words, nothing names a file of the server, and each fault is one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audioldm.errors import InputError
from audioldm.inputs.web import download
from audioldm.options import EDITING, MODEL, PROMPTS, SAMPLING
from audioldm.web.request import Upload, addresses, for_page, read_job


def read(**values):
    notes: list[str] = []
    return read_job(values, {address: download(address) for address in addresses(values)}, notes.append), notes


@pytest.mark.parametrize("words", ["/etc/passwd", "~", "..", "dog.jpg", "list.csv", "rain.wav", "models", "file:///etc/passwd"])
def test_words_are_words_whatever_lies_on_the_server(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "dog.jpg")
    (tmp_path / "list.csv").write_text("prompt\nrain\n")
    job, _ = read(words=words, negative_prompt=words)
    assert [(prompt.kind, prompt.content) for prompt in (*job.prompts, job.negative)] == [("text", words)] * 2


@pytest.mark.parametrize("url", ["/etc/passwd", "file:///etc/passwd", "ftp://example.org/x.png", "examples/dog.jpg"])
def test_an_address_is_one_of_the_web(url: str):
    with pytest.raises(InputError, match="begins with http"):
        read(url=url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x.png", "http://169.254.169.254/latest", "http://[::1]/x.png"])
@pytest.mark.parametrize("name", ["url", "words", "negative_prompt"])
def test_no_address_of_the_servers_own_network(url: str, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AUDIOLDM_ALLOW_PRIVATE_URLS", raising=False)
    with pytest.raises(InputError, match="not public|private"):
        read(**{"words": "rain", name: url})


def test_prompts_come_in_one_order_each_with_its_weight(tmp_path: Path, picture: Path):
    np.save(tmp_path / "v.npy", np.eye(512, dtype=np.float32)[3])
    sound = Path(__file__).parents[2] / "examples" / "dog.wav"
    job, _ = read(
        vector=Upload(str(tmp_path / "v.npy"), "mine.npy"), vector_weight=4, sound=Upload(str(sound), "bark.wav"),
        words=" rain ", words_weight=-0.5, picture=Upload(str(picture), "犬.png"), picture_weight=None, seed=7.0,
        translator="",
    )  # fmt: skip
    assert [(prompt.kind, prompt.source) for prompt in job.prompts] == [
        ("image", "犬.png"), ("text", "rain"), ("audio", "bark.wav"), ("vector", "mine.npy"),
    ]  # fmt: skip
    assert job.weights == (1, -0.5, 1, 4) and job.translator is None and job.negative is None
    assert job.given["seed"] == 7 and isinstance(job.given["seed"], int)
    assert read(words="rain")[0].weights is None


def test_an_edit_is_as_long_as_its_sound():
    sound = Upload(str(Path(__file__).parents[2] / "examples" / "dog.wav"), "bark.wav")
    job, _ = read(mode="inpaint", sound=sound, words="rain", time_range=[1, 2.5])
    assert job.original is not None and job.original.path == "bark.wav"
    assert job.given["duration"] == 5 and job.given["time_range"] == (1, 2.5)
    with pytest.raises(InputError, match="begins with a sound"):
        read(mode="transfer", words="rain")
    with pytest.raises(InputError, match="give a picture or words for what is new"):
        read(mode="superres", sound=sound)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "give a picture or words or a sound"),
        ({"words": "x", "duration": 700}, "the duration must be a number from 0.5 to 600.0 seconds, not 700"),
        ({"words": "x", "ddim_steps": 2.5}, "the number of steps must be a whole number from 1 to 1000, not 2.5"),
        ({"words": "x", "seed": "7"}, "the seed must be a whole number"),
        ({"words": "x", "sampler": "euler"}, 'unknown sampler "euler"; available: ddim, dpm'),
        ({"words": "x", "mode": "karaoke"}, 'unknown mode "karaoke"'),
        ({"words": "x", "words_weight": float("nan")}, "weight 1 is NaN"),
        ({"words": "x", "words_weight": "much"}, "the weights must be numbers"),
        ({"words": "x", "time_range": [1, 2]}, "work only with --mode inpaint"),
        ({"url": "data:image/png;base64,AAAA"}, "the data URI"),
        ({"words": "<a src=" + "a" * 10_000}, "words may have 10,000 characters, not 10,007"),
    ],
)
def test_each_fault_is_one_sentence(values: dict, sentence: str):
    with pytest.raises(InputError, match=sentence) as error:
        read(**values)
    assert "\n" not in str(error.value)


def test_an_upload_that_is_gone_is_no_path_of_the_server(tmp_path: Path):
    for name in ("picture", "sound"):
        with pytest.raises(InputError, match="^mine is no longer here; upload it again$"):
            read(**{name: Upload(str(tmp_path / "gone"), "mine")})


def test_a_page_does_not_speak_of_flags():
    assert for_page("dog.jpg is a picture, not a sound; give it with -t") == "dog.jpg is a picture, not a sound"
    assert for_page("a negative prompt needs a guidance scale above 1 (-gs)") == (
        "a negative prompt needs a guidance scale above 1"
    )
    assert for_page("a has the address b, which is not public; AUDIOLDM_X=1 in the environment allows it") == (
        "a has the address b, which is not public"
    )
    assert for_page("--mode inpaint needs a --time_range in seconds") == "mode inpaint needs a time_range in seconds"


def test_every_option_of_the_command_is_on_the_page(tmp_path: Path):
    gradio = pytest.importorskip("gradio")
    from audioldm.web.engine import Engine
    from audioldm.web.page import build
    from audioldm.web.sessions import Sessions

    page = build(Engine(None, None, device="cpu"), Sessions(tmp_path))
    assert isinstance(page, gradio.Blocks)
    parameters = {one["parameter_name"] for one in page.get_api_info()["named_endpoints"]["/generate"]["parameters"]}
    served = {"ckpt_path", "device", "precision", "batch"}  # flags of audioldm-web
    asked_otherwise = {"text": "words", "file_path": "sound", "weights": "words_weight", "save_embedding": "vector"}
    options = {option.name for option in (*SAMPLING, *EDITING, *PROMPTS, *MODEL)} - served
    assert parameters >= {asked_otherwise.get(name, name) for name in options}
    sources = {"picture", "words", "sound", "vector"}
    assert parameters - options == sources | {f"{name}_weight" for name in sources} | {"url", "pictures"}
