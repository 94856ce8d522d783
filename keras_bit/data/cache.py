"""A split's images, decoded and resized once and kept as one uint8 array."""

import contextlib
import dataclasses
import hashlib
import math
import os
import pathlib
import shutil
import threading
import time
import uuid
import warnings
import zipfile
import zlib

import numpy as np

from keras_bit.device import available_memory

FORMAT_VERSION = 1
IMAGES_FILE = "images.npy"
INDEX_FILE = "index.npz"
NAMED_IN_WARNING = 5
TENSOR_ALIGNMENT = 64  # bytes; so are arrays in .npy files
WRITTEN_BACK_AT_ONCE = 2**25  # bytes
RESIZED_AT_ONCE = 4  # images, one after another in a thread
PROGRESS_DELAY = 1.0  # seconds that a build must take before it shows a bar


@dataclasses.dataclass(frozen=True, eq=False)
class CachedImages:
    """The readable images of a split, all of one size.

    Attributes:
        images: uint8 array `(n, edge, edge, 3)`, memory-mapped where it lies on disk: one row for
            each image of the split. Rows of unreadable images hold nothing of use.
        rows: int64 array `(count,)`, the rows of the readable images, ascending.
        labels: int32 array `(count,)`, the class ids of the readable images.
        left_out: Tuple of `(name, reason)`, one for each unreadable image.
    """

    images: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    left_out: tuple

    def __len__(self):
        return len(self.rows)


def cache_size(count, edge):
    """Bytes that a cache of `count` RGB images of `edge` x `edge` pixels takes.

    Example:

    >>> cache_size(25_000, 512)
    19660800000
    """
    return count * edge * edge * 3


def cache_images(split, edge, name, cache_dir=None):
    """Decodes every image of `split`, resizes it to `edge` x `edge`, and keeps the result.

    Images that cannot be decoded are left out with one warning, which a later run from the same
    cache repeats.

    Args:
        split: The images: an object with `len()`, `labels`, `names`, `fingerprint`,
            `map_indexed(transform, at_once)` and `errors`, such as `ImageDataset.train`.
        edge: Height and width in pixels.
        name: What the split is called in folder names and messages, such as `"train"`.
        cache_dir: Folder for caches that last. Each is a sub-folder named by `name`, `edge` and
            a hash of `split.fingerprint`, `edge` and the format, so that a cache of other images
            or of another size is never taken for this one. It gets its name only when it is
            complete. With `None` the array stays in memory.

    Returns:
        `CachedImages`.

    Raises:
        ValueError: If the split is empty or none of its images can be read.
        MemoryError: If the array needs more memory than is available.
        OSError: If the array needs more room than the disk has.
    """
    if not len(split):
        raise ValueError(f"The {name} split must hold at least one image. Received: none")
    if cache_dir is None:
        cached = _build_in_memory(split, edge, name)
    else:
        cached = _load_or_build(split, edge, name, pathlib.Path(cache_dir))
    _warn_left_out(cached, name)
    return cached


def resize(image, edge):
    """Resizes `image` to a square as the released BiT weights were trained.

    Bilinear with half-pixel centres and without antialiasing, as in the authors' input pipeline.

    Args:
        image: uint8 array `(height, width, 3)`.
        edge: Height and width of the result in pixels.

    Returns:
        uint8 array `(edge, edge, 3)`, rounded to nearest.
    """
    import tensorflow as tf

    with tf.device("CPU"):  # what `tf.image.resize` calls, without its checks
        resized = tf.raw_ops.ResizeBilinear(
            images=image[np.newaxis], size=(edge, edge), half_pixel_centers=True
        )
    rounded = np.empty((edge, edge, 3), np.uint8)
    return np.rint(np.asarray(resized)[0], out=rounded, casting="unsafe")


def _build_in_memory(split, edge, name):
    _check_memory(cache_size(len(split), edge), name)
    images = _aligned_empty((len(split), edge, edge, 3))
    rows, left_out = _store_resized(split, edge, name, images.__setitem__)
    return CachedImages(images, rows, split.labels[rows], left_out)


