import io
import os
import struct
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageFile, features

from keras_bit.data import images
from keras_bit.data.images import (
    _formats,
    decode_image,
    is_damaged,
    read_image_size,
    try_read,
    try_transform,
)
from keras_bit.data.threads import Budget
from tests.image_files import encoded_image, png_chunk

WEBP = pytest.param(
    "a.webp", marks=pytest.mark.skipif(not features.check("webp"), reason="no WebP")
)


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
    ("RGB", (10, 200, 30), "a.tiff", (10, 200, 30)),
    ("L", 77, "a.tiff", (77, 77, 77)),
    ("1", 1, "a.tiff", (255, 255, 255)),
    ("LA", (0, 128), "a.tiff", (127, 127, 127)),
    ("RGBA", (255, 0, 0, 128), "a.tiff", (255, 127, 127)),
    ("I;16", 0x8012, "a.tiff", (0x80, 0x80, 0x80)),
    ("I;16B", 0xFF12, "a.tiff", (255, 255, 255)),
    ("CMYK", (0, 255, 255, 0), "a.tiff", (255, 0, 0)),
    ("CMYK", (0, 255, 255, 128), "a.tiff", (127, 0, 0)),
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


@pytest.mark.parametrize(("mode", "color"), [("RGB", (10, 200, 30)), ("RGBA", (255, 0, 0, 128))])
@pytest.mark.parametrize("name", [WEBP])
def test_webp(tmp_path, mode, color, name):
    Image.new(mode, (16, 8), color).save(tmp_path / name, lossless=True)
    image = decode_image(tmp_path / name)
    assert image.dtype == np.uint8 and image.shape == (8, 16, 3)
    assert (image == ((10, 200, 30) if mode == "RGB" else (255, 127, 127))).all()
    assert read_image_size(tmp_path / name) == (8, 16)


def palette_image():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([9, 8, 7, 200, 10, 20])
    image.putpixel((0, 0), 0)
    return image


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp", "a.tiff"])
def test_palette(tmp_path, name):
    palette_image().save(tmp_path / name)
    pixels = decode_image(tmp_path / name)
    assert first_pixel(pixels) == (9, 8, 7) and first_pixel(pixels[1:]) == (200, 10, 20)


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_transparent_palette_lies_on_white(tmp_path, name):
    palette_image().save(tmp_path / name, transparency=0)
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


@pytest.mark.parametrize("name", ["a.tiff", WEBP])
def test_of_several_pages_or_frames_the_first_one_is_taken(tmp_path, name):
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue")]
    options = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    with Image.open(tmp_path / name) as image:
        assert image.n_frames == 2
    assert (decode_image(tmp_path / name) == (255, 0, 0)).all()
    assert read_image_size(tmp_path / name) == (4, 6)


COMPRESSIONS = ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_tiff_compressions(photograph, tmp_path, compression):
    options = {"quality": 100} if compression == "jpeg" else {}
    photograph.save(tmp_path / "a.tiff", compression=compression, **options)
    difference = decode_image(tmp_path / "a.tiff").astype(int) - np.asarray(photograph)
    assert np.abs(difference).max() <= (60 if compression == "jpeg" else 0)
    assert np.abs(difference).mean() < 4


