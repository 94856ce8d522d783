"""TensorFlow SavedModels of BiT, from a folder, an archive, TensorFlow Hub or Kaggle."""

from keras_bit.weights.saved_model.handles import is_handle, resolve
from keras_bit.weights.saved_model.reader import read_saved_model

__all__ = ["is_handle", "read_saved_model", "resolve"]
