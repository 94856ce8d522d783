"""What must be the same when a run resumes, and how it differs."""

import json
import pathlib
import reprlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_bit.core.distribution import gather
from keras_bit.core.text import list_some

DIFFERENCES_NAMED = 5
_ABSENT = "nothing"


def as_json(content: Any, name: str = "settings") -> Any:
    """Returns what `content` is when it comes back from JSON, arrays as lists of plain numbers.

    Errors call it `name`.
    """
    try:
        return json.loads(json.dumps(content, default=_plain))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must hold what JSON can. Received: {reprlib.repr(content)} ({error})"
        ) from error


def _plain(array):
    plain = np.asarray(array).tolist()
    if type(plain) is type(array):  # no array, but what NumPy keeps as an object
        raise TypeError(f"an object of type {type(array).__name__}")
    return plain


def fit_settings(
    model: keras.Model, steps: int | None, callbacks: Sequence[keras.callbacks.Callback]
) -> dict[str, Any]:
    """Returns what of a `fit` of `steps` an epoch must be the same when the run resumes."""
    try:
        optimizer = keras.saving.serialize_keras_object(model.optimizer)
    except NotImplementedError as error:
        raise ValueError(
            "`Checkpoint` needs an optimizer whose settings can be saved. Received: "
            f"{model.optimizer.name}. Give its schedule a `get_config`. (Keras: {error})"
        ) from error
    settings = {
        "optimizer": without_names(optimizer),
        "steps_per_epoch": steps,
        "steps_per_execution": model.steps_per_execution,
        "callbacks": [type(callback).__name__ for callback in callbacks],
    }
    return as_json(settings, "optimizer")


def number_as_rate(optimizer: Any) -> float | None:
    """Returns the learning rate of an optimizer where it is a number."""
    rate = optimizer.get_config().get("learning_rate")
    return rate if isinstance(rate, float) else None


def without_names(config: Any) -> Any:
    """Returns the config of an optimizer less what may differ: its name, a rate that is a number.

    Callbacks may change such a rate, which is then restored with the optimizer's variables.
    """
    if not isinstance(config, dict):
        return config
    left_out = {"name"}
    if isinstance(config.get("learning_rate"), float):
        left_out.add("learning_rate")
    return {key: without_names(each) for key, each in config.items() if key not in left_out}


def differences(saved: Any, now: Any, name: str = "") -> list[str]:
    """Returns where two JSON values differ, as lines such as `seed: 0, now 1`."""
    if isinstance(saved, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*saved, *now])
        pairs = [(saved.get(key, _ABSENT), now.get(key, _ABSENT), f"{key}") for key in keys]
    elif isinstance(saved, list) and isinstance(now, list) and len(saved) == len(now):
        pairs = [
            (one, other, f"[{i}]") for i, (one, other) in enumerate(zip(saved, now, strict=True))
        ]
    else:
        return [] if saved == now else [f"{name}: {_short(saved)}, now {_short(now)}"]
    found = []
    for one, other, key in pairs:
        dot = "." if name and not key.startswith("[") else ""
        found += differences(one, other, f"{name}{dot}{key}")
    return found


def list_differences(found: list[str]) -> str:
    """Returns some of the `differences` as text."""
    return list_some(found, DIFFERENCES_NAMED, "; ")


def refuse(path: pathlib.Path, found: list[str]) -> None:
    """Raises where there are `differences` to the checkpoint at `path`."""
    if found:
        raise ValueError(
            "A run must resume with what it began with. Received: another model or other settings "
            f"than {path} was made with ({list_differences(found)}). Choose another folder, or "
            "remove this one to start again."
        )


def check_epochs(steps: int | None, accumulation: int, is_positioned: bool) -> None:
    """Raises on PyTorch where an epoch may begin within an update.

    To resume there, batches are dropped before its first step; Keras hands out single ones.
    """
    if is_positioned and steps and steps % accumulation and keras.backend.backend() == "torch":
        raise ValueError(
            "With PyTorch `steps_per_epoch` must be a multiple of the accumulation steps, or the "
            f"run could not resume. Received: steps_per_epoch={steps}, {accumulation} accumulation "
            f"steps for every update. Set it to {steps - steps % accumulation + accumulation}."
        )


def check_same_start(folder: pathlib.Path, saved: Any) -> None:
    """Raises where another process resumes from another checkpoint than `saved`, or from none."""
    updates = gather(saved.content["update"] if saved else -1).tolist()
    if len(set(updates)) > 1:
        raise ValueError(
            "`folder` must lie on a disk that all processes share. Received: "
            f"folder={folder}, whose newest checkpoints are, process by process, those of the "
            f"updates {updates} (-1: none)"
        )


def _short(value):
    text = value if value == _ABSENT else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
