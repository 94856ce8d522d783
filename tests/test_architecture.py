import ast
import doctest
import importlib
import inspect
import os
import pathlib
import subprocess
import sys

import pytest

import keras_bit

ROOT = pathlib.Path(__file__).parent.parent
HEAVY = (
    "tensorflow_hub",
    "tensorflow_probability",
    "tensorflow_datasets",
    "tf_keras",
    "keras_tuner",
    "matplotlib",
    "sklearn",
    "rich",
    "PIL",
)
# What is run again with Keras on JAX, TensorFlow being absent.
ON_JAX = (
    "test_schedules.py",
    "test_hyperrule.py",
    "test_optimizers.py::test_a_saved_model_goes_on_where_it_was",
    "test_standardized_conv.py",
    "test_group_norm.py",
    "test_head.py",
    "test_mixup.py",
    "test_device.py",
    "test_fold.py::test_is_compiled_where_the_model_is",
    "test_recompute.py::test_the_gradients_are_those_without",
    "test_recompute.py::test_the_forward_pass_keeps_less",
    "test_recompute.py::test_xla_needs_less_memory",
    "test_memory.py::test_xla_needs_about_as_much",
    "test_micro_batch.py::test_finds_the_largest_divisor_that_fits",
    "test_micro_batch.py::test_a_try_is_two_real_updates_with_momentum_and_sums",
    "test_callbacks.py::test_runs_exactly_the_schedule",
    "test_callbacks.py::test_skipped_float16_updates_are_made_up_for",
    "test_callbacks.py::test_a_continued_run_ends_where_one_run_would",
    "test_callbacks.py::test_a_finished_schedule_is_not_trained_on",
    "test_backbone.py::test_small_nets_equal_the_numpy_oracle",
    "test_backbone.py::test_bytes_in_a_unit_range_are_an_error",
    "test_backbone.py::test_frozen_parts_stay",
    "test_backbone.py::test_save_and_load",
    "test_backbone.py::test_mixed_precision",
    "test_draws.py",
    "test_fields.py",
    "test_formulas.py",
    "test_pretrain.py::test_it_learns",
)


def run_python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_every_module_imports_only_what_stands_below_it():
    result = run_python("-c", "from importlinter.cli import lint_imports_command as run; run()")
    assert result.returncode == 0, result.stdout


def test_what_type_checkers_see_is_what_there_is():
    tree = ast.parse((ROOT / "keras_bit" / "__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    del seen["TYPE_CHECKING"]
    for name, module in seen.items():
        assert getattr(keras_bit, name) is getattr(importlib.import_module(module), name)
    assert sorted(keras_bit.__all__) == sorted(seen)
    assert set(keras_bit.__all__) <= set(dir(keras_bit))


def test_import_brings_nothing_heavy():
    code = f"""
import keras, sys
before = set(sys.modules)
import keras_bit
for name in keras_bit.__all__:
    name == "HyperBiT" or getattr(keras_bit, name)
print([name for name in {HEAVY} if name in sys.modules and name not in before])
print("tensorflow" in sys.modules)
"""
    result = run_python("-c", code, KERAS_BACKEND="jax")
    assert result.stdout.split() == ["[]", "False"], result.stdout + result.stderr


def test_importing_the_package_registers_what_saved_models_hold():
    code = """
import keras_bit, keras
names = "BiTBackbone BiTClassifier HyperRule HyperRuleSchedule MixUp ZeroInitHead".split()
print([n for n in names if keras.saving.get_registered_object(f"keras_bit>{n}") is None])
"""
    result = run_python("-c", code, KERAS_BACKEND="jax")
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_the_command_starts_without_keras():
    code = "import sys; sys.argv = ['bin/keras-bit']; import keras_bit.cli; print(*sys.modules)"
    assert "keras" not in run_python("-c", code).stdout.split()


def test_works_on_jax_where_tensorflow_is_not_installed():
    options = ["-m", "pytest", "-q", "-x", "-p", "tests.no_tensorflow", "-m", "not tensorflow"]
    # Most of the time is XLA's: the tests want right code, not fast code.
    quick_to_compile = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    result = run_python(
        *options,
        *(f"tests/{name}" for name in ON_JAX),
        KERAS_BACKEND="jax",
        XLA_FLAGS=quick_to_compile,
    )
    assert result.returncode == 0, result.stdout[-5000:]


@pytest.mark.parametrize("name", keras_bit.__all__)
def test_public_names_are_documented(name):
    thing = getattr(keras_bit, name)
    documentation = inspect.getdoc(thing)
    assert len(documentation) > 80
    assert ">>>" in documentation or "```python" in documentation, f"{name} has no example"


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", keras_bit.__all__)
def test_examples_run(name):
    import keras
    import numpy as np
    import tensorflow as tf

    names = {
        "keras_bit": keras_bit,
        "keras": keras,
        "tf": tf,
        "images": np.zeros((64, 8, 8, 3), "float32"),
        "one_hot_labels": np.eye(64, 10, dtype="float32"),
    }
    thing = getattr(keras_bit, name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for example in doctest.DocTestFinder(recurse=False).find(thing, name, globs=names):
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


def test_public_arguments_are_documented():
    for name in keras_bit.__all__:
        thing = getattr(keras_bit, name)
        target = thing.__init__ if inspect.isclass(thing) else thing
        documentation = inspect.getdoc(thing)
        for parameter in inspect.signature(target).parameters.values():
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            if parameter.name not in ("self", "name"):
                assert parameter.name in documentation, f"{name}({parameter.name}=)"
