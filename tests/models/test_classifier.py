import subprocess
import sys

import keras
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from keras_bit import BiTBackbone, BiTClassifier, HyperRule, ZeroInitHead
from keras_bit.models.classifier import compile_classifier
from tests.conftest import as_numpy
from tests.weight_files import SMALL, random_arrays, save_npz


@pytest.fixture
def images(rng):
    return rng.uniform(0, 1, (2, 45, 40, 3)).astype("float32")


@pytest.fixture
def released(rng):
    """The arrays of a network with a head of 7 classes."""
    head = {"head/kernel": rng.normal(size=(512, 7)), "head/bias": rng.normal(size=7)}
    return random_arrays(rng), {name: array.astype("float32") for name, array in head.items()}


def save(path, released):
    backbone, head = released
    kernel = head["head/kernel"][None, None]
    head = {"resnet/head/conv2d/kernel": kernel, "resnet/head/conv2d/bias": head["head/bias"]}
    stored = {f"resnet/{name}": array for name, array in backbone.items()}
    np.savez(path, **stored, **head)
    return path


def test_logits_are_those_of_backbone_and_released_head(released, images, tmp_path):
    path = save(tmp_path / "released.npz", released)
    model = BiTClassifier.from_weights(path, num_classes=7, value_range=(-1, 1))
    features = as_numpy(BiTBackbone.from_weights(path)(images))
    expected = features @ released[1]["head/kernel"] + released[1]["head/bias"]
    np.testing.assert_allclose(
        as_numpy(model(images * 2 - 1)), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )
    assert model.head.num_classes == 7 and model.backbone.value_range == (-1, 1)


def test_a_head_with_other_classes(released, tmp_path):
    path = save(tmp_path / "released.npz", released)
    with pytest.raises(ValueError, match="`num_classes` must be.*7 in.*num_classes=10.*BiTClas"):
        BiTClassifier.from_weights(path, num_classes=10)


def test_no_head(released, tmp_path):
    path = save_npz(tmp_path / "headless.npz", released[0], head=False)
    with pytest.raises(ValueError, match="must include a head.*headless.npz"):
        BiTClassifier.from_weights(path)
    kernel_alone = {"resnet/head/conv2d/kernel": np.ones((1, 1, 512, 7), "float32")}
    np.savez(path, **{f"resnet/{n}": a for n, a in released[0].items()}, **kernel_alone)
    with pytest.raises(ValueError, match="must include a head"):
        BiTClassifier.from_weights(path)


def test_a_head_that_does_not_fit(released, tmp_path):
    released[1]["head/kernel"] = released[1]["head/kernel"][:100]
    with pytest.raises(ValueError, match=r"shape: head/kernel is \(100, 7\), must be \(512, 7\)"):
        BiTClassifier.from_weights(save(tmp_path / "odd.npz", released))


def test_save_npz_comes_back(released, images, tmp_path):
    model = BiTClassifier.from_weights(save(tmp_path / "released.npz", released))
    model.save_npz(tmp_path / "mine.npz")
    loaded = BiTClassifier.from_weights(tmp_path / "mine.npz")
    np.testing.assert_array_equal(as_numpy(loaded(images)), as_numpy(model(images)))


def test_save_and_load(released, images, tmp_path, reload_model):
    path = save(tmp_path / "released.npz", released)
    options = {"value_range": (0, 255), "pooling": "max", "frozen": ["root_block"]}
    model = BiTClassifier.from_weights(path, **options)
    path.unlink()
    loaded = reload_model(model)
    assert isinstance(loaded, BiTClassifier) and isinstance(loaded, keras.Sequential)
    assert loaded.backbone.get_config() == model.backbone.get_config()
    assert loaded.head.get_config() == model.head.get_config() and loaded.name == model.name
    np.testing.assert_array_equal(as_numpy(loaded(images * 255)), as_numpy(model(images * 255)))
    rebuilt = BiTClassifier.from_config(model.get_config())
    rebuilt.set_weights(model.get_weights())
    np.testing.assert_array_equal(as_numpy(rebuilt(images * 255)), as_numpy(model(images * 255)))


ALONE = """
import socket, sys
for name in ("tensorflow_hub", "tensorflow_probability", "tf_keras", "kagglehub"):
    sys.modules[name] = None
socket.socket.connect = None
import keras, numpy as np, keras_bit
model = keras.models.load_model(sys.argv[1])
np.save(sys.argv[2], model.predict(np.load(sys.argv[3]), verbose=0))
"""


