"""The layers of BiT, and MixUp."""

from keras_bit.layers.backbone import BiTBackbone
from keras_bit.layers.group_norm import GroupNorm
from keras_bit.layers.head import ZeroInitHead
from keras_bit.layers.mixup import MixUp
from keras_bit.layers.standardized_conv import StandardizedConv2D

__all__ = ["BiTBackbone", "GroupNorm", "MixUp", "StandardizedConv2D", "ZeroInitHead"]
