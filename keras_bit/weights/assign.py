"""Arrays into variables: all of them, or none."""

from collections.abc import Mapping
from typing import Any

from keras_bit.weights.arrays import WeightArrays


def assign_strictly(variables: Mapping[str, Any], arrays: WeightArrays) -> None:
    """Assigns arrays to the variables of the same name, if all of them fit."""
    check_fit({name: tuple(variable.shape) for name, variable in variables.items()}, arrays)
    for name, variable in variables.items():
        variable.assign(arrays[name])


def check_fit(expected: Mapping[str, tuple[int, ...]], arrays: WeightArrays) -> None:
    """Raises a ValueError that lists every missing or unknown name and every other shape.

    No array is read for that; `expected` is a mapping from name to shape.
    """
    shapes = arrays.shapes
    faults = [f"missing: {n} {expected[n]}" for n in sorted(expected.keys() - shapes.keys())]
    faults += [f"unknown: {n} {shapes[n]}" for n in sorted(shapes.keys() - expected.keys())]
    differ = [n for n in sorted(expected.keys() & shapes.keys()) if expected[n] != shapes[n]]
    faults += [f"shape: {n} is {shapes[n]}, must be {expected[n]}" for n in differ]
    if faults:
        raise ValueError(
            f"The weights must fit the network array by array. Received: {arrays.source}, with "
            f"{len(faults)} faults:\n  " + "\n  ".join(faults)
        )
