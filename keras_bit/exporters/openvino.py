"""OpenVINO's intermediate representation, for Intel's processors."""

import pathlib

import numpy as np

from keras_bit.exporters.contents import INT8, Contents, Run


def write(contents: Contents, path: pathlib.Path) -> None:
    """Writes the `.xml` file and the `.bin` file beside it, with its metadata in `rt_info`."""
    import openvino

    # Not `convert_model`, which sends a record of its use over the network.
    model = openvino.Core().read_model(contents.graph)
    if contents.quantize == INT8:
        import nncf

        images = list(contents.calibration)
        model = nncf.quantize(model, nncf.Dataset(images), subset_size=len(images))
    model.output(0).set_names({contents.output_name})
    for name, text in contents.metadata.items():
        model.set_rt_info(text, ["keras_bit", name])
    openvino.save_model(model, path, compress_to_fp16=False)


def load(path: pathlib.Path) -> Run:
    """Returns the function of the file on the CPU, in float32.

    By itself OpenVINO computes in bfloat16 on processors that have it.
    """
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", options)
    return lambda images: np.asarray(compiled(images)[0])
