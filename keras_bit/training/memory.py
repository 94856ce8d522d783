"""How much memory training takes, by the network's structure.

The estimate walks through the network with the sizes of its activations and adds up what the
forward pass saves for the backward pass, and what the backward pass needs on top of it at its worst
moment.
"""

import dataclasses
import itertools
import math
from typing import NamedTuple

from keras_bit.core.distribution import replicas
from keras_bit.core.text import readable_size, table
from keras_bit.hyperrule.rule import HyperRule
from keras_bit.layers.backbone import WHOLE_PARTS, BiTBackbone

FLOAT32_SIZE = 4
# Saved activations lie among scratch space, alignment and fragments: a factor, from the
# measurements in benchmarks/results/training_memory.md.
SLACK = 1.08


@dataclasses.dataclass(frozen=True)
class TrainingMemory:
    """An estimate of the memory that training takes, in bytes.

    Attributes:
        weights: Of all weights, in float32.
        training: Of gradients and momentum and, with accumulation, of the summed gradients.
        kernels: Of the standardized kernels that are saved for the backward pass.
        per_image: Of the images and activations, for each image of a micro-batch, at the worst
            moment.
        images: Number of images of a micro-batch, or of its part on each of several devices.
        precision: Name of the precision policy.
    """

    weights: int
    training: int
    kernels: int
    per_image: int
    images: int
    precision: str

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the number of images."""
        return self.weights + self.training + self.kernels

    @property
    def total(self) -> int:
        """Bytes of an update in all."""
        return self.fixed + self.images * self.per_image

    def images_within(self, memory: float) -> int:
        """Returns the number of images in a micro-batch for which `memory` bytes suffice."""
        return max(0, math.floor((memory - self.fixed) / self.per_image))

    def rows(self) -> list[tuple[str, object, str]]:
        """Returns the rows of `str(memory)`: part, size, and a remark."""
        return [
            ("weights", readable_size(self.weights), ""),
            (
                "gradients, momentum",
                readable_size(self.training + self.kernels),
                "and standardized kernels",
            ),
            ("each image", readable_size(self.per_image), f"times {self.images:,} in a step"),
            ("in all", readable_size(self.total), f"in {self.precision}, an estimate"),
        ]

    def __str__(self) -> str:
        return table("Memory of training", self.rows())


def training_memory(backbone: BiTBackbone, num_classes: int, rule: HyperRule) -> TrainingMemory:
    """Estimates the memory that training a classifier takes under `rule`.

    It is that of each device where several share a batch, under a distribution of Keras or a
    `tf.distribute` strategy.

    Counted are the weights, their gradients, momentum and accumulated gradients, the standardized
    kernels, and for each image what the forward pass saves: the inputs of group norms and of
    convolutions, each once, and the image. With `remat` these are the inputs of units, and what
    one unit takes while it is recomputed. Parts that are frozen next to the input save nothing: of
    them the forward pass of the largest unit counts. That is within 15 % of what was measured to be
    in use, see benchmarks/results/training_memory.md; with three frozen blocks a fifth above. Not
    counted are the program itself, the data set and its cache, and what an allocator keeps of
    memory that is free. On PyTorch group norms save their inputs in float32 under every policy:
    with 16 bits that takes up to half more for each image.

    Args:
        backbone: A `keras_bit.BiTBackbone`, which need not be built. Its `remat`, its precision
            policy and what is frozen in it decide along with its size.
        num_classes: Number of classes.
        rule: A `keras_bit.HyperRule`: crop size, micro-batch size and accumulation.

    Returns:
        A `TrainingMemory`.

    Example:

    >>> rule = keras_bit.HyperRule(500, 10_000, 512, micro_batch_size=32)
    >>> memory = keras_bit.training_memory(keras_bit.BiTBackbone(50), 10, rule)
    >>> memory.weights  # 23,500,352 of the backbone, 20,490 of the head
    94083368
    """
    sizes = {name: math.prod(shape) for name, shape in backbone.weight_shapes().items()}
    head = (4 * backbone.blocks[-1].filters + 1) * num_classes
    backward = backward_parts(backbone)
    trained = {name for name, is_trained in backward.items() if is_trained}
    copies = 3 if rule.accumulation_steps > 1 else 2
    kernels = {name: size for name, size in sizes.items() if name.endswith("kernel")}
    saved = 0 if backbone.remat else _sum_of(kernels, backward)
    return TrainingMemory(
        weights=FLOAT32_SIZE * (sum(sizes.values()) + head),
        training=FLOAT32_SIZE * copies * (head + _sum_of(sizes, trained)),
        kernels=_value_size(backbone) * saved,
        per_image=_per_image(backbone, rule.crop_size, backward),
        images=math.ceil(rule.micro_batch_size / replicas()),
        precision=backbone.dtype_policy.name,
    )


def backward_parts(backbone: BiTBackbone) -> dict[str, bool]:
    """Returns the parts that have a backward pass, from the input on, and whether each is trained.

    They are the first part that is trained and all above it: a frozen one there passes gradients
    on. Parts are named as in `BiTBackbone(frozen=...)`.
    """
    parts = {part.name: part.trainable and backbone.trainable for part in _parts(backbone)}
    return dict(itertools.dropwhile(lambda part: not part[1], parts.items()))


class _Step(NamedTuple):
    """A part of the network that is recomputed at once; numbers of values for each image."""

    input: int  # what goes in, and is saved
    inner: int  # what else the forward pass saves
    backward: int  # what the backward pass has beside the input at its worst moment


def _sum_of(sizes, parts):
    """The sizes of those arrays that are in one of the parts."""
    return sum(size for name, size in sizes.items() if name.partition("/")[0] in parts)


def _per_image(backbone, edge, backward):
    saved = worst = 0.0
    for number, (part, steps) in enumerate(_steps(backbone, edge)):
        if part.name not in backward:  # Then it needs no activations later.
            worst = max(worst, *(step.input + step.inner for step in steps))
            continue
        whole = backbone.remat and number < WHOLE_PARTS
        inside = 0
        for step in steps:
            inside += step.input
            worst = max(worst, saved + inside + step.backward)
            inside += 0 if backbone.remat else step.inner
        saved += SLACK * (steps[0].input if whole else inside)
        worst = max(worst, saved)
    images = FLOAT32_SIZE * 3 * edge**2
    return images + round(worst * _value_size(backbone))


def _steps(backbone, edge):
    """Yields the parts of the network, each with its steps."""
    half, quarter = (-(-edge // strides) for strides in (2, 4))
    channels = backbone.root_block.filters
    stem = channels * quarter**2
    # The pooling saves its padded input, of which its gradient is another, like that of the input.
    padded, convolved = channels * (half + 2) ** 2, channels * half**2
    image = 3 * (edge + 6) ** 2
    yield backbone.root_block, [_Step(image, padded, 2 * padded + convolved + stem)]
    edge = quarter
    for block in backbone.blocks:
        steps = []
        for unit in block.units:
            steps.append(_unit_step(unit, edge))
            edge = -(-edge // unit.strides)
        yield block, steps
    last = 4 * backbone.blocks[-1].filters * edge**2
    yield backbone.norm, [_Step(last, last, 4 * last)]


def _unit_step(unit, edge):
    below, above = edge**2, (-(-edge // unit.strides)) ** 2
    entered, left = unit.input_filters * below, 4 * unit.filters * above
    before, after = unit.filters * below, unit.filters * above
    # Each convolution saves its activated input, each norm but the first what goes into it. Where
    # the stride is 2 the second convolution saves a padded copy as well.
    padded = unit.filters * (edge + 2) ** 2 if unit.strides > 1 else 0
    inner = entered + 2 * before + padded + 2 * after
    projected = entered if unit.proj is not None else 0
    at_last_conv = inner + left + 2 * after
    at_first_conv = entered + before + left + 2 * entered + projected
    return _Step(entered, inner, max(at_last_conv, at_first_conv))


def _parts(backbone):
    return [backbone.root_block, *backbone.blocks, backbone.norm]


def _value_size(backbone):
    """Bytes of a value of an activation."""
    return {"float64": 8, "float32": 4}.get(backbone.compute_dtype, 2)
