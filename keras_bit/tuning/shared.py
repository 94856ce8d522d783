"""What trials share: weights that are read once, and a model that is traced once."""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_bit.core.keras_internals import inner_optimizer, learning_rate_schedule
from keras_bit.data.dataset import check_dataset
from keras_bit.hyperrule.rule import HyperRule
from keras_bit.training.plan import RunPlan


def check_single_label(data: Any) -> None:
    """Raises where images have several labels: trials are compared by the images that are right."""
    if check_dataset(data).multi_label:
        raise ValueError(
            "`data` of a search must have one label for each image. Received: a data set with "
            "`multi_label`. Compare runs of `keras_bit.fine_tune` by their metrics."
        )


class InitialWeights:
    """The weights of presets, each read once and then held in memory."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[list[np.ndarray], float]] = {}  # with the kernels' epsilon

    def build(self, plan: RunPlan) -> keras.Model:
        """Returns the classifier of a plan with its initial weights."""
        if plan.preset is None:
            return plan.build_classifier()
        if plan.preset not in self._read:
            model = plan.build_classifier()
            self._read[plan.preset] = model.get_weights(), model.backbone.kernel_epsilon
            return model
        weights, epsilon = self._read[plan.preset]
        model = plan.build_classifier(kernel_epsilon=epsilon)
        model.set_weights(weights)
        return model


class TracedModel:
    """The model of the trial before, for the next one with steps of the same shapes.

    Tracing and compiling takes longer than a short trial's training. Batch and image size may
    differ: the same model is then traced for those as well.
    """

    def __init__(self) -> None:
        self._key: tuple[Any, ...] | None = None
        self._model: Any = None
        self._start: list[np.ndarray] = []
        self._optimizer_start: dict[str, np.ndarray] = {}

    def get(self, plan: RunPlan, build: Callable[[], keras.Model]) -> keras.Model:
        """Returns the model that `build` returns for a plan, or an earlier one as new."""
        key = _key(plan)
        if key != self._key:
            self._key, self._model = None, None  # frees its memory first
            self._model = build()
            self._start = [np.array(_value(v)) for v in self._model.variables]
            # The others, such as momentum, begin with zeros.
            scalars = [v for v in self._model.optimizer.variables if not v.shape]
            self._optimizer_start = {v.path: np.array(_value(v)) for v in scalars}
            self._key = key
            return self._model
        self._reset(plan.rule)
        return self._model

    def _reset(self, rule: HyperRule) -> None:
        model = self._model
        for variable, value in zip(model.variables, self._start, strict=True):
            variable.assign(value)
        for variable in model.optimizer.variables:
            zeros = keras.ops.zeros(variable.shape, variable.dtype)
            variable.assign(self._optimizer_start.get(variable.path, zeros))
        learning_rate_schedule(inner_optimizer(model)).assign(rule)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds what Keras draws initial weights and layers' seeds from, and nobody else."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _key(plan):
    """What must be the same for a model to serve another plan."""
    rule = plan.rule
    network = (plan.preset, plan.depth, plan.width, plan.precision, plan.remat)
    trained = (plan.freeze_backbone, plan.frozen_blocks, plan.weight_decay, plan.dropout)
    # Random weights, and dropout, begin with the seed.
    seed = plan.seed if plan.preset is None or plan.dropout else None
    return (*network, *trained, rule.accumulation_steps, rule.momentum, seed)


def _value(variable):
    return keras.ops.convert_to_numpy(variable.value)
