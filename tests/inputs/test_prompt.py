"""What is an image and what is words; names for files."""

import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audioldm.errors import InputError
from audioldm.inputs.prompt import kind_of, read_prompt, read_prompts
from translator.files import MAX_SLUG, slug, unwrapped


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
        ("un été à Zürich", "un_été_à_Zürich"),
        ("собака", "собака"),
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
    assert 1 <= len(name) <= MAX_SLUG and len(name.encode()) <= 200 and name[0] not in "_-" and name[-1] not in "_-"
    assert re.fullmatch(r"[\w🐕-]+", name) and name.isprintable()


def test_slug_of_a_file_without_extension(folder):
    assert slug(str(folder / "photo")) == "photo"


# Names of any script


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("犬.webp", "犬"),
        ("photos/che\u0302vre.webp", "chêvre"),  # as macOS names it
        ("कुत्ता भौंकता है", "कुत्ता_भौंकता_है"),
        ("نباح كلب", "نباح_كلب"),
        ("สุนัขเห่า.jpg", "สุนัขเห่า"),
        ("🐕 barks", "🐕_barks"),
        ("a:b*c?d\u2028e\x7ff\udce9g", "a_b_c_d_e_f_g"),
        ("https://example.org/%E7%8A%AC.jpg", "犬"),
        ("'犬.webp'", "犬"),
    ],
)
def test_slug_keeps_letters_of_any_script(prompt, name):
    assert slug(prompt) == name


@pytest.mark.parametrize("letter", ["犬", "x\u0301", "𝄞", "é"])
def test_long_names_fit_a_file_system(letter, tmp_path):
    (tmp_path / f"2026-11-25_22-00-00_{slug(letter * 300)}_63-1000.json").touch()


# What is meant by quoted names, and by those of other files


@pytest.mark.parametrize(
    "prompt",
    ['"dog.jpg"', "'dog.jpg'", "<dog.jpg>", "`dog.jpg`", "“dog.jpg”", "[a dog](dog.jpg)", "![a dog](dog.jpg)",
     '[a dog](<dog.jpg> "Rex")', "(dog.jpg)", ' "dog.jpg" ', "\"'dog.jpg'\"", '"./dog.jpg"'],
)  # fmt: skip
def test_a_name_in_quotes_or_brackets(folder, prompt):
    assert kind_of(prompt) == "image"
    found = read_prompt(prompt)
    assert found.kind == "image" and found.source.removeprefix("./") == "dog.jpg" and slug(prompt) == "dog"


@pytest.mark.parametrize(
    "prompt", ["<https://example.org/a.jpg>", '"https://example.org/a.jpg"', "[a](https://example.org/a.jpg)",
               "'HTTPS://example.org/a'", "![](https://example.org/a.jpg)"]
)  # fmt: skip
def test_an_address_in_quotes_or_brackets(prompt):
    assert kind_of(prompt) == "image" and unwrapped(prompt).lower().startswith("https://example.org/a")


@pytest.mark.parametrize("prompt", ['"a dog"', "(rain)", "[Applause](loud)", "<a dog>", "'", '""x', "«дождь»"])
def test_words_keep_their_quotes(folder, prompt):
    assert kind_of(prompt) == "text" and read_prompt(prompt).content == prompt


def test_a_file_that_is_called_with_quotes(folder):
    Image.new("RGB", (3, 3)).save("'dog.jpg'", "PNG")
    assert read_prompt("'dog.jpg'").content.size == (3, 3)


@pytest.mark.parametrize("name", ["bark.wav", "rain.wav", "my song.mp3", "/no/such/film.MP4", "'memo.m4a'", "a/b.opus"])
def test_the_name_of_a_sound_is_answered_with_f(folder, name):
    with pytest.raises(InputError, match="is the name of a sound: give it with -f"):
        read_prompt(name)


@pytest.mark.parametrize("name", ["list.tsv", "rows.json", "paper.pdf", "notes.docx", '"shot.CR2"', "a.parquet"])
def test_the_name_of_another_file_is_answered_with_what_is_accepted(folder, name):
    with pytest.raises(InputError, match=r"not a file that -t takes: pictures .*lists .*\.npy") as caught:
        read_prompt(name)
    assert ("save it as" in str(caught.value)) == name.endswith(("tsv", "json"))


