"""Which variable of a SavedModel belongs where in the network.

Names that say where an array belongs are believed. Where they do not, the order of the variables
and their shapes decide.
"""

import collections
import math
import re
from typing import NamedTuple

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_ROOT = "root_block/standardized_conv2d/kernel"
_NAME = re.compile(
    r"(?:^|/)(?:"
    r"(?P<unit>block_?(?P<block>[1-4])/unit_?(?P<number>\d+)/)?"
    r"(?:(?P<conv>[abc]/(?:proj/)?|root_block/)standardized_conv2d(?:_\d+)?/kernel"
    r"|(?P<norm>[abc]/)?group_norm(?:_\d+)?/(?P<which>gamma|beta))"
    r"|head/(?:(?:conv2d|dense)(?:_\d+)?/)?(?P<head>kernel|bias))(?::0)?$"
)
_LEAVES = {
    **dict.fromkeys(("gamma", "scale"), "gamma"),
    **dict.fromkeys(("beta", "offset", "bias"), "beta"),
}


class Variable(NamedTuple):
    """A variable of the checkpoint, and what is known of it."""

    key: str
    name: str
    node: int
    shape: tuple

    @property
    def path(self):
        return self.key.removesuffix(_VALUE)

    @property
    def is_vector(self):
        return len(self.shape) == 1 or (len(self.shape) == 4 and self.shape[:3] == (1, 1, 1))


def natural(text):
    """Sorts `conv_2` before `conv_10`, and `conv/kernel` before `conv_1/kernel`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def find_readings(variables, mean):
    """Returns dicts from name to `Variable`, the likeliest first; none where nothing fits.

    Some exporters store every variable twice, in two lists: then one list is read.

    Args:
        variables: List of `Variable`s.
        mean: Function from a list of them to the mean over all their values.
    """
    groups = collections.defaultdict(list)
    for variable in variables:
        groups[variable.key.partition("/")[0]].append(variable)
    pools = [variables, *groups.values()]
    for pool in pools:
        for spelling in ("name", "path"):
            named = _read_by_name(pool, spelling)
            if named:
                return _completed(named, pool, mean)
    for pool in pools:
        readings = _read_by_structure(pool, mean)
        if readings:
            return readings
    return []


def _completed(named, variables, mean):
    """The readings by structure that agree with names which tell of a part only.

    Where there are none, what has a name is left to the strict merge, which lists what is missing.
    """
    return [
        reading
        for reading in _read_by_structure(variables, mean)
        if named.items() <= reading.items()
        and any(not name.startswith("head/") for name in reading.keys() - named.keys())
    ] or [named]


def _read_by_name(variables, spelling):
    """The dict from name to variable; `None` where the names do not tell the arrays apart."""
    named = {}
    for variable in variables:
        name = _canonical_name(getattr(variable, spelling))
        if name in named:
            return None
        if name:
            named[name] = variable
    return named if _ROOT in named and any(n.startswith("block") for n in named) else None


def _canonical_name(text):
    """The name in `BiTBackbone.named_weights` of a variable called `text`, or `None`."""
    match = _NAME.search(text)
    if match is None:
        return None
    unit = f"block{match['block']}/unit{int(match['number']):02d}/" if match["unit"] else ""
    if match["head"]:
        return None if unit else f"head/{match['head']}"
    part = match["conv"] or match["norm"] or ""
    if bool(unit) != part.startswith(("a", "b/", "c")):
        return None
    return (
        unit
        + part
        + ("standardized_conv2d/kernel" if match["conv"] else f"group_norm/{match['which']}")
    )


def _read_by_structure(variables, mean):
    """All readings of variables whose names say nothing, in the orders that they may have."""
    readings = []
    for sort_key in (lambda v: natural(v.path), lambda v: v.node, lambda v: natural(v.name)):
        for named in _read_in_order(sorted(variables, key=sort_key), mean):
            if named not in readings:
                readings.append(named)
    return readings


def _read_in_order(variables, mean):
    """Yields the readings of variables that stand in the order of the forward pass.

    The numbers of units and the width follow from the shapes of the root and of the 3x3 kernels.
    Among arrays of one shape the order decides.
    """
    kernels = [v for v in variables if len(v.shape) == 4 and not v.is_vector]
    vectors = [v for v in variables if v.is_vector]
    layout = _layout(kernels)
    if layout is None:
        return
    units, root = layout
    shapes = dict(_kernels_in_order(units, root))
    for head, rest in _heads(variables, kernels, shapes, 32 * root):
        for conv_names in _named_kernels(rest, shapes, units):
            for bias, norms in _biases(vectors, head):
                for norm_names in _named_norms(norms, list(_norms_in_order(units, root)), mean):
                    yield {**conv_names, **norm_names, **head, **bias}


def _layout(kernels):
    """The numbers of units and the root's channels, or `None` where the shapes have no such."""
    roots = [v.shape[3] for v in kernels if v.shape[:3] == (7, 7, 3)]
    channels = [v.shape[3] for v in kernels if v.shape[:2] == (3, 3) and v.shape[2] == v.shape[3]]
    if len(roots) != 1:
        return None
    units = [channels.count(roots[0] * 2**block) for block in range(4)]
    return (units, roots[0]) if all(units) and sum(units) == len(channels) else None


def _units_in_order(units, root):
    """Yields of each unit its path, block, number, input channels and middle channels."""
    channels = root
    for block, count in enumerate(units, 1):
        middle = root * 2 ** (block - 1)
        for number in range(1, count + 1):
            yield f"block{block}/unit{number:02d}", number, channels, middle
            channels = 4 * middle


