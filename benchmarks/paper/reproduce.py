"""How a published figure is measured here: `fine_tune` on CIFAR, `evaluate` on ImageNet.

The test images choose nothing: accuracies on CIFAR are those after the last update.
"""

import csv
import pathlib

import keras_bit
from benchmarks.paper.figures import BATCH_SIZE, LEARNING_RATE

# The authors kept the last 2 % of CIFAR's training images apart.
TRAIN_SPLIT = "train[:98%]"
# ImageNet's training images are not needed; an `ImageDataset` has two sides.
IMAGENET_SPLITS = {"train_split": "validation[:50%]", "test_split": "validation[50%:]"}
REHEARSAL = {"batch_size": 8, "schedule_length": 2, "resize_edge": 40, "crop_size": 32}
REHEARSAL_SIZE = 64


def authors_rule(data, micro_batch_size=None):
    """The `HyperRule` of the authors' runs on CIFAR, whose length was not scaled with the batch."""
    rule = keras_bit.HyperRule(data.image_size, data.train_size, warmup=True)
    return rule.replace(
        batch_size=BATCH_SIZE,
        micro_batch_size=micro_batch_size,
        learning_rate=LEARNING_RATE,
        schedule_length=rule.schedule_length,
    )


def accuracy_on_cifar(
    task, preset, seed, folder, *, data_dir=None, micro_batch_size=None, rehearsal=False
):
    """Fine-tunes, and returns the accuracy in percent on the test images.

    Args:
        task: A `Task`.
        preset: A name of `keras_bit.presets()`.
        seed: Of the run; it also chooses the images where there are few of a class.
        folder: Of the runs. An interrupted one is resumed, a complete one is read.
        data_dir: Of the prepared data sets of TFDS.
        micro_batch_size: As for `HyperRule`.
        rehearsal: Whether to make two updates on small images.
    """
    few = "all" if task.per_class is None else task.per_class
    name = f"{task.data}-{few}-{preset}-seed{seed}" + ("-rehearsal" if rehearsal else "")
    output = pathlib.Path(folder, name)
    if not (output / "history.csv").exists():
        data = keras_bit.tfds_images(
            task.data,
            train_split=TRAIN_SPLIT,
            test_split="test",
            examples_per_class=task.per_class,
            seed=seed,
            data_dir=data_dir,
        )
        rule = authors_rule(data, micro_batch_size)
        if rehearsal:
            rule = rule.replace(micro_batch_size=None, **REHEARSAL)
        keras_bit.fine_tune(
            data,
            preset=preset,
            rule=rule,
            seed=seed,
            dtype="float32",  # as the authors; on a new GPU it would be mixed_bfloat16
            steps_per_epoch=rule.schedule_length * rule.accumulation_steps,  # one validation
            output=output,
            cache_dir=pathlib.Path(folder, "cache"),
            report=False,
        )
    with open(output / "history.csv", newline="") as file:
        *_, last = csv.DictReader(file)
    return 100 * float(last["val_accuracy"])


def evaluation_on_imagenet(preset, folder, *, data_dir=None, rehearsal=False):
    """Returns the `Evaluation` of a released network with its head, on ILSVRC-2012's validation.

    Args:
        preset: A `Preset` with that head.
        folder: Its sub-folder `cache` gets the resized images, 35 GB at 480 px.
        data_dir: Of the prepared data sets of TFDS.
        rehearsal: Whether to take small images.
    """
    data = keras_bit.tfds_images("imagenet2012", **IMAGENET_SPLITS, data_dir=data_dir)
    return keras_bit.evaluate(
        keras_bit.BiTClassifier.from_preset(preset.name),
        data,
        split="all",
        image_size=REHEARSAL_SIZE if rehearsal else preset.image_size,
        cache_dir=pathlib.Path(folder, "cache"),
    )
