"""One whole run: from a data set to a saved, evaluated classifier and its report."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import tempfile
import time

import keras
import numpy as np

from keras_bit import report as run_report
from keras_bit.callbacks import fit_hyperrule
from keras_bit.data.pipeline import pipelines
from keras_bit.device import chosen_policy, precision
from keras_bit.files import written_whole
from keras_bit.hyperrule import HyperRule
from keras_bit.layers.classifier import (
    BiTClassifier,
    build_classifier,
    chosen_preset,
    compile_classifier,
)
from keras_bit.micro_batch import AUTO, largest_micro_batch
from keras_bit.weights.presets import EMBEDDED

BATCH_SIZE = 64
MODEL_FILE = "model.keras"
LABELS_FILE = "label_names.json"
RULE_FILE = "rule.json"
HISTORY_FILE = "history.csv"
METRICS_FILE = "metrics.json"
LOGS_FOLDER = "logs"
UNFINISHED_FOLDER = "unfinished"
_BEST_WEIGHTS_FILE = "best.weights.h5"
_RUN_PATTERNS = (
    MODEL_FILE,
    LABELS_FILE,
    RULE_FILE,
    HISTORY_FILE,
    METRICS_FILE,
    run_report.PAGE_FILE,
    *(f"{run_report.PICTURES_FOLDER}/{name}" for name in run_report.PICTURE_FILES),
    f"{LOGS_FOLDER}/*/events.out.tfevents.*",
)


@dataclasses.dataclass(frozen=True, eq=False)
class FineTuneResult:
    """What `fine_tune` returns.

    Attributes:
        model: The trained `keras_bit.BiTClassifier`, with the weights that were best on validation.
        rule: The `keras_bit.HyperRule` of the run.
        history: Dict of lists with one value for each epoch: `loss`, `accuracy`, `val_loss`,
            `val_accuracy`, `learning_rate` and `updates`, the optimizer updates done by then.
        metrics: Dict of plain numbers and strings; see `fine_tune`.
        output: `pathlib.Path` of the output folder, or `None`.
    """

    model: keras.Model
    rule: HyperRule
    history: dict
    metrics: dict
    output: pathlib.Path | None


def fine_tune(
    data,
    *,
    preset=None,
    depth=None,
    width=None,
    freeze_backbone=False,
    remat=False,
    dtype=None,
    rule=None,
    micro_batch_size=None,
    steps_per_epoch=None,
    seed=0,
    cache_dir=None,
    output=None,
    overwrite=False,
    report=True,
    callbacks=(),
    verbose="auto",
    notify=None,
    **rule_arguments,
):
    """Fine-tunes BiT on `data` under BiT-HyperRule, keeps the best model and evaluates it.

    The model is a `keras_bit.BiTClassifier`. It is trained for
    exactly `rule.schedule_length` optimizer updates with a validation after every epoch; the
    weights with the highest validation accuracy (the earliest of equals) are the result.

    Args:
        data: A `keras_bit.ImageDataset`.
        preset: Name of pretrained weights (see `keras_bit.presets()`), or a file, URL or handle, as
            `keras_bit.BiTBackbone.from_weights` takes it. Without preset, depth and width it is
            `"f-r14x0.5"`, a small network that comes with the package. It was trained on images
            drawn by formula: better than random weights, far from Google's.
        depth: Depth of a backbone with random weights; 50 beside a `width`.
        width: Width of a backbone with random weights; 1 beside a `depth`.
        freeze_backbone: Whether only the head is trained, on features that stay as they are.
        remat: Whether the backward pass computes the maps inside of each unit again instead of
            keeping them: less memory, more time; see `keras_bit.BiTBackbone`.
        dtype: Precision policy of the model, such as `"float32"` or `"mixed_bfloat16"`. By
            default that of Keras; but where Keras's is `"float32"`, `"mixed_bfloat16"` on GPUs
            with matrix units for it (NVIDIA's from compute capability 8.0 on) and on TPUs. Keras's
            own policy is left as it is.
        rule: A `keras_bit.HyperRule`. By default it is made from `data` and `rule_arguments`.
        micro_batch_size: As in `HyperRule`; or `"auto"`, also beside a `rule`, for the largest
            that fits the device: see `keras_bit.largest_micro_batch`.
        steps_per_epoch: Steps of `fit` between two validations, of which
            `rule.accumulation_steps` make an update; a tenth of the schedule by default.
        seed: Integer that decides the initial weights, the order of the images and their
            augmentation.
        cache_dir: Folder for the decoded images, which later runs use again; see
            `keras_bit.pipelines`. In memory by default.
        output: Folder to write to; nothing is written by default. It gets `model.keras` (without
            the optimizer: compile it to train on), `label_names.json`, `rule.json` (the rule's
            decisions and, under `config`, what `HyperRule.from_config` takes), `history.csv`,
            `metrics.json`, `logs` for TensorBoard, and a report: `report.html` and, in `report`,
            its pictures. While the run lasts, everything lies in its sub-folder `unfinished`,
            with the best weights so far; a run that fails before its first validation leaves
            nothing behind.
        overwrite: Whether an output folder that is not empty may be used. The files of the run in
            it are replaced when the new run is complete; other files stay.
        report: Whether to draw the report.
        callbacks: Further callbacks for `fit`.
        verbose: As in `fit`; 0 silences the run.
        notify: Function that is called with a line of text at every stage of the run; by default
            the lines are printed, unless `verbose` is 0.
        **rule_arguments: Arguments of `HyperRule` other than the sizes: `batch_size` (64 by
            default), `schedule_length`, `resize_edge`, `crop_size`,
            `mixup_alpha`, `warmup`, `random_crop`, `random_flip`, `learning_rate`.

    Returns:
        A `FineTuneResult`. Its `metrics` are `loss`, `accuracy` and `mean_class_accuracy` on the
        validation images, `best_update` (the updates after which the best weights stood),
        `training_seconds`, `training_images`, `validation_images`, `classes`, `weights` (the
        preset or `"random"`), `parameters`, `precision` (the policy), `remat`, `seed`, `keras` (its
        version and backend) and `devices`.

    Raises:
        FileExistsError: If `output` is not empty and `overwrite` is not set.
        NotADirectoryError: If `output` is a file.
        ValueError: If arguments contradict each other.
        MemoryError: With `micro_batch_size="auto"`, if not even a single image fits.
        FloatingPointError: If the training loss becomes infinite or NaN.

    Example:

    ```python
    import keras_bit

    result = keras_bit.fine_tune(
        keras_bit.image_folder("photos"), depth=50, batch_size=64, output="photos-bit"
    )
    print(result.metrics["accuracy"])
    ```
    """
    automatic = micro_batch_size == AUTO
    if not automatic and micro_batch_size is not None:
        rule_arguments["micro_batch_size"] = micro_batch_size
    rule = _rule(data, rule, rule_arguments)
    with _output_folder(output, overwrite) as folder:
        say = notify or (print if verbose else _silent)
        keras.utils.set_random_seed(seed)
        set_memory_growth()
        preset = chosen_preset(preset, depth, width)
        policy = chosen_policy(dtype)
        with precision(policy):
            model = build_classifier(
                data.num_classes,
                preset=preset,
                depth=depth,
                width=width,
                freeze_backbone=freeze_backbone,
                remat=remat,
            )
        say(_opening(data, model, preset, policy))
        if automatic:
            images = largest_micro_batch(model, rule, notify=say)
            rule = rule.replace(micro_batch_size=images)
        train, test = pipelines(data, rule, cache_dir, seed=seed)
        callbacks = [*_callbacks(model, folder, logged=output is not None), *callbacks]
        started = time.monotonic()
        history = _train(model, rule, train, test, steps_per_epoch, callbacks, verbose)
        seconds = time.monotonic() - started
        say("Evaluating the best weights.")
        model.load_weights(folder / _BEST_WEIGHTS_FILE)
        logits, labels = _predict(model, test)
        metrics = {
            **evaluate(logits, labels),
            "best_update": history["updates"][int(np.argmax(history["val_accuracy"]))],
            "training_seconds": round(seconds, 1),
            "training_images": data.train_size,
            "validation_images": len(labels),
            "classes": data.num_classes,
            "weights": preset or "random",
            "parameters": model.count_params(),
            "precision": policy,
            "remat": bool(remat),
            "seed": seed,
            "keras": f"{keras.version()} on {keras.backend.backend()}",
            "devices": _devices(),
        }
        if output is not None:
            say("Saving the model and drawing the report." if report else "Saving the model.")
            _save(folder, model, data.label_names, rule, metrics)
            if report:
                _draw_report(folder, data, rule, history, metrics, train, test, logits, labels)
    output = None if output is None else pathlib.Path(output)
    return FineTuneResult(model, rule, history, metrics, output)


def set_memory_growth():
    """Lets TensorFlow take GPU memory with need instead of all at once; harmless without a GPU.

    GPUs that are in use already, or that were given a limit, stay as they are.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError, ValueError):
            tf.config.experimental.set_memory_growth(gpu, True)


