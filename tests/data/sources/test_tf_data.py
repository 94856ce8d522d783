import threading
import time
import weakref

import keras
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow")

import tensorflow as tf

from keras_bit.data.cache import cache_images
from keras_bit.data.dataset import ImageDataset
from keras_bit.data.pipeline import pipelines
from keras_bit.data.resize import resize
from keras_bit.data.sources import tf_data
from keras_bit.data.sources.tf_elements import digest_of
from keras_bit.hyperrule.rule import HyperRule
from tests.image_files import image_threads
from tests.processes import run_on_jax

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("two_workers")]

COUNT, CLASSES, SHAPE = 24, 3, (6, 8, 3)
from_tf_data = ImageDataset.from_tf_data


def make_images(count=COUNT, seed=0):
    """Random images whose first pixel is their number, and class ids that go round."""
    images = np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), np.uint8)
    images[:, 0, 0] = np.arange(count)[:, None]
    return images, np.arange(count) % CLASSES


def make_dataset(images=None, labels=None, **options):
    if images is None:
        images, labels = make_images(**options)
    return tf.data.Dataset.from_tensor_slices((images, labels))


def numbers(split):
    """What `map` yields, as numbers of `make_images`; checks the pixels and labels with it."""
    images, labels = make_images()
    found = list(split.map(np.array))
    shown = [int(image[0, 0, 0]) for image in found]
    assert all(image.dtype == np.uint8 for image in found)
    np.testing.assert_array_equal(found, images[shown])
    np.testing.assert_array_equal(split.labels, labels[shown])
    return shown


def test_a_part_of_each_class_is_held_out():
    data = from_tf_data(make_dataset(), validation_split=0.25)
    assert (data.train_size, data.test_size, data.image_size) == (18, 6, (6, 8))
    assert data.label_names == ("0", "1", "2") and data.skipped == ()
    assert np.bincount(data.train.labels).tolist() == [6, 6, 6]
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]
    assert sorted(numbers(data.train) + numbers(data.test)) == list(range(COUNT))
    names = data.train.names + data.test.names
    assert len(set(names)) == COUNT and all(name.startswith("train/") for name in names)
    assert data.train.errors == {}


FORMS = {
    "shuffled": lambda d: d.shuffle(COUNT),
    "batched": lambda d: d.batch(5),
    "shuffled, batched": lambda d: d.shuffle(COUNT).batch(7),
    "ids of shape (1,)": lambda d: d.map(lambda x, y: (x, y[None])),
    "ids of shape (batch, 1)": lambda d: d.map(lambda x, y: (x, y[None])).batch(5),
    "ids as floats": lambda d: d.map(lambda x, y: (x, tf.cast(y, tf.float32)[None])).batch(5),
    "ids as uint8": lambda d: d.map(lambda x, y: (x, tf.cast(y, tf.uint8))),
    "one-hot": lambda d: d.map(lambda x, y: (x, tf.one_hot(y, CLASSES))),
    "one-hot integers": lambda d: d.map(lambda x, y: (x, tf.one_hot(y, CLASSES, dtype=tf.int32))),
    "one-hot in batches": lambda d: d.batch(4).map(lambda x, y: (x, tf.one_hot(y, CLASSES))),
    "unknown sizes": lambda d: d.map(lambda x, y: (forget_shape(x, (None, None, 3)), y)),
    "unknown shape": lambda d: d.map(lambda x, y: (forget_shape(x), forget_shape(y))),
    "unknown shape of batches": lambda d: d.batch(5).map(lambda x, y: (forget_shape(x), y)),
    "parallel, in no fixed order": lambda d: d.map(
        lambda x, y: (x, y), num_parallel_calls=2, deterministic=False
    ),
}


def forget_shape(x, shape=None):
    return tf.ensure_shape(tf.numpy_function(lambda x: x, [x], x.dtype), shape)


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_the_data_set_changes_nothing(form):
    plain = from_tf_data(make_dataset(), seed=5)
    other = from_tf_data(FORMS[form](make_dataset()), seed=5)
    for side in ("train", "test"):
        one, two = getattr(plain, side), getattr(other, side)
        assert two.names == one.names and two.fingerprint == one.fingerprint
        np.testing.assert_array_equal(two.labels, one.labels)
        assert numbers(two) == numbers(one) == numbers(two)
    assert (other.label_names, other.image_size) == (plain.label_names, plain.image_size)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16", "int32"])
