"""A search over what BiT-HyperRule leaves open, with keras-tuner."""

import collections
import contextlib
import math

import keras
import keras_tuner

from keras_bit.callbacks import DEFAULT_EPOCHS, fit_hyperrule
from keras_bit.checks import check_integer
from keras_bit.data.dataset import ImageDataset
from keras_bit.data.pipeline import pipelines
from keras_bit.device import chosen_policy, is_out_of_memory, precision
from keras_bit.hyperrule import HyperRule
from keras_bit.layers.classifier import build_classifier, chosen_preset, compile_classifier
from keras_bit.micro_batch import AUTO, largest_micro_batch

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
    import keras_bit
    import keras_tuner

    data = keras_bit.image_folder("photos")
    rule = keras_bit.HyperRule(data.image_size, data.train_size, batch_size=64)
    space = keras_tuner.HyperParameters()
    space.Fixed("schedule_factor", 1.0)
    tuner = keras_tuner.RandomSearch(
        keras_bit.HyperBiT(data, rule, preset="m-r50x1", cache_dir="cache"),
        objective="val_accuracy",
        max_trials=20,
        hyperparameters=space,
        directory="search",
    )
    tuner.search()
    best = tuner.hypermodel.rule_for(tuner.get_best_hyperparameters()[0])
    ```

    `tuner.search` takes `callbacks`, `verbose` and `epochs`; the data come from here. `epochs`
    below that of this class shorten the schedule in proportion: boundaries and warm-up shrink with
    it, so that every trial ends with a full decay. Hyperband sets `epochs` itself, and needs a
    `max_epochs` of that number (10 by default): the trials of its first rounds run such short
    schedules. Those it promotes go on from their best weights, momentum and step, on the schedule
    of their new length, so that those of the last round end with the whole of it. Hyperband
    compares runs of equal length: fix `schedule_factor` there.

    Args:
        data: A `keras_bit.ImageDataset`.
        rule: A `keras_bit.HyperRule`, the middle of the search space.
        preset: Name of pretrained weights (see `keras_bit.presets()`), or a file, URL or handle, as
            `keras_bit.BiTBackbone.from_weights` takes it. Without preset, depth and width it is
            `"f-r14x0.5"`, the small network that comes with the package; see
            `keras_bit.fine_tune`.
        depth: Depth of a backbone with random weights; 50 beside a `width`.
        width: Width of a backbone with random weights; 1 beside a `depth`.
        remat, dtype: As in `keras_bit.fine_tune`. The precision policy is chosen when this object
            is made, for all trials.
        micro_batch_size: `"auto"` for the largest that fits, in place of the rule's; it is found
            before the first trial.
        epochs: Number of epochs, each with a validation, that make up the schedule of a trial.
        cache_dir: Folder for the decoded images; see `keras_bit.pipelines`. With `None` every
            trial decodes all images anew, into memory.
        seed: Non-negative integer for order and augmentation, the same in every trial. With
            `executions_per_trial`, or when a trial is tried again, the next run counts on from it.
        name: Name of the hypermodel.

    Raises:
        ValueError: If an argument is of the wrong kind or contradicts another.
        keras_tuner.errors.FailedTrialError: In a trial that runs out of memory: keras-tuner marks
            it as failed, does not try it again and goes on. (Several failed trials in a row, its
            `max_consecutive_failed_trials`, end the search.)
        keras_tuner.errors.FatalValueError: From `search`, if it is given something else than
            above, or more epochs.
    """

    def __init__(
        self,
        data,
        rule,
        *,
        preset=None,
        depth=None,
        width=None,
        remat=False,
        dtype=None,
        micro_batch_size=None,
        epochs=DEFAULT_EPOCHS,
        cache_dir=None,
        seed=0,
        name=None,
    ):
        super().__init__(name=name)
        for argument, value, kind in (("data", data, ImageDataset), ("rule", rule, HyperRule)):
            if not isinstance(value, kind):
                raise ValueError(
                    f"`{argument}` must be a keras_bit.{kind.__name__}. "
                    f"Received: {argument}={value!r}"
                )
        self.preset = chosen_preset(preset, depth, width)
        self.data = data
        self.rule = rule
        self.depth = depth
        self.width = width
        self.remat = remat
        if micro_batch_size not in (None, AUTO):
            raise ValueError(
                '`micro_batch_size` must be "auto", or a number in the rule. '
                f"Received: micro_batch_size={micro_batch_size!r}. Use "
                f"`rule.replace(micro_batch_size={micro_batch_size!r})`."
            )
        self.epochs = check_integer("epochs", epochs, minimum=1)
        self.cache_dir = cache_dir
        self.seed = check_integer("seed", seed, minimum=0)
        self._policy = chosen_policy(dtype)
        self._splits_itself = micro_batch_size == AUTO
        self._runs = collections.Counter()

    def rule_for(self, hp):
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

    def build(self, hp):
        """Returns the compiled model of a trial, for images of any size."""
        with _failed_when_out_of_memory():
            # keras-tuner clears Keras's session before every trial, and the policy with it.
            with precision(self._policy):
                model = build_classifier(
                    self.data.num_classes,
                    preset=self.preset,
                    depth=self.depth,
                    width=self.width,
                    remat=self.remat,
                )
            if self._splits_itself:
                images = largest_micro_batch(model, self.rule)
                self.rule = self.rule.replace(micro_batch_size=images)
                self._splits_itself = False
            compile_classifier(model, self.rule_for(hp).optimizer())
        return model

    def fit(self, hp, model, *args, epochs=None, callbacks=(), verbose="auto", **kwargs):
        """Trains a model of `build` to the end of its schedule; keras-tuner calls it.

        Returns:
            The `keras.callbacks.History`.
        """
        # Not needed: the optimizer's step, restored with the weights, says where to go on.
        kwargs.pop("initial_epoch", None)
        self._check_fit_arguments(args, kwargs, epochs)
        with _failed_when_out_of_memory():
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
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        optimizer.learning_rate = rule.schedule()
        done = int(keras.ops.convert_to_numpy(optimizer.iterations))
        seed = self._next_seed(hp)
        train, test = pipelines(self.data, rule, self.cache_dir, seed=seed, initial_step=done)
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
        return self.seed + self._runs[values] - 1


def _share(length, factor):
    return max(1, round(length * factor))


@contextlib.contextmanager
def _failed_when_out_of_memory():
    """Turns an out-of-memory error of any backend into keras-tuner's FailedTrialError."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        text = str(error)
        reason = text.strip().splitlines()[0] if text.strip() else type(error).__name__
        raise keras_tuner.errors.FailedTrialError(
            f"The trial ran out of memory ({reason}). A smaller `micro_batch_size` or `crop_size` "
            "of the rule needs less."
        ) from error
