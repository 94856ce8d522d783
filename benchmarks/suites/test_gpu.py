"""Keras beside timm, in bfloat16 on a GPU: speed, memory, and where the time goes.

Keras runs on JAX, and on TensorFlow where that is installed; it is not needed: `KERAS_BACKEND=jax
python -m pytest benchmarks/suites/test_gpu.py --full`. Where there is no GPU, `--rehearse-gpu` runs
the same code on the CPU with a tiny network, which says that the code works and nothing of its
speed.
"""

import pytest

from benchmarks.harness.cases import UNITS, Case
from benchmarks.harness.gpu_run import GpuRun, has_gpu
from benchmarks.implementations.registry import GPU_IMPLEMENTATIONS

SMALL = [Case((1, 1, 1, 1), edge=32, batch_size=2)]
REAL = [
    Case(UNITS["R50"], edge=224, batch_size=128),
    Case(UNITS["R50"], edge=480, batch_size=32),
    Case(UNITS["R101"], edge=224, batch_size=32, width=3),
    Case(UNITS["R101"], edge=480, batch_size=8, width=3),
]


def interleaved_runs(full):
    cases, rounds, steps = (REAL, 3, 20) if full else (SMALL, 1, 2)
    return [
        GpuRun(work, case, rounds, steps, rehearsal=not has_gpu())
        for case in cases
        for work in GPU_IMPLEMENTATIONS
    ]


@pytest.fixture
def gpu(request):
    if not has_gpu() and not request.config.getoption("--rehearse-gpu"):
        pytest.skip("no GPU here; --rehearse-gpu runs the code on the CPU")


def test_gpu(gpu, interleaved_run, implementation, report):
    report(interleaved_run, implementation)


@pytest.mark.parametrize("work", GPU_IMPLEMENTATIONS)
def test_implementations_agree(gpu, work):
    """On the mean feature, and on the loss after the same number of steps, to bfloat16's digits."""
    run = GpuRun(work, SMALL[0], 1, 2, rehearsal=not has_gpu())
    found = {name: measure() for name, measure in run.implementations.items()}
    values = {name: result["second value"] for name, result in found.items()}
    expected = values["keras_bit"]
    assert values == {name: pytest.approx(expected, rel=0.05) for name in values}
