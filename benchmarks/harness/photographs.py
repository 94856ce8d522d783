"""Made-up photographs in class folders: JPEG files of a size and weight as cameras' pictures have
on the web, so that decoding costs what it costs there."""

import functools
import io
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

CLASSES = 10
TEST_IMAGES_PER_CLASS = 1


class PipelineCase(NamedTuple):
    """What an input pipeline is to do: photographs, the sizes they are brought to, the batch."""

    per_class: int
    photograph_edge: int
    resize_edge: int
    crop_size: int
    batch_size: int

    def __str__(self):
        photographs = f"{self.images} photographs of {self.photograph_edge} px"
        return f"{photographs}, {self.resize_edge} to {self.crop_size}, batch {self.batch_size}"

    @property
    def images(self):
        return CLASSES * self.per_class

    @property
    def batches(self):
        """Batches in an epoch; there is no partial one."""
        return self.images // self.batch_size

    @property
    def folder(self):
        return photographs(self.per_class, self.photograph_edge).name

    def rule(self):
        import keras_bit

        return keras_bit.HyperRule(
            image_size=self.photograph_edge,
            dataset_size=self.images,
            batch_size=self.batch_size,
            resize_edge=self.resize_edge,
            crop_size=self.crop_size,
            mixup_alpha=0.1,
        )


@functools.cache
def photographs(per_class, edge):
    """Writes `train` and `test` folders of images; they last as long as the program.

    Args:
        per_class: Training images in each of the ten classes.
        edge: About the longer edge of the images in pixels; the other one is three quarters of it.

    Returns:
        The folder, a `tempfile.TemporaryDirectory`.
    """
    folder = tempfile.TemporaryDirectory(prefix="keras_bit-photographs-")
    rng = np.random.default_rng(0)
    for side, count in (("train", per_class), ("test", TEST_IMAGES_PER_CLASS)):
        for label in range(CLASSES):
            class_folder = Path(folder.name, side, f"class{label}")
            class_folder.mkdir(parents=True)
            for number in range(count):
                (class_folder / f"{number:04d}.jpg").write_bytes(_photograph(rng, edge))
    return folder


def _photograph(rng, edge):
    """A JPEG file: smooth colors, with noise for texture, of about 0.25 bytes a pixel."""
    from PIL import Image

    width = edge + int(rng.integers(-edge // 20, edge // 20 + 1))
    height = width * 3 // 4
    colors = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
    smooth = np.asarray(colors.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noisy = smooth + rng.integers(-12, 13, (height, width, 1), np.int16)
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()
