"""Arrays into variables: all of them, or none."""


def assign_strictly(variables, arrays, source):
    """Assigns arrays to the variables of the same name.

    Args:
        variables: Dict from name to `keras.Variable`.
        arrays: Dict from name to array.
        source: What the arrays came from, for the error.

    Raises:
        ValueError: If a name is missing on either side or a shape differs; nothing is assigned.
    """
    faults = [
        f"  missing: {n} {tuple(variables[n].shape)}" for n in sorted(set(variables) - set(arrays))
    ]
    faults += [f"  unknown: {n} {arrays[n].shape}" for n in sorted(set(arrays) - set(variables))]
    faults += [
        f"  shape: {name} is {arrays[name].shape}, must be {tuple(variables[name].shape)}"
        for name in sorted(set(variables) & set(arrays))
        if tuple(variables[name].shape) != arrays[name].shape
    ]
    if faults:
        raise ValueError(
            f"The weights must fit the network array by array. Received: {source}, with "
            f"{len(faults)} faults:\n" + "\n".join(faults)
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])
