"""The estimate of training's memory, beside the peak of processes that train.

An image's share is the growth of the peak from a smaller to a larger batch, divided by their
difference: what does not grow with the batch (program, weights, momentum) cancels out. Of smaller
batches the peak would not be that of the maps, but of the weights' gradients.
"""

from typing import NamedTuple

import pytest

import keras_bit
from benchmarks.harness.processes import measure
from benchmarks.harness.recording import RECORDING
from benchmarks.harness.training_memory_process import CLASSES, ENVIRONMENT

TOLERANCE = 0.15


class MemoryCase(NamedTuple):
    depth: int | tuple
    width: float
    dtype: str
    edge: int
    batches: tuple
    remats: tuple = (False, True)

    def __str__(self):
        name = f"R{self.depth}x{self.width}" if isinstance(self.depth, int) else "a small BiT"
        return f"{name}, {self.edge} px, {self.dtype}"

    def settings(self, remat, batch):
        """The arguments of `training_memory_process.measure`."""
        network = {"depth": self.depth, "width": self.width, "dtype": self.dtype}
        return network | {"edge": self.edge, "remat": remat, "batch": batch}


SMALL = [MemoryCase((1, 1, 1, 1), 0.5, "float32", 224, (4, 16), remats=(True,))]
REAL = [
    MemoryCase(50, 1, "float32", 128, (32, 96)),
    MemoryCase(50, 1, "float32", 224, (16, 48)),
    MemoryCase(50, 1, "float32", 480, (4, 12)),
    MemoryCase(50, 1, "mixed_bfloat16", 224, (16, 48)),
    MemoryCase(101, 1, "float32", 224, (16, 48)),
    # With `remat`, 844 MB of weights outweigh the maps of any batch that is quick to train on.
    MemoryCase(50, 3, "float32", 128, (16, 32), remats=(False,)),
]


def pytest_generate_tests(metafunc):
    cases = REAL if metafunc.config.getoption("--full") else SMALL
    entries = [(case, remat) for case in cases for remat in case.remats]
    metafunc.parametrize("case, remat", entries, ids=map(named, entries))


def named(entry):
    case, remat = entry
    return f"{case}{', remat' if remat else ''}"


def measured(case, remat):
    """Bytes of an image, and seconds of an image with the larger batch."""
    small, large = case.batches
    low, high = (
        measure("harness.training_memory_process", case.settings(remat, batch), ENVIRONMENT)
        for batch in case.batches
    )
    return (high["peak"] - low["peak"]) / (large - small), high["seconds"] / large


@pytest.mark.benchmark(timer=RECORDING)
def test_an_image_takes_what_the_estimate_says(case, remat, benchmark, capsys):
    size, seconds = measured(case, remat)
    rule = keras_bit.HyperRule(500, 10_000, crop_size=case.edge)
    backbone = keras_bit.BiTBackbone(case.depth, case.width, remat=remat, dtype=case.dtype)
    estimate = keras_bit.training_memory(backbone, CLASSES, rule).per_image
    benchmark.group = f"training step, an image: {case}"
    RECORDING.report(benchmark, [seconds], {"bytes of an image": size, "estimate": estimate})
    with capsys.disabled():
        print(
            f"\n{named((case, remat))}: {size / 1e6:.1f} MB an image, estimate "
            f"{estimate / 1e6:.1f} MB ({estimate / size - 1:+.0%})"
        )
    assert estimate == pytest.approx(size, rel=TOLERANCE)
