"""The examples that train with `fit`."""

import io
import signal
import types

import keras
import numpy as np
import pytest
from PIL import Image

import keras_bit
from tests.conftest import as_numpy
from tests.data.sources.test_tfds import write_metadata
from tests.scripts.conftest import BATCH_SIZE, UPDATES, photograph

pytestmark = pytest.mark.tensorflow
CHANCE = 0.5


def load(name):
    return keras.saving.load_model(name)


def updates(model):
    return int(as_numpy(model.optimizer.iterations))


def logits_of(model, batches):
    return model.predict(batches, verbose=0)


def accuracy_of(model, batches):
    """Computed here, from logits and one-hot labels."""
    labels = np.concatenate([np.argmax(labels, axis=-1) for _, labels in batches])
    return np.mean(logits_of(model, batches).argmax(axis=-1) == labels)


@pytest.mark.slow
def test_fit(run, pets, capsys):
    result = run("fit", pets)
    assert updates(result.model) == UPDATES
    assert accuracy_of(load("photos.keras"), result.test) == result.accuracy > CHANCE
    assert "photos.keras: accuracy 100.0% on 4 test images" in capsys.readouterr().out


@pytest.mark.slow
def test_own_tf_data(run, pets):
    result = run("own_tf_data", pets, IMAGE_SIZE=48)
    assert updates(result.model) == UPDATES
    assert (result.train_size, result.test_size, result.classes) == (36, 4, ["cat", "dog"])
    images, labels = next(iter(result.train))
    edge = result.rule.crop_size
    assert images.shape == (BATCH_SIZE, edge, edge, 3) and 100 < np.max(images) <= 255
    np.testing.assert_allclose(np.sum(labels, axis=1), 1, rtol=1e-6)
    # Augmented or not, cats are reddish, and as much so as their mixed labels say.
    reddish = np.mean(images[..., 0] - images[..., 2], axis=(1, 2))
    np.testing.assert_allclose(reddish, 180 * (labels[:, 0] - labels[:, 1]), atol=5)
    assert accuracy_of(load("photos.keras"), result.test) > CHANCE


@pytest.mark.slow
def test_two_heads(run):
    result = run("two_heads")
    assert updates(result.model) == UPDATES
    images, digits = next(iter(result.test))
    np.testing.assert_array_equal(
        digits["is_odd"][:, 0], np.argmax(digits["digit"], axis=1) % 2, "labels of the second head"
    )
    # By chance 10 % and 50 %, give or take 2 % and 3 % on so many images.
    assert result.scores["digit_accuracy"] > 0.3 and result.scores["is_odd_accuracy"] > 0.56
    loaded, model = load("two-heads.keras")(images), result.model(images)
    for name in ("digit", "is_odd"):
        np.testing.assert_allclose(as_numpy(loaded[name]), as_numpy(model[name]), atol=1e-4)


@pytest.mark.slow
def test_frozen_parts(run, pets, capsys):
    result = run("frozen_parts", pets)
    assert accuracy_of(load("photos.keras"), result.test) > CHANCE
    before = keras_bit.BiTBackbone.from_preset(result.PRESET).named_weights()
    for name, weight in load("photos.keras").backbone.named_weights().items():
        frozen = name.startswith(tuple(result.FROZEN))
        assert weight.trainable == (not frozen), name
        assert np.array_equal(as_numpy(weight), as_numpy(before[name])) == frozen, name
    trained = sum(int(np.prod(weight.shape)) for weight in result.model.trainable_weights)
    assert f"{trained:,} of 2,0" in capsys.readouterr().out


