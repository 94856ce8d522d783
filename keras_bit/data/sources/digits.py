"""scikit-learn's handwritten digits as an `ImageDataset`: small, and on every machine."""

import dataclasses

import numpy as np

from keras_bit.data.dataset import ImageDataset
from keras_bit.data.sources.selection import Selection, few_shot_subset, stratified_split


def digits(
    *, validation_split: float = 0.2, examples_per_class: int | None = None, seed: int = 0
) -> ImageDataset:
    """Handwritten digits: the 1,797 images of 8x8 pixels that scikit-learn brings with it.

    Gray values 0 to 16 become 0 to 255, and every pixel a square of 4x4, so that the images have
    edges of 32 pixels, which `BiTBackbone` needs. They lie in memory; no network is used.

    Args:
        validation_split, examples_per_class, seed: As for `image_folder`.

    Raises:
        ValueError: An argument is out of range.

    Example:

    >>> data = keras_bit.digits(examples_per_class=5)
    >>> data.train_size, data.image_size
    (50, (32, 32))
    """
    from sklearn.datasets import load_digits

    selection = Selection(validation_split, seed, 0, examples_per_class)
    inks, labels = load_digits(return_X_y=True)
    gray = np.rint(inks.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    images = gray[..., np.newaxis].repeat(4, axis=1).repeat(4, axis=2).repeat(3, axis=3)
    train, test = stratified_split(labels, "0123456789", selection)
    train = train[few_shot_subset(labels[train], "0123456789", selection)]
    data = ImageDataset.from_arrays(images[train], labels[train], images[test], labels[test])
    return dataclasses.replace(data, test_is_held_out=True)