@pytest.mark.parametrize("white", [1, 255])
def test_values_of_every_type_become_bytes(dtype, white):
    white = 255 if dtype == "int32" else white
    images, labels = make_images()
    scaled = tf.cast(images / (255 / white), dtype)
    data = from_tf_data(make_dataset(scaled, labels))
    assert sorted(numbers(data.train) + numbers(data.test)) == list(range(COUNT))


def first_pixels(data):
    """The first pixel of each image of both sides, by class id."""
    return {
        int(label): int(value)
        for split in (data.train, data.test)
        for label, value in zip(split.labels, split.map(lambda i: int(i[0, 0, 0])), strict=True)
    }


def gray(*values, dtype=np.float32):
    """Images of one value each, of which every second one belongs to a class."""
    return np.ones((len(values), *SHAPE), dtype) * np.reshape(values, (-1, 1, 1, 1)).astype(dtype)


def pair(*values, **options):
    """A data set of two images for each value; the values number the classes."""
    labels = np.repeat(np.arange(len(values)), 2)
    return make_dataset(gray(*np.repeat(values, 2), **options), labels)


@pytest.mark.parametrize(
    ("values", "value_range", "expected"),
    [
        ((0.0, 0.5, 1.0), None, [0, 128, 255]),  # by hand: 127.5 rounds to the even 128
        ((0.0, 0.25, 0.5), None, [0, 64, 128]),  # 63.75
        ((0.0, 0.4, 200.6), None, [0, 0, 201]),
        ((0.0, 0.5, 1.0), (0, 255), [0, 0, 1]),  # 0.5 rounds to the even 0
        ((0.0, 0.5, 1.0), (-1, 1), [128, 191, 255]),  # 127.5, 191.25
        ((-1.0, 0.0, 1.0), (-1.0, 1.0), [0, 128, 255]),
        ((-1e-4, 0.5, 1.0 + 1e-4), None, [0, 128, 255]),  # rounding errors
        ((-0.2, 0.5, 255.2), None, [0, 0, 255]),
    ],
)
def test_value_ranges(values, value_range, expected):
    pixels = first_pixels(from_tf_data(pair(*values), value_range=value_range))
    assert [pixels[label] for label in range(3)] == expected


def test_integers_are_bytes_however_dark():
    assert first_pixels(from_tf_data(pair(0, 1, dtype=np.uint8))) == {0: 0, 1: 1}
    data = from_tf_data(pair(0, 1, dtype=np.uint8), value_range=(0, 1))
    assert first_pixels(data) == {0: 0, 1: 255}


@pytest.mark.parametrize("bright", ["train", "test"])
def test_the_value_range_is_told_for_both_sides_together(bright):
    dark, light = pair(0.0, 1.0), pair(0.0, 200.0)
    sides = (light, dark) if bright == "train" else (dark, light)
    data = from_tf_data(*sides)
    pixels = [set(split.map(lambda i: int(i[0, 0, 0]))) for split in (data.train, data.test)]
    assert pixels == ([{0, 200}, {0, 1}] if bright == "train" else [{0, 1}, {0, 200}])
    mixed = from_tf_data(pair(0.0, 1.0), pair(0, 200, dtype=np.uint8))  # bytes tell nothing
    assert set(mixed.train.map(lambda i: int(i[0, 0, 0]))) == {0, 255}


def test_the_value_range_is_part_of_the_fingerprint():
    prints = {
        from_tf_data(pair(0.0, 1.0), value_range=values).train.fingerprint
        for values in (None, (0, 1), (0.0, 1.0), (0, 255))
    }
    assert len(prints) == 2


def test_a_test_set():
    images, labels = make_images()
    train, test = make_dataset(images[:15], labels[:15]), make_dataset(images[15:], labels[15:])
    data = from_tf_data(train, test.batch(2), validation_split=0.5)
    assert sorted(numbers(data.train)) == list(range(15))
    assert sorted(numbers(data.test)) == list(range(15, 24))
    assert all(name.startswith("test/") for name in data.test.names)


def test_the_split_depends_on_images_and_seed_only():
    images, labels = make_images()

    def splits(order=slice(None), **options):
        data = from_tf_data(make_dataset(images[order], labels[order]), **options)
        return data.train.fingerprint, numbers(data.test)

    assert splits() == splits(slice(None, None, -1)) == splits(seed=np.int64(0))
    assert splits()[0] != splits(seed=1)[0] and splits()[1] != splits(seed=1)[1]


