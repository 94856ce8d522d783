import doctest
import importlib.util
import json
import zipfile

import numpy as np
import pytest

import keras_bit
from keras_bit.exporters import ExportError, litert
from keras_bit.exporters import tf_saved_model as saved_model_format
from keras_bit.exporters.formats import FORMATS
from keras_bit.exporters.images import photographs, resize_all
from keras_bit.exporters.source import Source
from tests.exporters.conftest import make_classifier
from tests.processes import run_python

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore"),  # of the formats' own tools
]
MODULE = importlib.import_module("keras_bit.exporters.export")
NAMES = ("blue", "green", "red")


def labeled(images):
    return keras_bit.ImageDataset.from_arrays(
        images, np.arange(len(images)) % 3, label_names=NAMES, validation_split=0.5
    )


def export(model, folder, format="tf_saved_model", **options):
    packages = FORMATS[format].packages + FORMATS[format].quantizers
    if any(importlib.util.find_spec(package) is None for package in packages):
        pytest.skip(f"{' and '.join(packages)} are needed")
    path = folder / f"model{FORMATS[format].suffix}"
    return keras_bit.export(model, path, format, verbose=0, **options)


@pytest.mark.slow
def test_a_saved_model_has_all_inside(classifier, images, tmp_path):
    import tensorflow as tf

    result = export(classifier, tmp_path, data=labeled(images), image_size=(48, 40))
    assert result.images == 12 and result.agreement == 1.0 and result.largest_difference < 1e-4
    assert result.accuracy == result.keras_accuracy
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.labels.json"]
    assert json.loads(result.labels_file.read_text()) == list(NAMES)
    extra = tmp_path / "model" / "assets.extra" / "label_names.json"
    assert json.loads(extra.read_text()) == list(NAMES)
    assert b"_XlaMustCompile" not in (tmp_path / "model" / "saved_model.pb").read_bytes()
    loaded = tf.saved_model.load(tmp_path / "model")
    logits = np.asarray(classifier(images[:5].astype("float32") / 255))
    expected = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(loaded.serve(images[:5]), expected, atol=1e-4)
    for text in (str(tmp_path / "model"), "100.00%", "12", "Keras"):
        assert text in str(result)


@pytest.mark.slow
def test_the_example_runs(tmp_path, monkeypatch):
    import tensorflow as tf

    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(
        keras_bit.export.__doc__.replace("# doctest: +SKIP", ""),
        {"keras_bit": keras_bit, "np": np, "tf": tf},
        "export",
        None,
        0,
    )
    assert doctest.DocTestRunner().run(test).failed == 0


def test_a_file_that_differs_is_removed_and_the_older_one_stays(
    classifier, images, tmp_path, monkeypatch
):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_text("the older one")
    # No graph: what is tested comes after it.
    monkeypatch.setattr(MODULE, "write_graph", lambda model, serving, folder: folder.mkdir())
    monkeypatch.setattr(Source, "predict", lambda *arguments: np.full((1, 3), 0.25))
    monkeypatch.setattr(saved_model_format, "write", lambda contents, path: path.mkdir())
    monkeypatch.setattr(
        saved_model_format, "load", lambda path: lambda x: np.full((len(x), 3), 0.5)
    )
    with pytest.raises(ExportError, match="model was not kept: outputs that differ by up to 0"):
        export(classifier, tmp_path, data=images[:1], image_size=32)

    def cannot(path):
        raise RuntimeError("an operation that it does not know")

    monkeypatch.setattr(saved_model_format, "load", cannot)
    with pytest.raises(ExportError, match="cannot be run, .* says: an operation that it does not"):
        export(classifier, tmp_path, data=images[:1], image_size=32)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "saved_model.pb").read_text() == "the older one"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"format": "tflite"}, "`format` must be one of 'tf_saved_model', 'litert', 'onnx'"),
        ({"input": "int8"}, "`input` must be one of 'uint8', 'float32'"),
        ({"outputs": "classes"}, "`outputs` must be one of"),
        ({"quantize": "int8"}, "`quantize` must be None with format='tf_saved_model'"),
        ({"image_size": (3, 4, 5)}, "`image_size` must be a number of pixels, or height and width"),
        ({"image_size": 0}, "`image_size` must be an integer of at least 1"),
        ({"image_size": 31}, "`image_size` must be at least 32 pixels"),
        ({"min_agreement": 90}, r"`min_agreement` must lie in \[0, 1\]"),
        ({"data": np.zeros(3)}, "`data` must be an ImageDataset or uint8 images"),
        ({"value_range": (0, 2)}, "`value_range` must be one of"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(
    classifier, tmp_path, monkeypatch, options, message
):
    monkeypatch.delattr(MODULE, "write_graph")
    with pytest.raises(ValueError, match=message):
        keras_bit.export(classifier, tmp_path / "model", verbose=0, **options)
    assert not list(tmp_path.iterdir())


def test_int8_needs_images(classifier, tmp_path):
    for format in ("litert", "onnx", "openvino"):
        with pytest.raises(ValueError, match="`data` must be given, training images"):
            path = tmp_path / f"model{FORMATS[format].suffix}"
            keras_bit.export(classifier, path, format, quantize="int8")


def test_probabilities_of_features_and_logits_of_probabilities_are_refused(functional, tmp_path):
    with pytest.raises(ValueError, match="needs a model that gives logits"):
        export(functional, tmp_path, outputs="logits")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["litert", "onnx", "openvino"])
