import io
import itertools
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from keras_bit.data import sources
from keras_bit.data.sources import ImageDataset, decode_image, image_folder, read_image_size

FIXED_TIME = 1_600_000_000_000_000_000


def make_folder(root, counts, size=(12, 10), names=None):
    """Class folders with `counts[name]` PNG files whose grey value is the image's number."""
    for label, count in counts.items():
        folder = root / label
        folder.mkdir(parents=True)
        for index in names or range(count):
            path = folder / f"{index:02d}.png"
            Image.new("RGB", size, (index, index, index)).save(path)
            os.utime(path, ns=(FIXED_TIME, FIXED_TIME))
    return root


def relative_names(split, root):
    return [os.path.relpath(name, root).replace(os.sep, "/") for name in split.names]


def png_chunk(kind, data):
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def png_header(width, height):
    """A PNG file that is all header: its pixels never come."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"\0\0\0\0IDAT"


def first_pixel(image):
    return tuple(int(value) for value in image[0, 0])


@pytest.fixture(autouse=True)
def two_workers(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


# (mode, colour, file name, what the first pixel must become)
COLOURS = [
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


@pytest.mark.parametrize(("mode", "colour", "name", "expected"), COLOURS)
def test_every_mode_becomes_rgb(tmp_path, mode, colour, name, expected):
    Image.new(mode, (16, 8), colour).save(tmp_path / name)
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
def test_transparent_colour_lies_on_white(tmp_path, mode, clear, other, expected):
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
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
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


def test_folder_of_classes(tmp_path):
    make_folder(tmp_path, {"dog": 10, "cat": 25, "ant": 4})
    data = image_folder(tmp_path, validation_split=0.2)
    assert data.label_names == ("ant", "cat", "dog")
    assert data.num_classes == 3
    assert data.image_size == (10, 12)
    assert data.left_out == ()
    # By hand: 4 * 0.2 = 0.8 -> 1, 25 * 0.2 = 5, 10 * 0.2 = 2.
    assert np.bincount(data.test.labels).tolist() == [1, 5, 2]
    assert np.bincount(data.train.labels).tolist() == [3, 20, 8]
    assert (data.train_size, data.test_size) == (31, 8)
    assert data.train.labels.dtype == np.int32
    everything = sorted(str(path) for path in tmp_path.glob("*/*.png"))
    assert sorted(data.train.names + data.test.names) == everything
    for split in (data.train, data.test):
        for name, label in zip(split.names, split.labels, strict=True):
            assert name.split(os.sep)[-2] == data.label_names[label]


def test_each_class_keeps_an_image_on_both_sides(tmp_path):
    make_folder(tmp_path, {"a": 2, "b": 3})
    for fraction in (0.01, 0.99):
        data = image_folder(tmp_path, validation_split=fraction)
        assert set(data.train.labels) == set(data.test.labels) == {0, 1}


def test_image_size_is_the_median_of_heights_and_of_widths(tmp_path):
    sizes = [(10, 100), (20, 90), (30, 10), (41, 20)]
    make_folder(tmp_path / "test", {"a": 1, "b": 1}, size=(500, 500))
    for label in "ab":
        (tmp_path / "train" / label).mkdir(parents=True)
        for index, (height, width) in enumerate(sizes):
            Image.new("L", (width, height)).save(tmp_path / "train" / label / f"{index}.bmp")
    # By hand: heights 10 20 30 41 -> 25, widths 10 20 90 100 -> 55.
    assert image_folder(tmp_path).image_size == (25, 55)


def test_split_is_the_same_everywhere(tmp_path):
    make_folder(tmp_path, {"a": 10, "b": 10})
    data = image_folder(tmp_path, validation_split=0.3, seed=7)
    expected = ["a/05.png", "a/07.png", "a/09.png", "b/04.png", "b/06.png", "b/07.png"]
    assert relative_names(data.test, tmp_path) == expected


def test_split_does_not_depend_on_the_listing_order(tmp_path, monkeypatch):
    first = make_folder(tmp_path / "one", {"a": 9, "b": 9})
    second = make_folder(tmp_path / "two", {"b": 9, "a": 9}, names=range(8, -1, -1))
    one = image_folder(first, validation_split=0.3, seed=3)
    listed = os.scandir

    class Reversed:
        def __init__(self, folder):
            self.listing = listed(folder)

        def __enter__(self):
            return reversed(list(self.listing))

        def __exit__(self, *error):
            self.listing.close()

    monkeypatch.setattr(os, "scandir", Reversed)
    two = image_folder(second, validation_split=0.3, seed=3)
    assert relative_names(one.train, first) == relative_names(two.train, second)
    assert relative_names(one.test, first) == relative_names(two.test, second)
    assert one.train.fingerprint == two.train.fingerprint
    assert one.test.fingerprint == two.test.fingerprint


def test_seed_chooses_the_split(tmp_path):
    make_folder(tmp_path, {"a": 20, "b": 20})
    runs = [image_folder(tmp_path, validation_split=0.3, seed=seed) for seed in (0, 0, 1)]
    assert runs[0].test.names == runs[1].test.names
    assert runs[0].train.fingerprint == runs[1].train.fingerprint
    assert runs[0].test.names != runs[2].test.names
    assert runs[0].train.fingerprint != runs[2].train.fingerprint


@pytest.mark.parametrize("test_name", ["test", "validation", "valid", "val", "Test"])
def test_train_and_test_folders(tmp_path, test_name):
    make_folder(tmp_path / "train", {"a": 5, "b": 4})
    make_folder(tmp_path / test_name, {"a": 2, "b": 3})
    data = image_folder(tmp_path, validation_split=0.5)
    assert np.bincount(data.train.labels).tolist() == [5, 4]
    assert np.bincount(data.test.labels).tolist() == [2, 3]
    assert all(name.startswith(str(tmp_path / test_name)) for name in data.test.names)
    assert data.label_names == ("a", "b")


def test_folder_beside_train_and_test_is_reported(tmp_path):
    for side in ("train", "test", "val"):
        make_folder(tmp_path / side, {"a": 1, "b": 1})
    with pytest.warns(UserWarning, match="Left out: 1,"):
        data = image_folder(tmp_path)
    assert [name for name, _ in data.left_out] == [str(tmp_path / "val")]
    assert data.test.names[0].startswith(str(tmp_path / "test"))


def test_train_and_test_must_hold_the_same_classes(tmp_path):
    make_folder(tmp_path / "train", {"a": 1, "b": 1, "c": 1})
    make_folder(tmp_path / "test", {"a": 1, "b": 1, "d": 1})
    with pytest.raises(ValueError, match=r"\['c'\] only in .*train, \['d'\] only in .*test"):
        image_folder(tmp_path)


def test_few_per_class(tmp_path):
    make_folder(tmp_path, {"a": 12, "b": 8})
    whole = image_folder(tmp_path, validation_split=0.25, seed=5)
    chosen = {}
    for count in (1, 3, 6):
        data = image_folder(tmp_path, validation_split=0.25, seed=5, examples_per_class=count)
        assert np.bincount(data.train.labels).tolist() == [count, count]
        assert data.test.names == whole.test.names
        chosen[count] = set(data.train.names)
    assert chosen[1] < chosen[3] < chosen[6] < set(whole.train.names)
    other = image_folder(tmp_path, validation_split=0.25, seed=6, examples_per_class=3)
    assert set(other.train.names) != chosen[3]
    with pytest.raises(ValueError, match="`examples_per_class` .* 'b' with 6 training images"):
        image_folder(tmp_path, validation_split=0.25, examples_per_class=7)


def test_few_per_class_with_a_test_folder(tmp_path):
    make_folder(tmp_path / "train", {"a": 5, "b": 5})
    make_folder(tmp_path / "test", {"a": 3, "b": 3})
    data = image_folder(tmp_path, examples_per_class=2)
    assert (data.train_size, data.test_size) == (4, 6)


def test_what_is_no_image_is_left_out_and_reported_once(tmp_path):
    make_folder(tmp_path, {"a": 3, "b": 3})
    folder = tmp_path / "a"
    (folder / "notes.jpg").write_text("no image")
    (folder / "empty.png").touch()
    (folder / "flat.png").write_bytes(png_header(0, 7))
    (folder / "bomb.png").write_bytes(png_header(60_000, 60_000))
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "round.png").symlink_to(folder / "round.png")
    os.mkfifo(folder / "pipe.png")
    Image.new("RGB", (9, 9)).save(folder / "other.tiff")
    Image.new("RGB", (9, 9)).save(tmp_path / "stray.png")
    (tmp_path / "labels.csv").write_text("a,b")
    for hidden in (".DS_Store", "Thumbs.db", "desktop.ini", "._00.png"):
        (folder / hidden).write_bytes(b"\0")
    (tmp_path / ".git").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    with pytest.warns(UserWarning, match="Left out: 9, .*; ...") as caught:
        data = image_folder(tmp_path)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    reasons = {os.path.basename(name): reason for name, reason in data.left_out}
    assert reasons.pop("bomb.png").startswith("Image size (3600000000 pixels) exceeds limit")
    assert reasons == {
        "empty.png": "empty file",
        "flat.png": "not a readable JPEG, PNG, BMP or GIF image",
        "gone.png": "No such file or directory",
        "notes.jpg": "not a readable JPEG, PNG, BMP or GIF image",
        "other.tiff": "not a readable JPEG, PNG, BMP or GIF image",
        "pipe.png": "not a regular file",
        "round.png": "Too many levels of symbolic links",
        "stray.png": "outside the class folders",
    }
    assert data.label_names == ("a", "b")
    assert data.train_size + data.test_size == 6


def test_min_edge(tmp_path):
    make_folder(tmp_path, {"a": 3, "b": 3}, size=(120, 96))
    for name, size in (("low.png", (200, 95)), ("narrow.png", (95, 200)), ("fits.png", (96, 96))):
        Image.new("L", size).save(tmp_path / "b" / name)
    with pytest.warns(UserWarning, match="Left out: 2,"):
        data = image_folder(tmp_path, min_edge=96)
    assert data.left_out == (
        (str(tmp_path / "b" / "low.png"), "95x200 pixels, an edge below min_edge=96"),
        (str(tmp_path / "b" / "narrow.png"), "200x95 pixels, an edge below min_edge=96"),
    )
    assert data.train_size + data.test_size == 7
    assert image_folder(tmp_path).left_out == ()


def test_only_headers_are_read(tmp_path, monkeypatch):
    make_folder(tmp_path, {"a": 2, "b": 2})
    for suffix in ("jpg", "gif", "bmp"):
        Image.new("RGB", (12, 10)).save(tmp_path / "a" / f"x.{suffix}")

    def load(image):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert image_folder(tmp_path).train_size == 5


def test_images_are_told_by_content_not_by_name(tmp_path):
    make_folder(tmp_path, {"a": 2, "b": 2})
    for index, path in enumerate(sorted(tmp_path.glob("a/*.png"))):
        path.rename(path.with_suffix((".jpg", "")[index]))
    data = image_folder(tmp_path)
    assert (data.train_size, data.test_size, data.left_out) == (2, 2, ())


def test_images_in_folders_below_a_class_folder(tmp_path):
    make_folder(tmp_path / "a", {"first": 2, "second": 2})
    make_folder(tmp_path, {"b": 4})
    (tmp_path / "a" / "first" / "loop").symlink_to(tmp_path / "a")
    data = image_folder(tmp_path)
    assert (np.bincount(data.train.labels) + np.bincount(data.test.labels)).tolist() == [4, 4]


def test_linked_class_folder(tmp_path):
    make_folder(tmp_path / "elsewhere", {"a": 2})
    make_folder(tmp_path / "photos", {"b": 2})
    (tmp_path / "photos" / "a").symlink_to(tmp_path / "elsewhere" / "a")
    assert image_folder(tmp_path / "photos").train.labels.tolist() == [0, 1]


def test_folder_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="`path`"):
        image_folder(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="`path`"):
        image_folder(tmp_path / "file")
    with pytest.raises(ValueError, match="no folder in it"):
        image_folder(tmp_path)
    make_folder(tmp_path, {"cat": 3})
    with pytest.raises(ValueError, match="only the folder 'cat'"):
        image_folder(tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(ValueError, match=r"dog with none, and 0 files left out$"):
        image_folder(tmp_path)
    (tmp_path / "dog" / "a.png").write_text("x")
    with pytest.raises(ValueError, match=r"dog with none, and 1 files .* not a readable JPEG"):
        image_folder(tmp_path)
    Image.new("L", (9, 9)).save(tmp_path / "dog" / "a.png")
    with pytest.raises(ValueError, match="two images.*'dog' with one"):
        image_folder(tmp_path)
    with pytest.raises(ValueError, match="dog with none, and 1 files .* below min_edge=10"):
        image_folder(tmp_path, min_edge=10)
    (tmp_path / "DOG").mkdir()
    with pytest.raises(ValueError, match="upper and lower case.*'DOG' and 'dog'"):
        image_folder(tmp_path)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("validation_split", 0),
        ("validation_split", 1.0),
        ("validation_split", float("nan")),
        ("validation_split", "a"),
        ("seed", -1),
        ("seed", 0.5),
        ("min_edge", -1),
        ("min_edge", None),
        ("examples_per_class", 0),
        ("examples_per_class", True),
    ],
)
def test_argument_errors(tmp_path, argument, value):
    make_folder(tmp_path, {"a": 2, "b": 2})
    with pytest.raises(ValueError, match=rf"`{argument}` must be .*Received: {argument}="):
        image_folder(tmp_path, **{argument: value})


def test_fingerprint_of_a_folder(tmp_path):
    make_folder(tmp_path, {"a": 4, "b": 4})

    def fingerprint():
        return image_folder(tmp_path, validation_split=0.25).train.fingerprint

    seen = {fingerprint()}
    assert seen == {fingerprint()}
    kept = image_folder(tmp_path, validation_split=0.25).train.names[0]
    os.utime(kept, ns=(FIXED_TIME, FIXED_TIME + 1))
    seen.add(fingerprint())
    with open(kept, "ab") as file:
        file.write(b"tail")
    os.utime(kept, ns=(FIXED_TIME, FIXED_TIME + 1))
    seen.add(fingerprint())
    os.rename(kept, kept[:-4] + "x.png")
    seen.add(fingerprint())
    (tmp_path / "a").rename(tmp_path / "c")
    seen.add(fingerprint())
    assert len(seen) == 5
    assert all(int(digest, 16) for digest in seen)


def test_fingerprint_does_not_depend_on_where_the_folder_lies(tmp_path):
    make_folder(tmp_path / "old", {"a": 4, "b": 4})
    before = image_folder(tmp_path / "old").train.fingerprint
    (tmp_path / "old").rename(tmp_path / "new")
    assert image_folder(tmp_path / "new").train.fingerprint == before


def test_map_yields_in_order_whatever_the_threads_do(tmp_path):
    make_folder(tmp_path, {"a": 30, "b": 30})
    split = image_folder(tmp_path).train

    def number(image):
        time.sleep(0.01 * (image[0, 0, 0] % 3))
        return int(image[0, 0, 0]), threading.current_thread() is threading.main_thread()

    expected = [(int(os.path.basename(name)[:2]), False) for name in split.names]
    assert list(split.map(number)) == expected
    assert list(split.map(number)) == expected


def test_truncated_file_is_found_by_map(tmp_path):
    make_folder(tmp_path, {"a": 4, "b": 4})
    noise = np.random.RandomState(0).randint(0, 256, (64, 48, 3), np.uint8)
    whole = tmp_path / "a" / "whole.jpg"
    Image.fromarray(noise).save(whole)
    (tmp_path / "a" / "cut.jpg").write_bytes(whole.read_bytes()[:2000])
    data = image_folder(tmp_path, validation_split=0.2, seed=0)
    assert data.left_out == ()
    index = data.train.names.index(str(tmp_path / "a" / "cut.jpg"))
    shapes = list(data.train.map(np.shape))
    assert shapes[index] is None
    assert shapes.count(None) == 1
    assert list(data.train.errors) == [index]
    assert "truncated" in data.train.errors[index]
    (tmp_path / "a" / "cut.jpg").write_bytes(whole.read_bytes())
    assert list(data.train.map(np.shape))[index] == (64, 48, 3)
    assert data.train.errors == {}
    os.remove(whole)
    gone = data.train.names.index(str(whole))
    assert list(data.train.map(np.shape))[gone] is None
    assert data.train.errors == {gone: "No such file or directory"}


def image_threads():
    return [thread for thread in threading.enumerate() if "keras_bit" in thread.name]


def test_map_runs_ahead_within_a_window_and_ends_when_closed():
    started = []
    data = sources.digits()
    results = data.train.map(lambda image: started.append(1))
    next(results)
    time.sleep(0.2)
    assert 1 < len(started) <= 8
    assert image_threads()
    results.close()
    assert not image_threads()
    assert len(started) <= 8


def test_map_hands_on_what_transform_raises():
    def transform(image):
        raise ValueError("from the transform")

    split = sources.digits().train
    with pytest.raises(ValueError, match="from the transform"):
        list(split.map(transform))
    assert split.errors == {}
    assert not image_threads()


def test_keyboard_interrupt_ends_map():
    script = """
