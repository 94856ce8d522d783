import numpy as np
import pytest


@pytest.fixture
def identity_view():
    """The view that maps image coordinates to themselves."""
    return np.array([[[1, 0, 0], [0, 1, 0]]], "float32")
