"""Group normalisation with an activation, in few passes over memory."""

import keras
from keras import ops

from keras_bit.checks import check_integer, check_positive_number


def choose_groups(channels, most=32):
    """The number of groups for a layer of `channels` channels.

    BiT has 32 groups everywhere, two or more channels in each. Where 32 does not divide the
    channels, or would leave a channel to itself (narrow networks), it is the largest smaller
    number that divides them into groups of at least two.

    >>> choose_groups(2048), choose_groups(64), choose_groups(32), choose_groups(80)
    (32, 32, 16, 20)
    """
    return next(g for g in range(max(1, min(most, channels // 2)), 0, -1) if channels % g == 0)


def group_norm(x, gamma, beta, groups, epsilon):
    """Normalises groups of channels (Wu & He 2018, arXiv 1803.08494), scales and offsets them.

    Its gradient is written by hand: it reads `x` and the gradient of the outputs twice each and
    keeps nothing of the size of `x` but `x` itself, in its own precision.

    Args:
        x: Tensor (batch, height, width, channels), float.
        gamma, beta: Tensors (channels,), float32, or float64 where `x` is: the statistics' dtype.
        groups: Integer, a divisor of the channels.
        epsilon: Positive float, added to the variance inside the root.

    Returns:
        Tensor of the shape and dtype of `x`.
    """
    grouped = (-1, groups, x.shape[-1] // groups)

    def channel_sums(values):
        return ops.reshape(ops.sum(values, axis=(1, 2)), grouped)

    def per_channel(values):
        # A value for each group, or each of its channels, of each image.
        values = ops.broadcast_to(values, ops.shape(values)[:2] + grouped[2:])
        return ops.reshape(values, (-1, 1, 1, x.shape[-1]))

    @ops.custom_gradient
    def normalize(x, gamma, beta):
        wide = ops.cast(x, gamma.dtype)
        moments = ops.moments(wide, axes=(1, 2))
        mean, variance = _group_moments(*(ops.reshape(moment, grouped) for moment in moments))
        root = ops.rsqrt(variance + epsilon)
        scale = gamma * root
        offset = beta - mean * scale

        def gradient(upstream):
            wide, upstream_wide = ops.cast(x, gamma.dtype), ops.cast(upstream, gamma.dtype)
            by_beta = channel_sums(upstream_wide)
            by_gamma = root * (channel_sums(upstream_wide * wide) - mean * by_beta)
            # Through the mean and the variance each value moves all others of its group.
            height, width = ops.shape(x)[1:3]
            root_by_count = root / ops.cast(height * width * grouped[2], gamma.dtype)
            slope = root * root_by_count * ops.sum(gamma * by_gamma, -1, keepdims=True)
            shift = mean * slope - root_by_count * ops.sum(gamma * by_beta, -1, keepdims=True)
            by_x = upstream_wide * per_channel(scale) - wide * per_channel(slope)
            by_x = ops.cast(by_x + per_channel(shift), x.dtype)
            return by_x, ops.sum(by_gamma, axis=0), ops.sum(by_beta, axis=0)

        return ops.cast(wide * per_channel(scale) + per_channel(offset), x.dtype), gradient

    return normalize(x, ops.reshape(gamma, grouped[1:]), ops.reshape(beta, grouped[1:]))


def _group_moments(means, variances):
    """Mean and variance of groups, from those of their channels: (batch, groups, channels)."""
    between, mean = ops.moments(means, axes=-1, keepdims=True)[::-1]
    # Not `ops.mean`, which computes in float32 on JAX even where the values are float64.
    within = ops.moments(variances, axes=-1, keepdims=True)[0]
    return mean, within + between


@keras.saving.register_keras_serializable(package="keras_bit")
class GroupNorm(keras.layers.Layer):
    """Group normalisation (Wu & He 2018, arXiv 1803.08494), then an activation.

    Computes what `keras.layers.GroupNormalization` computes. Moments are taken per channel and
    only then folded into groups, so that the feature map is never reshaped, and normalisation,
    scale and offset become a single multiplication and addition. Statistics are in float32
    under every precision policy.

    Args:
        groups: Integer, a divisor of the channels.
        epsilon: Positive float, added to the variance inside the root; 1e-5 as in the authors'
            code (Keras's default is 1e-3).
        activation: Activation of the normalised map, by Keras's names; `None` for none.

    Input and output shape: (batch, height, width, channels), float.

    Raises:
        ValueError: If a number is out of range or `groups` does not divide the channels.

    Example:

    >>> norm = keras_bit.GroupNorm(32, activation="relu")
    >>> tuple(norm(keras.random.normal((1, 8, 8, 64))).shape)
    (1, 8, 8, 64)
    """

    def __init__(self, groups=32, *, epsilon=1e-5, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.groups = check_integer("groups", groups, minimum=1)
        self.epsilon = check_positive_number("epsilon", epsilon)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels is None or channels % self.groups:
            raise ValueError(
                "`groups` must divide the number of channels. "
                f"Received: groups={self.groups}, input_shape={tuple(input_shape)}"
            )
        # Kept out of autocasting: the multiplication below is done in float32.
        self.gamma = self.add_weight(
            name="gamma", shape=(channels,), initializer="ones", autocast=False
        )
        self.beta = self.add_weight(
            name="beta", shape=(channels,), initializer="zeros", autocast=False
        )

    def call(self, inputs):
        wide = keras.backend.result_type(self.compute_dtype, "float32")
        gamma, beta = ops.cast(self.gamma, wide), ops.cast(self.beta, wide)
        return self.activation(group_norm(inputs, gamma, beta, self.groups, self.epsilon))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "groups": self.groups,
            "epsilon": self.epsilon,
            "activation": keras.activations.serialize(self.activation),
        }
