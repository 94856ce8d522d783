"""Downloads into Keras's cache folder."""

from keras_bit.weights.fetch.download import cache_path, fetch

__all__ = ["cache_path", "fetch"]
