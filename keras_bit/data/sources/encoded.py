"""Images that are decoded whenever they are asked for."""

from typing import Any

from keras_bit.data.dataset import OrderedSplit
from keras_bit.data.images import check_damaged, try_transform
from keras_bit.data.sources.selection import Found


class EncodedSplit(OrderedSplit):
    """Images in files, or encoded as in files; of damaged ones `damaged` decides."""

    def __init__(self, damaged: str, found: list[Found]):
        super().__init__((image.name for image in found), [image.label for image in found])
        self._damaged = check_damaged(damaged)
        self._keys: list[Any] = [image.key for image in found]

    def _identity(self):
        yield self._damaged.encode()

    def _try_transform(self, source, transform):
        return try_transform(source, transform, self._damaged)
