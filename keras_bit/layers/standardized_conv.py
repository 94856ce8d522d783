"""Convolution with weight standardization."""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bit.core.arguments import (
    check_boolean,
    check_integer,
    check_maps,
    check_positive_number,
)
from keras_bit.core.saving import register
from keras_bit.layers.fusion import fused, row_sums, runs_with_onednn, wide_dtype

# As in the authors' code; inside the square root. timm's and Hugging Face's ports use 1e-8.
EPSILON = 1e-10
_skips_init = contextvars.ContextVar("skips_init", default=False)


@contextlib.contextmanager
def skip_init() -> Iterator[None]:
    """Layers built inside have uninitialized kernels, to be assigned afterward.

    Generating random kernels for a large network would take longer than reading its weights, and
    memory besides.
    """
    token = _skips_init.set(True)
    try:
        yield
    finally:
        _skips_init.reset(token)


def _uninitialized(shape, dtype):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.raw_ops.Empty(shape=shape, dtype=dtype)  # `ops.empty` writes zeros
    return ops.empty(shape, dtype)


def standardize_kernel(kernel: Any, epsilon: float = EPSILON) -> Any:
    """Gives every output channel of a kernel (height, width, in, out) mean 0 and variance 1.

    `epsilon`, which would vanish in float16, is added to the biased variance inside the square
    root. The gradient saves only the kernel. (PyTorch's own saves it centered.)
    """
    rows = ops.reshape(kernel, (1, -1, kernel.shape[-1]))
    if keras.backend.backend() == "torch":
        return ops.reshape(_with_torch(rows[0], epsilon), kernel.shape)
    if kernel.dtype == "float32" and runs_with_onednn():
        return ops.reshape(_with_onednn(rows, epsilon), kernel.shape)

    @ops.custom_gradient
    def standardize(kernel):
        outputs, *moments = _standardize(kernel, epsilon=epsilon)
        return outputs, lambda upstream: _standardize_gradient(kernel, upstream, *moments)

    return ops.reshape(standardize(rows), kernel.shape)


def _with_torch(rows, epsilon):
    """A kernel (rows, out) standardized, by PyTorch's operation for batch norm."""
    import torch

    # Centered first: it multiplies before it subtracts the mean, which loses digits. Constants
    # change neither outputs nor gradients.
    centered = rows - rows.detach().mean(0)
    outputs = torch.batch_norm(centered, None, None, None, None, True, 0.0, epsilon, False)
    if outputs.requires_grad:
        # The convolution's gradient is a transposed view, for which that of batch norm takes ten
        # times as long.
        outputs.register_hook(lambda upstream: upstream.contiguous())
    return outputs


def _with_onednn(rows, epsilon):
    """A kernel (1, rows, out) standardized, by TensorFlow's operation for batch norm.

    It takes no longer than the functions below, and needs no compiling, which was a third of the
    time to the first step. Only with oneDNN: without it takes twice as long, and on a GPU no
    epsilon below 1e-5.
    """
    import tensorflow as tf

    ones = tf.ones(rows.shape[-1])
    statistics = {"scale": ones, "offset": tf.zeros_like(ones), "mean": [], "variance": []}
    outputs, *_ = tf.raw_ops.FusedBatchNormV3(
        x=rows[:, :, None], epsilon=epsilon, is_training=True, **statistics
    )
    # What the rounded mean has left. It depends on no value of the kernel.
    outputs = outputs[:, :, 0]
    shares = tf.fill((1, 1, rows.shape[1]), 1 / rows.shape[1])
    return outputs - tf.stop_gradient(shares @ outputs)


@fused
def _standardize(kernel, *, epsilon):
    """A kernel (1, rows, out) standardized, its means and its rstds (1, 1, out)."""
    # An error of the mean moves all values of a channel alike, and inputs, positive after their
    # ReLU, add it up: of 10,000 rows a sum in float32 would cost two digits of the outputs. So
    # the mean of the deviations is subtracted too.
    (mean,) = _row_means(lambda kernel: (kernel,), kernel)

    def powers(kernel):
        deviation = kernel - mean
        return deviation, ops.square(deviation)

    first, second = _row_means(powers, kernel)
    rstd = ops.rsqrt(ops.maximum(second - ops.square(first), 0.0) + epsilon)
    return (kernel - mean - first) * rstd, mean, rstd


