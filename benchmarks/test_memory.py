"""The estimate of training's memory, beside the peak of processes that train.

An image's share is the growth of the peak from a smaller to a larger batch, divided by their
difference: what does not grow with the batch (program, weights, momentum) cancels out. With `remat`
the batches are larger, for else the peak is not that of the maps, but of the weights' gradients.
"""

from typing import NamedTuple

import pytest

import keras_bit
from benchmarks.conftest import RECORDING
from benchmarks.peak_memory import CLASSES, ENVIRONMENT
from benchmarks.processes import measure

TOLERANCE = 0.15
# Of the small form: next to few maps the scratch space of the first convolution counts more.
SMALL_TOLERANCE = 0.25


class Case(NamedTuple):
    depth: int | tuple
    width: float
    dtype: str
    edge: int
    batches: tuple

    def __str__(self):
        name = f"R{self.depth}x{self.width}" if isinstance(self.depth, int) else "a small BiT"
        return f"{name}, {self.edge} px, {self.dtype}"


SMALL = [Case((1, 1, 1, 1), 0.5, "float32", 224, (4, 16))]
REAL = [
    Case(50, 1, "float32", 128, (8, 24)),
    Case(50, 1, "float32", 224, (4, 12)),
    Case(50, 1, "float32", 480, (1, 3)),
    Case(50, 1, "mixed_bfloat16", 224, (4, 12)),
    Case(101, 1, "float32", 224, (4, 12)),
    Case(50, 3, "float32", 128, (4, 8)),
]
TIMES_WITH_REMAT = 4


def pytest_generate_tests(metafunc):
    cases = REAL if metafunc.config.getoption("--full") else SMALL
    metafunc.parametrize("case", cases, ids=str)


def measured(case, remat):
    """Bytes of an image, and seconds of an image with the larger batch."""
    batches = [batch * (TIMES_WITH_REMAT if remat else 1) for batch in case.batches]
    settings = case._asdict() | {"remat": remat}
    del settings["batches"]
    low, high = (
        measure("peak_memory", settings | {"batch": batch}, ENVIRONMENT) for batch in batches
    )
    return (high["peak"] - low["peak"]) / (batches[1] - batches[0]), high["seconds"] / batches[1]


@pytest.mark.parametrize("remat", [False, True], ids=["kept", "remat"])
@pytest.mark.benchmark(timer=RECORDING)
def test_an_image_takes_what_the_estimate_says(case, remat, benchmark, capsys):
    size, seconds = measured(case, remat)
    rule = keras_bit.HyperRule(500, 10_000, crop_size=case.edge)
    backbone = keras_bit.BiTBackbone(case.depth, case.width, remat=remat, dtype=case.dtype)
    estimate = keras_bit.training_memory(backbone, CLASSES, rule).per_image
    benchmark.group = f"training step, an image: {case}"
    benchmark.extra_info |= {"bytes of an image": size, "estimate": estimate}
    RECORDING.load([seconds])
    benchmark.pedantic(RECORDING.play, rounds=1)
    with capsys.disabled():
        print(
            f"\n{case}{', remat' if remat else ''}: {size / 1e6:.1f} MB an image, estimate "
            f"{estimate / 1e6:.1f} MB ({estimate / size - 1:+.0%})"
        )
    assert estimate == pytest.approx(size, rel=TOLERANCE if case in REAL else SMALL_TOLERANCE)
