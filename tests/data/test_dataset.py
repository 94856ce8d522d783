import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
from PIL import Image

from keras_bit.data.dataset import check_dataset
from keras_bit.data.sources.digits import digits
from keras_bit.data.sources.folders import image_folder
from tests.image_files import image_threads, make_folder, relative_names

pytestmark = pytest.mark.usefixtures("two_workers")


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


def test_seed_chooses_the_split(tmp_path):
    make_folder(tmp_path, {"a": 20, "b": 20})
    runs = [image_folder(tmp_path, validation_split=0.3, seed=seed) for seed in (0, 0, 1)]
    assert runs[0].test.names == runs[1].test.names
    assert runs[0].train.fingerprint == runs[1].train.fingerprint
    assert runs[0].test.names != runs[2].test.names
    assert runs[0].train.fingerprint != runs[2].train.fingerprint


def test_few_shot_subset(tmp_path):
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


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("validation_split", 0),
        ("validation_split", 1.0),
        ("validation_split", float("nan")),
        ("validation_split", "a"),
        ("validation_split", True),
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


def test_map_yields_in_order_whatever_the_threads_do(tmp_path):
    make_folder(tmp_path, {"a": 30, "b": 30})
    split = image_folder(tmp_path).train

    def number(image):
        time.sleep(0.01 * (image[0, 0, 0] % 3))
        return int(image[0, 0, 0]), threading.current_thread() is threading.main_thread()

    expected = [(int(os.path.basename(name)[:2]), False) for name in split.names]
    assert list(split.map(number)) == expected
    assert list(split.map(number)) == expected


@pytest.mark.parametrize("chunk_size", [1, 4])
def test_map_indexed_gives_each_image_its_index(tmp_path, chunk_size):
    make_folder(tmp_path, {"a": 12, "b": 13})
    split = image_folder(tmp_path).train
    broken = 5
    (tmp_path / split.names[broken]).write_bytes(b"no image any more")
    expected = [(index, int(os.path.basename(name)[:2])) for index, name in enumerate(split.names)]
    expected[broken] = None
    results = split.map_indexed(lambda index, image: (index, int(image[0, 0, 0])), chunk_size)
    assert list(results) == expected
    assert list(split.errors) == [broken]


def test_map_runs_ahead_within_a_window_and_ends_when_closed():
    started = []
    data = digits()
    results = data.train.map(lambda image: started.append(1))
    next(results)
    time.sleep(0.2)
    assert 1 < len(started) <= 8
    assert image_threads()
    results.close()
    assert not image_threads()
    assert len(started) <= 8


def test_map_raises_what_transform_raises():
    def transform(image):
        raise ValueError("from the transform")

    split = digits().train
    with pytest.raises(ValueError, match="from the transform"):
        list(split.map(transform))
    assert split.errors == {}
    assert not image_threads()


def test_keyboard_interrupt_ends_map():
    script = """
import numpy as np, time
from keras_bit.data.dataset import ImageDataset

images, labels = np.zeros((20_000, 2, 2, 3), np.uint8), np.arange(20_000) % 2
split = ImageDataset.from_arrays(images, labels, images, labels).train
print("started", flush=True)
for _ in split.map(lambda image: time.sleep(0.2)):
    pass
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},  # which is imported faster
    ) as process:
        assert process.stdout.readline() == "started\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        _, errors = process.communicate(timeout=120)
    assert time.monotonic() - begin < 60  # all images would take at least four minutes
    assert errors.rstrip().endswith("KeyboardInterrupt")


def doors():
    """What is no `ImageDataset`, and which function the error must name."""
    array = np.zeros((2, 4, 4, 3), np.uint8)
    folder, arrays = "the path 'photos'. Use `keras_bit.image_folder(path)`.", "from_arrays(images"
    return [
        ("photos", folder),
        (pathlib.Path("photos"), folder),
        (array, f"an array. Use `keras_bit.ImageDataset.{arrays}"),
        ((array, np.zeros(2)), f"arrays. Use `keras_bit.ImageDataset.{arrays}"),
        (keras.ops.zeros((2, 4, 4, 3)), f"an array. Use `keras_bit.ImageDataset.{arrays}"),
        (keras.utils.PyDataset(), "PyDataset. Use `keras_bit.image_folder(path)`, "),
        ({"images": array}, "a builtins.dict. Use `keras_bit.image_folder(path)`, "),
        ([], "a builtins.list. Use `keras_bit.image_folder(path)`, "),
        (None, "a builtins.NoneType. Use `keras_bit.image_folder(path)`, "),
    ]


@pytest.mark.parametrize(("data", "words"), doors())
def test_what_is_no_image_dataset_is_told_how_to_become_one(data, words):
    with pytest.raises(TypeError) as error:
        check_dataset(data)
    start = "`data` must be a keras_bit.ImageDataset. Received: "
    assert str(error.value).startswith(start) and words in str(error.value)


@pytest.mark.tensorflow
def test_a_tf_dataset_is_told_from_tf_data():
    import tensorflow as tf

    dataset = tf.data.Dataset.range(3)
    door = "Use `keras_bit.ImageDataset.from_tf_data(train, test)`."
    for data, kind in [
        (dataset, "a tf.data.Dataset"),
        (dataset.shuffle(2).batch(2).prefetch(1), "a tf.data.Dataset"),
        ((dataset, dataset), "a tuple of tf.data.Datasets"),
        ([dataset, dataset], "a list of tf.data.Datasets"),
    ]:
        with pytest.raises(TypeError) as error:
            check_dataset(data)
        assert str(error.value).endswith(f"Received: {kind}. {door}")


def test_an_image_dataset_passes():
    data = digits(examples_per_class=1)
    assert check_dataset(data) is data