def check_output(output, overwrite=False):
    """Raises where `output` cannot take a run.

    Args:
        output: Path of a folder, which need not exist.
        overwrite: Whether it may hold files.

    Raises:
        FileExistsError: If the folder is not empty and `overwrite` is not set.
        NotADirectoryError: If it is a file.
    """
    output = pathlib.Path(output)
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"`output` must be a folder. Received: output={output}, a file")
    if output.exists() and not overwrite and any(output.iterdir()):
        what = "a run" if any(_run_files(output)) else "files"
        if (output / UNFINISHED_FOLDER).is_dir():
            what = "an unfinished run"
        raise FileExistsError(
            f"`output` must be an empty or new folder. Received: output={output}, which holds "
            f"{what}. Choose another one, or set `overwrite` to replace the run in it."
        )


def evaluate(logits, labels):
    """Loss and accuracies of `logits`.

    Args:
        logits: Floats of shape (n, classes).
        labels: Class ids, integers of shape (n,).

    Returns:
        A dict: `loss`, the mean cross-entropy; `accuracy`; `mean_class_accuracy`, the mean over
        the classes that occur of the share that is right, which counts small classes as much as
        large ones.
    """
    true = run_report.softmax(logits)[np.arange(len(labels)), labels]
    right = logits.argmax(axis=-1) == labels
    classes = [right[labels == label].mean() for label in np.unique(labels)]
    return {
        "loss": float(-np.log(np.maximum(true, np.finfo(true.dtype).tiny)).mean()),
        "accuracy": float(right.mean()),
        "mean_class_accuracy": float(np.mean(classes)),
    }


