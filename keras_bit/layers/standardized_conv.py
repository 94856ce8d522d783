"""Convolution with weight standardisation."""

import keras
from keras import ops

from keras_bit.checks import check_integer, check_positive_number
from keras_bit.layers.fusion import fused, row_sums

# As in the authors' code; inside the root. timm's and Hugging Face's ports use 1e-8.
EPSILON = 1e-10


def standardize_kernel(kernel, epsilon=EPSILON):
    """Gives every output channel of a kernel (height, width, in, out) mean 0 and variance 1.

    Args:
        kernel: Float32 or float64 tensor; `epsilon` would vanish in float16.
        epsilon: Positive float, added to the (biased) variance inside the root.

    Returns:
        Tensor of the same shape and dtype. Its gradient, written by hand, keeps the kernel alone.
    """

    @ops.custom_gradient
    def standardize(kernel):
        outputs, *moments = _standardize(kernel, epsilon=epsilon)
        return outputs, lambda upstream: _standardize_gradient(kernel, upstream, *moments)

    rows = ops.reshape(kernel, (1, -1, kernel.shape[-1]))
    return ops.reshape(standardize(rows), kernel.shape)


@fused
def _standardize(kernel, *, epsilon):
    """A kernel (1, rows, out) standardised; the means and inverse deviations (1, 1, out)."""
    # Moments about a value of the channel itself: one pass, without loss of digits.
    pilot = kernel[:, :1]

    def powers(kernel):
        deviation = kernel - pilot
        return deviation, ops.square(deviation)

    shift, square = (total[:, None] / kernel.shape[1] for total in row_sums(powers, kernel))
    mean = shift + pilot
    root = ops.rsqrt(ops.maximum(square - ops.square(shift), 0.0) + epsilon)
    return (kernel - mean) * root, mean, root


@fused
def _standardize_gradient(kernel, upstream, mean, root):
    def terms(kernel, upstream):
        return upstream, upstream * (kernel - mean)

    # Through the mean and the variance each value moves all others of its channel.
    means = (total[:, None] / kernel.shape[1] for total in row_sums(terms, kernel, upstream))
    upstream_mean, product_mean = means
    return (upstream - upstream_mean - (kernel - mean) * root * root * product_mean) * root


@keras.saving.register_keras_serializable(package="keras_bit")
class StandardizedConv2D(keras.layers.Layer):
    """2D convolution without bias whose kernel is standardised at every call.

    Each output channel's kernel gets mean 0 and variance 1 (Qiao et al. 2019, arXiv 1903.10520;
    BiT paper, section 2.1). Padding is with zeros, `(kernel_size - 1) // 2` on either side
    whatever the stride - not Keras's `"same"`, which pads unevenly where the stride is 2.

    The kernel is kept and standardised in float32 under every precision policy, for the epsilon
    of 1e-10 underflows in float16; the convolution runs in the layer's compute dtype.

    Args:
        filters: Integer, the number of output channels.
        kernel_size: Odd integer, height and width of the kernel.
        strides: Integer, the step along height and width.
        epsilon: Positive float, added to the kernel's variance.
        standardize: With `False` the kernel is used as it is: for kernels that were standardised
            beforehand, see `BiTBackbone.fold`.
        kernel_initializer: Initializer of the kernel; Keras's default, as in the authors' TF2 code.
        kernel_regularizer: Optional regularizer of the kernel, before standardisation.
        kernel_constraint: Optional constraint of the kernel, before standardisation.

    Input shape: (batch, height, width, channels), float.
    Output shape: (batch, ceil(height / strides), ceil(width / strides), filters).

    Raises:
        ValueError: If a number is out of range or `kernel_size` is even.

    Example:

    >>> conv = keras_bit.StandardizedConv2D(64, kernel_size=7, strides=2)
    >>> tuple(conv(keras.ops.ones((1, 32, 32, 3))).shape)
    (1, 16, 16, 64)
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        *,
        epsilon=EPSILON,
        standardize=True,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        kernel_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = check_integer("filters", filters, minimum=1)
        self.kernel_size = check_integer("kernel_size", kernel_size, minimum=1)
        self.strides = check_integer("strides", strides, minimum=1)
        self.epsilon = check_positive_number("epsilon", epsilon)
        self.standardize = bool(standardize)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        if self.kernel_size % 2 == 0:
            raise ValueError(
                "`kernel_size` must be odd, so that both sides are padded alike. "
                f"Received: kernel_size={kernel_size}"
            )

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, input_shape[-1], self.filters),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            autocast=False,
        )

    def effective_kernel(self):
        """Returns the kernel that `call` convolves with, before it is cast to the compute dtype."""
        kernel = ops.convert_to_tensor(self.kernel)
        return standardize_kernel(kernel, self.epsilon) if self.standardize else kernel

    def call(self, inputs):
        kernel = ops.cast(self.effective_kernel(), self.compute_dtype)
        pad = (self.kernel_size - 1) // 2
        padding = "valid"
        if pad and self.strides == 1:
            padding = "same"  # The same zeros, without a padded copy of the input.
        elif pad:
            inputs = ops.pad(inputs, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        return ops.conv(inputs, kernel, self.strides, padding, data_format="channels_last")

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        edges = (None if edge is None else -(-edge // self.strides) for edge in (height, width))
        return (batch, *edges, self.filters)

    def get_config(self):
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
