"""Image files: their sizes, and their pixels as upright RGB."""

import contextlib
import os
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any, BinaryIO, TypeVar

import numpy as np

from keras_bit.data.threads import Budget

ImageSource = str | os.PathLike | BinaryIO
_Result = TypeVar("_Result")

SKIP, KEEP = DAMAGED_OPTIONS = ("skip", "keep")
_DAMAGED = "damaged JPEG: "
_MAX_PIXELS = 2**27  # in all threads together; 9 bytes for each of a JPEG, 26 of an RGBA PNG
# Warnings of libjpeg that concern no pixel, where in the file their cause lies, and what it would
# have to be: libjpeg tells only its first warning, which must not hide another one.
_HARMLESS = (
    ("unknown JFIF revision", rb"(?<=\xff\xe0..JFIF\0).", b"\1"),
    ("bad ICC marker", rb"(?<=\xff\xe2..)ICC_PROFILE\0", b"icc_profile\0"),
    (
        "Invalid SOS parameters for sequential",
        rb"(?:(?<=\xff\xda\0\x08\x01..)|(?<=\xff\xda\0\x0a\x02.{4})|(?<=\xff\xda\0\x0c\x03.{6}))...",
        b"\0\x3f\0",
    ),
)


def check_damaged(damaged: str) -> str:
    """Returns `damaged`; raises where it is neither `"skip"` nor `"keep"`."""
    if damaged not in DAMAGED_OPTIONS:
        raise ValueError(f"`damaged` must be 'skip' or 'keep'. Received: damaged={damaged!r}")
    return damaged


def is_damaged(reason: str) -> bool:
    """Whether this reason is that of a damaged image, not of an unreadable one."""
    return reason.startswith(_DAMAGED)


def read_image_size(source: ImageSource) -> tuple[int, int]:
    """Height and width of an image in pixels, from its header, after its EXIF orientation.

    The orientation of a PNG file counts where it stands before the pixels.
    """
    with _opened(source) as image:
        width, height = _stored_size(image)
        return (width, height) if _orientation(image) >= 5 else (height, width)


def decode_image(source: ImageSource, damaged: str = SKIP) -> np.ndarray:
    """Decodes an image at full quality to upright RGB, `np.uint8` of shape `(height, width, 3)`.

    JPEG, PNG, BMP, GIF, TIFF and, where Pillow was built with it, WebP. Gray, 1-bit, palette, CMYK
    and 16-bit images (the high byte) become 8-bit RGB; images of 32-bit numbers are refused, for
    nothing says which of them is white. Transparent pixels are laid over white. Of several
    pictures in a file the first one is taken. A path must be that of a regular file. Images of
    more than twice `PIL.Image.MAX_IMAGE_PIXELS` pixels are refused before they are decoded.

    JPEG files are damaged where libjpeg warns that it continues with missing or wrong data. With
    `damaged="keep"` the image is what it makes of them, gray where nothing is left. A file that has
    been cut is always noticed. JPEG has no checksums: changed bytes that leave valid codes are not,
    which of photographs were 4 in 10 where three bytes had changed, 8 in 10 with a single bit.

    Raises what `try_read` catches.
    """
    with contextlib.ExitStack() as memory:
        pixels, fault = _decode(memory, source)
    if fault and damaged == SKIP:
        raise ValueError(fault)
    return pixels


def try_transform(
    source: ImageSource, transform: Callable[[np.ndarray], _Result], damaged: str = SKIP
) -> tuple[_Result | None, str | None]:
    """`(transform(decode_image(source)), None)`; `(None, reason)` where the image is unreadable.

    Of a damaged image that is kept, it is both the result and the reason. All threads together
    decode and transform no more pixels than `_MAX_PIXELS`, or one larger image.
    """
    with contextlib.ExitStack() as memory:
        decoded, reason = try_read(partial(_decode, memory), source)
        pixels, fault = decoded or (None, reason)
        if pixels is None or (fault and damaged == SKIP):
            return None, fault
        return transform(pixels), fault


def try_read(read: Callable[[Any], _Result], source: Any) -> tuple[_Result | None, str | None]:
    """`(read(source), None)`, or `(None, reason)` where the image is unreadable."""
    try:
        return read(source), None
    except _image_errors() as error:
        from PIL import Image, UnidentifiedImageError

        if isinstance(error, UnidentifiedImageError):
            return None, "not a readable JPEG, PNG, BMP, GIF, WebP or TIFF image"
        if isinstance(error, Image.DecompressionBombError):
            return None, f"{error} Raise `PIL.Image.MAX_IMAGE_PIXELS` to read it"
        return None, getattr(error, "strerror", None) or str(error) or type(error).__name__


