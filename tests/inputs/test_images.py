"""The right pixels come out of every format, mode and orientation."""

import struct
from pathlib import Path

import numpy as np
import pytest
from pictures import CORNERS, decode, encode, png_chunk
from PIL import Image

from audioldm.errors import InputError
from audioldm.inputs.images import load_image, to_rgb

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = sorted((ROOT.parent / "shared" / "photos").glob("*.jpg"))
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*") if path.suffix in (".jpg", ".jpeg", ".webp"))


def grey(values, format="TIFF"):
    """Pixels of a grey image with these values, after checking that all channels agree."""
    pixels = decode(Image.fromarray(values), format)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


# Formats


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_lossless_formats_keep_every_pixel(format):
    assert (decode(Image.fromarray(CORNERS), format) == CORNERS).all()


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF"])
def test_lossy_formats_keep_the_colours(format):
    pixels = CORNERS.repeat(32, 0).repeat(32, 1)
    difference = decode(Image.fromarray(pixels), format, quality=95).astype(int) - pixels
    assert abs(difference[16::32, 16::32]).max() < 16


def test_a_phone_photo_with_a_second_picture_inside():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert data[:2] == b"\xff\xd8" and abs(decode(data)[8, 8].astype(int) - [255, 0, 0]).max() < 5


@pytest.mark.parametrize("format", ["EPS", "PCX", "ICO", "TGA", "JPEG2000"])
def test_formats_off_the_list_are_refused(format):
    with pytest.raises(InputError, match="not an image that can be read|export it to PNG"):
        decode(Image.new("RGB", (16, 16)), format)


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (2000, 20)])
def test_tiny_and_elongated(size):
    assert decode(Image.new("RGB", size, (1, 2, 3))).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_animation_gives_its_first_frame(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], lossless=True)
    assert (decode(data) == [255, 0, 0]).all()


# Modes


def test_one_bit():
    assert decode(Image.fromarray(np.array([[True, False]])))[0, :, 0].tolist() == [255, 0]


def test_palette():
    image = Image.fromarray(CORNERS).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    assert (decode(image) == CORNERS).all()


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_laid_on_white(format):
    image = Image.new("RGBA", (4, 1))
    for x, pixel in enumerate([(9, 9, 9, 0), (0, 0, 0, 255), (0, 0, 0, 128), (255, 0, 0, 51)]):
        image.putpixel((x, 0), pixel)
    expected = [[255, 255, 255], [0, 0, 0], [127, 127, 127], [255, 204, 204]]
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    assert abs(decode(image, format, **options)[0].astype(int) - expected).max() <= 1


def test_grey_with_alpha():
    image = Image.merge("LA", [Image.new("L", (2, 1), 0), Image.fromarray(np.array([[0, 128]], np.uint8))])
    assert decode(image)[0].tolist() == [[255] * 3, [127] * 3]


def test_palette_with_alpha():
    """No listed format stores mode PA, so only the conversion is tried."""
    image = Image.new("PA", (2, 1))
    image.putpalette([0, 0, 255] * 256)
    image.putalpha(Image.fromarray(np.array([[0, 255]], np.uint8)))
    assert np.asarray(to_rgb(image))[0].tolist() == [[255, 255, 255], [0, 0, 255]]


