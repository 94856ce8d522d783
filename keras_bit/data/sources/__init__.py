"""Where images come from: one module for each kind of source."""

from keras_bit.data.sources.digits import digits
from keras_bit.data.sources.folders import image_folder
from keras_bit.data.sources.tfds import cats_vs_dogs, tfds_images

__all__ = ["cats_vs_dogs", "digits", "image_folder", "tfds_images"]
