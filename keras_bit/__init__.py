"""BigTransfer (BiT) fine-tuning as reusable Keras 3 pieces.

Names are imported when they are first asked for: the command answers at once, and Keras on JAX
needs no TensorFlow for the pieces that have no use for it.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_bit.callbacks import fit_hyperrule
    from keras_bit.data.dataset import ImageDataset
    from keras_bit.data.digits import digits
    from keras_bit.data.folders import image_folder
    from keras_bit.data.pipeline import pipelines
    from keras_bit.data.tfds import cats_vs_dogs, tfds_images
    from keras_bit.finetune import fine_tune
    from keras_bit.hyperrule import HyperRule
    from keras_bit.layers.backbone import BiTBackbone
    from keras_bit.layers.classifier import BiTClassifier
    from keras_bit.layers.group_norm import GroupNorm
    from keras_bit.layers.head import ZeroInitHead
    from keras_bit.layers.mixup import MixUp
    from keras_bit.layers.standardized_conv import StandardizedConv2D
    from keras_bit.schedules import HyperRuleSchedule
    from keras_bit.search import HyperBiT
    from keras_bit.weights.presets import presets

__version__ = "0.1.0"

_HOMES = {
    "BiTBackbone": "layers.backbone",
    "BiTClassifier": "layers.classifier",
    "GroupNorm": "layers.group_norm",
    "HyperBiT": "search",
    "HyperRule": "hyperrule",
    "HyperRuleSchedule": "schedules",
    "ImageDataset": "data.dataset",
    "MixUp": "layers.mixup",
    "StandardizedConv2D": "layers.standardized_conv",
    "ZeroInitHead": "layers.head",
    "cats_vs_dogs": "data.tfds",
    "digits": "data.digits",
    "fine_tune": "finetune",
    "fit_hyperrule": "callbacks",
    "image_folder": "data.folders",
    "pipelines": "data.pipeline",
    "presets": "weights.presets",
    "tfds_images": "data.tfds",
}

__all__ = [
    "BiTBackbone",
    "BiTClassifier",
    "GroupNorm",
    "HyperBiT",
    "HyperRule",
    "HyperRuleSchedule",
    "ImageDataset",
    "MixUp",
    "StandardizedConv2D",
    "ZeroInitHead",
    "cats_vs_dogs",
    "digits",
    "fine_tune",
    "fit_hyperrule",
    "image_folder",
    "pipelines",
    "presets",
    "tfds_images",
]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'keras_bit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"keras_bit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_HOMES})
