"""A search over what BiT-HyperRule leaves open, with keras-tuner."""

import collections
import contextlib
import math
import os
from collections.abc import Sequence
from typing import Any

import keras
import keras_tuner

from keras_bit.core.arguments import check_integer
from keras_bit.core.device import is_out_of_memory
from keras_bit.data.dataset import ImageDataset
from keras_bit.data.pipeline import pipelines
from keras_bit.hyperrule.callback import DEFAULT_EPOCHS, fit_hyperrule
from keras_bit.hyperrule.keras_internals import inner_optimizer, updates_of
from keras_bit.hyperrule.rule import AUTO, HyperRule
from keras_bit.models.classifier import compile_classifier
from keras_bit.training.plan import plan

MIXUP_ALPHAS = (0.0, 0.1, 0.2)
SCHEDULE_FACTORS = (0.5, 1.0, 2.0)
LEARNING_RATE_FACTORS = (0.1, 10.0)


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

    Declare one of them yourself to change its values or to fix it, and hand it to the tuner:

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

    `tuner.search` takes `callbacks`, `verbose` and `epochs`; the data come from here. `epochs`
    below that of this class shorten the schedule in proportion: boundaries and warm-up shrink with
    it, so that every trial ends with a full decay. Hyperband sets `epochs` itself, and needs a
    `max_epochs` of that number (10 by default): the trials of its first rounds run such short
    schedules. Those it promotes continue from their best weights, momentum and step, on the
    schedule of their new length, so that those of the last round end with the whole of it.
    Hyperband compares runs of equal length: fix `schedule_factor` there.

    Args:
        data: A `keras_bit.ImageDataset`.
        rule: A `keras_bit.HyperRule`, the middle of the search space.
        preset, depth, width, remat, dtype: As in `keras_bit.plan`; resolved when this object is
            made, for all trials.
        micro_batch_size: `"auto"` for the largest that fits, in place of the rule's; also resolved
            when this object is made.
        epochs: Number of epochs, each with a validation, that make up the schedule of a trial.
        cache_dir: Folder for the decoded images; see `keras_bit.pipelines`. With `None` every
            trial decodes all images again, into memory.
        seed: Non-negative integer for order and augmentation, the same in every trial. With
            `executions_per_trial`, or when a trial is tried again, the next run counts on from it.
        name: Name of the hypermodel.

    Attributes:
        plan: The `keras_bit.RunPlan` of a trial with the rule itself.
        rule: The rule, its micro-batch size resolved.

    Raises:
        ValueError: If an argument is of the wrong kind or contradicts another.
        keras_tuner.errors.FailedTrialError: In a trial that runs out of memory or whose loss
            becomes infinite or NaN: keras-tuner marks it as failed, does not try it again and
            continues. (Several failed trials in a row, its `max_consecutive_failed_trials`, end
            the search.)
        keras_tuner.errors.FatalValueError: From `search`, if it is given something else than
            above, or more epochs.
    """

    def __init__(
        self,
        data: ImageDataset,
        rule: HyperRule,
        *,
        preset: str | os.PathLike | None = None,
        depth: int | tuple[int, ...] | None = None,
        width: float | None = None,
        remat: bool = False,
        dtype: str | keras.DTypePolicy | None = None,
        micro_batch_size: str | None = None,
        epochs: int = DEFAULT_EPOCHS,
        cache_dir: str | os.PathLike | None = None,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if not isinstance(rule, HyperRule):
            raise ValueError(f"`rule` must be a keras_bit.HyperRule. Received: rule={rule!r}")
        if micro_batch_size not in (None, AUTO):
            raise ValueError(
                '`micro_batch_size` must be "auto", or a number in the rule. '
                f"Received: micro_batch_size={micro_batch_size!r}. Use "
                f"`rule.replace(micro_batch_size={micro_batch_size!r})`."
            )
        self.epochs = check_integer("epochs", epochs, minimum=1)
        self.plan = plan(
            data,
            preset=preset,
            depth=depth,
            width=width,
            remat=remat,
            dtype=dtype,
            rule=rule,
            micro_batch_size=micro_batch_size,
            seed=seed,
            cache_dir=cache_dir,
        )
        self.data = data
        self.rule = self.plan.rule
        self._runs: collections.Counter = collections.Counter()

    def rule_for(self, hp: keras_tuner.HyperParameters) -> HyperRule:
        """Returns the rule with the decisions of `hp`, a `keras_tuner.HyperParameters`.

        Hyperparameters that `hp` lacks are declared in it. Override this method to search over
        other decisions of the rule.
        """
        rule = self.rule
        lowest, highest = LEARNING_RATE_FACTORS
        rate = hp.Float("learning_rate_factor", lowest, highest, sampling="log", default=1.0)
        length = hp.Choice("schedule_factor", SCHEDULE_FACTORS, default=1.0)
        alphas = sorted({*MIXUP_ALPHAS, rule.mixup_alpha})
        return rule.replace(
            learning_rate=rate * rule.learning_rate,
            schedule_length=_share(rule.schedule_length, length),
            mixup_alpha=hp.Choice("mixup_alpha", alphas, default=rule.mixup_alpha),
        )

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Returns the compiled model of a trial, for images of any size."""
        with _failed_trial():
            model = self.plan.build_classifier()
            compile_classifier(model, self.rule_for(hp).optimizer())
        return model

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
        self._check_fit_arguments(args, kwargs, epochs)
        with _failed_trial():
            return self._train(hp, model, epochs or self.epochs, callbacks, verbose)

    def _check_fit_arguments(self, args, kwargs, epochs):
        if args or kwargs:
            raise keras_tuner.errors.FatalValueError(
                "`search` takes `callbacks`, `verbose` and `epochs` only: HyperBiT brings the data "
                f"and the steps. Received: {len(args)} unnamed values, and {sorted(kwargs)}"
            )
        if epochs is not None and not 1 <= epochs <= self.epochs:
            raise keras_tuner.errors.FatalValueError(
                "`epochs` of `search`, and `max_epochs` of Hyperband, must not exceed `epochs` of "
                f"HyperBiT. Received: epochs={epochs} with HyperBiT(epochs={self.epochs})"
            )

    def _train(self, hp, model, epochs, callbacks, verbose):
        whole = self.rule_for(hp)
        rule = whole.replace(schedule_length=_share(whole.schedule_length, epochs / self.epochs))
        optimizer = inner_optimizer(model)
        optimizer.learning_rate = rule.schedule()
        done = updates_of(optimizer)
        seed = self._next_seed(hp)
        train, test = pipelines(self.data, rule, self.plan.cache_dir, seed=seed, initial_step=done)
        updates_per_epoch = math.ceil(whole.schedule_length / self.epochs)
        arguments = fit_hyperrule(rule, updates_per_epoch * rule.accumulation_steps, callbacks)
        # `train` is shuffled already: with `shuffle=True` Keras would only warn that it cannot.
        return model.fit(
            train,
            validation_data=test,
            initial_epoch=done // updates_per_epoch,
            shuffle=False,
            verbose=verbose,
            **arguments,
        )

    def _next_seed(self, hp):
        values = tuple(sorted(hp.values.items()))
        self._runs[values] += 1
        return self.plan.seed + self._runs[values] - 1


def _share(length, factor):
    return max(1, round(length * factor))


@contextlib.contextmanager
def _failed_trial():
    """Turns what a trial alone is to blame for into keras-tuner's FailedTrialError."""
    try:
        yield
    except FloatingPointError as error:
        raise keras_tuner.errors.FailedTrialError(str(error)) from error
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        text = str(error)
        reason = text.strip().splitlines()[0] if text.strip() else type(error).__name__
        raise keras_tuner.errors.FailedTrialError(
            f"The trial ran out of memory ({reason}). A smaller `micro_batch_size` or `crop_size` "
            "of the rule needs less."
        ) from error
