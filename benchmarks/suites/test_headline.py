"""The headline command on the CPU, with its tiny network, on two backends of Keras."""

import os
import subprocess
import sys

import pytest

from benchmarks.harness.processes import ROOT
from benchmarks.implementations.registry import HAS_JAX, HAS_TENSORFLOW

INSTALLED = {"tensorflow": HAS_TENSORFLOW, "jax": HAS_JAX}


@pytest.mark.parametrize("backend", [name for name, here in INSTALLED.items() if here])
def test_small_headline(backend, tmp_path):
    page = tmp_path / "page.md"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.headline", "--small", "--output", str(page)],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert f"- **Software:** Keras on {backend}; " in text
    (line,) = (line for line in text.splitlines() if line.startswith("| training, "))
    assert "plain Keras 3" in line
    assert page.with_suffix(".png").stat().st_size > 10_000
