"""What pretraining on synthetic images is worth: runs from it beside runs from random weights.

    python -m benchmarks.studies.pretraining_gain --photos FOLDER
    python -m benchmarks.studies.pretraining_gain --photos FOLDER --per-class 10 --frozen
    python -m benchmarks.studies.pretraining_gain

The first two fine-tune on a folder of photographs, the last on scikit-learn's digits. All runs of
a call have the same data, rule and steps; each seed changes order, augmentation, initial weights,
and, with `--per-class`, which images there are. Prints a row of the table in
`results/embedded_network.md`.
"""

import argparse

import keras_bit
from benchmarks.harness.tables import markdown_row, median_and_range
from keras_bit.weights.presets import EMBEDDED, find_preset

PHOTO_RULE = {
    "batch_size": 64,
    "schedule_length": 300,
    "warmup": True,
    "learning_rate": 0.03,
    "resize_edge": 72,
    "crop_size": 64,
    "mixup_alpha": 0,
}
DIGITS_RULE = {
    "batch_size": 128,
    "schedule_length": 400,
    "warmup": True,
    "learning_rate": 0.03,
    "resize_edge": 36,
    "crop_size": 32,
    "mixup_alpha": 0.1,
    "random_flip": False,
}


def accuracy(arguments, seed, network):
    """Accuracy in percent after the last update of one run; no epoch is picked on the test set."""
    if arguments.photos:
        data = keras_bit.image_folder(
            arguments.photos, seed=seed, examples_per_class=arguments.per_class
        )
        rule = PHOTO_RULE
    else:
        data = keras_bit.digits(seed=0)
        rule = DIGITS_RULE
    if arguments.steps:
        rule = {**rule, "schedule_length": arguments.steps}
    result = keras_bit.fine_tune(
        data, seed=seed, verbose=0, freeze_backbone=arguments.frozen, **network, **rule
    )
    return 100 * result.history["val_accuracy"][-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", metavar="FOLDER", help="photographs; digits without it")
    parser.add_argument("--per-class", type=int, metavar="N", help="train on so many of a class")
    parser.add_argument("--frozen", action="store_true", help="train a new head only")
    parser.add_argument("--preset", default=EMBEDDED, help=f"or a file (default: {EMBEDDED})")
    parser.add_argument("--steps", type=int, metavar="N", help="instead of the rule's")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="default: 3")
    arguments = parser.parse_args()
    preset = find_preset(EMBEDDED)
    starts = {
        "pretrained": {"preset": arguments.preset},
        "random": {"depth": preset.depth, "width": preset.width},
    }
    accuracies = {name: [] for name in starts}
    for seed in range(arguments.seeds):
        for name, network in starts.items():
            accuracies[name].append(accuracy(arguments, seed, network))
    cells = [median_and_range(found, ".1f") for found in accuracies.values()]
    what = "photographs" if arguments.photos else "digits"
    what += f", {arguments.per_class} per class" if arguments.per_class else ""
    what += ", frozen" if arguments.frozen else ""
    print(markdown_row([what, *cells]), flush=True)


if __name__ == "__main__":
    main()
