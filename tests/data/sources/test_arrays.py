import numpy as np
import pytest

from keras_bit.data.dataset import ImageDataset


def test_from_arrays():
    images = np.arange(4 * 6 * 8 * 3, dtype=np.uint8).reshape(4, 6, 8, 3)
    data = ImageDataset.from_arrays(images, [[1], [0], [2], [1]], images[:2], [0, 1])
    assert data.label_names == ("0", "1", "2")
    assert (data.train_size, data.test_size, data.image_size) == (4, 2, (6, 8))
    assert data.train.labels.tolist() == [1, 0, 2, 1]
    assert data.train.names == ("train/0", "train/1", "train/2", "train/3")
    assert np.array_equal(list(data.train.map(lambda image: image)), images)
    assert np.shares_memory(next(data.train.map(lambda image: image)), images)


def test_ids_that_begin_with_1_are_warned_of():
    images = np.zeros((6, 4, 4, 3), np.uint8)
    with pytest.warns(UserWarning, match="Class ids that no training image has: 0. The network"):
        ImageDataset.from_arrays(images, [1, 2, 1, 2, 1, 2])


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
        (ValueError, "`labels` .* 3 images", IMAGES, np.eye(3, dtype=int)[:, :, None], None),
        (ValueError, "0 and 1 only", IMAGES, 2 * np.eye(3, dtype=int), None),
        (ValueError, "0 and 1 only", IMAGES, np.full((3, 2), 0.5), None),
        (ValueError, "must have the same form", IMAGES, np.eye(3, dtype=int), None),
        (ValueError, "`labels` must be one class id", IMAGES, [0, 1], None),
        (TypeError, "`labels` must be integers", IMAGES, [0.0, 1.0, 1.0], None),
        (ValueError, "`labels` must count from 0", IMAGES, [-1, 0, 1], None),
        (ValueError, "two classes", IMAGES, [0, 0, 0], None),
        (ValueError, "`label_names` .* 2 names, class ids up to 2", IMAGES, [0, 1, 2], ["a", "b"]),
        (TypeError, "`labels` must be integers", IMAGES, [0, 1, float("nan")], None),
        (ValueError, r"ids up to 1099511627776\. .*np\.unique", IMAGES, [0, 1, 2**40], None),
        (ValueError, "2 names, class ids up to 1099511627776", IMAGES, [0, 1, 2**40], ["a", "b"]),
        (TypeError, r"`label_names` .*label_names\[1\]=1", IMAGES, [0, 1, 1], ["a", 1]),
        (ValueError, "`label_names` must differ", IMAGES, [0, 1, 1], ["a", "a"]),
        (TypeError, "`images` must be arrays. .*'photos'. Use .*image_folder", "photos", [0], None),
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


def test_test_arrays_come_in_pairs():
    labels = [0, 1, 1]
    with pytest.raises(ValueError, match="given together. Received: test_labels=None"):
        ImageDataset.from_arrays(IMAGES, labels, IMAGES)
    with pytest.raises(ValueError, match="given together. Received: test_images=None"):
        ImageDataset.from_arrays(IMAGES, labels, test_labels=labels)


def make_numbered(count):
    """Images that show their number, and class ids that go round."""
    numbers = np.arange(count, dtype=np.uint8)
    return np.broadcast_to(numbers[:, None, None, None], (count, 4, 6, 3)), numbers % 3


@pytest.mark.parametrize("as_sequence", [False, True])
def test_without_test_arrays_a_part_of_each_class_is_held_out(as_sequence):
    images, labels = make_numbered(60)
    data = ImageDataset.from_arrays(
        list(images) if as_sequence else images, labels, validation_split=0.25, seed=3
    )
    assert np.bincount(data.train.labels).tolist() == [15, 15, 15]
    assert np.bincount(data.test.labels).tolist() == [5, 5, 5]
    shown = []
    for split in (data.train, data.test):
        numbers = list(split.map(lambda image: int(image[0, 0, 0])))
        assert split.names == tuple(f"train/{number}" for number in numbers)
        assert split.labels.tolist() == [number % 3 for number in numbers]
        assert all(np.shares_memory(image, images) for image in split.map(lambda image: image))
        shown += numbers
    assert sorted(shown) == list(range(60)) and data.image_size == (4, 6)


def test_the_seed_chooses_the_arrays_that_are_held_out():
    def names(**options):
        data = ImageDataset.from_arrays(*make_numbered(60), **options)
        return data.test.names, data.train.fingerprint

    assert names() == names(seed=0, validation_split=0.1) == names(seed=np.int64(0))
    assert names()[0] != names(seed=1)[0] and names()[1] != names(seed=1)[1]
    assert len(names(validation_split=0.5)[0]) == 30


def test_options_of_the_split_are_checked():
    images, labels = make_numbered(6)
    with pytest.raises(ValueError, match="`validation_split` must .*=True"):
        ImageDataset.from_arrays(images, labels, validation_split=True)
    with pytest.raises(ValueError, match="`seed` must .*=-1"):
        ImageDataset.from_arrays(images, labels, seed=-1)
    with pytest.raises(ValueError, match="two images.* 3 classes of one image each"):
        ImageDataset.from_arrays(images[:3], labels[:3])


def test_the_only_image_of_a_class_is_for_training():
    images, labels = make_numbered(5)  # of the classes 0, 1, 2, 0 and 1
    with pytest.warns(UserWarning, match="one image, which is for training.*: '2'$"):
        data = ImageDataset.from_arrays(images, labels)
    assert sorted(data.train.labels) == [0, 1, 2] and sorted(data.test.labels) == [0, 1]


def test_a_tf_dataset_is_no_array():
    tf = pytest.importorskip("tensorflow")
    dataset = tf.data.Dataset.from_tensor_slices(make_numbered(6))
    with pytest.raises(TypeError, match="`images` must be arrays. .*from_tf_data"):
        ImageDataset.from_arrays(dataset, [0] * 6)
