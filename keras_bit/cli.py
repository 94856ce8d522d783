"""The command `keras-bit`: fine-tune, predict, plan, presets, download, pretrain and demo.

Everything heavy is imported inside the command that needs it, so that `--help` answers at once.
"""

import argparse
import contextlib
import importlib
import io
import itertools
import json
import os
import pathlib
import re
import sys
import textwrap
import warnings

from keras_bit import __version__

FAILED_IMAGES = 1
FAILED = 2
USER_ERRORS = (ValueError, TypeError, OSError, ImportError, MemoryError, ArithmeticError)
INTERRUPTED = 130  # as shells report a process that SIGINT ended
AUTO = "auto"  # of --micro-batch-size
UNLIMITED_WIDTH = 1000  # of output that is no terminal: whoever reads it wraps it
LISTED_CLASSES = 30
LISTED_FILES = 10
PRESETS_WIDTH = 100
PREDICTION_BATCH = 32
DEMO_RULE = {
    "batch_size": 128,
    "schedule_length": 400,
    "warmup": True,
    "learning_rate": 0.03,
    "resize_edge": 36,
    "crop_size": 32,
    "mixup_alpha": 0.1,
    "random_flip": False,
}


def main(argv=None):
    """Runs the command.

    Args:
        argv: List of arguments; those of the process by default.

    Returns:
        The exit code: 0, 1 where `predict` could not read an image, 2 for an error, 130 after an
        interruption.
    """
    arguments = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names may hold bytes that the terminal's encoding cannot show.
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        # These speak to those who write code, not to those who run it.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            if not arguments.debug:
                _import_quietly(arguments.libraries)
            return arguments.run(arguments) or 0
        except KeyboardInterrupt:
            print("keras-bit: stopped", file=sys.stderr)
            return INTERRUPTED
        except (*USER_ERRORS, *_device_errors()) as error:
            message = _message(error)
            if arguments.debug or message is None:
                raise
            print(f"keras-bit: error: {message}", file=sys.stderr)
            return FAILED


