"""Images with several labels: arrays, `tf.data`, and how they are split."""

import numpy as np
import pytest

from keras_bit.data.dataset import ImageDataset
from keras_bit.data.sources.selection import Selection, stratified_split

LABELS = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 1], [1, 1, 1], [1, 0, 0], [0, 1, 0]])
IMAGES = np.broadcast_to(np.arange(6, dtype=np.uint8)[:, None, None, None], (6, 4, 5, 3))


def test_multi_hot_arrays():
    data = ImageDataset.from_arrays(IMAGES, LABELS, IMAGES, LABELS.astype(bool), ("a", "b", "c"))
    assert data.multi_label and data.num_classes == 3
    for split in (data.train, data.test):
        assert split.labels.dtype == np.uint8 and split.labels.tolist() == LABELS.tolist()
        with pytest.raises(ValueError, match="read-only"):
            split.labels[0] = 1
    changed = LABELS.copy()
    changed[1, 2] = 1
    other = ImageDataset.from_arrays(IMAGES, changed, IMAGES, LABELS)
    assert other.train.fingerprint != data.train.fingerprint


def test_one_hot_arrays_are_class_ids_unless_they_are_said_to_be_several_labels():
    labels = np.eye(3)[[2, 0, 1, 2, 0, 1]]
    data = ImageDataset.from_arrays(IMAGES, labels)
    assert not data.multi_label and data.train.labels.ndim == 1
    ids = ImageDataset.from_arrays(IMAGES, labels.argmax(1))
    assert data.train.fingerprint == ids.train.fingerprint
    assert ImageDataset.from_arrays(IMAGES, labels, multi_label=True).multi_label


@pytest.mark.parametrize(
    ("message", "labels", "options"),
    [
        ("each of the 3 columns.*: 4 names", LABELS, {"label_names": "abcd"}),
        ("name every class.*: 2 names", LABELS, {"label_names": "ab"}),
        ("single 1 in each row", LABELS, {"multi_label": False}),
        ("0 and 1 of shape", LABELS[:, 0], {"multi_label": True}),
        ("`multi_label` must be True or False", LABELS, {"multi_label": "yes"}),
    ],
)
def test_errors_of_multi_hot_arrays(message, labels, options):
    options["label_names"] = tuple(options["label_names"]) if "label_names" in options else None
    with pytest.raises(ValueError, match=message):
        ImageDataset.from_arrays(IMAGES, labels, **options)


def test_the_split_keeps_rare_labels_on_both_sides():
    rng = np.random.RandomState(0)
    labels = (rng.uniform(size=(2000, 12)) < np.geomspace(0.002, 0.6, 12)).astype(np.uint8)
    names = tuple("abcdefghijkl")
    train, test = stratified_split(labels, names, Selection(0.1, seed=1))
    assert sorted([*train, *test]) == list(range(2000)) and abs(len(test) - 200) <= 12
    counts, held_out = labels.sum(0), labels[test].sum(0)
    assert counts.min() < 8  # a random tenth would leave it out more often than not
    # At least one on each side; the more frequent a label, the nearer to a tenth of it.
    assert np.all(held_out >= 1) and np.all(held_out < counts)
    assert np.all(np.abs(held_out - 0.1 * counts) <= 1)
    again = stratified_split(labels, names, Selection(0.1, seed=1))
    assert np.array_equal(again[1], test)
    assert not np.array_equal(stratified_split(labels, names, Selection(0.1, seed=2))[1], test)


def test_labels_of_single_images_leave_the_split_as_large_as_asked_for():
    own, common = np.eye(100, dtype=np.uint8), np.ones((100, 1), np.uint8)
    names = tuple(map(str, range(101)))
    for labels in (own[:, :100], np.hstack([own, common])):
        train, test = stratified_split(labels, names, Selection(0.2, seed=1))
        assert (len(train), len(test)) == (80, 20)
    half = np.hstack([own[:, :50], common])  # Images with a label of their own are for training.
    train, test = stratified_split(half, names[:51], Selection(0.2, seed=1))
    assert (len(train), len(test)) == (80, 20) and set(range(50)) <= set(train)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.8])
def test_labels_of_single_images_are_trained_on(fraction):
    rng, names = np.random.default_rng(0), tuple("abcdefghijkl")
    for seed in range(20):
        labels = (rng.random((60, 12)) < np.geomspace(0.01, 0.5, 12)).astype(np.uint8)
        train, test = stratified_split(labels, names, Selection(fraction, seed=seed))
        single = labels.sum(0) == 1
        assert not labels[test][:, single].any()
        assert abs(len(test) - 60 * fraction) <= 6


def test_the_split_of_labels_that_one_image_or_none_has():
    labels = np.zeros((10, 3), np.uint8)
    labels[:6, 0], labels[7, 1] = 1, 1
    with pytest.warns(UserWarning, match="Labels that no") as caught:
        images = np.zeros((10, 4, 4, 3), np.uint8)
        data = ImageDataset.from_arrays(images, labels, None, None, ("a", "b", "c"))
    told = [str(warning.message) for warning in caught]
    assert told == [
        "Labels that no training image has: 'c'",
        "Labels that no test image has: 'b', 'c'",
    ]
    assert data.train.labels.sum(0).tolist() == [5, 1, 0] and data.test_size == 1
    with pytest.raises(ValueError, match="At least two images"):
        ImageDataset.from_arrays(images[:1], labels[:1], multi_label=True)


def test_multi_hot_tf_data():
    tf = pytest.importorskip("tensorflow")
    dataset = tf.data.Dataset.from_tensor_slices((np.array(IMAGES), LABELS.astype(np.float32)))
    with pytest.raises(ValueError, match="set `multi_label`"):
        ImageDataset.from_tf_data(dataset)
    data = ImageDataset.from_tf_data(dataset, dataset.take(3).batch(2), multi_label=True)
    assert data.multi_label and (data.train_size, data.test_size) == (6, 3)
    shown = list(data.train.map(lambda image: int(image[0, 0, 0])))
    assert sorted(shown) == list(range(6))
    assert data.train.labels.tolist() == LABELS[shown].tolist()
    soft = tf.data.Dataset.from_tensor_slices((np.array(IMAGES), LABELS / 2))
    with pytest.raises(ValueError, match="0 and 1 only, as `multi_label`"):
        ImageDataset.from_tf_data(soft, multi_label=True)
