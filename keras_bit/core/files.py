"""Files read and written with care."""

import contextlib
import json
import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

_FAULTS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


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


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes `content` as indented JSON; a file at `path` is replaced when the new one is whole."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def wrap_read_errors(path: str | os.PathLike, kind: str) -> Iterator[None]:
    """Turns whatever a reader of files raises into one ValueError that names the file.

    Args:
        path: The file.
        kind: What it must be, such as `"an undamaged .npz file"`.
    """
    try:
        yield
    except _FAULTS as error:
        raise ValueError(
            f"The file must be {kind}. Received: {path}, which cannot be read "
            f"({error or type(error).__name__}). If it was downloaded, download it again."
        ) from error
