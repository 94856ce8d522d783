"""The variables of a model, by the names that they have in checkpoints."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_bit.checkpoints.environment import random_state
from keras_bit.checkpoints.files import Saved, stored_dtype
from keras_bit.checkpoints.settings import refuse


@dataclasses.dataclass(frozen=True, eq=False)
class Metrics:
    """The metrics of a model: their variables, with the random state then, and what they say."""

    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=random_state)
    logs: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, model: keras.Model) -> "Metrics":
        """Returns those of a model now."""
        logs = {
            name: np.asarray(keras.ops.convert_to_numpy(value)).tolist()
            for name, value in model.get_metrics_result().items()
        }
        return cls(named_arrays(model.metrics_variables, "metrics") | random_state(), logs)


def named_arrays(variables: Sequence[keras.Variable], group: str) -> dict[str, np.ndarray]:
    """Returns copies of variables on the host, as `group/index`."""
    # Copies: the device may go on to use the memory that these arrays are a view of.
    arrays = (np.array(keras.ops.convert_to_numpy(each), order="C") for each in variables)
    return {f"{group}/{i}": array for i, array in enumerate(arrays)}


def arrays_of(saved: Saved, group: str) -> list[np.ndarray]:
    """Returns the arrays of a group in their order."""
    count = sum(name.startswith(f"{group}/") for name in saved.arrays)
    return [saved.arrays[f"{group}/{i}"] for i in range(count)]


def assign(variables: Sequence[keras.Variable], group: str, saved: Saved) -> None:
    """Gives variables their saved values; raises where they are others."""
    arrays = arrays_of(saved, group)
    if len(arrays) != len(variables):
        refuse(saved.path, [f"{len(arrays)} variables of the {group}, now {len(variables)}"])
    pairs = list(zip(variables, arrays, strict=True))
    found = []
    for variable, array in pairs:
        kinds = (array.dtype, array.shape), (stored_dtype(variable.dtype), tuple(variable.shape))
        if kinds[0] != kinds[1]:
            before, now = (f"{dtype} {shape}" for dtype, shape in kinds)
            found.append(f"{variable.path}: {before}, now {now}")
    refuse(saved.path, found)
    for variable, array in pairs:
        variable.assign(array.view(np.dtype(variable.dtype)))
