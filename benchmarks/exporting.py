"""Exported models beside Keras: differences, classes, size, latency, and what 8 bits cost.

    python -m benchmarks.exporting PHOTOS RUN --output FOLDER

PHOTOS has `train` and `test` folders of classes; RUN is the output folder of
`keras-bit fine-tune PHOTOS`. Exports the run for images of its size, and R50x1 with random weights
for images of 224 px, in every format. Test images are compared, of R50x1 every so many, and
training images calibrate.
Prints the rows of the tables in README.md.
"""

import argparse
import pathlib

import keras
import numpy as np

import keras_bit
from keras_bit.evaluation.predict import SavedRun
from keras_bit.exporters import ExportError
from keras_bit.exporters.formats import FORMATS
from keras_bit.exporters.images import resize

EDGE = 224
TRAINING_IMAGES, TEST_IMAGES = 60, 31
HEADER = (
    "| format | `quantize` | largest difference | same class | accuracy | MB | one image, ms | "
    "Keras, ms |"
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", metavar="PHOTOS")
    parser.add_argument("run", metavar="RUN", type=pathlib.Path)
    parser.add_argument("--output", metavar="FOLDER", type=pathlib.Path, required=True)
    parser.add_argument("--formats", nargs="*", default=list(FORMATS), choices=FORMATS)
    parser.add_argument("--models", nargs="*", default=["run", "r50x1"], choices=["run", "r50x1"])
    arguments = parser.parse_args()
    data = keras_bit.image_folder(arguments.photos)
    edge = SavedRun.open(arguments.run).rule.crop_size
    few = subset(data)
    models = {
        "run": (arguments.run, edge, data),
        "r50x1": (r50x1(few), EDGE, few),
    }
    for name in arguments.models:
        model, size, images = models[name]
        print(f"\n{name}, {size} px, {images.test_size} images\n", flush=True)
        print(f"{HEADER}\n|{'---|' * 8}", flush=True)
        for format in map(FORMATS.get, arguments.formats):
            for quantize in (None, *format.quantizations):
                path = arguments.output / f"{name}-{quantize}{format.suffix}"
                options = {"image_size": size, "quantize": quantize, "data": images, "verbose": 0}
                try:
                    result = keras_bit.export(model, path, format.name, min_agreement=0, **options)
                    print(row(result), flush=True)
                except ExportError as error:
                    print(f"| {format.name} | {quantize} | {error} |", flush=True)


def row(result):
    cells = (
        result.format,
        result.quantize or "",
        f"{result.largest_difference:.1e}",
        f"{100 * result.agreement:.1f} %",
        f"{100 * result.accuracy:.1f} % ({100 * result.keras_accuracy:.1f} %)",
        f"{result.size / 1e6:.1f}",
        f"{1e3 * result.latency:.1f}",
        f"{1e3 * result.keras_latency:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def subset(data):
    """Few of the images, resized, in memory."""

    def side(split, count):
        chosen = range(0, len(split), len(split) // count)
        resized = split.map_indexed(lambda _, image: resize(image[None], (EDGE, EDGE)), 1, chosen)
        return np.concatenate(list(resized)), split.labels[chosen]

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
