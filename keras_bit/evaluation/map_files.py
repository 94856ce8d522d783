"""The folder of pictures that show class activation maps, one for each file."""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from keras_bit.core.files import check_folder_name
from keras_bit.data.images import KEEP, try_transform
from keras_bit.evaluation.class_maps import draw_class_maps, enlarged
from keras_bit.evaluation.pictures import shorten

if TYPE_CHECKING:
    from keras_bit.evaluation.saved_run import FilePrediction

_LONGEST_NAME = 200  # bytes of an image's name in that of its picture; systems allow about 255


def check_maps_folder(folder: str | os.PathLike) -> pathlib.Path:
    """Returns the path of a new or empty folder; raises where it is neither."""
    path = check_folder_name(folder, "maps")
    if path.exists() and any(path.iterdir()):
        raise FileExistsError(
            f"`maps` must be an empty or new folder. Received: maps={folder}, which holds files. "
            "Choose another one, or empty it."
        )
    return path


def draw_file_maps(
    predictions: Iterable["FilePrediction"], folder: pathlib.Path, edge: int
) -> Iterator["FilePrediction"]:
    """Yields predictions with the `map_file` that is drawn of their `maps`, and without these.

    The folder is made. Files are named after the images, with a number where that is taken. `edge`
    is the height and width of the model's images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    for prediction in predictions:
        if prediction.maps is None:
            yield prediction
            continue
        image, reason = try_transform(prediction.file, enlarged, KEEP)
        if image is None:  # it has been removed meanwhile
            yield dataclasses.replace(prediction, classes=(), error=reason, maps=None)
            continue
        path = folder / _unused_name(os.path.basename(prediction.file), taken)
        titles = [f"{probability:.2f} {shorten(name)}" for name, probability in prediction.classes]
        draw_class_maps(path, image, prediction.maps, titles, edge)
        yield dataclasses.replace(prediction, maps=None, map_file=str(path))


def _unused_name(name: str, taken: set[str]) -> str:
    """A name that is not taken, not even on systems for which case does not count."""
    stem = name
    while len(os.fsencode(stem)) > _LONGEST_NAME:
        stem = stem[:-1]
    numbered = (f"{stem}-{number}.png" for number in itertools.count(2))
    names = itertools.chain((f"{stem}.png",), numbered)
    unused = next(each for each in names if each.casefold() not in taken)
    taken.add(unused.casefold())
    return unused
