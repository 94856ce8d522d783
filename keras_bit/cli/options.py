"""Options that several commands share, and what of the Python API they become."""

import argparse
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from keras_bit.cli.console import STDERR, STDOUT

if TYPE_CHECKING:
    from keras_bit.data import ImageDataset

AUTO = "auto"
DECISIONS = (
    "batch_size micro_batch_size schedule_length learning_rate resize_edge crop_size mixup_alpha "
    "warmup random_crop random_flip preset freeze_backbone frozen_blocks weight_decay dropout "
    "class_weight remat dtype steps_per_epoch cache_dir seed"
).split()
NETWORK = ("depth", "width", "from_scratch")
DATA_OPTIONS = ("validation_split", "seed", "min_edge", "examples_per_class", "damaged")
# Arguments of `image_table`, and what they are called here.
TABLE_OPTIONS = {
    "table": "--csv",
    "path": "--path-column",
    "label": "--label-column",
    "split": "--split-column",
    "root": "--root",
    "separator": "--separator",
}


def add_command(
    commands: Any,
    usage: str,
    run: Callable[[argparse.Namespace], int | None],
    summary: str,
    example: str,
    libraries: Sequence[str] = (),
    details: str = "",
) -> Any:
    """Adds a command and returns its `Parser`; `run` takes the arguments and returns the exit code.

    `libraries` are imported first, without their messages.
    """
    parser = commands.add_parser(
        usage.split()[0],
        # Listing all options, as argparse would, takes more room than their descriptions.
        usage=f"keras-bit {usage}\n       [OPTION ...]",
        help=summary,
        description=f"{summary}. {details}",
        epilog=f"Example: {example}",
    )
    text = "show tracebacks, and what TensorFlow says at its start"
    parser.add_argument("--debug", action="store_true", help=text)
    parser.set_defaults(run=run, parser=parser, libraries=libraries, silenced=(), kept=None)
    return parser


def add_run(parser: argparse.ArgumentParser, name: str = "run_path", metavar: str = "RUN") -> None:
    """Adds the run whose model is used."""
    text = "output folder of a run, or the model.keras in it"
    parser.add_argument(name, type=path, metavar=metavar, help=text)


def add_quiet(parser: argparse.ArgumentParser, *, prints_result: bool) -> None:
    """Adds `--quiet`; of a command that prints no result, stdout is silent as well."""
    streams = (STDERR,) if prints_result else (STDERR, STDOUT)
    what = "the result, " if prints_result else ""
    text = f"print nothing but {what}warnings and errors"
    parser.add_argument(
        *("-q", "--quiet"),
        dest="silenced",
        action="store_const",
        const=streams,
        help=text,
    )


def add_run_options(parser: argparse.ArgumentParser, *, with_steps: bool = True) -> None:
    """Adds the options of data, rule, model and run: all that a plan decides.

    `with_steps`: whether the steps between two validations are among them.
    """
    add_data_options(parser)
    _add_rule_options(parser)
    _add_model_options(parser)
    add = parser.add_argument_group("run").add_argument
    text = "balanced, so that all classes count the same in training, however many images they have"
    add("--class-weight", choices=("balanced",), metavar="balanced", help=text)
    text = "share of each weight that an update takes off, times the rate (default: 0)"
    add("--weight-decay", type=number, metavar="X", help=text)
    if with_steps:
        text = "steps between two validations (default: a tenth of all)"
        add("--steps-per-epoch", type=integer, metavar="N", help=text)
    text = "keep the decoded images here, for later runs too (default: in memory)"
    add("--cache-dir", type=path, metavar="FOLDER", help=text)


def add_output_options(parser: Any, folder: str) -> None:
    """Adds `--output`, by default `folder`, `--overwrite` and `--no-resume`."""
    add_output(parser, folder, "run")
    text = "start again where the folder holds an interrupted run, with --overwrite"
    parser.add_argument("--no-resume", dest="resume", action="store_const", const=False, help=text)
    parser.set_defaults(resume=AUTO, kept=_kept)


