"""The arrays of a network by name, of which only shapes are known until one is asked for."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

HEAD = ("head/kernel", "head/bias")


class StoredArray(NamedTuple):
    """An array in a file.

    Attributes:
        shape: As the network wants it: kernels HWIO, gamma and beta flat.
        load: Function without arguments that reads it.
    """

    shape: tuple
    load: Callable[[], np.ndarray]


class WeightArrays(Mapping):
    """A read-only mapping from the names of `BiTBackbone.named_weights` to arrays.

    An array is read each time it is asked for, so that a network of gigabytes passes through
    memory one array at a time. A head, if there is one, is called `head/kernel`, of shape
    (features, classes), and `head/bias`.

    Args:
        source: What errors call the file.
        stored: Dict from name to `StoredArray`.
        epsilon: What the file's own library adds to a kernel's variance before the root.
        folder: Of the SavedModel that these arrays are from, whose own function can be compared
            with the network; `None` for other kinds of files.
    """

    def __init__(self, source, stored, epsilon=1e-10, folder=None):
        self.source = str(source)
        self.epsilon = epsilon
        self.folder = folder
        self._stored = dict(stored)

    def __getitem__(self, name):
        stored = self._stored[name]
        array = np.asarray(stored.load())
        if array.shape != stored.shape:
            raise ValueError(
                f"The array {name!r} of {self.source} must have the shape that the file declares, "
                f"{stored.shape}. Received: {array.shape}"
            )
        return array

    def __iter__(self):
        return iter(self._stored)

    def __len__(self):
        return len(self._stored)

    @property
    def shapes(self):
        """Dict from name to shape, without reading an array."""
        return {name: stored.shape for name, stored in self._stored.items()}

    def without_head(self):
        """The arrays of the backbone."""
        return self._of(name for name in self if name not in HEAD)

    def only_head(self):
        """The arrays of the head, none where the file has no head."""
        return self._of(name for name in self if name in HEAD)

    def _of(self, names):
        stored = {name: self._stored[name] for name in names}
        return WeightArrays(self.source, stored, self.epsilon, self.folder)
