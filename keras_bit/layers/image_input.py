"""The network's input: shape, dtype and value range of images."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

VALUE_RANGES = ((0, 1), (0, 255), (-1, 1))
MIN_EDGE = 32


def check_value_range(value_range: Any) -> tuple[int, int]:
    """Returns a value range as one of `VALUE_RANGES`; raises where it is none of them."""
    pair = tuple(value_range) if isinstance(value_range, (tuple, list)) else value_range
    if pair not in VALUE_RANGES:
        raise ValueError(
            f"`value_range` must be one of {VALUE_RANGES}. Received: value_range={value_range!r}"
        )
    low, high = pair
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
    """Returns images, in [-1, 1], and the NaN guard, a scalar to add to the network's outputs.

    It is 0, or NaN where images are far outside of their range. (In eager mode that is an error.)
    """
    check_image_dtype(images.dtype, value_range)
    x = ops.cast(images, keras.backend.result_type(dtype, "float32"))
    low, high = value_range
    nan_guard = _nan_guard(x, value_range) if high == 1 else 0.0
    if value_range != (-1, 1):
        x = x * (2.0 / (high - low)) - 1.0
    return ops.cast(x, dtype), ops.cast(nan_guard, dtype)


def _nan_guard(x, value_range):
    # Keras models cast uint8 input to the float dtype of their first layer, so that only the
    # values of the images reveal it. Overshoot of interpolation stays far below 2.
    # It must be added to the output: compiled ReLUs and poolings turn a NaN of the input into 0.
    outside = ops.any(ops.abs(x) > 2.0)
    if _is_known_true(outside):
        raise ValueError(
            f"`images` must lie in `value_range={value_range}`. "
            f"Received: values from {float(ops.min(x)):g} to {float(ops.max(x)):g}. "
            "Pass `value_range=(0, 255)` for uint8 images, or divide them by 255."
        )
    return ops.where(outside, float("nan"), 0.0)


def _is_known_true(flag):
    if isinstance(flag, keras.KerasTensor):
        return False
    try:
        return bool(ops.convert_to_numpy(flag))
    except (NotImplementedError, TypeError, AttributeError):
        return False  # Being traced: the value is not known yet.
