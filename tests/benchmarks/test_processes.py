"""Processes that measure: what they see of the machine, and what is made of what they tell."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from benchmarks.harness import growth_run, processes
from benchmarks.harness.cases import Case
from benchmarks.harness.gpu_process import profiled, shares
from benchmarks.harness.gpu_run import GpuRun, profiled_once
from tests.processes import ROOT


@pytest.fixture
def started(monkeypatch):
    """The environments of the processes that are started."""
    environments = []

    def run(command, *, env, **options):
        environments.append(env)
        return SimpleNamespace(returncode=0, stdout="{}")

    monkeypatch.setattr(processes.subprocess, "run", run)
    return environments


def test_only_processes_on_a_gpu_see_it(started, monkeypatch):
    chosen = {"CUDA_VISIBLE_DEVICES": "1", "JAX_PLATFORMS": None}
    monkeypatch.setattr(processes, "_CHOSEN", chosen)
    for name in chosen:  # as `benchmarks/conftest.py` does
        monkeypatch.setitem(os.environ, name, processes.ON_CPU[name])
    case = Case((1, 1, 1, 1), edge=32, batch_size=2)
    processes.measure_network("forward", case, "keras_bit")
    run = GpuRun("forward", case, rounds=1, steps=1, rehearsal=False)
    next(iter(run.implementations.values()))()
    seen = [{name: env.get(name) for name in chosen} for env in started]
    assert seen == [processes.ON_CPU, chosen]
    assert started[1]["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] == "1"


def test_a_load_that_fails_ends(tmp_path):
    spec = json.dumps({"implementation": "numpy.load", "path": str(tmp_path / "none.npz")})
    command = [sys.executable, "-m", "benchmarks.harness.weights_process", spec]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "none.npz" in done.stderr


def test_the_range_of_steps_is_that_of_all_processes():
    results = [
        {"step": step, "fastest step": step - 1, "slowest step": step + 1} for step in (4, 9, 5)
    ]
    assert growth_run.summarized(results) == {"step": 5, "fastest step": 3, "slowest step": 10}


def test_the_first_process_is_profiled():
    profiles = []
    measure = profiled_once(lambda profile: profiles.append(profile))
    for _ in range(3):
        measure()
    assert profiles == [True, False, False]


def test_shares_of_kernels():
    assert shares({"one": 1.0, "another": 3.0}) == [("another", 0.75), ("one", 0.25)]
    assert shares({}) == shares({"one": 0.0}) == []


def test_a_profile_that_fails_loses_no_measurement():
    def fail(do):
        raise RuntimeError("may not be profiled")

    framework = SimpleNamespace(kernel_seconds=fail)
    assert profiled(framework, None, rehearsal=False) == []
    assert profiled(SimpleNamespace(), None, rehearsal=True) == []
    with pytest.raises(RuntimeError, match="may not be profiled"):
        profiled(framework, None, rehearsal=True)