import time
from keras_bit.data import sources

split = sources.digits().train
print("started", flush=True)
for _ in split.map(lambda image: time.sleep(0.2)):
    pass
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "started\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        _, errors = process.communicate(timeout=20)
    assert time.monotonic() - begin < 5
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_from_arrays():
    images = np.arange(4 * 6 * 8 * 3, dtype=np.uint8).reshape(4, 6, 8, 3)
    data = ImageDataset.from_arrays(images, [[1], [0], [2], [1]], images[:2], [0, 1])
    assert data.label_names == ("0", "1", "2")
    assert (data.train_size, data.test_size, data.image_size) == (4, 2, (6, 8))
    assert data.train.labels.tolist() == [1, 0, 2, 1]
    assert data.train.names == ("train/0", "train/1", "train/2", "train/3")
    assert np.array_equal(list(data.train.map(lambda image: image)), images)
    assert np.shares_memory(next(data.train.map(lambda image: image)), images)


def test_from_arrays_of_several_sizes():
    images = [np.zeros((5, 9, 3), np.uint8), np.zeros((7, 11, 3), np.uint8)]
    data = ImageDataset.from_arrays(images, [0, 1], images, [0, 1], ["x", "y"])
    assert data.image_size == (6, 10)
    assert list(data.test.map(np.shape)) == [(5, 9, 3), (7, 11, 3)]
    assert data.label_names == ("x", "y")


