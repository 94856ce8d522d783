"""Where images come from: one module for each kind of source."""

from keras_bit.data.sources.digits import digits
from keras_bit.data.sources.folders import image_folder
from keras_bit.data.sources.hugging_face import hugging_face_images
from keras_bit.data.sources.tables import image_table
from keras_bit.data.sources.tfds import cats_vs_dogs, tfds_images

__all__ = [
    "cats_vs_dogs",
    "digits",
    "hugging_face_images",
    "image_folder",
    "image_table",
    "tfds_images",
]
