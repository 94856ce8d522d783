"""BiT-HyperRule: from an image size, a data-set size and a batch size to every decision of a run.

Source of the numbers: Kolesnikov et al. 2020, section 3.3 and appendix, and the authors'
`bit_hyperrule.py`; the batch-size scaling of the rate is the one in their blog post and colab.
"""

import dataclasses
import math
from fractions import Fraction
from typing import Any, NamedTuple

import keras

from keras_bit.core.arguments import check_integer, check_positive_number
from keras_bit.core.text import table
from keras_bit.hyperrule.optimizer import SGD
from keras_bit.hyperrule.schedule import HyperRuleSchedule

REFERENCE_BATCH_SIZE = 512
REFERENCE_LEARNING_RATE = 0.003
MOMENTUM = 0.9
SMALL_IMAGE_AREA = 96 * 96
AUTO = "auto"  # as a micro-batch size: the largest that fits the device


class _Regime(NamedTuple):
    """What the rule says of a data-set size, in steps at a batch of 512."""

    dataset_below: float
    schedule_length: int
    boundaries: tuple[int, ...]
    warmup_steps: int
    mixup_alpha: float


_REGIMES = (
    _Regime(20_000, 500, (200, 300, 400), 100, 0.0),
    _Regime(500_000, 10_000, (3_000, 6_000, 9_000), 500, 0.1),
    _Regime(float("inf"), 20_000, (6_000, 12_000, 18_000), 500, 0.1),
)


