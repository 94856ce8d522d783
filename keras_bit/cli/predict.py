"""`keras-bit predict MODEL IMAGE...`."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_bit.cli.console import make_console, make_table
from keras_bit.cli.options import add_command, positive

if TYPE_CHECKING:
    from keras_bit.evaluation import FilePrediction

FAILED_IMAGES = 1


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "predict MODEL IMAGE...",
        run,
        "Name the classes of images",
        "keras-bit predict photos-bit cat.jpg dog.jpg --top 3",
        ("keras", "tensorflow"),
    )
    parser.add_argument(
        "model", metavar="MODEL", help="output folder of a run, or the model.keras in it"
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="JPEG, PNG, BMP or GIF file")
    parser.add_argument(
        "--top", type=positive, default=3, metavar="N", help="classes per image (default: 3)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Predicts, shows, and returns the exit code."""
    from keras_bit.evaluation import predict_files

    with make_console(stderr=True).status(f"Looking at {len(arguments.images):,} images"):
        predictions = predict_files(arguments.model, arguments.images, top=arguments.top)
    if arguments.json:
        print(json.dumps(list(map(_as_json, predictions)), indent=2))
    else:
        _show(predictions)
    return FAILED_IMAGES if any(prediction.error for prediction in predictions) else 0


def _as_json(prediction):
    if prediction.error:
        return {"image": prediction.file, "error": prediction.error}
    classes = [{"class": name, "probability": share} for name, share in prediction.classes]
    return {"image": prediction.file, "predictions": classes}


def _show(predictions: Sequence["FilePrediction"]) -> None:
    from rich.text import Text

    table = make_table("image", "class", "probability", right=("probability",))
    for prediction in predictions:
        file = prediction.file
        for name, share in prediction.classes:
            table.add_row(Text(file), Text(name), f"{share:.1%}")
            file = ""
    if table.row_count:
        make_console().print(table)
    for prediction in predictions:
        if prediction.error:
            print(f"keras-bit: {prediction.file}: {prediction.error}", file=sys.stderr)
