"""Group normalization with an activation, in few passes over memory."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_bit.core.arguments import check_integer, check_maps, check_positive_number
from keras_bit.core.saving import register
from keras_bit.layers.fusion import fused, row_sums, wide_dtype, with_control_dependency

SAMPLED_PIXELS = 16  # with as many, rounding is that of float32; fewer would not be faster


def choose_groups(channels: int, most: int = 32) -> int:
    """Returns the number of groups for a layer of `channels` channels.

    BiT has 32 groups everywhere, with two or more channels in each. Where 32 does not divide the
    channels, or would leave groups of one channel (narrow networks), it is the largest smaller
    number that divides them into groups of at least two.

    >>> choose_groups(2048), choose_groups(64), choose_groups(32), choose_groups(80)
    (32, 32, 16, 20)
    """
    return next(g for g in range(max(1, min(most, channels // 2)), 0, -1) if channels % g == 0)


def group_norm(x, gamma, beta, groups, epsilon, relu=False):
    """Normalizes groups of channels (Wu & He 2018, arXiv 1803.08494), scales and offsets them.

    Its gradient is written by hand: it reads `x` and the gradient of the outputs twice each, and
    the only saved activation is `x` (batch, height, width, channels), in its own precision.
    Statistics have the dtype of `gamma` and `beta`, (channels,).
    """
    if keras.backend.backend() == "torch":
        return _with_torch(x, gamma, beta, groups, epsilon, relu)
    options = {"groups": groups, "relu": relu}

    @ops.custom_gradient
    def normalize(x, gamma, beta):
        outputs, *statistics = _forward(x, gamma, beta, epsilon=epsilon, **options)

        def gradient(upstream):
            inputs = with_control_dependency(x, upstream)
            return _backward(inputs, upstream, gamma, beta, *statistics, **options)

        return outputs, gradient

    return normalize(x, gamma, beta)


def _with_torch(x, gamma, beta, groups, epsilon, relu):
    """PyTorch's own operation, whose gradient saves its input in the dtype of `gamma`."""
    from torch.nn import functional

    wide = x.to(gamma.dtype)
    # Centered first: PyTorch's variances are differences of squares, whose digits cancel where
    # the mean is much larger than the deviation. Constants change neither outputs nor gradients.
    means = wide.detach().mean((1, 2)).unflatten(-1, (groups, -1))
    centers = means.mean(-1, keepdim=True).expand_as(means).flatten(1)
    centered = wide - centers[:, None, None]
    if gamma.requires_grad and not centered.requires_grad:
        # Above frozen parts. The gradient on a CPU writes that of the input without asking
        # whether there is one, and ends the process (PyTorch 2.13).
        centered.requires_grad_()
    channels_first = centered.permute(0, 3, 1, 2)
    outputs = functional.group_norm(channels_first, groups, gamma, beta, epsilon)
    outputs = outputs.permute(0, 2, 3, 1).to(x.dtype)
    return functional.relu(outputs) if relu else outputs


@fused
def _forward(x, gamma, beta, *, groups, epsilon, relu):
    """The normalized map, and the groups' centers, means and rstds (batch, groups, 1).

    Means are those of the values less the center, which is near the mean.
    """
    pixels = _flatten(x)
    # Moments about the mean of some pixels: one pass, and no loss of digits where the mean is much
    # larger than the deviation.
    center = _sampled_mean(pixels, groups, gamma.dtype)
    centers = _per_channel(center, gamma)

    def powers(pixels):
        deviation = ops.cast(pixels, gamma.dtype) - centers
        return deviation, ops.square(deviation)

    mean, square = (_group_mean(total, pixels, groups) for total in row_sums(powers, pixels))
    variance = ops.maximum(square - ops.square(mean), 0.0)
    rstd = ops.rsqrt(variance + epsilon)
    scale, offset = _scale_and_offset(gamma, beta, mean, rstd)
    outputs = (ops.cast(pixels, gamma.dtype) - centers) * scale + offset
    outputs = ops.relu(outputs) if relu else outputs
    return _unflatten(ops.cast(outputs, x.dtype), x), center, mean, rstd


@fused
def _backward(x, upstream, gamma, beta, center, mean, rstd, *, groups, relu):
    """The gradients of `x`, `gamma` and `beta`."""
    pixels, upstream = _flatten(x), _flatten(upstream)
    centers = _per_channel(center, gamma)
    scale, offset = _scale_and_offset(gamma, beta, mean, rstd)

    def deviation_and_upstream(pixels, upstream):
        """Deviations from the centers, and the upstream gradients before the ReLU."""
        deviation = ops.cast(pixels, gamma.dtype) - centers
        upstream = ops.cast(upstream, gamma.dtype)
        if relu:
            positive = deviation * scale + offset > 0
            upstream = ops.where(positive, upstream, ops.zeros_like(upstream))
        return deviation, upstream

    def terms(pixels, upstream):
        deviation, upstream = deviation_and_upstream(pixels, upstream)
        return upstream, upstream * deviation

    grad_beta, grad_scale = (_grouped(t, groups) for t in row_sums(terms, pixels, upstream))
    grad_gamma = (grad_scale - mean * grad_beta) * rstd
    # Through the mean and the variance each value changes all others of its group.
    grouped_gamma = ops.reshape(gamma, (groups, -1))
    size = ops.cast(ops.shape(pixels)[1] * grouped_gamma.shape[1], gamma.dtype)
    share = rstd / size
    slope = share * rstd * ops.sum(grouped_gamma * grad_gamma, -1, keepdims=True)
    constant = share * ops.sum(grouped_gamma * grad_beta, -1, keepdims=True)
    deviation, upstream = deviation_and_upstream(pixels, upstream)
    grad_x = upstream * scale - deviation * _per_channel(slope, gamma)
    grad_x = ops.cast(grad_x - _per_channel(constant - mean * slope, gamma), x.dtype)
    grad_gamma, grad_beta = (
        ops.reshape(ops.sum(values, axis=0), gamma.shape) for values in (grad_gamma, grad_beta)
    )
    return _unflatten(grad_x, x), grad_gamma, grad_beta


