"""Steps, memory and set-up time against the size of images, the batch and the network.

Every figure is of a new process. With `--full` they are also kept in `.benchmarks/sizes.json`,
from which `python -m benchmarks.studies.size_pictures` draws.
"""

import json

from benchmarks.harness.cases import Case
from benchmarks.harness.growth_run import AXES, FILE, GrowthRun, keep
from benchmarks.implementations.registry import IMPLEMENTATIONS, own_name

SMALLEST = Case((1, 1, 1, 1), edge=32, batch_size=1)
PEER = "timm, channels_last"  # the strongest one


def interleaved_runs(full):
    if not full:
        cases = [SMALLEST, SMALLEST._replace(edge=64)]
        work = "training step"
        return [GrowthRun(work, "pixels", cases, (own_name(work),), 1, None)]
    return [
        GrowthRun(work, axis, cases, _names(work), 1, FILE)
        for axis, cases in AXES.items()
        for work in IMPLEMENTATIONS
    ]


def _names(work):
    return tuple(name for name in (own_name(work), PEER) if name in IMPLEMENTATIONS[work])


def test_sizes(interleaved_run, implementation, report):
    report(interleaved_run, implementation)


def test_figures_of_several_runs_are_kept_together(tmp_path):
    file = tmp_path / "folder" / "sizes.json"
    larger = SMALLEST._replace(edge=64)
    for case, step in ((SMALLEST, 1.0), (larger, 2.0), (SMALLEST, 3.0)):
        keep(file, "forward by pixels", {"keras_bit": [{"case": case, "step": step}], "timm": []})
    keep(file, "forward by images", {})
    kept = json.loads(file.read_text())
    steps = {case: row["step"] for case, row in kept["forward by pixels"]["keras_bit"].items()}
    assert steps == {str(SMALLEST): 3.0, str(larger): 2.0}
    assert kept["forward by pixels"]["timm"] == kept["forward by images"] == {}
