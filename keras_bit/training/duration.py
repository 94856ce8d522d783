"""How long a run takes: the operations of its convolutions, at a rate that is measured here."""

import dataclasses
import functools
import time

import keras

from keras_bit.core.device import runs_on_cpu
from keras_bit.core.distribution import replicas
from keras_bit.hyperrule.rule import HyperRule
from keras_bit.layers.backbone import BiTBackbone
from keras_bit.training.memory import backward_parts

MATRIX_EDGE = {"cpu": 2048, "accelerator": 8192}
PRODUCTS = 5
# What training reaches of the matrix product's rate: 52 to 57 % for R50x1 at 224 px with
# TensorFlow on a CPU (benchmarks/results/network.md).
SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class Duration:
    """An estimate of the time that a run takes, without reading the images and the report.

    On two cores it was 18 % above what R50x1 took at 224 px, and a third of what a small network
    took at 32 px, whose convolutions are far from the matrix product's rate.

    Attributes:
        operations: Multiplications and additions of the run's convolutions.
        rate: Operations of a matrix product per second, as measured on the device.
    """

    operations: float
    rate: float

    @property
    def seconds(self) -> float:
        """Seconds in all."""
        return self.operations / (SHARE * self.rate)

    def __str__(self) -> str:
        minutes, hours = self.seconds / 60, self.seconds / 3600
        if minutes < 0.5:
            return "under a minute"
        if minutes < 1.5:
            return "about a minute"
        return f"about {minutes:.0f} minutes" if hours < 1.5 else f"about {hours:.3g} hours"

    @property
    def reason(self) -> str:
        """What the estimate follows from."""
        return (
            f"{self.operations / 1e9:,.0f} GFLOP at {SHARE:.0%} of a matrix product's "
            f"{self.rate / 1e9:,.0f} GFLOP/s, measured"
        )


def estimate_duration(
    backbone: BiTBackbone, rule: HyperRule, epochs: int, test_size: int
) -> Duration:
    """Estimates how long a run takes: its training steps, and a validation after each epoch.

    The gradients of a convolution's kernel and of its input take as many operations as itself.
    Frozen parts have none of the first, and below all that is trained none of the second.
    """
    operations = forward_operations(backbone, rule.crop_size)
    forward, images = sum(operations.values()), rule.schedule_length * rule.batch_size
    backward = sum(
        (1 + is_trained + backbone.remat) * operations.get(name, 0)
        for name, is_trained in backward_parts(backbone).items()
    )
    rate = matrix_product_rate(backbone.compute_dtype) * (1 if runs_on_cpu() else replicas())
    total = (forward + backward) * images + forward * epochs * test_size
    return Duration(float(total), rate)


def forward_operations(backbone: BiTBackbone, edge: int) -> dict[str, int]:
    """Returns the multiplications and additions for one square image.

    They are those of the convolutions, by the names of the parts that have some.
    """
    edge = -(-edge // 2)
    found = {backbone.root_block.name: _operations(backbone.root_block.conv, 3, edge)}
    edge = -(-edge // 2)
    for block in backbone.blocks:
        total = 0
        for unit in block.units:
            total += _operations(unit.a.conv, unit.a.input_filters, edge)
            edge = -(-edge // unit.strides)
            for part in (unit.b, unit.c):
                total += _operations(part.conv, part.input_filters, edge)
            if unit.proj is not None:
                total += _operations(unit.proj, unit.input_filters, edge)
        found[block.name] = total
    return found


def _operations(conv, channels, output_edge):
    return 2 * conv.kernel_size**2 * channels * conv.filters * output_edge**2


@functools.cache
def matrix_product_rate(dtype: str) -> float:
    """Returns the operations per second of a square matrix product, the best of a few."""
    edge = MATRIX_EDGE["cpu" if runs_on_cpu() else "accelerator"]
    matrix = keras.ops.ones((edge, edge), dtype)
    seconds = []
    for _ in range(PRODUCTS):
        start = time.perf_counter()
        # Reading a value waits for the device.
        keras.ops.convert_to_numpy(keras.ops.cast(keras.ops.matmul(matrix, matrix)[0], "float32"))
        seconds.append(time.perf_counter() - start)
    return 2 * edge**3 / min(seconds)
