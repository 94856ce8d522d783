"""What the network benchmarks run on: a network, a size of images, a batch; and what theory says.

Imports no framework, so that a process can tell what importing one costs.
"""

import math
import zlib
from typing import NamedTuple

import numpy as np

CLASSES = 10
LEARNING_RATE = 0.003
MOMENTUM = 0.9
UNITS = {"R50": (3, 4, 6, 3), "R101": (3, 4, 23, 3), "R152": (3, 8, 36, 3)}
NAMES = {units: name for name, units in UNITS.items()}
FLOAT32 = 4  # bytes


class Conv(NamedTuple):
    """A convolution: the path of its arrays, and the edges of its maps in pixels."""

    path: str
    size: int
    inputs: int
    filters: int
    input_edge: int
    output_edge: int

    @property
    def multiply_adds(self):
        return self.size**2 * self.inputs * self.filters * self.output_edge**2


class Case(NamedTuple):
    """A network of `units` in four blocks and of `width`, on images of `edge` pixels."""

    units: tuple
    edge: int
    batch_size: int
    width: int = 1

    def __str__(self):
        return f"{self.network}, {self.edge} px, batch {self.batch_size}"

    @property
    def network(self):
        if self.units in NAMES:
            return f"{NAMES[self.units]}x{self.width}"
        return f"units {self.units}" + (f" x{self.width}" if self.width != 1 else "")

    def batch(self):
        """Images in [0, 1] and one-hot labels."""
        rng = np.random.default_rng(0)
        images = rng.random((self.batch_size, self.edge, self.edge, 3), np.float32)
        return images, np.eye(CLASSES, dtype="float32")[rng.integers(CLASSES, size=len(images))]

    def convs(self):
        """Yields the convolutions in the order of the forward pass."""
        edge = _halved(self.edge)
        channels = 64 * self.width
        yield Conv("root_block", 7, 3, channels, self.edge, edge)
        edge = _halved(edge)
        for block, count in enumerate(self.units, 1):
            filters = 64 * self.width * 2 ** (block - 1)
            for unit in range(1, count + 1):
                path = f"block{block}/unit{unit:02d}"
                before, edge = edge, _halved(edge) if block > 1 and unit == 1 else edge
                if unit == 1:
                    yield Conv(f"{path}/a/proj", 1, channels, 4 * filters, before, edge)
                yield Conv(f"{path}/a", 1, channels, filters, before, before)
                yield Conv(f"{path}/b", 3, filters, filters, before, edge)
                yield Conv(f"{path}/c", 1, filters, 4 * filters, edge, edge)
                channels = 4 * filters

    def shapes(self):
        """Returns a dict from the names of `BiTBackbone.named_weights` to shapes."""
        shapes = {}
        for conv in self.convs():
            kernel = (conv.size, conv.size, conv.inputs, conv.filters)
            shapes[f"{conv.path}/standardized_conv2d/kernel"] = kernel
            if conv.path.endswith(("/a", "/b", "/c")):
                shapes |= _norm_shapes(f"{conv.path}/", conv.inputs)
        return shapes | _norm_shapes("", conv.filters)

    def weights(self):
        """Returns a dict of arrays: the same ones in every process."""
        return {name: _draw(name, shape) for name, shape in self.shapes().items()}

    def operations(self, work):
        """Multiplications and additions that an image takes, convolutions alone.

        Args:
            work: `"forward"`, or `"training step"`: once more each for the gradients of a
                convolution's kernel and its input, except the images.
        """
        convs = list(self.convs())
        forward = sum(conv.multiply_adds for conv in convs)
        steps = {"forward": forward, "training step": 3 * forward - convs[0].multiply_adds}
        return 2 * steps[work]

    def training_bytes(self):
        """Bytes that a training step must keep without recomputing anything.

        The weights, their gradients and their momentum; and of every image what goes into and
        comes out of each group norm with its ReLU, for convolutions need the one and norms the
        other.
        """
        weights = sum(math.prod(shape) for shape in self.shapes().values())
        *_, last = self.convs()
        maps = last.filters * last.output_edge**2 + sum(
            conv.inputs * conv.input_edge**2
            for conv in self.convs()
            if conv.path.endswith(("/a", "/b", "/c"))
        )
        return FLOAT32 * (3 * weights + 2 * maps * self.batch_size)


# What the suites run on: small, and with `--full`.
SMALL = Case((1, 1, 1, 1), edge=64, batch_size=2)
REAL = Case(UNITS["R50"], edge=224, batch_size=8)


def _halved(edge):
    return (edge + 1) // 2


def _norm_shapes(prefix, channels):
    return {f"{prefix}group_norm/{name}": (channels,) for name in ("gamma", "beta")}


def _draw(name, shape):
    if name.endswith(("gamma", "beta")):
        return np.full(shape, name.endswith("gamma"), np.float32)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return 0.05 * rng.standard_normal(shape, np.float32)
