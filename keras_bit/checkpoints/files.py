"""The folders of checkpoints: arrays and a manifest, whole or not there at all."""

import concurrent.futures
import dataclasses
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_bit.core.file_faults import is_no_damage, wrap_read_errors
from keras_bit.core.files import check_room, checksum, json_checksum, read_json, sync
from keras_bit.core.warn import warn_caller

FORMAT_VERSION = 2
ARRAYS_FILE = "arrays.safetensors"
MANIFEST_FILE = "manifest.json"
_PREFIX = "checkpoint-"
_PART = ".part"


@dataclasses.dataclass(frozen=True, eq=False)
class Saved:
    """What a checkpoint holds: `arrays` by name, and a dict that came from JSON."""

    path: pathlib.Path
    arrays: dict[str, np.ndarray]
    content: dict[str, Any]


def write_checkpoint(
    folder: pathlib.Path, arrays: Mapping[str, np.ndarray], content: dict[str, Any], keep: int
) -> pathlib.Path:
    """Writes a checkpoint after the newest in `folder`, and removes all but the last `keep`.

    It gets its name only when it lies on the disk whole, with the length and checksum of every
    file. An OSError leaves what was there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = sum(array.nbytes for array in arrays.values())
    check_room(folder, size, f"A checkpoint in {folder}")
    number = max(map(_number, _checkpoints(folder)), default=0) + 1
    path = folder / f"{_PREFIX}{number:06d}"
    scratch = folder / f".{path.name}{_PART}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        _write_arrays(scratch / ARRAYS_FILE, arrays)
        _write_manifest(scratch, content)
        sync(scratch)
        scratch.rename(path)
        sync(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for old in _checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return path


class BackgroundWriter:
    """Writes checkpoints to `folder` in a thread, one after another.

    Attributes:
        path: The last one, or `None` where there is none or it could not be written.
    """

    def __init__(self, folder: pathlib.Path, keep: int) -> None:
        self.path: pathlib.Path | None = None
        self._folder = folder
        self._keep = keep
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._future: concurrent.futures.Future | None = None

    def is_idle(self) -> bool:
        """Whether `write` would not have to wait."""
        return self._future is None or self._future.done()

    def write(self, arrays: Mapping[str, np.ndarray], content: dict[str, Any]) -> None:
        """Begins to write a checkpoint, after the one before it."""
        self.wait()
        self._future = self._pool.submit(
            write_checkpoint, self._folder, arrays, content, self._keep
        )

    def close(self) -> None:
        """Waits for the last one, and ends the thread."""
        self.wait()
        self._pool.shutdown()

    def wait(self) -> None:
        """Waits for the last one; warns where it could not be written."""
        future, self._future = self._future, None
        try:
            self.path = future.result() if future else self.path
        except OSError as error:
            self.path = None
            warn_caller(f"The state of training could not be saved; training continues. {error}")


def newest_checkpoint(folder: pathlib.Path) -> Saved | None:
    """Returns the newest undamaged checkpoint; says which are damaged."""
    for path in reversed(_checkpoints(folder)):
        try:
            return read_checkpoint(path)
        except ValueError as error:
            warn_caller(f"{error} The checkpoint before it, if any, is used.")
    return None


def read_checkpoint(path: pathlib.Path) -> Saved:
    """Reads one checkpoint; raises a ValueError where a length or checksum is not the stated."""
    rule = "A run resumes from an undamaged checkpoint"
    with wrap_read_errors(path, rule, advice="", unless=is_no_damage):
        manifest = read_json(path / MANIFEST_FILE)
        if manifest["format"] != FORMAT_VERSION:
            raise ValueError(
                f"format {manifest['format']}, of another version, not {FORMAT_VERSION}"
            )
        if manifest.pop("crc32c") != json_checksum(manifest):
            raise ValueError(f"{MANIFEST_FILE} has another checksum than it states")
        for name, facts in manifest["files"].items():
            if facts != _facts(path / name):
                raise ValueError(f"{name} has another length or checksum than stated")
        return Saved(path, _read_arrays(path / ARRAYS_FILE), manifest["content"])


def remove_checkpoints(folder: pathlib.Path) -> None:
    """Removes all checkpoints of a folder, those that were not finished too, and the folder."""
    for path in [*_checkpoints(folder), *folder.glob(f".{_PREFIX}*{_PART}")]:
        shutil.rmtree(path, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _checkpoints(folder):
    """The checkpoints of a folder, oldest first."""
    paths = (path for path in folder.glob(f"{_PREFIX}*") if path.name[len(_PREFIX) :].isdecimal())
    return sorted(paths, key=_number)


def _number(path):
    return int(path.name[len(_PREFIX) :])


def _write_arrays(path, arrays):
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # NumPy's part of safetensors does not know the types of ml_dtypes, such as bfloat16.
    plain = {name: array.view(stored_dtype(array.dtype)) for name, array in arrays.items()}
    try:
        save_file(plain, path)
    except SafetensorError as error:  # a disk that is full, for one
        raise OSError(f"{path} cannot be written: {error}") from error
    sync(path)


def _read_arrays(path):
    from safetensors.numpy import load_file

    return load_file(path)


def stored_dtype(dtype: str | np.dtype) -> np.dtype:
    """Returns the type of a variable's array in the file: integers for bfloat16 and the like."""
    import ml_dtypes  # noqa: F401  # Teaches NumPy their names.

    found = np.dtype(dtype)
    return np.dtype(f"uint{8 * found.itemsize}") if found.kind == "V" else found


def _write_manifest(scratch, content):
    files = {path.name: _facts(path) for path in sorted(scratch.iterdir())}
    manifest = {"format": FORMAT_VERSION, "files": files, "content": content}
    text = json.dumps({"crc32c": json_checksum(manifest), **manifest}, indent=2)
    path = scratch / MANIFEST_FILE
    path.write_text(text + "\n", encoding="utf-8")
    sync(path)


def _facts(path):
    return {"bytes": path.stat().st_size, "crc32c": checksum(path)}
