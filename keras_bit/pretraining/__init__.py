"""Pretraining on synthetic (formula-driven) images."""

from keras_bit.pretraining.dataset import SyntheticImages
from keras_bit.pretraining.pretrain import pretrain

__all__ = ["SyntheticImages", "pretrain"]
