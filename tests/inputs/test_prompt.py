"""What is an image and what is words; names for files."""

import os
import re

import pytest
from PIL import Image

from audioldm.errors import InputError
from audioldm.inputs.prompt import MAX_SLUG, kind_of, slug


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a photo under several names, a folder, a text file and a sound."""
    monkeypatch.chdir(tmp_path)
    for name in ("dog.jpg", "photo", "my dog in 3.5 meters.png"):
        Image.new("RGB", (2, 2)).save(name, "PNG")
    (tmp_path / "rain").write_text("a file that happens to be called like a prompt")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "bark.wav").write_bytes(b"RIFF0000WAVE")
    (tmp_path / "thunder").mkdir()
    return tmp_path


TEXTS = [
    "a dog barking",
    "rain. wind",
    "a dog in 3.5 meters",
    "AC/DC guitar",
    "what? a dog:cat",
    "dog",
    "note: a door creaks",
    "file: a folder snaps shut",
    "data: a modem dialling",
    "http is spoken by a robot",
    "he said http://example.org/dog.jpg aloud",
    "jpg",
    "the jpg. of a dog",
    "...",
    "1/2 drum",
    "/s/ is a hissing sound",
    "собака лает",
    "🐕",
    "x" * 100_000,
    "nul \0 byte",
]
IMAGES = [
    "http://example.org/dog.jpg",
    "https://example.org",
    "HTTPS://EXAMPLE.ORG/?q=dog",
    "http://user:secret@example.org:8080/dog#top",
    "http://2130706433/",
    "  https://example.org/dog.jpg\n",
    "data:image/png;base64,AAAA",
    "DATA:,x",
    "data:nonsense",
    "data:",
    "data:image/png;base64," + "A" * 100_000,
]


@pytest.mark.parametrize("prompt", TEXTS, ids=lambda prompt: prompt[:30])
def test_words(folder, prompt):
    assert kind_of(prompt) == "text"


@pytest.mark.parametrize("prompt", IMAGES, ids=lambda prompt: prompt[:30])
def test_image_addresses(folder, prompt):
    assert kind_of(prompt) == "image"


@pytest.mark.parametrize(
    "prompt", ["dog.jpg", "./dog.jpg", "photo", " photo ", "./rain", "my dog in 3.5 meters.png"]
)
def test_files_that_exist(folder, prompt):
    assert kind_of(prompt) == "image"


@pytest.mark.parametrize("prompt", ["notes.txt", "bark.wav"])
def test_other_files_are_left_to_the_loader_to_refuse(folder, prompt):
    assert kind_of(prompt) == "image"


def test_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert kind_of("~/dog.jpg") == "image"


@pytest.mark.parametrize("prompt", ["rain", "thunder"])
def test_a_word_stays_a_word_beside_a_file_or_folder_of_that_name(folder, prompt):
    assert kind_of(prompt) == "text"


def test_a_pipe_is_not_opened_to_look_inside(folder):
    os.mkfifo("whistle")
    assert kind_of("whistle") == "text"  # opening it would block for ever
    assert kind_of("./whistle") == "image"


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("", "empty"),
        (" \t\n", "empty"),
        ("file:///etc/passwd", "file: addresses are not supported"),
        ("file:/etc/passwd", "file: addresses are not supported"),
        ("FTP://example.org/dog.jpg", "ftp: addresses are not supported"),
        ("gopher://example.org", "gopher: addresses are not supported"),
        ("s3://bucket/dog.jpg", "s3: addresses are not supported"),
        ("http://", "no host"),
        ("https:///dog.jpg", "no host"),
        ("http:/example.org/dog.jpg", "no host"),
        ("https:example.org", "no host"),
        ("cat.jpg", "no such file"),
        ("CAT.JPEG", "no such file"),
        ("my cat on the roof.webp", "no such file"),
        ("photos/cat.heic", "no such file"),
        ("nul\0.png", "no such file"),
        ("/no/such/photo", "no such file"),
        ("./photo2", "no such file"),
        ("~/no-such-photo", "no such file"),
        ("./thunder", "folder"),
        ("thunder/", "folder"),
        (".", "folder"),
        ("~", "folder"),
        ("/", "folder"),
    ],
)
def test_refused(folder, prompt, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        kind_of(prompt)
    assert "\n" not in str(caught.value) and str(caught.value).isprintable() and len(str(caught.value)) < 200


def test_other_schemes_are_answered_with_what_is_accepted():
    with pytest.raises(InputError, match=r"http\(s\) URL, a data URI or the name of an image file"):
        kind_of("ftp://example.org/dog.jpg")


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a dog barking", "a_dog_barking"),
        ("what? a dog/cat", "what_a_dog_cat"),
        ("AC/DC guitar", "AC_DC_guitar"),
        ("rain. wind", "rain_wind"),
        ("re-entry", "re-entry"),
        ("un été à Zürich", "un_ete_a_Zurich"),
        ("собака", "prompt"),
        ("???", "prompt"),
        ("", "prompt"),
        ("../../no/such/thing", "no_such_thing"),
        ("-rf", "rf"),
        ("photos/dog.jpg", "dog"),
        ("C:\\photos\\dog.jpg", "dog"),
        ("/home/me/my dog (1).PNG", "my_dog_1"),
        (".jpg", "prompt"),
        ("https://example.org/a/dog.jpg?size=large&token=secret#top", "dog"),
        ("https://example.org/a%20dog.jpeg", "a_dog"),
        ("https://user:secret@example.org/", "example_org"),
        ("https://example.org/gallery/", "gallery"),
        ("http://[", "image"),
        ("data:image/png;base64,AAAA", "image"),
        ("data:text/plain,secret", "image"),
    ],
)
def test_slug(prompt, name):
    assert slug(prompt) == name


@pytest.mark.parametrize(
    "prompt", [*TEXTS, *IMAGES, "a" * 59 + " b", "http://x/" + "ä" * 300, "\ud800", "n\0l"]
)
def test_slug_is_always_a_safe_file_name(prompt):
    name = slug(prompt)
    assert re.fullmatch(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{MAX_SLUG - 1}}}", name) and name[-1] not in "_-"


def test_slug_of_a_file_without_extension(folder):
    assert slug(str(folder / "photo")) == "photo"