def _kernels_in_order(units, root):
    yield "root_block", (7, 7, 3, root)
    for path, number, channels, middle in _units_in_order(units, root):
        yield f"{path}/a", (1, 1, channels, middle)
        if number == 1:
            yield f"{path}/a/proj", (1, 1, channels, 4 * middle)
        yield f"{path}/b", (3, 3, middle, middle)
        yield f"{path}/c", (1, 1, middle, 4 * middle)


def _norms_in_order(units, root):
    for path, _, channels, middle in _units_in_order(units, root):
        yield f"{path}/a/", channels
        yield f"{path}/b/", middle
        yield f"{path}/c/", middle
    yield "", 32 * root


def _heads(variables, kernels, shapes, features):
    """Yields the head's kernel, in a dict, and the other kernels.

    A 1x1 convolution of the head that has the shape of other kernels stands last or first.
    """
    surplus = collections.Counter(v.shape for v in kernels) - collections.Counter(shapes.values())
    surplus = list(surplus.elements())
    dense = [v for v in variables if len(v.shape) == 2 and v.shape[0] == features]
    if not surplus and not dense:
        yield {}, kernels
    elif not surplus and len(dense) == 1:
        yield {"head/kernel": dense[0]}, kernels
    elif not dense and len(surplus) == 1 and surplus[0][:3] == (1, 1, features):
        for head in _ends([v for v in kernels if v.shape == surplus[0]]):
            yield {"head/kernel": head}, [v for v in kernels if v is not head]


def _biases(vectors, head):
    """Yields the bias that goes with a head's kernel, in a dict, and the other vectors."""
    if not head:
        yield {}, vectors
        return
    classes = head["head/kernel"].shape[-1]
    for bias in _ends([v for v in vectors if math.prod(v.shape) == classes]):
        yield {"head/bias": bias}, [v for v in vectors if v is not bias]


def _ends(items):
    return [items[-1], items[0]][: len(items)]


def _named_kernels(kernels, shapes, units):
    """Yields dicts from name to kernel: within each shape, first come, first named.

    In block 1 the projection has the shape of the units' last kernels. The other blocks, where
    it is known by its shape, tell how many of those it stands behind.
    """
    by_shape = collections.defaultdict(list)
    for kernel in kernels:
        by_shape[kernel.shape].append(kernel)
    names = collections.defaultdict(list)
    for name, shape in shapes.items():
        names[shape].append(name)
    if {s: len(found) for s, found in by_shape.items()} != {s: len(n) for s, n in names.items()}:
        return
    ambiguous = names.pop(shapes["block1/unit01/a/proj"])
    found = by_shape.pop(shapes["block1/unit01/a/proj"])
    named = {n: k for shape in names for n, k in zip(names[shape], by_shape[shape], strict=True)}
    ambiguous.remove("block1/unit01/a/proj")
    for position in _positions_of_projection(named, kernels, units):
        placed = [*ambiguous[:position], "block1/unit01/a/proj", *ambiguous[position:]]
        convs = {**named, **dict(zip(placed, found, strict=True))}
        yield {f"{name}/standardized_conv2d/kernel": kernel for name, kernel in convs.items()}


def _positions_of_projection(named, kernels, units):
    """Behind how many of block 1's last kernels its projection can stand."""
    place = {kernel.key: index for index, kernel in enumerate(kernels)}
    positions = {0, 1, units[0]}
    for block in (2, 3, 4):
        projection = place[named[f"block{block}/unit01/a/proj"].key]
        last = [
            place[named[f"block{block}/unit{unit:02d}/c"].key]
            for unit in range(1, units[block - 1] + 1)
        ]
        behind = sum(index < projection for index in last)
        meanings = {0: {0}, 1: {1}}.get(behind, set())
        positions &= meanings | ({units[0]} if behind == len(last) else set())
    return sorted(positions)


def _named_norms(vectors, norms, mean):
    """Yields dicts from name to gamma or beta.

    The last norm may stand first. Gamma and beta stand in pairs, or all of one before all of the
    other; where the ends of their names do not tell, gammas have the larger mean.
    """
    for order in (norms, [norms[-1], *norms[:-1]]):
        for gammas, betas in _gammas_and_betas(vectors, mean):
            sizes = [size for _, size in order]
            if [math.prod(v.shape) for v in gammas] == sizes == [math.prod(v.shape) for v in betas]:
                named = {f"{n}group_norm/gamma": v for (n, _), v in zip(order, gammas, strict=True)}
                for (name, _), beta in zip(order, betas, strict=True):
                    named[f"{name}group_norm/beta"] = beta
                yield named


def _gammas_and_betas(vectors, mean):
    """Yields pairs of a list of gammas and one of betas."""
    leaves = [_LEAVES.get(_leaf(v.name), _LEAVES.get(_leaf(v.path))) for v in vectors]
    if None not in leaves:
        yield tuple(
            [v for v, leaf in zip(vectors, leaves, strict=True) if leaf == which]
            for which in ("gamma", "beta")
        )
        return
    half = len(vectors) // 2
    for pair in ((vectors[::2], vectors[1::2]), (vectors[:half], vectors[half:])):
        likely = sorted(pair, key=mean, reverse=True)
        yield likely
        yield likely[::-1]


def _leaf(text):
    return re.sub(r"(_\d+)?(:0)?$", "", text.rpartition("/")[2]).lower()