def test_each_runtime_gives_what_keras_gives(format, functional, images, tmp_path):
    half = make_classifier(dtype="mixed_float16", value_range=(-1, 1))
    result = export(half, tmp_path, format, input="float32", outputs="logits", data=images[:10])
    assert result.largest_difference < 1e-3 and result.images == 10  # of any size
    resized_inside = {"image_size": (50, 70), "data": images[:9]}
    result = export(functional, tmp_path, format, **resized_inside)
    assert result.largest_difference < 1e-2 and result.images == 9


@pytest.mark.slow
@pytest.mark.parametrize("format", ["litert", "onnx", "openvino"])
def test_8_bits_name_the_same_classes(format, tmp_path):
    # Pretrained: random weights magnify what is rounded.
    model = keras_bit.BiTClassifier(keras_bit.BiTBackbone.from_preset("f-r14x0.5"), 3)
    photos = np.concatenate([resize_all(crop[None], (64, 64)) for crop in photographs()])
    features = np.asarray(model.backbone(photos / np.float32(255)))
    kernel = (features[[0, 1, 3]] - features.mean(axis=0)).T
    model.head.set_weights([kernel, -features.mean(axis=0) @ kernel])
    data = keras_bit.ImageDataset.from_arrays(
        photos, np.arange(16) % 3, photos, np.arange(16) % 3, label_names=NAMES
    )
    result = export(model, tmp_path, format, quantize="int8", data=data, image_size=64)
    assert 0 < result.largest_difference and result.agreement >= 0.9
    assert result.size < model.count_params() * 1.8  # bytes, of 4 a weight
    assert _label_names(format, result.path) == list(NAMES)


@pytest.mark.slow
def test_a_file_that_ends_the_process_of_its_runtime_is_an_error(
    classifier, images, tmp_path, monkeypatch
):
    monkeypatch.setattr(litert, "_PROBE", "import os; os.abort()")
    with pytest.raises(ExportError, match="cannot be run, .* its process ended with code -6"):
        export(classifier, tmp_path, "litert", data=images[:1], image_size=32)
    assert not list(tmp_path.iterdir())


def _label_names(format, path):
    """The class names that a file itself holds."""
    if format == "litert":
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("label_names.json"))
    if format == "onnx":
        import onnx

        model = onnx.load(path)
        assert [output.name for output in model.graph.output] == ["probabilities"]
        return json.loads({each.key: each.value for each in model.metadata_props}["label_names"])
    import openvino

    model = openvino.Core().read_model(path)
    assert model.output(0).get_any_name() == "probabilities"
    return json.loads(model.get_rt_info(["keras_bit", "label_names"]).value)


@pytest.mark.slow
def test_runs_with_several_labels_and_a_temperature(tmp_path, rng):
    import tensorflow as tf

    images = rng.integers(0, 256, (24, 40, 36, 3)).astype(np.uint8)
    labels = rng.integers(0, 2, (24, 3))
    data = keras_bit.ImageDataset.from_arrays(images, labels, multi_label=True)
    network = {"depth": (1, 1, 1, 1), "width": 0.125}
    options = {"schedule_length": 2, "crop_size": 32, "batch_size": 8, "verbose": 0}
    run = tmp_path / "run"
    keras_bit.fine_tune(data, output=run, report=False, **network, **options)
    outputs = json.loads((run / "outputs.json").read_text())
    (run / "outputs.json").write_text(json.dumps({**outputs, "temperature": 4.0}))
    result = export(run, tmp_path, data=data)
    assert result.agreement == 1.0 and result.accuracy == result.keras_accuracy
    (prediction,) = keras_bit.predict_files(run, _saved(images[0], tmp_path), top=3)
    loaded = tf.saved_model.load(result.path)
    found = np.asarray(loaded.serve(images[:1]))[0]
    assert found.sum() != pytest.approx(1, abs=1e-3)
    expected = dict(prediction.classes)
    for name, share in zip(data.label_names, found, strict=True):
        assert share == pytest.approx(expected.get(name, share), abs=1e-2)


def _saved(image, folder):
    from PIL import Image

    Image.fromarray(image).save(folder / "image.png")
    return folder / "image.png"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax"])
@pytest.mark.exhaustive
def test_other_backends_export_as_well(backend, tmp_path):
    pytest.importorskip("onnxruntime")
    code = f"""
import keras_bit, numpy as np
model = keras_bit.BiTClassifier(keras_bit.BiTBackbone((1, 1, 1, 1), width=0.125), 3)
model.head.kernel.assign(np.random.default_rng(0).normal(size=model.head.kernel.shape))
images = np.random.default_rng(0).integers(0, 256, (1, 48, 48, 3)).astype(np.uint8)
for format, name in (("tf_saved_model", "model"), ("onnx", "model.onnx")):
    path = {str(tmp_path)!r} + "/" + name
    result = keras_bit.export(model, path, format, image_size=48, data=images, verbose=0)
    print(result.agreement, result.largest_difference < 1e-3)
"""
    result = run_python("-c", code, KERAS_BACKEND=backend)
    assert result.stdout.split() == ["1.0", "True"] * 2, result.stderr
