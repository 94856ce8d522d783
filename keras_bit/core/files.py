"""Files read and written with care."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import stat
import textwrap
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_bit.core.text import readable_size

CHUNK = 2**22  # bytes

AGAIN = "Download it again, or save it again."
_LARGEST_JSON = 2**26  # bytes
_LONGEST_REASON = 300  # characters
_LARGEST_FILE = 2**50  # bytes; a header that declares more is damaged
_MISTAKES = (
    (b"<", "is a web page"),
    (b"version https://", "is a pointer to a file: fetch it with `git lfs pull`"),
)


def cache_folder() -> pathlib.Path:
    """Returns this package's folder in Keras's cache: `$KERAS_HOME/keras_bit`.

    Without the environment variable `KERAS_HOME` it is `~/.keras/keras_bit`.
    """
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    return pathlib.Path(home) / "keras_bit"


def make_folder(path: str | os.PathLike) -> None:
    """Makes a folder of downloads, and those above it.

    Below a folder that everybody may write to, such as `/tmp`, they are private to the user
    (mode 0700). Raises as `check_owner`.
    """
    path = pathlib.Path(os.path.abspath(path))
    for folder in (*reversed(path.parents), path):
        if not folder.is_dir():
            shared = any(map(_is_shared, folder.parents))
            folder.mkdir(0o700 if shared else 0o777, exist_ok=True)
    check_owner(path)  # afterwards: somebody may have been quicker


def check_owner(path: str | os.PathLike) -> None:
    """Raises a PermissionError where another user may have put a file, or a folder above it.

    So it may be where everybody may write to the folder that it lies in. What belongs to the user
    or to root is trusted.
    """
    for each in {os.path.abspath(path), os.path.realpath(path)}:
        for part in (pathlib.Path(each), *pathlib.Path(each).parents):
            if not os.path.lexists(part) or not _is_shared(part.parent):
                continue
            if (owner := os.lstat(part).st_uid) not in (os.getuid(), 0):
                raise PermissionError(
                    f"Downloads must lie where nobody else may write. Received: {part}, which "
                    f"belongs to the user with number {owner}, in {part.parent}, which everybody "
                    "may write to. Set the environment variable KERAS_HOME, for modules of "
                    "TensorFlow Hub TFHUB_CACHE_DIR, to a folder of your own."
                )


def _is_shared(folder):
    """Whether everybody may write to a folder, as far as the system tells: Windows does not."""
    return os.name != "nt" and folder.is_dir() and bool(folder.stat().st_mode & stat.S_IWOTH)


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
    if size > _LARGEST_JSON:
        raise ValueError(f"{readable_size(size)} of JSON, where {_LARGEST_JSON:,} bytes are most")
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error


def check_zip(path: str | os.PathLike) -> None:
    """Raises where a zip file whose members are stored as they are is damaged, or lies.

    All members are read once, in pieces, for their checksums: who seeks in a member, or maps the
    file into memory, compares none.
    """
    size = os.path.getsize(path)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        declared = sum(member.file_size for member in members)
        if declared > size:
            raise ValueError(f"its parts declare more bytes than it has, {declared:,} and {size:,}")
        if len(set(archive.namelist())) < len(members):
            raise ValueError("two of its parts have the same name")
        if damaged := archive.testzip():
            raise ValueError(f"its part {damaged!r} has another checksum than stated")


@contextlib.contextmanager
def wrap_read_errors(
    path: str | os.PathLike,
    rule: str,
    advice: str = AGAIN,
    *,
    unless: Callable[[Exception], bool] = lambda error: isinstance(error, MemoryError),
) -> Iterator[None]:
    """Turns whatever a reader of files raises into one ValueError, which names the file.

    Libraries raise much over damaged files: `zlib.error`, `tokenize.TokenError`, `RecursionError`.

    Args:
        path: The file, or folder.
        rule: What the argument must be, such as ``"`source` must be an undamaged .npz file"``.
        advice: What to do.
        unless: Whether an error says nothing of the file. It is raised as it is.
    """
    try:
        yield
    except Exception as error:
        if unless(error):
            raise
        fault = fault_of(path) or f"is damaged or of another kind: {_reason(error)}"
        raise ValueError(f"{rule}. Received: {path}, which {fault}. {advice}".rstrip()) from error


def fault_of(path: str | os.PathLike) -> str | None:
    """Returns what is wrong with a file as a whole, such as `"is empty"`, or `None`.

    The length that HDF5 and safetensors files declare is compared with the one that they have; a
    zip file must have its directory, which stands at the end. Folders have no fault.

    >>> import pathlib, tempfile
    >>> from keras_bit.core.files import fault_of
    >>> path = pathlib.Path(tempfile.mkdtemp(), "weights.npz")
    >>> np.savez(path, np.zeros(100))
    >>> content = path.read_bytes()
    >>> fault_of(path), path.write_bytes(content[:500]), fault_of(path)
    (None, 500, 'is cut: 500 bytes, without the directory that ends a zip file')
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return None
    try:
        if path.exists() and not path.is_file():  # a pipe or a device may never end
            return "is not a regular file"
        with open(path, "rb") as file:
            return _fault_of_content(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        return f"cannot be opened: {error.strerror}"


def check_whole(path: str | os.PathLike) -> None:
    """Raises a ValueError with the name and the fault of a file that has one."""
    if fault := fault_of(path):
        raise ValueError(f"{pathlib.Path(path).name} {fault}")


def _fault_of_content(file, size):
    start = file.read(64)
    if not start:
        return "is empty"
    for sign, what in _MISTAKES:
        if start.lstrip().startswith(sign):
            return what
    if size < (full := _declared_size(file, start)) < _LARGEST_FILE:
        return f"is cut: {size:,} of {full:,} bytes"
    if start.startswith(b"PK") and not zipfile.is_zipfile(file):
        return f"is cut: {size:,} bytes, without the directory that ends a zip file"
    return None


def _declared_size(file, start):
    """The length of a whole file in bytes, as its header tells; 0 where none does."""
    start = start.ljust(64, b"\0")
    if start.startswith(b"\x89HDF"):  # the superblock, by its version
        place, width = (40, start[13]) if start[8] < 2 else (28, start[9])
        return int.from_bytes(start[place : place + width], "little")
    if start[8:9] == b"{":  # safetensors: the length of the header, the header, and the arrays
        end = 8 + int.from_bytes(start[:8], "little")
        file.seek(8)
        with contextlib.suppress(Exception):  # of a header that is damaged
            entries = json.loads(file.read(min(end - 8, _LARGEST_JSON)))
            offsets = (entry.get("data_offsets", (0, 0)) for entry in entries.values())
            end += max(stop for _, stop in offsets)
        return end
    return 0


def _reason(error):
    """The first two sentences of an error: one line, not too long, without control characters."""
    text = str(error) or type(error).__name__
    text = "".join(char if char.isprintable() else " " for char in text[: 10 * _LONGEST_REASON])
    text = text.rpartition("Exception encountered: ")[2]  # Keras's, of a layer in a model
    # Keras and NumPy then say how to load what is not safe.
    text = " ".join(re.split(r"(?<=\.) ", text)[:2]).rstrip(". ")
    return textwrap.shorten(text, _LONGEST_REASON, placeholder=" ...")