def test_every_image_and_label_tells_in_the_fingerprint():
    images, labels = make_images()

    def fingerprint(images, labels):
        dataset = make_dataset(images, labels)
        return from_tf_data(dataset, make_dataset(images[:2], labels[:2])).train.fingerprint

    base = fingerprint(images, labels)
    changed, relabeled = images.copy(), labels.copy()
    changed[9, 5, 7, 2] ^= 1
    relabeled[9] = (labels[9] + 1) % CLASSES
    others = {
        fingerprint(changed, labels),
        fingerprint(images, relabeled),
        fingerprint(images.reshape(COUNT, 8, 6, 3), labels),
        fingerprint(images[:-1], labels[:-1]),
    }
    assert len(others | {base}) == 5


def test_few_shot_subset_and_min_edge():
    data = from_tf_data(make_dataset(), examples_per_class=2)
    whole = from_tf_data(make_dataset())
    assert np.bincount(data.train.labels).tolist() == [2, 2, 2]
    assert set(data.train.names) < set(whole.train.names)
    assert data.test.names == whole.test.names
    numbers(data.train)

    def generate():
        for image, label in zip(*make_images(), strict=True):
            yield image[: 3 if image[0, 0, 0] % 4 == 3 else 6], label

    signature = tf.TensorSpec((None, 8, 3), tf.uint8), tf.TensorSpec((), tf.int64)
    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
    with pytest.warns(UserWarning, match="Skipped: 6,") as caught:
        data = from_tf_data(dataset, min_edge=4)
    assert [warning.filename for warning in caught] == [__file__]
    assert {reason for _, reason in data.skipped} == {"3x8 pixels, an edge below min_edge=4"}
    assert all(number % 4 != 3 for number in numbers(data.train) + numbers(data.test))
    with pytest.warns(UserWarning, match="Skipped: 6,"):
        data = from_tf_data(make_dataset(), dataset, min_edge=4)
    assert data.test_size == 18 and all(name.startswith("test/") for name, _ in data.skipped)
    with pytest.raises(ValueError, match=r"`train` .* none, and 24 skipped \(min_edge=9\)"):
        from_tf_data(dataset, min_edge=9)


def test_equal_images_are_all_there():
    images, labels = make_images(6)
    data = from_tf_data(make_dataset(images, labels).repeat(4).shuffle(24), validation_split=0.25)
    assert data.train_size == 18 and len(set(data.train.names + data.test.names)) == 24
    shown = numbers(data.train) + numbers(data.test)
    assert sorted(shown) == sorted(list(range(6)) * 4)


def test_repetition_that_nothing_announces_is_noticed(monkeypatch):
    monkeypatch.setattr("keras_bit.data.sources.tf_data.REPETITION_CHECK", 50)
    monkeypatch.setattr("keras_bit.data.sources.tf_data.REPETITIONS", 5)
    dataset = make_dataset(*make_images(6))
    endless = dataset.repeat().filter(lambda image, label: True)
    assert endless.cardinality() == -2  # unknown
    with pytest.raises(ValueError, match="`train` must end.* 50 images with 6 different.*`repeat`"):
        from_tf_data(endless)
    assert from_tf_data(dataset.repeat(4)).train_size > 20  # below the limit


def test_equal_images_of_several_classes_keep_their_labels():
    images = gray(7, 7, 7, 7, dtype=np.uint8)
    data = from_tf_data(make_dataset(images, [0, 1, 0, 1]).shuffle(4))
    assert sorted(data.train.labels) == sorted(data.test.labels) == [0, 1]


@pytest.fixture
def folder(tmp_path, rng):
    """Class folders of noise; the edges of an image tell its number."""
    for index in range(12):
        path = tmp_path / ("cat", "dog", "emu")[index % 3] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (10 + index, 12, 3), np.uint8)).save(path)
    return tmp_path