def add_output(parser: Any, folder: str, what: str) -> None:
    """Adds `--output`, by default `folder`, and `--overwrite`, which replaces `what` is there."""
    text = f"new or empty folder to write to (default: {folder})"
    parser.add_argument("--output", type=path, default=folder, metavar="FOLDER", help=text)
    text = f"replace the {what} in the output folder"
    parser.add_argument("--overwrite", action="store_true", help=text)


def add_damaged(add: Callable[..., Any]) -> None:
    """Adds `--damaged`."""
    text = "skip damaged JPEG files, or keep them as far as they can be decoded (default: skip)"
    add("--damaged", type=damaged, metavar="skip|keep", help=text)


def add_from_scratch(parser: Any) -> None:
    """Adds `--from-scratch`."""
    text = "start the same small network from random weights, to see what pretraining is worth"
    parser.add_argument("--from-scratch", action="store_const", const=True, help=text)


def check_output_folder(arguments: argparse.Namespace) -> None:
    """Raises where a run could not write to its output, before it reads its images."""
    from keras_bit.training.run_folder import check_output

    check_output(arguments.output, arguments.overwrite, arguments.resume)
    check_outside(arguments.output, getattr(arguments, "folder", None))
    check_writable("output", arguments.output)


def check_outside(output: str, folder: str | None) -> None:
    """Raises where the next command would take the output for a class of the images."""
    from keras_bit.data.sources.folders import holds_classes

    if folder is None:
        return
    path, root = pathlib.Path(output).resolve(), pathlib.Path(folder).resolve()
    if path.is_relative_to(root) and holds_classes(root):
        raise ValueError(
            "`output` must lie outside of FOLDER, each folder of which is a class. Received: "
            f"output={output} in {root}. Choose another, such as {root.parent / path.name}."
        )


def check_writable(name: str, folder: str) -> None:
    """Raises where `folder` is none and cannot become one, or cannot be written to."""
    path = pathlib.Path(folder).absolute()
    existing = next(each for each in (path, *path.parents) if each.exists())
    if not existing.is_dir():
        problem = f"{existing} is a file"
    elif not os.access(existing, os.W_OK | os.X_OK):
        problem = f"{existing} cannot be written to"
    else:
        return
    raise OSError(
        f"`{name}` must be a folder that can be written to. Received: {name}={folder}, and "
        f"{problem}."
    )


