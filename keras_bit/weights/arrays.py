"""The arrays of a network by name, of which only shapes are known until one is asked for."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from keras_bit.core.files import atomic_write

# Deflate shrinks nothing further: a file that claims more is not what it says it is.
LARGEST_RATIO = 1032
_HEAD = ("head/kernel", "head/bias")


@contextlib.contextmanager
def writing(path: str | os.PathLike, dtype: str) -> Iterator[pathlib.Path]:
    """Yields a temporary name for weights of a `dtype`, which becomes `path` at the end.

    Raises:
        ValueError: If `dtype` is neither "float16" nor "float32".
        FloatingPointError: If a value is too large for float16.
    """
    if dtype not in ("float16", "float32"):
        raise ValueError(f'`dtype` must be "float16" or "float32". Received: dtype={dtype!r}')
    with np.errstate(over="raise"), atomic_write(path) as temporary:
        yield temporary


class StoredArray(NamedTuple):
    """An array in a file.

    Attributes:
        shape: Its shape in the network; that of a kernel is (height, width, inputs, outputs).
        load: The function that reads it.
    """

    shape: tuple[int, ...]
    load: Callable[[], np.ndarray]


class WeightArrays(Mapping[str, np.ndarray]):
    """A read-only mapping from the names of `BiTBackbone.named_weights` to arrays of a file.

    An array is read each time it is asked for, so that a network of gigabytes passes through
    memory one array at a time. A head, if there is one, is called `head/kernel`, of shape
    (features, classes), and `head/bias`.

    Args:
        source: The file, for messages.
        stored: A `StoredArray` for each name.
        epsilon: What the file's own library adds to a kernel's variance before the square root.
    """

    def __init__(
        self,
        source: str | os.PathLike,
        stored: Mapping[str, StoredArray],
        epsilon: float = 1e-10,
    ) -> None:
        self.source = str(source)
        self.epsilon = epsilon
        self._stored = dict(stored)

    def __getitem__(self, name: str) -> np.ndarray:
        stored = self._stored[name]
        array = np.asarray(stored.load())
        if array.shape != stored.shape:
            raise ValueError(
                f"The array {name!r} of {self.source} must have the shape that the file declares, "
                f"{stored.shape}. Received: {array.shape}"
            )
        if not np.isfinite(array).all():
            raise ValueError(
                f"The array {name!r} of {self.source} must be finite. Received: infinite or NaN "
                "values, as of training that diverged."
            )
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Dict from name to shape, without reading an array."""
        return {name: stored.shape for name, stored in self._stored.items()}

    def with_epsilon(self, epsilon: float) -> "WeightArrays":
        """The same arrays, for a network that adds another `epsilon`."""
        return WeightArrays(self.source, self._stored, epsilon)

    def without_head(self) -> "WeightArrays":
        """The arrays of the backbone."""
        return self._part(head=False)

    def only_head(self) -> "WeightArrays":
        """The arrays of the head, none where the file has no head."""
        return self._part(head=True)

    def _part(self, head):
        stored = {name: item for name, item in self._stored.items() if (name in _HEAD) == head}
        return WeightArrays(self.source, stored, self.epsilon)


# From arrays to a network that has them: from images (n, height, width, 3) in [0, 1] to features,
# or to logits where the arrays have a head.
NetworkOf = Callable[[WeightArrays], Callable[[np.ndarray], np.ndarray]]
