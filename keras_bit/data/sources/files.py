"""Images that lie in files."""

import os
import stat
from pathlib import Path
from typing import Any

from keras_bit.data.images import read_image_size, try_read
from keras_bit.data.sources.encoded import EncodedSplit
from keras_bit.data.sources.selection import Found, Skipped


class FileSplit(EncodedSplit):
    """Images that lie in files."""

    def _identity(self):
        yield from super()._identity()
        yield from map(os.fsencode, self._keys)

    def _sources(self):
        return iter(self.names)


def key_start(root: Path) -> int:
    """Where the part of a path below `root` starts."""
    return len(os.path.join(root, "")) if root.parts else 0


def inspect_file(key_start: int, name: str, label: Any) -> Found | Skipped:
    """`Found`, or `(name, reason)`, of a file, from its header."""
    status, reason = try_read(os.stat, name)
    if status is None:
        return name, str(reason)
    if not stat.S_ISREG(status.st_mode):
        return name, "not a regular file"
    if not status.st_size:
        return name, "empty file"
    # Who changes a file can set back the first of these times, but not the second.
    times = f"{status.st_mtime_ns}\0{status.st_ctime_ns}"
    key = f"{name[key_start:].replace(os.sep, '/')}\0{status.st_size}\0{times}"
    size, reason = try_read(_size_of_regular_file, name)
    return Found(name, label, size, key) if size else (name, str(reason))


def _size_of_regular_file(name):
    with open(name, "rb") as file:  # of a path, `read_image_size` would ask the status again
        return read_image_size(file)
