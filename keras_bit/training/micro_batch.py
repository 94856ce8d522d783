"""The largest micro-batch that fits a device: found by trying, and remembered."""

import contextlib
import gc
import hashlib
import importlib
import json
import math

import keras
import numpy as np
from keras import ops

from keras_bit.core.device import current_device, is_out_of_memory
from keras_bit.core.distribution import gather, processes, replicas
from keras_bit.core.files import cache_folder, read_json, write_json
from keras_bit.core.text import announce
from keras_bit.hyperrule.rule import HyperRule
from keras_bit.layers.backbone import BiTBackbone
from keras_bit.models.classifier import BiTClassifier, compile_classifier
from keras_bit.training.memory import training_memory

CPU_SHARE = 0.8  # of the available memory: the rest is for the input pipeline and the program
ASSUMED_MEMORY = 16e9  # of a GPU of which the backend does not tell, for the first try
FOLDER = "micro_batches"


def largest_micro_batch(
    model: BiTClassifier, rule: HyperRule, *, verbose: bool | int | str = True
) -> int:
    """Returns the largest micro-batch size with which the device can train the model.

    On a GPU it is found by trying: real training steps on random images, two updates of them, with
    a divisor of the batch size. The first is that of the estimate (`keras_bit.training_memory`);
    then larger ones for as long as they fit, or smaller ones until one does. Every try compiles a
    training step. A CPU gives no error but ends the process: there the estimate alone decides,
    against four fifths of the available memory; so it does where several processes share a batch.

    Weights and compilation of the model are afterward what they were. What was found is remembered
    in a file below `$KERAS_HOME/keras_bit`, by default `~/.keras/keras_bit`, for the same model,
    rule, Keras and device. Delete the file, whose name is printed, when less memory is free than
    there was.

    Args:
        model: A `keras_bit.BiTClassifier`.
        rule: A `keras_bit.HyperRule`. Its batch size, crop size and optimizer count.
        verbose: Whether to print, in one line, what was chosen and why.

    Returns:
        An integer, for `rule.replace(micro_batch_size=...)`.

    Raises:
        ValueError: If `model` is of another kind.
        MemoryError: If not even a single image fits.

    Example:

    >>> model = keras_bit.BiTClassifier(keras_bit.BiTBackbone((1, 1, 1, 1), 0.25), 10)
    >>> rule = keras_bit.HyperRule(32, 50_000, batch_size=16)
    >>> images = keras_bit.largest_micro_batch(model, rule, verbose=False)
    >>> rule = rule.replace(micro_batch_size=images)
    """
    if not isinstance(model, BiTClassifier):
        raise ValueError(f"`model` must be a keras_bit.BiTClassifier. Received: model={model!r}")
    classes = model.head.num_classes
    return _find(model.backbone, classes, rule, lambda: model, verbose)


def find_micro_batch(
    backbone: BiTBackbone, num_classes: int, rule: HyperRule, *, verbose: bool | int | str = True
) -> HyperRule:
    """Returns `rule` with the micro-batch size that `largest_micro_batch` finds.

    The backbone is built only where training is tried.
    """

    def make_model():
        return BiTClassifier(backbone, num_classes)

    images = _find(backbone, num_classes, rule, make_model, verbose)
    return rule.replace(micro_batch_size=images)


def _find(backbone, classes, rule, make_model, verbose):
    device = current_device()
    images = _estimate(backbone, classes, rule, device)
    why = "by an estimate for the memory that is free"
    images = int(gather(images or 0).min()) or None  # the same in every process
    if device.kind != "cpu" and processes().count == 1:
        images, why = _find_by_trying(make_model(), rule, device, images or _sizes(rule)[0])
    if images is None:
        raise MemoryError(
            f"The memory of {device.name} does not suffice for training on one image of "
            f"{rule.crop_size} pixels. Set `remat`, lower `crop_size`, or take a smaller network."
        )
    steps = rule.batch_size // images
    announce(
        f"Micro-batches of {images:,} images fit {device.name} ({why}): "
        f"{steps:,} accumulation {'steps' if steps > 1 else 'step'} for every update.",
        verbose,
    )
    return images


