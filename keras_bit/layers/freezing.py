"""Which layers of a network are not trained."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras


def freeze_inside(layer: keras.Layer) -> None:
    """Freezes the layers in one that was made with `trainable=False`, of which Keras takes none."""
    if not layer.trainable:
        for inner in layer._flatten_layers(include_self=False):
            inner.trainable = False


def freeze(layers: Iterable[keras.Layer], frozen: Any) -> None:
    """Freezes the layers with these paths, such as `"block1"` and `"block1/unit01/a"`.

    Raises:
        ValueError: If `frozen` is no list or tuple of paths of `layers` and of those in them.
    """
    known = dict(_by_path(layers))
    if not isinstance(frozen, (list, tuple)) or any(path not in known for path in frozen):
        names = sorted(path for path in known if "/" not in path)
        raise ValueError(
            f"`frozen` must be a list of names from {names}, or of layers in them, such as "
            f"'block1/unit01'. Received: frozen={frozen!r}"
        )
    for path in frozen:
        known[path].trainable = False


def frozen_paths(layers: Iterable[keras.Layer], prefix: str = "") -> Iterator[str]:
    """Yields the paths of what is frozen, not of what lies in it."""
    for layer in layers:
        path = f"{prefix}{layer.name}"
        if not layer.trainable:
            yield path
        else:
            yield from frozen_paths(_inner(layer), f"{path}/")


def _by_path(layers, prefix=""):
    """Yields `(path, layer)` of layers and of all that they hold."""
    for layer in layers:
        path = f"{prefix}{layer.name}"
        yield path, layer
        yield from _by_path(_inner(layer), f"{path}/")


def _inner(layer):
    return layer._flatten_layers(include_self=False, recursive=False)
