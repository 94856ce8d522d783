"""The classes of one uploaded image, and pictures of where in it they come from."""

import io
import threading
from typing import NamedTuple

import numpy as np

from keras_bit.data.images import KEEP, try_transform
from keras_bit.evaluation.class_maps import enlarged, overlay
from keras_bit.evaluation.saved_run import SavedRun

PICTURE_EDGE = 640  # pixels


class Answer(NamedTuple):
    """What a model says of an image: as `FilePrediction`, with a picture for each class."""

    classes: tuple[tuple[str, float], ...]
    pictures: tuple[np.ndarray, ...]


class Classifier:
    """The loaded model of a run, for one thread at a time; the others wait."""

    def __init__(self, saved: SavedRun) -> None:
        self.saved = saved
        self._lock = threading.Lock()
        edge = saved.rule.crop_size
        black = np.zeros((1, edge, edge, 3), np.uint8)
        saved.logits(black)  # compiles it now, not at the first request
        if saved.class_maps:
            saved.class_maps(black)

    @property
    def has_maps(self) -> bool:
        """Whether the model has class activation maps."""
        return self.saved.class_maps is not None

    def classify(self, content: bytes, top: int | None = None, maps: bool = False) -> Answer:
        """Returns the classes of an image file, as `predict_files` names them.

        Args:
            content: The file's bytes.
            top: As for `predict_files`.
            maps: Whether to draw pictures, where the model has class activation maps.

        Raises:
            ValueError: If it cannot be read, with the reason.
        """
        maps = maps and self.has_maps
        with self._lock:
            (prediction,) = self.saved.predict([io.BytesIO(content)], top, maps=maps)
        if prediction.error:
            raise ValueError(prediction.error)
        pictures = _draw(content, prediction.maps, self.saved.rule.crop_size) if maps else ()
        return Answer(prediction.classes, pictures)


def _draw(content, class_maps, edge):
    def draw(pixels):
        image = enlarged(pixels, PICTURE_EDGE)
        scale = float(np.abs(class_maps).max(initial=0))
        each = np.moveaxis(class_maps, -1, 0)
        return tuple(overlay(image, class_map, edge, scale) for class_map in each)

    pictures, _ = try_transform(io.BytesIO(content), draw, KEEP)
    return pictures
