import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile

from keras_bit.data import cache
from keras_bit.data.cache import cache_images, cache_size
from keras_bit.data.dataset import ImageDataset
from keras_bit.data.resize import resize
from keras_bit.data.sources.folders import image_folder
from tests.splits import CountingSplit, numbered_split

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def images(rng):
    return [rng.integers(0, 256, (int(h), 9, 3), np.uint8) for h in rng.integers(4, 20, 6)]


@pytest.fixture(params=["memory", "disk"])
def cache_dir(request, tmp_path):
    return None if request.param == "memory" else tmp_path / "new" / "cache"


def visible(folder):
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def only(folder):
    (name,) = visible(folder)
    return folder / name


def test_images_are_resized_in_their_order(images, cache_dir):
    cached = cache_images(CountingSplit(images, labels=range(6)), 8, "train", cache_dir)
    np.testing.assert_array_equal(cached.images, [resize(image, 8) for image in images])
    np.testing.assert_array_equal(cached.rows, range(6))
    np.testing.assert_array_equal(cached.labels, range(6))
    assert cached.names == tuple(f"{index}.png" for index in range(6))
    assert cached.images.dtype == np.uint8 and cached.labels.dtype == np.int32
    assert len(cached) == 6 and cached.skipped == ()
    assert cached.images.nbytes == cache_size(6, 8)
    assert cached.images.ctypes.data % 64 == 0


def test_images_of_several_threads_find_their_rows(rng, cache_dir, monkeypatch):
    monkeypatch.setattr(cache, "WRITE_BACK_CHUNK", 10 * cache_size(1, 8))
    images = rng.integers(0, 256, (2000, 8, 8, 3), np.uint8)
    labels = np.arange(2000) % 2
    split = ImageDataset.from_arrays(images, labels, images[:2], labels[:2]).train
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        cached = cache_images(split, 8, "train", cache_dir)
    finally:
        sys.setswitchinterval(interval)
    np.testing.assert_array_equal(cached.images, images)
    np.testing.assert_array_equal(cached.labels, labels)


def test_unreadable_images_are_skipped_with_one_warning(images, cache_dir):
    split = CountingSplit(images, labels=range(6), broken=(0, 5))
    for _ in range(2):  # the second time a cache on disk tells
        with pytest.warns(UserWarning) as caught:
            cached = cache_images(split, 8, "train", cache_dir)
        (warning,) = caught
        assert warning.filename == __file__
        assert str(warning.message) == (
            "2 of 6 train images could not be read and are skipped: "
            "0.png (broken 0), 5.png (broken 5)"
        )
        assert cached.skipped == (("0.png", "broken 0"), ("5.png", "broken 5"))
        np.testing.assert_array_equal(cached.rows, [1, 2, 3, 4])
        np.testing.assert_array_equal(cached.labels, [1, 2, 3, 4])
        assert cached.names == ("1.png", "2.png", "3.png", "4.png")
        np.testing.assert_array_equal(cached.images[1:5], [resize(i, 8) for i in images[1:5]])
        for indices in ([3, 0, 0], np.array([2]), []):
            taken = cached.take(indices)
            assert taken.dtype == np.uint8
            expected = [resize(images[1 + index], 8) for index in indices]
            np.testing.assert_array_equal(taken, np.reshape(expected, (-1, 8, 8, 3)))
        split.errors = {}
    assert split.decoded == (12 if cache_dir is None else 6)


def noise_folder(folder, rng, suffixes):
    """Two class folders of images of noise."""
    for index, suffix in enumerate(suffixes):
        path = folder / "ab"[index % 2] / f"{index}.{suffix}"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(path)
    return folder