def _rule(data, rule, arguments):
    if rule is None:
        return HyperRule(
            data.image_size, data.train_size, **{"batch_size": BATCH_SIZE, **arguments}
        )
    if arguments:
        raise ValueError(
            "Arguments of HyperRule must not stand beside `rule`. "
            f"Received: {', '.join(arguments)}. Use `rule.replace(...)`."
        )
    return rule


def _silent(message):
    """Takes the place of `print` in a run that says nothing."""


def _opening(data, model, preset, policy):
    weights = f"the weights of {preset}" if preset else "random weights"
    if preset == EMBEDDED:
        weights += ", which were trained on images drawn by formula and are not Google's"
    return (
        f"{data.train_size:,} training and {data.test_size:,} validation images in "
        f"{data.num_classes:,} classes. BiT with {model.count_params():,} parameters starts from "
        f"{weights}. It trains in {policy} on {_devices()}."
    )


def _devices():
    return ", ".join(keras.distribution.list_devices())


def _callbacks(model, folder, logged):
    """Those that keep the best weights and, where there is an output, the logs."""

    def count_updates(epoch, logs):
        logs["updates"] = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
        if not math.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"The training loss has become {logs['loss']} before update {logs['updates']}. "
                "Lower `learning_rate`, or set `warmup`."
            )

    count = keras.callbacks.LambdaCallback(on_epoch_end=count_updates)
    best = keras.callbacks.ModelCheckpoint(
        folder / _BEST_WEIGHTS_FILE,
        monitor="val_accuracy",
        mode="max",
        save_best_only=True,
        save_weights_only=True,
    )
    if not logged:
        return [count, best]
    tensorboard = keras.callbacks.TensorBoard(folder / LOGS_FOLDER, write_graph=False)
    return [count, best, tensorboard, keras.callbacks.CSVLogger(folder / HISTORY_FILE)]