def gray_tiff(values, bits, photometric):
    """A little-endian TIFF file of one strip, written by hand."""
    height, width = np.shape(values)
    if bits == 12:  # two values in three bytes, the first one's high byte first
        pairs = np.reshape(values, (-1, 2)).astype(int)
        first, second = pairs.T
        parts = [first >> 4, (first & 15) << 4 | second >> 8, second & 255]
        pixels = np.stack(parts, axis=1).astype(np.uint8).tobytes()
    else:
        pixels = np.asarray(values, "<u2").tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: 1, 278: height}
    tags |= {273: 8, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory


# By hand: the high 8 bits, 0xABCD -> 0xAB, 0x12 -> 0; of 12 bits 0xABC -> 0xAB; inverted 255 - x.
@pytest.mark.parametrize(
    ("values", "bits", "photometric", "expected"),
    [
        ([[0xABCD, 0x0012]], 16, 1, [0xAB, 0]),
        ([[0xABCD, 0x0012]], 16, 0, [0x54, 255]),
        ([[0xABC, 0x012]], 12, 1, [0xAB, 1]),
    ],
)
def test_deep_gray_tiff(values, bits, photometric, expected):
    source = io.BytesIO(gray_tiff(values, bits, photometric))
    assert Image.open(source).mode == "I;16"
    assert decode_image(source)[0].tolist() == [[value] * 3 for value in expected]


def test_premultiplied_gray_tiff(tmp_path):
    Image.new("LA", (4, 3), (64, 128)).save(tmp_path / "a.tiff")
    content = (tmp_path / "a.tiff").read_bytes()
    straight, premultiplied = (struct.pack("<HHIHH", 338, 3, 1, kind, 0) for kind in (2, 1))
    assert content.count(straight) == 1
    source = io.BytesIO(content.replace(straight, premultiplied))
    if try_read(read_image_size, source)[0] is None:
        pytest.skip("this Pillow does not read such files")
    assert Image.open(source).mode == "La"
    # By hand: 64 has been multiplied already; of white comes half.
    assert np.abs(decode_image(source).astype(int) - (64 + 127)).max() <= 1


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_pixels_without_a_known_white_are_refused(tmp_path, mode):
    Image.new(mode, (4, 3)).save(tmp_path / "a.tiff")
    for read in (read_image_size, decode_image):
        assert try_read(read, tmp_path / "a.tiff") == (
            None,
            f"pixels of Pillow's mode {mode!r}; save it with 8 bits a channel",
        )


@pytest.mark.parametrize("name", ["a.tiff", WEBP])
def test_truncated_files_are_refused(photograph, tmp_path, name):
    path = tmp_path / name
    photograph.save(path)
    whole = path.read_bytes()
    for length in (0, 1, 8, 12, 30, 100, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:length])
        for source in (path, io.BytesIO(whole[:length])):
            image, reason = try_read(decode_image, source)
            assert image is None and reason, length


@pytest.mark.parametrize("name", ["a.tiff", WEBP])
def test_damaged_files_never_crash(photograph, tmp_path, rng, name):
    photograph.save(tmp_path / name)
    whole = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
    for _ in range(150):
        damaged = whole.copy()
        places = rng.integers(0, rng.choice([40, len(whole)]), 3)
        damaged[places] = rng.integers(0, 256, 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on what it can still read
            size, _ = try_read(read_image_size, io.BytesIO(damaged))
            image, reason = try_read(decode_image, io.BytesIO(damaged))
        assert reason if image is None else image.shape[:2] == size


def test_warnings_that_are_made_errors_are_reasons(photograph, tmp_path):
    photograph.save(tmp_path / "a.tiff", description="x" * 100)
    whole = (tmp_path / "a.tiff").read_bytes()
    (start,) = struct.unpack("<I", whole[4:8])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image, reason = try_read(decode_image, io.BytesIO(whole[: start + 14]))
    assert image is None and reason


@pytest.mark.parametrize("width", [2**14 - 1, 60_000])
def test_decompression_bombs(width):
    tags = {256: width, 257: 60_000, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 60_000, 279: 1}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    source = io.BytesIO(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4))
    for read in (read_image_size, decode_image):
        image, reason = try_read(read, source)
        assert image is None and reason.startswith(f"Image size ({width * 60_000} pixels)")
        assert reason.endswith("Raise `PIL.Image.MAX_IMAGE_PIXELS` to read it")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.bmp", "a.tiff", WEBP])
def test_images_of_more_than_twice_pillow_s_limit_are_refused(tmp_path, monkeypatch, name):
    Image.new("RGB", (20, 10), "red").save(tmp_path / name)
    readers = (read_image_size, decode_image)
    for limit in (None, 200, 100):  # Pillow warns above 100, and raises above 200
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert [try_read(read, tmp_path / name)[1] for read in readers] == [None, None]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 99)
    monkeypatch.setattr(images, "_decode_jpeg", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(images, "_pillow_pixels", lambda *_: pytest.fail("decoded"))
    for read in readers:
        assert "(200 pixels) exceeds limit of 198 pixels" in try_read(read, tmp_path / name)[1]


def most_at_once(pixels, monkeypatch, budget, awaited=1):
    """How many of six images are transformed at the same time, with six threads.

    Each waits until there have been as many as are `awaited`, and a while for more.
    """
    monkeypatch.setattr(images, "_pixel_budget", Budget(budget))
    content, changed, inside, most = encoded_image(0, pixels), threading.Condition(), [0], [0]

    def transform(_):
        with changed:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            changed.notify_all()
            changed.wait_for(lambda: most[0] >= awaited, timeout=30)
        time.sleep(0.02)
        with changed:
            inside[0] -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: try_transform(io.BytesIO(content), transform), range(6)))
    return most[0]