@pytest.mark.parametrize("damaged", ["skip", "keep"])
def test_damaged_images_are_counted_apart(tmp_path, rng, cache_dir, damaged, monkeypatch):
    photos = noise_folder(tmp_path / "photos", rng, ["png"] * 4 + ["jpg"] * 4)
    data = image_folder(photos, validation_split=0.25, damaged=damaged)
    png = next(name for name in data.train.names if name.endswith("png"))
    jpeg = next(name for name in data.train.names if name.endswith("jpg"))
    for path in (png, jpeg):
        os.truncate(path, os.path.getsize(path) - 60)
    reason = "damaged JPEG: Premature end of JPEG file"
    for _ in range(2):
        with pytest.warns(UserWarning) as caught:
            cached = cache_images(data.train, 8, "train", cache_dir)
        (warning,) = caught
        first, second = str(warning.message).split(". 1 of")
        assert first.startswith(f"1 of 6 train images could not be read and are skipped: {png} (")
        if damaged == "skip":
            assert second == (
                ' 6 train images are damaged and are skipped, but for `damaged="keep"`: '
                f"{jpeg} ({reason})"
            )
            assert cached.damaged == () and len(cached) == 4
            assert {name for name, _ in cached.skipped} == {png, jpeg}
        else:
            assert second == (
                " 6 train images are damaged and are kept as far as they can be decoded: "
                f"{jpeg} ({reason})"
            )
            assert cached.damaged == ((jpeg, reason),) and len(cached) == 5
            assert [name for name, _ in cached.skipped] == [png] and jpeg in cached.names
            with Image.open(jpeg) as image, monkeypatch.context() as patch:
                patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
                expected = resize(np.asarray(image), 8)
            np.testing.assert_array_equal(cached.take(cached.names.index(jpeg)), expected)


def test_the_fingerprint_is_of_pixels_and_labels(tmp_path, images, cache_dir):
    def fingerprint(split):
        return cache_images(split, 8, "train", cache_dir).fingerprint

    base = fingerprint(CountingSplit(images))
    in_memory = cache_images(CountingSplit(images, fingerprint="ff"), 8, "train")
    assert in_memory.fingerprint == base and len(base) == 32 and int(base, 16)
    if cache_dir is not None:  # read again
        assert fingerprint(CountingSplit(images)) == base
    changed = images[0].copy()
    changed ^= 128
    others = {
        fingerprint(CountingSplit([changed, *images[1:]], fingerprint="a")),
        fingerprint(CountingSplit(images[::-1], fingerprint="b")),
        fingerprint(CountingSplit(images[:5], fingerprint="c")),
        fingerprint(CountingSplit(images, labels=[1, 0, 0, 0, 0, 0], fingerprint="d")),
    }
    with pytest.warns(UserWarning, match="1 of 6"):
        others.add(fingerprint(CountingSplit(images, broken=(2,), fingerprint="e")))
    assert len(others | {base}) == 6


def test_the_fingerprint_outlives_a_copy_of_the_folder(tmp_path, rng):
    noise_folder(tmp_path / "one", rng, ["png"] * 4)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    os.chmod(tmp_path / "two" / "a" / "0.png", 0o600)
    one, two = (image_folder(tmp_path / name).train for name in ("one", "two"))
    assert one.fingerprint != two.fingerprint
    one, two = (cache_images(split, 8, "train") for split in (one, two))
    assert one.fingerprint == two.fingerprint


def test_a_long_list_of_unreadable_images_is_cut_short(images):
    split = CountingSplit(images * 3, broken=range(1, 18))
    with pytest.warns(UserWarning, match=r"17 of 18 .*: 1\.png .* 5\.png \(broken 5\) and 12 more"):
        cache_images(split, 8, "test")


def test_nothing_readable_is_an_error_and_leaves_no_cache(images, cache_dir):
    with pytest.raises(ValueError, match=r"No image of the test split could be read: 0\.png \(bro"):
        cache_images(CountingSplit(images, broken=range(6)), 8, "test", cache_dir)
    if cache_dir is not None:
        assert visible(cache_dir) == []


def test_an_empty_split_is_an_error(cache_dir):
    with pytest.raises(ValueError, match="train split must hold at least one image"):
        cache_images(CountingSplit([]), 8, "train", cache_dir)


def test_a_cache_is_used_again_without_decoding(images, tmp_path):
    split = CountingSplit(images)
    first = cache_images(split, 8, "train", str(tmp_path))
    second = cache_images(split, 8, "train", tmp_path)
    assert split.decoded == 6
    np.testing.assert_array_equal(first.images, second.images)
    assert isinstance(second.images.base, np.memmap)