@pytest.mark.slow
def test_a_saved_model_opens_without_network_hub_and_tfp(released, images, tmp_path):
    model = BiTClassifier.from_weights(save(tmp_path / "released.npz", released))
    (tmp_path / "released.npz").unlink()
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    files = [tmp_path / name for name in ("model.keras", "logits.npy", "images.npy")]
    subprocess.run([sys.executable, "-c", ALONE, *files], check=True)
    expected = model.predict(images, verbose=0)
    # Another process may share the sums out among its threads otherwise, which float32 rounds.
    rounding = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=rounding)


def test_a_new_head_starts_at_zero_and_trains(images):
    model = BiTClassifier(BiTBackbone((1, 1, 1, 1), 1 / 16), 3)
    np.testing.assert_array_equal(model.predict(images, verbose=0), np.zeros((2, 3)))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    model.fit(images, np.eye(3)[:2], epochs=2, verbose=0)
    assert np.abs(model.predict(images, verbose=0)).max() > 0
    assert [type(layer) for layer in model.layers] == [BiTBackbone, ZeroInitHead]


@pytest.mark.tensorflow
def test_a_compiled_classifier_is_traced_once(images):
    model = BiTClassifier(BiTBackbone((1, 1, 1, 1), 1 / 16), 2)
    trace, traces = model.train_step, []

    def traced(data):
        traces.append(data)
        return trace(data)

    model.train_step = traced
    compile_classifier(model, HyperRule(96, 100).optimizer())
    logs = model.fit(images, np.eye(2), verbose=0, epochs=2).history
    assert len(traces) == 1
    assert set(logs) == {"loss", "accuracy"} and logs["accuracy"][0] == 0.5


def test_compiled_for_several_labels():
    rng = np.random.RandomState(0)
    labels = (rng.uniform(size=(300, 4)) < [0.02, 0.1, 0.5, 0.8]).astype("float32")
    logits = (2 * labels + rng.normal(size=(300, 4)) - 4).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Identity()])
    compile_classifier(model, HyperRule(96, 100).optimizer(), multi_label=True)
    loss, score = model.evaluate(logits, labels, batch_size=64, verbose=0)
    probabilities = 1 / (1 + np.exp(-logits.astype(float)))
    right = np.where(labels > 0, probabilities, 1 - probabilities)
    assert loss == pytest.approx(-np.log(right).mean(), rel=1e-5)
    # Keras interpolates between thresholds and scikit-learn does not.
    expected = average_precision_score(labels, probabilities)
    assert score == pytest.approx(expected, abs=0.03) and model.metrics_names[1]


def test_bad_arguments():
    for backbone in (None, keras.layers.Dense(3), BiTBackbone(**SMALL, pooling=None)):
        with pytest.raises(ValueError, match="`backbone` must be.*with `pooling`. Received"):
            BiTClassifier(backbone, 3)
    with pytest.raises(ValueError, match="`num_classes`"):
        BiTClassifier(BiTBackbone(**SMALL), 0)


def test_further_layers_belong_into_a_model_around_it():
    model = BiTClassifier(BiTBackbone((1, 1, 1, 1), 1 / 16), 2)
    for change in (lambda: model.add(keras.layers.Softmax()), model.pop):
        with pytest.raises(ValueError, match="must stay a backbone and a head. Put it in a model"):
            change()
    around = keras.Sequential([model, keras.layers.Softmax()])
    assert keras.ops.shape(around(np.zeros((1, 32, 32, 3), "float32"))) == (1, 2)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_images_are_rescaled_before_they_are_cast(rng, policy):
    keras.config.set_dtype_policy(policy)
    model = BiTClassifier(BiTBackbone((1, 1, 1, 1), width=1 / 16), 5)
    model.head.kernel.assign(rng.normal(size=model.head.kernel.shape))
    images = rng.uniform(0.9, 1, (2, 40, 40, 3)).astype("float32")
    expected = as_numpy(model.head(model.backbone(images)))
    np.testing.assert_array_equal(as_numpy(model(images)), expected)
    rounded = keras.ops.cast(images, policy.removeprefix("mixed_"))
    assert np.ptp(as_numpy(model.head(model.backbone(rounded))) - expected) > 0
