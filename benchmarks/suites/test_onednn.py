"""What oneDNN brings: the same work with it and without, also as if the processor had AVX2 only."""

from functools import partial

import pytest

from benchmarks.harness.cases import REAL, SMALL
from benchmarks.harness.processes import InterleavedProcesses, Quantity, measure_network
from benchmarks.harness.tables import OWN
from benchmarks.implementations.registry import BACKEND

pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="oneDNN is TensorFlow's")

# oneDNN and XLA heed these; what is TensorFlow's own code is compiled for AVX anyway.
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "XLA_FLAGS": "--xla_cpu_max_isa=AVX2"}


def interleaved_runs(full):
    case = REAL if full else SMALL
    works = [("training step", case), ("forward", case), ("forward", case._replace(batch_size=1))]
    return [
        _interleaved(work, case, 5 if full else 1) for work, case in (works if full else works[:1])
    ]


def _interleaved(work, case, rounds):
    starts = {}
    for processor, limits in (("the processor", {}), ("its AVX2 only", AVX2)):
        for name, value in (("with oneDNN", "1"), ("without", "0")):
            environment = {**limits, "TF_ENABLE_ONEDNN_OPTS": value}
            starts[f"{processor}, {name}"] = partial(
                measure_network, work, case, OWN, environment=environment
            )
    quantities = (Quantity("step", f"seconds for a {work}"), Quantity("first", "to the first"))
    return InterleavedProcesses(f"oneDNN, {work}: {case}", rounds, starts, quantities)


def test_onednn(interleaved_run, implementation, report):
    report(interleaved_run, implementation)