def _estimate(backbone, classes, rule, device):
    """The largest divisor of the batch size for which the memory should suffice, or `None`."""
    found = None
    for images in _sizes(rule):
        memory = training_memory(backbone, classes, rule.replace(micro_batch_size=images))
        if device.kind == "cpu":
            held = memory.weights if backbone.built else 0  # in memory that is not free
            fits = memory.total - held <= CPU_SHARE * (device.memory or float("inf"))
        else:
            fits = memory.total <= (device.memory or ASSUMED_MEMORY)
        found = images if fits else found
    return found


def _find_by_trying(model, rule, device, guess):
    """The number, or `None` where nothing fits, and why it is that one."""
    key = _key(model, rule, device)
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]
    path = cache_folder() / FOLDER / f"{name}.json"
    images = _remembered(path, key)
    if images is not None:
        return images, f"found before, {path}"
    images = _largest(
        _sizes(rule),
        guess,
        lambda images: fits_device(model, rule.replace(micro_batch_size=images)),
    )
    if images is not None:
        # A cache that cannot be written is no reason to end a run.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"micro_batch_size": images, "key": key})
    return images, "the whole batch" if images == rule.batch_size else "larger ones do not"


def _sizes(rule):
    """The sizes of micro-batches that make up a batch and that all devices can share evenly."""
    batch_size, devices = rule.batch_size, replicas()
    if devices > 1 and keras.backend.backend() == "tensorflow":
        return [batch_size]  # Keras does not accumulate under a strategy.
    sizes = [n for n in range(devices, batch_size + 1, devices) if batch_size % n == 0]
    return sizes or [batch_size]


def _largest(numbers, guess, fits):
    """The largest of the ascending `numbers` that fits, or `None`; begins with `guess`."""
    index = numbers.index(guess)
    if fits(numbers[index]):
        while index + 1 < len(numbers) and fits(numbers[index + 1]):
            index += 1
        return numbers[index]
    while index > 0:
        index -= 1
        if fits(numbers[index]):
            return numbers[index]
    return None


def fits_device(model: BiTClassifier, rule: HyperRule) -> bool:
    """Returns whether the device can make two updates of the rule, micro-batch by micro-batch."""
    # Weights, and seeds such as that of dropout.
    values = [np.array(ops.convert_to_numpy(variable)) for variable in model.variables]
    try:
        _train(model, rule)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        # Also after an error: JAX gives the memory of weights away before a step.
        for variable, value in zip(model.variables, values, strict=True):
            variable.assign(value)
        if keras.backend.backend() == "torch":
            model.zero_grad()  # which lie beside the weights there
        gc.collect()  # momentum and the like, in circles of references
    return True


def _train(model, rule):
    # The same layers in another model: the user's keeps its compilation.
    trial = keras.Sequential(model.layers)
    optimizer = rule.optimizer()
    steps = min(2, rule.accumulation_steps)
    if steps > 1:
        # The sums of gradients take the same memory however many are summed.
        optimizer.gradient_accumulation_steps = steps
    compile_classifier(trial, optimizer)
    rng = np.random.default_rng(0)
    shape = (rule.micro_batch_size, rule.crop_size, rule.crop_size, 3)
    low, high = model.backbone.value_range
    images = low + (high - low) * rng.random(shape, np.float32)
    labels = np.eye(1, model.head.num_classes, dtype="float32").repeat(len(images), axis=0)
    for _ in range(2 * steps):
        trial.train_on_batch(images, labels)


def _key(model, rule, device):
    """Everything that decides how much memory is needed and how much there is."""
    backbone = model.backbone
    backend = keras.backend.backend()
    return {
        "depth": str(backbone.depth),
        "width": backbone.width,
        "remat": backbone.remat,
        "policy": backbone.dtype_policy.name,
        "trainable": sum(math.prod(variable.shape) for variable in model.trainable_variables),
        "classes": model.head.num_classes,
        "crop_size": rule.crop_size,
        "batch_size": rule.batch_size,
        "keras": f"{keras.version()} on {backend}",
        "backend": f"{backend} {importlib.import_module(backend).__version__}",
        "device": device.name,
        "devices": replicas(),
        "memory": device.memory,
    }


def _remembered(path, key):
    """The number in the file, or `None` where there is no such file or it is damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError, ZeroDivisionError):
        content = read_json(path)
        images = content["micro_batch_size"]
        if content["key"] == key and type(images) is int and key["batch_size"] % images == 0:
            return images
    return None
