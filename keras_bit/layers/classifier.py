"""The model of a whole run: the backbone and a head in a row."""

import keras

from keras_bit.layers.backbone import BiTBackbone
from keras_bit.layers.head import ZeroInitHead

ANY_SIZE = (None, None, None, 3)


def check_architecture(preset, depth, width):
    """Raises where a depth or width stands beside a preset, which has its own."""
    if preset is not None and (depth, width) != (50, 1):
        raise ValueError(
            "`depth` and `width` must be left out beside `preset`, which decides them. "
            f"Received: preset={preset!r}, depth={depth}, width={width}"
        )


def build_classifier(num_classes, *, preset=None, depth=50, width=1):
    """Returns a built `keras.Sequential` of `BiTBackbone` and `ZeroInitHead` for any image size.

    Args:
        num_classes: Number of classes.
        preset: Name of released weights; `None` for random ones.
        depth: Depth of the backbone where there is no preset.
        width: Width of the backbone where there is no preset.

    Raises:
        ValueError: If a depth or width stands beside a preset.
    """
    check_architecture(preset, depth, width)
    backbone = BiTBackbone(depth, width) if preset is None else BiTBackbone.from_preset(preset)
    return assemble([backbone, ZeroInitHead(num_classes)])


def assemble(layers):
    """Returns a new built, uncompiled `keras.Sequential` of layers that may have been used."""
    model = keras.Sequential(layers)
    model.build(ANY_SIZE)
    return model
