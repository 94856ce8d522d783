"""Python processes of the tests' own: with another backend, or to be killed."""

import os
import pathlib
import subprocess
import sys
import textwrap

ROOT = pathlib.Path(__file__).parents[1]
# Tests want right code of XLA, not fast code.
FAST_COMPILING = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
TIMEOUT = 600  # seconds, against a hang; on a loaded machine compiling takes minutes


def run_python(*arguments, cwd=ROOT, **environment):
    """Runs Python to its end and returns what `subprocess.run` does, its output as text."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def run_on_jax(script):
    """Runs a script, which may be indented, with Keras on JAX."""
    check = 'import keras\nassert keras.backend.backend() == "jax"\n'
    code = check + textwrap.dedent(script)
    return run_python("-c", code, KERAS_BACKEND="jax", XLA_FLAGS=FAST_COMPILING)