@pytest.mark.parametrize("mode", ["int", "categorical"])
def test_folders_read_by_keras(folder, mode):
    def read(**options):
        return keras.utils.image_dataset_from_directory(
            folder, label_mode=mode, image_size=(9, 11), batch_size=5, verbose=False, **options
        )

    data, again = (from_tf_data(read(), validation_split=0.25) for _ in range(2))
    assert data.label_names == ("cat", "dog", "emu")
    assert (data.train_size, data.test_size, data.image_size) == (9, 3, (9, 11))
    assert data.train.fingerprint == again.train.fingerprint
    ordered = from_tf_data(read(shuffle=False), validation_split=0.25)
    assert data.train.fingerprint == ordered.train.fingerprint
    images, labels = (np.concatenate(p) for p in zip(*read(shuffle=False), strict=True))
    ids = labels if mode == "int" else labels.argmax(axis=1)
    known = {
        np.rint(image).astype(np.uint8).tobytes(): label
        for image, label in zip(images, ids, strict=True)
    }
    for split in (data.train, data.test):
        for image, label in zip(split.map(np.array), split.labels, strict=True):
            assert known.pop(image.tobytes()) == label
    assert not known
    subsets = [
        read(validation_split=0.25, subset=side, seed=1) for side in ("training", "validation")
    ]
    assert from_tf_data(*subsets).label_names == ("cat", "dog", "emu")
    assert from_tf_data(read(), label_names=["x", "y", "z"]).label_names == ("x", "y", "z")


def test_binary_labels_of_keras(folder):
    (folder / "emu").rename(folder.parent / "emu")
    dataset = keras.utils.image_dataset_from_directory(
        folder, label_mode="binary", image_size=(9, 11), verbose=False
    )
    assert dataset.element_spec[1] == tf.TensorSpec((None, 1), tf.float32)
    data = from_tf_data(dataset, validation_split=0.25)
    assert data.label_names == ("cat", "dog")
    assert np.bincount(data.train.labels).tolist() == [3, 3]


def test_pipelines_take_it_and_find_its_cache(tmp_path):
    reads = []

    def generate():
        reads.append(1)
        yield from zip(*make_images(), strict=True)

    signature = tf.TensorSpec(SHAPE, tf.uint8), tf.TensorSpec((), tf.int64)
    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature).shuffle(COUNT)
    rule = HyperRule(8, COUNT, 4, resize_edge=12, crop_size=9, mixup_alpha=0)
    for expected in (3, 4):  # scanned, then cached for either side; the second time only scanned
        data = from_tf_data(dataset, validation_split=0.25)
        _, test = pipelines(data, rule, tmp_path, dtype="uint8")
        assert len(reads) == expected
        images, labels = (np.concatenate(part) for part in zip(*test, strict=True))
        originals = list(data.test.map(np.array)) if expected == 4 else None
        assert labels.argmax(axis=1).tolist() == data.test.labels.tolist()
    np.testing.assert_array_equal(images, [resize(image, 9) for image in originals])


def test_images_are_not_held_in_memory(monkeypatch):
    seen, peaks = [], []

    def digest(image, label):
        seen.append(weakref.ref(image))
        peaks.append(sum(each() is not None for each in seen))
        return digest_of(image, label)

    monkeypatch.setattr(tf_data, "digest_of", digest)
    dataset = make_dataset(count=200).shuffle(200)
    data = from_tf_data(dataset, validation_split=0.5)
    assert len(seen) == 200
    assert list(data.train.map(np.shape)) == [SHAPE] * len(data.train)
    assert len(seen) == 400
    assert max(peaks) <= 8  # a window of 5 images, and what the threads and the reader have in hand


def test_results_come_in_turn():
    images, labels = make_images()
    data = from_tf_data(make_dataset(images, labels).shuffle(COUNT))
    alive = []

    def transform(index, image):
        time.sleep(0.002 * (index % 3))
        alive.append(index)
        return index

    assert list(data.train.map_indexed(transform, chunk_size=2)) == list(range(len(data.train)))
    assert alive != sorted(alive)  # they came in another order
    cached = cache_images(data.train, 8, "train")
    np.testing.assert_array_equal(
        cached.images, [resize(images[number], 8) for number in numbers(data.train)]
    )


def test_images_are_transformed_in_threads_within_a_window():
    data = from_tf_data(make_dataset())
    threads, done = set(), []

    def transform(image):
        threads.add(threading.current_thread().name)
        time.sleep(0.005)
        done.append(1)

    mapped = data.train.map(transform)
    next(mapped)
    assert len(done) < COUNT and image_threads()
    mapped.close()
    assert not image_threads()
    list(data.train.map(transform))
    assert len(threads) == 2


