"""scikit-learn's handwritten digits as an `ImageDataset`: small, and on every machine."""

import numpy as np

from keras_bit.data.dataset import ImageDataset, Selection, divide, few_per_class

_ENLARGEMENT = 4


def digits(*, validation_split=0.2, examples_per_class=None, seed=0):
    """Handwritten digits: the 1,797 images of 8x8 pixels that scikit-learn brings with it.

    Grey values 0 to 16 become 0 to 255, and every pixel a square of 4x4, so that the images have
    the 32 pixels an edge that `BiTBackbone` needs. No network is used.

    Args:
        validation_split: Fraction of each class that becomes its test images.
        examples_per_class: Number of training images that are kept of each class. Default: all.
        seed: Non-negative integer; chooses the test images and the few-shot images.

    Returns:
        An `ImageDataset` of `np.uint8` images of shape `(32, 32, 3)` in memory.

    Raises:
        ValueError: A number is out of range, or a class has too few images.

    Example:

    ```python
    import keras_bit

    data = keras_bit.digits()
    print(data.num_classes, data.image_size)  # 10 (32, 32)
    ```
    """
    from sklearn.datasets import load_digits

    selection = Selection(validation_split, seed, 0, examples_per_class).checked()
    inks, labels = load_digits(return_X_y=True)
    grey = np.rint(inks.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    grey = grey.repeat(_ENLARGEMENT, axis=1).repeat(_ENLARGEMENT, axis=2)
    images = np.stack([grey] * 3, axis=-1)
    label_names = [str(label) for label in range(10)]
    train, test = divide(labels, label_names, selection)
    train = train[few_per_class(labels[train], label_names, selection)]
    return ImageDataset.from_arrays(
        images[train], labels[train], images[test], labels[test], label_names
    )