def test_a_picture_may_be_called_anything(folder):
    for name in ("dog.wav", "dog.pdf", "dog.heic"):
        Image.new("RGB", (2, 2)).save(name, "PNG")
        assert read_prompt(name).kind == "image"


def test_a_sound_without_ending_is_told_as_such(folder):
    (folder / "bark").write_bytes(b"RIFF0000WAVEfmt ")
    with pytest.raises(InputError, match="is a sound, not a picture; give it with -f"):
        read_prompt("./bark")


# What Python has


def test_prompts_of_python(folder):
    pixels = np.full((4, 6, 3), 9, np.uint8)
    data = open("dog.jpg", "rb").read()
    for given in (pixels, pixels / 255, data, io.BytesIO(data), Path("dog.jpg"), Image.open("dog.jpg")):
        assert read_prompt(given).kind == "image"
    with open("dog.jpg", "rb") as file:
        found = read_prompts([file, "rain", pixels])
    assert [prompt.kind for prompt in found] == ["image", "text", "image"] and found[0].source == "dog.jpg"
    vector = read_prompt(np.array([3.0, 4.0]))
    assert vector.kind == "vector" and np.allclose(vector.content, [0.6, 0.8])
    sound = read_prompt(audio_file=(8_000, np.linspace(-0.5, 0.5, 8_000)))
    assert sound.kind == "audio" and len(sound.content) == 16_000


@pytest.mark.parametrize("given", [7, 1.5, {"image": "dog.jpg"}, object(), True, ["rain", None], [[]], [7]])
def test_what_is_no_prompt(given):
    with pytest.raises(InputError) as caught:
        read_prompts(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "prompt",
    ["dog.jpg,", "dog.jpg;", 'dog.jpg"', "'dog.jpg", "\ufeffdog.jpg", "dog.jpg\u200b", "\u202adog.jpg", "dog.jpg\xa0",
     "‹dog.jpg›", "»dog.jpg«", "{dog.jpg}", '<img src="dog.jpg" alt="x">', "\ufeff'dog.jpg'", " 'dog.jpg', "],
)  # fmt: skip
def test_a_name_that_was_cut_out_of_a_text(folder, prompt):
    Image.new("RGB", (3, 3)).save("dog.jpg")
    assert unwrapped(prompt) == "dog.jpg" and read_prompt(prompt).kind == "image"


@pytest.mark.parametrize("prompt", ['""', "''", "()", "“”", '" "'])
def test_quotes_around_nothing_are_no_prompt(folder, prompt):
    with pytest.raises(InputError, match="the prompt is empty"):
        read_prompt(prompt)


@pytest.mark.parametrize("prompt", ["a dog,", "dogs'", "rain;", 'say "hush"', "\ud800~'"])
def test_words_keep_their_ends(prompt):
    assert unwrapped(prompt) == prompt


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("dog.jpg/", 'no such file: "dog.jpg/"'), ("sounds/", 'no such file: "sounds/"'),
        ("~nosuch", 'no such file: "~nosuch"'), ("-", "cannot be read from standard input"),
        ("www.example.org/dog.jpg", "an address begins with https://"),
        ("file:///a/b%20c.jpg", "give the name of the file: /a/b c.jpg"), ("file:dog.jpg", "of the file: dog.jpg"),
        ("photos.zip", "unpack it first"), ("shot.cr2", "export it to JPEG or PNG"), ("photo.tga", "no such file"),
        ("song.m4r", "give it with -f"), ("clip.mpeg", "give it with -f"), ("a.aif", "give it with -f"),
        ("old.xls", "save it as .csv"),
    ],
)  # fmt: skip
def test_what_looks_like_a_file_is_never_taken_for_words(folder, prompt, sentence):
    with pytest.raises(InputError, match=sentence):
        read_prompt(prompt)


@pytest.mark.parametrize("prompt", ["dog.jp", "either/or", "24/7", "example.org", "~ 10 dogs", "dog - cat"])
def test_words_that_only_look_a_little_like_files(folder, prompt):
    assert read_prompt(prompt).kind == "text"


def test_bytes_in_a_memoryview_are_a_picture(folder):
    Image.new("RGB", (3, 3), "red").save("dog.png")
    assert read_prompt(memoryview(Path("dog.png").read_bytes())).content.size == (3, 3)
