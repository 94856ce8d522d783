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
        x = ops.cast(inputs, keras.backend.result_type(self.compute_dtype, "float32"))
        scale, offset = self._scale_and_offset(*ops.moments(x, axes=(1, 2)))
        return ops.cast(self.activation(x * scale + offset), self.compute_dtype)

    def _scale_and_offset(self, mean, variance):
        """Folds moments per channel, (batch, channels), into a factor and a summand per channel."""
        channels = mean.shape[-1]
        grouped = (-1, self.groups, channels // self.groups)
        mean, variance = ops.reshape(mean, grouped), ops.reshape(variance, grouped)
        # Variance of a group = mean of its channels' variances + variance of their means.
        between, group_mean = ops.moments(mean, axes=-1, keepdims=True)[::-1]
        group_variance = ops.mean(variance, axis=-1, keepdims=True) + between
        gamma = ops.reshape(self.gamma, grouped[1:])
        beta = ops.reshape(self.beta, grouped[1:])
        scale = gamma * ops.rsqrt(group_variance + self.epsilon)
        offset = beta - group_mean * scale
        return ops.reshape(scale, (-1, 1, 1, channels)), ops.reshape(offset, (-1, 1, 1, channels))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "groups": self.groups,
            "epsilon": self.epsilon,
            "activation": keras.activations.serialize(self.activation),
        }
