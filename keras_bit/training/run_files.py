"""What a run leaves in its output folder at the end: model, facts and report."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from keras_bit.core.files import check_room, write_json
from keras_bit.data.pipeline import CachedSplits, make_pipelines
from keras_bit.data.shard import Shard
from keras_bit.evaluation.class_maps import class_map_function
from keras_bit.evaluation.evaluation import Evaluation
from keras_bit.evaluation.outputs import LABELS_FILE, RunOutputs
from keras_bit.evaluation.pictures import GRID_COLUMNS, GRID_IMAGES
from keras_bit.evaluation.report import SHOWN_MISTAKES, write_report
from keras_bit.evaluation.saved_run import MODEL_FILE, RULE_FILE
from keras_bit.models.classifier import BiTClassifier
from keras_bit.training.memory import FLOAT32_SIZE
from keras_bit.training.plan import RunPlan
from keras_bit.training.run_folder import METRICS_FILE, PLAN_FILE


def write_files(
    folder: pathlib.Path,
    plan: RunPlan,
    model: BiTClassifier,
    metrics: dict[str, Any],
    outputs: RunOutputs,
) -> None:
    """Writes the model of a run, and what is known of it, to `folder`."""
    check_room(folder, plan.parameters * FLOAT32_SIZE, "The model")
    # A fresh model of the same layers has no optimizer: its momentum would double the file and
    # belongs to the last update, not to the best one.
    BiTClassifier(*model.layers).save(folder / MODEL_FILE)
    rule = {**plan.rule.decisions(), "config": plan.rule.get_config()}
    if plan.data.multi_label:  # so that a copy without `outputs.json` is not read as a softmax
        rule["multi_label"] = True
    contents = {
        LABELS_FILE: plan.data.label_names,
        RULE_FILE: rule,
        PLAN_FILE: dataclasses.asdict(plan),
        METRICS_FILE: metrics,
    }
    for name, content in contents.items():
        write_json(folder / name, content)
    outputs.write(folder)


def write_pages(
    folder: pathlib.Path,
    plan: RunPlan,
    model: BiTClassifier,
    history: dict[str, list],
    metrics: dict[str, Any],
    evaluation: Evaluation,
    splits: CachedSplits,
) -> None:
    """Writes the report of a run and its pictures to `folder`."""
    classes = len(plan.data.label_names)
    train, _ = make_pipelines(splits, classes, plan.rule, seed=plan.seed, shard=Shard())
    mistaken = [mistake.index for mistake in evaluation.mistakes(SHOWN_MISTAKES)]
    mistaken_images = splits.test.take(mistaken)
    maps_of = class_map_function(model)
    write_report(
        folder,
        text=str(plan),
        rule=plan.rule,
        history=history,
        metrics=metrics,
        evaluation=evaluation,
        training_examples=_training_examples(train),
        mistaken_images=mistaken_images,
        mistake_maps=maps_of(mistaken_images) if maps_of and mistaken else None,
        train_counts=plan.data.train_counts,
    )


def _training_examples(dataset):
    """Images and labels for the report: few of each batch, for MixUp has one weight a batch."""
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for batch in dataset:
        batch_images, batch_labels, *_ = map(np.asarray, batch)
        images.extend(batch_images[:GRID_COLUMNS])
        labels.extend(batch_labels[:GRID_COLUMNS])
        if len(images) >= GRID_IMAGES:
            break
    return np.stack(images), np.stack(labels)
