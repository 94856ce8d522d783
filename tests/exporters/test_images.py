import numpy as np
import pytest

import keras_bit
from keras_bit.data.resize import resize as resize_square
from keras_bit.exporters import images as module
from keras_bit.exporters.images import Images, batches, photographs, resize_all

pytestmark = pytest.mark.tensorflow


def dataset(train=30, test=12):
    def side(count, start):
        pixels = np.arange(start, start + count, dtype=np.uint8).reshape(-1, 1, 1, 1)
        return np.broadcast_to(pixels, (count, 34, 40, 3)), np.arange(count) % 2

    return keras_bit.ImageDataset.from_arrays(*side(train, 0), *side(test, 100))


def test_test_images_are_compared_and_training_images_calibrate(monkeypatch):
    monkeypatch.setattr(module, "MOST_COMPARED", 6)
    monkeypatch.setattr(module, "MOST_CALIBRATING", 10)
    found = Images.of(dataset())
    examples = [(image[0, 0, 0], label) for image, label in found.examples()]
    assert examples == [(100, 0), (102, 0), (104, 0), (106, 0), (108, 0), (110, 0)]
    assert [image[0, 0, 0] for image in found.calibration()] == list(range(0, 30, 3))


def test_arrays_serve_for_both(images):
    found = Images.of(images)
    assert [label for _, label in found.examples()] == [None] * 24
    np.testing.assert_array_equal(list(found.calibration()), images)


def test_without_data_there_are_photographs():
    sizes = {image.shape[:2] for image in photographs()}
    assert len(sizes) > 10 and all(
        np.array_equal(*pair) for pair in zip(photographs(), photographs(), strict=True)
    )
    image, label = next(Images.of(None).examples())
    assert image.dtype == np.uint8 and image.std() > 20 and label is None


@pytest.mark.parametrize("data", [np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 8), np.uint8), "photos"])
def test_other_data_are_refused(data):
    with pytest.raises((TypeError, ValueError), match="`data` must be"):
        Images.of(data)


def test_images_are_resized_as_by_the_pipeline(rng):
    image = rng.integers(0, 256, (37, 50, 3)).astype(np.uint8)
    np.testing.assert_array_equal(resize_all(image[None], (24, 24))[0], resize_square(image, 24))
    assert (
        resize_all(image[None], None)[0] is not None
        and resize_all(image[None], (24, 30)).shape[2] == 30
    )


def test_batches_of_one_size_and_of_any():
    def shapes(size, fixed):
        examples = (
            (image, None) for image in [np.zeros((40, 50 + i, 3), np.uint8) for i in range(20)]
        )
        return [found.shape[:3] for found, _ in batches(examples, size, fixed)]

    assert shapes((24, 32), True) == [(1, 24, 32), (8, 24, 32), (8, 24, 32), (3, 24, 32)]
    resized_inside = shapes((24, 32), False)
    assert resized_inside == [(8, 24, 32), *[(1, 40, 58 + i) for i in range(12)]]
    free = shapes(None, False)
    assert free == [(8, 96, 128), *[(1, 40, 58 + i) for i in range(8)], (4, 96, 128)]