def _flatten(x):
    """(batch, height, width, channels) as (batch, pixels, channels)."""
    _, height, width, channels = x.shape
    if height is None or width is None:
        return ops.reshape(x, (ops.shape(x)[0], -1, channels))
    return ops.reshape(x, (-1, height * width, channels))


def _unflatten(pixels, x):
    """(batch, pixels, channels) in the shape of `x`, a constant but for the batch if it is known.

    LiteRT hands operations on shapes that it has to compute to no accelerated kernel.
    """
    known = None not in x.shape[1:]
    return ops.reshape(pixels, (-1, *x.shape[1:]) if known else ops.shape(x))


def _grouped(values, groups):
    """(batch, channels) as (batch, groups, channels of a group)."""
    return ops.reshape(values, (-1, groups, values.shape[-1] // groups))


def _per_channel(values, gamma):
    """Values of groups (batch, groups, 1) as those of their channels (batch, 1, channels)."""
    groups, channels = values.shape[1], gamma.shape[0]
    # Not `ops.repeat`, which becomes thirty operations in TensorFlow's graphs.
    spread = values * ops.ones((channels // groups,), values.dtype)
    return ops.reshape(spread, (-1, 1, channels))


def _sampled_mean(pixels, groups, dtype):
    """The mean of some pixels of each group (batch, groups, 1)."""
    count = pixels.shape[1]
    if count is None:
        sample = pixels[:, :SAMPLED_PIXELS]
    else:
        step = max(1, count // SAMPLED_PIXELS)
        sample = pixels[:, step // 2 :: step]
    return _group_mean(ops.sum(ops.cast(sample, dtype), axis=1), sample, groups)


def _group_mean(totals, pixels, groups):
    """Means of groups (batch, groups, 1), from the sums of all pixels (batch, channels)."""
    grouped = _grouped(totals, groups)
    size = ops.cast(ops.shape(pixels)[1] * grouped.shape[-1], totals.dtype)
    return ops.sum(grouped, axis=-1, keepdims=True) / size


def _scale_and_offset(gamma, beta, mean, rstd):
    """What the deviations of each channel are multiplied by, and what is then added."""
    scale = gamma * _per_channel(rstd, gamma)
    return scale, beta - _per_channel(mean, gamma) * scale


@register
class GroupNorm(keras.layers.Layer):
    """Group normalization (Wu & He 2018, arXiv 1803.08494), then an activation.

    Computes what `keras.layers.GroupNormalization` computes. Sums are taken per channel and only
    then folded into groups, so that the feature map is never reshaped, and normalization, scale
    and offset become a subtraction, a multiplication and an addition. Statistics are in float32
    under every precision policy.

    Args:
        groups: Integer, a divisor of the channels.
        epsilon: Positive float, added to the variance inside the square root; 1e-5 as in the
            authors' code (Keras's default is 1e-3).
        activation: Activation of the normalized map, as Keras's layers take it; `None` for none.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Tensor (batch, height, width, channels), float.

    Output shape: that of the inputs.

    Raises:
        ValueError: If a number is out of range, the inputs are no maps, or `groups` does not
            divide the channels.

    Example:

    >>> norm = keras_bit.GroupNorm(32, activation="relu")
    >>> tuple(norm(keras.random.normal((1, 8, 8, 64))).shape)
    (1, 8, 8, 64)
    """

    def __init__(
        self, groups: int = 32, *, epsilon: float = 1e-5, activation: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.groups = check_integer("groups", groups, minimum=1)
        self.epsilon = check_positive_number("epsilon", epsilon)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Sequence[int | None]) -> None:
        check_maps(input_shape)
        channels: Any = input_shape[-1]
        if channels % self.groups:
            raise ValueError(
                "`groups` must divide the number of channels. "
                f"Received: groups={self.groups}, input_shape={tuple(input_shape)}"
            )
        # Not autocast: `call` multiplies in float32.
        self.gamma = self.add_weight(
            name="gamma", shape=(channels,), initializer="ones", autocast=False
        )
        self.beta = self.add_weight(
            name="beta", shape=(channels,), initializer="zeros", autocast=False
        )

    def call(self, inputs: Any) -> Any:
        wide = wide_dtype(self.compute_dtype)
        gamma, beta = ops.cast(self.gamma, wide), ops.cast(self.beta, wide)
        relu = self.activation is keras.activations.relu
        outputs = group_norm(inputs, gamma, beta, self.groups, self.epsilon, relu)
        return outputs if relu else self.activation(outputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "groups": self.groups,
            "epsilon": self.epsilon,
            "activation": keras.activations.serialize(self.activation),
        }
