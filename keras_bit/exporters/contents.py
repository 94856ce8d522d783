"""What every format is written from, and what it is loaded as."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

DYNAMIC, INT8 = "dynamic", "int8"
INPUT_NAME = "images"
Run = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a file is made of.

    Attributes:
        graph: Folder of a SavedModel with one input, `"images"`, and one output.
        output_name: `"probabilities"` or `"logits"`.
        metadata: JSON texts by their names.
        quantize: `None`, `"dynamic"` or `"int8"`.
        calibration: Batches of one image each, as the graph takes them, for `"int8"`.
    """

    graph: pathlib.Path
    output_name: str
    metadata: dict[str, str]
    quantize: str | None
    calibration: Sequence[np.ndarray]
