"""What is wrong with a file, in words."""

import contextlib
import errno
import json
import os
import pathlib
import re
import textwrap
import zipfile
from collections.abc import Callable, Iterator

from keras_bit.core.files import LARGEST_JSON

AGAIN = "Download it again, or save it again."
# Numbers of the errors that damaged and missing files raise, and NumPy without a number.
DAMAGED = (None, errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ENODEV)
_LONGEST_REASON = 300  # characters
_LONGEST_METADATA = 2**16  # bytes
_LARGEST_FILE = 2**50  # bytes; a header that declares more is damaged
_MISTAKES = (
    (b"<", "is a web page"),
    (b"version https://", "is a pointer to a file: fetch it with `git lfs pull`"),
)


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


def is_no_damage(error: Exception) -> bool:
    """Whether an error says nothing of a file's content: memory is short, or the disk fails."""
    is_of_disk = isinstance(error, OSError) and error.errno not in DAMAGED
    return is_of_disk or isinstance(error, MemoryError)


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
        fault = fault_of(path)
        if not fault:
            cause = _newer_keras(path) or "is damaged or of another kind"
            fault = f"{cause}: {_reason(error)}"
        raise ValueError(f"{rule}. Received: {path}, which {fault}. {advice}".rstrip()) from error


def _newer_keras(path):
    """What to say of a `.keras` file of a version of Keras whose classes this one may not know."""
    with contextlib.suppress(Exception), zipfile.ZipFile(path) as archive:
        with archive.open("metadata.json") as file:
            saved = json.loads(file.read(_LONGEST_METADATA))["keras_version"]
        import keras  # not before it is needed: files of other kinds need none

        own, other = (version.split(".")[:2] for version in (keras.__version__, saved))
        if list(map(int, other)) > list(map(int, own)):
            return f"was saved by Keras {saved}, newer than Keras {keras.__version__} here"
    return None


def fault_of(path: str | os.PathLike) -> str | None:
    """Returns what is wrong with a file as a whole, such as `"is empty"`, or `None`.

    The length that HDF5 and safetensors files declare is compared with the one that they have; a
    zip file must have its directory, which stands at the end. Folders have no fault.

    >>> import pathlib, tempfile
    >>> from keras_bit.core.file_faults import fault_of
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
            entries = json.loads(file.read(min(end - 8, LARGEST_JSON)))
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