def changing(first, later):
    """A data set that yields `first` when it is read for the first time."""
    reads = []

    def generate():
        reads.append(1)
        yield from zip(*(first if len(reads) == 1 else later), strict=True)

    signature = tf.TensorSpec(SHAPE, tf.uint8), tf.TensorSpec((), tf.int64)
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


def altered(change):
    images, labels = make_images()
    images, labels = images.copy(), labels.copy()
    return change(images, labels) or (images, labels)


def set_pixel(images, labels):
    images[3, 4, 5, 1] ^= 1


def set_label(images, labels):
    labels[3] = (labels[3] + 1) % CLASSES


@pytest.mark.parametrize(
    ("change", "received"),
    [
        (set_pixel, "an image, or a label, that did not come the first time"),
        (set_label, "an image, or a label, that did not come the first time"),
        (lambda images, labels: (images[:-1], labels[:-1]), "1 of 24 images missing"),
        (lambda images, labels: (images[:0], labels[:0]), "24 of 24 images missing"),
        (
            lambda images, labels: (np.tile(images, (2, 1, 1, 1)), np.tile(labels, 2)),
            "an image, or a label, that did not come the first time",
        ),
    ],
)
@pytest.mark.parametrize("side", ["train", "test"])
def test_a_data_set_that_changes_is_refused(change, received, side):
    data = from_tf_data(changing(make_images(), altered(change)))
    with pytest.raises(RuntimeError, match="`train` must yield the same images .*augment") as error:
        list(getattr(data, side).map(np.shape))
    assert received in str(error.value)
    assert not image_threads()


def test_random_augmentation_is_refused():
    shuffled = make_dataset().shuffle(COUNT)
    dataset = shuffled.map(lambda x, y: (tf.image.random_brightness(x, 0.2), y))
    with pytest.raises(RuntimeError, match="Leave random augmentation out"):
        pipelines(from_tf_data(dataset), HyperRule(8, COUNT, 4))


def with_labels(labels, batch=None):
    images, _ = make_images()
    dataset = make_dataset(images, np.array(labels))
    return dataset.batch(batch) if batch else dataset


def with_label(value, at=5):
    """Float class ids, one of which is `value`."""
    labels = (np.arange(COUNT) % CLASSES).astype(np.float64)
    labels[at] = value
    return with_labels(labels)


def one_hot_but(label):
    """One-hot labels, one of which is `label`."""
    labels = np.eye(CLASSES)[np.arange(COUNT) % CLASSES].astype(np.asarray(label).dtype)
    labels[5] = label
    return labels


SOFT = np.array([0.3, 0.0, 0.7], np.float32)


def with_pixel(value, at=5, white=1.0):
    images, labels = make_images()
    images = images.astype(np.float32) * np.float32(white / 255)
    images[at, 1, 2, 0] = value
    return make_dataset(images, labels)


def named(dataset, names):
    dataset.class_names = names
    return dataset


