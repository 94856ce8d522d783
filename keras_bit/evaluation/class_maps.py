"""Class activation maps of a model, and pictures of them over their images."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_bit.evaluation.evaluation import Mistake
from keras_bit.evaluation.pictures import (
    TEST_COLOR,
    TRAIN_COLOR,
    new_figure,
    save_figure,
    shorten,
)
from keras_bit.evaluation.pixels import predict_pixels
from keras_bit.layers.backbone import BiTBackbone
from keras_bit.layers.head import ZeroInitHead
from keras_bit.models.classifier import BiTClassifier

STRIDE = 32  # pixels from one position of a map to the next
PICTURE_EDGE = 320  # pixels on the longer side of an image in a picture
COLUMNS = 6
FOR, AGAINST = TEST_COLOR, TRAIN_COLOR
_STRONGEST = 0.8  # opacity of the largest value
_FADED = 0.75  # contrast of the gray image below the colors

MapsOf = Callable[[np.ndarray], np.ndarray]


class MapPanel(NamedTuple):
    """One panel of a picture: an image with a map over it, or without."""

    title: str
    image: np.ndarray
    class_map: np.ndarray | None = None
    scale: float = 0.0


def class_map_function(model: keras.Model) -> MapsOf | None:
    """Returns a function that gives the class activation maps of a run's model.

    From uint8 images `(n, height, width, 3)` to float32 `(n, rows, columns, classes)`. `None` where
    the logits of the model are no means of maps: without average pooling, or with other layers
    than a `BiTBackbone` and a `ZeroInitHead`.
    """
    layers: list[Any] = getattr(model, "layers", [])
    if [type(layer) for layer in layers] != [BiTBackbone, ZeroInitHead]:
        return None
    if layers[0].pooling != "avg":
        return None
    inputs = keras.Input((None, None, 3))
    mapped = keras.Model(inputs, BiTClassifier(*layers).class_maps(inputs))
    return functools.partial(predict_pixels, mapped)


def overlay(image: np.ndarray, class_map: np.ndarray, edge: int, scale: float) -> np.ndarray:
    """Returns an image in gray with a map in color over it.

    Orange is for the class and blue against it, the stronger the color the more. The positions of
    the map are centered on each 32nd pixel of what the network saw, starting with the first; from
    there colors fade linearly to the next.

    Args:
        image: uint8 `(height, width, 3)`, of any size.
        class_map: Floats `(rows, columns)`.
        edge: Height and width to which the network's input was resized, in pixels.
        scale: The magnitude in the map that gets the strongest color.

    Returns:
        uint8 `(height, width, 3)`.
    """
    from PIL import Image, ImageColor

    down = _interpolation(image.shape[0], edge, class_map.shape[0])
    across = _interpolation(image.shape[1], edge, class_map.shape[1])
    values = down @ class_map @ across.T / (scale or 1.0)
    gray = np.asarray(Image.fromarray(image).convert("L"), np.float64)
    gray = 255 - _FADED * (255 - gray)
    colors = np.array([ImageColor.getrgb(color) for color in (AGAINST, FOR)])
    opacity = _STRONGEST * np.minimum(np.abs(values), 1)[..., None]
    mixed = gray[..., None] * (1 - opacity) + colors[(values > 0).astype(int)] * opacity
    return np.rint(mixed).astype(np.uint8)


def enlarged(image: np.ndarray, edge: int = PICTURE_EDGE) -> np.ndarray:
    """Returns a uint8 image with a longer side of `edge` pixels."""
    from PIL import Image

    ratio = edge / max(image.shape[:2])
    height, width = (max(1, round(size * ratio)) for size in image.shape[:2])
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def draw_class_maps(
    path: str | os.PathLike,
    image: np.ndarray,
    class_maps: np.ndarray,
    titles: Sequence[str],
    edge: int,
) -> None:
    """Writes an image and its maps `(rows, columns, k)`, all on one scale, to the PNG `path`.

    `titles` are those of the maps; `edge` is as for `overlay`.
    """
    panels = _panels(image, "", zip(titles, np.moveaxis(class_maps, -1, 0), strict=True))
    _draw_panels(path, panels, edge)


def draw_mistake_maps(
    path: str | os.PathLike,
    images: np.ndarray | Sequence[np.ndarray],
    class_maps: np.ndarray,
    mistakes: Sequence[Mistake],
    label_names: Sequence[str],
) -> None:
    """Writes the maps of the most confident mistakes to the PNG `path`.

    Beside each image the map of the predicted and that of the true class, on one scale; with
    several labels an image, that of the label that is wrong or missed.

    Args:
        path: File to write.
        images: Square uint8 images as the network saw them.
        class_maps: Floats `(n, rows, columns, classes)`.
        mistakes: One for each image, at least one.
        label_names: Names of the classes.
    """
    panels: list[MapPanel] = []
    for image, maps, mistake in zip(images, class_maps, mistakes, strict=True):
        title = f"{mistake.probability:.2f} {shorten(label_names[mistake.label], 18)}"
        if isinstance(mistake.true, tuple):
            title += "\nmissed" if mistake.label in mistake.true else "\nwrong"
            true = []
        else:
            name = shorten(label_names[mistake.true], 18)
            true = [(f"true: {name}", maps[..., mistake.true])]
        file = shorten(os.path.basename(mistake.name) or mistake.name, 22)
        panels += _panels(image, file, [(title, maps[..., mistake.label]), *true])
    _draw_panels(path, panels, images[0].shape[0])


def _panels(image, title, maps):
    maps = list(maps)
    scale = max(float(np.abs(each).max()) for _, each in maps) if maps else 0.0
    image = enlarged(image)
    return [MapPanel(title, image), *(MapPanel(name, image, each, scale) for name, each in maps)]


def _draw_panels(path, panels, edge):
    columns = min(len(panels), COLUMNS)
    rows = -(-len(panels) // columns)
    height, width = (max(panel.image.shape[side] for panel in panels) for side in (0, 1))
    figure = new_figure(max(columns * 1.9, 4.5), rows * (1.9 * height / width + 0.3) + 0.4)
    for index, panel in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, index)
        image = panel.image
        if panel.class_map is not None:
            image = overlay(image, panel.class_map, edge, panel.scale)
        axes.imshow(image)
        axes.set_title(panel.title, fontsize=9, parse_math=False)
        axes.set_axis_off()
    _add_legend(figure)
    save_figure(figure, path)


def _add_legend(figure: Any) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=FOR, label="for the class"), Patch(color=AGAINST, label="against it")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)


def _interpolation(size, edge, positions):
    """Weights `(size, positions)`, linear, of a map's positions at each pixel of a picture."""
    pixels = (np.arange(size) + 0.5) * edge / size - 0.5
    return np.maximum(0, 1 - np.abs(pixels[:, None] / STRIDE - np.arange(positions)))