def decisions_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments of `keras_bit.plan`, checked as far as they do not depend on data.

    They are those that were given, or that the file of `--rule` holds: the plan decides the others.
    """
    from keras_bit.training.resolve import check_arguments

    check_source(arguments)
    decisions = given(arguments, DECISIONS) | network_of(arguments)
    if arguments.rule is not None:
        from keras_bit.training.rule_files import read_rule_file

        decisions |= read_rule_file(arguments.rule, given(arguments, (*DECISIONS, *NETWORK)))
    check_arguments(**decisions)
    if "cache_dir" in decisions:
        check_writable("cache_dir", decisions["cache_dir"])
    return decisions


def check_source(arguments: argparse.Namespace) -> None:
    """Raises unless the arguments name either a folder or a table of images."""
    columns = given(arguments, TABLE_OPTIONS)
    if arguments.folder is None and "table" not in columns:
        arguments.parser.error(
            f"`FOLDER` must be given, or a table of images as `--csv FILE`. "
            f"{arguments.parser.epilog}"
        )
    if arguments.folder is not None and columns:
        option = TABLE_OPTIONS[next(iter(columns))]
        raise ValueError(
            f"`{option}` must be omitted beside a FOLDER, whose folders are the labels. Received: "
            f"{arguments.folder}. Give a table of images with `--csv FILE` in its place."
        )
    if arguments.folder is not None:
        arguments.parser.renamed["path"] = "FOLDER"  # of `image_folder`, not of `image_table`


def source_of(arguments: argparse.Namespace) -> list[str]:
    """Returns the arguments of a command that name the folder or the table."""
    if arguments.folder is not None:
        return [arguments.folder]
    words = []
    for name, value in given(arguments, TABLE_OPTIONS).items():
        for each in value if isinstance(value, list) else [value]:
            words += [TABLE_OPTIONS[name], each]
    return words


def given(arguments: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Returns those of the arguments that the user gave."""
    values = {name: getattr(arguments, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def paths_of(decisions: dict[str, Any]) -> list[str]:
    """Returns the paths among the arguments of a plan, which what is shown may hold."""
    return [decisions[name] for name in ("preset", "cache_dir") if name in decisions]


def network_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns depth and width of a network with random weights; nothing for a pretrained one."""
    if arguments.from_scratch and getattr(arguments, "preset", None) is not None:
        raise ValueError(
            "`--from-scratch` must not be combined with `--preset`, which brings weights. "
            f"Received: --preset {arguments.preset}"
        )
    network = given(arguments, ("depth", "width"))
    if arguments.from_scratch and not network:
        from keras_bit.weights.presets import EMBEDDED, find_preset

        embedded = find_preset(EMBEDDED)
        network = {"depth": embedded.depth, "width": embedded.width}
    return network


def data_of(arguments: argparse.Namespace, decisions: dict[str, Any]) -> "ImageDataset":
    """Returns the data set in the folder, or in the table, that the arguments name.

    Warns where the rule among the decisions was made for data of other sizes.
    """
    from keras_bit.cli.console import make_console
    from keras_bit.data import image_folder, image_table
    from keras_bit.training.rule_files import warn_of_other_data

    options, columns = given(arguments, DATA_OPTIONS), given(arguments, TABLE_OPTIONS)
    with make_console(stderr=True).status("Reading the sizes of the images"):
        if arguments.folder is None:
            if len(labels := columns.pop("label", ())) > 0:
                columns["label"] = labels[0] if len(labels) == 1 else labels
            data = image_table(**columns, **options)
        else:
            data = image_folder(arguments.folder, **options)
    if "rule" in decisions:
        warn_of_other_data(decisions["rule"], data)
    return data


def _kept(arguments):
    """What an interrupted run has kept."""
    from keras_bit.training.run_folder import describe_interrupted

    text = describe_interrupted(arguments.output)
    if arguments.resume is False:
        return text.replace("the same command", "the same command without --no-resume")
    return text


def integer(text: str) -> int:
    return _parsed(int, text, "an integer")


def number(text: str) -> float:
    return _parsed(float, text, "a number")


def positive(text: str) -> int:
    parsed = integer(text)
    if parsed < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1. Received: {text}")
    return parsed


def path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("must name a file or folder. Received: ''")
    return text


def preset(text: str) -> str:
    if not text.strip():
        rule = "must be a name of `keras-bit presets`, or a file of weights"
        raise argparse.ArgumentTypeError(f"{rule}. Received: {text!r}")
    return text


def damaged(text: str) -> str:
    if text not in ("skip", "keep"):
        raise argparse.ArgumentTypeError(f"must be skip or keep. Received: {text!r}")
    return text


def depth(text: str) -> int | tuple[int, ...]:
    rule = "50, 101, 152, or the units of the four blocks such as 1,1,1,1"
    if "," not in text:
        return _parsed(int, text, rule)
    return tuple(_parsed(int, units, rule) for units in text.split(","))


def width(text: str) -> float:
    parsed = number(text)
    return int(parsed) if parsed.is_integer() else parsed


def micro_batch_size(text: str) -> int | str:
    return text if text == AUTO else _parsed(int, text, "an integer, or auto")


def _parsed(kind, text, rule):
    try:
        return kind(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be {rule}. Received: {text!r}") from error


def add_data_options(
    parser: argparse.ArgumentParser, seeded: str = "split, order, augmentation and initial weights"
) -> None:
    """Adds FOLDER, and the options of data; `seeded` is what `--seed` decides."""
    text = "one folder per class, or `train` and `test` of them"
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help=text)
    _add_table_options(parser)
    add = parser.add_argument_group("data").add_argument
    text = "share of each class that are test images, where no folder or column tells them "
    text += "(default: 0.1)"
    add("--validation-split", type=number, metavar="X", help=text)
    text = "keep this many training images of each class"
    add("--examples-per-class", type=integer, metavar="N", help=text)
    text = "skip images with a shorter edge (default: 0)"
    add("--min-edge", type=integer, metavar="PIXELS", help=text)
    add_damaged(add)
    text = f"decides {seeded} (default: 0)"
    add("--seed", type=integer, metavar="N", help=text)


def _add_table_options(parser):
    text = "In place of FOLDER, a table with a row for each image."
    group = parser.add_argument_group("table of images", text)

    def add(name, help, **options):
        option = TABLE_OPTIONS[name]
        group.add_argument(option, dest=name, help=help, **{"metavar": "NAME", **options})

    text = "CSV, TSV or Parquet file with the columns `path` and `label`"
    add("table", text, type=path, metavar="FILE")
    add("path", "column with the paths of the images (default: path)")
    text = "column with their labels (default: label); given several times, columns of 0 and 1, "
    text += "one for each label of several that an image may have"
    add("label", text, action="append")
    text = "column that says train, test or validation (default: none, a part of all is held out)"
    add("split", text)
    text = "folder at which relative paths start (default: that of the table)"
    add("root", text, type=path, metavar="FOLDER")
    text = "what stands between labels, such as '|', where an image has several in one cell"
    add("separator", text, metavar="TEXT")


def _add_rule_options(parser):
    text = "Without these, batch size, image sizes, schedule length and learning rate are those "
    text += "that suit the weights."
    add = parser.add_argument_group("rule", text).add_argument
    text = "in place of these: rule.json of a run, or best_rule.json of a search, which may decide "
    text += "options of the model as well"
    add("--rule", type=path, metavar="FILE", help=text)
    add("--batch-size", type=integer, metavar="N", help="images per update")
    text = "images that the device takes at once, a divisor of the batch size; auto for the "
    text += "largest that fits"
    add("--micro-batch-size", type=micro_batch_size, metavar="N", help=text)
    add("--schedule-length", type=integer, metavar="N", help="number of updates")
    add("--learning-rate", type=number, metavar="X", help="rate at this batch size")
    add("--resize-edge", type=integer, metavar="PIXELS", help="edge of images before the crop")
    add("--crop-size", type=integer, metavar="PIXELS", help="edge of what the model sees")
    add("--mixup-alpha", type=number, metavar="X", help="0 for no MixUp")
    text = "whether the learning rate climbs at first"
    add("--warmup", action=argparse.BooleanOptionalAction, help=text)
    for what, text in (("crop", "keep whole images"), ("flip", "never mirror images")):
        name = f"random_{what}"
        add(f"--no-random-{what}", dest=name, action="store_const", const=False, help=text)


def _add_model_options(parser):
    group = parser.add_argument_group("model")
    add = group.add_argument
    text = "pretrained weights to start from, or a file of weights; without, those of the small "
    text += "network that comes with this package, trained on synthetic images"
    add("--preset", type=preset, metavar="NAME", help=text)
    parser.renamed["name"] = "--preset"
    text = "start from random weights: 50, 101, 152, or units of the four blocks such as 1,1,1,1"
    add("--depth", type=depth, metavar="N", help=text)
    add("--width", type=width, metavar="X", help="the same: 1 to 4, or a fraction")
    add_from_scratch(group)
    text = "train the head only, on fixed features"
    add("--freeze-backbone", action="store_const", const=True, help=text)
    text = "do not train the root block and the first N of the four blocks (default: 0, train all)"
    add("--frozen-blocks", type=integer, metavar="N", help=text)
    text = "share of the features that the head drops in training (default: 0)"
    add("--dropout", type=number, metavar="X", help=text)
    text = "recompute activations in the backward pass: less memory, more time"
    add("--remat", action="store_const", const=True, help=text)
    text = "float32, mixed_bfloat16 or mixed_float16 (default: mixed_bfloat16 on GPUs made for "
    text += "it, or else float32)"
    add("--dtype", metavar="POLICY", help=text)
