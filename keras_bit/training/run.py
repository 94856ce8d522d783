"""One whole run: plan, train, evaluate, write."""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_bit.checkpoints.callback import Checkpoint
from keras_bit.core.arguments import check_boolean
from keras_bit.core.device import (
    current_device,
    device_names,
    has_tensorflow,
    runs_on_cpu,
)
from keras_bit.core.distribution import processes
from keras_bit.core.onednn import is_left_off
from keras_bit.core.text import announce, list_some
from keras_bit.core.warn import warn_caller
from keras_bit.data.dataset import ImageDataset, check_dataset
from keras_bit.data.pipeline import cache_splits, make_pipelines
from keras_bit.data.shard import Shard
from keras_bit.evaluation.evaluation import Evaluation
from keras_bit.hyperrule.callback import as_callbacks, fit_hyperrule
from keras_bit.hyperrule.rule import HyperRule
from keras_bit.models.classifier import compile_classifier, score_name
from keras_bit.training.data_summary import DataSummary
from keras_bit.training.distribution import (
    all_devices,
    explain_lost_process,
    this_process,
    with_whole_outputs,
)
from keras_bit.training.plan import RunPlan
from keras_bit.training.plan import plan as make_plan
from keras_bit.training.progress import BestWeights, HistoryFile, Progress, TensorBoard
from keras_bit.training.run_files import write_files, write_pages
from keras_bit.training.run_folder import (
    AUTO,
    CHECKPOINTS_FOLDER,
    HISTORY_FILE,
    LOGS_FOLDER,
    run_folder,
)


@dataclasses.dataclass(frozen=True, eq=False)
class FineTuneResult:
    """What `fine_tune` returns.

    Attributes:
        model: The trained `keras_bit.BiTClassifier`, with the weights that were best on validation.
        plan: The `RunPlan` of the run.
        history: Dict of lists with one value for each epoch: `loss`, `accuracy`, `val_loss`,
            `val_accuracy`, `learning_rate` and `updates`, the optimizer updates done by then.
            Where an image has several labels, `pr_auc` and `val_pr_auc` in place of the accuracy.
        evaluation: The `keras_bit.Evaluation` of the model on the validation images.
        metrics: Dict of plain numbers and strings; see `fine_tune`.
        output: `pathlib.Path` of the output folder, or `None`.
    """

    model: keras.Model
    plan: RunPlan
    history: dict[str, list]
    evaluation: Evaluation
    metrics: dict[str, Any]
    output: pathlib.Path | None

    @property
    def rule(self) -> HyperRule:
        """The `keras_bit.HyperRule` of the run."""
        return self.plan.rule


