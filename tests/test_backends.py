"""One network on three backends of Keras: the same features, and the same gradients."""

import keras
import numpy as np
import pytest

from keras_bit.layers.group_norm import choose_groups
from tests import oracle
from tests.backends import NETWORKS, compute, differences, make_backbone, make_images
from tests.conftest import as_numpy
from tests.processes import FAST_COMPILING, run_python

DTYPES = {"jax": ["float32"], "torch": ["float32", "float64"]}
# 14 normalized layers, each of which rounds its sums to 2**-24 (6e-8) of their size or a few times
# that, and amplifies the error of the layers below where a map of few pixels varies little (the
# last has one). With each backend 4e-6 were measured in the features, 1e-5 to 3e-5 in gradients.
BOUND = 1e-4


@pytest.mark.tensorflow
@pytest.mark.slow
def test_features_and_gradients_agree(tmp_path):
    pytest.importorskip("torch")
    for backend, dtypes in DTYPES.items():
        arguments = ("-m", "tests.backends", "small", tmp_path, *dtypes)
        environment = {"KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"}
        done = run_python(*arguments, **environment, XLA_FLAGS=FAST_COMPILING)
        assert done.returncode == 0, done.stderr
    exact, found = compute("small", "float64"), {"tensorflow": compute("small", "float32")}
    for path in tmp_path.iterdir():
        found[path.stem] = dict(np.load(path))
    assert len(found) == 4
    backbone = make_backbone("small")
    weights = {n: as_numpy(v).astype("float64") for n, v in backbone.named_weights().items()}
    images = make_images("small") * 2 - 1
    maps = oracle.backbone(images, weights, NETWORKS["small"][0], choose_groups)
    # The weights of float64 are not rounded to float32.
    np.testing.assert_allclose(exact["features"], maps, atol=1e-5 * maps.max())
    for name, arrays in found.items():
        bound = 1e-10 if name.endswith("float64") else BOUND
        assert max(differences(arrays, exact).values()) < bound, name
    assert keras.backend.backend() == "tensorflow"