def _train(model, rule, train, test, steps_per_epoch, callbacks, verbose):
    compile_classifier(model, rule.optimizer())
    arguments = fit_hyperrule(rule, steps_per_epoch=steps_per_epoch, callbacks=callbacks)
    # `train` is shuffled already: with `shuffle=True` Keras would only warn that it cannot.
    fitted = model.fit(train, validation_data=test, shuffle=False, verbose=verbose, **arguments)
    return fitted.history


def _predict(model, dataset):
    """Logits and class ids of all images of a finite, ordered data set."""
    labels = [labels.argmax(axis=-1) for _, labels in dataset.as_numpy_iterator()]
    return np.asarray(model.predict(dataset, verbose=0)), np.concatenate(labels)


def _save(folder, model, label_names, rule, metrics):
    # A fresh model of the same layers has no optimizer: its momentum would double the file and
    # belongs to the last update, not to the best one.
    BiTClassifier(*model.layers).save(folder / MODEL_FILE)
    contents = {LABELS_FILE: label_names, RULE_FILE: _decisions(rule), METRICS_FILE: metrics}
    for name, content in contents.items():
        with written_whole(folder / name) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _decisions(rule):
    names = (
        "image_size dataset_size batch_size micro_batch_size resize_edge crop_size random_crop "
        "random_flip mixup_alpha schedule_length boundaries warmup_steps learning_rate momentum"
    )
    return {name: getattr(rule, name) for name in names.split()} | {"config": rule.get_config()}


def _draw_report(folder, data, rule, history, metrics, train, test, logits, labels):
    probabilities = run_report.softmax(logits)
    mistakes = run_report.confident_mistakes(probabilities, labels)
    run_report.write_report(
        folder,
        label_names=data.label_names,
        metrics=metrics,
        rule=rule,
        history=history,
        training_examples=_training_examples(train),
        counts=run_report.confusion_counts(labels, logits.argmax(axis=-1), data.num_classes),
        mistakes=mistakes,
        mistaken_images=_images_at(test, [mistake.index for mistake in mistakes]),
    )


def _training_examples(dataset):
    """Images and labels for the report: few of each batch, for MixUp has one weight a batch."""
    images, labels = [], []
    for batch_images, batch_labels in dataset.as_numpy_iterator():
        images.extend(batch_images[: run_report.GRID_COLUMNS])
        labels.extend(batch_labels[: run_report.GRID_COLUMNS])
        if len(images) >= run_report.GRID_IMAGES:
            return np.stack(images), np.stack(labels)


def _images_at(dataset, indices):
    """The images of a finite, ordered data set at `indices`, in the order of `indices`."""
    found = {}
    start = 0
    for images, _ in dataset.as_numpy_iterator():
        found |= {i: images[i - start] for i in indices if start <= i < start + len(images)}
        start += len(images)
    return [found[i] for i in indices]


@contextlib.contextmanager
def _output_folder(output, overwrite):
    """Yields the folder to work in; what a finished run leaves there is moved to `output`."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="keras_bit-") as folder:
            yield pathlib.Path(folder)
        return
    output = pathlib.Path(output)
    check_output(output, overwrite)
    folder = output / UNFINISHED_FOLDER
    _remove_run(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        if not (folder / _BEST_WEIGHTS_FILE).exists():
            _remove_run(folder)
        raise
    _remove_run(output)
    for path in list(_run_files(folder)):
        target = output / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
    _remove_run(folder)


def _run_files(folder):
    """Yields the files that a run writes, as far as they are in `folder`."""
    for pattern in _RUN_PATTERNS:
        yield from folder.glob(pattern)


def _remove_run(folder):
    """Removes what a run wrote in `folder`, and the folders that this leaves empty."""
    for path in [*_run_files(folder), folder / _BEST_WEIGHTS_FILE]:
        path.unlink(missing_ok=True)
    folders = [*folder.glob(f"{LOGS_FOLDER}/*"), folder / LOGS_FOLDER]
    for path in [*folders, folder / run_report.PICTURES_FOLDER, folder]:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