@keras.saving.register_keras_serializable(package="keras_bit")
@dataclasses.dataclass(frozen=True, repr=False)
class HyperRule:
    """Every decision of BiT-HyperRule for one data set.

    | training images   | steps at batch 512 | rate / 10 after steps | warm-up | MixUp alpha |
    |-------------------|--------------------|-----------------------|---------|-------------|
    | under 20,000      | 500                | 200, 300, 400         | 100     | none        |
    | 20,000 to 499,999 | 10,000             | 3000, 6000, 9000      | 500     | 0.1         |
    | 500,000 and more  | 20,000             | 6000, 12000, 18000    | 500     | 0.1         |

    Images with an area under 96 x 96 pixels are resized to 160 x 160 and cropped to 128 x 128, all
    others to 512 and 480. The optimizer is SGD with momentum 0.9 and rate 0.003. At another batch
    size `b` the rate is multiplied by `b / 512` and length, boundaries and warm-up by `512 / b`,
    each rounded to the nearest step (halves up), the length to at least 1.

    Args:
        image_size: Size of the data set's images in pixels: one edge, or `(height, width)`.
        dataset_size: Number of training images.
        batch_size: Images per optimizer update.
        micro_batch_size: Images per forward and backward pass, a divisor of `batch_size`; the
            optimizer accumulates gradients over `batch_size / micro_batch_size` steps. `None`
            for whole batches. `keras_bit.largest_micro_batch` finds the largest that fits.
        warmup: Whether the rate climbs linearly at first, as in the authors' code; their blog
            post and colab go without.
        schedule_length: Optimizer updates, in place of the table's; boundaries and warm-up keep
            their proportions.
        learning_rate: The rate at this batch size, in place of the table's (for networks that
            are not pretrained, say).
        resize_edge: Edge in pixels to which training images are resized, in place of the table's;
            given alone, the crop keeps its proportion.
        crop_size: Edge in pixels of the images the network sees, in place of the table's; given
            alone, `resize_edge` keeps its proportion.
        mixup_alpha: MixUp's alpha, in place of the table's; 0 for no MixUp.
        random_crop: `False` for tasks that forbid it (counting, say): training images are then
            resized to `crop_size` straight away, so that `resize_edge` equals `crop_size`.
        random_flip: `False` for tasks that forbid a horizontal flip (localization, say).

    Attributes (decided, read-only): `image_size` as `(height, width)`, `dataset_size`,
    `batch_size`, `micro_batch_size`, `accumulation_steps`, `resize_edge`, `crop_size`,
    `schedule_length`, `boundaries`, `warmup_steps`, `learning_rate`, `momentum`, `mixup_alpha`
    (0.0 for none), `random_crop`, `random_flip`. `given` holds the arguments as they were given.

    Raises:
        ValueError: If an argument is out of range or contradicts another.

    Example:

    >>> rule = keras_bit.HyperRule(image_size=32, dataset_size=50_000, batch_size=64)
    >>> rule.resize_edge, rule.crop_size, rule.schedule_length, rule.learning_rate
    (160, 128, 80000, 0.000375)
    """

    image_size: tuple[int, int]
    dataset_size: int
    batch_size: int
    micro_batch_size: int
    accumulation_steps: int
    resize_edge: int
    crop_size: int
    random_crop: bool
    random_flip: bool
    mixup_alpha: float
    schedule_length: int
    boundaries: tuple[int, ...]
    warmup_steps: int
    learning_rate: float
    momentum: float
    given: dict[str, Any] = dataclasses.field(compare=False)

    def __init__(
        self,
        image_size: int | tuple[int, int] | list[int],
        dataset_size: int,
        batch_size: int = REFERENCE_BATCH_SIZE,
        *,
        micro_batch_size: int | None = None,
        warmup: bool = False,
        schedule_length: int | None = None,
        learning_rate: float | None = None,
        resize_edge: int | None = None,
        crop_size: int | None = None,
        mixup_alpha: float | None = None,
        random_crop: bool = True,
        random_flip: bool = True,
    ) -> None:
        regime = _regime_of(check_integer("dataset_size", dataset_size, minimum=1))
        batch_size = check_integer("batch_size", batch_size, minimum=1)
        scale = Fraction(REFERENCE_BATCH_SIZE, batch_size)
        if schedule_length is not None:
            length = check_integer("schedule_length", schedule_length, minimum=1)
            scale = Fraction(length, regime.schedule_length)
        rate = learning_rate
        if rate is None:
            rate = REFERENCE_LEARNING_RATE * batch_size / REFERENCE_BATCH_SIZE
        height, width = _height_and_width(image_size)
        edge, crop = _resize_and_crop(height * width, resize_edge, crop_size, random_crop)
        micro_batch = _micro_batch_size(batch_size, micro_batch_size)
        decisions = {
            "image_size": (height, width),
            "dataset_size": int(dataset_size),
            "batch_size": batch_size,
            "micro_batch_size": micro_batch,
            "accumulation_steps": batch_size // micro_batch,
            "resize_edge": edge,
            "crop_size": crop,
            "random_crop": bool(random_crop),
            "random_flip": bool(random_flip),
            "mixup_alpha": _mixup_alpha(regime, mixup_alpha),
            "schedule_length": max(1, _round_half_up(regime.schedule_length * scale)),
            "boundaries": tuple(_round_half_up(step * scale) for step in regime.boundaries),
            "warmup_steps": _round_half_up(regime.warmup_steps * scale) if warmup else 0,
            "learning_rate": check_positive_number("learning_rate", rate),
            "momentum": MOMENTUM,
        }
        given = {
            "image_size": image_size,
            "dataset_size": dataset_size,
            "batch_size": batch_size,
            "micro_batch_size": micro_batch_size,
            "warmup": warmup,
            "schedule_length": schedule_length,
            "learning_rate": learning_rate,
            "resize_edge": resize_edge,
            "crop_size": crop_size,
            "mixup_alpha": mixup_alpha,
            "random_crop": random_crop,
            "random_flip": random_flip,
        }
        for name, value in {**decisions, "given": given}.items():
            object.__setattr__(self, name, value)  # the way of frozen dataclasses

    def decisions(self) -> dict[str, Any]:
        """Returns a dict of everything that the rule decides, by attribute."""
        names = (field.name for field in dataclasses.fields(self) if field.compare)
        return {name: getattr(self, name) for name in names}

    def schedule(self) -> HyperRuleSchedule:
        """Returns the `keras_bit.HyperRuleSchedule` of this rule.

        Its boundaries are counted in updates. Keras calls it with accumulation steps, of which
        `accumulation_steps` make an update.
        """
        return HyperRuleSchedule(
            self.learning_rate,
            self.boundaries,
            self.warmup_steps,
            accumulation_steps=self.accumulation_steps,
        )

    def optimizer(self, **arguments: Any) -> SGD:
        """Returns a new SGD with the rule's schedule, momentum and gradient accumulation.

        It is a `keras.optimizers.SGD` whose update is one pass over memory with TensorFlow.

        Args:
            **arguments: Further arguments of `keras.optimizers.SGD`, such as `clipnorm`,
                `weight_decay` and `use_ema`; `momentum` replaces the rule's.

        Raises:
            ValueError: If they include what the rule decides: `learning_rate` or
                `gradient_accumulation_steps`.
        """
        for name in ("learning_rate", "gradient_accumulation_steps"):
            if name in arguments:
                raise ValueError(
                    f"`{name}` is decided by the rule. Received: {name}={arguments[name]!r}. "
                    "Change the rule: `rule.replace(learning_rate=..., micro_batch_size=...)`."
                )
        accumulation = self.accumulation_steps if self.accumulation_steps > 1 else None
        return SGD(
            learning_rate=self.schedule(),
            gradient_accumulation_steps=accumulation,
            **{"momentum": self.momentum, **arguments},
        )

    def replace(self, **changes: Any) -> "HyperRule":
        """Returns the rule with some arguments changed and the rest as they were given.

        What follows from them is decided again: `rule.replace(batch_size=64)` rescales rate and
        length.
        """
        return type(self)(**{**self.given, **changes})

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments as they were given; plain numbers that JSON can hold."""
        return dict(self.given)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "HyperRule":
        """Returns the rule that `get_config` came from."""
        return cls(**config)

    def __repr__(self) -> str:
        given = ", ".join(f"{k}={v!r}" for k, v in self.given.items() if v is not None)
        return f"HyperRule({given})"

    def __str__(self) -> str:
        return table("BiT-HyperRule", self.rows())

    def rows(self) -> list[tuple[str, object, str]]:
        """Returns the rows of `str(rule)`: decision, value, and what it follows from."""

        def source(argument: str, otherwise: str) -> str:
            return otherwise if self.given[argument] is None else f"`{argument}`, as given"

        height, width = self.image_size
        small = height * width < SMALL_IMAGE_AREA
        area = f"images of {height}x{width}, area {'under' if small else 'at least'} 96x96"
        size = f"{self.dataset_size:,} training images"
        steps = _regime_of(self.dataset_size).schedule_length
        epochs = self.schedule_length * self.batch_size / self.dataset_size
        accumulation = "one step per update"
        if self.accumulation_steps > 1:
            accumulation = f"{self.accumulation_steps} micro-batches of {self.micro_batch_size}"
        drops = ", ".join(f"{boundary:,}" for boundary in self.boundaries)
        rate = f"0.003 x {self.batch_size} / 512"
        edge, crop = (f"{pixels}x{pixels}" for pixels in (self.resize_edge, self.crop_size))
        cropped = "random crop" if self.random_crop else "no random crop"
        return [
            ("training images", edge, source("resize_edge", area)),
            ("the network sees", crop, source("crop_size", cropped)),
            ("random flip", "yes" if self.random_flip else "no", "horizontal"),
            ("MixUp alpha", self.mixup_alpha or "none", source("mixup_alpha", size)),
            ("batch size", f"{self.batch_size:,}", accumulation),
            (
                "updates",
                f"{self.schedule_length:,}",
                source("schedule_length", f"{steps:,} at batch 512, for {size}"),
            ),
            ("", "", f"{epochs:,.1f} passes over the data"),
            ("warm-up", self.warmup_steps or "none", "linear, in updates"),
            ("learning rate", f"{self.learning_rate:.6g}", source("learning_rate", rate)),
            ("divided by 10", f"after {drops}", "updates"),
            ("optimizer", "SGD", f"momentum {self.momentum}"),
        ]


def _regime_of(dataset_size):
    return next(regime for regime in _REGIMES if dataset_size < regime.dataset_below)


def _round_half_up(fraction):
    return math.floor(fraction + Fraction(1, 2))


def _height_and_width(image_size):
    pair = image_size if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(pair) != 2:
        raise ValueError(
            "`image_size` must be one edge or (height, width), in pixels. "
            f"Received: image_size={image_size!r}"
        )
    return tuple(check_integer("image_size", edge, minimum=1) for edge in pair)


def _resize_and_crop(area, resize_edge, crop_size, random_crop):
    table_edge, table_crop = (160, 128) if area < SMALL_IMAGE_AREA else (512, 480)
    if resize_edge is not None:
        resize_edge = check_integer("resize_edge", resize_edge, minimum=1)
    if crop_size is not None:
        crop_size = check_integer("crop_size", crop_size, minimum=1)
    if not random_crop:
        return _edge_without_crop(resize_edge, crop_size, table_crop)
    if resize_edge is None and crop_size is None:
        return table_edge, table_crop
    proportion = Fraction(table_crop, table_edge)
    if resize_edge is None:
        return _round_half_up(crop_size / proportion), crop_size
    if crop_size is None:
        return resize_edge, max(1, _round_half_up(resize_edge * proportion))
    if crop_size > resize_edge:
        raise ValueError(
            "`crop_size` must not exceed `resize_edge`. Received: "
            f"crop_size={crop_size}, resize_edge={resize_edge}"
        )
    return resize_edge, crop_size


def _edge_without_crop(resize_edge, crop_size, table_crop):
    if None not in (resize_edge, crop_size) and resize_edge != crop_size:
        raise ValueError(
            "`resize_edge` must equal `crop_size` with `random_crop=False`: training images are "
            "resized straight to the crop size. Received: "
            f"resize_edge={resize_edge}, crop_size={crop_size}. Give `crop_size` alone."
        )
    edge = crop_size or resize_edge or table_crop
    return edge, edge


def _micro_batch_size(batch_size, micro_batch_size):
    if micro_batch_size is None:
        return batch_size
    if micro_batch_size == AUTO:
        raise ValueError(
            "`micro_batch_size` of a rule must be a number: a rule knows no device. Received: "
            'micro_batch_size="auto". Find the number with `keras_bit.largest_micro_batch(model, '
            'rule)`, or pass "auto" to `keras_bit.fine_tune`, `plan` or `HyperBiT`.'
        )
    micro_batch_size = check_integer("micro_batch_size", micro_batch_size, minimum=1)
    if batch_size % micro_batch_size:
        raise ValueError(
            "`micro_batch_size` must divide `batch_size`, so that all micro-batches weigh the "
            f"same. Received: micro_batch_size={micro_batch_size}, batch_size={batch_size}"
        )
    return micro_batch_size


def _mixup_alpha(regime, mixup_alpha):
    if mixup_alpha is None:
        return regime.mixup_alpha
    return 0.0 if mixup_alpha == 0 else check_positive_number("mixup_alpha", mixup_alpha)
