"""Exported models beside Keras: differences, classes, size, latency, and what 8 bits cost.

    python -m benchmarks.studies.exported_models PHOTOS RUN --output FOLDER

PHOTOS has `train` and `test` folders of classes; RUN is the output folder of
`keras-bit fine-tune PHOTOS`. Exports the run for images of its size, and R50x1 with random weights
for images of 224 px, in every format. Test images are compared, of R50x1 every so many, and
training images calibrate. In the end all files and Keras predict one image, interleaved. Prints the
rows of the tables in `results/exported_models.md`.
"""

import argparse
import pathlib
from functools import partial

import keras
import numpy as np

import keras_bit
from benchmarks.harness.interleaved import interleave_all, timed
from benchmarks.harness.tables import markdown_table, median_and_range
from keras_bit.data.resize import resize
from keras_bit.evaluation.saved_run import SavedRun
from keras_bit.exporters.formats import FORMATS

EDGE = 224
TRAINING_IMAGES, TEST_IMAGES = 60, 31


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", metavar="PHOTOS")
    parser.add_argument("run", metavar="RUN", type=pathlib.Path)
    parser.add_argument("--output", metavar="FOLDER", type=pathlib.Path, required=True)
    parser.add_argument("--models", nargs="*", default=["run", "r50x1"], choices=["run", "r50x1"])
    parser.add_argument("--rounds", type=int, default=51)
    arguments = parser.parse_args()
    data = keras_bit.image_folder(arguments.photos)
    if "run" in arguments.models:
        saved = SavedRun.open(arguments.run)
        folder, edge = arguments.output / "run", saved.rule.crop_size
        export_all(arguments.run, saved.load(), edge, data, folder, arguments.rounds)
    if "r50x1" in arguments.models:
        few = subset(data)
        model = r50x1(few)
        export_all(model, model, EDGE, few, arguments.output / "r50x1", arguments.rounds)


def export_all(source, model, edge, data, folder, rounds):
    """Exports in every format and prints the table; `model` is the Keras model of `source`."""
    print(f"\n{folder.name}, {edge} px, {data.test_size} images compared\n", flush=True)
    results = {}
    for format in FORMATS.values():
        for quantize in (None, *format.quantizations):
            path = folder / f"{quantize or 'float32'}{format.suffix}"
            options = {"image_size": edge, "quantize": quantize, "data": data, "verbose": 0}
            result = keras_bit.export(source, path, format.name, min_agreement=0, **options)
            results[format.name, quantize or ""] = result
            print(result, flush=True)
    folded = keras_bit.fold(model)
    image = np.random.default_rng(0).integers(0, 256, (1, edge, edge, 3)).astype(np.uint8)
    files = {name: FORMATS[r.format].module.load(r.path) for name, r in results.items()}
    calls = {
        **{name: lambda run=run: run(image) for name, run in files.items()},
        ("Keras", ""): lambda: model.predict_on_batch(image.astype("float32") / 255),
        ("Keras, folded", ""): lambda: folded.predict_on_batch(image.astype("float32") / 255),
    }
    # The first round is not counted.
    found = interleave_all({name: partial(warm, call) for name, call in calls.items()}, rounds + 1)
    headings = ["format", "`quantize`", "largest difference", "same class", "accuracy", "MB"]
    rows = [
        [*name, *figures(results.get(name)), median_and_range([1e3 * s for s in seconds[1:]])]
        for name, seconds in found.items()
    ]
    print("\n".join(["", *markdown_table([*headings, "one image, ms"], rows)]), flush=True)


def warm(call):
    """Seconds of a call that another one has just warmed up."""
    call()
    return timed(call)


def figures(result):
    if result is None:
        return [""] * 4
    return [
        f"{result.largest_difference:.1e}",
        f"{100 * result.agreement:.1f} %",
        f"{100 * result.accuracy:.1f} %",
        f"{result.size / 1e6:.1f}",
    ]


def subset(data):
    """Few of the images, resized, in memory."""

    def side(split, count):
        chosen = range(0, len(split), len(split) // count)
        resized = split.map_indexed(lambda _, image: resize(image, EDGE), 1, chosen)
        return np.stack(list(resized)), split.labels[chosen]

    sides = (*side(data.train, TRAINING_IMAGES), *side(data.test, TEST_IMAGES))
    return keras_bit.ImageDataset.from_arrays(*sides, data.label_names)


def r50x1(data):
    """R50x1 with random weights, and classes that differ from image to image.

    The features of random weights hardly do: the head scales logits to a spread of 1 over images.
    """
    keras.utils.set_random_seed(0)
    model = keras_bit.BiTClassifier(keras_bit.BiTBackbone(50, 1), data.num_classes)
    images = np.stack(list(data.train.map(lambda image: image / np.float32(255))))
    features = np.concatenate([model.backbone(images[i : i + 8]) for i in range(0, len(images), 8)])
    kernel = np.random.default_rng(0).normal(size=model.head.kernel.shape)
    kernel = kernel / (features @ kernel).std(axis=0)
    model.head.set_weights([kernel, -features.mean(axis=0) @ kernel])
    return model


if __name__ == "__main__":
    main()
