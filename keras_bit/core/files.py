"""Files read and written with care."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_bit.core.text import readable_size

CHUNK = 2**22  # bytes
LARGEST_JSON = 2**26  # bytes


def cache_folder() -> pathlib.Path:
    """Returns this package's folder in Keras's cache: `$KERAS_HOME/keras_bit`.

    Without the environment variable `KERAS_HOME` it is `~/.keras/keras_bit`.
    """
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    return pathlib.Path(home) / "keras_bit"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` to write to, which then takes the name `path`."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_room(folder: str | os.PathLike, size: int, what: str) -> None:
    """Raises an OSError where the disk that holds `folder` has less than `size` bytes free."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(
            f"{what} takes {readable_size(size)}, but the disk that holds {folder} has "
            f"{readable_size(free)} free. Make room, or choose a folder on a larger disk."
        )


def sync(path: str | os.PathLike) -> None:
    """Waits until a file, or which names a folder holds, would outlive a power failure."""
    if os.name == "nt" and os.path.isdir(path):
        return  # Windows cannot open a folder
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(path: str | os.PathLike) -> str:
    """Returns the crc32c of a file's content, as hexadecimal digits."""
    import google_crc32c

    found = google_crc32c.Checksum()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest().decode()


def crc32c(array: np.ndarray) -> int:
    """Returns the crc32c of an array's values."""
    import google_crc32c

    return google_crc32c.value(array.tobytes())


def json_checksum(content: Any) -> str:
    """Returns the crc32c of what JSON can hold, however its file is laid out."""
    import google_crc32c

    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"{google_crc32c.value(text.encode()):08x}"


def check_folder_name(output: str | os.PathLike, name: str = "output") -> pathlib.Path:
    """Returns the path of a folder; raises where it is empty, or that of a file.

    Errors call the argument `name`.
    """
    if not os.fspath(output):
        raise ValueError(f"`{name}` must name a folder. Received: {name}={output!r}")
    path = pathlib.Path(output)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"`{name}` must be a folder. Received: {name}={path}, a file")
    return path


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes `content` as indented JSON; a file at `path` is replaced when the new one is whole."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike) -> Any:
    """Returns what a JSON file holds; raises a ValueError where it is none that this can read."""
    size = os.path.getsize(path)
    if size > LARGEST_JSON:
        raise ValueError(f"{readable_size(size)} of JSON, where {LARGEST_JSON:,} bytes are most")
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error
