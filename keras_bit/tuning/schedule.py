"""A schedule whose numbers can change without tracing the training step again."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bit.core.saving import register
from keras_bit.hyperrule.rule import HyperRule
from keras_bit.hyperrule.schedule import HyperRuleSchedule

NEVER = 2**31 - 1  # a step that no schedule reaches


@register
class VariableSchedule(HyperRuleSchedule):
    """The schedule of a rule as variables of an optimizer.

    Args:
        optimizer: A `keras.optimizers.Optimizer`, whose variables these become: so the compiled
            step of JAX receives them as well.
        rule: A `keras_bit.HyperRule`.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, rule: HyperRule) -> None:
        edges = len(rule.boundaries)
        self._rates = optimizer.add_variable((edges + 1,), name="rates", dtype="float32")
        self._boundaries = optimizer.add_variable((edges,), name="boundaries", dtype="int32")
        self._warmup_steps = optimizer.add_variable((), name="warmup_steps", dtype="int32")
        self._climb = optimizer.add_variable((), name="climb", dtype="float32")
        self.assign(rule)

    def assign(self, rule: HyperRule) -> None:
        """Takes the numbers of a rule with as many boundaries and accumulation steps."""
        super().__init__(**{**rule.schedule().get_config(), "name": "HyperRuleSchedule"})
        drops = [self.decay_rate**drop for drop in range(len(self.boundaries) + 1)]
        self._rates.assign(np.asarray([self.learning_rate * drop for drop in drops], "float32"))
        self._boundaries.assign(np.minimum(self.boundaries, NEVER).astype("int32"))
        self._warmup_steps.assign(self.warmup_steps)
        self._climb.assign(self.learning_rate / max(1, self.warmup_steps))

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "int32")
        if self.accumulation_steps > 1:
            step = step // self.accumulation_steps
        past = ops.sum(ops.cast(ops.expand_dims(step, -1) > self._boundaries, "int32"), axis=-1)
        rate = ops.take(self._rates, past)
        return ops.where(step < self._warmup_steps, ops.cast(step, "float32") * self._climb, rate)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> HyperRuleSchedule:
        """Returns the plain schedule with these numbers: a file has no optimizer for variables."""
        return HyperRuleSchedule(**config)
