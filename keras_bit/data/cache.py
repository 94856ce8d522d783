"""A split's images, decoded and resized once and kept as one uint8 array."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import shutil
import threading
import time
import uuid
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_bit.core.device import available_memory
from keras_bit.core.file_faults import is_no_damage
from keras_bit.core.files import check_room, crc32c, sync
from keras_bit.core.locks import exclusive_lock
from keras_bit.core.text import list_some, readable_size
from keras_bit.core.warn import warn_caller
from keras_bit.data.dataset import Split, label_bytes
from keras_bit.data.images import is_damaged
from keras_bit.data.resize import resize

FORMAT_VERSION = 3
IMAGES_FILE = "images.npy"
INDEX_FILE = "index.npz"
NAMED_IN_WARNING = 5
TENSOR_ALIGNMENT = 64  # bytes; so are arrays in .npy files
WRITE_BACK_CHUNK = 2**25  # bytes
RESIZE_CHUNK = 4  # images, one after another in a thread
PROGRESS_DELAY = 1.0  # seconds that a build must take before it shows a bar


@dataclasses.dataclass(frozen=True, eq=False)
class CachedImages:
    """The `count` readable images of a split of `n`, all of one size."""

    images: np.ndarray  # uint8 (n, edge, edge, 3); rows of unreadable images hold nothing of use
    rows: np.ndarray  # int64 (count,), where the readable images lie in `images`, ascending
    labels: np.ndarray  # of the readable images, as `Split.labels`; as are the names
    names: tuple[str, ...]
    checksums: np.ndarray  # uint32 (count,), crc32c of the readable images
    skipped: tuple[tuple[str, str], ...]  # name and reason of each unreadable image
    damaged: tuple[tuple[str, str], ...]  # name and reason of those readable in part, and kept

    def __len__(self):
        return len(self.rows)

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of pixels and labels, wherever and however old the files are."""
        digest = hashlib.blake2b(label_bytes(self.labels), digest_size=16)
        digest.update(self.checksums.astype("<u4").tobytes())
        return digest.hexdigest()

    def take(self, indices: npt.ArrayLike) -> np.ndarray:
        """The readable images at these indices, uint8 `(len(indices), edge, edge, 3)`."""
        return self.images[self.rows[np.asarray(indices, np.int64)]]


def cache_size(count: int, edge: int) -> int:
    """Bytes that a cache of `count` RGB images of `edge` x `edge` pixels takes.

    Example:

    >>> cache_size(25_000, 512)
    19660800000
    """
    return count * edge * edge * 3


def cache_images(
    split: Split | Any, edge: int, name: str, cache_dir: str | os.PathLike | None = None
) -> CachedImages:
    """Decodes every image of `split`, resizes it to `edge` x `edge`, and keeps the result.

    One warning, also on later use of the cache, names the images that cannot be decoded, which are
    skipped, and those that are damaged, which are skipped or kept as the split has it. In
    `cache_dir` each cache is a sub-folder named by `name`, such as `"train"`, `edge` and a hash of
    `split.fingerprint`, `edge` and the format; it gets its name only when it is complete. With
    `None` the array stays in memory. Errors are those of `pipelines`.
    """
    if not len(split):
        raise ValueError(f"The {name} split must hold at least one image. Received: none")
    if cache_dir is None:
        images, stored = _build_in_memory(split, edge, name)
    else:
        images, stored = _load_or_build(split, edge, name, pathlib.Path(cache_dir))
    skipped, damaged = _faulty(split, stored)
    if skipped or damaged:
        warn_caller(_describe(skipped, damaged, f"{len(split)} {name}"))
    names = tuple(split.names[row] for row in stored.rows.tolist())
    labels = split.labels[stored.rows]
    return CachedImages(images, stored.rows, labels, names, stored.checksums, skipped, damaged)


