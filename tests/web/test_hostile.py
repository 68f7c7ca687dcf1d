"""Hostile files and addresses at the real server: each gets one sentence, and the next visitor's sound is made."""

from __future__ import annotations

import gzip
import io
import itertools
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pytest
import soundfile
import sounds
from PIL import Image
from server import Server
from web_site import ROOT, Site, wait_until

gradio_client = pytest.importorskip("gradio_client")
BARK = (ROOT / "examples" / "dog.wav").read_bytes()
NOISE = Image.effect_noise((96, 64), 60).convert("RGB")


def half(format: str) -> bytes:
    data = pictures.encode(NOISE, format)
    return data[: len(data) // 2]


def heic() -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(NOISE).save(file)
    return file.getvalue()


def packed(name: str, data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, data)
    return file.getvalue()


def wav(values: Any, rate: int = 16_000, **changes: bytes) -> bytes:
    """A float WAV; ``changes`` are bytes to be put over its header, by place."""
    file = io.BytesIO()
    soundfile.write(file, np.asarray(values, np.float32), rate, format="WAV", subtype="FLOAT")
    data = bytearray(file.getvalue())
    for place, new in changes.items():
        at = int(place.removeprefix("at_"))
        data[at : at + len(new)] = new
    return bytes(data)


def npy(values: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values, **how)
    return file.getvalue()


class Harm:
    def __reduce__(self) -> Any:
        return print, ("harm",)


PICTURES: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "cut.jpg": (half("JPEG"), "is damaged or truncated"),
    "cut.png": (half("PNG"), "is damaged or truncated"),
    "cut.webp": (half("WEBP"), "is damaged or truncated"),
    "cut.heic": (lambda: heic()[: len(heic()) // 2], "damaged|cannot be read"),
    **{f"bomb {kind}.png": (pictures.huge(kind), "claims more than 40 megapixels") for kind in
       ("PNG", "GIF", "GIF frame", "BMP", "JPEG", "TIFF", "WEBP", "PPM")},
    "empty.jpg": (b"", "is empty"),
    "text.jpg": (b"just words", "is not an image that can be read"),
    "page.jpg": (b"<!doctype html><script>alert(1)</script>", "is a web page, not an image"),
    "drawing.png": (b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', "is an SVG drawing"),
    "paper.jpg": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "is a PDF"),
    "packed.jpg": (packed("dog.jpg", half("JPEG")), "is a ZIP file"),
    "song.jpg": (BARK, "is a sound, not a picture"),
    "sliver.png": (lambda: pictures.encode(Image.new("L", (20_000, 10))), "is too elongated"),
    "large.bmp": (lambda: bytes(20_000_001), "has more than 20 MB"),
}  # fmt: skip
SOUNDS: dict[str, tuple[bytes | Callable[[Path], Path], str]] = {
    "empty.wav": (b"", "is not a readable audio file: it is empty"),
    "no samples.wav": (wav([]), "no sound|empty"),
    "text.mp3": (b"just words", "is not a readable audio file"),
    "list.m3u8": (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "is not a readable audio file"),
    "page.wav": (b"<html>not found</html>", "is not a readable audio file"),
    "nan.wav": (wav([0.1, np.nan] * 4_000), "contains samples that are not numbers"),
    "0 Hz.wav": (wav([0.1] * 4_000, at_24=bytes(4)), "samples per second|not a readable audio file"),
    "4 GHz.wav": (wav([0.1] * 4_000, at_24=b"\xff" * 4), "samples per second|not a readable audio file"),
    "65535 channels.wav": (wav([0.1] * 4_000, at_22=b"\xff\xff"), "not a readable audio file|channels"),
    "no format.wav": (wav([0.1] * 4_000, at_20=b"\x99\x99"), "is not a readable audio file"),
    "photo.wav": (pictures.JPEG, "is a picture, not a sound"),
    "16 channels.mov": (sounds.of_16_channels, "has more than 8 channels"),
    "silent.mp4": (lambda path: sounds.encode(path, "aac", sounds.TONE[:0], video=True), "it has no sound track"),
}
VECTORS: dict[str, tuple[bytes, str]] = {
    "pickled.npy": (npy(np.array([Harm()], object), allow_pickle=True), "is not a readable .npy file of numbers"),
    "pickle.npy": (pickle.dumps(Harm()), "is not a readable .npy file of numbers"),
    "several.npz": (packed("a.npy", npy(np.ones(512, np.float32))), "not a readable .npy file"),
    "weights.pt": (packed("archive/data.pkl", pickle.dumps(Harm())), "not a readable .npy file"),
    "empty.npy": (b"", "is not a readable .npy file of numbers"),
    "claims.npy": (npy(np.ones(9, "f4")).replace(b"(9,)", b"(1 << 50,)").replace(b" " * 9, b"", 1), "not a readable"),
    "words.npy": (npy(np.array(["rain"])), "does not hold floating-point numbers"),
    "nan.npy": (npy(np.full(512, np.nan, np.float32)), "has no direction"),
    "short.npy": (npy(np.ones(3, np.float32)), "3"),
    "table.npy": (npy(np.ones((4, 5), np.float32)), "has the shape"),
    "large.npy": (npy(np.ones(99_999, np.float32)), "is too large to be one vector"),
}
CASES = [
    (field, name, content, sentence)
    for field, table in {"picture": PICTURES, "sound": SOUNDS, "vector": VECTORS}.items()
    for name, (content, sentence) in table.items()
]


@pytest.fixture(scope="module")
def visitor(site: Site) -> Iterator[Any]:
    """One visitor for all of these, whose next sound is made in spite of them, and of whom no file is left."""
    before = set(site.kept())
    client = gradio_client.Client(site.url, verbose=False, httpx_kwargs={"timeout": 60})
    yield client
    _, files = client.predict(words="rain", duration=1, api_name="/generate")
    assert len(files) == 2
    client.close()
    assert wait_until(lambda: set(site.kept()) <= before), set(site.kept()) - before


def answer(site: Site, client: Any, **values: Any) -> str:
    """The one sentence with which the server refuses this."""
    with pytest.raises(gradio_client.exceptions.AppError) as error:
        client.predict(**values, api_name="/generate")
    sentence = str(error.value)
    assert sentence.isprintable() and len(sentence) < 300
    assert not re.search(r"Traceback|Error\b|[<>]|(^|[^.])[.] [A-Z]", sentence), sentence
    for path in (str(site.files), str(ROOT), "/tmp", "audioldm-web", "gradio"):
        assert path not in sentence, sentence
    return sentence


@pytest.mark.parametrize(("field", "name", "content", "sentence"), CASES, ids=[" ".join(case[:2]) for case in CASES])
def test_a_file(site: Site, visitor: Any, tmp_path: Path, field: str, name: str, content: Any, sentence: str):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif field == "sound":
        content(path)
    else:
        path.write_bytes(content())
    said = answer(site, visitor, **{field: gradio_client.handle_file(str(path))})
    assert re.search(sentence, said) and name in said, said


NAMES = [
    "a\nb.jpg", "a\x1b[31mb.jpg", "'\"; rm -rf $HOME `id` %s %2e%2e%2f.jpg", "犬 ♪ \u202egpj.jpg", "x" * 250 + ".jpg",
    "-> passwd", "C:\\windows\\dog.jpg", "~root.jpg", "..jpg", "{0}{name!r}.jpg", "&lt;b&gt; & <b>.jpg", "CON.",
    ".htaccess",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name(site: Site, visitor: Any, tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"just words")
    with pytest.raises(gradio_client.exceptions.AppError, match="is not an image that can be read") as error:
        visitor.predict(picture=gradio_client.handle_file(str(tmp_path / name)), api_name="/generate")
    assert str(error.value).isprintable() and "<" not in str(error.value) and len(str(error.value)) < 300


ADDRESSES: dict[str, tuple[Callable[[Server, str], object], str]] = {
    "/gone.jpg": (lambda server, path: server.answer(path, status=404), "the server answered 404 Not Found"),
    "/empty.jpg": (lambda server, path: server.answer(path), "is empty"),
    "/page.jpg": (lambda server, path: server.answer(path, b"<html>", Content_Type="image/jpeg"), "is a web page"),
    "/cut.jpg": (lambda server, path: server.answer(path, pictures.JPEG, Content_Length="9999"), "connection ended"),
    "/bomb.png": (lambda server, path: server.answer(path, pictures.huge("PNG")), "claims more than 40 megapixels"),
    "/large.jpg": (lambda server, path: server.answer(path, Content_Length="20000001"), "is larger than 20 MB"),
    "/endless.jpg": (lambda server, path: server.stream(path, itertools.repeat(bytes(65_536))), "is larger than 20 MB"),
    "/packed.jpg": (
        lambda server, path: server.answer(path, gzip.compress(bytes(50_000_000), 1), Content_Encoding="gzip"),
        "is larger than 20 MB",
    ),
    "/loop": (lambda server, path: server.redirect(path, path), "more than 5 redirects"),
    "/inside": (lambda server, path: server.redirect(path, "file:///etc/passwd"), "is not an http or https address"),
    "/ssh": (lambda server, path: server.raw(path, [b"SSH-2.0-OpenSSH_9.2\r\n"]), "cannot be downloaded"),
}
SILENT = "the server sent nothing for 15 seconds"


def test_addresses(site: Site, visitor: Any):
    with Server() as server:
        silent = server.route("/silent.jpg", lambda handler: server.stopping.wait(60) and None)
        waiting = visitor.submit(words=silent, api_name="/generate")
        for path, (prepare, sentence) in ADDRESSES.items():
            prepare(server, path)
            said = answer(site, visitor, url=server.url(path))
            assert sentence in said and (path in said or path == "/inside"), said
        server.answer("/dog", pictures.JPEG, Content_Type="text/html")  # its content is a picture's
        assert visitor.predict(url=server.url("/dog"), duration=1, api_name="/generate")[1]
        with pytest.raises(gradio_client.exceptions.AppError, match=SILENT):
            waiting.result(timeout=60)


def test_a_header_that_promises_more_than_there_is(visitor: Any, tmp_path: Path):
    """What can be heard is used, as with the command; the page says how much that is."""
    (tmp_path / "cut.wav").write_bytes(wav([0.1, -0.1] * 8_000)[:-20_000])
    sound = gradio_client.handle_file(str(tmp_path / "cut.wav"))
    assert visitor.predict(sound=sound, duration=1, api_name="/generate")[1]


def test_in_the_browser_a_name_is_text(chromium: Any, site: Site):
    page, asked = chromium.new_page(), []
    page.goto(site.url)
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    name = '<img src=x onerror=alert(1)> "dog".jpg'
    upload = page.locator("input[type=file]").first
    upload.set_input_files({"name": name, "mimeType": "image/jpeg", "buffer": b"just words"})
    page.get_by_role("button", name="Remove Image").wait_for()
    page.get_by_role("button", name="Make the sound").click()
    said = page.locator("#status [role=alert]")
    said.wait_for()
    assert said.inner_text().startswith("<img src=x onerror=alert(1)>") and "can be read" in said.inner_text()
    page.get_by_role("button", name="Remove Image").click()
    upload.set_input_files({"name": name, "mimeType": "image/jpeg", "buffer": pictures.JPEG})
    page.get_by_role("button", name="Remove Image").wait_for()
    page.get_by_role("button", name="Make the sound").click()
    page.get_by_text("The sound is made.").wait_for()
    page.get_by_role("button", name="WAV").first.wait_for()
    page.wait_for_timeout(500)
    assert not asked and page.locator("img[src=x]").count() == 0
    page.close()