@fused
def _standardize_gradient(kernel, upstream, mean, rstd):
    def terms(kernel, upstream):
        return upstream, upstream * (kernel - mean)

    # Through the mean and the variance each value changes all others of its channel.
    upstream_mean, product_mean = _row_means(terms, kernel, upstream)
    return (upstream - upstream_mean - (kernel - mean) * rstd * rstd * product_mean) * rstd


def _row_means(terms, *arrays):
    """The means of `row_sums`, as (1, 1, out)."""
    return [total[:, None] / arrays[0].shape[1] for total in row_sums(terms, *arrays)]


@register
class StandardizedConv2D(keras.layers.Layer):
    """2D convolution without bias whose kernel is standardized at every call.

    Each output channel's kernel gets mean 0 and variance 1 (Qiao et al. 2019, arXiv 1903.10520;
    BiT paper, section 2.1). Padding is with zeros, `(kernel_size - 1) // 2` on either side
    whatever the stride, unlike Keras's `"same"`, which pads unevenly where the stride is 2.

    The kernel is standardized in float32 under every precision policy, since the
    epsilon of 1e-10 underflows in float16; the convolution runs in the layer's compute dtype.

    Args:
        filters: Integer, the number of output channels.
        kernel_size: Odd integer, height and width of the kernel.
        strides: Integer, the step along height and width.
        epsilon: Positive float, added to the kernel's variance.
        standardize: With `False` the kernel is used as it is, and stored in the compute dtype
            unless the layer is trainable: for kernels that were standardized beforehand, see
            `BiTBackbone.fold`.
        kernel_initializer: Initializer of the kernel; Keras's default, as in the authors' TF2 code.
        kernel_regularizer: Optional regularizer of the kernel, before standardization.
        kernel_constraint: Optional constraint of the kernel, before standardization.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Tensor (batch, height, width, channels), float.

    Output shape: (batch, ceil(height / strides), ceil(width / strides), filters).

    Raises:
        ValueError: If a number is out of range, `kernel_size` is even, or the inputs are no maps.

    Example:

    >>> conv = keras_bit.StandardizedConv2D(64, kernel_size=7, strides=2)
    >>> tuple(conv(keras.ops.ones((1, 32, 32, 3))).shape)
    (1, 16, 16, 64)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        *,
        epsilon: float = EPSILON,
        standardize: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        kernel_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = check_integer("filters", filters, minimum=1)
        self.kernel_size = check_integer("kernel_size", kernel_size, minimum=1)
        self.strides = check_integer("strides", strides, minimum=1)
        self.epsilon = check_positive_number("epsilon", epsilon)
        self.standardize = check_boolean("standardize", standardize)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        if self.kernel_size % 2 == 0:
            raise ValueError(
                "`kernel_size` must be odd, so that both sides are padded alike. "
                f"Received: kernel_size={kernel_size}"
            )

    def build(self, input_shape: Sequence[int | None]) -> None:
        check_maps(input_shape)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, input_shape[-1], self.filters),
            initializer=_uninitialized if _skips_init.get() else self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            # Values that are rounded to bfloat16 or float16 would lose small updates.
            dtype=None if self.standardize or self.trainable else self.compute_dtype,
            autocast=False,
        )

    def effective_kernel(self) -> np.ndarray:
        """Returns the kernel that `call` convolves with, as an array.

        Where it is standardized that is done in float64, and the result rounded.
        """
        kernel = ops.convert_to_numpy(self.kernel)
        if not self.standardize:
            return kernel
        wide = kernel.astype("float64").reshape(-1, self.filters)
        wide -= wide.mean(axis=0)
        wide /= np.sqrt(np.einsum("io,io->o", wide, wide) / len(wide) + self.epsilon)
        return wide.astype(kernel.dtype).reshape(kernel.shape)

    def call(self, inputs: Any) -> Any:
        kernel = ops.convert_to_tensor(self.kernel)
        if self.standardize:
            kernel = ops.cast(kernel, wide_dtype(self.variable_dtype))
            kernel = standardize_kernel(kernel, self.epsilon)
        kernel = ops.cast(kernel, self.compute_dtype)
        pad = (self.kernel_size - 1) // 2
        padding = "valid"
        if pad and self.strides == 1:
            padding = "same"  # The same zeros, without a padded copy of the input.
        elif pad:
            inputs = ops.pad(inputs, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        return ops.conv(inputs, kernel, self.strides, padding, data_format="channels_last")

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        batch, height, width, _ = input_shape
        edges = (None if edge is None else -(-edge // self.strides) for edge in (height, width))
        return (batch, *edges, self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "epsilon": self.epsilon,
            "standardize": self.standardize,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
        }
