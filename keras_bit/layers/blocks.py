"""The blocks of BiT's network: root block, pre-activated convolution, bottleneck unit, block.

They are named as in the authors' released files, so that an array is found by its path.
`conv_options` are further arguments of every `StandardizedConv2D` inside. The root block and the
blocks are layers of the models that `BiTBackbone.stages` makes, and are saved with them.
"""

import keras
from keras import ops

from keras_bit.core.saving import register
from keras_bit.layers.freezing import freeze, freeze_inside, frozen_paths
from keras_bit.layers.group_norm import GroupNorm, choose_groups
from keras_bit.layers.recompute import recomputed
from keras_bit.layers.standardized_conv import StandardizedConv2D


def norm_relu(channels, dtype):
    """Returns the group norm with ReLU that precedes every convolution but the first."""
    groups = choose_groups(channels)
    return GroupNorm(groups, activation="relu", dtype=dtype, name="group_norm")


@register
class RootBlock(keras.layers.Layer):
    """The stem: a 7x7 convolution and a 3x3 max pooling, both with stride 2."""

    def __init__(self, filters, *, conv_options=None, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.conv_options = conv_options or {}
        self.conv = StandardizedConv2D(
            filters,
            kernel_size=7,
            strides=2,
            dtype=self.dtype_policy,
            name="standardized_conv2d",
            **self.conv_options,
        )
        freeze_inside(self)

    def build(self, input_shape):
        self.conv.build(input_shape)

    def call(self, images):
        x = self.conv(images)
        # Zeros, not the -inf of "same" pooling: without a ReLU before it, a border of negative
        # values must become zero, as it was when the weights were trained.
        x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return ops.max_pool(x, 3, 2, "valid", data_format="channels_last")

    def compute_output_shape(self, input_shape):
        batch, *edges, channels = self.conv.compute_output_shape(input_shape)
        halves = (None if edge is None else (edge + 1) // 2 for edge in edges)
        return (batch, *halves, channels)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "conv_options": self.conv_options,
        }


@register
class PreActivatedConv(keras.layers.Layer):
    """Group norm, ReLU, convolution: a third of a bottleneck unit."""

    def __init__(
        self, input_filters, filters, kernel_size, strides=1, *, conv_options=None, **kwargs
    ):
        super().__init__(**kwargs)
        self.input_filters = input_filters
        self.norm = norm_relu(input_filters, self.dtype_policy)
        self.conv = StandardizedConv2D(
            filters,
            kernel_size,
            strides,
            dtype=self.dtype_policy,
            name="standardized_conv2d",
            **conv_options or {},
        )

    def build(self, input_shape):
        self.norm.build(input_shape)
        self.conv.build(input_shape)

    def call(self, x):
        return self.conv(self.norm(x))

    def compute_output_shape(self, input_shape):
        return self.conv.compute_output_shape(input_shape)


@register
class BottleneckUnit(keras.layers.Layer):
    """Three pre-activated convolutions, 1x1, 3x3 and 1x1, around a shortcut."""

    def __init__(self, input_filters, filters, strides=1, *, conv_options=None, **kwargs):
        super().__init__(**kwargs)
        self.input_filters = input_filters
        self.filters = filters
        self.strides = strides
        wide = 4 * filters
        options = {"conv_options": conv_options, "dtype": self.dtype_policy}
        self.a = PreActivatedConv(input_filters, filters, 1, name="a", **options)
        self.b = PreActivatedConv(filters, filters, 3, strides, name="b", **options)
        self.c = PreActivatedConv(filters, wide, 1, name="c", **options)
        self.proj = None
        if strides > 1 or input_filters != wide:
            self.proj = StandardizedConv2D(
                wide, 1, strides, dtype=self.dtype_policy, name="proj", **conv_options or {}
            )

    def build(self, input_shape):
        if self.proj is not None:
            self.proj.build(input_shape)
        for part in (self.a, self.b, self.c):
            part.build(input_shape)
            input_shape = part.compute_output_shape(input_shape)

    def call(self, x):
        # The projection takes the normalized input, the identity shortcut the raw one.
        normalized = self.a.norm(x)
        shortcut = x if self.proj is None else self.proj(normalized)
        return self.c(self.b(self.a.conv(normalized))) + shortcut

    def compute_output_shape(self, input_shape):
        return self.c.compute_output_shape(self.b.compute_output_shape(input_shape))


@register
class Block(keras.layers.Layer):
    """Bottleneck units at one resolution; the first may halve it.

    With `remat` the backward pass recomputes the activations inside a unit from the unit's input.
    `frozen` holds paths of what is not trained, such as `"unit01/a"`.
    """

    def __init__(
        self,
        units,
        input_filters,
        filters,
        strides,
        *,
        conv_options=None,
        remat=False,
        frozen=(),
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.remat = bool(remat)
        self.input_filters = input_filters
        self.filters = filters
        self.strides = strides
        self.conv_options = conv_options or {}
        self.units = [
            BottleneckUnit(
                input_filters if number == 1 else 4 * filters,
                filters,
                strides if number == 1 else 1,
                conv_options=self.conv_options,
                dtype=self.dtype_policy,
                name=f"unit{number:02d}",
            )
            for number in range(1, units + 1)
        ]
        freeze_inside(self)
        freeze(self.units, frozen)

    def build(self, input_shape):
        for unit in self.units:
            unit.build(input_shape)
            input_shape = unit.compute_output_shape(input_shape)

    def call(self, x):
        for unit in self.units:
            x = recomputed(unit, x) if self.remat else unit(x)
        return x

    def compute_output_shape(self, input_shape):
        for unit in self.units:
            input_shape = unit.compute_output_shape(input_shape)
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "units": len(self.units),
            "input_filters": self.input_filters,
            "filters": self.filters,
            "strides": self.strides,
            "conv_options": self.conv_options,
            "remat": self.remat,
            "frozen": list(frozen_paths(self.units)),
        }