def fine_tune(
    data: ImageDataset,
    *,
    plan: RunPlan | None = None,
    output: str | os.PathLike | None = None,
    overwrite: bool = False,
    resume: bool | str = AUTO,
    report: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: bool | int | str = "auto",
    **decisions: Any,
) -> FineTuneResult:
    """Fine-tunes BiT on `data` under BiT-HyperRule, keeps the best model and evaluates it.

    The model is a `keras_bit.BiTClassifier`. It is trained for exactly `rule.schedule_length`
    optimizer updates with a validation after every epoch; the weights with the highest validation
    accuracy (the earliest of equals) are the result. Where an image has several labels, the loss is
    binary cross-entropy, and in place of the accuracy stands the area under the precision-recall
    curve; see `keras_bit.compile_classifier`.

    Args:
        data: A `keras_bit.ImageDataset`.
        plan: A `RunPlan` for this data, from `keras_bit.plan`; by default it is made here.
        output: Folder to write to; nothing is written by default. It gets `model.keras` (without
            the optimizer: compile it to train on), `label_names.json`, `outputs.json` (how to read
            the model's logits), `rule.json` (the rule's decisions and, under `config`, what
            `HyperRule.from_config` takes), `plan.json`,
            `history.csv`, `metrics.json`, `logs` for TensorBoard (where TensorFlow, which writes
            them, is installed), and a report: `report.html` and,
            in `report`, its pictures. While the run lasts, everything lies in its sub-folder
            `unfinished`, with checkpoints (`keras_bit.Checkpoint`), which stay there if the run is
            interrupted: by Ctrl-C or SIGTERM, after the step under way, or in any other way.
        overwrite: Whether an output folder that is not empty may be used. The files of the run in
            it are replaced when the new run is complete; other files stay.
        resume: `"auto"` resumes an interrupted run in `output`, which must have been begun with
            the same data, plan and callbacks: it ends with the weights, history and report of a
            run that nothing interrupted. `True` does so or fails; `False` starts again, and with
            `overwrite` where there is one.
        report: Whether to draw the report.
        callbacks: Further callbacks for `fit`.
        verbose: As in `fit`; 0 silences the run, whose lines then go to the logger `"keras_bit"`
            only.
        **decisions: Arguments of `keras_bit.plan`, which describes them: `preset`, `depth`,
            `width`, `freeze_backbone`, `frozen_blocks`, `weight_decay`, `dropout`,
            `class_weight`, `remat`, `dtype`, `rule`, `micro_batch_size`, `steps_per_epoch`, `seed`,
            `cache_dir`, and those of `HyperRule`, such as `batch_size`.

    Returns:
        A `FineTuneResult`. Its `metrics` are those of `keras_bit.Evaluation.metrics` on the
        validation images, such as `loss` and `accuracy`; `best_update` (the updates after which the
        best weights stood), `training_seconds`, `training_images`, `validation_images`, `classes`,
        `weights` (the preset or `"random"`), `parameters`, `precision` (the policy), `remat`,
        `seed`, `keras` (its version and backend) and `devices`.

    Raises:
        FileExistsError: If `output` is not empty and `overwrite` is not set.
        FileNotFoundError: With `resume=True`, if there is no interrupted run in `output`.
        BlockingIOError: If another run writes to `output`.
        NotADirectoryError: If `output` is a file.
        ValueError: If arguments contradict each other, `plan` was made for other data, or the
            interrupted run with something else; the message names the differences.
        MemoryError: With `micro_batch_size="auto"`, if not even a single image fits.
        FloatingPointError: If a loss or a weight becomes infinite or NaN.
        ConnectionError: If one of several processes can no longer be reached.
        OSError: If the disk has too little room for the model; the run can then be resumed.

    Example:

    ```python
    import keras_bit

    data = keras_bit.digits(examples_per_class=2)
    result = keras_bit.fine_tune(data, schedule_length=2, crop_size=32, verbose=0)
    print(result.metrics["accuracy"])
    ```
    """
    check_boolean("report", report)
    overwrite, resume = check_boolean("overwrite", overwrite), _checked_resume(resume)
    callbacks = as_callbacks(callbacks)
    is_first = processes().index == 0
    verbose = verbose if is_first else 0
    with explain_lost_process(), _folder(output, overwrite, resume) as folder:
        with all_devices():
            plan = _resolve_plan(check_dataset(data), plan, decisions, verbose)
            announce(str(plan), verbose)
            _hint_at_onednn(verbose)
            run = _Run(plan, folder, callbacks, verbose, resume)
            keras.utils.set_random_seed(plan.seed)
            model = plan.build_classifier()
            splits = cache_splits(data, plan.rule, plan.cache_dir)
            _check_classes(splits.train.labels, data)
            pipelines = run.pipelines(splits)
            history = run.train(model, pipelines)
            announce("Evaluating the best weights.", verbose)
            model.set_weights(run.best.best_weights)
            evaluation = _evaluate(data, model, splits, pipelines)
        seconds, images = run.progress.seconds, len(splits.train)
        metrics = _metrics(plan, history, evaluation, seconds, images)
        with this_process():
            model = _own_model(plan, model)
            if folder is not None and is_first:
                drawing = " and drawing the report" if report else ""
                announce(f"Saving the model{drawing}.", verbose)
                write_files(folder, plan, model, metrics, evaluation.outputs)
                if report:
                    write_pages(folder, plan, model, history, metrics, evaluation, splits)
    output = None if output is None else pathlib.Path(output)
    return FineTuneResult(model, plan, history, evaluation, metrics, output)


