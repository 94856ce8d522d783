"""Measures a figure that the authors of BiT published, and prints it beside theirs.

    python -m benchmarks.paper cifar10
    python -m benchmarks.paper cifar100 --per-class 5
    python -m benchmarks.paper imagenet

Needs `pip install "keras_bit[tfds]"` and the network: the released weights and the data set are
downloaded. Of ImageNet, `ILSVRC2012_img_val.tar` has to be downloaded by hand first, into TFDS's
folder `downloads/manual`, as its page of `imagenet2012` says.
Fine-tuning on all of CIFAR takes hours on a GPU; a run that was interrupted is resumed by the same
command.
"""

import argparse

from benchmarks.harness.tables import markdown_table, median_and_range
from benchmarks.paper.figures import CIFAR, README, TASKS, Task, imagenet_presets

FOLDER = ".benchmarks/paper"
FEW_SHOT_SEEDS = 5
IMAGENET = "imagenet"


def main(arguments=None):
    options = parse(arguments)
    lines = on_imagenet(options) if options.task == IMAGENET else on_cifar(options)
    if options.rehearse:
        lines.append(
            "A rehearsal: small images and two updates at most, and no figure of anything."
        )
    print("\n".join(lines))


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tasks = [*dict.fromkeys(task.data for task in TASKS), IMAGENET]
    few = sorted({task.per_class for task in TASKS if task.per_class})
    parser.add_argument("task", choices=tasks)
    presets = list(dict.fromkeys([*CIFAR, *imagenet_presets()]))
    parser.add_argument("--preset", default="m-r50x1", choices=presets, help="default: m-r50x1")
    parser.add_argument(
        "--per-class", type=int, choices=few, help="training images of each class; default: all"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help=f"number of runs on CIFAR; default: {FEW_SHOT_SEEDS} with --per-class, else 1",
    )
    parser.add_argument("--micro-batch-size", type=int, metavar="N", help="where 128 do not fit")
    parser.add_argument("--data-dir", metavar="FOLDER", help="of TFDS; default: its own")
    parser.add_argument(
        "--output", metavar="FOLDER", default=FOLDER, help=f"of runs and caches; default: {FOLDER}"
    )
    parser.add_argument(
        "--rehearse", action="store_true", help="small images and two updates, to try the command"
    )
    options = parser.parse_args(arguments)
    if options.seeds is not None and options.seeds < 1:
        parser.error(f"`--seeds` must be at least 1. Received: {options.seeds}")
    if options.task == IMAGENET:
        of_cifar = ("per_class", "seeds", "micro_batch_size")
        if given := [name for name in of_cifar if getattr(options, name) is not None]:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            parser.error(f"{names} must be omitted with {IMAGENET}, where nothing is trained.")
    published = imagenet_presets() if options.task == IMAGENET else CIFAR
    if options.preset not in published:
        parser.error(
            f"`--preset` must be one of {', '.join(published)} with {options.task}. "
            f"Received: {options.preset}"
        )
    return options


def on_cifar(options):
    """Lines of the table: the accuracies of the authors' code bases, and ours."""
    from benchmarks.paper.reproduce import accuracy_on_cifar

    task = Task(options.task, options.per_class)
    seeds = options.seeds or (FEW_SHOT_SEEDS if task.per_class else 1)
    found = [
        accuracy_on_cifar(
            task,
            options.preset,
            seed,
            options.output,
            data_dir=options.data_dir,
            micro_batch_size=options.micro_batch_size,
            rehearsal=options.rehearse,
        )
        for seed in range(seeds)
    ]
    published = CIFAR[options.preset][task]
    headings = ["accuracy, %", *(f"authors' {code}" for code in published), "keras_bit"]
    accuracies = [median_and_range(values, ".1f") for values in (*published.values(), found)]
    row = [f"{options.preset}, {task}", *accuracies]
    return ["", *markdown_table(headings, [row]), "", f"Source: {README}."]


def on_imagenet(options):
    """Lines of the table: the accuracy that the authors give, and ours with its 95% interval."""
    from benchmarks.paper.reproduce import evaluation_on_imagenet

    preset = imagenet_presets()[options.preset]
    evaluation = evaluation_on_imagenet(
        preset, options.output, data_dir=options.data_dir, rehearsal=options.rehearse
    )
    names = ("accuracy", "accuracy_low", "accuracy_high")
    accuracy, low, high = (100 * evaluation.metrics[name] for name in names)
    row = [preset.name, f"{preset.accuracy:.2f}", f"{accuracy:.2f} ({low:.2f} to {high:.2f})"]
    return [
        "",
        *markdown_table(["accuracy, %", "authors", "keras_bit, 95% interval"], [row]),
        "",
        f"Source: {preset.accuracy_source}; {len(evaluation.labels):,} validation images.",
    ]


if __name__ == "__main__":
    main()
