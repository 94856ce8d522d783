"""The package as a whole: who imports whom, what importing costs, what is public."""

import ast
import importlib
import inspect
import shutil

import pytest

import keras_bit
from tests.processes import ROOT, run_python

HEAVY = (
    "tensorflow_hub",
    "tensorflow_probability",
    "tensorflow_datasets",
    "datasets",
    "tf_keras",
    "keras_tuner",
    "matplotlib",
    "sklearn",
    "rich",
    "PIL",
)
# For each contract a module, and an import that it must not have.
WRONG_IMPORTS = {
    "What stands on what": ("core/files.py", "keras_bit.weights.npz"),
    "The rule knows no network, and of weights the table of presets": (
        "hyperrule/rule.py",
        "keras_bit.weights.formats",
    ),
    "Data know the rule and MixUp, no network": ("data/cache.py", "keras_bit.layers.backbone"),
    "Pretraining knows no data set and no run": ("pretraining/dataset.py", "keras_bit.data.cache"),
    "Inside core": ("core/text.py", "keras_bit.core.files"),
    "Inside hyperrule": ("hyperrule/schedule.py", "keras_bit.hyperrule.callback"),
    "Inside layers": ("layers/group_norm.py", "keras_bit.layers.blocks"),
    "Inside models": ("models/classifier.py", "keras_bit.models.fold"),
    "Inside weights": ("weights/npz.py", "keras_bit.weights.torch_files"),
    "Inside data": ("data/images.py", "keras_bit.data.pipeline"),
    "Inside evaluation": ("evaluation/evaluation.py", "keras_bit.evaluation.report"),
    "Inside training": ("training/memory.py", "keras_bit.training.plan"),
    "Inside checkpoints": ("checkpoints/files.py", "keras_bit.checkpoints.callback"),
    "Inside pretraining": ("pretraining/families/draws.py", "keras_bit.pretraining.dataset"),
    "Inside exporters": ("exporters/contents.py", "keras_bit.exporters.export"),
    "Inside tuning": ("tuning/trials.py", "keras_bit.tuning.study"),
    "Inside serving": ("serving/classify.py", "keras_bit.serving.app"),
    "Inside cli": ("cli/options.py", "keras_bit.cli.plan"),
    "Inside reference": ("reference/docstrings.py", "keras_bit.reference.pages"),
    "Each example stands alone": ("examples/resume.py", "keras_bit.examples.fit"),
}


def lint_imports(folder):
    """Runs import-linter on the package in a folder, under the contracts of this one."""
    code = "from importlinter.cli import lint_imports_command as run; run()"
    config = str(ROOT / "setup.cfg")
    arguments = ("-c", code, "--no-cache", "--config", config)
    return run_python(*arguments, cwd=folder, PYTHONPATH=str(folder))


def test_every_module_imports_only_what_it_may():
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
def test_a_wrong_import_breaks_its_contract(tmp_path):
    ignored = shutil.ignore_patterns("__pycache__", "*.npz")
    package = shutil.copytree(ROOT / "keras_bit", tmp_path / "keras_bit", ignore=ignored)
    for module, imported in WRONG_IMPORTS.values():
        with open(package / module, "a") as file:
            file.write(f"\nimport {imported}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    shown = result.stdout
    for contract, (module, imported) in WRONG_IMPORTS.items():
        name = module.removesuffix(".py").replace("/", ".")
        assert f"\n{contract} BROKEN" in shown, shown
        assert f"keras_bit.{name} -> {imported}" in shown, shown


def test_every_contract_is_seen_to_break():
    lines = (ROOT / "setup.cfg").read_text().splitlines()
    assert {line[7:] for line in lines if line.startswith("name = ")} == set(WRONG_IMPORTS)


def test_the_stub_names_what_there_is():
    tree = ast.parse((ROOT / "keras_bit" / "__init__.pyi").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = {alias.asname: (node.module, alias.name) for node in imports for alias in node.names}
    for name, (module, original) in names.items():
        face = importlib.import_module(f"keras_bit.{module}")
        assert original in face.__all__ and getattr(keras_bit, name) is getattr(face, original)
    assert sorted(keras_bit.__all__) == sorted(names)
    assert set(keras_bit.__all__) <= set(dir(keras_bit))


def test_import_brings_nothing_heavy():
    code = f"""
import keras, sys
before = set(sys.modules)
import keras_bit
for name in keras_bit.__all__:
    name in ("HyperBiT", "search") or getattr(keras_bit, name)  # They need keras-tuner.
print([name for name in {HEAVY} if name in sys.modules and name not in before])
print("tensorflow" in sys.modules)
"""
    result = run_python("-c", code, KERAS_BACKEND="jax")
    assert result.stdout.split() == ["[]", "False"], result.stdout + result.stderr


def test_importing_the_package_registers_what_saved_models_hold():
    code = """
import keras_bit, keras
names = "BiTBackbone BiTClassifier HyperRule HyperRuleSchedule MixUp SGD ZeroInitHead Augment"
names = names.split()
print([n for n in names if keras.saving.get_registered_object(f"keras_bit>{n}") is None])
"""
    result = run_python("-c", code, KERAS_BACKEND="jax")
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_the_command_starts_without_keras():
    code = "import sys; sys.argv = ['bin/keras-bit']; import keras_bit.cli; print(*sys.modules)"
    assert "keras" not in run_python("-c", code).stdout.split()


def members(thing):
    """A public function, or the public methods of a class that the package defines."""
    if not inspect.isclass(thing):
        return [thing]
    own = [c for c in thing.__mro__ if c.__module__.startswith("keras_bit")]
    found = {name: value for c in reversed(own) for name, value in vars(c).items()}
    functions = [
        getattr(value, "__func__", getattr(value, "fget", value)) for value in found.values()
    ]
    return [
        f
        for f in functions
        if inspect.isfunction(f) and (not f.__name__.startswith("_") or f.__name__ == "__init__")
    ]


@pytest.mark.parametrize("name", keras_bit.__all__)
def test_public_names_are_annotated(name):
    for function in members(getattr(keras_bit, name)):
        signature = inspect.signature(function)
        parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
        bare = [p.name for p in parameters if p.annotation is inspect.Parameter.empty]
        assert not bare, f"{name}, {function.__name__}: {bare}"
        assert signature.return_annotation is not inspect.Signature.empty, function.__name__


@pytest.mark.parametrize("name", keras_bit.__all__)
def test_public_names_are_documented(name):
    thing = getattr(keras_bit, name)
    documentation = inspect.getdoc(thing)
    assert len(documentation) > 80
    if name != "RunPlan":  # `keras_bit.plan` makes it, and has the example
        assert ">>>" in documentation or "```python" in documentation, f"{name} has no example"


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