def _import_quietly(libraries):
    """Imports `libraries` without the messages of TensorFlow's start."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow 2.19 and later do not heed the variable before they have looked for GPUs.
    error_output = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        for library in libraries:
            importlib.import_module(library)
        if "tensorflow" in sys.modules:
            sys.modules["tensorflow"].config.list_physical_devices()
    finally:
        os.dup2(error_output, 2)
        os.close(error_output)
        os.close(nowhere)


def _device_errors():
    """What TensorFlow and JAX raise where a device is out of memory, among other troubles."""
    if "tensorflow" in sys.modules:
        return RuntimeError, sys.modules["tensorflow"].errors.ResourceExhaustedError
    return (RuntimeError,)


def _message(error):
    """What to tell of an error without its traceback; `None` where it may be a bug."""
    text = str(error) or type(error).__name__
    if isinstance(error, USER_ERRORS):
        return text
    from keras_bit.device import is_out_of_memory

    if is_out_of_memory(error):
        return (
            "The device is out of memory. Try --micro-batch-size auto, --remat, or a smaller "
            "--crop-size."
        )
    return None


def _show_warning(message, category, filename, lineno, file=None, line=None):
    """Warnings as one readable line, in place of `warnings.showwarning`."""
    print(f"keras-bit: warning: {message}", file=sys.stderr)


# The arguments.


def _parser():
    parser = argparse.ArgumentParser(
        prog="keras-bit", description="Fine-tunes BigTransfer (BiT) on a folder of photographs."
    )
    parser.add_argument("--version", action="version", version=f"keras-bit {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        _add_fine_tune,
        _add_predict,
        _add_plan,
        _add_presets,
        _add_download,
        _add_pretrain,
        _add_demo,
    ):
        add(commands)
    return parser


def _add_command(commands, usage, run, summary, example, libraries=()):
    name = usage.split()[0]
    parser = commands.add_parser(
        name,
        # Listing all options, as argparse would, takes more room than their descriptions.
        usage=f"keras-bit {usage}\n       [OPTION ...]",
        help=summary,
        description=f"{summary}.",
        epilog=f"Example: {example}",
    )
    parser.add_argument(
        "--debug",
        action="store_true",
        help="show tracebacks, and what TensorFlow says at its start",
    )
    parser.set_defaults(run=run, libraries=libraries)
    return parser


def _add_fine_tune(commands):
    parser = _add_command(
        commands,
        "fine-tune FOLDER",
        _fine_tune,
        "Fine-tune BiT on a folder of photographs and write the classifier and a report",
        "keras-bit fine-tune photos --batch-size 64 --output photos-bit",
        ("keras", "tensorflow"),
    )
    _add_data_options(parser)
    _add_rule_options(parser)
    _add_model_options(parser)
    run = parser.add_argument_group("run")
    run.add_argument(
        "--steps-per-epoch",
        type=int,
        metavar="N",
        help="steps between two validations (default: a tenth of all)",
    )
    run.add_argument(
        "--cache-dir",
        metavar="FOLDER",
        help="keep the decoded images here, for later runs too (default: in memory)",
    )
    _add_output_options(run, "keras-bit-run")


def _add_model_options(parser):
    model = parser.add_argument_group("model")
    model.add_argument(
        "--preset",
        metavar="NAME",
        help="pretrained weights to start from, or a file of weights; without, those of the small "
        "network that comes with this package, trained on images drawn by formula",
    )
    model.add_argument(
        "--depth",
        type=_depth,
        metavar="N",
        help="start from random weights: 50, 101, 152, or units of the four blocks such as 1,1,1,1",
    )
    model.add_argument("--width", type=_width, metavar="X", help="the same: 1 to 4, or a fraction")
    _add_from_scratch(model)
    model.add_argument(
        "--freeze-backbone", action="store_true", help="train the head only, on fixed features"
    )
    model.add_argument(
        "--remat",
        action="store_true",
        help="compute maps again in the backward pass: less memory, more time",
    )
    model.add_argument(
        "--dtype",
        metavar="POLICY",
        help="float32, mixed_bfloat16 or mixed_float16 (default: mixed_bfloat16 on GPUs made for "
        "it, or else float32)",
    )


def _add_predict(commands):
    parser = _add_command(
        commands,
        "predict MODEL IMAGE...",
        _predict,
        "Name the classes of images",
        "keras-bit predict photos-bit cat.jpg dog.jpg --top 3",
        ("keras", "tensorflow"),
    )
    parser.add_argument(
        "model", metavar="MODEL", help="output folder of a run, or the model.keras in it"
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="JPEG, PNG, BMP or GIF file")
    parser.add_argument(
        "--top", type=_positive, default=3, metavar="N", help="classes per image (default: 3)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_plan(commands):
    parser = _add_command(
        commands,
        "plan FOLDER",
        _plan,
        "Show what a run on a folder would do, without training",
        "keras-bit plan photos --batch-size 64",
        ("keras",),
    )
    _add_data_options(parser)
    _add_rule_options(parser)
    _add_model_options(parser)


def _add_presets(commands):
    parser = _add_command(
        commands,
        "presets",
        _presets,
        "List the released weights",
        "keras-bit presets r50x1",
    )
    parser.add_argument(
        "text", metavar="TEXT", nargs="?", default="", help="only those whose name has this in it"
    )


def _add_download(commands):
    parser = _add_command(
        commands,
        "download NAME...",
        _download,
        "Fill the cache with released weights ahead of time",
        "keras-bit download m-r50x1 m-r101x1",
    )
    parser.add_argument("names", metavar="NAME", nargs="+", help="see `keras-bit presets`")


def _add_pretrain(commands):
    parser = _add_command(
        commands,
        "pretrain",
        _pretrain,
        "Pretrain a small BiT on images drawn by formula; stopped, it goes on when called again",
        "keras-bit pretrain --families scenes,contours --steps 10000 --output formulas",
        ("keras",),
    )
    parser.add_argument(
        "--families",
        type=lambda text: tuple(text.split(",")),
        default=("scenes", "contours"),
        metavar="NAME,...",
        help="contours, fractals, leaves, networks, scenes, textures (default: scenes,contours)",
    )
    for name, default, what in (
        ("--classes", 100, "of each family"),
        ("--image-size", 64, "edge in pixels"),
        ("--batch-size", 128, "images per step"),
        ("--steps", 10_000, "in all"),
        ("--seed", 0, "decides images and initial weights"),
    ):
        parser.add_argument(
            name, type=int, default=default, metavar="N", help=f"{what} (default: {default:,})"
        )
    parser.add_argument(
        "--learning-rate",
        type=float,
        metavar="X",
        help="highest rate (default: 0.03 for every 256 images of a batch)",
    )
    parser.add_argument("--depth", type=_depth, default=(1, 1, 1, 1), metavar="N,N,N,N")
    parser.add_argument("--width", type=_width, default=0.5, metavar="X")
    parser.add_argument(
        "--output", default="keras-bit-pretrain", metavar="FOLDER", help="folder to write to"
    )


def _add_demo(commands):
    parser = _add_command(
        commands,
        "demo",
        _demo,
        "Learn to read handwritten digits in a minute or two, without network or GPU",
        "keras-bit demo --output digits",
        ("keras", "tensorflow"),
    )
    _add_output_options(parser, "keras-bit-demo")
    _add_from_scratch(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")


def _add_data_options(parser):
    parser.add_argument(
        "folder", metavar="FOLDER", help="one folder per class, or `train` and `test` of them"
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--validation-split",
        type=float,
        default=0.1,
        metavar="X",
        help="share of each class to validate on, where there is no test folder (default: 0.1)",
    )
    data.add_argument(
        "--examples-per-class", type=int, metavar="N", help="train on this many of each class"
    )
    data.add_argument(
        "--min-edge",
        type=int,
        default=0,
        metavar="PIXELS",
        help="leave out images with a shorter edge (default: 0)",
    )
    data.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="decides split, order, augmentation and initial weights (default: 0)",
    )


def _add_rule_options(parser):
    rule = parser.add_argument_group("rule", "In place of what BiT-HyperRule decides.")
    rule.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="images per update (default: 64)"
    )
    rule.add_argument(
        "--micro-batch-size",
        type=_micro_batch_size,
        metavar="N",
        help="images that the device takes at once, a divisor of the batch size; auto for the "
        "largest that fits",
    )
    rule.add_argument("--schedule-length", type=int, metavar="N", help="number of updates")
    rule.add_argument("--learning-rate", type=float, metavar="X", help="rate at this batch size")
    rule.add_argument(
        "--resize-edge", type=int, metavar="PIXELS", help="edge of images before the crop"
    )
    rule.add_argument("--crop-size", type=int, metavar="PIXELS", help="edge of what the model sees")
    rule.add_argument("--mixup-alpha", type=float, metavar="X", help="0 for no MixUp")
    rule.add_argument("--warmup", action="store_true", help="let the learning rate climb at first")
    rule.add_argument(
        "--no-random-crop", dest="random_crop", action="store_false", help="keep whole images"
    )
    rule.add_argument(
        "--no-random-flip", dest="random_flip", action="store_false", help="never mirror images"
    )


def _add_output_options(parser, folder):
    parser.add_argument(
        "--output",
        default=folder,
        metavar="FOLDER",
        help=f"new or empty folder to write to (default: {folder})",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the run in the output folder"
    )


def _add_from_scratch(parser):
    parser.add_argument(
        "--from-scratch",
        action="store_true",
        help="start the same small network from random weights, to see what pretraining is worth",
    )


def _positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _micro_batch_size(text):
    return text if text == AUTO else int(text)


def _depth(text):
    return tuple(int(units) for units in text.split(",")) if "," in text else int(text)


def _width(text):
    number = float(text)
    return int(number) if number.is_integer() else number


# What is shown.


def _console(**arguments):
    """A rich console; where the output is no terminal its lines are left whole."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False, **arguments)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = UNLIMITED_WIDTH
    return console


