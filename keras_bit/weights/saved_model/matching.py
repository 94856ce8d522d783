"""Which variable of a SavedModel belongs where in the network.

The modules of TensorFlow Hub and Kaggle name their variables in several ways. Names that say where
an array belongs are believed. Where they do not, the order of the variables and their shapes
decide, and what these leave open is settled by comparing outputs.
"""

import collections
import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from keras_bit.weights.architecture import ROOT_KERNEL

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_NAME = re.compile(
    r"(?:^|/)(?:"
    r"(?P<unit>block_?(?P<block>[1-4])/unit_?(?P<number>\d+)/)?"
    r"(?:(?P<conv>[abc]/(?:proj/)?|root_block/)standardized_conv2d(?:_\d+)?/kernel"
    r"|(?P<norm>[abc]/)?group_norm(?:_\d+)?/(?P<which>gamma|beta))"
    r"|head/(?:(?:conv2d|dense)(?:_\d+)?/)?(?P<head>kernel|bias))(?::0)?$"
)
_IS_GAMMA = {"gamma": True, "scale": True, "beta": False, "offset": False, "bias": False}


class Variable(NamedTuple):
    """A variable of a checkpoint, by its key there; name and node are from the object graph."""

    key: str
    name: str  # or else the key
    node: int  # or else zero
    shape: tuple[int, ...]

    @property
    def path(self) -> str:
        """The attributes that lead to it."""
        return self.key.removesuffix(_VALUE)

    @property
    def is_vector(self) -> bool:
        """Whether it may be a gamma, beta or bias; the authors' have rank 4."""
        return len(self.shape) == 1 or (len(self.shape) == 4 and self.shape[:3] == (1, 1, 1))


def natural(text: str) -> list[tuple[int, str]]:
    """A sort key: `conv_2` before `conv_10`, and `conv/kernel` before `conv_1/kernel`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def find_mappings(variables: Sequence[Variable], mean: Callable) -> list[dict[str, Variable]]:
    """Returns the candidate mappings, from the names of `WeightArrays` to variables.

    The likeliest comes first; there is none where nothing fits. Some exporters store every variable
    twice, in two lists: then one list is read. `mean` takes the mean over all values of variables.
    """
    groups = collections.defaultdict(list)
    for variable in variables:
        groups[variable.key.partition("/")[0]].append(variable)
    pools = [variables, *groups.values()]
    for pool in pools:
        for spelling in ("name", "path"):
            if named := _match_by_name(pool, spelling):
                return _completed(named, pool, mean)
    return next(filter(None, (_match_by_structure(pool, mean) for pool in pools)), [])


def _completed(named, variables, mean):
    """The mappings by structure that agree with names which tell of a part only.

    Where there are none, what has a name is left to the strict merge, which lists what is missing.
    """
    return [
        mapping
        for mapping in _match_by_structure(variables, mean)
        if named.items() <= mapping.items()
        and any(not name.startswith("head/") for name in mapping.keys() - named.keys())
    ] or [named]


def _match_by_name(variables, spelling):
    """The dict from name to variable; `None` where the names do not tell the arrays apart."""
    named = {}
    for variable in variables:
        name = _canonical_name(getattr(variable, spelling))
        if name in named:
            return None
        if name:
            named[name] = variable
    return named if ROOT_KERNEL in named and any(n.startswith("block") for n in named) else None


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
    kind = "standardized_conv2d/kernel" if match["conv"] else f"group_norm/{match['which']}"
    return unit + part + kind


def _match_by_structure(variables, mean):
    """All mappings to variables whose names say nothing, in the orders that they may have."""
    mappings: list[dict[str, Variable]] = []
    for sort_key in (lambda v: natural(v.path), lambda v: v.node, lambda v: natural(v.name)):
        for mapping in _match_in_order(sorted(variables, key=sort_key), mean):
            if mapping not in mappings:
                mappings.append(mapping)
    return mappings


def _match_in_order(variables, mean):
    """Yields the mappings to variables that are in the order of the forward pass.

    The numbers of units and the width follow from the shapes of the root and of the 3x3 kernels.
    Among arrays of one shape the order decides.
    """
    kernels = [v for v in variables if len(v.shape) == 4 and not v.is_vector]
    vectors = [v for v in variables if v.is_vector]
    layout = _layout(kernels)
    if layout is None:
        return
    shapes, channels = _network(*layout)
    for head, rest in _heads(variables, kernels, shapes, channels[""]):
        for named_kernels in _named_kernels(rest, shapes, layout[0]):
            for bias, norms in _biases(vectors, head):
                for named_norms in _named_norms(norms, channels, mean):
                    yield {**named_kernels, **named_norms, **head, **bias}


def _layout(kernels):
    """The numbers of units and the root's channels, or `None` where the shapes have no such."""
    roots = [v.shape[3] for v in kernels if v.shape[:3] == (7, 7, 3)]
    channels = [v.shape[3] for v in kernels if v.shape[:2] == (3, 3) and v.shape[2] == v.shape[3]]
    if len(roots) != 1:
        return None
    units = [channels.count(roots[0] * 2**block) for block in range(4)]
    return (units, roots[0]) if all(units) and sum(units) == len(channels) else None


