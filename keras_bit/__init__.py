"""BigTransfer (BiT) fine-tuning as reusable Keras 3 pieces."""

from keras_bit.callbacks import fit_hyperrule
from keras_bit.data.pipeline import pipelines
from keras_bit.data.sources import ImageDataset, cats_vs_dogs, image_folder, tfds_images
from keras_bit.finetune import fine_tune
from keras_bit.hyperrule import HyperRule
from keras_bit.layers.backbone import BiTBackbone
from keras_bit.layers.group_norm import GroupNorm
from keras_bit.layers.head import ZeroInitHead
from keras_bit.layers.mixup import MixUp
from keras_bit.layers.standardized_conv import StandardizedConv2D
from keras_bit.schedules import HyperRuleSchedule
from keras_bit.weights.presets import presets

__version__ = "0.1.0"

__all__ = [
    "BiTBackbone",
    "GroupNorm",
    "HyperRule",
    "HyperRuleSchedule",
    "ImageDataset",
    "MixUp",
    "StandardizedConv2D",
    "ZeroInitHead",
    "cats_vs_dogs",
    "fine_tune",
    "fit_hyperrule",
    "image_folder",
    "pipelines",
    "presets",
    "tfds_images",
]
