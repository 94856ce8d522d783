import io
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from keras_bit.data.images import decode_image, read_image_size, try_read
from tests.image_files import png_chunk


def first_pixel(image):
    return tuple(int(value) for value in image[0, 0])


# (mode, color, file name, what the first pixel must become)
COLORS = [
    ("RGB", (10, 200, 30), "a.png", (10, 200, 30)),
    ("RGB", (10, 200, 30), "a.bmp", (10, 200, 30)),
    ("L", 77, "a.png", (77, 77, 77)),
    ("L", 77, "a.jpg", (77, 77, 77)),
    ("1", 1, "a.png", (255, 255, 255)),
    ("1", 0, "a.bmp", (0, 0, 0)),
    ("LA", (0, 128), "a.png", (127, 127, 127)),
    ("LA", (90, 255), "a.png", (90, 90, 90)),
    ("RGBA", (255, 0, 0, 255), "a.png", (255, 0, 0)),
    ("RGBA", (255, 0, 0, 128), "a.png", (255, 127, 127)),
    ("RGBA", (0, 0, 0, 0), "a.png", (255, 255, 255)),
    ("I;16", 0x8012, "a.png", (0x80, 0x80, 0x80)),
    ("I;16", 0xFFFF, "a.png", (255, 255, 255)),
]


@pytest.mark.parametrize(("mode", "color", "name", "expected"), COLORS)
def test_every_mode_becomes_rgb(tmp_path, mode, color, name, expected):
    Image.new(mode, (16, 8), color).save(tmp_path / name)
    image = decode_image(tmp_path / name)
    assert image.dtype == np.uint8
    assert image.shape == (8, 16, 3)
    assert (image == expected).all()


# By hand: red = 255 * (1 - cyan) * (1 - black), and so on.
@pytest.mark.parametrize(
    ("cmyk", "expected"),
    [
        ((0, 255, 255, 0), (255, 0, 0)),
        ((255, 0, 255, 0), (0, 255, 0)),
        ((0, 0, 0, 0), (255, 255, 255)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0, 255, 255, 128), (127, 0, 0)),
    ],
)
def test_cmyk_jpeg(tmp_path, cmyk, expected):
    Image.new("CMYK", (16, 16), cmyk).save(tmp_path / "a.jpg", quality=100)
    difference = decode_image(tmp_path / "a.jpg").astype(int) - expected
    assert np.abs(difference).max() <= 3


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_transparent_palette_lies_on_white(tmp_path, name):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([9, 8, 7, 200, 10, 20])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / name, transparency=0)
    pixels = decode_image(tmp_path / name)
    assert first_pixel(pixels) == (255, 255, 255)
    assert first_pixel(pixels[1:]) == (200, 10, 20)


@pytest.mark.parametrize(
    ("mode", "clear", "other", "expected"),
    [
        ("L", 5, 6, (6, 6, 6)),
        ("RGB", (1, 2, 3), (1, 2, 4), (1, 2, 4)),
        ("I;16", 0x0501, 0x0502, (5, 5, 5)),
    ],
)
def test_transparent_color_lies_on_white(tmp_path, mode, clear, other, expected):
    image = Image.new(mode, (4, 4), other)
    image.putpixel((0, 0), clear)
    image.save(tmp_path / "a.png")
    opaque = (tmp_path / "a.png").read_bytes()
    assert first_pixel(decode_image(tmp_path / "a.png")) != (255, 255, 255)
    values = np.atleast_1d(clear).astype(">u2").tobytes()
    pixels_at = opaque.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(
        opaque[:pixels_at] + png_chunk(b"tRNS", values) + opaque[pixels_at:]
    )
    pixels = decode_image(tmp_path / "a.png")
    assert first_pixel(pixels) == (255, 255, 255)
    assert first_pixel(pixels[1:]) == expected


def test_gif_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (decode_image(tmp_path / "a.gif") == (255, 0, 0)).all()
    assert read_image_size(tmp_path / "a.gif") == (4, 6)