def test_threads_hold_a_bounded_number_of_pixels(monkeypatch):
    assert most_at_once((30, 10), monkeypatch, budget=299) == 1  # larger than all that is there
    assert most_at_once((30, 10), monkeypatch, budget=599) == 1
    assert most_at_once((30, 10), monkeypatch, budget=800, awaited=2) == 2
    assert most_at_once((30, 10), monkeypatch, budget=10_000, awaited=3) > 2


def test_what_fails_gives_its_room_back(monkeypatch):
    monkeypatch.setattr(images, "_pixel_budget", Budget(200))

    def fail(_):
        raise ZeroDivisionError

    cut = encoded_image(0, (10, 20))[:-40]
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):  # of the transform, not of the image
            try_transform(io.BytesIO(encoded_image(0, (10, 20))), fail)
        assert try_transform(io.BytesIO(cut), fail)[1]
    assert images._pixel_budget._left == 200


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    sources = [tmp_path / "pipe.png", str(tmp_path / "pipe.png"), "/dev/zero", tmp_path]
    for source in sources:
        for read in (read_image_size, decode_image):
            assert try_read(read, source) == (None, "not a regular file")
    Image.new("RGB", (5, 4)).save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    assert read_image_size(tmp_path / "link.png") == (4, 5)
    gone = try_read(read_image_size, tmp_path / "nowhere.png")
    assert gone == (None, "No such file or directory")


def test_without_webp_in_pillow_its_files_are_listed(monkeypatch):
    from PIL import WebPImagePlugin

    monkeypatch.setattr(WebPImagePlugin, "SUPPORTED", False)
    _formats.cache_clear()
    try:
        content = b"RIFF\x1a\0\0\0WEBPVP8L" + bytes(20)
        reason = "not a readable JPEG, PNG, BMP, GIF, WebP or TIFF image"
        assert try_read(decode_image, io.BytesIO(content)) == (None, reason)
    finally:
        _formats.cache_clear()


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