@pytest.mark.parametrize(
    ("edge", "fingerprint", "name"), [(9, "aa", "train"), (8, "ab", "train"), (8, "aa", "test")]
)
def test_other_sizes_images_and_splits_have_caches_of_their_own(
    images, tmp_path, edge, fingerprint, name
):
    cache_images(CountingSplit(images), 8, "train", tmp_path)
    split = CountingSplit(images[::-1], fingerprint=fingerprint)
    cached = cache_images(split, edge, name, tmp_path)
    assert split.decoded == 6 and len(visible(tmp_path)) == 2
    np.testing.assert_array_equal(cached.images[0], resize(images[-1], edge))


def test_another_format_has_a_cache_of_its_own(images, tmp_path, monkeypatch):
    cache_images(CountingSplit(images), 8, "train", tmp_path)
    monkeypatch.setattr(cache, "FORMAT_VERSION", cache.FORMAT_VERSION + 1)
    split = CountingSplit(images)
    cache_images(split, 8, "train", tmp_path)
    assert split.decoded == 6


def truncate(path):
    os.truncate(path, os.path.getsize(path) - 1)


def lengthen(path):
    with open(path, "ab") as file:
        file.write(b"x")


def flip_last_data_byte(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"labels.npy") + 150] ^= 255
    path.write_bytes(content)


def zero_some_bytes(path):
    content = bytearray(path.read_bytes())
    content[700:720] = bytes(20)
    path.write_bytes(content)


def move_the_directory(path):
    """Writes another offset of the zip's directory, which NumPy then seeks at a place below 0."""
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x05\x06") + 18] ^= 255
    path.write_bytes(content)


def change_index(path, **changes):
    with np.load(path) as index:
        arrays = dict(index)
    np.savez(path, **{**arrays, **changes})


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("images.npy", truncate),
        ("images.npy", lengthen),
        ("images.npy", os.remove),
        ("images.npy", lambda path: path.write_bytes(b"")),
        ("images.npy", lambda path: np.save(path, np.zeros((6, 8, 8, 3), np.int8))),
        ("images.npy", lambda path: np.save(path, np.zeros((5, 8, 8, 3), np.uint8))),
        ("images.npy", zero_some_bytes),
        ("index.npz", truncate),
        ("index.npz", os.remove),
        ("index.npz", flip_last_data_byte),
        ("index.npz", move_the_directory),
        ("index.npz", lambda path: np.savez(path, rows=np.arange(6))),
        ("index.npz", lambda path: change_index(path, rows=np.arange(1, 7))),
        ("index.npz", lambda path: change_index(path, rows=np.arange(6)[::-1])),
        ("index.npz", lambda path: change_index(path, rows=np.arange(6.0))),
        ("index.npz", lambda path: change_index(path, rows=np.array("none"))),
        ("index.npz", lambda path: change_index(path, labels=np.ones(6, np.int32))),
        ("index.npz", lambda path: change_index(path, checksums=np.zeros(6, np.uint32))),
        ("index.npz", lambda path: change_index(path, faulty=np.array([7]))),
        ("index.npz", lambda path: change_index(path, reasons=np.array(["x"]))),
        (
            "index.npz",
            lambda path: change_index(path, faulty=np.array([6]), reasons=np.array(["x"])),
        ),
    ],
)
def test_a_damaged_cache_is_rebuilt(images, tmp_path, file, damage):
    split = CountingSplit(images)
    cache_images(split, 8, "train", tmp_path)
    damage(only(tmp_path) / file)
    with pytest.warns(UserWarning, match="is damaged and is rebuilt") as caught:
        cached = cache_images(split, 8, "train", tmp_path)
    assert [warning.filename for warning in caught] == [__file__]
    assert split.decoded == 12
    np.testing.assert_array_equal(cached.images, [resize(image, 8) for image in images])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache_images(split, 8, "train", tmp_path)
    assert split.decoded == 12


def test_a_link_in_the_place_of_a_lock_is_not_followed(images, tmp_path):
    cache_images(CountingSplit(images), 8, "train", tmp_path / "cache")
    (lock,) = (tmp_path / "cache").glob(".*.lock")
    lock.unlink()
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    lock.symlink_to(mine)
    split = CountingSplit(images)
    truncate(only(tmp_path / "cache") / "index.npz")
    with pytest.raises(OSError, match="A lock must be a file. Received: .*a link"):
        cache_images(split, 8, "train", tmp_path / "cache")
    assert mine.read_text() == "mine"


