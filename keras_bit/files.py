"""Files read and written with care."""

import contextlib
import os
import pathlib
import struct
import zipfile
import zlib

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


@contextlib.contextmanager
def written_whole(path):
    """Yields a temporary path beside `path` to write to, which then takes the name `path`."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def reading(path, kind):
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
