"""The largest micro-batch that fits a device: found by trying, and remembered."""

import contextlib
import gc
import hashlib
import json
import math
import os
import pathlib

import keras
import numpy as np

from keras_bit.device import current_device, is_out_of_memory
from keras_bit.files import written_whole
from keras_bit.layers.classifier import BiTClassifier, compile_classifier
from keras_bit.memory import training_memory

AUTO = "auto"
CPU_SHARE = 0.8  # of the available memory: the rest is for the input pipeline and the program
ASSUMED_MEMORY = 16e9  # of a GPU of which the backend does not tell, for the first try
FOLDER = "micro_batches"


def largest_micro_batch(model, rule, *, notify=print):
    """Returns the largest micro-batch size with which the device can train the model.

    On a GPU it is found by trying: real training steps on random images, two updates of them, with
    a divisor of the batch size. The first is that of the estimate (`keras_bit.training_memory`);
    then larger ones for as long as they fit, or smaller ones until one does. Every try compiles a
    training step. A CPU gives no error but ends the process: there the estimate alone decides,
    against four fifths of the available memory.

    Weights and compilation of the model are afterwards what they were. What was found is remembered
    in a file below `$KERAS_HOME/keras_bit`, by default `~/.keras/keras_bit`, for the same model,
    rule, Keras and device. Delete the file, which `notify` names, when less memory is free than
    there was.

    Args:
        model: A `keras_bit.BiTClassifier`.
        rule: A `keras_bit.HyperRule`. Its batch size, crop size and optimizer count.
        notify: Function that is told, in a line of text, what was chosen and why.

    Returns:
        An integer, for `rule.replace(micro_batch_size=...)`.

    Raises:
        ValueError: If `model` is of another kind.
        MemoryError: If not even a single image fits.

    Example:

    >>> model = keras_bit.BiTClassifier(keras_bit.BiTBackbone((1, 1, 1, 1), 0.25), 10)
    >>> rule = keras_bit.HyperRule(32, 50_000, batch_size=16)
    >>> images = keras_bit.largest_micro_batch(model, rule, notify=len)
    >>> rule = rule.replace(micro_batch_size=images)
    """
    if not isinstance(model, BiTClassifier):
        raise ValueError(f"`model` must be a keras_bit.BiTClassifier. Received: model={model!r}")
    device = current_device()
    if device.kind == "cpu":
        images, why = _estimated(model, rule, device), "by an estimate for the memory that is free"
    else:
        images, why = _found(model, rule, device)
    if images is None:
        raise MemoryError(
            f"The memory of {device.name} does not suffice for training on one image of "
            f"{rule.crop_size} pixels. Set `remat`, lower `crop_size`, or take a smaller network."
        )
    passes = rule.batch_size // images
    notify(
        f"Micro-batches of {images:,} images fit {device.name} ({why}): "
        f"{passes:,} {'passes' if passes > 1 else 'pass'} for every update."
    )
    return images


def _estimated(model, rule, device):
    """The largest divisor of the batch size for which the memory should suffice, or `None`."""
    found = None
    for images in _divisors(rule.batch_size):
        split = rule.replace(micro_batch_size=images)
        memory = training_memory(model.backbone, model.head.num_classes, split)
        if device.kind == "cpu":
            # The weights are there already, in memory that is not free.
            fits = memory.total - memory.weights <= CPU_SHARE * (device.memory or float("inf"))
        else:
            fits = memory.total <= (device.memory or ASSUMED_MEMORY)
        found = images if fits else found
    return found


def _found(model, rule, device):
    key = _key(model, rule, device)
    path = _folder() / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]}.json"
    images = _remembered(path, key)
    if images is not None:
        return images, f"found before, {path}"
    images = _largest(
        _divisors(rule.batch_size),
        _estimated(model, rule, device) or 1,
        lambda images: _fits(model, rule.replace(micro_batch_size=images)),
    )
    if images is not None:
        _remember(path, key, images)
    return images, "the whole batch" if images == rule.batch_size else "larger ones do not"


def _divisors(number):
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _largest(numbers, guess, fits):
    """The largest of the ascending `numbers` that fits, or `None`; begins with `guess`."""
    place = numbers.index(guess)
    if fits(numbers[place]):
        while place + 1 < len(numbers) and fits(numbers[place + 1]):
            place += 1
        return numbers[place]
    while place > 0:
        place -= 1
        if fits(numbers[place]):
            return numbers[place]
    return None


def _fits(model, rule):
    """Whether the device can make two updates of the rule."""
    weights = model.get_weights()
    try:
        _train(model, rule)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        # Also after an error: JAX gives the memory of weights away before a step.
        model.set_weights(weights)
        gc.collect()  # momentum and the like, in circles of references
    return True


def _train(model, rule):
    # The same layers in another model: the user's keeps its compilation.
    trial = keras.Sequential(model.layers)
    optimizer = rule.optimizer()
    passes = min(2, rule.accumulation_steps)
    if passes > 1:
        # The sums of gradients take the same memory however many are summed.
        optimizer.gradient_accumulation_steps = passes
    compile_classifier(trial, optimizer)
    rng = np.random.default_rng(0)
    shape = (rule.micro_batch_size, rule.crop_size, rule.crop_size, 3)
    low, high = model.backbone.value_range
    images = low + (high - low) * rng.random(shape, np.float32)
    labels = np.eye(1, model.head.num_classes, dtype="float32").repeat(len(images), axis=0)
    for _ in range(2 * passes):
        trial.train_on_batch(images, labels)


# What is remembered.


def _folder():
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    return pathlib.Path(home) / "keras_bit" / FOLDER


def _key(model, rule, device):
    """Everything that decides how much memory is needed and how much there is."""
    backbone = model.backbone
    return {
        "depth": str(backbone.depth),
        "width": backbone.width,
        "remat": backbone.remat,
        "policy": backbone.dtype_policy.name,
        "trainable": sum(math.prod(variable.shape) for variable in model.trainable_variables),
        "classes": model.head.num_classes,
        "crop_size": rule.crop_size,
        "batch_size": rule.batch_size,
        "keras": f"{keras.version()} on {keras.backend.backend()}",
        "backend": _backend_version(),
        "device": device.name,
        "memory": device.memory,
    }


def _backend_version():
    name = keras.backend.backend()
    return f"{name} {__import__(name).__version__}"


def _remembered(path, key):
    """The number in the file, or `None` where there is no such file or it is damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError, ZeroDivisionError):
        content = json.loads(path.read_text(encoding="utf-8"))
        images = content["micro_batch_size"]
        if content["key"] == key and type(images) is int and key["batch_size"] % images == 0:
            return images
    return None


def _remember(path, key, images):
    # A cache that cannot be written is no reason to end a run.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary:
            content = {"micro_batch_size": images, "key": key}
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
