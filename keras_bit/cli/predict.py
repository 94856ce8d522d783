"""`keras-bit predict MODEL IMAGE...`."""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from textwrap import indent
from typing import TYPE_CHECKING, Any

from keras_bit.cli.console import complain, make_console, track, write
from keras_bit.cli.options import (
    add_command,
    add_damaged,
    add_quiet,
    add_run,
    given,
    path,
    positive,
)

if TYPE_CHECKING:
    from keras_bit.evaluation import FilePrediction

FAILED_IMAGES = 1
COLUMNS = ("image", "class", "probability")
GAP = "  "


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "predict MODEL IMAGE...",
        run,
        "Name the classes of images",
        "keras-bit predict photos-bit cat.jpg dog.jpg --top 3",
        ("keras", "tensorflow"),
    )
    add_run(parser, "model", "MODEL")
    text = "JPEG, PNG, BMP, GIF, WebP or TIFF file, a folder of them, or a pattern such as "
    text += "'photos/**/*.jpg'"
    parser.add_argument("images", type=path, metavar="IMAGE", nargs="+", help=text)
    text = "classes per image (default: 3; of a run with several labels an image, all labels whose "
    text += "probability reaches the threshold)"
    parser.add_argument("--top", type=positive, metavar="N", help=text)
    add_damaged(parser.add_argument)
    text = "new or empty folder for pictures that show where in each image its classes come from"
    parser.add_argument("--maps", type=path, metavar="FOLDER", help=text)
    add = parser.add_mutually_exclusive_group().add_argument
    add("--json", action="store_true", help="print JSON")
    add("--csv", action="store_true", help="print CSV, one row for each image and class")
    add_quiet(parser, prints_result=True)


def run(arguments: argparse.Namespace) -> int:
    """Predicts, shows, and returns the exit code."""
    from keras_bit.evaluation.files import find_images
    from keras_bit.evaluation.map_files import check_maps_folder, draw_file_maps
    from keras_bit.evaluation.saved_run import SavedRun

    _refuse_tables(arguments.images)
    saved = SavedRun.open(arguments.model, "MODEL")
    maps = arguments.maps and check_maps_folder(arguments.maps)
    console = make_console(stderr=True)
    with console.status("Looking for images"):
        files = find_images(arguments.images, "IMAGE")
    predictions: Iterable[FilePrediction]
    options = {**given(arguments, ("damaged",)), **({"maps": True} if maps else {})}
    predictions = saved.predict(files, arguments.top, **options)
    if maps:
        predictions = draw_file_maps(predictions, maps, saved.rule.crop_size)
    predictions = track(console, predictions, len(files), "Images")
    if sys.stdout.isatty():  # elsewhere the rows are written as they come
        predictions = list(predictions)
    failed: list[FilePrediction] = []
    predictions = _noted(predictions, failed)
    if arguments.json:
        _write_json(predictions)
    elif arguments.csv:
        _write_csv(predictions, with_maps=bool(maps))
    else:
        _show(predictions, files, saved.label_names)
        for prediction in failed:
            complain(f"{prediction.file}: {prediction.error}")
        if maps:
            write(make_console(), f"Maps: {maps}")
    return FAILED_IMAGES if failed else 0


def _refuse_tables(images):
    tables = [name for name in images if name.lower().endswith((".csv", ".tsv", ".parquet"))]
    if len(tables) == len(images):
        raise ValueError(
            f"`IMAGE` must be an image, a folder or a pattern. Received: {tables[0]}, a table. "
            "`--csv` chooses how the result is printed, and takes no file."
        )


def _noted(
    predictions: Iterable["FilePrediction"], failed: list["FilePrediction"]
) -> Iterator["FilePrediction"]:
    """Passes predictions on; `failed` gets those of files that cannot be read."""
    for prediction in predictions:
        if prediction.error:
            failed.append(prediction)
        yield prediction


def _write_json(predictions: Iterable["FilePrediction"]) -> None:
    separator = "[\n"
    for prediction in predictions:
        print(separator + indent(json.dumps(_as_json(prediction), indent=2), GAP), end="")
        separator = ",\n"
    print("\n]")


def _as_json(prediction):
    if prediction.error:
        return {"image": prediction.file, "error": prediction.error}
    classes = [{"class": name, "probability": share} for name, share in prediction.classes]
    drawn = {"map": prediction.map_file} if prediction.map_file else {}
    return {"image": prediction.file, "predictions": classes, **drawn}


def _write_csv(predictions: Iterable["FilePrediction"], with_maps: bool) -> None:
    """Writes CSV as RFC 4180 has it, with its ends of lines on every system."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(newline="")
    writer = csv.writer(sys.stdout)
    writer.writerow((*COLUMNS, "error", *(("map",) if with_maps else ())))
    for prediction in predictions:
        map_file = (prediction.map_file,) if with_maps else ()
        for name, share in prediction.classes or (("", ""),):
            writer.writerow((prediction.file, name, share, prediction.error, *map_file))


def _show(
    predictions: Iterable["FilePrediction"], files: Sequence[str], label_names: Sequence[str]
) -> None:
    """A table; a list of images where the terminal is too narrow for it."""
    from rich.cells import cell_len

    from keras_bit.evaluation.evaluation import NO_LABEL

    console = make_console()
    widths = [
        max(map(cell_len, (title, *texts)), default=0)
        for title, texts in zip(COLUMNS, (files, label_names, ()), strict=True)
    ]
    wide = sum(widths) + 2 * len(GAP) <= console.width

    def padded(text, column):
        return text + " " * (widths[column] - cell_len(text))

    titles = [padded(title, column) for column, title in enumerate(COLUMNS)] if wide else None
    for prediction in predictions:
        if prediction.error:
            continue
        if titles:
            write(console, GAP.join(titles))
            titles = None
        file = prediction.file
        if not wide:
            write(console, file)
        if not prediction.classes:
            write(console, padded(file, 0) + GAP + NO_LABEL if wide else GAP + NO_LABEL)
        for name, share in prediction.classes:
            shown = f"{share:{widths[2]}.1%}"
            if wide:
                write(console, padded(file, 0) + GAP + padded(name, 1) + GAP + shown)
            else:
                write(console, f"{GAP}{name}: {share:.1%}")
            file = ""