LOSSLESS = {".png": {}, ".jpg": {"quality": 100}, ".webp": {"lossless": True}, ".tiff": {}}


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tiff", WEBP])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation(tmp_path, orientation, name, in_memory):
    stored = np.random.RandomState(0).randint(0, 256, (3, 5, 3), np.uint8)
    stored = stored.repeat(16, axis=0).repeat(16, axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / name
    Image.fromarray(stored).save(path, exif=exif, **LOSSLESS[path.suffix])
    # Pillow turns TIFF images when it loads them.
    with Image.open(path) as image:
        pixels = stored if path.suffix == ".tiff" else np.asarray(image)
    expected = ORIENTATIONS[orientation](pixels)
    source = io.BytesIO(path.read_bytes()) if in_memory else path
    assert np.array_equal(decode_image(source), expected)
    assert read_image_size(source) == expected.shape[:2]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_of_a_compressed_tiff(tmp_path, rng, orientation):
    stored = rng.integers(0, 256, (5, 9, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.tiff", exif=exif, compression="tiff_lzw")
    expected = ORIENTATIONS[orientation](stored)
    assert np.array_equal(decode_image(tmp_path / "a.tiff"), expected)
    assert read_image_size(tmp_path / "a.tiff") == expected.shape[:2]


@pytest.mark.parametrize("name", ["a.tiff", WEBP])
def test_an_orientation_in_xmp_counts_for_both_or_for_none(tmp_path, rng, name):
    tag = b'<rdf:Description tiff:Orientation="6"/>'  # which versions of Pillow find or do not
    options = {"tiffinfo": {700: tag}} if name == "a.tiff" else {"lossless": True, "xmp": tag}
    stored = rng.integers(0, 256, (5, 9, 3), np.uint8)
    Image.fromarray(stored).save(tmp_path / name, **options)
    turned = read_image_size(tmp_path / name) == (9, 5)
    expected = ORIENTATIONS[6](stored) if turned else stored
    assert np.array_equal(decode_image(tmp_path / name), expected)


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


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", JPEG_OPTIONS)
@pytest.mark.parametrize("in_memory", [True, False])
def test_jpeg_pixels_are_those_of_pillow(photograph, tmp_path, mode, options, in_memory):
    path = tmp_path / "a.jpg"
    photograph.convert(mode).save(path, **options)
    pixels = decode_image(io.BytesIO(path.read_bytes()) if in_memory else path)
    np.testing.assert_array_equal(pixels, Image.open(path).convert("RGB"))


@pytest.fixture
def jpeg(rng):
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (160, 200, 3), np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def scan_start(jpeg):
    start = jpeg.rindex(b"\xff\xda") + 2
    return start + int.from_bytes(jpeg[start : start + 2], "big")


def pillow_pixels(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def both(jpeg):
    """Whether `damaged="skip"` skips, the pixels of `"keep"`, and what is wrong of them."""
    kept, reason = try_transform(io.BytesIO(jpeg), np.copy, "keep")
    skipped = try_transform(io.BytesIO(jpeg), np.copy)
    assert skipped[1] == reason and (skipped[0] is None) == bool(reason)
    return kept, reason


@pytest.mark.tensorflow
def test_damage_is_what_libjpeg_warns_of(jpeg, rng, capfd):
    tensorflow = pytest.importorskip("tensorflow")
    start, found = scan_start(jpeg), []
    for _ in range(40):
        damaged = np.frombuffer(jpeg, np.uint8).copy()
        damaged[rng.integers(start, len(jpeg) - 2, 2)] = rng.integers(0, 256, 2)
        content = damaged.tobytes()
        capfd.readouterr()
        expected = tensorflow.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
        said = capfd.readouterr().err  # TensorFlow's libjpeg warns there, and continues
        pixels, reason = both(content)
        np.testing.assert_array_equal(pixels, expected)
        assert (reason is not None) == bool(said)
        assert reason is None or is_damaged(reason) and reason.split(": ", 2)[2] in said
        found.append(reason is not None)
    assert 10 < sum(found) < 40


@pytest.mark.parametrize("left", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_files_cut_short_are_damaged(photograph, monkeypatch, left, progressive):
    buffer = io.BytesIO()
    photograph.save(buffer, "JPEG", progressive=progressive, quality=90)
    whole = buffer.getvalue()
    start = whole.index(b"\xff\xda") + 14  # of several scans the first
    cut = whole[: start + int(left * (len(whole) - start))]
    pixels, reason = both(cut)
    assert reason == "damaged JPEG: Premature end of JPEG file"
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    np.testing.assert_array_equal(pixels, pillow_pixels(cut))
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    pixels, reason = both(whole[: start - 20])  # in the header
    assert pixels is None and not is_damaged(reason)


def with_header_faults(jpeg):
    """The same image in files that libjpeg warns of, though no pixel is in doubt."""
    start = jpeg.index(b"JFIF\0") + 5
    revision = jpeg[:start] + b"\7" + jpeg[start + 1 :]
    icc = b"\xff\xe2\0\x12ICC_PROFILE\0\5\1xx"  # part five of one
    scan = scan_start(jpeg)
    yield revision, "JFIF"
    yield jpeg[:20] + icc + jpeg[20:], "ICC"
    yield jpeg[: scan - 3] + b"\1\2\3" + jpeg[scan:], "SOS"
    yield revision[: scan - 3] + b"\1\2\3" + jpeg[scan:], "all"


def test_harmless_warnings_make_no_file_damaged_and_hide_no_damage(jpeg):
    for faulty, what in with_header_faults(jpeg):
        with pytest.raises(ValueError):
            simplejpeg.decode_jpeg(faulty)
        pixels, reason = both(faulty)
        assert reason is None, what
        np.testing.assert_array_equal(pixels, pillow_pixels(jpeg))
        middle = len(faulty) // 2
        hurt = faulty[:middle] + b"\xff\xd9" + faulty[middle:]
        assert both(hurt)[1] == (
            "damaged JPEG: Corrupt JPEG data: premature end of data segment"
        ), what


def test_doubtful_headers_are_damaged(jpeg):
    stray = jpeg[:20] + b"\1\2\3" + jpeg[20:]
    pixels, reason = both(stray)
    assert "3 extraneous bytes before marker" in reason
    np.testing.assert_array_equal(pixels, pillow_pixels(jpeg))
