"""Image files for the tests, and the threads that read them."""

import io
import os
import struct
import threading
import zlib

from PIL import Image

FIXED_TIME = 1_600_000_000_000_000_000


def make_folder(root, counts, size=(12, 10), names=None):
    """Class folders with `counts[name]` PNG files whose gray value is the image's number."""
    for label, count in counts.items():
        folder = root / label
        folder.mkdir(parents=True)
        for index in names or range(count):
            path = folder / f"{index:02d}.png"
            Image.new("RGB", size, (index, index, index)).save(path)
            os.utime(path, ns=(FIXED_TIME, FIXED_TIME))
    return root


def relative_names(split, root):
    return [os.path.relpath(name, root).replace(os.sep, "/") for name in split.names]


def encoded_image(index, size, encoding="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size[::-1], (index, 0, 0)).save(buffer, encoding)
    return buffer.getvalue()


def png_chunk(kind, data):
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def image_threads():
    return [thread for thread in threading.enumerate() if "keras_bit" in thread.name]