def _table(*columns, right=()):
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in columns:
        if column in right:
            table.add_column(column, justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    return table


def _show_aligned(console, rows):
    """`str(rows)` of a rule, say; where the terminal is narrower than that table, as a list."""
    lines = str(rows).splitlines()
    if max(map(len, lines)) <= console.width:
        console.print("\n".join(lines))
        return
    for line in lines:
        name, *rest = re.split(r" {2,}", line.strip())
        value = f": {rest[0]}" if rest else ""
        reason = f" ({rest[1]})" if rest[1:] else ""
        console.print(textwrap.fill(name + value + reason, console.width, subsequent_indent="  "))


@contextlib.contextmanager
def _training_progress(console, rule):
    """Yields a Keras callback that shows a bar on a terminal, and a line for every epoch."""
    import keras
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("Updates", BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, disable=not console.is_terminal)
    task = progress.add_task("", total=rule.schedule_length)
    passes = itertools.count(1)

    def end_of_batch(batch, logs):
        progress.update(task, completed=next(passes) // _passes_per_update(callback.model, rule))

    def end_of_epoch(epoch, logs):
        console.print(
            f"update {logs['updates']:,}: loss {logs['loss']:.4f}, "
            f"accuracy {logs['accuracy']:.1%}; validation {logs['val_loss']:.4f}, "
            f"{logs['val_accuracy']:.1%}"
        )

    try:
        callback = keras.callbacks.LambdaCallback(
            # Not earlier: building the cache of images has a bar of its own.
            on_train_begin=lambda logs: progress.start(),
            on_train_batch_end=end_of_batch,
            on_epoch_end=end_of_epoch,
            on_train_end=lambda logs: progress.live.stop(),
        )
        yield callback
    finally:
        progress.live.stop()


def _passes_per_update(model, rule):
    """Those of the optimizer, which knows them where the micro-batch was found by the run."""
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if optimizer is None:
        return rule.accumulation_steps
    return optimizer.gradient_accumulation_steps or 1


# The commands.


def _rule_of(arguments, data):
    from keras_bit.hyperrule import HyperRule

    names = (
        "batch_size micro_batch_size schedule_length learning_rate resize_edge crop_size "
        "mixup_alpha warmup random_crop random_flip"
    )
    chosen = {name: getattr(arguments, name) for name in names.split()}
    if chosen["micro_batch_size"] == AUTO:
        chosen["micro_batch_size"] = None
    return HyperRule(data.image_size, data.train_size, **chosen)


def _data_of(arguments):
    from keras_bit.data.folders import image_folder

    with _console(stderr=True).status("Reading the sizes of the images"):
        return image_folder(
            arguments.folder,
            validation_split=arguments.validation_split,
            seed=arguments.seed,
            min_edge=arguments.min_edge,
            examples_per_class=arguments.examples_per_class,
        )


def _fine_tune(arguments):
    from keras_bit.finetune import check_output

    check_output(arguments.output, arguments.overwrite)
    console = _console()
    data = _data_of(arguments)
    _run(
        console,
        arguments,
        data,
        _rule_of(arguments, data),
        preset=arguments.preset,
        **_network_of(arguments),
        freeze_backbone=arguments.freeze_backbone,
        remat=arguments.remat,
        dtype=arguments.dtype,
        micro_batch_size=AUTO if arguments.micro_batch_size == AUTO else None,
        steps_per_epoch=arguments.steps_per_epoch,
        cache_dir=arguments.cache_dir,
    )


def _network_of(arguments):
    """Depth and width of a network with random weights; both `None` for a pretrained one."""
    if arguments.from_scratch and getattr(arguments, "preset", None) is not None:
        raise ValueError(
            "`--from-scratch` must be left out beside `--preset`, which brings weights. "
            f"Received: --preset {arguments.preset}"
        )
    depth, width = (getattr(arguments, name, None) for name in ("depth", "width"))
    if arguments.from_scratch and depth is None and width is None:
        from keras_bit.weights.presets import EMBEDDED, find_preset

        embedded = find_preset(EMBEDDED)
        depth, width = embedded.depth, embedded.width
    return {"depth": depth, "width": width}


def _run(console, arguments, data, rule, **settings):
    """One run of `fine_tune`, shown on `console`; the end of `fine-tune` and of `demo`."""
    from keras_bit.finetune import MODEL_FILE, fine_tune
    from keras_bit.report import PAGE_FILE

    _show_aligned(console, rule)
    with _training_progress(console, rule) as progress:
        result = fine_tune(
            data,
            rule=rule,
            seed=arguments.seed,
            output=arguments.output,
            overwrite=arguments.overwrite,
            callbacks=[progress],
            verbose=0,
            notify=console.print,
            **settings,
        )
    metrics = result.metrics
    console.print(
        f"Accuracy {metrics['accuracy']:.2%} on {metrics['validation_images']:,} validation "
        f"images, with the weights after update {metrics['best_update']:,} "
        f"({metrics['training_seconds']:.0f} s of training)."
    )
    console.print(f"Model: {result.output / MODEL_FILE}")
    console.print(f"Report: {result.output / PAGE_FILE}")


def _predict(arguments):
    from keras_bit.finetune import LABELS_FILE, MODEL_FILE, RULE_FILE
    from keras_bit.hyperrule import HyperRule

    path = pathlib.Path(arguments.model)
    path = path / MODEL_FILE if path.is_dir() else path
    label_names = json.loads(_read(path.with_name(LABELS_FILE)))
    rule = HyperRule.from_config(json.loads(_read(path.with_name(RULE_FILE)))["config"])
    images, top = arguments.images, arguments.top
    with _console(stderr=True).status(f"Looking at {len(images):,} images"):
        results = list(_predictions(_load(path), images, rule.crop_size, label_names, top))
    _show_predictions(_console(), results, arguments.json)
    return FAILED_IMAGES if any("error" in result for result in results) else 0


def _read(path):
    if not path.is_file():
        raise FileNotFoundError(
            f"`MODEL` must be the output folder of a run, or the model in it. Received: {path} "
            "does not exist."
        )
    return path.read_text(encoding="utf-8")


def _load(path):
    import keras

    from keras_bit.finetune import set_memory_growth  # this registers the layers of the file, too

    set_memory_growth()
    return keras.models.load_model(path, compile=False)


def _predictions(model, paths, edge, label_names, top):
    """Yields a dict for each image: its path, and its predictions or the error that it gave."""
    import numpy as np

    from keras_bit.data.cache import resize
    from keras_bit.data.images import attempt, decode_image, threaded_map
    from keras_bit.report import softmax

    def resized(path):
        image, reason = attempt(decode_image, path)
        return path, None if image is None else resize(image, edge), reason

    with contextlib.closing(threaded_map(resized, paths)) as images:
        while batch := list(itertools.islice(images, PREDICTION_BATCH)):
            readable = [image for _, image, _ in batch if image is not None]
            rows = iter(())
            if readable:
                pixels = np.stack(readable).astype("float32") / 255
                rows = iter(softmax(model.predict_on_batch(pixels)))
            for path, _, reason in batch:
                if reason is None:
                    yield {"image": path, "predictions": _best(next(rows), label_names, top)}
                else:
                    yield {"image": path, "error": reason}


def _best(probabilities, label_names, top):
    best = (-probabilities).argsort(kind="stable")[:top]
    return [{"class": label_names[i], "probability": float(probabilities[i])} for i in best]


def _show_predictions(console, results, as_json):
    if as_json:
        console.print(json.dumps(results, indent=2), soft_wrap=True)
        return
    from rich.text import Text

    table = _table("image", "class", "probability", right=("probability",))
    for result in results:
        name = result["image"]
        for prediction in result.get("predictions", ()):
            share = f"{prediction['probability']:.1%}"
            table.add_row(Text(name), Text(prediction["class"]), share)
            name = ""
    if table.row_count:
        console.print(table)
    for result in results:
        if "error" in result:
            print(f"keras-bit: {result['image']}: {result['error']}", file=sys.stderr)


def _plan(arguments):
    import numpy as np
    from rich.text import Text

    from keras_bit.data.cache import cache_size

    console = _console()
    data = _data_of(arguments)
    rule = _rule_of(arguments, data)
    table = _table("class", "training", "validation", right=("training", "validation"))
    train, test = (
        np.bincount(split.labels, minlength=data.num_classes) for split in (data.train, data.test)
    )
    for index, name in enumerate(data.label_names[:LISTED_CLASSES]):
        table.add_row(Text(name), f"{train[index]:,}", f"{test[index]:,}")
    if data.num_classes > LISTED_CLASSES:
        table.add_row(f"and {data.num_classes - LISTED_CLASSES:,} more", "", "")
    table.add_section()
    table.add_row(f"{data.num_classes:,} classes", f"{data.train_size:,}", f"{data.test_size:,}")
    console.print(table)
    _show_left_out(console, data.left_out)
    _show_aligned(console, rule)
    _show_memory(console, arguments, data, rule)
    console.print(f"Cache of the images: {_cache_of(data, rule, cache_size)}")


def _show_memory(console, arguments, data, rule):
    """The memory that training takes, what `remat` would make of it, and what there is."""
    from keras_bit.device import chosen_policy, current_device
    from keras_bit.memory import training_memory

    backbone = _backbone_of(arguments, chosen_policy(arguments.dtype))
    memory = training_memory(backbone, data.num_classes, rule)
    _show_aligned(console, memory)
    if not backbone.remat and backbone.trainable:
        backbone = type(backbone).from_config({**backbone.get_config(), "remat": True})
        leaner = training_memory(backbone, data.num_classes, rule)
        total, image = _readable(leaner.total), _readable(leaner.per_image)
        console.print(f"With --remat: {total} in all, {image} an image")
    device = current_device()
    if device.memory:
        fit = f"{memory.images_within(device.memory):,} images fit"
        console.print(f"By this estimate {fit} the {_readable(device.memory)} of the {device.name}")


def _backbone_of(arguments, policy):
    """The backbone of a run, without its weights."""
    from keras_bit.layers.backbone import BiTBackbone
    from keras_bit.layers.classifier import chosen_preset
    from keras_bit.weights.formats import read_preset
    from keras_bit.weights.networks import architecture_of
    from keras_bit.weights.presets import presets

    network = _network_of(arguments)
    preset = chosen_preset(arguments.preset, **network)
    if preset is None:
        depth, width = network["depth"] or 50, network["width"] or 1
    elif preset in presets():
        depth, width = presets()[preset].depth, presets()[preset].width
    else:
        depth, width = architecture_of(read_preset(preset))
    backbone = BiTBackbone(depth, width, remat=arguments.remat, dtype=policy)
    backbone.trainable = not arguments.freeze_backbone
    return backbone


def _cache_of(data, rule, cache_size):
    train = cache_size(data.train_size, rule.resize_edge)
    test = cache_size(data.test_size, rule.crop_size)
    return f"{_readable(train)} for training, {_readable(test)} for validation"


def _readable(size):
    from rich.filesize import decimal

    return decimal(size)


def _show_left_out(console, left_out):
    if not left_out:
        return
    console.print(f"Left out: {len(left_out):,}")
    for name, reason in left_out[:LISTED_FILES]:
        console.print(f"  {name}: {reason}")
    if len(left_out) > LISTED_FILES:
        console.print(f"  and {len(left_out) - LISTED_FILES:,} more")


def _presets(arguments):
    from keras_bit.weights.presets import presets

    text = arguments.text.lower()
    found = [preset for preset in presets().values() if text in preset.name]
    if not found:
        raise ValueError(
            f"`TEXT` must be a part of a preset's name. Received: {arguments.text!r}. "
            "`keras-bit presets` lists all of them."
        )
    shown = [preset for preset in found if text or not preset.name.startswith("vtab/")]
    console = _console()
    _show_presets(console, shown)
    if len(shown) < len(found):
        console.print(
            f"and {len(found) - len(shown)} runs on the tasks of VTAB-1k: keras-bit presets vtab"
        )


def _show_presets(console, presets):
    """A table; where the terminal is too narrow for it, a list."""
    numbers = ("parameters", "classes", "pixels", "top-1 %")
    table = _table("preset", *numbers, "trained on", right=numbers)
    for preset in presets:
        name, *facts = (
            preset.name,
            f"{preset.parameters / 1e6:.1f}M",
            f"{preset.num_classes:,}" if preset.num_classes else "",
            str(preset.image_size),
            "" if preset.accuracy is None else f"{preset.accuracy:.1f}",
            preset.trained_on,
        )
        if console.width < PRESETS_WIDTH:
            named = zip(facts, (*numbers, ""), strict=True)
            facts = ", ".join(f"{fact} {what}".strip() for fact, what in named if fact)
            console.print(textwrap.fill(f"{name}: {facts}", console.width, subsequent_indent="  "))
        else:
            table.add_row(name, *facts)
    if table.row_count:
        console.print(table)
    console.print("top-1: accuracy on ILSVRC-2012 as published by the authors")


def _download(arguments):
    from keras_bit.weights.download import fetch
    from keras_bit.weights.presets import find_preset

    presets = [find_preset(name) for name in arguments.names]
    for preset in presets:
        print(preset.path or fetch(preset.url))


def _pretrain(arguments):
    from keras_bit.pretrain import WEIGHTS_FILE, pretrain

    names = "families classes image_size batch_size steps learning_rate depth width seed output"
    console = _console()
    pretrain(**{name: getattr(arguments, name) for name in names.split()}, notify=console.print)
    console.print(f"Weights: {pathlib.Path(arguments.output) / WEIGHTS_FILE}")


def _demo(arguments):
    from keras_bit.data.digits import digits
    from keras_bit.finetune import check_output
    from keras_bit.hyperrule import HyperRule

    check_output(arguments.output, arguments.overwrite)
    console = _console()
    data = digits(seed=arguments.seed)
    rule = HyperRule(data.image_size, data.train_size, **DEMO_RULE)
    weights = "random weights" if arguments.from_scratch else "weights from images drawn by formula"
    console.print(
        f"scikit-learn's handwritten digits, a small BiT with {weights}, and BiT-HyperRule "
        "with a shorter schedule, smaller images and a larger rate than it would choose:"
    )
    _run(console, arguments, data, rule, **_network_of(arguments))
