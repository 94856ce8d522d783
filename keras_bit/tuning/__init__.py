"""Searches with keras-tuner."""

from keras_bit.tuning.hypermodel import HyperBiT

__all__ = ["HyperBiT"]
