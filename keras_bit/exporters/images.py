"""The images that exported files are calibrated with and compared on."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_bit.data import ImageDataset
from keras_bit.data.dataset import check_dataset
from keras_bit.data.resize import resize

Example = tuple[np.ndarray, Any]  # an image and its label, or None
MOST_COMPARED = 500
MOST_CALIBRATING = 100
CROPS = 16
BATCH_SIZE = 8
ANY_SIZE = (96, 128)  # of images that are together, where the network takes any
MOST_SIZES = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """The images at hand: those of a data set, an array, or crops of two photographs.

    Attributes:
        data: An `ImageDataset`, uint8 images (n, height, width, 3), or `None`.
    """

    data: ImageDataset | np.ndarray | None

    @classmethod
    def of(cls, data: Any) -> "Images":
        """Returns them; raises where `data` is of another kind."""
        if data is None:
            return cls(None)
        if isinstance(data, np.ndarray):
            if data.dtype != np.uint8 or data.ndim != 4 or data.shape[-1] != 3 or not len(data):
                raise ValueError(
                    "`data` must be an ImageDataset or uint8 images (n, height, width, 3). "
                    f"Received: an array of {data.dtype} of shape {data.shape}"
                )
            return cls(data)
        return cls(check_dataset(data))

    @property
    def dataset(self) -> ImageDataset | None:
        """The data set, if it is one."""
        return self.data if isinstance(self.data, ImageDataset) else None

    @property
    def _arrays(self) -> Any:
        return self.data if isinstance(self.data, np.ndarray) else photographs()

    def examples(self) -> Iterator[Example]:
        """Yields the images to compare on, with their labels: test images of a data set."""
        if self.dataset is None:
            yield from ((image, None) for image in _spread(self._arrays, MOST_COMPARED))
            return
        split = self.dataset.test
        indices = _spread(range(len(split)), MOST_COMPARED)
        found = split.map_indexed(lambda index, image: (image, split.labels[index]), 1, indices)
        yield from (each for each in found if each is not None)

    def calibration(self) -> Iterator[np.ndarray]:
        """Yields images to calibrate with: training images of a data set."""
        if self.dataset is None:
            yield from _spread(self._arrays, MOST_CALIBRATING)
            return
        split = self.dataset.train
        indices = _spread(range(len(split)), MOST_CALIBRATING)
        found = split.map_indexed(lambda index, image: image, 1, indices)
        yield from (image for image in found if image is not None)


def _spread(items: Any, most: int) -> Any:
    """Every so many of some items: where classes follow each other, some of each."""
    return items[:: -(-len(items) // most)]


def photographs(seed: int = 0) -> list[np.ndarray]:
    """Returns crops of several sizes of the two photographs that scikit-learn comes with."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(seed)
    crops = []
    for _, image in zip(range(CROPS), itertools.cycle(load_sample_images().images)):
        height, width = rng.integers(64, 400, 2)
        top, left = rng.integers(0, np.array(image.shape[:2]) - (height, width))
        crops.append(image[top : top + height, left : left + width])
    return crops


def resize_all(images: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Resizes uint8 images (n, height, width, 3) as `pipelines` does; leaves them with `None`."""
    if size in (None, images.shape[1:3]):
        return images
    return np.stack([resize(image, size) for image in images])


def batches(
    examples: Iterator[Example], size: tuple[int, int] | None, fixed: bool
) -> Iterator[tuple[np.ndarray, list]]:
    """Yields images (n, height, width, 3) that a graph takes, with their labels.

    Of a graph for images of one `size`, `fixed`, the first comes alone and the others together. Of
    one for images of any size the first few come together, resized, and the others as they are;
    some of them, if the network sees these sizes, for which Keras traces it again and again.
    """
    together, alone = (BATCH_SIZE, True), (1, False)  # numbers of images, and whether resized
    if fixed:
        counts = itertools.chain([(1, True)], itertools.repeat(together))
    elif size is not None:
        counts = itertools.chain([together], itertools.repeat(alone))
    else:
        counts = itertools.chain(
            [together], itertools.repeat(alone, MOST_SIZES), itertools.repeat(together)
        )
    for count, resized in counts:
        if not (chunk := list(itertools.islice(examples, count))):
            return
        images = [image[None] for image, _ in chunk]
        images = [resize_all(each, size or ANY_SIZE) for each in images] if resized else images
        yield np.concatenate(images), [label for _, label in chunk]
