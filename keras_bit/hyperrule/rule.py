"""BiT-HyperRule: from an image size, a data-set size and a batch size to every decision of a run.

Source of the numbers: Kolesnikov et al. 2020, section 3.3 and appendix, and the authors'
`bit_hyperrule.py`; the batch-size scaling of the rate is the one in their blog post and colab.
"""

import dataclasses
import numbers
from typing import Any

from keras_bit.core.arguments import check_boolean, check_integer, check_positive_number
from keras_bit.core.saving import register
from keras_bit.core.text import table
from keras_bit.hyperrule.decisions import BIT, SMALL_IMAGE_AREA, decide, regime_of
from keras_bit.hyperrule.optimizer import SGD
from keras_bit.hyperrule.schedule import HyperRuleSchedule
from keras_bit.weights.presets import find_preset
from keras_bit.weights.recipe import Recipe

AUTO = "auto"  # as a micro-batch size: the largest that fits the device


@register
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
        warmup: Whether the rate climbs linearly at first, as in the authors' code; by default it
            does not, as in their blog post and colab.
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
        recipe: What suits a network for which the tables were not made, in their place:
            `keras_bit.presets()[name].recipe`; see `for_preset`.

    Attributes:
        image_size: `(height, width)`.
        dataset_size, batch_size, micro_batch_size, random_crop, random_flip: As the arguments.
        accumulation_steps: Number of micro-batches in an update.
        resize_edge, crop_size: Edges in pixels, decided.
        schedule_length, boundaries, warmup_steps: Numbers of updates, decided.
        learning_rate, momentum: Of the optimizer, decided.
        mixup_alpha: MixUp's alpha, decided; 0.0 for none.
        given: Dict of the arguments as they were given.

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
        batch_size: int = BIT.batch_size,
        *,
        micro_batch_size: int | None = None,
        warmup: bool | None = None,
        schedule_length: int | None = None,
        learning_rate: float | None = None,
        resize_edge: int | None = None,
        crop_size: int | None = None,
        mixup_alpha: float | None = None,
        random_crop: bool = True,
        random_flip: bool = True,
        recipe: Recipe | dict[str, Any] | None = None,
    ) -> None:
        suited = _checked_recipe(recipe)
        # Plain numbers, which JSON can hold, whatever NumPy kind they came as.
        given = {
            "image_size": _checked_size(image_size),
            "dataset_size": check_integer("dataset_size", dataset_size, minimum=1),
            "batch_size": check_integer("batch_size", batch_size, minimum=1),
            "micro_batch_size": _checked_micro_batch(micro_batch_size),
            "warmup": None if warmup is None else check_boolean("warmup", warmup),
            "schedule_length": _integer_or_none("schedule_length", schedule_length),
            "learning_rate": _number_or_none("learning_rate", learning_rate),
            "resize_edge": _integer_or_none("resize_edge", resize_edge),
            "crop_size": _integer_or_none("crop_size", crop_size),
            "mixup_alpha": _checked_alpha(mixup_alpha),
            "random_crop": check_boolean("random_crop", random_crop),
            "random_flip": check_boolean("random_flip", random_flip),
            "recipe": None if suited is None else dataclasses.asdict(suited),
        }
        for name, value in {**decide(given, suited or BIT), "given": given}.items():
            object.__setattr__(self, name, value)  # the way of frozen dataclasses

    @classmethod
    def for_preset(
        cls,
        preset: str,
        image_size: int | tuple[int, int] | list[int],
        dataset_size: int,
        batch_size: int | None = None,
        **arguments: Any,
    ) -> "HyperRule":
        """Returns the rule that suits a pretrained network.

        For Google's networks it is BiT-HyperRule as published. Small networks learn better from
        smaller images at larger rates, and sooner: theirs has the preset's `recipe` in place of
        the rule's tables.

        Args:
            preset: A name of `keras_bit.presets()`.
            image_size, dataset_size: As for `HyperRule`.
            batch_size: Images per optimizer update; 512 by default, or the recipe's.
            **arguments: Further arguments of `HyperRule`, which come before the recipe.

        Raises:
            ValueError: If there is no such preset, or as `HyperRule`.

        Example:

        >>> rule = keras_bit.HyperRule.for_preset("f-r14x0.5", image_size=500, dataset_size=1000)
        >>> rule.batch_size, rule.crop_size
        (64, 96)
        """
        recipe = find_preset(preset).recipe
        if batch_size is None:
            batch_size = (recipe or BIT).batch_size
        return cls(image_size, dataset_size, batch_size, recipe=recipe, **arguments)

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

    def shortened(self, share: float) -> "HyperRule":
        """Returns the rule with a share of its updates, for a search's short trials.

        Boundaries and warm-up shrink with the schedule, so that it ends with a full decay.

        Args:
            share: Number above 0; 0.5 for half of the updates, rounded, at least 1.

        Example:

        >>> keras_bit.HyperRule(32, 1000).shortened(0.5).boundaries
        (100, 150, 200)
        """
        share = check_positive_number("share", share)
        return self.replace(schedule_length=max(1, round(share * self.schedule_length)))

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
        recipe = self.given["recipe"] or {}

        def source(argument: str, otherwise: str) -> str:
            if self.given[argument] is not None:
                return f"`{argument}`, as given"
            decides = recipe and recipe.get(argument, "") is not None
            return f"suits {recipe['name']}" if decides else otherwise

        height, width = self.image_size
        small = height * width < SMALL_IMAGE_AREA
        area = f"images of {height}x{width}, area {'under' if small else 'at least'} 96x96"
        size = f"{self.dataset_size:,} training images"
        steps = regime_of(self.dataset_size).schedule_length
        epochs = self.schedule_length * self.batch_size / self.dataset_size
        accumulation = "one step per update"
        if self.accumulation_steps > 1:
            accumulation = f"{self.accumulation_steps} micro-batches of {self.micro_batch_size}"
        warmup = "linear, in updates" if self.warmup_steps else "as in the authors' blog post"
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
            ("warm-up", self.warmup_steps or "none", source("warmup", warmup)),
            ("learning rate", f"{self.learning_rate:.6g}", source("learning_rate", rate)),
            ("divided by 10", f"after {drops}", "updates"),
            ("optimizer", "SGD", f"momentum {self.momentum}"),
        ]


