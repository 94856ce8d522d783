"""The project's own files, which name each other."""

import re

import pytest

import keras_bit
from tests.processes import ROOT


def test_the_version_has_its_part_in_the_changelog():
    changelog = (ROOT / "keras_bit" / "CHANGELOG.md").read_text()
    assert f"\n## [{keras_bit.__version__}] - " in changelog


def test_commits_are_checked_as_ci_checks_them():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    run = (ROOT / ".ci" / "run").read_text()
    before_commits = re.findall(r"entry: (.*)", hooks)
    in_ci = re.findall(r"^step \.venv/bin/((?:ruff|mypy|lint-imports).*)", run, re.MULTILINE)
    # The hooks write what `--check` only reports, and get the names of the files that changed.
    assert before_commits == [step.removesuffix(" .").replace(" --check", "") for step in in_ci]


def test_workflows_run_what_there_is():
    yaml = pytest.importorskip("yaml")
    for name, command in {"ci": "bash .ci/run", "weekly": "-m exhaustive"}.items():
        workflow = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())
        assert workflow["concurrency"]["cancel-in-progress"]
        assert all(job["timeout-minutes"] for job in workflow["jobs"].values())
        steps = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
        assert any(step.endswith(command) for step in steps)


def test_every_extra_that_is_named_exists():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    files = [*(ROOT / "keras_bit").rglob("*.py"), ROOT / "README.md", ROOT / "pyproject.toml"]
    text = "\n".join(path.read_text() for path in files)
    named = {
        extra for group in re.findall(r"keras_bit\[([\w,]+)\]", text) for extra in group.split(",")
    }
    assert named - {"dev"} <= set(project["optional-dependencies"])
    assert {"tfds", "onnx", "serve"} <= named


def test_the_files_that_contributors_are_sent_to_exist():
    guide = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
    paths = re.findall(r"`((?:\.ci|keras_bit|tests|benchmarks)/[\w./]*)`", guide)
    assert len(paths) > 20
    assert [path for path in paths if "NAME" not in path and not (ROOT / path).exists()] == []


def test_the_lowest_versions_that_are_tested_are_those_that_are_declared():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / ".github" / "lowest-versions.txt").read_text().splitlines()
    declared = [each.replace(">=", "==") for each in project["dependencies"] if ">=" in each]
    assert sorted(line for line in lines if "==" in line) == sorted(declared)
