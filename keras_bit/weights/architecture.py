"""Which network a set of arrays belongs to."""

import re
from typing import NamedTuple

from keras_bit.weights.arrays import WeightArrays

# Units in each of the four blocks (authors' `bit_tf2/models.py`).
UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
ROOT_KERNEL = "root_block/standardized_conv2d/kernel"
_UNIT = re.compile(r"block([1-4])/unit(\d+)/")


class Architecture(NamedTuple):
    """Depth and width, as `BiTBackbone` takes them; `str` gives a name such as `R50x1`."""

    depth: int | tuple[int, ...]
    width: float

    def __str__(self) -> str:
        depth = self.depth if isinstance(self.depth, int) else "-".join(map(str, self.depth))
        return f"R{depth}x{self.width:g}"


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
