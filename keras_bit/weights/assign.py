"""Arrays into variables: all of them, or none."""


def assign_strictly(variables, arrays):
    """Assigns arrays to the variables of the same name, one after another.

    Args:
        variables: Dict from name to `keras.Variable`.
        arrays: `WeightArrays`.

    Raises:
        ValueError: As `check_fit`; nothing is assigned then.
    """
    check_fit({name: tuple(variable.shape) for name, variable in variables.items()}, arrays)
    for name, variable in variables.items():
        variable.assign(arrays[name])


def check_fit(wanted, arrays):
    """Raises where arrays are not those of a network, before any of them is read.

    Args:
        wanted: Dict from name to shape.
        arrays: `WeightArrays`.

    Raises:
        ValueError: If a name is missing on either side or a shape differs, with all that is wrong.
    """
    shapes = arrays.shapes
    faults = [f"missing: {name} {wanted[name]}" for name in sorted(wanted.keys() - shapes)]
    faults += [f"unknown: {name} {shapes[name]}" for name in sorted(shapes.keys() - wanted)]
    faults += [
        f"shape: {name} is {shapes[name]}, must be {wanted[name]}"
        for name in sorted(wanted.keys() & shapes)
        if wanted[name] != shapes[name]
    ]
    if faults:
        raise ValueError(
            f"The weights must fit the network array by array. Received: {arrays.source}, with "
            f"{len(faults)} faults:\n  " + "\n  ".join(faults)
        )