def _network(units, root):
    """Dicts from paths to the kernels' shapes and to the norms' channels, in forward order."""
    shapes = {"root_block": (7, 7, 3, root)}
    norms: dict[str, int] = {}
    channels = root
    for block, count in enumerate(units, 1):
        middle = root * 2 ** (block - 1)
        for number in range(1, count + 1):
            unit = f"block{block}/unit{number:02d}"
            shapes[f"{unit}/a"] = (1, 1, channels, middle)
            if number == 1:
                shapes[f"{unit}/a/proj"] = (1, 1, channels, 4 * middle)
            shapes[f"{unit}/b"] = (3, 3, middle, middle)
            shapes[f"{unit}/c"] = (1, 1, middle, 4 * middle)
            norms |= {f"{unit}/a/": channels, f"{unit}/b/": middle, f"{unit}/c/": middle}
            channels = 4 * middle
    return shapes, {**norms, "": channels}


def _heads(variables, kernels, shapes, features):
    """Yields the head's kernel, in a dict, and the other kernels.

    A 1x1 convolution of the head that has the shape of other kernels is the last or first of them.
    """
    count = collections.Counter
    surplus = list((count(v.shape for v in kernels) - count(shapes.values())).elements())
    dense = [v for v in variables if len(v.shape) == 2 and v.shape[0] == features]
    if not surplus and not dense:
        yield {}, kernels
    elif not surplus and len(dense) == 1:
        yield {"head/kernel": dense[0]}, kernels
    elif not dense and len(surplus) == 1 and surplus[0][:3] == (1, 1, features):
        for head in _ends([v for v in kernels if v.shape == surplus[0]]):
            yield {"head/kernel": head}, [v for v in kernels if v is not head]


def _biases(vectors, head):
    """Pairs of the bias that goes with a head's kernel, in a dict, and the other vectors."""
    if not head:
        return [({}, vectors)]
    classes = head["head/kernel"].shape[-1]
    found = _ends([v for v in vectors if math.prod(v.shape) == classes])
    return [({"head/bias": bias}, [v for v in vectors if v is not bias]) for bias in found]


def _ends(items):
    return [*items[-1:], *items[:1]][: len(items)]


def _named_kernels(kernels, shapes, units):
    """Yields dicts from name to kernel: within each shape, first come, first named.

    In block 1 the projection has the shape of the units' last kernels. The other blocks, where
    it is known by its shape, tell how many of those it comes after.
    """
    by_shape = sorted(kernels, key=lambda v: v.shape)
    if [v.shape for v in by_shape] != sorted(shapes.values()):
        return
    named = dict(zip(sorted(shapes, key=shapes.get), by_shape, strict=True))
    projection = "block1/unit01/a/proj"
    ambiguous = [v for v in kernels if v.shape == shapes[projection]]
    last = [path for path in named if named[path] in ambiguous and path != projection]
    for position in _positions_of_projection(named, kernels, units):
        ordered = [*last[:position], projection, *last[position:]]
        named |= zip(ordered, ambiguous, strict=True)
        yield {f"{path}/standardized_conv2d/kernel": kernel for path, kernel in named.items()}


def _positions_of_projection(named, kernels, units):
    """After how many of block 1's last kernels its projection can come."""
    positions = {0, 1, units[0]}
    for block, count in enumerate(units[1:], 2):
        unit = f"block{block}/unit"
        projection = kernels.index(named[f"{unit}01/a/proj"])
        last = [kernels.index(named[f"{unit}{number:02d}/c"]) for number in range(1, count + 1)]
        before = sum(index < projection for index in last)
        positions &= {before} & {0, 1} | ({units[0]} if before == count else set())
    return sorted(positions)


def _named_norms(vectors, channels, mean):
    """Yields dicts from name to gamma or beta.

    The last norm may come first. Gamma and beta come in pairs, or all of one before all of the
    other; where the ends of their names do not tell, gammas have the larger mean.
    """
    paths = list(channels)
    for order in (paths, [paths[-1], *paths[:-1]]):
        sizes = [channels[path] for path in order]
        for pair in _gammas_and_betas(vectors, mean):
            if all([math.prod(v.shape) for v in group] == sizes for group in pair):
                yield {
                    f"{path}group_norm/{which}": variable
                    for which, group in zip(("gamma", "beta"), pair, strict=True)
                    for path, variable in zip(order, group, strict=True)
                }


def _gammas_and_betas(vectors, mean):
    """Yields pairs of a list of gammas and one of betas."""
    told = [_IS_GAMMA.get(_leaf(v.name), _IS_GAMMA.get(_leaf(v.path))) for v in vectors]
    if None not in told:
        gammas = [v for v, is_gamma in zip(vectors, told, strict=True) if is_gamma]
        yield gammas, [v for v in vectors if v not in gammas]
        return
    half = len(vectors) // 2
    for pair in ((vectors[::2], vectors[1::2]), (vectors[:half], vectors[half:])):
        likely = sorted(pair, key=mean, reverse=True)
        yield from (likely, likely[::-1])


def _leaf(text):
    return re.sub(r"(_\d+)?(:0)?$", "", text.rpartition("/")[2]).lower()
