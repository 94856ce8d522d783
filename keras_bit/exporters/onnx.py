"""ONNX, run by ONNX Runtime."""

import logging
import os
import pathlib
import tempfile
import warnings

from keras_bit.exporters.contents import INPUT_NAME, INT8, Contents, Run

OPSET = 18
# Group norm stays in floats: its sums of squares would lose all digits.
_QUANTIZED = ["Conv", "MatMul", "Gemm"]


def write(contents: Contents, path: pathlib.Path) -> None:
    """Writes the file, with its metadata in `metadata_props`."""
    import onnx

    model = _converted(contents)
    if contents.quantize is not None:
        model = _quantized(model, contents)
    model.producer_name = "keras_bit"
    onnx.helper.set_model_props(model, contents.metadata)
    onnx.save(model, path)


def load(path: pathlib.Path) -> Run:
    """Returns the function of the file on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    return lambda images: session.run(None, {source.name: images})[0]


def _converted(contents):
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of NumPy's names that tf2onnx asks for
        import tf2onnx

        logging.getLogger("tf2onnx").setLevel(logging.ERROR)
        module = tf.saved_model.load(contents.graph)
        signature = module.serve.input_signature
        model, _ = tf2onnx.convert.from_function(module.serve, signature, opset=OPSET)
    _rename_output(model.graph, contents.output_name)
    return model


def _rename_output(graph, name):
    (output,) = graph.output
    for node in graph.node:
        for index, each in enumerate(node.output):
            if each == output.name:
                node.output[index] = name
    output.name = name


def _quantized(model, contents):
    import onnx
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as folder:
        path, result = os.path.join(folder, "float.onnx"), os.path.join(folder, "quantized.onnx")
        onnx.save(model, path)
        options = {"per_channel": True, "op_types_to_quantize": _QUANTIZED}
        if contents.quantize == INT8:
            images = _Feeds(contents.calibration)
            quantization.quantize_static(path, result, images, **options)
        else:
            quantization.quantize_dynamic(path, result, **options)
        return onnx.load(result)


class _Feeds:
    """A `CalibrationDataReader` of ONNX Runtime."""

    def __init__(self, images):
        self._images = iter(images)

    def get_next(self):
        image = next(self._images, None)
        return None if image is None else {INPUT_NAME: image}
