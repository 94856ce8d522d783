import glob
import os
import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from keras_bit.data.sources import folders
from keras_bit.data.sources.folders import image_folder
from tests.image_files import FIXED_TIME, make_folder, png_chunk, relative_names

pytestmark = pytest.mark.usefixtures("two_workers")


def png_header(width, height):
    """A PNG file that is all header: its pixels never come."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"\0\0\0\0IDAT"


def test_folder_of_classes(tmp_path):
    make_folder(tmp_path, {"dog": 10, "cat": 25, "ant": 4})
    data = image_folder(tmp_path, validation_split=0.2)
    assert data.label_names == ("ant", "cat", "dog")
    assert data.num_classes == 3
    assert data.image_size == (10, 12)
    assert data.skipped == ()
    # By hand: 4 * 0.2 = 0.8 -> 1, 25 * 0.2 = 5, 10 * 0.2 = 2.
    assert np.bincount(data.test.labels).tolist() == [1, 5, 2]
    assert np.bincount(data.train.labels).tolist() == [3, 20, 8]
    assert (data.train_size, data.test_size) == (31, 8)
    assert data.train.labels.dtype == np.int32
    assert not data.train.labels.flags.writeable
    everything = sorted(str(path) for path in tmp_path.glob("*/*.png"))
    assert sorted(data.train.names + data.test.names) == everything
    for split in (data.train, data.test):
        for name, label in zip(split.names, split.labels, strict=True):
            assert name.split(os.sep)[-2] == data.label_names[label]


def test_split_does_not_depend_on_the_listing_order(tmp_path, monkeypatch):
    first = make_folder(tmp_path / "one", {"a": 9, "b": 9})
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
    two = image_folder(first, validation_split=0.3, seed=3)
    assert relative_names(one.train, first) == relative_names(two.train, first)
    assert relative_names(one.test, first) == relative_names(two.test, first)
    assert one.train.fingerprint == two.train.fingerprint
    assert one.test.fingerprint == two.test.fingerprint


@pytest.mark.parametrize(
    "train_name, test_name",
    [
        ("train", "test"),
        ("train", "validation"),
        ("train", "valid"),
        ("train", "val"),
        ("Training", "Testing"),
        ("train", "Test"),
    ],
)
def test_train_and_test_folders(tmp_path, train_name, test_name):
    make_folder(tmp_path / train_name, {"a": 5, "b": 4})
    make_folder(tmp_path / test_name, {"a": 2, "b": 3})
    data = image_folder(tmp_path, validation_split=0.5)
    assert np.bincount(data.train.labels).tolist() == [5, 4]
    assert np.bincount(data.test.labels).tolist() == [2, 3]
    assert all(name.startswith(str(tmp_path / test_name)) for name in data.test.names)
    assert data.label_names == ("a", "b")


def test_what_lies_beside_train_and_test_is_reported(tmp_path):
    for side in ("train", "test", "val"):
        make_folder(tmp_path / side, {"a": 1, "b": 1})
    strays = [tmp_path / "a.png", tmp_path / "train" / "b.png", tmp_path / "test" / "c.png"]
    for path in strays:
        Image.new("L", (9, 9)).save(path)
    with pytest.warns(UserWarning, match="Skipped: 4,"):
        data = image_folder(tmp_path)
    assert [name for name, _ in data.skipped] == [str(tmp_path / "val"), *map(str, strays)]
    assert data.test.names[0].startswith(str(tmp_path / "test"))


def test_train_and_test_must_hold_the_same_classes(tmp_path):
    make_folder(tmp_path / "train", {"a": 1, "b": 1, "c": 1})
    make_folder(tmp_path / "test", {"a": 1, "b": 1, "d": 1})
    with pytest.raises(ValueError, match=r"\['c'\] only in .*train, \['d'\] only in .*test"):
        image_folder(tmp_path)


def test_few_shot_subset_with_a_test_folder(tmp_path):
    make_folder(tmp_path / "train", {"a": 5, "b": 5})
    make_folder(tmp_path / "test", {"a": 3, "b": 3})
    data = image_folder(tmp_path, examples_per_class=2)
    assert (data.train_size, data.test_size) == (4, 6)


def test_what_is_no_image_is_skipped_and_reported_once(tmp_path):
    make_folder(tmp_path, {"a": 3, "b": 3})
    folder = tmp_path / "a"
    (folder / "notes.jpg").write_text("no image")
    (folder / "empty.png").touch()
    (folder / "flat.png").write_bytes(png_header(0, 7))
    (folder / "bomb.png").write_bytes(png_header(60_000, 60_000))
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "round.png").symlink_to(folder / "round.png")
    os.mkfifo(folder / "pipe.png")
    Image.new("RGB", (9, 9)).save(folder / "other.ico")
    text = png_chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(10_000_000)))
    (folder / "text.png").write_bytes(png_header(5, 7)[:33] + text)
    Image.new("RGB", (9, 9)).save(tmp_path / "stray.png")
    (tmp_path / "labels.csv").write_text("a,b")
    for hidden in (".DS_Store", "Thumbs.db", "desktop.ini", "._00.png"):
        (folder / hidden).write_bytes(b"\0")
    (tmp_path / ".git").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    with pytest.warns(UserWarning, match="Skipped: 10, .*; .*; .* and 7 more$") as caught:
        data = image_folder(tmp_path)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    reasons = {os.path.basename(name): reason for name, reason in data.skipped}
    assert reasons.pop("bomb.png").startswith("Image size (3600000000 pixels) exceeds limit")
    assert reasons.pop("text.png").lower().startswith("decompressed data too large")
    assert reasons == {
        "empty.png": "empty file",
        "flat.png": "not a readable JPEG, PNG, BMP, GIF, WebP or TIFF image",
        "gone.png": "No such file or directory",
        "notes.jpg": "not a readable JPEG, PNG, BMP, GIF, WebP or TIFF image",
        "other.ico": "not a readable JPEG, PNG, BMP, GIF, WebP or TIFF image",
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
    with pytest.warns(UserWarning, match="Skipped: 2,"):
        data = image_folder(tmp_path, min_edge=96)
    assert data.skipped == (
        (str(tmp_path / "b" / "low.png"), "95x200 pixels, an edge below min_edge=96"),
        (str(tmp_path / "b" / "narrow.png"), "200x95 pixels, an edge below min_edge=96"),
    )
    assert data.train_size + data.test_size == 7
    assert image_folder(tmp_path).skipped == ()


def test_only_headers_are_read(tmp_path, monkeypatch):
    make_folder(tmp_path, {"a": 2, "b": 2})
    suffixes = ["jpg", "gif", "bmp", "tiff", *(["webp"] if features.check("webp") else [])]
    for suffix in suffixes:
        Image.new("RGB", (12, 10)).save(tmp_path / "a" / f"x.{suffix}")

    def load(image):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    data = image_folder(tmp_path)
    assert data.train_size + data.test_size == 4 + len(suffixes)


def test_images_are_told_by_content_not_by_name(tmp_path):
    make_folder(tmp_path, {"a": 2, "b": 2})
    for index, path in enumerate(sorted(tmp_path.glob("a/*.png"))):
        path.rename(path.with_suffix((".jpg", "")[index]))
    data = image_folder(tmp_path)
    assert (data.train_size, data.test_size, data.skipped) == (2, 2, ())


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
    with pytest.raises(ValueError, match=r"dog with none, and 0 files skipped$"):
        image_folder(tmp_path)
    (tmp_path / "dog" / "a.png").write_text("x")
    with pytest.raises(ValueError, match=r"dog with none, and 1 files .* not a readable JPEG"):
        image_folder(tmp_path)
    Image.new("L", (9, 9)).save(tmp_path / "dog" / "a.png")
    with pytest.raises(ValueError, match="dog with none, and 1 files .* below min_edge=10"):
        image_folder(tmp_path, min_edge=10)
    (tmp_path / "DOG").mkdir()
    with pytest.raises(ValueError, match="upper and lower case.*'DOG' and 'dog'"):
        image_folder(tmp_path)


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
    kept = kept[:-4] + "x.png"
    status = os.stat(kept)
    with open(kept, "r+b") as file:  # the same size, and the time of the last change set back
        file.seek(-1, os.SEEK_END)
        file.write(b"T")
    os.utime(kept, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert os.stat(kept).st_mtime_ns == status.st_mtime_ns
    seen.add(fingerprint())
    (tmp_path / "a").rename(tmp_path / "c")
    seen.add(fingerprint())
    assert len(seen) == 6
    assert all(int(digest, 16) for digest in seen)


def test_fingerprint_does_not_depend_on_where_the_folder_lies(tmp_path):
    make_folder(tmp_path / "old", {"a": 4, "b": 4})
    before = image_folder(tmp_path / "old").train.fingerprint
    (tmp_path / "old").rename(tmp_path / "new")
    assert image_folder(tmp_path / "new").train.fingerprint == before


def test_names_and_fingerprint_do_not_depend_on_how_the_folder_is_written(tmp_path, monkeypatch):
    photos = make_folder(tmp_path / "photos", {"a": 3, "b": 3})
    (photos / "a").rename(photos / "inner")
    (photos / "a").mkdir()
    (photos / "inner").rename(photos / "a" / "inner")
    Image.new("L", (9, 9)).save(photos / "stray.png")
    monkeypatch.chdir(photos)
    expected, listed = {}, sorted(glob.glob("**/*.png", recursive=True))
    for path in (".", "./", os.path.join("..", "photos", ""), f"{tmp_path}//photos/", photos):
        with pytest.warns(UserWarning, match="Skipped: 1"):
            data = image_folder(path)
        start = pathlib.Path(path)
        names = sorted((*data.train.names, *data.test.names, data.skipped[0][0]))
        assert names == [str(start / name) for name in listed]
        assert sorted(folders.walk_files(path)) == names
        assert expected.setdefault("fingerprint", data.train.fingerprint) == data.train.fingerprint


def test_truncated_file_is_found_by_map(tmp_path):
    make_folder(tmp_path, {"a": 4, "b": 4})
    noise = np.random.RandomState(0).randint(0, 256, (64, 48, 3), np.uint8)
    whole = tmp_path / "a" / "whole.jpg"
    Image.fromarray(noise).save(whole)
    (tmp_path / "a" / "cut.jpg").write_bytes(whole.read_bytes()[:2000])
    data = image_folder(tmp_path, validation_split=0.2, seed=0)
    assert data.skipped == ()
    index = data.train.names.index(str(tmp_path / "a" / "cut.jpg"))
    shapes = list(data.train.map(np.shape))
    assert shapes[index] is None
    assert shapes.count(None) == 1
    assert list(data.train.errors) == [index]
    assert data.train.errors[index] == "damaged JPEG: Premature end of JPEG file"
    with pytest.raises(ValueError, match="`damaged` must be 'skip' or 'keep'.*damaged='drop'"):
        image_folder(tmp_path, damaged="drop")
    kept = image_folder(tmp_path, validation_split=0.2, damaged="keep").train
    assert kept.names == data.train.names and kept.fingerprint != data.train.fingerprint
    assert list(kept.map(np.shape))[index] == (64, 48, 3) and list(kept.errors) == [index]
    (tmp_path / "a" / "cut.jpg").write_bytes(whole.read_bytes())
    assert list(data.train.map(np.shape))[index] == (64, 48, 3)
    assert data.train.errors == {}
    os.remove(whole)
    gone = data.train.names.index(str(whole))
    assert list(data.train.map(np.shape))[gone] is None
    assert data.train.errors == {gone: "No such file or directory"}


def test_the_state_of_a_file_is_asked_once(tmp_path, monkeypatch):
    make_folder(tmp_path, {"a": 3, "b": 3})
    asked, status = [], os.stat

    def count(path, *args, **kwargs):
        asked.append(str(path))
        return status(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", count)
    image_folder(tmp_path)
    files = [path for path in asked if path.endswith(".png")]
    assert len(files) == len(set(files)) == 6
