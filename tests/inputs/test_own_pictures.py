"""One's own pictures, as they come: large, from a phone, half damaged, nearly empty."""

from __future__ import annotations

import io
import logging
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from pictures import decode, encode, png_chunk, refused
from PIL import Image

from audioldm.errors import InputError
from audioldm.inputs.images import decode_image, load_image


@pytest.fixture
def photo() -> Image.Image:
    """480 × 360 pixels that differ in every part."""
    y, x = np.mgrid[:360, :480]
    noise = np.random.default_rng(0).integers(0, 40, (360, 480))
    return Image.fromarray(np.stack([x % 200 + noise, y % 200 + noise, (x + y) % 200 + noise], 2).astype(np.uint8))


# 13: sizes


@pytest.mark.parametrize(("mode", "width", "height"), [("RGB", 8000, 6000), ("L", 12000, 9000), ("L", 16320, 12240)])
def test_a_large_photo_is_decoded_small_within_a_gigabyte(tmp_path: Path, mode: str, width: int, height: int) -> None:
    image = Image.new(mode, (width, height))
    image.paste("white" if mode == "RGB" else 255, (0, 0, width // 2, height))
    image.save(tmp_path / "photo.jpg", quality=50)
    code = (
        "import re, sys; from pathlib import Path; from audioldm.inputs.images import load_image; "
        "image = load_image(sys.argv[1]); small = image.resize((4, 3)); "
        "print(image.size, small.getpixel((0, 1)), small.getpixel((3, 1)), "  # ru_maxrss begins at the parent's peak
        "re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    told = subprocess.run([sys.executable, "-c", code, tmp_path / "photo.jpg"], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    *rest, memory = told.stdout.split()
    scale = 2 if width < 12000 else 2 if width < 16000 else 4
    assert " ".join(rest) == f"({width // scale}, {height // scale}) (255, 255, 255) (0, 0, 0)"
    assert int(memory) < 1_000_000  # KB


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_a_large_picture_of_another_format_is_reduced(tmp_path: Path, format: str) -> None:
    image = Image.new("L", (9000, 6000), 7)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "scan", format, exif=exif)
    assert load_image(tmp_path / "scan").size == (3000, 4500)
    with pytest.raises(InputError, match="more than 40 megapixels"):  # from the web
        decode_image((tmp_path / "scan").read_bytes(), "it")


def test_a_file_of_more_than_20_megabytes(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (2700, 2700, 3), dtype=np.uint8)).save(
        tmp_path / "big.bmp"
    )
    assert (tmp_path / "big.bmp").stat().st_size > 20_000_000
    assert load_image(tmp_path / "big.bmp").size == (2700, 2700)


# 13: damage that no pixel depends on


def spliced(data: bytes, chunk: bytes) -> bytes:
    """A PNG with a chunk after its header."""
    return data[:33] + chunk + data[33:]


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"tEXt", b"parameters\0" + b"x" * 5_000_000),
        png_chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(80_000_000))),
        png_chunk(b"iTXt", b"broken"),
        png_chunk(b"tEXt", b"a\0b")[:-4] + b"\0\0\0\0",
        struct.pack(">I", 60) + b"tEXt" + b"a\0its length is wrong",
        png_chunk(b"iCCP", b"profile\0\0not compressed"),
        png_chunk(b"eXIf", b"nonsense"),
    ],
    ids=["5 MB of text", "80 MB compressed", "no text", "wrong CRC", "wrong length", "no profile", "no EXIF"],
)
def test_a_png_with_much_or_damaged_metadata(tmp_path: Path, photo: Image.Image, chunk: bytes) -> None:
    (tmp_path / "art.png").write_bytes(spliced(encode(photo), chunk))
    assert (np.asarray(load_image(tmp_path / "art.png")) == np.asarray(photo)).all()
    assert (decode(spliced(encode(photo), chunk)) == np.asarray(photo)).all()  # what comes from data sets, too


@pytest.mark.parametrize("cut", [1, 2, 3, 12, 100])
@pytest.mark.parametrize(("format", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {})])
def test_a_file_without_its_last_bytes(
    tmp_path: Path, photo: Image.Image, caplog: pytest.LogCaptureFixture, cut: int, format: str, options: dict
) -> None:
    data = encode(photo, format, **options)
    whole = np.asarray(decode_image(data, "it"), int)
    (tmp_path / "photo").write_bytes(data[:-cut])
    found = np.asarray(load_image(tmp_path / "photo"), int)
    assert found.shape[1] == 480 and found.shape[0] >= 330
    assert abs(found[:320] - whole[:320]).mean() < 2
    if found.shape[0] < 360 or cut > 12:
        (record,) = caplog.records
        assert record.levelno == logging.WARNING and "is cut short" in record.getMessage()


