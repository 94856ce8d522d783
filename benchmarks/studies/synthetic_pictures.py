"""Draws samples of the synthetic images, and first-layer kernels.

The pictures of `results/embedded_network.md`: `python -m benchmarks.studies.synthetic_pictures`.
"""

import numpy as np
from keras import ops

import keras_bit
from benchmarks.harness.pictures import FOLDER, import_pyplot, save_picture
from keras_bit.layers.standardized_conv import standardize_kernel
from keras_bit.pretraining import SyntheticImages
from keras_bit.pretraining.families import FAMILIES
from keras_bit.weights.presets import EMBEDDED

COLUMNS, ROWS, EDGE = 12, 3, 64
SHOWN_CLASSES = 4
ENLARGED = 8


def synthetic_images(family):
    """Images of `SHOWN_CLASSES` classes side by side, those of a class next to each other."""
    images, labels = SyntheticImages([family], SHOWN_CLASSES, 128, 1, image_size=EDGE)[0]
    width = COLUMNS // SHOWN_CLASSES
    return np.concatenate(
        [grid(images[labels == label][: ROWS * width], width) for label in range(SHOWN_CLASSES)],
        axis=1,
    )


def kernels(backbone):
    """The standardized 7x7 kernels of the first convolution, as colors around gray."""
    (kernel,) = backbone.root_block.trainable_weights
    images = np.moveaxis(ops.convert_to_numpy(standardize_kernel(kernel)), 3, 0)
    images = images / (2 * np.abs(images).max(axis=(1, 2, 3), keepdims=True)) + 0.5
    images = np.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=1)
    return grid(images.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2), 8)


def grid(images, columns):
    """One picture of `images`, row by row."""
    count, height, width, channels = images.shape
    rows = images.reshape(count // columns, columns, height, width, channels)
    return rows.transpose(0, 2, 1, 3, 4).reshape(-1, columns * width, channels)


def main():
    pyplot = import_pyplot()
    figure, axes = pyplot.subplots(3, 2, figsize=(10, 4.6), layout="constrained")
    for axis, family in zip(axes.flat, FAMILIES, strict=True):
        axis.imshow(synthetic_images(family))
        axis.set_title(family, fontsize=9)
        axis.set_axis_off()
    save_picture(figure, FOLDER / "formulas.png")

    figure, axes = pyplot.subplots(1, 2, figsize=(7, 2.2), layout="constrained")
    pretrained = keras_bit.BiTBackbone.from_preset(EMBEDDED)
    random = keras_bit.BiTBackbone(pretrained.depth, pretrained.width)
    random.build((None, None, None, 3))
    for axis, backbone, title in zip(
        axes, (pretrained, random), (EMBEDDED, "random weights"), strict=True
    ):
        axis.imshow(kernels(backbone))
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    save_picture(figure, FOLDER / "kernels.png")


if __name__ == "__main__":
    main()