_pixel_budget = Budget(_MAX_PIXELS)


@contextlib.contextmanager
def _opened(source):
    """Yields the image of a file, with its header read, as an object of Pillow."""
    with _opened_file(source) as file:
        image = _identified(file)
        if image.mode in ("F", "LAB") or image.format == "TIFF" and image.mode == "I":
            mode = f"pixels of Pillow's mode {image.mode!r}"
            raise ValueError(f"{mode}; save it with 8 bits a channel")
        yield image


def _opened_file(source):
    if not isinstance(source, (str, os.PathLike)):
        return contextlib.nullcontext(source)
    # To open a pipe, or to read a device, may take forever.
    if not stat.S_ISREG(os.stat(source).st_mode):
        raise OSError("not a regular file")
    return open(source, "rb")


def _identified(file):
    """`PIL.Image.open` without its warning of images that are large, but not too large."""
    from PIL import Image, UnidentifiedImageError

    file.seek(0)
    prefix = file.read(16)
    for make, accepts in _formats():
        if accepts(prefix) is not True:  # else it may be a text
            continue
        file.seek(0)
        try:
            image = make(file)
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
        pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
        if limit is not None and pixels > 2 * limit:
            raise Image.DecompressionBombError(
                f"Image size ({pixels} pixels) exceeds limit of {2 * limit} pixels."
            )
        return image
    raise UnidentifiedImageError


@cache
def _formats():
    """What makes images of the formats that are read, and tells them by their first bytes."""
    from PIL import Image, TiffImagePlugin, WebPImagePlugin

    Image.preinit()  # loads the first four
    webp = (WebPImagePlugin.WebPImageFile.format,) if WebPImagePlugin.SUPPORTED else ()
    names = ("JPEG", "PNG", "BMP", "GIF", TiffImagePlugin.TiffImageFile.format, *webp)
    return [Image.OPEN[name] for name in names]


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


def _decode(memory, source):
    """Upright RGB pixels, for which room is taken in `memory`, and what is damaged in them."""
    with _opened(source) as image:
        memory.enter_context(_pixel_budget.take(image.width * image.height))
        pixels, fault = _jpeg_pixels(image) if image.format in ("JPEG", "MPO") else (None, None)
        if pixels is None:
            pixels = _pillow_pixels(image)
        # A TIFF image has lost its orientation by now: Pillow turns it while it loads it.
        return _upright(pixels, _orientation(image)), fault


def _jpeg_pixels(image):
    """RGB pixels of an opened JPEG file, `None` where Pillow is to decode them; what is damaged.

    Pillow decodes the same pixels with the same library, but keeps its warnings to itself.
    """
    import simplejpeg
    from PIL import Image

    image.fp.seek(0)
    content = image.fp.read()
    image.fp.seek(0)
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(content, strict=False)
    except ValueError:
        return None, None
    if (width, height) != image.size:
        return None, None
    if image.mode != "CMYK":
        return _decode_jpeg(content, "RGB")
    pixels, fault = _decode_jpeg(content, "CMYK")
    if pixels is not None:  # stored inverted, as Pillow takes it too
        pixels = np.asarray(Image.fromarray(~pixels, "CMYK").convert("RGB"))
    return pixels, fault


def _decode_jpeg(content, colorspace):
    """Pixels and what is damaged in them; no pixels where libjpeg warns of the header."""
    import simplejpeg

    try:
        return simplejpeg.decode_jpeg(content, colorspace), None
    except ValueError as error:
        fault = str(error)
    for text, wrong, right in _HARMLESS:
        if text in fault:
            repaired = re.sub(wrong, right, content, flags=re.DOTALL)
            if repaired != content:
                return _decode_jpeg(repaired, colorspace)
    try:
        return simplejpeg.decode_jpeg(content, colorspace, strict=False), _DAMAGED + fault
    except ValueError:
        return None, _DAMAGED + fault


def _pillow_pixels(image):
    from PIL import Image

    with contextlib.ExitStack() as stack:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            # Of a TIFF image Pillow would say so while it loads it.
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image.load()
    return np.asarray(_rgb(image))


def _rgb(image):
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit gray; of 16-bit color Pillow keeps the high byte too
        image = Image.fromarray(_high_byte(image))
    if image.mode == "La":  # premultiplied; Pillow has no other way out of it
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it
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
