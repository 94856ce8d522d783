"""`model.export` of Keras, without this package's `export`."""

import keras
import numpy as np
import pytest

import keras_bit
from keras_bit.layers import fusion

pytestmark = pytest.mark.tensorflow
COMPILED = b"_XlaMustCompile"


@pytest.fixture(autouse=True)
def everything_is_worth_compiling(monkeypatch):
    monkeypatch.setattr(fusion, "MIN_VALUES", 1)


def make_model(edge):
    layers = [
        keras_bit.StandardizedConv2D(8, 3),
        keras_bit.GroupNorm(4, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
    ]
    return keras.Sequential([keras.Input((edge, edge, 4)), *layers])


def traced(model, images):
    """The graph of a plain `tf.function`, as bytes."""
    import tensorflow as tf

    function = tf.function(lambda x: model(x, training=False), autograph=False)
    return function.get_concrete_function(images).graph.as_graph_def().SerializeToString()


@pytest.mark.parametrize("edge", [16, pytest.param(None, marks=pytest.mark.slow)])
def test_an_exported_graph_holds_no_compiled_function(edge, rng, tmp_path):
    import tensorflow as tf

    model = make_model(edge)
    images = rng.normal(size=(2, 16, 16, 4)).astype("float32")
    expected = np.asarray(model(images))
    assert COMPILED in traced(make_model(16), images)
    model.export(tmp_path / "model", verbose=False)
    assert COMPILED not in (tmp_path / "model" / "saved_model.pb").read_bytes()
    loaded = tf.saved_model.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.serve(images), expected, rtol=1e-4, atol=1e-5)
    assert COMPILED in traced(make_model(16), images)  # as in training


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of tf2onnx
def test_onnx_runtime_and_openvino_run_what_keras_exports(rng, tmp_path):
    onnxruntime, openvino = map(pytest.importorskip, ("onnxruntime", "openvino"))
    pytest.importorskip("tf2onnx")
    backbone = keras_bit.BiTBackbone((1, 1, 1, 1), width=0.125)
    model = keras.Sequential([keras.Input((None, None, 3)), backbone, keras.layers.Dense(3)])
    images = rng.uniform(size=(2, 64, 64, 3)).astype("float32")
    expected = np.asarray(model(images))
    model.export(f"{tmp_path}/model.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(f"{tmp_path}/model.onnx")
    found = session.run(None, {session.get_inputs()[0].name: images})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    model.export(f"{tmp_path}/model.xml", format="openvino", verbose=False)
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(f"{tmp_path}/model.xml", "CPU", options)
    np.testing.assert_allclose(compiled(images)[0], expected, rtol=1e-3, atol=1e-4)