def _checked_resume(resume):
    if resume != AUTO:
        check_boolean("resume", resume)
    return resume


def _folder(output, overwrite, resume):
    """The folder to work in; `None` without an output, where all stays in memory."""
    if output is None and resume is True:
        raise ValueError("`resume=True` needs an `output`, which holds the interrupted run.")
    return contextlib.nullcontext() if output is None else run_folder(output, overwrite, resume)


def _resolve_plan(data, plan, decisions, verbose):
    if plan is None:
        return make_plan(data, verbose=verbose, **decisions)
    if not isinstance(plan, RunPlan):
        raise ValueError(f"`plan` must be a RunPlan. Received: plan={plan!r}")
    if decisions:
        raise ValueError(
            "Arguments that a plan decides must not stand beside `plan`. "
            f"Received: {', '.join(decisions)}. Make another plan with `keras_bit.plan`."
        )
    found, planned = (dataclasses.asdict(summary) for summary in (DataSummary.of(data), plan.data))
    differing = [name for name in found if found[name] != planned[name]]
    if differing:
        raise ValueError(
            "`plan` must have been made for the same data. Received: data that differ in "
            f"{', '.join(differing)}. Make another plan with `keras_bit.plan`."
        )
    if plan.device.name != (device := current_device().name):
        warn_caller(
            f"The plan was made on {plan.device.name} and runs on {device}: precision, micro-batch "
            "and estimates are those of the first."
        )
    return plan


@functools.cache
def _hint_at_onednn(verbose):
    """Says once that training could be faster; the command sets the variable itself."""
    if keras.backend.backend() == "tensorflow" and is_left_off() and runs_on_cpu():
        announce(
            "TensorFlow leaves oneDNN off on this processor, where it makes training faster. "
            "Before TensorFlow is imported, set the environment variable: "
            "export TF_ENABLE_ONEDNN_OPTS=1",
            verbose,
        )


class _Run:
    """The training of one plan, from the checkpoint in `folder` where there is one."""

    def __init__(self, plan, folder, callbacks, verbose, resume):
        self.plan = plan
        self.verbose = verbose
        self.shard = Shard.of(plan.rule)
        self.progress = Progress()
        self.best = BestWeights(score_name(plan.data.multi_label))
        state = [self.progress, self.best, *callbacks]
        self.checkpoint = None
        self.callbacks = state
        if folder is not None:
            self.checkpoint = _checkpoint(folder, plan, state, verbose, resume)
            logs = [TensorBoard(folder / LOGS_FOLDER)] if has_tensorflow() else []
            logs.append(HistoryFile(folder / HISTORY_FILE))
            logs = logs if processes().index == 0 else []
            # First, so that the others see what it restores.
            self.callbacks = [self.checkpoint, self.progress, self.best, *logs, *callbacks]

    def pipelines(self, splits):
        """Training and test batches, from the epoch on that the run begins with."""
        plan = self.plan
        if self.checkpoint:
            fingerprints = [cached.fingerprint for cached in splits]
            _check_images(self.checkpoint, dict(zip(splits._fields, fingerprints, strict=True)))
        step = self.checkpoint.initial_step if self.checkpoint else 0
        classes = len(plan.data.label_names)
        options = {"seed": plan.seed, "initial_step": step, "shard": self.shard}
        return make_pipelines(
            splits, classes, plan.rule, class_weights=plan.class_weight, **options
        )

    def train(self, model, pipelines):
        """Trains to the end of the schedule and returns the history."""
        train, test = pipelines
        multi_label = self.plan.data.multi_label
        compile_classifier(model, self.plan.optimizer(), multi_label=multi_label)
        callback = fit_hyperrule(self.plan.rule, self.plan.steps_per_epoch, self.callbacks)
        arguments = {**callback}
        if self.plan.precision != "mixed_float16":  # which skips updates whose gradients overflow
            # Loggers record what `fit` is given; its own number is only an upper bound.
            arguments["epochs"] = callback.planned_epochs
        try:
            # `train` is shuffled already: with `shuffle=True` Keras would warn that it cannot.
            return model.fit(
                train, validation_data=test, shuffle=False, verbose=self.verbose, **arguments
            ).history
        finally:
            if self.checkpoint:
                self.checkpoint.close()


