"""Image files decoded to upright RGB, their sizes, and work on many of them in threads."""

import os
import struct
import sys
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np

_FORMATS = ("JPEG", "PNG", "BMP", "GIF")
_NOT_AN_IMAGE = "not a readable JPEG, PNG, BMP or GIF image"
_MAX_WORKERS = 16


def _image_errors():
    """What Pillow raises for files that are broken, hostile or no image at all."""
    from PIL import Image

    return (
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        EOFError,
        MemoryError,
        NotImplementedError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    )


def _open(source):
    from PIL import Image

    Image.preinit()
    return Image.open(source, formats=_FORMATS)


def _orientation(image):
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none or it cannot be read."""
    from PIL import ExifTags, Image

    try:
        # PngImageFile overrides this method with one that decodes the pixels first.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except _image_errors():
        return 1
    return int(value) if value in range(1, 9) else 1


def _upright(pixels, orientation):
    """Turns and mirrors an array of pixels as an EXIF orientation, 1 to 8, asks for."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _jpeg_pixels(image):
    """The RGB pixels of an opened JPEG file from TensorFlow's decoder, or `None`.

    Both decoders are libjpeg-turbo and agree to the bit. TensorFlow's takes two thirds of the time,
    for it goes no way round over four bytes a pixel. It is used where it has been imported anyway,
    and what it refuses is left to Pillow, which has the last word on broken files.
    """
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or image.format != "JPEG" or image.mode not in ("L", "RGB"):
        return None
    image.fp.seek(0)
    try:
        with tensorflow.device("CPU"):
            return np.asarray(
                tensorflow.io.decode_jpeg(
                    image.fp.read(), channels=3, dct_method="INTEGER_ACCURATE"
                )
            )
    except tensorflow.errors.OpError:
        image.fp.seek(0)
        return None


def _grey_from_16_bit(image):
    """8-bit grey from the high byte, which is what Pillow itself keeps of 16-bit colour."""
    from PIL import Image

    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    grey[values == image.info.get("transparency", -1)] = 255
    return Image.fromarray(grey)


def _rgb(image):
    from PIL import Image

    if image.mode.startswith("I"):
        image = _grey_from_16_bit(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def read_image_size(source):
    """Height and width of an image in pixels, from its header, after its EXIF orientation.

    Args:
        source: Path of a JPEG, PNG, BMP or GIF file, or a binary file object.

    Returns:
        `(height, width)`. The orientation of a PNG file counts where it stands before the pixels.
    """
    with _open(source) as image:
        width, height = image.size
        lies_on_its_side = _orientation(image) >= 5
    return (width, height) if lies_on_its_side else (height, width)


def decode_image(source):
    """Decodes an image at full quality to upright RGB.

    Grey, 1-bit, palette, CMYK and 16-bit images (the high byte) become 8-bit RGB. Transparent
    pixels are laid over white. The EXIF orientation is applied. Of animations, and of files with
    several pictures, the first one is taken.

    Args:
        source: Path of a JPEG, PNG, BMP or GIF file (told by its content, not by its name), or a
            binary file object.

    Returns:
        `np.uint8` array of shape `(height, width, 3)`.

    Raises:
        OSError: The file cannot be read or is no such image (`PIL.UnidentifiedImageError`). A
            broken file may raise other errors too, as Pillow finds them.
    """
    with _open(source) as image:
        pixels = _jpeg_pixels(image)
        if pixels is None:
            image.load()
            pixels = np.asarray(_rgb(image))
        return _upright(pixels, _orientation(image))


def reason_of(error):
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return _NOT_AN_IMAGE
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def attempt(read, source):
    """`(read(source), None)`, or `(None, reason)` where the image is unreadable."""
    try:
        return read(source), None
    except _image_errors() as error:
        return None, reason_of(error)


def threaded_map(function, items, at_once=1):
    """Yields `function(item)` in order, computed ahead in threads within a bounded window.

    Args:
        function: Called in several threads.
        items: Iterable.
        at_once: Number of items that a thread is handed together, for work so short that handing
            it over takes longer.
    """

    def work(chunk):
        return [function(item) for item in chunk]

    items = iter(items)
    workers = min(os.cpu_count() or 1, _MAX_WORKERS)
    executor = ThreadPoolExecutor(workers, thread_name_prefix="keras_bit-images")
    pending = deque()
    try:
        while chunk := list(islice(items, at_once)):
            pending.append(executor.submit(work, chunk))
            if len(pending) > 2 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
