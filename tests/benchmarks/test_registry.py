"""Which implementations of the network there are, by backend and by what is installed."""

import runpy
import shutil
import subprocess
import sys

import pytest

from benchmarks.implementations import registry
from tests.processes import ROOT

ALWAYS = ("keras_bit", "keras_bit, folded", "plain Keras 3")


@pytest.fixture
def registry_of(monkeypatch):
    """A function from a backend to what the registry has in a process with it."""

    def of(backend):
        monkeypatch.setenv("KERAS_BACKEND", backend)
        return runpy.run_path(registry.__file__)

    return of


@pytest.mark.parametrize("backend", ["tensorflow", "torch", "jax"])
def test_on_jax_keras_is_compiled(registry_of, backend):
    there = registry_of(backend)
    for work, present in there["IMPLEMENTATIONS"].items():
        assert {there["own_name"](work), there["plain_name"](work)} <= set(present)
        assert any(name in present for name in ALWAYS) == (backend != "jax")
        assert "keras_bit, jit_compile" in present
    remat = there["IMPLEMENTATIONS"]["training step"]["keras_bit, remat"]
    assert remat.options == {"jit_compile": backend == "jax"}


def test_without_a_compiler_pytorch_compiles_nothing(registry_of, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    there = registry_of("tensorflow")
    names = [name for present in there["IMPLEMENTATIONS"].values() for name in present]
    assert not any("torch.compile" in name for name in names)
    if there["HAS_TIMM"]:
        assert there["not_installed"]()["torch.compile"] == "no C++ compiler"


@pytest.mark.parametrize("module", ["benchmarks.headline.__main__", "benchmarks.conftest"])
def test_the_registry_is_read_after_the_option_of_the_authors(module):
    code = f"import sys, {module}; print('benchmarks.implementations.registry' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "False\n"