def test_feature_maps(run, rng, monkeypatch):
    photographs = types.SimpleNamespace(images=rng.integers(0, 256, (2, 64, 96, 3), "uint8"))
    monkeypatch.setattr("sklearn.datasets.load_sample_images", lambda: photographs)
    result = run("feature_maps")
    shapes = {level: outputs.shape for level, outputs in result.predictions.items()}
    steps = {"P3": 8, "P4": 16, "P5": 32}
    assert shapes == {level: (2, 64 // step, 96 // step, 84) for level, step in steps.items()}
    assert all(np.isfinite(outputs).all() for outputs in result.predictions.values())
    detector = load("detector.keras")
    assert {level: x.shape for level, x in detector.output.items()} == {
        level: (None, None, None, 84) for level in steps
    }
    weights = detector.get_weights()
    for ours, loaded in zip(result.detector.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(ours, loaded)
    assert len(detector.trainable_weights) == len(weights)
    # All of the backbone but its last group norm, which comes after "block4".
    pretrained = keras_bit.BiTBackbone.from_preset(result.PRESET).get_weights()
    found = [any(np.array_equal(each, other) for other in weights) for each in pretrained]
    assert found == [True] * (len(found) - 2) + [False] * 2


@pytest.mark.slow
def test_micro_batches(run, pets, monkeypatch):
    whole = run("micro_batches", pets)
    monkeypatch.setattr(keras_bit, "largest_micro_batch", lambda model, rule: 4)
    parts = run("micro_batches", pets)
    assert (whole.rule.accumulation_steps, parts.rule.accumulation_steps) == (1, BATCH_SIZE // 4)
    assert updates(whole.model) == updates(parts.model) == UPDATES
    assert accuracy_of(load("photos.keras"), parts.test) > CHANCE
    zeros_of_head = [0.0, 0.0]
    began = keras_bit.BiTBackbone.from_preset(whole.PRESET).get_weights() + zeros_of_head
    ends = (result.model.get_weights() for result in (whole, parts))
    for start, one, other in zip(began, *ends, strict=True):
        # Rounding, which 20 updates amplify: 0.4 to 3 % on different processors.
        assert np.linalg.norm(one - other) < 0.1 * np.linalg.norm(one - start)


@pytest.mark.slow
def test_resume(run, pets, tmp_path, monkeypatch, capsys):
    uninterrupted = run("resume", pets).model.get_weights()

    class Interrupted(keras_bit.Checkpoint):
        def on_train_batch_begin(self, batch, logs=None):
            if self._epoch == 3 and batch == 1:
                signal.raise_signal(signal.SIGINT)
            super().on_train_batch_begin(batch, logs)

    (tmp_path / "again").mkdir()
    monkeypatch.chdir(tmp_path / "again")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(keras_bit, "Checkpoint", Interrupted)
        run("resume", pets)
    capsys.readouterr()
    result = run("resume", pets)
    assert "Resuming after update 7," in capsys.readouterr().out
    assert updates(result.model) == UPDATES and len(result.history["loss"]) == 10
    for one, other in zip(uninterrupted, load("photos.keras").get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_cats_vs_dogs_tfds(run, tmp_path):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def as_dataset(builder, split, decoders=None, **kwargs):
        """40 photographs, the same in each pass."""
        rng, labels, images = np.random.default_rng(0), np.arange(40) % 2, []
        for label in labels:
            file = io.BytesIO()
            photograph(label, rng, size=(96, 100)).save(file, "JPEG")
            images.append(file.getvalue())
        return tf.data.Dataset.from_tensor_slices({"image": images, "label": labels})

    write_metadata(tmp_path / "tfds", "cats_vs_dogs", "4.0.1", ["train"])
    with tfds.testing.mock_data(as_dataset_fn=as_dataset, data_dir=str(tmp_path / "tfds")):
        result = run("cats_vs_dogs_tfds")
    assert (result.data.train_size, result.data.test_size) == (36, 4)
    assert accuracy_of(load("cats-vs-dogs.keras"), result.test) > CHANCE
    with Image.open("cats-vs-dogs.png") as picture:
        assert picture.size == (900, 900)
    titles = [axis.get_title() for axis in result.axes.flat]
    assert {title.split(",")[0] for title in titles[:4]} == {"cat", "dog"}
    assert titles[4:] == [""] * 5
