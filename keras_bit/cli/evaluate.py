"""`keras-bit evaluate RUN FOLDER`."""

import argparse
from typing import TYPE_CHECKING, Any

from keras_bit.cli.console import make_console, show, track, write
from keras_bit.cli.options import (
    add_command,
    add_data_options,
    add_quiet,
    add_run,
    check_source,
    check_writable,
    data_of,
    given,
    path,
    positive,
)

if TYPE_CHECKING:
    from rich.console import Console

    from keras_bit.evaluation import Evaluation

SHOWN_CLASSES = 5
TEMPERATURES: dict[str, bool | str] = {"stored": True, "none": False, "fit": "fit"}


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "evaluate RUN FOLDER",
        run,
        "Tell how good the model of a run is on labeled images",
        "keras-bit evaluate photos-bit new-photos --output photos-bit-evaluation",
        ("keras", "tensorflow"),
        "All images of the folder are evaluated; where it has `train` and `test` folders, or is "
        "the one that the run was trained on, the test images.",
    )
    add_run(parser)
    add_data_options(parser, seeded="which are test images")
    add_quiet(parser, prints_result=True)
    add = parser.add_argument_group("evaluation").add_argument
    text = "test, train or all images, in place of the above"
    add("--split", dest="part", choices=("test", "train", "all"), metavar="SPLIT", help=text)
    text = "edge to which images are resized (default: that of the run's test images)"
    add("--image-size", type=positive, metavar="PIXELS", help=text)
    text = "images that are predicted together (default: 32)"
    add("--batch-size", type=positive, metavar="N", help=text)
    text = "fit the temperature to these images and store it with the run, where `predict` finds "
    text += "it; or none (default: stored, the one of the run)"
    choices = tuple(TEMPERATURES)
    add("--temperature", choices=choices, default="stored", metavar="stored|fit|none", help=text)
    text = "keep the resized images here, for later use too (default: in memory)"
    add("--cache-dir", type=path, metavar="FOLDER", help=text)
    text = "folder for evaluation.html, metrics.json and predictions.csv (default: none is written)"
    add("--output", type=path, metavar="FOLDER", help=text)
    text = "replace these files in the output folder"
    add("--overwrite", action="store_true", help=text)


def run(arguments: argparse.Namespace) -> None:
    """Evaluates a run, shows the scores, and writes the files that were asked for."""
    from keras_bit.evaluation.evaluate import Preparation, default_split
    from keras_bit.evaluation.results import check_results_folder
    from keras_bit.evaluation.subject import Subject

    check_source(arguments)
    for name, folder in given(arguments, ("output", "cache_dir")).items():
        check_writable(name, folder)
    if arguments.output is not None:
        check_results_folder(arguments.output, arguments.overwrite)
    elif arguments.overwrite:
        raise ValueError(
            "`overwrite` must be omitted without `output`: no files are written. "
            "Received: overwrite=True"
        )
    subject = Subject.of(arguments.run_path, "RUN")
    subject.resolve_edge(image_size=arguments.image_size)
    data = data_of(arguments, {})
    split = arguments.part or default_split(subject, data)
    _check_split_options(arguments, split)
    options = given(arguments, ("image_size", "batch_size", "cache_dir"))
    temperature = TEMPERATURES[arguments.temperature]
    prepared = Preparation.of(subject, data, split, temperature=temperature, **options)
    bars, console = make_console(stderr=True), make_console()
    evaluation = prepared.evaluation(
        list(track(bars, prepared.batches(), prepared.steps, "Batches"))
    )
    for line in prepared.messages:
        show(console, line, [str(subject.folder)])
    _show(console, arguments.run_path, evaluation, prepared.split)
    if arguments.output is not None:
        write(console, f"Report: {prepared.write(arguments.output, evaluation)}")


def _check_split_options(arguments: argparse.Namespace, split: str) -> None:
    """Raises where options of the split would change nothing, unless --split asks for all."""
    options = given(arguments, ("validation_split", "seed"))
    if split == "all" and arguments.part is None and options:
        name, value = next(iter(options.items()))
        raise ValueError(
            f"`{name}` must be omitted where all images are evaluated, as of images that are not "
            f"those of the run's training. Received: {name}={value}. Say which with --split."
        )


def _show(console: "Console", run: str, evaluation: "Evaluation", split: str) -> None:
    """The scores, the worst classes, and what one has to know to read them."""
    from keras_bit.core.text import table
    from keras_bit.evaluation.notes import notes, score_rows

    which = "" if split == "all" else f"{split} "
    title = f"{run} on {len(evaluation.labels):,} {which}images"
    show(console, table(title, score_rows(evaluation)), [run])
    present = [scores for scores in evaluation.worst_classes() if scores.support]
    worst = present[:SHOWN_CLASSES]
    rows = [
        (
            scores.name,
            f"F1 {scores.f1:.3f}",
            f"precision {scores.precision:.3f}, recall {scores.recall:.3f}, "
            f"{scores.support:,} image{'' if scores.support == 1 else 's'}",
        )
        for scores in worst
    ]
    show(
        console,
        table("Worst classes" if len(worst) < len(present) else "Classes", rows),
    )
    for note in notes(evaluation):
        show(console, note)
