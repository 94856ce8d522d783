"""A search over what BiT-HyperRule leaves open, with keras-tuner."""

import collections
import contextlib
import copy
import dataclasses
import inspect
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import keras_tuner

from keras_bit.core.arguments import check_integer
from keras_bit.core.device import policy_scope, set_memory_growth
from keras_bit.core.keras_internals import build_optimizer, inner_optimizer
from keras_bit.data.dataset import ImageDataset
from keras_bit.data.pipeline import CachedSplits, cache_splits, make_pipelines
from keras_bit.hyperrule.callback import DEFAULT_EPOCHS
from keras_bit.hyperrule.rule import AUTO, HyperRule
from keras_bit.models.classifier import compile_classifier
from keras_bit.training.distribution import check_strategy
from keras_bit.training.plan import RunPlan
from keras_bit.training.plan import plan as plan_on_all_devices
from keras_bit.tuning.schedule import VariableSchedule
from keras_bit.tuning.shared import InitialWeights, TracedModel, check_single_label, seeded
from keras_bit.tuning.space import SCHEDULE_FACTORS, changed_decisions, changed_rule
from keras_bit.tuning.trial_run import (
    LOGGED,
    BestEpoch,
    TrialRun,
    TunerCallbacks,
    check_fit_arguments,
    failed_trial,
    right_images,
)

if TYPE_CHECKING:
    from keras_bit.data.pipeline import Batches

MIXUP_ALPHAS = (0.0, 0.1, 0.2)
LEARNING_RATE_FACTORS = (0.1, 10.0)
# Trials train on the devices of the scope that `search` is called in, so their plan is for those.
plan = inspect.unwrap(plan_on_all_devices)


