"""Which synthetic images and which network to pretrain: short runs of equal budget, on photographs.

    python -m benchmarks.studies.pretraining_images --photos FOLDER --families scenes,contours
    python -m benchmarks.studies.pretraining_images --photos FOLDER --steps 800 --width 0.25
    python -m benchmarks.studies.pretraining_images --photos FOLDER --steps 0
    python -m benchmarks.studies.pretraining_images --photos FOLDER --weights FILE

A logistic regression on the network's features tells how much they say of photographs that it never
saw, without the luck of a fine-tuning run; no steps are random weights. Prints a row of the tables
in `results/embedded_network.md`: the accuracy from 10 images of a class, the mean of five draws,
and from all of them.
"""

import argparse
import tempfile
import time

import keras
import numpy as np

import keras_bit
from benchmarks.harness.tables import markdown_row
from keras_bit.pretraining import pretrain

CLASSES = 100
BATCH_SIZE = 120
LEARNING_RATE = 0.24 * BATCH_SIZE / 256
IMAGE_SIZE = 48
PROBE_SIZE = 64
# Strengths of the regularization of which the best is taken, for each network.
PROBE_C = (0.0003, 0.003, 0.03)
FEW = 10
DRAWS = 5


def features(backbone, folder):
    """Features of the images of a folder, the mean of each with its mirror image; and labels."""
    images, labels = zip(
        *keras.utils.image_dataset_from_directory(
            folder,
            image_size=(PROBE_SIZE, PROBE_SIZE),
            crop_to_aspect_ratio=False,
            shuffle=False,
            verbose=False,
        ).as_numpy_iterator(),
        strict=True,
    )
    images, labels = np.concatenate(images) / 255, np.concatenate(labels)
    model = keras.Sequential([backbone])
    model.compile(jit_compile=False)
    both = [model.predict(x, verbose=0) for x in (images, images[:, :, ::-1])]
    return np.mean(both, axis=0), labels


def probe(train, test, per_class, seed):
    """Accuracy in percent of a logistic regression on features of `per_class` images of a class."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (inputs, labels), random = train, np.random.RandomState(seed)
    rows = [random.permutation(np.flatnonzero(labels == c))[:per_class] for c in np.unique(labels)]
    rows = np.concatenate(rows)
    scores = []
    for strength in PROBE_C:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
        scores.append(model.fit(inputs[rows], labels[rows]).score(*test))
    return 100 * max(scores)


def network(arguments):
    """The network of the arguments, and how many seconds it trained."""
    started = time.monotonic()
    if arguments.weights:
        return keras_bit.BiTBackbone.from_weights(arguments.weights), 0.0
    if not arguments.steps:
        keras.utils.set_random_seed(arguments.seed)
        backbone = keras_bit.BiTBackbone(arguments.depth, arguments.width)
        return backbone, 0.0
    with tempfile.TemporaryDirectory() as folder:
        backbone = pretrain(
            folder,
            depth=arguments.depth,
            width=arguments.width,
            families=arguments.families.split(","),
            classes=CLASSES,
            image_size=IMAGE_SIZE,
            batch_size=BATCH_SIZE,
            steps=arguments.steps,
            learning_rate=LEARNING_RATE,
            seed=arguments.seed,
        )
    return backbone, time.monotonic() - started


def _depth(text):
    return tuple(int(units) for units in text.split(","))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", metavar="FOLDER", required=True, help="with train and test")
    parser.add_argument("--families", default="scenes,contours", metavar="NAME,...")
    parser.add_argument("--weights", metavar="FILE", help="of a trained network, in place of a run")
    parser.add_argument("--depth", type=_depth, default=(1, 1, 1, 1), metavar="N,N,N,N")
    parser.add_argument("--width", type=float, default=0.5, metavar="X")
    parser.add_argument("--steps", type=int, default=400, metavar="N", help="default: 400")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    arguments = parser.parse_args()
    backbone, seconds = network(arguments)
    train, test = (features(backbone, f"{arguments.photos}/{side}") for side in ("train", "test"))
    few = np.mean([probe(train, test, FEW, seed) for seed in range(DRAWS)])
    every = probe(train, test, None, 0)
    what = arguments.weights or (arguments.families if arguments.steps else "random weights")
    size = f"{','.join(map(str, np.ravel(backbone.depth)))} x{backbone.width}"
    cells = [what, size, f"{seconds:.0f} s", f"{few:.1f}", f"{every:.1f}"]
    print(markdown_row(cells), flush=True)


if __name__ == "__main__":
    main()
