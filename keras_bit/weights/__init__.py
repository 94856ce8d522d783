"""Released weights: the table of presets, files of every kind, and downloads."""

from keras_bit.weights.architecture import Architecture
from keras_bit.weights.arrays import StoredArray, WeightArrays
from keras_bit.weights.formats import read_architecture, read_weights
from keras_bit.weights.presets import Preset, find_preset, presets

__all__ = [
    "Architecture",
    "Preset",
    "StoredArray",
    "WeightArrays",
    "find_preset",
    "presets",
    "read_architecture",
    "read_weights",
]
