"""Whole models: the classifier, and models folded for inference."""

from keras_bit.models.classifier import BiTClassifier, compile_classifier
from keras_bit.models.fold import fold

__all__ = ["BiTClassifier", "compile_classifier", "fold"]
