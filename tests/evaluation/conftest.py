"""A run to evaluate and to predict with."""

import pathlib
import shutil

import pytest

from tests.saved_files import RUN


@pytest.fixture
def run(tmp_path):
    """A copy of a run's folder; its model needs the Keras of `tests/saved_files.py`."""
    return pathlib.Path(shutil.copytree(RUN, tmp_path / "run"))
