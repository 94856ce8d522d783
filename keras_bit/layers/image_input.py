"""The network's input: shape, dtype and value range of images."""

import contextlib
import contextvars
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_bit.layers.fusion import wide_dtype

VALUE_RANGES = ((0, 1), (0, 255), (-1, 1))
MIN_EDGE = 32
_has_guard = contextvars.ContextVar("has_guard", default=True)


@contextlib.contextmanager
def without_guard() -> Iterator[None]:
    """Backbones called inside have no NaN guard: their images are known to be in range.

    So are those that a graph makes of 8-bit ones. No integer stands for NaN.
    """
    token = _has_guard.set(False)
    try:
        yield
    finally:
        _has_guard.reset(token)


def check_value_range(value_range: Any) -> tuple[int, int]:
    """Returns a value range as one of `VALUE_RANGES`; raises where it is none of them."""
    is_pair = isinstance(value_range, (tuple, list))
    if not is_pair or tuple(value_range) not in VALUE_RANGES:
        raise ValueError(
            f"`value_range` must be one of {VALUE_RANGES}. Received: value_range={value_range!r}"
        )
    low, high = value_range
    return int(low), int(high)


def check_image_shape(shape: Sequence[int | None]) -> tuple[int | None, ...]:
    """Returns the shape of a batch of images; raises where the network cannot take it."""
    shape = tuple(shape)
    if len(shape) != 4 or shape[-1] != 3:
        raise ValueError(
            "`images` must have the shape (batch, height, width, 3), channels last. "
            f"Received: images.shape={shape}"
        )
    if any(edge is not None and edge < MIN_EDGE for edge in shape[1:3]):
        raise ValueError(
            f"`images` must be at least {MIN_EDGE} pixels high and wide. "
            f"Received: images.shape={shape}. Resize them."
        )
    return shape


def check_image_dtype(dtype: Any, value_range: tuple[int, int]) -> None:
    """Raises where images have an integer dtype that cannot hold their value range."""
    dtype = keras.backend.standardize_dtype(dtype)
    if "float" not in dtype and value_range != (0, 255):
        raise ValueError(
            f"`images` of an integer type need `value_range=(0, 255)`. Received: dtype={dtype}, "
            f"value_range={value_range}. Change `value_range`, or divide by 255."
        )


def rescale(images: Any, value_range: tuple[int, int], dtype: str) -> tuple[Any, Any]:
    """Returns images, in [-1, 1], and the NaN guard (batch,), for `add_guard`.

    It is 0, or NaN for images with values far outside of their range or too few pixels. (In eager
    mode that is an error.) It is `None` under `without_guard`.
    """
    shape = check_image_shape(images.shape)
    check_image_dtype(images.dtype, value_range)
    x = ops.cast(images, wide_dtype(dtype))
    low, high = value_range
    nan_guard = None
    if _has_guard.get():
        nan_guard = ops.cast(_nan_guard(x, shape[1:3], value_range), dtype)
    if value_range != (-1, 1):
        x = x * (2.0 / (high - low)) - 1.0
    return ops.cast(x, dtype), nan_guard


def add_guard(features: Any, nan_guard: Any) -> Any:
    """Returns `features` (batch, ...), of which those of unfit images become NaN.

    The outputs and not the input, since compiled ReLUs and poolings turn NaN into 0.
    """
    if nan_guard is None:
        return features
    return features + ops.reshape(nan_guard, (-1,) + (1,) * (len(features.shape) - 1))


def _nan_guard(x, images_shape, value_range):
    # Keras models cast uint8 input to the float dtype of their first layer, so that only the
    # values of the images reveal it. Overshoot of interpolation stays far below the limit.
    # Compared so that NaN is outside as well.
    inside = ops.abs(x) <= 2.0 * value_range[1]
    unfit = ops.logical_not(ops.all(inside, axis=(1, 2, 3)))
    if _is_known_true(ops.any(unfit)):
        raise _out_of_range(x, value_range)
    if None in images_shape and not isinstance(x, keras.KerasTensor):
        height, width = ops.shape(x)[1:3]
        unfit = ops.logical_or(unfit, ops.minimum(height, width) < MIN_EDGE)
    return ops.where(unfit, float("nan"), 0.0)


def _out_of_range(x, value_range):
    lowest, highest = float(ops.min(x)), float(ops.max(x))
    advice = "Pass `value_range=(0, 255)` for such images, or divide them by 255."
    if not math.isfinite(lowest) or not math.isfinite(highest):
        advice = "Remove the images that hold NaN or infinite values."
    elif lowest < 0:
        advice = (
            "They look standardized, which BiT does without: undo it, `images * std + mean`, and "
            "pass `value_range=(-1, 1)` only for images that lie there."
        )
    elif value_range == (0, 255):
        advice = "Scale them to 0 to 255: divide 16-bit images by 257."
    return ValueError(
        f"`images` must lie in `value_range={value_range}`. "
        f"Received: values from {lowest:g} to {highest:g}. {advice}"
    )


def _is_known_true(flag):
    if isinstance(flag, keras.KerasTensor) or _is_compiled_by_torch():
        return False
    try:
        return bool(ops.convert_to_numpy(flag))
    except (NotImplementedError, TypeError, AttributeError):
        return False  # Being traced: the value is not known yet.


def _is_compiled_by_torch():
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch.compiler.is_compiling()  # or exported; a value asked for would end that
