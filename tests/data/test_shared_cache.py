"""A cache that several processes build together; here they are threads, with locks of their own."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from keras_bit.core.distribution import Processes
from keras_bit.data import shared_cache
from keras_bit.data.cache import cache_images
from keras_bit.data.shared_cache import cache_images_together
from keras_bit.data.sources.folders import image_folder

pytestmark = pytest.mark.tensorflow

COUNT, EDGE = 3, 8


@pytest.fixture
def folder(tmp_path):
    """Two classes of eleven images; one is no image, and one is damaged behind its header."""
    rng = np.random.default_rng(0)
    for i in range(22):
        path = tmp_path / "images" / f"{i % 2}" / f"{i:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(path, rng.integers(0, 256, (20, 24, 3)), scale=False)
    (tmp_path / "images" / "0" / "04.jpg").write_bytes(b"no image")
    cut = tmp_path / "images" / "1" / "07.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    return tmp_path


def decoded_by(split):
    """Makes a split note which of its images are decoded."""
    seen, transform_indexed = [], split.map_indexed

    def map_indexed(transform, *arguments):
        def note(index, image):
            seen.append(index)
            return transform(index, image)

        return transform_indexed(note, *arguments)

    split.map_indexed = map_indexed
    return seen


@pytest.fixture
def run_together(monkeypatch):
    """Calls a function in `COUNT` threads that take themselves for processes."""
    index, barrier = threading.local(), threading.Barrier(COUNT, timeout=60)
    monkeypatch.setattr(shared_cache, "FEWEST", 1)
    monkeypatch.setattr(shared_cache, "wait_for_all", lambda name: barrier.wait())
    monkeypatch.setattr(shared_cache, "processes", lambda: Processes(index.value, COUNT))

    def run(function, indices=range(COUNT)):
        def call(i):
            index.value = i
            return function(i)

        with ThreadPoolExecutor(COUNT) as executor:
            return list(executor.map(call, indices))

    return run


@pytest.fixture
def own_parts_first(monkeypatch):
    """No thread comes to the part of another before that has built it, however slow it is."""
    cache, barrier, local = cache_images, threading.Barrier(COUNT, timeout=60), threading.local()

    def cached(*arguments):
        found = cache(*arguments)
        if not hasattr(local, "has_built"):
            local.has_built = True
            barrier.wait()
        return found

    monkeypatch.setattr(shared_cache, "cache_images", cached)


@pytest.mark.usefixtures("own_parts_first")
@pytest.mark.parametrize("damaged", ["skip", "keep"])
def test_each_decodes_its_part_and_all_have_the_cache_of_one(folder, run_together, damaged):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        splits = [
            image_folder(folder / "images", damaged=damaged, validation_split=0.1).train
            for _ in range(COUNT)
        ]
        alone = cache_images(splits[0], EDGE, "train", folder / "alone")
        seen = [decoded_by(split) for split in splits]
        found = run_together(
            lambda i: cache_images_together(splits[i], EDGE, "train", folder / "together")
        )
    indices = sorted(index for part in seen for index in part)
    assert len(indices) == len(set(indices)) == len(alone)
    assert all(index % COUNT == i for i, part in enumerate(seen) for index in part)
    for cached in found:
        assert cached.fingerprint == alone.fingerprint
        assert (cached.names, cached.skipped) == (alone.names, alone.skipped)
        assert cached.damaged == alone.damaged and len(alone.damaged) == (damaged == "keep")
        np.testing.assert_array_equal(
            cached.take(range(len(cached))), alone.take(range(len(alone)))
        )
    (one,), (other,) = (list((folder / name).glob("train-*")) for name in ("alone", "together"))
    for name in ("images.npy", "index.npz"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    assert not list((folder / "together").glob(".parts-*"))


def test_the_part_of_one_that_died_is_built_by_another(folder, run_together, monkeypatch):
    monkeypatch.setattr(shared_cache, "wait_for_all", lambda name: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split = image_folder(folder / "images").train
        (cached,) = run_together(
            lambda i: cache_images_together(split, EDGE, "train", folder / "together"), [1]
        )
        assert cached.fingerprint == cache_images(split, EDGE, "train").fingerprint