@pytest.mark.parametrize(("format", "transparency"), [("PNG", 1), ("PNG", bytes([255, 0])), ("GIF", 1)])
def test_transparent_palette_entry(format, transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    assert decode(image, format, transparency=transparency)[0].tolist() == [[200, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize(
    ("mode", "hidden", "shown"), [("RGB", (7, 7, 7), (7, 7, 8)), ("L", 7, 8), ("1", 0, 1)]
)
def test_one_transparent_colour(mode, hidden, shown):
    image = Image.new(mode, (2, 1), hidden)
    image.putpixel((1, 0), shown)
    pixels = decode(image, transparency=hidden)[0]
    expected = {"RGB": [7, 7, 8], "L": [8] * 3, "1": [255] * 3}[mode]
    background = 0 if mode == "1" else 255  # white would not be seen on white
    assert pixels.tolist() == [[background] * 3, expected]


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.array([[0, 257, 32_768, 65_535]], np.uint16)
    for format in ("PNG", "TIFF", "PPM"):
        assert grey(values, format)[0].tolist() == [0, 1, 128, 255], format


def test_big_endian_sixteen_bits():
    image = Image.frombytes("I;16B", (2, 1), struct.pack(">2H", 32_768, 65_535))
    assert decode(image, "TIFF")[0, :, 0].tolist() == [128, 255]


def test_sixteen_bits_with_a_transparent_grey():
    image = Image.fromarray(np.array([[1000, 0]], np.uint16))
    data = encode(image)
    transparency = png_chunk(b"tRNS", struct.pack(">H", 1000))
    after_header = 8 + 25
    assert decode(data[:after_header] + transparency + data[after_header:])[0, :, 0].tolist() == [255, 0]


def test_thirty_two_bits():
    assert grey(np.array([[0, 32_768, 65_535]], np.int32))[0].tolist() == [0, 128, 255]
    assert grey(np.array([[-5, 1_500_000, 2_000_000]], np.int32))[0].tolist() == [0, 191, 255]


def test_floats():
    assert grey(np.array([[0, 0.5, 1.0]], np.float32))[0].tolist() == [0, 128, 255]
    assert grey(np.array([[0, 100, 200]], np.float32))[0].tolist() == [0, 100, 200]
    assert grey(np.array([[0, 32_768, 65_535]], np.float32))[0].tolist() == [0, 128, 255]
    assert grey(np.array([[-1, 1.5e6, 2e6]], np.float32))[0].tolist() == [0, 191, 255]
    assert grey(np.array([[np.nan, np.inf, -np.inf, 1.0]], np.float32))[0].tolist() == [0, 0, 0, 255]
    assert (grey(np.zeros((2, 2), np.float32)) == 0).all()


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])  # Pillow writes JPEGs as Adobe does: with inverted inks
def test_cmyk(format):
    inks = [(0, 0, 0, 0), (0, 0, 0, 255), (255, 0, 0, 0), (0, 255, 255, 0)]
    colours = [[255, 255, 255], [0, 0, 0], [0, 255, 255], [255, 0, 0]]
    for ink, colour in zip(inks, colours, strict=True):
        pixels = decode(Image.new("CMYK", (16, 16), ink), format)
        assert abs(pixels[8, 8].astype(int) - colour).max() <= 3, ink


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    shown = np.concatenate([CORNERS, CORNERS[:, :1]], 1)  # 2 × 3: the size tells rotations from reflections
    store = {  # what a camera stores for the scene `shown`
        1: lambda scene: scene,
        2: lambda scene: scene[:, ::-1],
        3: lambda scene: scene[::-1, ::-1],
        4: lambda scene: scene[::-1],
        5: lambda scene: scene.transpose(1, 0, 2),
        6: lambda scene: np.rot90(scene, 1),  # held upright, the sensor saw it turned to the left
        7: lambda scene: scene[::-1, ::-1].transpose(1, 0, 2),
        8: lambda scene: np.rot90(scene, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(store[orientation](shown)))
    assert (decode(image, exif=exif) == shown).all()


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_is_applied_once_in_every_format(format):
    exif = Image.Exif()
    exif[0x0112] = 6
    scene = CORNERS.repeat(16, 0).repeat(24, 1)
    data = encode(Image.fromarray(np.ascontiguousarray(np.rot90(scene))), format, exif=exif)
    pixels = decode(data).astype(int)
    assert pixels.shape == scene.shape
    assert abs(pixels[8::16, 12::24] - CORNERS).max() < 60


@pytest.mark.parametrize(
    "exif", [b"", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x01\x01\x12", b"\0" * 99]
)
def test_broken_exif_does_not_spoil_the_picture(exif):
    exif = b"Exif\0\0" + exif
    assert decode(Image.new("RGB", (8, 8), "white"), "JPEG", exif=exif).min() >= 254


# Photographs


@pytest.mark.skipif(not PHOTOS, reason="../shared/photos is not here")
@pytest.mark.parametrize("path", PHOTOS[::67], ids=lambda path: path.stem)
def test_photographs(path):
    image = load_image(str(path))
    with Image.open(path) as original:
        assert (np.asarray(image) == np.asarray(original.convert("RGB"))).all()
    assert min(image.size) >= 200 and np.asarray(image).std() > 10


@pytest.mark.skipif(not EXAMPLES, reason="no photos in examples/")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples(path):
    image = load_image(str(path))
    assert min(image.size) >= 200 and np.asarray(image).std() > 10