WRONG = {
    "a path": (TypeError, lambda: "photos", "`train` must be a tf.data.Dataset.*image_folder"),
    "arrays": (TypeError, make_images, "`train` must be a tf.data.Dataset.*from_arrays"),
    "a list": (TypeError, lambda: [make_dataset()] * 2, "a list of tf.data.Datasets.*from_tf_data"),
    "endless": (ValueError, lambda: make_dataset().repeat(), "`train` must end.*`repeat`"),
    "endless batches": (ValueError, lambda: make_dataset().repeat().batch(3), "must end"),
    "dicts": (
        ValueError,
        lambda: make_dataset().map(lambda x, y: {"image": x, "label": y}),
        r"pairs .* a dict of \['image', 'label'\].*as_supervised=True",
    ),
    "weights": (
        ValueError,
        lambda: make_dataset().map(lambda x, y: (x, y, 1.0)),
        "pairs .* 3 parts.*lambda image, label, weight",
    ),
    "no labels": (
        ValueError,
        lambda: make_dataset().map(lambda x, y: x),
        "pairs .*label_mode=None",
    ),
    "dicts in pairs": (
        ValueError,
        lambda: make_dataset().map(lambda x, y: ({"image": x}, y)),
        "pairs of tensors",
    ),
    "ragged batches": (
        ValueError,
        lambda: (
            make_dataset().ragged_batch(4).map(lambda x, y: (tf.RaggedTensor.from_tensor(x), y))
        ),
        "pairs of tensors.*unbatch",
    ),
    "texts": (
        TypeError,
        lambda: make_dataset(np.array(["a", "b"]), [0, 1]),
        "images of uint8 or floats.*string.*decode_image",
    ),
    "text labels": (TypeError, lambda: make_dataset(gray(1, 2), ["a", "b"]), "that are numbers"),
    "gray": (
        ValueError,
        lambda: make_dataset().map(lambda x, y: (x[..., :1], y)),
        r"RGB .*shape \(6, 8, 1\).*grayscale_to_rgb",
    ),
    "gray without channel": (
        ValueError,
        lambda: make_dataset().map(lambda x, y: (x[..., 0], y)),
        r"shape \(6, 8\).*grayscale_to_rgb",
    ),
    "gray of unknown shape": (
        ValueError,
        lambda: make_dataset().map(lambda x, y: (forget_shape(x[..., :1]), y)),
        r"`train` .*example 0, shape \(6, 8, 1\).*grayscale_to_rgb",
    ),
    "transparent": (
        ValueError,
        lambda: make_dataset(np.zeros((4, 5, 5, 4), np.uint8), [0, 1, 0, 1]),
        r"shape \(5, 5, 4\)",
    ),
    "no pixels": (
        ValueError,
        lambda: make_dataset(np.zeros((4, 0, 5, 3), np.uint8), [0, 1, 0, 1]),
        r"at least one pixel.*example 0 of shape \(0, 5, 3\)",
    ),
    "empty": (ValueError, lambda: make_dataset().take(0), "`train` .*an empty data set"),
    "uneven batches": (
        ValueError,
        lambda: make_dataset().batch(6).map(lambda x, y: (x, y[1:])),
        r"a label for each image.*\(6, 6, 8, 3\), labels of shape \(5,\)",
    ),
    "one class": (ValueError, lambda: with_labels([0] * COUNT), "At least two classes"),
    "soft": (
        ValueError,
        lambda: with_labels(one_hot_but(SOFT)),
        r"example 5 .*\[0.3 0.  0.7\].*MixUp",
    ),
    "soft in batches": (ValueError, lambda: with_labels(one_hot_but(SOFT), 4), "example 5 .*MixUp"),
    "a part of a class": (ValueError, lambda: with_labels(one_hot_but([0, 0.9, 0])), "example 5 "),
    "multi-hot": (
        ValueError,
        lambda: with_labels(one_hot_but([1, 0, 1]), 7),
        r"example 5 .*\[1 0 1\]",
    ),
    "no class": (ValueError, lambda: with_labels(np.zeros((COUNT, 2))), r"example 0 .*\[0. 0.\]"),
    "matrix labels": (ValueError, lambda: with_labels(np.zeros((COUNT, 2, 2))), r"shape \(2, 2\)"),
    "negative id": (ValueError, lambda: with_label(-1), "example 5 with the label -1.0"),
    "broken id": (ValueError, lambda: with_label(0.5), "example 5 with the label 0.5"),
    "NaN id": (ValueError, lambda: with_label(float("nan")), "example 5 with the label nan"),
    "infinite id": (ValueError, lambda: with_label(float("inf")), "example 5 with the label inf"),
    "high id": (ValueError, lambda: with_label(2.0**40), "24 images, class ids up to 10995"),
    "ids beside one-hot": (
        ValueError,
        lambda: (
            make_dataset()
            .map(lambda x, y: (x, forget_shape(tf.one_hot(y, 3))))
            .concatenate(make_dataset().map(lambda x, y: (x, forget_shape(tf.cast(y, tf.float32)))))
        ),
        r"labels of one form.*\[3, None\]",
    ),
    "negative": (ValueError, lambda: with_pixel(-0.5), r"\[0, 1\].* example 5 with the value -0.5"),
    "in [-1, 1]": (ValueError, lambda: pair(-1.0, 1.0), r"example 0 .*value -1.*such as \(-1, 1\)"),
    "too bright": (ValueError, lambda: with_pixel(256), r"\[0, 255\].* example 5 .* value 256"),
    "16 bits": (ValueError, lambda: pair(0, 999, dtype=np.uint16), r"example 3 .* value 999"),
    "NaN": (ValueError, lambda: with_pixel(float("nan")), "example 5 with NaN"),
    "infinite": (ValueError, lambda: with_pixel(float("inf")), "example 5 with NaN or infinite"),
    "in neither range": (ValueError, lambda: with_pixel(1.25), "`value_range` .*value of 1.25"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_data_sets_are_refused(kind):
    error, make, words = WRONG[kind]
    with pytest.raises(error, match=f"(?s){words}"):
        from_tf_data(make())
    assert not image_threads()


@pytest.mark.parametrize("kind", ["a path", "endless", "soft", "too bright", "empty"])
def test_the_test_side_is_checked_too(kind):
    error, make, _ = WRONG[kind]
    with pytest.raises(error, match="`test` must"):
        from_tf_data(make_dataset(), make())


def test_an_endless_data_set_is_not_read():
    def generate():
        raise AssertionError("was read")
        yield

    signature = tf.TensorSpec(SHAPE, tf.uint8), tf.TensorSpec((), tf.int64)
    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
    with pytest.raises(ValueError, match="must end"):
        from_tf_data(dataset, dataset.repeat())


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"validation_split": True}, ValueError, "`validation_split`"),
        ({"seed": -1}, ValueError, "`seed`"),
        ({"min_edge": 0.5}, ValueError, "`min_edge`"),
        ({"examples_per_class": 0}, ValueError, "`examples_per_class`"),
        ({"examples_per_class": 8}, ValueError, "'0' with 7 training images"),
        ({"label_names": ["a", "b"]}, ValueError, "2 names, class ids up to 2"),
        ({"label_names": "abc"}, TypeError, "`label_names` must be a sequence"),
        ({"label_names": ["a", "b", "b"]}, ValueError, "`label_names` must differ"),
        ({"value_range": (1, 0)}, ValueError, r"`value_range` .*=\(1, 0\)"),
        ({"value_range": 255}, ValueError, "`value_range` .*=255"),
        ({"value_range": (0, float("nan"))}, ValueError, "`value_range`"),
        ({"value_range": (0, 100)}, ValueError, r"values in \[0, 100\]"),
    ],
)
def test_options_are_checked(options, error, words):
    with pytest.raises(error, match=words):
        from_tf_data(make_dataset(), **options)