def _checkpoint(folder, plan, callbacks, verbose, resume):
    """The checkpoints of a run; raises where those in the folder are another run's."""
    settings, path = plan.settings(), folder / CHECKPOINTS_FOLDER
    checkpoint = Checkpoint(path, callbacks=callbacks, settings=settings, verbose=verbose)
    saved = checkpoint.find()
    if resume is True and saved is None:
        raise FileNotFoundError(
            f"`resume=True` needs a checkpoint that can be read. Received: {path}, which holds "
            "none. Leave `resume` at its default to begin again."
        )
    # Of the images more is known when they have been decoded.
    _check_images(checkpoint, saved and saved.content["settings"].get("images"))
    return checkpoint


def _check_images(checkpoint, fingerprints):
    checkpoint.settings["images"] = fingerprints
    try:
        checkpoint.check_settings()
    except ValueError as error:
        raise ValueError(
            f"{error} To start again pass `resume=False` and `overwrite=True`, or --no-resume "
            f"--overwrite.{_micro_batch_hint(checkpoint)}"
        ) from error


def _micro_batch_hint(checkpoint):
    """How to resume where `"auto"` has found another size, for other memory is free now."""
    rules = (checkpoint.find().content["settings"]["rule"], checkpoint.settings["rule"])
    before, now = (rule["micro_batch_size"] for rule in rules)
    if before == now:
        return ""
    return f' Where "auto" chose another size than then, pass `micro_batch_size={before}`.'


def _evaluate(data, model, splits, pipelines):
    """The model's answers on the validation images, read once."""
    _, test = pipelines
    logits = np.asarray(with_whole_outputs(model).predict(test, verbose=0))
    logits = logits[: len(splits.test)]  # The rest are those that fill up the last batch.
    return Evaluation(splits.test.labels, logits, data.label_names, splits.test.names)


def _check_classes(labels, data):
    """Raises where no image of a class can be read, which only decoding tells."""
    if data.multi_label:
        return
    if missing := sorted(set(data.train.labels.tolist()) - set(labels.tolist())):
        raise ValueError(
            "Every class must have training images that can be read. Received: none of "
            f"{list_some([data.label_names[index] for index in missing], 5)}. Save its images "
            "again, or remove the class."
        )


def _own_model(plan, model):
    """The model, or its twin in this process where several share its variables."""
    if processes().count == 1:
        return model
    twin = plan.build_classifier(kernel_epsilon=model.backbone.kernel_epsilon)
    twin.set_weights(model.get_weights())
    return twin


def _metrics(plan, history, evaluation, seconds, training_images):
    score = f"val_{score_name(plan.data.multi_label)}"
    return {
        **evaluation.metrics,
        "best_update": history["updates"][int(np.argmax(history[score]))],
        "training_seconds": round(seconds, 1),
        "training_images": training_images,
        "validation_images": len(evaluation.labels),
        "classes": len(plan.data.label_names),
        "weights": plan.preset or "random",
        "parameters": plan.parameters,
        "precision": plan.precision,
        "remat": plan.remat,
        "seed": plan.seed,
        "keras": f"{keras.version()} on {keras.backend.backend()}",
        "devices": ", ".join(device_names()),
    }
