"""Data sets of images, and their input pipelines."""

from keras_bit.data.augment import Augment
from keras_bit.data.dataset import ImageDataset
from keras_bit.data.pipeline import pipelines
from keras_bit.data.sources import (
    cats_vs_dogs,
    digits,
    hugging_face_images,
    image_folder,
    image_table,
    tfds_images,
)

__all__ = [
    "Augment",
    "ImageDataset",
    "cats_vs_dogs",
    "digits",
    "hugging_face_images",
    "image_folder",
    "image_table",
    "pipelines",
    "tfds_images",
]