def test_a_build_that_fails_leaves_nothing(images, tmp_path):
    class Failing(CountingSplit):
        def map_indexed(self, transform, chunk_size=1):
            yield transform(0, self.images[0])
            raise RuntimeError("network gone")

    with pytest.raises(RuntimeError, match="network gone"):
        cache_images(Failing(images), 8, "train", tmp_path)
    assert [name for name in os.listdir(tmp_path) if not name.endswith(".lock")] == []


def unfinished(folder, name=""):
    return list(folder.glob(f".{name}*.part-*/images.npy"))


def wait_until(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_others_wait_for_a_build_and_never_use_one_that_was_killed(tmp_path):
    script = f"""
        from keras_bit.data.cache import cache_images
        from tests.splits import numbered_split

        for name in ("train", "test"):
            split = numbered_split(delay=0.5 if name == "train" else 5)
            cached = cache_images(split, 64, name, {str(tmp_path)!r})
            assert (cached.images == split.images).all()
            print(split.decoded, flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    ) as process:
        wait_until(lambda: unfinished(tmp_path, "train"))
        split = numbered_split()
        with pytest.warns(UserWarning, match="Waiting for another process") as caught:
            cached = cache_images(split, 64, "train", tmp_path)
        assert [warning.filename for warning in caught] == [__file__]
        assert split.decoded == 0 and np.all(cached.images == split.images)
        assert process.stdout.readline() == "20\n"

        wait_until(lambda: any(path.stat().st_size for path in unfinished(tmp_path, "test")))
        process.send_signal(signal.SIGKILL)
    assert len(unfinished(tmp_path)) == 1 and len(visible(tmp_path)) == 1
    cached = cache_images(split, 64, "test", tmp_path)
    assert split.decoded == 20 and np.all(cached.images == split.images)
    assert unfinished(tmp_path) == [] and len(visible(tmp_path)) == 2


@pytest.mark.parametrize("missing", ["module", "file system"])
def test_without_locks_two_builders_both_succeed(images, tmp_path, monkeypatch, missing):
    fcntl = pytest.importorskip("fcntl")

    def refuse(file, operation):
        raise OSError("no locks available")

    if missing == "module":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", refuse)
    neighbor = CountingSplit(images)

    class Interrupted(CountingSplit):
        def map_indexed(self, transform, chunk_size=1):
            results = super().map_indexed(transform, chunk_size)
            yield next(results)
            cache_images(neighbor, 8, "train", tmp_path)
            yield from results

    split = Interrupted(images)
    cached = cache_images(split, 8, "train", tmp_path)
    assert split.decoded == neighbor.decoded == 6
    np.testing.assert_array_equal(cached.images, [resize(image, 8) for image in images])
    assert len(visible(tmp_path)) == 1 and unfinished(tmp_path) == []


class HugeSplit(CountingSplit):
    def __len__(self):
        return 10**9


def test_too_little_memory_is_reported_before_building(images):
    split = HugeSplit(images)
    with pytest.raises(MemoryError, match=r"takes 786\.4 TB.*Pass `cache_dir`"):
        cache_images(split, 512, "train")
    assert split.decoded == 0


def test_too_little_disk_is_reported_before_building(images, tmp_path):
    split = HugeSplit(images)
    with pytest.raises(OSError, match=r"takes 786\.4 TB.*free.*a larger disk"):
        cache_images(split, 512, "train", tmp_path)
    assert split.decoded == 0


def test_progress_is_shown_on_a_terminal_only(images, monkeypatch, capsys):
    monkeypatch.setattr(cache, "PROGRESS_DELAY", 0)
    cache_images(CountingSplit(images), 8, "train")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # for rich, a terminal
    cache_images(CountingSplit(images), 8, "train")
    output, errors = capsys.readouterr()
    assert output == "" and "Caching train images" in errors and "100%" in errors


def test_a_short_build_shows_no_progress(images, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    cache_images(CountingSplit(images), 8, "train")
    assert "Caching" not in capsys.readouterr().err


def test_cache_size_of_the_largest_case():
    assert cache_size(1_000_000, 512) == 786_432_000_000