def _checked_size(image_size):
    if not isinstance(image_size, (tuple, list)):
        return check_integer("image_size", image_size, minimum=1)
    if len(image_size) != 2:
        raise ValueError(
            "`image_size` must be one edge or (height, width), in pixels. "
            f"Received: image_size={image_size!r}"
        )
    return tuple(check_integer("image_size", edge, minimum=1) for edge in image_size)


def _checked_micro_batch(micro_batch_size):
    if micro_batch_size == AUTO:
        raise ValueError(
            "`micro_batch_size` of a rule must be a number: a rule knows no device. Received: "
            'micro_batch_size="auto". Find the number with `keras_bit.largest_micro_batch(model, '
            'rule)`, or pass "auto" to `keras_bit.fine_tune`, `plan` or `HyperBiT`.'
        )
    return _integer_or_none("micro_batch_size", micro_batch_size)


def _checked_alpha(mixup_alpha):
    if isinstance(mixup_alpha, numbers.Real) and mixup_alpha == 0:
        return 0.0
    return _number_or_none("mixup_alpha", mixup_alpha)


def _checked_recipe(recipe: Any) -> Recipe | None:
    if recipe is None or isinstance(recipe, Recipe):
        return recipe
    try:
        return Recipe(**recipe)  # a config's
    except TypeError as error:
        raise ValueError(
            "`recipe` must be that of a preset, `keras_bit.presets()[name].recipe`. "
            f"Received: recipe={recipe!r}"
        ) from error


def _integer_or_none(name, value):
    return None if value is None else check_integer(name, value, minimum=1)


def _number_or_none(name, value):
    return None if value is None else check_positive_number(name, value)


def check_rule(rule: Any) -> HyperRule:
    """Returns `rule`; raises where it is no `HyperRule`."""
    if not isinstance(rule, HyperRule):
        raise TypeError(
            f"`rule` must be a keras_bit.HyperRule. Received: {rule!r}. Make one with "
            "`keras_bit.HyperRule(image_size, dataset_size, batch_size)`."
        )
    return rule