@pytest.mark.parametrize("share", [0.3, 0.5, 0.75])
@pytest.mark.parametrize(("format", "options"), [("JPEG", {}), ("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {})])
def test_half_a_picture_is_refused(
    tmp_path: Path, photo: Image.Image, share: float, format: str, options: dict
) -> None:
    data = encode(photo, format, **options)
    (tmp_path / "photo").write_bytes(data[: int(len(data) * share)])
    refused(tmp_path / "photo", "is damaged or truncated|not an image")


def test_an_interlaced_file_without_its_end_is_no_picture_with_gaps(tmp_path: Path) -> None:
    import av

    frame = av.VideoFrame.from_ndarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8), "rgb24")
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = 64, 64, "rgb24", Fraction(1)
    codec.options = {"pred": "none"}
    data = b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode()])
    assert decode(data).shape == (64, 64, 3)
    (tmp_path / "cut.png").write_bytes(data[: len(data) * 2 // 3])
    refused(tmp_path / "cut.png", "is damaged or truncated")


# 14: HEIC


@pytest.mark.parametrize("name", ["dog.heic", "dog.HEIF", "dog.jpg"])
def test_heic(tmp_path: Path, photo: Image.Image, name: str) -> None:
    import pillow_heif

    pillow_heif.from_pillow(photo).save(tmp_path / name, quality=90, format="HEIF")
    found = load_image(tmp_path / name)
    assert found.size == photo.size and abs(np.asarray(found, int) - np.asarray(photo, int)).mean() < 12


def test_heic_turned_by_its_camera(tmp_path: Path, photo: Image.Image) -> None:
    import pillow_heif

    exif = Image.Exif()
    exif[0x0112] = 6
    pillow_heif.register_heif_opener()
    photo.save(tmp_path / "turned.heic", quality=90, exif=exif.tobytes())
    found = load_image(tmp_path / "turned.heic")
    assert found.size == (360, 480)
    assert abs(np.asarray(found, int) - np.asarray(photo.rotate(-90, expand=True), int)).mean() < 12


def test_damaged_heic(tmp_path: Path, photo: Image.Image) -> None:
    import pillow_heif

    pillow_heif.from_pillow(photo).save(tmp_path / "dog.heic", quality=90)
    data = (tmp_path / "dog.heic").read_bytes()
    (tmp_path / "dog.heic").write_bytes(data[: len(data) // 2])
    refused(tmp_path / "dog.heic", "a HEIC photo that cannot be decoded.*export it to JPEG")


# 15: something is seen


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_white_on_transparency_is_laid_on_black(format: str, mode: str) -> None:
    logo = Image.new("RGBA", (40, 40), (255, 255, 255, 0))
    logo.paste((255, 255, 255, 255), (10, 10, 30, 30))
    pixels = decode(logo.convert(mode), format, **({"lossless": True, "exact": True} if format == "WEBP" else {}))
    assert pixels[20, 20].tolist() == [255] * 3 and pixels[0, 0].tolist() == [0] * 3


def test_light_grey_in_a_palette_on_transparency() -> None:
    logo = Image.new("P", (40, 40), 0)
    logo.putpalette([255, 255, 255, 240, 240, 240])
    logo.paste(1, (10, 10, 30, 30))
    for format in ("PNG", "GIF"):
        assert np.ptp(decode(logo, format, transparency=0)) > 200, format


def test_a_picture_whose_alpha_hides_all_of_it(photo: Image.Image) -> None:
    hidden = photo.convert("RGBA")
    hidden.putalpha(0)
    assert (decode(hidden) == np.asarray(photo)).all()


def test_dark_on_transparency_stays_on_white() -> None:
    logo = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    logo.paste((200, 30, 30, 255), (10, 10, 30, 30))
    assert decode(logo)[0, 0].tolist() == [255] * 3


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_few_bits_in_a_grey_file_of_16(bits: int, format: str) -> None:
    top = 2**bits - 1
    pixels = decode(Image.fromarray(np.array([[0, top // 2, top]], np.uint16)), format)
    assert abs(pixels[0, :, 0].astype(int) - [0, 127, 255]).max() <= 1


def colour_tiff(values: np.ndarray, order: str, compress: bool) -> bytes:
    """A TIFF of 16-bit RGB, which Pillow does not write."""
    height, width, _ = values.shape
    data = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if compress else data
    bits = 8 + 2 + 12 * 9 + 4
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, bits), (259, 3, 1, 8 if compress else 1),
            (262, 3, 1, 2), (273, 4, 1, bits + 6), (277, 3, 1, 3), (278, 3, 1, height),
            (279, 4, 1, len(data))]  # fmt: skip
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count)
        + (struct.pack(f"{order}H2x", value) if kind == 3 and count == 1 else struct.pack(f"{order}I", value))
        for tag, kind, count, value in tags
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + bytes(4) + struct.pack(f"{order}3H", 16, 16, 16) + data


@pytest.mark.parametrize("make", ["PNG", "<raw", ">raw", "<deflate", ">deflate"])
def test_12_bits_in_a_colour_file_of_16(make: str) -> None:
    values = np.zeros((2, 3, 3), np.uint16)
    values[0] = [[4095, 0, 0], [0, 2048, 0], [0, 0, 1000]]
    if make == "PNG":
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        header = png_chunk(b"IHDR", struct.pack(">2I5B", 3, 2, 16, 2, 0, 0, 0))
        data = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    else:
        data = colour_tiff(values, make[0], make.endswith("deflate"))
    assert decode(data)[0].tolist() == [[255, 0, 0], [0, 128, 0], [0, 0, 62]]
    assert decode(data)[1].max() == 0


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_an_animation_that_begins_blank(photo: Image.Image, format: str) -> None:
    frames = [Image.new("RGB", photo.size, "white"), Image.new("RGB", photo.size, "black"), photo]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert abs(decode(data).astype(int) - np.asarray(photo, int)).mean() < 12


def test_an_animation_that_begins_transparent(photo: Image.Image) -> None:
    frames = [Image.new("RGBA", photo.size, (0, 0, 0, 0)), photo.convert("RGBA")]
    data = encode(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert (decode(data) == np.asarray(photo)).all()


# 12: what Python has for a picture


def test_arrays(photo: Image.Image) -> None:
    values = np.asarray(photo)
    opaque = np.full(values.shape[:2], 255, np.uint8)
    for given in (values, values / 255, (values / 255).astype(np.float32), values.astype(np.int64),
                  values.transpose(2, 0, 1), values[None], np.dstack([values, opaque]),
                  values.astype(np.float32)):  # fmt: skip
        assert (np.asarray(load_image(given)) == values).all()
    grey = np.asarray(photo.convert("L"))
    for given in (grey, grey[..., None], grey / 255.0, grey.astype(np.uint16) * 257):
        assert (np.asarray(load_image(given))[..., 0] == grey).all()
    assert np.asarray(load_image(np.array([[True, False]]))).tolist() == [[[255] * 3, [0] * 3]]


def test_a_tensor(photo: Image.Image) -> None:
    import torch

    values = np.asarray(photo)
    assert (np.asarray(load_image(torch.from_numpy(values.copy()).permute(2, 0, 1) / 255)) == values).all()


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((0, 5, 3)), "shape"),
        (np.zeros((5, 5, 5)), "shape"),
        (np.zeros((2, 5, 5, 3)), "shape"),
        (np.array(3.0), "shape"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4, 3), -0.5), "negative"),
        (np.full((4, 4), "x"), "numbers"),
        (np.full((4, 4), None), "numbers"),
        (np.zeros((4, 4), complex), "numbers"),
        (np.zeros((4, 900, 3)), "elongated"),
    ],
)
def test_arrays_that_are_no_pictures(array: np.ndarray, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_image(array)


def test_bytes_and_open_files(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "photo.png")
    data = (tmp_path / "photo.png").read_bytes()
    for given in (data, bytearray(data), memoryview(data), io.BytesIO(data), tmp_path / "photo.png"):
        assert (np.asarray(load_image(given)) == np.asarray(photo)).all()
    with open(tmp_path / "photo.png", "rb") as file:
        assert (np.asarray(load_image(file)) == np.asarray(photo)).all()
    with pytest.raises(InputError, match="cannot be read"):
        load_image(file)  # closed
    with open(tmp_path / "photo.png", encoding="latin-1") as file, pytest.raises(InputError, match='mode "rb"'):
        load_image(file)
    with pytest.raises(InputError, match="empty"):
        load_image(b"")
    with Image.open(tmp_path / "photo.png") as image:
        pass
    with pytest.raises(InputError, match="PIL image that cannot be decoded"):
        load_image(image)
    for wrong in (None, 7, {"image": 1}, [1, 2], object()):
        with pytest.raises(InputError, match="a picture is a URL"):
            load_image(wrong)


# 13: WebP, AVIF and HEIC, which Pillow refuses without their last bytes


def of_blocks(photo: Image.Image, format: str) -> bytes:
    if format == "HEIF":
        import pillow_heif

        file = io.BytesIO()
        pillow_heif.from_pillow(photo).save(file, quality=90)
        return file.getvalue()
    return encode(photo, format, **({"lossless": True} if format == "lossless" else {}))


@pytest.mark.parametrize("cut", [1, 20, 200])
@pytest.mark.parametrize("format", ["WEBP", "AVIF", "HEIF"])
def test_a_file_of_blocks_without_its_last_bytes(tmp_path: Path, photo: Image.Image, format: str, cut: int) -> None:
    data, notes = of_blocks(photo, format), []
    (tmp_path / "photo").write_bytes(data[:-cut])
    found = np.asarray(load_image(tmp_path / "photo", on_note=notes.append), int)
    whole = np.asarray(decode_image(data, "it"), int)
    assert found.shape[1] == 480 and found.shape[0] >= 280
    assert abs(found - whole[: len(found)]).mean() < 1  # nothing made up
    assert len(notes) == 1 and "is cut short: " in notes[0] and "and the rest is used" in notes[0]


@pytest.mark.parametrize("format", ["WEBP", "AVIF", "HEIF"])
def test_half_a_file_of_blocks_is_refused(tmp_path: Path, photo: Image.Image, format: str) -> None:
    data = of_blocks(photo, format)
    (tmp_path / "photo").write_bytes(data[: len(data) // 2])
    refused(tmp_path / "photo", "is damaged or truncated|is a HEIC photo that cannot be decoded")
    with pytest.raises(InputError):  # what comes from data sets must be whole
        decode_image(data[:-20], "it")


def test_a_bmp_lacks_its_upper_rows(tmp_path: Path, photo: Image.Image) -> None:
    notes: list[str] = []
    (tmp_path / "photo").write_bytes(encode(photo, "BMP")[: -480 * 3 * 20])
    found = np.asarray(load_image(tmp_path / "photo", on_note=notes.append))
    assert (found == np.asarray(photo)[-len(found) :]).all() and 335 <= len(found) <= 340
    assert f"{360 - len(found)} of its 360 rows are missing" in notes[0]


def test_a_progressive_jpeg_of_few_scans_is_refused(tmp_path: Path, photo: Image.Image) -> None:
    data = encode(photo, "JPEG", progressive=True)
    (tmp_path / "photo").write_bytes(data[: len(data) // 10])
    refused(tmp_path / "photo", "is damaged or truncated")


# 15: nothing can be seen


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF"])
def test_a_blank_picture_is_said(tmp_path: Path, format: str) -> None:
    notes: list[str] = []
    Image.new("RGB", (64, 48), "white").save(tmp_path / "photo", format)
    load_image(tmp_path / "photo", on_note=notes.append)
    assert notes == [f"{tmp_path / 'photo'} is blank: all of it is of one colour"]
    load_image(np.zeros((9, 9, 3), np.uint8), on_note=notes.append)
    assert notes[1:] == ["the picture is blank: all of it is of one colour"]


def test_an_animation_cut_after_its_blank_frame_is_said(tmp_path: Path, photo: Image.Image) -> None:
    frames, notes = [Image.new("RGB", photo.size, "white"), photo], []
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    (tmp_path / "photo").write_bytes(data[: len(data) // 2])
    load_image(tmp_path / "photo", on_note=notes.append)
    assert any("is blank" in note for note in notes)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"), (b"PK\3\4xx", "unpack it"),
        (b"\x1f\x8bxx", "packed by gzip; unpack it"), (b"II*\0\x08", "is damaged or truncated"), (b"8BPS", "Photoshop"),
        (b"\0\0\0\x0cJXL \r\n", "JPEG XL, which is not read; export it"),
    ],
)  # fmt: skip
def test_what_else_a_file_is(data: bytes, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_image(data)


def test_tensors_of_any_kind(photo: Image.Image) -> None:
    import torch

    pixels = torch.from_numpy(np.asarray(photo) / np.float32(255))
    for given in (pixels.requires_grad_(), pixels.to(torch.bfloat16), pixels.half().detach()):
        assert abs(np.asarray(load_image(given), int) - np.asarray(photo, int)).max() < 3


def test_an_open_file_that_was_read_to_its_end(photo: Image.Image) -> None:
    file = io.BytesIO(encode(photo))
    load_image(file)
    with pytest.raises(InputError, match=r"has been read to its end; seek\(0\) goes back"):
        load_image(file)
