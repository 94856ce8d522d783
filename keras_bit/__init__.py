"""BigTransfer (BiT) fine-tuning as reusable Keras 3 pieces.

What Keras must know to load a saved model is imported at once, all else when it is first asked for:
Keras on JAX needs no TensorFlow for the pieces that have no use for it.
"""

import importlib
import pathlib
import sys
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
    from keras_bit.layers.fold import fold
    from keras_bit.layers.group_norm import GroupNorm
    from keras_bit.layers.head import ZeroInitHead
    from keras_bit.layers.mixup import MixUp
    from keras_bit.layers.standardized_conv import StandardizedConv2D
    from keras_bit.memory import training_memory
    from keras_bit.micro_batch import largest_micro_batch
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
    "fold": "layers.fold",
    "image_folder": "data.folders",
    "largest_micro_batch": "micro_batch",
    "pipelines": "data.pipeline",
    "presets": "weights.presets",
    "tfds_images": "data.tfds",
    "training_memory": "memory",
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
    "fold",
    "image_folder",
    "largest_micro_batch",
    "pipelines",
    "presets",
    "tfds_images",
    "training_memory",
]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'keras_bit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"keras_bit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_HOMES})


# The command imports Keras only where it needs it, and without the messages of TensorFlow's start.
_IS_COMMAND = pathlib.Path(*sys.argv[:1]).stem == "keras-bit" or sys.orig_argv[1:3] == [
    "-m",
    "keras_bit",
]
if not _IS_COMMAND:
    for _name, _home in _HOMES.items():
        if _home.startswith(("layers.", "schedules", "hyperrule")):
            __getattr__(_name)