class HyperBiT(keras_tuner.HyperModel):
    """The search space around a `keras_bit.HyperRule`, for any tuner of keras-tuner.

    A trial fine-tunes a backbone with a `ZeroInitHead` under the rule with some of its decisions
    changed, and validates after every epoch. Its hyperparameters are, with the rule itself as
    default:

    | name                   | values                                | what it is              |
    |------------------------|---------------------------------------|-------------------------|
    | `learning_rate_factor` | 0.1 to 10, logarithmic                | times the rule's rate   |
    | `schedule_factor`      | 0.5, 1 or 2                           | times the rule's length |
    | `mixup_alpha`          | 0 (none), 0.1, 0.2 and the rule's own | MixUp's alpha           |

    Declare one of them yourself to change its values or to fix it, and hand it to the tuner;
    likewise `crop_factor` (times the rule's crop size), `batch_factor` (times its batch size, rate
    and length in proportion), `warmup`, `preset`, `frozen_blocks`, `weight_decay` and `dropout`,
    the last four as in `keras_bit.plan`:

    ```python
    import tempfile
    import keras_bit
    import keras_tuner

    data = keras_bit.digits(examples_per_class=2)
    rule = keras_bit.HyperRule(
        data.image_size, data.train_size, batch_size=8, schedule_length=2, crop_size=32
    )
    space = keras_tuner.HyperParameters()
    space.Fixed("schedule_factor", 1.0)
    folder = tempfile.mkdtemp()
    tuner = keras_tuner.RandomSearch(
        keras_bit.HyperBiT(data, rule, preset="f-r14x0.5", cache_dir=f"{folder}/cache", epochs=1),
        objective="val_accuracy",
        max_trials=1,
        hyperparameters=space,
        directory=folder,
    )
    tuner.search(verbose=0)
    best = tuner.hypermodel.rule_for(tuner.get_best_hyperparameters()[0])
    ```

    (`keras_bit.search` does this and more: it compares the best with the rule, keeps few weights,
    and survives lost processes.)

    A model or data of your own take the place of these in a subclass, by `make_model` and
    `make_data`; steps, epochs, schedule, checkpoints and Hyperband's promotions stay as they are:

    ```python
    class TwoHeads(keras_bit.HyperBiT):
        def make_model(self, hp, rule):
            images = keras.Input((None, None, 3))
            features = keras_bit.BiTBackbone.from_preset("f-r14x0.5")(images)
            features = keras.layers.Dropout(hp.Choice("rate", [0.0, 0.2]))(features)
            heads = {"digit": keras_bit.ZeroInitHead(10, name="digit"),
                     "is_odd": keras_bit.ZeroInitHead(2, name="is_odd")}
            model = keras.Model(images, {name: head(features) for name, head in heads.items()})
            loss = keras.losses.CategoricalCrossentropy(from_logits=True)
            model.compile(rule.optimizer(), loss={name: loss for name in heads})
            return model

        def make_data(self, hp, rule, seed, initial_step):
            def with_both(images, digits):
                odd = tf.reduce_sum(digits[:, 1::2], axis=1, keepdims=True)
                return images, {"digit": digits, "is_odd": tf.concat([1 - odd, odd], axis=1)}

            sets = super().make_data(hp, rule, seed, initial_step)
            return [each.map(with_both) for each in sets]
    ```

    `tuner.search` takes `callbacks`, `verbose` and `epochs`; the data come from here. `epochs`
    below that of this class shorten the schedule in proportion: boundaries and warm-up shrink with
    it, so that every trial ends with a full decay. Hyperband sets `epochs` itself, and needs a
    `max_epochs` of that number (10 by default): the trials of its first rounds run such short
    schedules. Those it promotes continue from their best weights, momentum and step, on the
    schedule of their new length, so that those of the last round end with the whole of it. The
    best score may be that of a short trial, which has made fewer updates than `rule_for` says.
    Hyperband compares runs of equal length: fix `schedule_factor` there.

    A trial that was interrupted resumes when the same program runs again, from checkpoints
    (`keras_bit.Checkpoint`) in its folder, which are removed at its end.

    Args:
        data: A `keras_bit.ImageDataset`.
        rule: A `keras_bit.HyperRule`, the middle of the search space; by default the one that
            suits the network, as in `keras_bit.plan`.
        preset, depth, width: As in `keras_bit.plan`; a preset is read once, for all trials.
        micro_batch_size: `"auto"` for the largest that fits, found when this object is made, in
            place of the rule's; a number only without a `rule`.
        epochs: Number of epochs, each with a validation, that make up the schedule of a trial.
        cache_dir: Folder for the decoded images; see `keras_bit.pipelines`. With `None` they are
            in memory, once for all trials with the same image size.
        seed: Non-negative integer for initial weights, order and augmentation, the same in every
            trial; further runs of a trial count on from it.
        name: Name of the hypermodel.
        **decisions: Further arguments of `keras_bit.plan` for all trials, such as `remat`, `dtype`
            and `freeze_backbone`; without a `rule` also those of `keras_bit.HyperRule`.

    Attributes:
        plan: The `keras_bit.RunPlan` of a trial with the rule itself.
        rule: The rule, its micro-batch size resolved.
        last_run: What the last call of `fit` did; `None` until the model of `build` is trained.

    Raises:
        ValueError: If an argument is of the wrong kind or contradicts another.
        keras_tuner.errors.FailedTrialError: In a trial that runs out of memory, or whose loss,
            weights or objective become infinite or NaN: keras-tuner marks it as failed, does not
            try it again and continues. (Several failed trials in a row, its
            `max_consecutive_failed_trials`, end the search.)
        keras_tuner.errors.FatalValueError: From `tuner.search`, if it is given something else
            than above, or more epochs, or there is no such objective.
    """

    def __init__(
        self,
        data: ImageDataset,
        rule: HyperRule | None = None,
        *,
        preset: str | os.PathLike | None = None,
        depth: int | tuple[int, ...] | None = None,
        width: float | None = None,
        micro_batch_size: int | str | None = None,
        epochs: int = DEFAULT_EPOCHS,
        cache_dir: str | os.PathLike | None = None,
        seed: int = 0,
        name: str | None = None,
        **decisions: Any,
    ) -> None:
        super().__init__(name=name)
        if rule is not None and not isinstance(rule, HyperRule):
            raise ValueError(f"`rule` must be a keras_bit.HyperRule. Received: rule={rule!r}")
        if rule is not None and micro_batch_size not in (None, AUTO):
            raise ValueError(
                '`micro_batch_size` must be "auto", or a number in the rule. '
                f"Received: micro_batch_size={micro_batch_size!r}. Use "
                f"`rule.replace(micro_batch_size={micro_batch_size!r})`."
            )
        if decisions.get("steps_per_epoch") is not None:
            raise ValueError(
                "`steps_per_epoch` must be omitted: `epochs` divides the schedule of a trial. "
                f"Received: steps_per_epoch={decisions['steps_per_epoch']!r}"
            )
        check_single_label(data)
        check_strategy()
        set_memory_growth()
        self.epochs = check_integer("epochs", epochs, minimum=1)
        options = {"micro_batch_size": micro_batch_size, "seed": seed, "cache_dir": cache_dir}
        self._options = {**decisions, **options}
        self._given_rule = rule
        self.plan = plan(data, preset=preset, depth=depth, width=width, rule=rule, **self._options)
        self.data = data
        self.rule = self.plan.rule
        self._runs: collections.Counter = collections.Counter()
        self._initial = InitialWeights()
        self._traced: TracedModel | None = None  # where models are traced once
        self.last_run: TrialRun | None = None
        self._plans: dict[str, RunPlan] = {}
        self._caches: dict[tuple[int, int], CachedSplits] = {}

    def rule_for(self, hp: keras_tuner.HyperParameters) -> HyperRule:
        """Returns the rule with the decisions of `hp`, a `keras_tuner.HyperParameters`.

        Hyperparameters that `hp` lacks are declared in it. Override this method to search over
        other decisions of the rule.
        """
        rule = self._plan_for(hp).rule
        lowest, highest = LEARNING_RATE_FACTORS
        hp.Float("learning_rate_factor", lowest, highest, sampling="log", default=1.0)
        hp.Choice("schedule_factor", SCHEDULE_FACTORS, default=1.0)
        alphas = sorted({*MIXUP_ALPHAS, rule.mixup_alpha})
        hp.Choice("mixup_alpha", alphas, default=rule.mixup_alpha)
        return changed_rule(rule, hp.values)

    def decisions_for(self, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        """Returns what a trial decides beside the rule, as arguments of `keras_bit.plan`."""
        plan = self._trial_plan(hp, self.rule)
        network = {"depth": plan.depth, "width": plan.width}
        names = "freeze_backbone frozen_blocks weight_decay dropout class_weight remat".split()
        return {
            **(network if plan.preset is None else {"preset": plan.preset}),
            **{name: value for name in names if (value := getattr(plan, name))},
            **({"dtype": plan.precision} if "dtype" in self._options else {}),
        }

    def make_model(self, hp: keras_tuner.HyperParameters, rule: HyperRule) -> keras.Model:
        """Returns the model of a trial; override it for one of your own.

        It may be compiled, with `rule.optimizer()`; else `keras_bit.compile_classifier` does it.
        Called with the random seed and the precision policy of the trial set.

        Args:
            hp: The hyperparameters, in which further ones may be declared.
            rule: The `keras_bit.HyperRule` of the trial.
        """
        return self._initial.build(self._trial_plan(hp, rule))

    def make_data(
        self,
        hp: keras_tuner.HyperParameters,
        rule: HyperRule,
        seed: int,
        initial_step: int,
    ) -> "tuple[Batches, Batches]":
        """Returns training and test batches of a trial; override it for data of your own.

        Args:
            hp: The hyperparameters.
            rule: The `keras_bit.HyperRule` of the trial, perhaps with a shortened schedule.
            seed: Seed of the order and the augmentation.
            initial_step: Updates that have been made: the first batch must be the one after them.
        """
        given = self._splits(rule), self.data.num_classes, rule
        weights = self.plan.class_weight
        return make_pipelines(*given, seed=seed, initial_step=initial_step, class_weights=weights)

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Returns the compiled model of a trial, for images of any size."""
        self.last_run = None
        with failed_trial():
            return self._model(hp, self._seed(hp))

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        *args: Any,
        epochs: int | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        verbose: bool | int | str = "auto",
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains a model of `build` to the end of its schedule; keras-tuner calls it.

        Returns:
            The `keras.callbacks.History`.
        """
        # Not needed: the optimizer's step, restored with the weights, says where to resume.
        kwargs.pop("initial_epoch", None)
        check_fit_arguments(args, kwargs, epochs, self.epochs)
        given = TunerCallbacks(callbacks)
        given.check(self.epochs, LOGGED if self.has_own_classifier else None)
        with failed_trial():
            epochs, seed = epochs or self.epochs, self._seed(hp)
            self.last_run = TrialRun(
                self, hp, seed, epochs, given.others, verbose, given.folder, given.best
            )
            self._runs[_key(hp)] += 1
            try:
                return self.last_run.train(model)
            except (KeyboardInterrupt, SystemExit, OSError):  # the same call resumes it
                self._runs[_key(hp)] -= 1
                raise

    def run_again(
        self,
        hp: keras_tuner.HyperParameters,
        seed: int,
        folder: pathlib.Path,
        objective: keras_tuner.Objective,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> dict[str, Any]:
        """Trains with hyperparameters and another seed to the end of the schedule.

        Args:
            hp: The hyperparameters.
            seed: Of initial weights, order and augmentation.
            folder: For checkpoints and the best weights.
            objective: The `keras_tuner.Objective` whose best value is the score.
            callbacks: Further callbacks, which are copied.

        Returns:
            Dict of `score`; `right`, a string of 0 and 1 for the test images, where the objective
            is the accuracy of this package's classifier; seconds, history and more.

        Raises:
            keras_tuner.errors.FailedTrialError: As a trial.
            keras_tuner.errors.FatalRuntimeError: Of an OSError, such as that of a full disk.
        """
        folder.mkdir(parents=True, exist_ok=True)
        best = BestEpoch(objective, folder / "best.weights.h5")
        with failed_trial():
            model = self._model(hp, seed)
            others = copy.deepcopy(list(callbacks))
            for callback in others:
                if hasattr(callback, "log_dir"):  # as keras-tuner does with TensorBoard's
                    callback.log_dir = os.path.join(callback.log_dir, folder.name)
            run = TrialRun(self, hp, seed, self.epochs, others, 0, folder, best)
            run.train(model)
            right = ""
            if self.has_own_classifier and objective.name == "val_accuracy":
                model.load_weights(best.path)
                right = right_images(model, run.test)
        return {"score": best.best, "right": right, **run.summary()}

    @property
    def has_own_classifier(self) -> bool:
        """Whether trials train this package's classifier, not a model of the user's."""
        return type(self).make_model is HyperBiT.make_model

    def data_settings(self, rule: HyperRule) -> list[str] | None:
        """Returns fingerprints of the images of a trial, or `None` where they are the user's."""
        if type(self).make_data is not HyperBiT.make_data:
            return None
        return [cached.fingerprint for cached in self._splits(rule)]

    @contextlib.contextmanager
    def traced_once(self) -> Iterator[None]:
        """Lets trials with steps of the same shapes share one model, traced and compiled once.

        Within this context `build` returns the model of the trial before, its variables as new.
        The first run with the same hyperparameters has the plan's own seed.
        """
        self._runs.clear()  # of an earlier search
        self._traced = TracedModel()
        try:
            yield
        finally:
            self._traced = None

    def _model(self, hp, seed):
        """The compiled model of a run, perhaps one that is traced already."""
        trial_plan = dataclasses.replace(self._trial_plan(hp, self.rule_for(hp)), seed=seed)
        if self._traced is None or not self.has_own_classifier:
            return self._make_compiled(hp, trial_plan)
        return self._traced.get(trial_plan, lambda: self._make_compiled(hp, trial_plan))

    def _make_compiled(self, hp, trial_plan):
        with seeded(trial_plan.seed), policy_scope(trial_plan.precision):
            model = self.make_model(hp, trial_plan.rule)
        if not model.compiled:
            compile_classifier(model, trial_plan.optimizer())
        build_optimizer(model)
        optimizer = inner_optimizer(model)
        optimizer.learning_rate = VariableSchedule(optimizer, trial_plan.rule)
        return model

    def _plan_for(self, hp):
        """The plan of the network that `hp` chooses."""
        preset = hp.values.get("preset")
        if preset in (None, self.plan.preset):
            return self.plan
        if preset not in self._plans:
            given = {"preset": preset, "rule": self._given_rule}
            self._plans[preset] = plan(self.data, **given, **self._options)
        return self._plans[preset]

    def _trial_plan(self, hp, rule) -> RunPlan:
        return dataclasses.replace(self._plan_for(hp), rule=rule, **changed_decisions(hp.values))

    def _splits(self, rule):
        sizes = rule.resize_edge, rule.crop_size
        if sizes not in self._caches:
            self._caches[sizes] = cache_splits(self.data, rule, self.plan.cache_dir)
        return self._caches[sizes]

    def _seed(self, hp):
        """The seed of the next run with these hyperparameters."""
        return self.plan.seed + self._runs[_key(hp)]


def _key(hp):
    return tuple(sorted(hp.values.items()))
