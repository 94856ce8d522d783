import csv
import json
import pathlib
import types

import keras
import numpy as np
import pytest
from PIL import Image

import keras_bit
from keras_bit import ImageDataset, evaluate, predict_files
from keras_bit.evaluation import RunOutputs
from keras_bit.evaluation.evaluate import Preparation
from keras_bit.evaluation.pixels import value_range_of
from keras_bit.evaluation.saved_run import SavedRun
from tests.saved_files import needs_their_keras

pytestmark = pytest.mark.tensorflow

COLORS = ("blue", "green", "red")  # as in folders: in another order than in the run


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Folders of images that lean to a color, some of them to a wrong one."""
    folder = tmp_path_factory.mktemp("colors")
    rng = np.random.default_rng(1)
    for name in COLORS:
        (folder / name).mkdir()
        for index in range(8):
            image = rng.integers(0, 160, (34, 36, 3))
            image[..., rng.choice(3) if index % 3 == 0 else "rgb".index(name[0])] += 90
            Image.fromarray(image.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture
def data(photos):
    return keras_bit.image_folder(photos, validation_split=0.5)


@pytest.fixture
def quick(monkeypatch):
    """A run whose logits are the mean colors of an image: nothing is loaded or compiled."""
    monkeypatch.setattr(SavedRun, "load", lambda self: None)
    monkeypatch.setattr(SavedRun, "logits", lambda self, images: images.mean((1, 2)) / 20)


def small_model(value_range=(0, 1), activation=None):
    """A model of three classes with random weights, for images of 32 x 32 pixels."""
    backbone = keras_bit.BiTBackbone((1, 1, 1, 1), width=0.0625, value_range=value_range)
    head = keras.layers.Dense(3, activation=activation)
    return keras.Sequential([keras.Input((32, 32, 3)), backbone, head])


@needs_their_keras
def test_a_run_is_evaluated_as_it_predicts(run, data, monkeypatch):
    model = SavedRun.open(run).load()
    monkeypatch.setattr(SavedRun, "load", lambda self: model)
    evaluation = evaluate(run, data, split="all", verbose=0)
    assert evaluation.label_names == ("red", "green", "blue") and len(evaluation.names) == 24
    assert set(evaluation.names) == {*data.train.names, *data.test.names}
    predictions = predict_files(run, evaluation.names)
    for row, prediction in zip(evaluation.probabilities, predictions, strict=True):
        expected = [dict(prediction.classes)[name] for name in evaluation.label_names]
        np.testing.assert_allclose(row, expected, rtol=1e-4)
    folders = [pathlib.Path(name).parent.name for name in evaluation.names]
    assert [evaluation.label_names[label] for label in evaluation.labels] == folders
    right = [p.classes[0][0] == folder for p, folder in zip(predictions, folders, strict=True)]
    assert evaluation.metrics["accuracy"] == np.mean(right) < 1


def test_each_split_is_that_of_the_data(quick, run, data):
    names = {
        split: evaluate(run, data, split=split, verbose=0).names for split in ("test", "train")
    }
    assert names == {"test": data.test.names, "train": data.train.names}
    everything = evaluate(run / "model.keras", data, verbose=0).names
    assert everything == data.train.names + data.test.names
    plan = {"data": {"train_fingerprint": data.train.fingerprint}}
    (run / "plan.json").write_text(json.dumps(plan))  # it was trained on these
    assert evaluate(run, data, verbose=0).names == data.test.names


@needs_their_keras
def test_test_images_that_were_given_as_such_are_those_evaluated(quick, run, data):
    images = np.zeros((6, 32, 32, 3), np.uint8)
    options = [0, 1, 2] * 2, images[:3], [0, 1, 2], ("blue", "green", "red")
    given = keras_bit.ImageDataset.from_arrays(images, *options)
    assert evaluate(run, given, verbose=0).names == given.test.names
    held_out = keras_bit.ImageDataset.from_arrays(images, [0, 1, 2] * 2, label_names=options[-1])
    assert len(evaluate(run, held_out, verbose=0).names) == 6
    model = keras.models.load_model(run / "model.keras")  # perhaps trained on the others
    assert evaluate(model, held_out, image_size=32, verbose=0).names == held_out.test.names


def test_what_a_run_stores_is_used(quick, run, data, tmp_path):
    plain = evaluate(run, data, split="all", verbose=0)
    fitted = evaluate(run, data, split="all", temperature="fit", verbose=0)
    stored = RunOutputs.read(run, 3)
    assert stored == fitted.outputs and stored.temperature not in (1, pytest.approx(1, abs=1e-3))
    assert fitted.fitted_here == ("temperature",) and fitted.metrics["loss"] < plain.metrics["loss"]
    again = evaluate(run, data, split="all", verbose=0)
    assert again.fitted_here == () and again.metrics == fitted.metrics
    assert evaluate(run, data, split="all", temperature=False, verbose=0).metrics == plain.metrics
    (prediction,) = predict_files(run, again.names[0])
    row = dict(zip(again.label_names, again.probabilities[0], strict=True))
    assert dict(prediction.classes) == pytest.approx(row, rel=1e-4)


def test_a_temperature_that_cannot_be_fitted_is_left_as_it_was(run, data, monkeypatch):
    right = np.eye(3)[[2, 1, 0]]  # logits for blue, green and red
    logits = [right[data.test.labels]]
    monkeypatch.setattr(Preparation, "batches", lambda self: iter(logits))
    with pytest.warns(UserWarning, match="all of them right.*is left as it was"):
        evaluation = evaluate(run, data, split="test", temperature="fit", verbose=0)
    assert evaluation.metrics["accuracy"] == 1 and evaluation.fitted_here == ()
    assert not (run / "outputs.json").exists()


def test_images_of_training_are_told(quick, run, data):
    plan = {"data": {"train_fingerprint": data.train.fingerprint}}
    (run / "plan.json").write_text(json.dumps(plan))
    with pytest.warns(UserWarning, match="The run was trained on these images.*Its test"):
        evaluate(run, data, split="all", verbose=0)
    with pytest.raises(ValueError, match="`temperature` must be fitted to images that the run was"):
        evaluate(run, data, split="train", temperature="fit", verbose=0)
    evaluate(run, data, temperature="fit", verbose=0)


def test_of_a_few_shot_run_the_validation_images_are_evaluated(quick, run, data):
    plan = {"train_fingerprint": "of some", "test_fingerprint": data.test.fingerprint}
    (run / "plan.json").write_text(json.dumps({"data": plan}))
    assert evaluate(run, data, verbose=0).names == data.test.names
    with pytest.warns(UserWarning, match="or on a part of them"):
        evaluate(run, data, split="all", verbose=0)


def test_test_images_that_may_be_those_of_training_are_told(quick, run, data):
    plan = {"train_fingerprint": "of another split", "test_fingerprint": "the same"}
    plan |= {"train_counts": [6] * 3, "test_counts": [2] * 3}
    (run / "plan.json").write_text(json.dumps({"data": plan}))
    with pytest.warns(UserWarning, match="and other test images.*trained on most of these"):
        evaluate(run, data, split="test", verbose=0)


def test_thresholds_that_the_run_chose_on_these_images_are_told(quick, run, data):
    hot = keras_bit.ImageDataset.from_arrays(
        np.zeros((6, 32, 32, 3), np.uint8), np.eye(3, dtype=int)[[0, 1, 2] * 2],
        label_names=("blue", "green", "red"), validation_split=0.5, multi_label=True,
    )  # fmt: skip
    RunOutputs(True, thresholds=(0.2, 0.3, 0.4)).write(run)
    plan = {"train_fingerprint": hot.train.fingerprint, "test_fingerprint": hot.test.fingerprint}
    (run / "plan.json").write_text(json.dumps({"data": plan}))
    assert evaluate(run, hot, verbose=0).fitted_here == ("thresholds",)
    with pytest.warns(UserWarning, match="trained on these"):
        assert evaluate(run, hot, split="all", verbose=0).fitted_here == ()


def test_images_that_may_be_those_of_training_are_told(quick, run, data):
    plan = {"train_fingerprint": "of a copy", "train_counts": [7] * 3, "test_counts": [1] * 3}
    (run / "plan.json").write_text(json.dumps({"data": plan}))
    with pytest.warns(UserWarning, match="as many images of each class as those.*test images"):
        evaluate(run, data, verbose=0)
    evaluate(run, data, split="test", verbose=0)
    plan["test_counts"] = [1, 1, 2]
    (run / "plan.json").write_text(json.dumps({"data": plan}))
    evaluate(run, data, verbose=0)


def test_the_files_are_written(quick, run, data, tmp_path, capsys):
    evaluation = evaluate(run, data, split="all", output=tmp_path / "out", verbose=1)
    assert "24/24" in capsys.readouterr().out
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        _, *rows = csv.reader(file)
    assert [row[0] for row in rows] == list(evaluation.names)
    with pytest.raises(FileExistsError, match="`overwrite`"):
        evaluate(run, data, output=tmp_path / "out")
    with pytest.raises(FileExistsError, match="must not be the folder of a run"):
        evaluate(run, data, output=run, overwrite=True)


@pytest.mark.slow
def test_the_page_shows_the_class_activation_maps_of_a_run(run, data, tmp_path):
    evaluate(run, data, split="all", output=tmp_path / "with", verbose=0)
    evaluate(small_model(), data, split="all", output=tmp_path / "without", verbose=0)
    pages = [(tmp_path / name / "evaluation.html").read_text() for name in ("with", "without")]
    assert [page.count("<img") for page in pages] == [4, 3]
    assert ["Class activation maps" in page for page in pages] == [True, False]


def test_the_images_of_mistakes_are_theirs(quick, run, data):
    from keras_bit.evaluation.subject import Subject

    prepared = Preparation.of(Subject.of(run), data, "all")
    evaluation = prepared.evaluation(list(prepared.batches()))
    images, mistakes = prepared.mistaken_images(evaluation), evaluation.mistakes(12)
    assert len(images) == len(mistakes) > 0
    for image, mistake in zip(images, mistakes, strict=True):
        logits = SavedRun.open(run).logits(image[np.newaxis])[0]
        np.testing.assert_allclose(logits, evaluation.logits[mistake.index])


def test_several_labels(quick, run, data):
    RunOutputs(True, 1.0, (0.2, 0.3, 0.4)).write(run)
    images = [np.full((32, 32, 3), value, np.uint8) for value in (10, 90, 200, 250)]
    labels = np.array([[1, 0], [0, 1], [1, 1], [1, 0]])
    several = ImageDataset.from_arrays(images, labels, images, labels, ("blue", "red"))
    evaluation = evaluate(run, several, verbose=0)
    np.testing.assert_array_equal(
        evaluation.labels, labels[:, 1:] * (1, 0, 0) + labels[:, :1] * (0, 0, 1)
    )
    assert evaluation.outputs.thresholds == (0.2, 0.3, 0.4) and evaluation.fitted_here == ()
    shares = 1 / (1 + np.exp(-evaluation.logits.astype(float)))
    assert evaluation.predictions.tolist() == (shares >= (0.2, 0.3, 0.4)).astype(int).tolist()
    with pytest.raises(ValueError, match="`data` must have several labels an image, as those of"):
        evaluate(run, data)


@pytest.mark.slow
@pytest.mark.parametrize("value_range", [(-1, 1), (0, 255)])
def test_a_keras_model_gets_images_in_its_range(data, value_range):
    model = small_model(value_range)
    twin = small_model()
    twin.set_weights(model.get_weights())
    found, expected = (evaluate(each, data, verbose=0) for each in (model, twin))
    assert found.label_names == COLORS and np.ptp(expected.logits) > 0.01
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-3)


@pytest.mark.parametrize(
    "before, value_range, expected",
    [
        ([], (0, 1), (0, 1)),
        ([keras.layers.RandomFlip()], (-1, 1), (-1, 1)),
        ([keras.layers.Rescaling(1 / 255)], (0, 1), (0, 255)),
        ([keras.layers.Rescaling(1 / 127.5, offset=-1)], (-1, 1), (0, 255)),
        ([keras.layers.Rescaling(2.0), keras.layers.Rescaling(0.5, offset=-1)], (-1, 1), (0, 2)),
    ],
)
def test_the_range_of_a_model_is_that_before_its_rescaling(before, value_range, expected):
    classifier = small_model(value_range)
    model = keras.Sequential([keras.Input((32, 32, 3)), *before, classifier])
    assert value_range_of(model) == pytest.approx(expected)


def test_a_model_that_normalizes_images_itself_is_refused(data):
    images = keras.Input((32, 32, 3))
    normalized = keras.layers.Normalization(mean=0.5, variance=1.0)(images)
    for changed, name in ((normalized, "Normalization"), (images / 255, "Operation")):
        model = keras.Model(images, small_model()(changed))
        with pytest.raises(ValueError, match=f"`value_range` of its BiTBackbone.*with <{name}"):
            evaluate(model, data)
    assert value_range_of(keras.Model(images, normalized)) == (0, 1)


@pytest.mark.slow
def test_a_model_of_several_gpus_gives_each_image_once(data, two_replicas):
    with two_replicas.scope():
        model = small_model()
    alone = small_model()
    alone.set_weights(model.get_weights())
    found, expected = (evaluate(each, data, verbose=0) for each in (model, alone))
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)


@pytest.mark.slow
def test_a_model_of_any_size_is_told_its_own(data):
    model = keras_bit.BiTClassifier(keras_bit.BiTBackbone((1, 1, 1, 1), width=0.0625), 3)
    with pytest.raises(ValueError, match="`image_size` must be given.*Received: image_size=None"):
        evaluate(model, data)
    rule = keras_bit.HyperRule(32, 100, crop_size=48)
    sized = [
        evaluate(model, data, verbose=0, **size) for size in ({"image_size": 48}, {"rule": rule})
    ]
    np.testing.assert_array_equal(sized[0].logits, sized[1].logits)
    with pytest.raises(ValueError, match="`image_size` must be omitted where `rule`"):
        evaluate(model, data, image_size=48, rule=rule)


@pytest.mark.slow
def test_names_of_a_model_s_classes(data):
    model = small_model()
    names = ("red", "blue", "green")
    evaluation = evaluate(model, data, split="test", label_names=names, verbose=0)
    assert sorted(set(evaluation.labels[data.test.labels == 0])) == [1]
    with pytest.raises(ValueError, match="`model_or_run` must have an output for each class"):
        evaluate(model, data, label_names=("red", "blue", "green", "gray"), verbose=0)


def test_models_of_several_outputs_are_refused(data):
    inputs = keras.Input((32, 32, 3))
    features = keras_bit.BiTBackbone((1, 1, 1, 1), width=0.125)(inputs)
    heads = {name: keras_bit.ZeroInitHead(3)(features) for name in ("kind", "color")}
    for outputs in (heads, list(heads.values())):
        with pytest.raises(ValueError, match="`model_or_run` must have one output.*outputs.0."):
            evaluate(keras.Model(inputs, outputs), data, verbose=0)


def test_logits_of_an_image_that_lie_between_0_and_1_are_logits(data):
    labels = np.eye(3, dtype=int)[data.test.labels]
    labels[:2] = 1
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 32, 32, 3), np.uint8)
    several = ImageDataset.from_arrays(images, labels, images, labels, COLORS)
    model = small_model()
    model.layers[-1].kernel.assign(30 * model.layers[-1].kernel)
    first, *_ = model.predict(images / np.float32(255), verbose=0)
    model.layers[-1].bias.assign(0.5 - first)
    evaluation = evaluate(model, several, image_size=32, batch_size=1, verbose=0)
    np.testing.assert_allclose(evaluation.logits[0], 0.5, atol=1e-3)
    assert evaluation.logits.min() < 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_probabilities_are_no_logits(data, kind):
    labels = np.eye(3, dtype=int)[data.test.labels]
    labels[:2] = 1
    images = [np.zeros((32, 32, 3), np.uint8)] * len(labels)
    several = ImageDataset.from_arrays(images, labels, images, labels, COLORS)
    with pytest.raises(ValueError, match="must return logits. Received: a model whose outputs are"):
        evaluate(small_model(activation=kind), data if kind == "softmax" else several, verbose=0)


@pytest.mark.slow
def test_a_result_of_fine_tune(data, run):
    saved = SavedRun.open(run)
    outputs = RunOutputs(temperature=2.0)
    result = types.SimpleNamespace(
        model=saved.load(),
        rule=saved.rule,
        plan=types.SimpleNamespace(
            data=types.SimpleNamespace(
                label_names=saved.label_names,
                train_fingerprint="another",
                test_fingerprint="another",
                train_counts=(9, 9, 9),
                test_counts=(1, 1, 1),
            )
        ),
        evaluation=types.SimpleNamespace(outputs=outputs),
        output=None,
    )
    found, expected = (evaluate(each, data, verbose=0) for each in (result, run))
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
    assert found.outputs == outputs and expected.outputs == RunOutputs()
    fitted = evaluate(result, data, temperature="fit", verbose=0)
    assert fitted.outputs.temperature != 2


def test_wrong_arguments_are_told_before_the_model_is_loaded(run, data, monkeypatch, tmp_path):
    monkeypatch.setattr(SavedRun, "load", lambda self: pytest.fail("loaded"))
    images, labels = np.zeros((4, 32, 32, 3), np.uint8), [0, 0, 1, 1]
    other = ImageDataset.from_arrays(images, labels, label_names=("red", "pink"))
    for options, message in (
        (
            {"data": other},
            "`data` must have classes of the model only.*'pink'.*'red', 'green', 'blue'",
        ),
        ({"split": "validation"}, "`split` must be one of"),
        ({"temperature": 1.5}, "`temperature` must be True, False or 'fit'"),
        ({"temperature": 1.0}, "`temperature` must be True, False or 'fit'"),
        ({"temperature": 0}, "`temperature` must be True, False or 'fit'"),
        ({"temperature": "warm"}, "`temperature` must be True, False or 'fit'"),
        ({"batch_size": 0}, "`batch_size` must be an integer of at least 1"),
        ({"image_size": 16}, "`image_size` must be an integer of at least 32"),
        ({"rule": 3}, "`rule` must be a keras_bit.HyperRule"),
        ({"label_names": COLORS}, "`label_names` must be omitted for a run"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(run, **{"data": data, "verbose": 0, **options})
    with pytest.raises(
        FileNotFoundError, match="`model_or_run` must be the output folder of a run"
    ):
        evaluate(tmp_path / "none", data)
    for model in (3, None, object()):
        with pytest.raises(
            TypeError, match="`model_or_run` must be the output folder of a run, wh"
        ):
            evaluate(model, data)
    with pytest.raises(TypeError, match="`data` must be a keras_bit.ImageDataset"):
        evaluate(run, "photos")
    with pytest.raises(TypeError, match="`cache_dir` must be"):
        evaluate(run, data, cache_dir=3)


def test_the_cache_on_disk_is_used_again(quick, run, data, tmp_path, monkeypatch):
    first = evaluate(run, data, cache_dir=tmp_path / "cache", verbose=0)
    monkeypatch.setattr(type(data.test), "map_indexed", lambda *a, **k: pytest.fail("decoded"))
    second = evaluate(run, data, cache_dir=tmp_path / "cache", verbose=0)
    np.testing.assert_array_equal(first.logits, second.logits)