def test_both_sides_must_fit_each_other():
    train = make_dataset()
    with pytest.raises(ValueError, match="the same data set for both"):
        from_tf_data(train, train)
    with pytest.raises(ValueError, match=r"same classes .*\('a', 'b', 'c'\) and \('a', 'c', 'b'\)"):
        from_tf_data(named(train, ["a", "b", "c"]), named(make_dataset(), ["a", "c", "b"]))
    with pytest.raises(ValueError, match="2 names, class ids up to 2"):
        from_tf_data(named(with_labels(np.arange(COUNT) % 2), ["a", "b"]), make_dataset())

    def one_hot(width):
        return make_dataset().map(lambda x, y: (x, tf.one_hot(y, width)))

    with pytest.raises(ValueError, match=r"labels of \[3, 4\] numbers, 4 classes"):
        from_tf_data(one_hot(3), one_hot(4))
    with pytest.raises(ValueError, match=r"labels of \[3\] numbers, 4 classes"):
        from_tf_data(one_hot(3), label_names=["a", "b", "c", "d"])
    assert from_tf_data(one_hot(5)).label_names == tuple("01234")


def test_errors_of_the_data_set_come_through():
    def generate():
        yield from zip(*make_images(3), strict=True)
        raise OSError("disk gone")

    signature = tf.TensorSpec(SHAPE, tf.uint8), tf.TensorSpec((), tf.int64)
    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
    with pytest.raises(tf.errors.OpError, match="disk gone"):
        from_tf_data(dataset)
    assert not image_threads()


@pytest.mark.slow
def test_keras_on_jax():
    script = """
        import keras
        from tests.data.sources.test_tf_data import from_tf_data, make_dataset, numbers
        from keras_bit import HyperRule, pipelines

        data = from_tf_data(make_dataset().shuffle(24).batch(5))
        print(sorted(numbers(data.train) + numbers(data.test)) == list(range(24)))
        train, _ = pipelines(data, HyperRule(8, 24, 4, resize_edge=12, crop_size=9))
        print(next(iter(train))[0].shape)
        """
    done = run_on_jax(script)
    assert done.stdout == "True\n(4, 9, 9, 3)\n", done.stderr
