"""SavedModels that several tests read, each exported once."""

import pytest

from tests.weights.saved_model.modules import (
    authors_name,
    keras_name,
    make_variables,
    no_name,
    random_arrays,
    save_module,
    save_tf1_module,
    swapped,
)


@pytest.fixture(scope="session")
def features_module(tmp_path_factory):
    """Features, images of any size, the authors' names with numbers."""
    variables = make_variables(random_arrays(), authors_name)
    return save_module(tmp_path_factory.mktemp("features"), variables, training=(True, False))


@pytest.fixture(scope="session")
def centered_module(tmp_path_factory):
    """Images in [-1, 1], as of what is made of the authors' TF2 code."""
    variables = make_variables(random_arrays(), keras_name, spelling="keras")
    folder = tmp_path_factory.mktemp("centered")
    return save_module(folder, variables, value_range=(-1, 1))


@pytest.fixture(scope="session")
def logits_module(tmp_path_factory):
    """Logits, images of 32x40 alone, names as in the authors' Keras code, a signature."""
    variables = make_variables(random_arrays(head=True), keras_name, spelling="keras")
    return save_module(tmp_path_factory.mktemp("logits"), variables, (32, 40), as_signature=True)


@pytest.fixture(scope="session")
def tf1_module(tmp_path_factory):
    return save_tf1_module(tmp_path_factory.mktemp("tf1") / "module", random_arrays(head=True))


@pytest.fixture(scope="session")
def nameless_module(tmp_path_factory):
    """Names that say nothing, and betas of a larger mean than the gammas."""
    variables = make_variables(random_arrays(beta_mean=2.0), no_name)
    return save_module(tmp_path_factory.mktemp("nameless"), variables, (32, 40))


@pytest.fixture(scope="session")
def lying_module(tmp_path_factory):
    """Two variables are used in place of each other, against their names."""
    variables = swapped(make_variables(random_arrays(), authors_name))
    return save_module(tmp_path_factory.mktemp("lying"), variables, (32, 40))
