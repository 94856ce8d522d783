"""Export a run to each runtime, and classify a photograph there without Keras.

`cats-vs-dogs` is the output of a run; `pip install "keras_bit[litert,onnx,openvino]"` for all four:

    python -m keras_bit.examples.export_runtimes cats-vs-dogs photo.jpg
"""

import json
import sys

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

import keras_bit

RUN, PHOTOGRAPH = sys.argv[1:] or ("cats-vs-dogs", "photo.jpg")
PATHS = {
    "tf_saved_model": "exported/saved-model",
    "litert": "exported/model.tflite",
    "onnx": "exported/model.onnx",
    "openvino": "exported/model.xml",
}


def probabilities_of(path, images):
    """What a file says of images, from its runtime alone."""
    if path.endswith(".tflite"):
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(path)
        [source], [target] = interpreter.get_input_details(), interpreter.get_output_details()
        interpreter.resize_tensor_input(source["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])
    if path.endswith(".onnx"):
        import onnxruntime

        return onnxruntime.InferenceSession(path).run(None, {"images": images})[0]
    if path.endswith(".xml"):
        import openvino

        return openvino.Core().compile_model(path, "CPU")(images)[0]
    module = tf.saved_model.load(path)
    return module.serve(images).numpy()


# Pixels of any size, 0 to 255: resizing, rescaling and softmax are in the files.
images = np.asarray(ImageOps.exif_transpose(Image.open(PHOTOGRAPH)).convert("RGB"))[None]
for runtime, path in PATHS.items():
    try:  # with quantize="int8" and `data` to calibrate, a quarter of the size
        result = keras_bit.export(RUN, path, runtime)
    except ImportError as error:
        print(error)
        continue
    [probabilities] = probabilities_of(path, images)
    name = json.loads(result.labels_file.read_text())[probabilities.argmax()]
    print(f"{runtime}: {name} with {probabilities.max():.0%}\n")
