"""What oneDNN brings: the same work with it and without, also as if the processor had AVX2 only."""

from functools import partial

from benchmarks.cases import Case
from benchmarks.processes import ProcessRace, Quantity
from benchmarks.test_fresh import start
from benchmarks.test_network import REAL, SMALL

OWN = "keras_bit"
# oneDNN and XLA heed these; what is TensorFlow's own code is compiled for AVX anyway.
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "XLA_FLAGS": "--xla_cpu_max_isa=AVX2"}


def races(full):
    case = REAL if full else SMALL
    works = [("training step", case), ("forward", case), ("forward", case._replace(batch_size=1))]
    return [_race(work, case, 5 if full else 1) for work, case in (works if full else works[:1])]


def _race(work, case: Case, rounds):
    contenders = {}
    for processor, limits in (("the processor", {}), ("its AVX2 only", AVX2)):
        for name, value in (("with oneDNN", "1"), ("without", "0")):
            environment = {**limits, "TF_ENABLE_ONEDNN_OPTS": value}
            contenders[f"{processor}, {name}"] = partial(
                start, work, case, OWN, environment=environment
            )
    quantities = (Quantity("step", f"seconds for a {work}"), Quantity("first", "to the first"))
    return ProcessRace(f"oneDNN, {work}: {case}", rounds, contenders, quantities)


def test_onednn(race, contender, report):
    report(race, contender)
