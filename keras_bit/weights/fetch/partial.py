"""The part of a file that has been downloaded so far, and what its server said of the whole."""

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from keras_bit.core.files import read_json, write_json
from keras_bit.core.text import readable_size
from keras_bit.weights.fetch import checksums


class Served(NamedTuple):
    """A file as its server describes it, with `None` for what it does not say."""

    url: str
    size: int | None
    etag: str | None
    last_modified: str | None
    generation: str | None
    md5: str | None
    crc32c: str | None
    sha256: str | None = None  # absent from notes of earlier versions

    @classmethod
    def of(cls, url: str, response: Any, size: int | None = None) -> "Served":
        """What a response says of the file, whose size may be known from elsewhere."""
        headers = response.headers
        length = headers.get("Content-Length", "")
        if size is None and length.isdecimal() and "Transfer-Encoding" not in headers:
            size = int(length)
        names = ("ETag", "Last-Modified", "x-goog-generation")
        declared = checksums.declared(headers)
        return cls(url, size, *map(headers.get, names), *map(declared.get, checksums.DIGITS))

    def is_sound(self) -> bool:
        """Whether all has the type that it should have, of what came from a file."""
        size, *texts = (self.size, *self._replace(size=None))
        return isinstance(size, (int, type(None))) and all(
            text is None or isinstance(text, str) and text.isprintable() for text in texts
        )

    @property
    def validator(self) -> str | None:
        """What `If-Range` may hold, which is no weak ETag."""
        return self.etag if (self.etag or "").startswith('"') else self.last_modified

    def is_continued_by(self, response: Any, start: int) -> bool:
        """Whether a response is the rest, from byte `start`, of the same file."""
        pattern = r"bytes (\d+)-\d+/(?:(\d+)|\*)"
        match = re.fullmatch(pattern, response.headers.get("Content-Range", ""))
        if response.status != 206 or not match or int(match[1]) != start:
            return False
        size = self.size if match[2] is None else int(match[2])
        pairs = zip(self[1:5], Served.of(self.url, response, size)[1:5], strict=True)
        return all(a == b for a, b in pairs if None not in (a, b))


class PartialFile:
    """The beginning of the file `target`, `NAME.part`, and beside it the `Served` of the whole."""

    def __init__(self, target: pathlib.Path) -> None:
        self._target = target
        self._path = target.with_name(f"{target.name}.part")
        self._notes = record_of(self._path)

    @property
    def size(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    def resumable(self, url: str) -> tuple[Served | None, int]:
        """Returns what was served and how many bytes of it to keep; zero: start over."""
        try:
            served = Served(**read_json(self._notes))
        except (OSError, ValueError, TypeError):
            return None, 0
        size = self.size
        if not served.is_sound() or served.url != url or not served.validator:
            return None, 0
        if size > (served.size or size):
            return None, 0
        # Of a whole file the last byte is asked for again: whether it still is that file.
        return served, size - 1 if size == served.size else size

    @contextlib.contextmanager
    def opened(self, served: Served, start: int) -> Iterator[BinaryIO]:
        """Yields the file: to be read up to byte `start`, and written from there."""
        needed = 0 if served.size is None else served.size - self.size
        free = shutil.disk_usage(self._path.parent).free
        if needed > free:
            raise OSError(f"{readable_size(needed)} are needed, and {readable_size(free)} are free")
        with open(self._path, "r+b" if start else "w+b") as file:
            file.truncate(start)
            if not start:
                write_json(self._notes, served._asdict())
            yield file
            file.flush()
            os.fsync(file.fileno())  # before the rename, or a power failure may leave half a file

    def finish(self, served: Served) -> None:
        """Gives the file its name, and a record."""
        record = {**served._asdict(), "modified": self._path.stat().st_mtime_ns}
        # First: of a file without a record no later damage would be seen.
        write_json(record_of(self._target), record)
        os.replace(self._path, self._target)
        self.discard()

    def discard(self) -> None:
        """Removes the part and what is known of it."""
        self._path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)


def record_of(path: pathlib.Path) -> pathlib.Path:
    """Where what is known of a file is stored, beside it."""
    return path.with_name(f"{path.name}.json")
