import keras
import numpy as np
import pytest

from keras_bit import BiTBackbone, BiTClassifier, ZeroInitHead, fold
from tests.conftest import as_numpy, not_on_torch


def identity(dropout, features=50, **options):
    """A head whose logits are the features that it has not dropped."""
    head = ZeroInitHead(features, dropout, **options)
    head.build((None, features))
    head.set_weights([np.eye(features), np.zeros(features)])
    return head


def test_starts_at_zero(rng):
    head = ZeroInitHead(7)
    np.testing.assert_array_equal(as_numpy(head(rng.normal(size=(3, 20)))), np.zeros((3, 7)))
    assert [w.shape for w in head.weights] == [(20, 7), (7,)]


def test_is_a_dense_layer_once_it_has_weights(rng):
    head = ZeroInitHead(3)
    head.build((None, 4))
    kernel, bias, x = rng.normal(size=(4, 3)), rng.normal(size=3), rng.normal(size=(5, 4))
    head.set_weights([kernel, bias])
    np.testing.assert_allclose(as_numpy(head(x)), x @ kernel + bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_logits_are_float32_under_every_policy(policy):
    keras.config.set_dtype_policy(policy)
    features = keras.ops.ones((2, 8), policy.removeprefix("mixed_"))
    assert keras.backend.standardize_dtype(ZeroInitHead(3)(features).dtype) == "float32"


def test_save_and_load(rng, reload_model):
    model = keras.Sequential(
        [keras.Input((4,)), ZeroInitHead(3, 0.3, seed=5, kernel_regularizer="l2")]
    )
    model.set_weights([rng.normal(size=(4, 3)), rng.normal(size=3)])
    x = rng.normal(size=(5, 4)).astype("float32")
    loaded = reload_model(model)
    np.testing.assert_array_equal(as_numpy(loaded(x)), as_numpy(model(x)))
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()
    assert loaded.layers[-1].num_classes == 3
    assert (loaded.layers[-1].dropout, loaded.layers[-1].seed) == (0.3, 5)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_a_share_of_the_features_is_dropped_in_training_only(policy):
    keras.config.set_dtype_policy(policy)
    x = keras.ops.ones((200, 50), policy.removeprefix("mixed_"))
    head = identity(0.2, seed=1)
    kept = as_numpy(head(x, training=True))
    assert kept.dtype == np.float32 and set(np.unique(kept)) == {np.float32(0), np.float32(1.25)}
    error = np.sqrt(0.2 * 0.8 / kept.size)
    assert abs((kept == 0).mean() - 0.2) < 4 * error
    assert (kept != as_numpy(head(x, training=True))).any()
    for output in (head(x), head(x, training=False)):
        np.testing.assert_array_equal(as_numpy(output), 1.0)


def test_dropout_is_that_of_keras_with_the_same_seed(rng):
    x = rng.normal(size=(6, 50)).astype("float32")
    head, dropout = identity(0.4, seed=7), keras.layers.Dropout(0.4, seed=7)
    for _ in range(2):
        expected = as_numpy(dropout(x, training=True))
        np.testing.assert_allclose(as_numpy(head(x, training=True)), expected, rtol=1e-6)
    other = as_numpy(identity(0.4, seed=8)(x, training=True))
    assert (other != as_numpy(identity(0.4, seed=7)(x, training=True))).any()


def test_without_dropout_there_is_no_random_state(rng):
    x = rng.normal(size=(6, 50)).astype("float32")
    head = identity(0, seed=1)
    assert len(head.variables) == len(head.weights) == 2
    np.testing.assert_allclose(as_numpy(head(x, training=True)), x, rtol=1e-6)
    head = identity(0.5)
    assert len(head.variables) == 3 and len(head.weights) == 2
    old = {k: v for k, v in head.get_config().items() if k not in ("dropout", "seed")}
    assert ZeroInitHead.from_config(old).dropout == 0


@pytest.mark.parametrize(
    "jit_compile", [False, pytest.param(True, marks=(pytest.mark.slow, not_on_torch))]
)
def test_compiled_training_drops_as_eager_training_does(rng, jit_compile):
    x, y = rng.normal(size=(8, 20)).astype("float32"), np.eye(8, 3, dtype="float32")

    def trained(**options):
        model = keras.Sequential([keras.Input((20,)), ZeroInitHead(3, 0.5, seed=3)])
        model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), **options)
        for _ in range(3):
            model.train_on_batch(x, y)
        return model.get_weights()[0]

    found = trained(jit_compile=jit_compile)
    # XLA draws other numbers than TensorFlow.
    if keras.backend.backend() == "jax" or not jit_compile:
        np.testing.assert_allclose(found, trained(run_eagerly=True), rtol=1e-5, atol=1e-7)
    assert np.isfinite(found).all() and found.any()


@pytest.mark.tensorflow
@pytest.mark.slow
def test_dropout_trains_under_mirrored_strategy(rng, two_replicas):
    x, y = rng.normal(size=(8, 20)).astype("float32"), np.eye(8, 3, dtype="float32")
    with two_replicas.scope():
        model = keras.Sequential([keras.Input((20,)), ZeroInitHead(3, 0.5, seed=3)])
        model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=8, epochs=2, verbose=0)
    assert model.get_weights()[0].any()


@pytest.mark.slow
def test_a_model_with_dropout_is_saved_folded_and_read_as_one_without(rng, randomize, tmp_path):
    backbone = BiTBackbone((1, 1, 1, 1), 1 / 16)
    model = BiTClassifier(backbone, ZeroInitHead(3, 0.5, seed=2, name="zero_init_head"))
    randomize(model)
    x = rng.uniform(size=(2, 32, 32, 3)).astype("float32")
    expected = as_numpy(model(x))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(as_numpy(loaded(x)), expected)
    for copy in (loaded, fold(model)):
        assert (copy.head.dropout, copy.head.seed) == (0.5, 2)
    np.testing.assert_allclose(as_numpy(fold(model)(x)), expected, rtol=1e-4, atol=1e-5)
    read = BiTClassifier.from_preset(tmp_path / "model.keras")
    np.testing.assert_allclose(as_numpy(read(x)), expected, rtol=1e-5, atol=1e-6)
    assert read.head.dropout == 0


def test_refuses_bad_arguments():
    for bad in (-0.1, 1, 1.5, float("nan"), "0.5", None, True, []):
        with pytest.raises(ValueError, match="`dropout` must be a number.*below 1.*Received"):
            ZeroInitHead(3, bad)
    with pytest.raises(ValueError, match="`seed`"):
        ZeroInitHead(3, 0.5, seed=-1)
    for bad in (0, -1, 2.5, "10", None, True):
        with pytest.raises(ValueError, match="`num_classes`.*Received"):
            ZeroInitHead(bad)
    for name, value in (("activation", "softmax"), ("use_bias", False), ("units", 3)):
        with pytest.raises(ValueError, match=f"`{name}` of a ZeroInitHead cannot be.*from_logits"):
            ZeroInitHead(3, **{name: value})
    with pytest.raises(ValueError, match="`dtype` must be float32"):
        ZeroInitHead(3, dtype="mixed_bfloat16")
