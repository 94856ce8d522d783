"""The learning rate of BiT-HyperRule as a Keras schedule."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_bit.core.arguments import check_integer, check_positive_number
from keras_bit.core.saving import register


@register
class HyperRuleSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A staircase of learning rates, with an optional linear warm-up before it.

    The rate is `learning_rate`, multiplied by `decay_rate` once for every boundary that the step
    has passed; a step `s` is past a boundary `b` when `b < s`. During the first `warmup_steps`
    steps it is `learning_rate * s / warmup_steps` instead. After the last boundary it stays.
    `keras_bit.HyperRule.schedule()` makes the schedule that a data set asks for.

    The default is the shortest regime of BiT-HyperRule (data sets under 20,000 images at batch
    512), without warm-up as in the authors' blog post and colab; their `bit_hyperrule.get_lr` warms
    up over 100 steps there.

    Args:
        learning_rate: Positive float, the rate before the first boundary.
        boundaries: Step numbers, in ascending order, after which the rate drops.
        warmup_steps: Integer, the length of the warm-up; 0 for none.
        decay_rate: Positive float, the factor of each drop; the authors divide by ten.
        accumulation_steps: The optimizer's `gradient_accumulation_steps`. Keras calls a schedule
            with the number of accumulation steps, not of updates; boundaries and warm-up are
            counted in updates, of which each takes this many steps.
        name: Optional name of the operation.

    Calling it with a step (an integer or float scalar, or an array of them) returns the rate as
    float32, of the same shape.

    Raises:
        ValueError: If a number is out of range or the boundaries decrease.

    Example:

    >>> schedule = keras_bit.HyperRuleSchedule(0.003, boundaries=(200, 300, 400))
    >>> float(schedule(200)), float(schedule(201))
    (0.003000000026077032, 0.0003000000142492354)
    """

    def __init__(
        self,
        learning_rate: float = 0.003,
        boundaries: Sequence[int] = (200, 300, 400),
        warmup_steps: int = 0,
        decay_rate: float = 0.1,
        accumulation_steps: int = 1,
        name: str = "HyperRuleSchedule",
    ) -> None:
        super().__init__()
        self.learning_rate = check_positive_number("learning_rate", learning_rate)
        self.boundaries = tuple(check_integer("boundaries", b, minimum=0) for b in boundaries)
        self.warmup_steps = check_integer("warmup_steps", warmup_steps, minimum=0)
        self.decay_rate = check_positive_number("decay_rate", decay_rate)
        self.accumulation_steps = check_integer("accumulation_steps", accumulation_steps, minimum=1)
        self.name = name
        if list(self.boundaries) != sorted(self.boundaries):
            raise ValueError(
                "`boundaries` must not decrease. Received: "
                f"boundaries={self.boundaries}. Sort them."
            )

    def __call__(self, step: Any) -> Any:
        with keras.name_scope(self.name):
            step = ops.convert_to_tensor(step)
            # Steps are compared as integers where they are integers: float16 and bfloat16
            # cannot tell step 20,000 from its neighbors.
            if "float" in keras.backend.standardize_dtype(step.dtype):
                step = ops.cast(step, "float32")
            if self.accumulation_steps > 1:
                step = step // self.accumulation_steps
            rate = ops.full_like(step, self.learning_rate, dtype="float32")
            for drop, boundary in enumerate(self.boundaries, 1):
                value = self.learning_rate * self.decay_rate**drop
                rate = ops.where(step > boundary, ops.cast(value, "float32"), rate)
            if self.warmup_steps:
                climb = ops.cast(step, "float32") * (self.learning_rate / self.warmup_steps)
                rate = ops.where(step < self.warmup_steps, climb, rate)
            return rate

    def get_config(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "boundaries": list(self.boundaries),
            "warmup_steps": self.warmup_steps,
            "decay_rate": self.decay_rate,
            "accumulation_steps": self.accumulation_steps,
            "name": self.name,
        }