def test_fingerprint_of_arrays():
    images = np.random.RandomState(0).randint(0, 256, (3, 4, 6, 3), np.uint8)

    def fingerprint(images, labels):
        return ImageDataset.from_arrays(images, labels, images, labels).train.fingerprint

    base = fingerprint(images, [0, 1, 1])
    assert fingerprint(list(images.copy()), [0, 1, 1]) == base
    changed = images.copy()
    changed[2, 3, 5, 2] ^= 1
    others = {
        fingerprint(changed, [0, 1, 1]),
        fingerprint(images[::-1], [0, 1, 1]),
        fingerprint(images, [0, 1, 0]),
        fingerprint(images.reshape(3, 6, 4, 3), [0, 1, 1]),
    }
    assert len(others | {base}) == 5


IMAGES = np.zeros((3, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("error", "message", "images", "labels", "label_names"),
    [
        (TypeError, "`images` must be uint8", IMAGES.astype(np.float32), [0, 1, 1], None),
        (ValueError, r"`images` .* of shape \(4, 4\)", IMAGES[..., 0], [0, 1, 1], None),
        (ValueError, r"`images` .* of shape \(4, 4, 1\)", IMAGES[..., :1], [0, 1, 1], None),
        (ValueError, "`images` must hold at least one", IMAGES[:0], [], None),
        (ValueError, r"`images` .* of shape \(0, 4, 3\)", IMAGES[:, :0], [0, 1, 1], None),
        (ValueError, "`labels` .* 3 images .*argmax", IMAGES, np.eye(3, dtype=int), None),
        (ValueError, "`labels` must be one class id", IMAGES, [0, 1], None),
        (TypeError, "`labels` must be integers", IMAGES, [0.0, 1.0, 1.0], None),
        (ValueError, "`labels` must count from 0", IMAGES, [-1, 0, 1], None),
        (ValueError, "two classes", IMAGES, [0, 0, 0], None),
        (ValueError, "`label_names` .* 2 names, class ids up to 2", IMAGES, [0, 1, 2], "ab"),
    ],
)
def test_from_arrays_errors(error, message, images, labels, label_names):
    with pytest.raises(error, match=message):
        ImageDataset.from_arrays(images, labels, IMAGES[:1], [0], label_names)


def test_test_arrays_are_checked_too():
    with pytest.raises(TypeError, match="`test_images`"):
        ImageDataset.from_arrays(IMAGES, [0, 1, 1], IMAGES.astype(float), [0, 1, 1])
    with pytest.raises(ValueError, match="`test_labels`"):
        ImageDataset.from_arrays(IMAGES, [0, 1, 1], IMAGES, [0, 1])


def test_digits():
    from sklearn.datasets import load_digits

    data = sources.digits()
    assert data.label_names == tuple("0123456789")
    assert data.train_size + data.test_size == 1797
    assert data.image_size == (32, 32)
    images = np.array(list(data.train.map(lambda image: image)))
    assert images.shape == (data.train_size, 32, 32, 3)
    assert (images.min(), images.max()) == (0, 255)
    originals, labels = load_digits(return_X_y=True)
    known = {tuple(image): label for image, label in zip(originals, labels, strict=True)}
    # By hand: full ink 16 -> 255, half ink 8 -> 127.5, which rounds to the even 128.
    for image, label in list(zip(images, data.train.labels, strict=True))[:50]:
        assert (image == image[..., :1]).all()
        blocks = image[..., 0].reshape(8, 4, 8, 4)
        assert (blocks == blocks[:, :1, :, :1]).all()
        assert known[tuple(np.round(blocks[:, 0, :, 0] * (16 / 255)).ravel())] == label
    assert 128 in images
    few = sources.digits(examples_per_class=2, seed=1)
    assert np.bincount(few.train.labels).tolist() == [2] * 10
    assert few.test_size == sources.digits(seed=1).test_size


TINY_SIZES = [(40, 30), (50, 60), (30, 44), (20, 90)]


def encoded_image(index, size, encoding="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size[::-1], (index, 0, 0)).save(buffer, encoding)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of real TFDS data sets, made and prepared here.

    The red of image `index` is its index, and its label whether that is odd.
    """
    import tensorflow_datasets as tfds

    features = tfds.features

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        SPLITS = {"train": 24}
        IMAGE = features.Image(encoding_format="png")
        LABEL = features.ClassLabel(names=["even", "odd"])

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=features.FeaturesDict({"image": self.IMAGE, "label": self.LABEL}),
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(n) for split, n in self.SPLITS.items()}

        def _encoded(self, index):
            return encoded_image(index, TINY_SIZES[index % 4])

        def _generate_examples(self, count):
            for index in range(count):
                image = io.BytesIO(self._encoded(index))
                yield index, {"image": image, "label": index % 2}

    class TinyWithTest(Tiny):
        SPLITS = {"train": 8, "validation": 4, "test": 6}

    class TinyWithValidation(Tiny):
        SPLITS = {"train": 8, "validation": 4}

    class TinyUnlabelled(Tiny):
        SPLITS = {"train": 8, "test": 2}

        def _generate_examples(self, count):
            for index, example in super()._generate_examples(count):
                yield index, {**example, "label": -1 if count == 2 else example["label"]}

    class TinyBroken(Tiny):
        def _encoded(self, index):
            whole = super()._encoded(index)
            return {4: b"no image", 5: whole[:60]}.get(index, whole)

    class TinyWithoutImage(Tiny):
        IMAGE = features.Text()

        def _split_generators(self, dl_manager):
            raise AssertionError("was prepared, which may be a large download")

    class TinyNeverPrepared(Tiny):
        SPLITS = {"train": 4}

    class TinyWithoutClasses(Tiny):
        LABEL = features.Scalar(np.int64)

    folder = str(tmp_path_factory.mktemp("tfds"))
    for builder in (Tiny, TinyWithTest, TinyWithValidation, TinyUnlabelled, TinyBroken):
        builder(data_dir=folder).download_and_prepare()
    return folder


def reds(split):
    return list(split.map(lambda image: int(image[0, 0, 0])))


def test_tfds_cuts_the_test_split_from_train(tiny):
    data = sources.tfds_images("tiny", validation_split=0.25, data_dir=tiny, download=False)
    assert data.label_names == ("even", "odd")
    assert np.bincount(data.train.labels).tolist() == [9, 9]
    assert np.bincount(data.test.labels).tolist() == [3, 3]
    train, test = reds(data.train), reds(data.test)
    assert sorted(train + test) == list(range(24))
    assert [red % 2 for red in train] == data.train.labels.tolist()
    assert [red % 2 for red in test] == data.test.labels.tolist()
    sizes = np.array([TINY_SIZES[red % 4] for red in train])
    assert data.image_size == tuple(np.median(sizes, axis=0).astype(int))
    assert list(data.train.map(np.shape)) == [(*size, 3) for size in sizes]


def test_tfds_second_run_and_names(tiny):
    first, second, other = (sources.tfds_images("tiny", seed=n, data_dir=tiny) for n in (1, 1, 2))
    assert first.train.names == second.train.names
    assert first.train.fingerprint == second.train.fingerprint
    assert reds(first.train) == reds(second.train)
    assert first.train.names != other.train.names
    assert first.train.fingerprint != other.train.fingerprint
    places = {name.split("/")[-1] for name in first.train.names + first.test.names}
    assert places == {str(index) for index in range(24)}
    assert all(name.startswith("tiny/train/") for name in first.test.names)


@pytest.mark.parametrize(
    ("name", "arguments", "train_size", "test_size", "test_split"),
    [
        ("tiny_with_test", {}, 8, 6, "test"),
        ("tiny_with_validation", {}, 8, 4, "validation"),
        ("tiny_with_test", {"test_split": "validation"}, 8, 4, "validation"),
        ("tiny_with_test", {"train_split": "test[:50%]"}, 3, 6, "test"),
        ("tiny", {"train_split": "train[:75%]", "test_split": "train[75%:]"}, 18, 6, "train[75%:]"),
    ],
)
def test_tfds_splits(tiny, name, arguments, train_size, test_size, test_split):
    data = sources.tfds_images(name, data_dir=tiny, **arguments)
    assert (data.train_size, data.test_size) == (train_size, test_size)
    assert len(reds(data.train)) == train_size
    assert data.test.names == tuple(f"{name}/{test_split}/{index}" for index in range(test_size))
    if name == "tiny":
        assert not set(reds(data.train)) & set(reds(data.test))


def test_tfds_few_per_class_and_min_edge(tiny):
    data = sources.tfds_images("tiny", examples_per_class=3, data_dir=tiny)
    assert np.bincount(data.train.labels).tolist() == [3, 3]
    # Of the four sizes one has an edge below 30, that of the images 3, 7, ... 23.
    with pytest.warns(UserWarning, match="Left out: 6,"):
        data = sources.tfds_images("tiny", min_edge=30, data_dir=tiny)
    assert all(reason == "20x90 pixels, an edge below min_edge=30" for _, reason in data.left_out)
    assert not {3, 7, 11, 15, 19, 23} & {*reds(data.train), *reds(data.test)}
    with pytest.raises(ValueError, match="tiny/train with none, and 24 left out"):
        sources.tfds_images("tiny", min_edge=100, data_dir=tiny)


def test_tfds_broken_images(tiny):
    with pytest.warns(UserWarning, match="Left out: 1,"):
        data = sources.tfds_images("tiny_broken", data_dir=tiny)
    assert [reason for _, reason in data.left_out] == ["not a readable JPEG, PNG, BMP or GIF image"]
    everything = reds(data.train) + reds(data.test)
    assert everything.count(None) == 1
    assert set(range(24)) - set(everything) == {4, 5}
    assert len(data.train.errors) + len(data.test.errors) == 1


def test_tfds_scan_reads_only_headers(tiny, monkeypatch):
    def load(image):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert sources.tfds_images("tiny", data_dir=tiny).train_size == 22


def test_tfds_split_that_has_become_shorter(tiny, monkeypatch):
    data = sources.tfds_images("tiny", data_dir=tiny)
    whole = sources._tfds_stream
    monkeypatch.setattr(sources, "_tfds_stream", lambda *split: itertools.islice(whole(*split), 20))
    with pytest.raises(RuntimeError, match="`train` of tiny/1.0.0 has become shorter"):
        reds(data.train)
    assert not image_threads()


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("tiny", {"train_split": "all"}, ValueError, r"`train_split` .*\['train'\].*'all'"),
        ("tiny", {"test_split": "test[:9]"}, ValueError, r"`test_split` .*'test\[:9\]'"),
        ("tiny", {"test_split": "train"}, ValueError, "must not be the same split"),
        ("tiny", {"seed": -1}, ValueError, "`seed`"),
        ("tiny", {"examples_per_class": 12}, ValueError, "'even' with 11 training images"),
        ("tiny_unlabelled", {}, ValueError, "tiny_unlabelled/test with label -1 at example 0"),
        ("tiny_never_prepared", {"download": False}, FileNotFoundError, "`download`"),
        ("tiny_without_image", {}, ValueError, "`name` must .* `image`"),
        ("tiny_without_classes", {}, ValueError, "`name` must .* `label`"),
    ],
)
def test_tfds_errors(tiny, name, arguments, error, message):
    with pytest.raises(error, match=message):
        sources.tfds_images(name, data_dir=tiny, **arguments)


def test_tfds_can_prepare_its_own_data_sets():
    import tensorflow_datasets as tfds

    # On the way to a download TFDS 4.9.10 imports importlib_resources, which it does not declare.
    assert tfds.builder_cls("cats_vs_dogs").code_path.name == "cats_vs_dogs.py"


def test_tfds_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install keras_bit\[tfds\]"):
        sources.cats_vs_dogs()


def write_metadata(folder, name, version, splits):
    """What TFDS's mock reads the names of a data set's splits from."""
    info = {
        "name": name,
        "version": version,
        "fileFormat": "tfrecord",
        "splits": [{"name": split, "shardLengths": ["1"], "numBytes": "1"} for split in splits],
    }
    path = folder / name / version
    path.mkdir(parents=True)
    (path / "dataset_info.json").write_text(json.dumps(info))


def test_tfds_mock_data(tmp_path):
    import tensorflow_datasets as tfds

    write_metadata(tmp_path, "tf_flowers", "3.0.1", ["train"])
    with tfds.testing.mock_data(num_examples=60, data_dir=str(tmp_path)):
        data = sources.tfds_images("tf_flowers")
        again = sources.tfds_images("tf_flowers")
        images = list(data.train.map(lambda image: image))
        stream = tfds.load("tf_flowers", split="train", shuffle_files=False)
        expected = [example["image"] for example in stream.as_numpy_iterator()]
    assert data.num_classes == 5
    assert data.train.fingerprint == again.train.fingerprint
    assert data.train_size + data.test_size == 60
    for name, image in zip(data.train.names, images, strict=True):
        assert np.array_equal(image, expected[int(name.split("/")[-1])])


def test_cats_vs_dogs(tmp_path):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def as_dataset(builder, split, decoders=None, **kwargs):
        """40 photographs of which every tenth is one pixel too low."""
        sizes = [(95 if index % 10 == 9 else 96, 200) for index in range(40)]
        images = [encoded_image(index, size, "JPEG") for index, size in enumerate(sizes)]
        labels = np.arange(40) // 20
        return tf.data.Dataset.from_tensor_slices({"image": images, "label": labels})

    write_metadata(tmp_path, "cats_vs_dogs", "4.0.1", ["train"])
    with tfds.testing.mock_data(as_dataset_fn=as_dataset, data_dir=str(tmp_path)):
        with pytest.warns(UserWarning, match="Left out: 4,"):
            data = sources.cats_vs_dogs()
        with pytest.warns(UserWarning, match="Left out: 4,"):
            few = sources.cats_vs_dogs(examples_per_class=5, seed=1)
        shapes = list(data.train.map(np.shape))
    assert data.label_names == ("cat", "dog")
    assert {name for name, _ in data.left_out} == {
        f"cats_vs_dogs/train/{index}" for index in (9, 19, 29, 39)
    }
    # By hand: 18 of each class are left, a tenth of them is 1.8.
    assert np.bincount(data.train.labels).tolist() == [16, 16]
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    assert np.bincount(few.train.labels).tolist() == [5, 5]
    assert set(shapes) == {(96, 200, 3)}
    assert data.image_size == (96, 200)
