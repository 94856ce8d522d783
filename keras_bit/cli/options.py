"""Options that several commands share, and what of the Python API they become."""

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_bit.data import ImageDataset

AUTO = "auto"
DECISIONS = (
    "batch_size micro_batch_size schedule_length learning_rate resize_edge crop_size mixup_alpha "
    "warmup random_crop random_flip preset freeze_backbone remat dtype steps_per_epoch cache_dir "
    "seed"
).split()


def add_command(
    commands: Any,
    usage: str,
    run: Callable[[argparse.Namespace], int | None],
    summary: str,
    example: str,
    libraries: Sequence[str] = (),
) -> argparse.ArgumentParser:
    """Adds a command and returns its parser; `run` takes the arguments and returns the exit code.

    `libraries` are imported first, without their messages.
    """
    parser = commands.add_parser(
        usage.split()[0],
        # Listing all options, as argparse would, takes more room than their descriptions.
        usage=f"keras-bit {usage}\n       [OPTION ...]",
        help=summary,
        description=f"{summary}.",
        epilog=f"Example: {example}",
    )
    text = "show tracebacks, and what TensorFlow says at its start"
    parser.add_argument("--debug", action="store_true", help=text)
    parser.set_defaults(run=run, libraries=libraries)
    return parser


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of data, rule, model and run: all that a plan decides."""
    _add_data_options(parser)
    _add_rule_options(parser)
    _add_model_options(parser)
    add = parser.add_argument_group("run").add_argument
    text = "steps between two validations (default: a tenth of all)"
    add("--steps-per-epoch", type=int, metavar="N", help=text)
    text = "keep the decoded images here, for later runs too (default: in memory)"
    add("--cache-dir", metavar="FOLDER", help=text)


def add_output_options(parser: Any, folder: str) -> None:
    """Adds `--output`, by default `folder`, and `--overwrite`."""
    text = f"new or empty folder to write to (default: {folder})"
    parser.add_argument("--output", default=folder, metavar="FOLDER", help=text)
    text = "replace the run in the output folder"
    parser.add_argument("--overwrite", action="store_true", help=text)


def add_from_scratch(parser: Any) -> None:
    """Adds `--from-scratch`."""
    text = "start the same small network from random weights, to see what pretraining is worth"
    parser.add_argument("--from-scratch", action="store_true", help=text)


def decisions_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments of `keras_bit.plan`, checked as far as they do not depend on data."""
    from keras_bit.training.plan import check_arguments

    decisions = {name: getattr(arguments, name) for name in DECISIONS} | network_of(arguments)
    check_arguments(**decisions)
    return decisions


def network_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns depth and width of a network with random weights; `None` for a pretrained one."""
    if arguments.from_scratch and getattr(arguments, "preset", None) is not None:
        raise ValueError(
            "`--from-scratch` must not be combined with `--preset`, which brings weights. "
            f"Received: --preset {arguments.preset}"
        )
    depth, width = (getattr(arguments, name, None) for name in ("depth", "width"))
    if arguments.from_scratch and depth is None and width is None:
        from keras_bit.weights.presets import EMBEDDED, find_preset

        embedded = find_preset(EMBEDDED)
        depth, width = embedded.depth, embedded.width
    return {"depth": depth, "width": width}


def data_of(arguments: argparse.Namespace) -> "ImageDataset":
    """Returns the data set in the folder that the arguments name."""
    from keras_bit.cli.console import make_console
    from keras_bit.data import image_folder

    with make_console(stderr=True).status("Reading the sizes of the images"):
        return image_folder(
            arguments.folder,
            validation_split=arguments.validation_split,
            seed=arguments.seed,
            min_edge=arguments.min_edge,
            examples_per_class=arguments.examples_per_class,
        )


def depth(text: str) -> int | tuple[int, ...]:
    return tuple(int(units) for units in text.split(",")) if "," in text else int(text)


def width(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _micro_batch_size(text):
    return text if text == AUTO else int(text)


def _add_data_options(parser):
    parser.add_argument(
        "folder", metavar="FOLDER", help="one folder per class, or `train` and `test` of them"
    )
    add = parser.add_argument_group("data").add_argument
    text = "share of each class to validate on, where there is no test folder (default: 0.1)"
    add("--validation-split", type=float, default=0.1, metavar="X", help=text)
    add("--examples-per-class", type=int, metavar="N", help="train on this many of each class")
    text = "skip images with a shorter edge (default: 0)"
    add("--min-edge", type=int, default=0, metavar="PIXELS", help=text)
    text = "decides split, order, augmentation and initial weights (default: 0)"
    add("--seed", type=int, default=0, metavar="N", help=text)


def _add_rule_options(parser):
    add = parser.add_argument_group("rule", "In place of what BiT-HyperRule decides.").add_argument
    add("--batch-size", type=int, default=64, metavar="N", help="images per update (default: 64)")
    text = "images that the device takes at once, a divisor of the batch size; auto for the "
    text += "largest that fits"
    add("--micro-batch-size", type=_micro_batch_size, metavar="N", help=text)
    add("--schedule-length", type=int, metavar="N", help="number of updates")
    add("--learning-rate", type=float, metavar="X", help="rate at this batch size")
    add("--resize-edge", type=int, metavar="PIXELS", help="edge of images before the crop")
    add("--crop-size", type=int, metavar="PIXELS", help="edge of what the model sees")
    add("--mixup-alpha", type=float, metavar="X", help="0 for no MixUp")
    add("--warmup", action="store_true", help="let the learning rate climb at first")
    for what, help in (("crop", "keep whole images"), ("flip", "never mirror images")):
        add(f"--no-random-{what}", dest=f"random_{what}", action="store_false", help=help)


def _add_model_options(parser):
    group = parser.add_argument_group("model")
    add = group.add_argument
    text = "pretrained weights to start from, or a file of weights; without, those of the small "
    text += "network that comes with this package, trained on synthetic images"
    add("--preset", metavar="NAME", help=text)
    text = "start from random weights: 50, 101, 152, or units of the four blocks such as 1,1,1,1"
    add("--depth", type=depth, metavar="N", help=text)
    add("--width", type=width, metavar="X", help="the same: 1 to 4, or a fraction")
    add_from_scratch(group)
    add("--freeze-backbone", action="store_true", help="train the head only, on fixed features")
    text = "recompute activations in the backward pass: less memory, more time"
    add("--remat", action="store_true", help=text)
    text = "float32, mixed_bfloat16 or mixed_float16 (default: mixed_bfloat16 on GPUs made for "
    text += "it, or else float32)"
    add("--dtype", metavar="POLICY", help=text)
