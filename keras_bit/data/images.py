"""Image files: their sizes, their pixels as upright RGB, and work on many of them in threads."""

import os
import stat
import struct
import sys
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import islice
from typing import Any, BinaryIO, TypeVar

import numpy as np

ImageSource = str | os.PathLike | BinaryIO
_Result = TypeVar("_Result")

_MAX_WORKERS = 16


def read_image_size(source: ImageSource) -> tuple[int, int]:
    """Height and width of an image in pixels, from its header, after its EXIF orientation.

    The orientation of a PNG file counts where it stands before the pixels.
    """
    with _open(source) as image:
        width, height = _stored_size(image)
        return (width, height) if _orientation(image) >= 5 else (height, width)


def decode_image(source: ImageSource) -> np.ndarray:
    """Decodes an image at full quality to upright RGB, `np.uint8` of shape `(height, width, 3)`.

    JPEG, PNG, BMP, GIF, TIFF and, where Pillow was built with it, WebP. Gray, 1-bit, palette, CMYK
    and 16-bit images (the high byte) become 8-bit RGB; images of 32-bit numbers are refused, for
    nothing says which of them is white. Transparent pixels are laid over white. Of several
    pictures in a file the first one is taken. A path must be that of a regular file. Raises what
    `try_read` catches.
    """
    with _open(source) as image:
        pixels = _jpeg_pixels(image)
        if pixels is None:
            image.load()
            pixels = np.asarray(_rgb(image))
        # A TIFF image has lost its orientation by now: Pillow turns it while it loads it.
        return _upright(pixels, _orientation(image))


def try_read(read: Callable[[Any], _Result], source: Any) -> tuple[_Result | None, str | None]:
    """`(read(source), None)`, or `(None, reason)` where the image is unreadable."""
    try:
        return read(source), None
    except _image_errors() as error:
        from PIL import UnidentifiedImageError

        if isinstance(error, UnidentifiedImageError):
            return None, "not a readable JPEG, PNG, BMP, GIF, WebP or TIFF image"
        return None, getattr(error, "strerror", None) or str(error) or type(error).__name__


def threaded_map(
    function: Callable[[Any], _Result], items: Iterable[Any], chunk_size: int = 1
) -> Generator[_Result, None, None]:
    """Yields `function(item)` in order, computed ahead in threads within a bounded window.

    Each thread takes `chunk_size` items together: more than 1 for work so short that handing it
    over takes longer.
    """
    items = iter(items)
    workers = min(os.cpu_count() or 1, _MAX_WORKERS)
    executor = ThreadPoolExecutor(workers, thread_name_prefix="keras_bit-images")
    pending: deque[Future[list[_Result]]] = deque()
    try:
        while chunk := list(islice(items, chunk_size)):
            pending.append(executor.submit(list, map(function, chunk)))
            if len(pending) > 2 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _open(source):
    from PIL import Image

    # To open a pipe, or to read a device, may take forever.
    if isinstance(source, (str, os.PathLike)) and not stat.S_ISREG(os.stat(source).st_mode):
        raise OSError("not a regular file")
    image = Image.open(source, formats=_formats())
    if image.mode in ("F", "LAB") or image.format == "TIFF" and image.mode == "I":
        image.close()
        raise ValueError(f"pixels of Pillow's mode {image.mode!r}; save it with 8 bits a channel")
    return image


@cache
def _formats():
    """The formats that are read, of which `preinit` loads the first four."""
    from PIL import Image, TiffImagePlugin, WebPImagePlugin

    Image.preinit()
    webp = (WebPImagePlugin.WebPImageFile.format,) if WebPImagePlugin.SUPPORTED else ()
    return ("JPEG", "PNG", "BMP", "GIF", TiffImagePlugin.TiffImageFile.format, *webp)


def _image_errors():
    """What Pillow raises for files that are broken, hostile or no image at all."""
    from PIL import Image

    common = OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError
    rare = MemoryError, NotImplementedError, struct.error, zlib.error
    return (*common, *rare, Image.DecompressionBombError, Warning)  # warnings can be made errors


def _stored_size(image):
    """Width and height without the orientation, which newer versions of Pillow heed in TIFF."""
    if image.format != "TIFF":
        return image.size
    from PIL import TiffImagePlugin as tiff

    return image.tag_v2[tiff.IMAGEWIDTH], image.tag_v2[tiff.IMAGELENGTH]


def _orientation(image):
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none or it cannot be read."""
    from PIL import ExifTags, Image

    try:
        # PngImageFile overrides this method with one that decodes the pixels first.
        value: Any = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
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
    since it does not store four bytes a pixel in between. It is used where it has been imported
    anyway; what it refuses is left to Pillow, which decides on broken files.
    """
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or image.format != "JPEG" or image.mode not in ("L", "RGB"):
        return None
    image.fp.seek(0)
    content = image.fp.read()
    try:
        with tensorflow.device("CPU"):
            decode = tensorflow.io.decode_jpeg
            return np.asarray(decode(content, channels=3, dct_method="INTEGER_ACCURATE"))
    except tensorflow.errors.OpError:
        image.fp.seek(0)
        return None


def _rgb(image):
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit gray; of 16-bit color Pillow keeps the high byte too
        image = Image.fromarray(_high_byte(image))
    if image.mode == "La":  # premultiplied; Pillow has no other way out of it
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _high_byte(image):
    """The 8 highest bits of gray values that have 16, or 12 in some TIFF files."""
    from PIL import TiffImagePlugin as tiff

    values = np.asarray(image)
    tags = image.tag_v2 if image.format == "TIFF" else {}
    (bits,) = tags.get(tiff.BITSPERSAMPLE, (16,))
    gray = (values >> (bits - 8)).astype(np.uint8)
    if tags.get(tiff.PHOTOMETRIC_INTERPRETATION) == 0:  # zero is white; Pillow knows that of 8 bits
        return ~gray
    gray[values == image.info.get("transparency", -1)] = 255
    return gray