def _build_in_memory(split, edge, name):
    size, available = cache_size(len(split), edge), available_memory()
    if available is not None and size > available:
        raise MemoryError(
            f"The cache of the {name} images takes {readable_size(size)}, but only "
            f"{readable_size(available)} of memory are available. Pass `cache_dir`, a folder on a "
            "disk with that much room."
        )
    memory = np.empty(size + TENSOR_ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % TENSOR_ALIGNMENT  # aligned, TensorFlow takes it without a copy
    images = memory[start : start + size].reshape(len(split), edge, edge, 3)
    return images, _store_resized(split, edge, name, images.__setitem__)


def folder_of(
    split: Split | Any, edge: int, name: str, cache_dir: str | os.PathLike
) -> pathlib.Path:
    """The folder that the cache of a split has, or will have."""
    key = f"{FORMAT_VERSION}|{edge}|{split.fingerprint}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:20]
    return pathlib.Path(cache_dir, f"{name}-{edge}-{digest}")


def _load_or_build(split, edge, name, cache_dir):
    folder = folder_of(split, edge, name, cache_dir)
    cached = _load(folder, split, edge)
    if cached is None:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _only_builder(folder) as alone:
            existed = folder.exists()  # asked first: an unlocked process may finish after `_load`
            cached = _load(folder, split, edge)
            if cached is None:
                _clear(folder, existed, alone)
                _build_on_disk(split, edge, name, folder)
                cached = _load(folder, split, edge)
    if cached is None:
        raise OSError(
            f"The cache {folder} was written but cannot be read back. Check the disk, or choose "
            "another `cache_dir`."
        )
    return cached


def _load(folder, split, edge):
    """Images and what is known of them; `None` where the cache is missing or damaged."""
    try:
        images = np.load(folder / IMAGES_FILE, mmap_mode="c")  # never written; DLPack refuses "r"
        size = os.path.getsize(folder / IMAGES_FILE)
        with open(folder / INDEX_FILE, "rb") as file, np.load(file) as index:
            labels, stored = index["labels"], _Stored(*(index[part] for part in _Stored._fields))
        intact = (
            images.shape == (len(split), edge, edge, 3)
            and images.dtype == np.uint8
            and size == images.offset + images.nbytes
            and stored.rows.shape == stored.checksums.shape
            and stored.faulty.shape == stored.reasons.shape
            and np.array_equal(np.union1d(stored.rows, stored.faulty), np.arange(len(split)))
            and np.all(np.diff(stored.rows) > 0)
            and np.array_equal(labels, split.labels[stored.rows])
            and all(crc32c(images[row]) == sum for row, sum in zip(*stored[:2], strict=True))
        )
    except Exception as error:  # NumPy raises much over damaged files: TokenError, zlib.error
        if is_no_damage(error):
            raise
        return None
    return (images.view(np.ndarray), stored) if intact else None


def _only_builder(folder):
    """Lets one process at a time build the cache `folder`, the others wait; yields whether it does.

    Without locks several processes may build the same cache, each in a scratch folder of its own.
    """

    def warn():
        warn_caller(f"Waiting for another process that builds {folder}.")

    return exclusive_lock(folder.with_name(f".{folder.name}.lock"), warn)


def _clear(folder, existed, alone):
    """Removes what is left of builds that were killed, and a damaged cache."""
    if alone:
        for abandoned in folder.parent.glob(f".{folder.name}.part-*"):
            shutil.rmtree(abandoned)
    if existed:
        warn_caller(f"The cache {folder} is damaged and is rebuilt.")
        shutil.rmtree(folder)


def _build_on_disk(split, edge, name, folder):
    size = cache_size(len(split), edge)
    check_room(folder.parent, size, f"The cache of the {name} images")
    scratch = folder.with_name(f".{folder.name}.part-{uuid.uuid4().hex}")
    scratch.mkdir()
    try:
        stored = _write_images(split, edge, name, scratch / IMAGES_FILE)
        with _open_synced(scratch / INDEX_FILE) as file:
            np.savez(file, labels=split.labels[stored.rows], **stored._asdict())
        try:
            os.rename(scratch, folder)
        except OSError:
            if not folder.is_dir():  # where it is, an unlocked process was faster
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_images(split, edge, name, path):
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(split), edge, edge, 3)}
    row_size = cache_size(1, edge)
    chunk_rows = max(1, WRITE_BACK_CHUNK // row_size)
    lock = threading.Lock()
    with _open_synced(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()

        def store(row, image):
            end = start + (row + 1) * row_size
            with lock:
                file.seek(end - row_size)
                file.write(image)
            if (row + 1) % chunk_rows == 0:
                _start_write_back(file, end - chunk_rows * row_size, end)

        stored = _store_resized(split, edge, name, store)
        file.truncate(start + len(split) * row_size)
    return stored


def _start_write_back(file, start, end):
    """Lets the disk begin with a part of the file, so that `fsync` has little left to wait for."""
    file.flush()
    if hasattr(os, "posix_fadvise"):  # Linux writes dirty pages out before it can drop them
        os.posix_fadvise(file.fileno(), start, end - start, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def _open_synced(path):
    """A new file whose content outlives a power failure if the later renaming does."""
    with open(path, "wb") as file:
        yield file
    sync(path)


class _Stored(NamedTuple):
    """What is known of the images of a split beside their pixels, as in the index of a cache."""

    rows: np.ndarray  # int64, of the readable images
    checksums: np.ndarray  # uint32, of the same
    faulty: np.ndarray  # int64, rows of the unreadable and the damaged images
    reasons: np.ndarray  # strings, of the same


def _store_resized(split, edge, name, store):
    """Calls `store(row, resized image)` for each readable image; returns what is known of them."""

    def work(row, image):  # stores at once, while the image is in the cache of this thread's core
        resized = resize(image, edge)
        store(row, resized)
        return crc32c(resized)

    with contextlib.closing(split.map_indexed(work, RESIZE_CHUNK)) as results:
        checksums = list(_with_progress(results, len(split), name))
    rows = np.array([row for row, sum in enumerate(checksums) if sum is not None], np.int64)
    faulty = np.array(sorted(split.errors), np.int64)
    reasons = np.array([split.errors[row] for row in faulty.tolist()], str)
    stored = _Stored(rows, np.array(checksums)[rows].astype(np.uint32), faulty, reasons)
    if not len(rows):
        skipped, _ = _faulty(split, stored)
        raise ValueError(f"No image of the {name} split could be read: {_listed(skipped)}")
    return stored


def _faulty(split, stored):
    """`(name, reason)` of the images that are skipped, and of those that are damaged but kept."""
    kept = set(stored.rows.tolist())
    skipped: list[tuple[str, str]] = []
    damaged: list[tuple[str, str]] = []
    for row, reason in zip(stored.faulty.tolist(), stored.reasons.tolist(), strict=True):
        (damaged if row in kept else skipped).append((split.names[row], reason))
    return tuple(skipped), tuple(damaged)


def _describe(skipped, damaged, images):
    """The warning of what is skipped and of what is damaged of `images`, such as "9 train"."""
    kinds = {
        "could not be read and are skipped": [each for each in skipped if not is_damaged(each[1])],
        'are damaged and are skipped, but for `damaged="keep"`': [
            each for each in skipped if is_damaged(each[1])
        ],
        "are damaged and are kept as far as they can be decoded": damaged,
    }
    sentences = [
        f"{len(listed)} of {images} images {what}: {_listed(listed)}"
        for what, listed in kinds.items()
        if listed
    ]
    return ". ".join(sentences)


def _with_progress(items, total, name):
    """Passes `items` on, with a bar on a terminal's stderr once that takes noticeable time."""
    from rich.console import Console
    from rich.progress import Progress

    console, start = Console(stderr=True), time.monotonic()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"Caching {name} images", total=total, visible=False)
        for item in items:
            yield item
            progress.update(task, advance=1, visible=time.monotonic() - start > PROGRESS_DELAY)


def _listed(skipped):
    return list_some([f"{name} ({reason})" for name, reason in skipped], NAMED_IN_WARNING)