def _aligned_empty(shape):
    """An uninitialised uint8 array that TensorFlow takes as it is, without a copy."""
    size = math.prod(shape)
    memory = np.empty(size + TENSOR_ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % TENSOR_ALIGNMENT
    return memory[start : start + size].reshape(shape)


def _load_or_build(split, edge, name, cache_dir):
    folder = cache_dir / _folder_name(split, edge, name)
    cached = _load(folder, len(split), edge)
    if cached is not None:
        return cached
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _only_builder(folder) as alone:
        existed = folder.exists()  # asked first: an unlocked neighbour may finish after `_load`
        cached = _load(folder, len(split), edge)
        if cached is not None:
            return cached
        if alone:
            for abandoned in cache_dir.glob(f"{_scratch_prefix(folder)}*"):
                shutil.rmtree(abandoned)
        if existed:
            warnings.warn(f"The cache {folder} is damaged and is built again.", stacklevel=5)
            shutil.rmtree(folder)
        _build_on_disk(split, edge, name, folder)
        cached = _load(folder, len(split), edge)
    if cached is None:
        raise OSError(
            f"The cache {folder} was written but cannot be read back. Check the disk, or choose "
            "another `cache_dir`."
        )
    return cached


def _folder_name(split, edge, name):
    key = f"{FORMAT_VERSION}|{edge}|{split.fingerprint}"
    return f"{name}-{edge}-{hashlib.sha256(key.encode()).hexdigest()[:20]}"


def _load(folder, count, edge):
    """The cache in `folder`, or `None` where there is none or it is damaged."""
    try:
        images = np.load(folder / IMAGES_FILE, mmap_mode="c")  # never written; DLPack refuses "r"
        size = os.path.getsize(folder / IMAGES_FILE)
        with np.load(folder / INDEX_FILE) as index:
            rows, labels = index["rows"], index["labels"]
            left_out = tuple(zip(index["names"].tolist(), index["reasons"].tolist(), strict=True))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    intact = (
        images.shape == (count, edge, edge, 3)
        and images.dtype == np.uint8
        and size == images.offset + images.nbytes
        and len(rows) == len(labels) == count - len(left_out)
    )
    return CachedImages(images.view(np.ndarray), rows, labels, left_out) if intact else None


def _build_on_disk(split, edge, name, folder):
    _check_disk(cache_size(len(split), edge), name, folder.parent)
    scratch = folder.with_name(_scratch_prefix(folder) + uuid.uuid4().hex)
    scratch.mkdir()
    try:
        rows, left_out = _write_images(split, edge, name, scratch / IMAGES_FILE)
        _write_index(scratch / INDEX_FILE, rows, split.labels[rows], left_out)
        try:
            os.rename(scratch, folder)
        except OSError:
            if not folder.is_dir():  # where it is, an unlocked neighbour was faster
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_images(split, edge, name, path):
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(split), edge, edge, 3)}
    row_size = cache_size(1, edge)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()

        rows_at_once = max(1, WRITTEN_BACK_AT_ONCE // row_size)
        alone = threading.Lock()

        def store(row, image):
            end = start + (row + 1) * row_size
            with alone:
                file.seek(end - row_size)
                file.write(image)
            if (row + 1) % rows_at_once == 0:
                _start_write_back(file, end - rows_at_once * row_size, end)

        rows, left_out = _store_resized(split, edge, name, store)
        file.truncate(start + len(split) * row_size)
        _sync(file)
    return rows, left_out


def _write_index(path, rows, labels, left_out):
    names = np.array([name for name, _ in left_out], str)
    reasons = np.array([reason for _, reason in left_out], str)
    with open(path, "wb") as file:
        np.savez(file, rows=rows, labels=labels, names=names, reasons=reasons)
        _sync(file)


def _start_write_back(file, start, end):
    """Lets the disk begin with a part of the file, so that `_sync` has little left to wait for."""
    file.flush()
    if hasattr(os, "posix_fadvise"):  # Linux writes dirty pages out before it can drop them
        os.posix_fadvise(file.fileno(), start, end - start, os.POSIX_FADV_DONTNEED)


def _sync(file):
    """Makes sure that the content outlives a power failure if the later renaming does."""
    file.flush()
    os.fsync(file.fileno())


def _store_resized(split, edge, name, store):
    """Calls `store(row, resized image)` for each readable image; returns rows and left out.

    It is called in the threads that decode and resize, while the image is in their core's cache.
    """

    def work(row, image):
        store(row, resize(image, edge))
        return True

    rows, left_out = [], []
    with contextlib.closing(split.map_indexed(work, RESIZED_AT_ONCE)) as results:
        for row, stored in enumerate(_with_progress(results, len(split), name)):
            if stored:
                rows.append(row)
            else:
                left_out.append((split.names[row], str(split.errors[row])))
    if not rows:
        raise ValueError(f"No image of the {name} split could be read: {_listed(left_out)}")
    return np.array(rows, np.int64), tuple(left_out)


def _with_progress(items, total, name):
    """Passes `items` on, with a bar on a terminal's stderr once that takes noticeable time."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    description = "Caching {task.description} images"
    columns = description, BarColumn(None), TaskProgressColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    start = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total, visible=False)
        for item in items:
            yield item
            progress.update(task, advance=1, visible=time.monotonic() - start > PROGRESS_DELAY)


@contextlib.contextmanager
def _only_builder(folder):
    """Lets one process at a time build the cache `folder`; the others wait.

    Yields:
        Whether the lock is held: some systems and network disks have none, and there several
        processes may build the same cache, each in a scratch folder of its own.
    """
    try:
        import fcntl
    except ImportError:
        yield False
        return
    with open(folder.with_name(f".{folder.name}.lock"), "wb") as file:
        alone = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            warnings.warn(f"Waiting for another process that builds {folder}.", stacklevel=7)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            alone = False
        try:
            yield alone
        finally:
            if alone:
                fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough where a fork has a copy


def _scratch_prefix(folder):
    return f".{folder.name}.part-"


def _check_disk(size, name, folder):
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(
            f"The cache of the {name} images takes {_readable(size)}, but the disk that holds "
            f"{folder} has {_readable(free)} free. Make room, choose a `cache_dir` on a larger "
            "disk, or a smaller size of the images."
        )


def _check_memory(size, name):
    available = available_memory()
    if available is not None and size > available:
        raise MemoryError(
            f"The cache of the {name} images takes {_readable(size)}, but only "
            f"{_readable(available)} of memory are available. Pass `cache_dir`, a folder on a "
            "disk with that much room."
        )


def _readable(size):
    from rich.filesize import decimal

    return decimal(size)


def _warn_left_out(cached, name):
    if cached.left_out:
        warnings.warn(
            f"{len(cached.left_out)} of {len(cached.images)} {name} images could not be read and "
            f"are left out: {_listed(cached.left_out)}",
            stacklevel=4,
        )


def _listed(left_out):
    listed = ", ".join(f"{name} ({reason})" for name, reason in left_out[:NAMED_IN_WARNING])
    more = len(left_out) - NAMED_IN_WARNING
    return f"{listed} and {more} more" if more > 0 else listed
