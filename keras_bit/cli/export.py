"""`keras-bit export RUN --format FORMAT`."""

import argparse
import pathlib
from typing import Any

from keras_bit.cli.console import make_console, show
from keras_bit.cli.options import (
    DATA_OPTIONS,
    TABLE_OPTIONS,
    add_command,
    add_data_options,
    add_quiet,
    add_run,
    check_source,
    data_of,
    given,
    number,
    path,
)

FORMAT_NAMES = ("tf_saved_model", "litert", "onnx", "openvino")
INT8 = "int8"
OPTIONS = ("image_size", "input", "outputs", "quantize", "min_agreement")


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "export RUN [FOLDER]",
        run,
        "Write a run's model as a file that another runtime runs, and compare it with Keras",
        "keras-bit export photos-bit photos --format onnx",
        ("keras", "tensorflow"),
        "The file takes images of any size; resizing, rescaling and softmax are inside. It is kept "
        "only if its own runtime gives what Keras gives: on the test images of FOLDER, or else on "
        "crops of two photographs.",
    )
    add_run(parser)
    add_data_options(parser, seeded="which are test images")
    add = parser.add_argument_group("export").add_argument
    text = "tf_saved_model, litert, onnx or openvino (default: tf_saved_model)"
    add("--format", choices=FORMAT_NAMES, default="tf_saved_model", metavar="NAME", help=text)
    text = "file to write, for tf_saved_model a folder (default: `model` in RUN, with the format's "
    text += "ending)"
    add("--output", type=path, metavar="PATH", help=text)
    text = "take images of this size alone, such as 224 or 480x640, height first (default: any)"
    add("--image-size", type=image_size, metavar="PIXELS", help=text)
    text = "uint8, or float32 for images in [0, 1] (default: uint8)"
    add("--input", choices=("uint8", "float32"), metavar="TYPE", help=text)
    text = "probabilities or logits (default: probabilities)"
    add("--outputs", choices=("probabilities", "logits"), metavar="WHAT", help=text)
    text = "dynamic for weights of 8 bits (litert, onnx), int8 for activations as well (litert, "
    text += "onnx, openvino; calibrated with the training images of FOLDER)"
    add("--quantize", choices=("dynamic", INT8), metavar="HOW", help=text)
    text = "share of images for which a quantized file must name the same class (default: 0.9)"
    add("--min-agreement", type=number, metavar="X", help=text)
    add_quiet(parser, prints_result=True)


def run(arguments: argparse.Namespace) -> None:
    """Exports, and shows how the file compares."""
    from keras_bit.evaluation.saved_run import SavedRun
    from keras_bit.exporters import export
    from keras_bit.exporters.formats import FORMATS

    source = pathlib.Path(arguments.run_path)
    folder = source if source.is_dir() else source.parent
    output = arguments.output or str(folder / f"model{FORMATS[arguments.format].suffix}")
    SavedRun.open(source, "RUN")
    if arguments.min_agreement is not None and arguments.quantize is None:
        raise ValueError(
            "`min_agreement` must be omitted without `quantize`: other files agree with Keras or "
            f"are not kept. Received: min_agreement={arguments.min_agreement}"
        )
    data = None
    if (
        arguments.folder is not None
        or given(arguments, (*TABLE_OPTIONS, *DATA_OPTIONS))
        or arguments.quantize == INT8
    ):
        check_source(arguments)
        data = data_of(arguments, {})
    arguments.parser.renamed["path"] = "--output"  # of `export`; before, it was that of a table
    with make_console(stderr=True).status("Exporting"):
        result = export(
            source, output, arguments.format, data=data, verbose=0, **given(arguments, OPTIONS)
        )
    show(make_console(), str(result), [output, str(result.labels_file)])


def image_size(text: str) -> int | tuple[int, ...]:
    """A number of pixels, or height and width with an x between them."""
    try:
        edges = tuple(map(int, text.split("x")))
    except ValueError:
        edges = ()
    if len(edges) not in (1, 2) or min(edges) < 1:
        rule = "must be a number of pixels, or height and width such as 480x640"
        raise argparse.ArgumentTypeError(f"{rule}. Received: {text!r}")
    return edges if edges[1:] else edges[0]
