"""The depths and widths that there are, and which a set of arrays belongs to."""

import numbers
import re
from typing import Any, NamedTuple

from keras_bit.core.arguments import check_integer, is_number
from keras_bit.weights.arrays import WeightArrays

# Units in each of the four blocks (authors' `bit_tf2/models.py`).
UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
# Far beyond any released network; more would fill the memory before anything says why.
MOST_UNITS = 1000
MOST_WIDTH = 64
ROOT_KERNEL = "root_block/standardized_conv2d/kernel"
_UNIT = re.compile(r"block([1-4])/unit(\d+)/")


class Architecture(NamedTuple):
    """Depth and width of a network; `str` gives a name such as `R50x1`.

    Attributes:
        depth, width: As `keras_bit.BiTBackbone` takes them.
    """

    depth: int | tuple[int, ...]
    width: float

    def __str__(self) -> str:
        depth = self.depth if isinstance(self.depth, int) else "-".join(map(str, self.depth))
        return f"R{depth}x{self.width:g}"


def check_depth(depth: Any) -> int | tuple[int, ...]:
    """Returns 50, 101 or 152, or four numbers of units; raises for anything else."""
    if isinstance(depth, (tuple, list)) and len(depth) == 4:
        units = tuple(check_integer("depth", number, minimum=1) for number in depth)
        if max(units) <= MOST_UNITS:
            return units
    elif isinstance(depth, numbers.Integral) and int(depth) in UNITS:
        return int(depth)
    raise ValueError(
        "`depth` must be 50, 101 or 152, or four numbers of units, one for each block, of at most "
        f"{MOST_UNITS}. Received: depth={depth!r}"
    )


def check_width(width: Any) -> float:
    """Returns the factor on all channel counts; raises where it gives no channels to group."""
    if not is_number(width) or not 0 < width <= MOST_WIDTH or 64 * width % 4:
        raise ValueError(
            "`width` must be a positive number for which `64 * width` is a whole multiple of 4, at "
            f"most {MOST_WIDTH}. Received: width={width!r}"
        )
    return int(width) if width == int(width) else float(width)


def units_of(depth: int | tuple[int, ...]) -> tuple[int, ...]:
    """The numbers of units in the four blocks."""
    return UNITS[depth] if isinstance(depth, int) else depth


def architecture_of(arrays: WeightArrays) -> Architecture:
    """Reads the `Architecture` off names and shapes; a ValueError tells what is missing."""
    root = arrays.shapes.get(ROOT_KERNEL)
    if root is None:
        examples = f", {sorted(arrays)[:3]} among them" if arrays else ""
        raise ValueError(
            "`source` must hold a BiT network. Received: "
            f"{arrays.source} with {len(arrays)} other arrays{examples}"
        )
    found = {match.groups() for match in map(_UNIT.match, arrays) if match}
    units = tuple(sum(number == block for number, _ in found) for block in "1234")
    if 0 in units or len(root) != 4:
        raise ValueError(
            "`source` must hold a whole BiT network. Received: "
            f"{arrays.source} with {list(units)} units in four blocks and a root kernel of shape "
            f"{root}"
        )
    width = root[-1] / 64
    return Architecture(
        depth=next((depth for depth, known in UNITS.items() if known == units), units),
        width=int(width) if width.is_integer() else width,
    )
