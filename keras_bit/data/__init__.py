"""Data sets of images, and their `tf.data` pipelines."""

from keras_bit.data.augment import Augment
from keras_bit.data.dataset import ImageDataset
from keras_bit.data.pipeline import pipelines
from keras_bit.data.sources import cats_vs_dogs, digits, image_folder, tfds_images

__all__ = [
    "Augment",
    "ImageDataset",
    "cats_vs_dogs",
    "digits",
    "image_folder",
    "pipelines",
    "tfds_images",
]