def test_multi_picture_jpeg_gives_its_first_picture(tmp_path):
    frames = [Image.new("RGB", (16, 16), value) for value in ("white", "black")]
    frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert (decode_image(tmp_path / "a.jpg") == 255).all()


ORIENTATIONS = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels, 1),
}


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation(tmp_path, orientation, suffix):
    stored = np.random.RandomState(0).randint(0, 256, (3, 5, 3), np.uint8)
    stored = stored.repeat(16, axis=0).repeat(16, axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(stored).save(path, exif=exif, **({} if suffix == ".png" else {"quality": 100}))
    expected = ORIENTATIONS[orientation](np.asarray(Image.open(path)))
    assert np.array_equal(decode_image(path), expected)
    assert read_image_size(path) == expected.shape[:2]


@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*\0\0", b"Exif\0\0not tiff at all", b"xx"])
def test_broken_exif_leaves_the_image_as_it_is(tmp_path, exif):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image_size(tmp_path / "a.jpg") == (10, 20)
    assert decode_image(tmp_path / "a.jpg").shape == (10, 20, 3)


@pytest.mark.parametrize(
    ("kind", "value", "turned"),
    [
        (3, struct.pack("<HH", 0, 0), False),
        (3, struct.pack("<HH", 9, 0), False),
        (2, b"6\0\0\0", False),
        (4, struct.pack("<I", 6), True),
        (11, struct.pack("<f", 6.0), True),
        (11, struct.pack("<f", 6.5), False),
    ],
)
def test_odd_orientation_values(tmp_path, kind, value, turned):
    entry = struct.pack("<HHI", 0x0112, kind, 2 if kind == 2 else 1) + value
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    expected = (20, 10) if turned else (10, 20)
    assert read_image_size(tmp_path / "a.jpg") == expected
    assert decode_image(tmp_path / "a.jpg").shape[:2] == expected


@pytest.fixture
def photograph(rng):
    """Smooth colors with noise, of odd edges: padded blocks and subsampled chroma count."""
    smooth = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).resize((61, 43))
    noise = rng.integers(-20, 21, (43, 61, 3))
    return Image.fromarray((np.asarray(smooth) + noise).clip(0, 255).astype(np.uint8))


JPEG_OPTIONS = [
    {"subsampling": "4:4:4"},
    {"subsampling": "4:2:2"},
    {"subsampling": "4:2:0"},
    {"subsampling": "4:2:0", "progressive": True},
    {"quality": 30, "restart_marker_blocks": 2},
    {"quality": 95, "optimize": True, "keep_rgb": True},
]


@pytest.mark.tensorflow
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", JPEG_OPTIONS)
@pytest.mark.parametrize("in_memory", [True, False])
def test_jpeg_files_decode_to_the_same_pixels_with_and_without_tensorflow(
    photograph, tmp_path, monkeypatch, mode, options, in_memory
):
    tensorflow = pytest.importorskip("tensorflow")
    path = tmp_path / "a.jpg"
    photograph.convert(mode).save(path, **options)
    calls = []
    decode = tensorflow.io.decode_jpeg
    monkeypatch.setattr(
        tensorflow.io, "decode_jpeg", lambda *a, **k: calls.append(1) or decode(*a, **k)
    )
    pixels = decode_image(io.BytesIO(path.read_bytes()) if in_memory else path)
    assert calls == [1]
    np.testing.assert_array_equal(pixels, Image.open(path).convert("RGB"))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    np.testing.assert_array_equal(decode_image(path), pixels)
    assert calls == [1]


@pytest.mark.tensorflow
def test_truncated_jpeg_files_are_refused_with_tensorflow_too(photograph, tmp_path):
    pytest.importorskip("tensorflow")
    path = tmp_path / "a.jpg"
    photograph.save(path)
    path.write_bytes(path.read_bytes()[:-200])
    image, reason = try_read(decode_image, path)
    assert image is None and "truncated" in reason
