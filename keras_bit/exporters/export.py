"""One function from a model, or a run, to a file that another runtime runs."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import shutil
import tempfile
import textwrap
from collections.abc import Sequence
from typing import Any

from keras_bit.core.arguments import check_integer, is_number
from keras_bit.core.files import check_room, write_json
from keras_bit.core.text import announce
from keras_bit.exporters.comparison import RESIZED_TOLERANCE, TOLERANCE, compare, latencies
from keras_bit.exporters.contents import INT8, Contents
from keras_bit.exporters.files import checked_path, publish
from keras_bit.exporters.formats import FORMATS, Format
from keras_bit.exporters.graph import FLOAT32, INPUTS, UINT8, Serving, write_graph
from keras_bit.exporters.images import Images, batches, resize_all
from keras_bit.exporters.result import ExportError, ExportResult
from keras_bit.exporters.source import Source
from keras_bit.layers.image_input import MIN_EDGE

PROBABILITIES, LOGITS = OUTPUTS = ("probabilities", "logits")
_COPIES = 4  # of the weights that lie on the disk at a time, at most


def export(
    model_or_run: Any,
    path: str | os.PathLike,
    format: str = "tf_saved_model",
    *,
    image_size: int | Sequence[int] | None = None,
    input: str = UINT8,
    outputs: str = PROBABILITIES,
    quantize: str | None = None,
    data: Any = None,
    value_range: Sequence[float] | None = None,
    min_agreement: float = 0.9,
    verbose: bool | int | str = True,
) -> ExportResult:
    """Writes a classifier for another runtime, and compares the file with Keras before keeping it.

    The file holds the network with its kernels standardized, in float32 whatever the precision
    policy, and all that stands around it: rescaling, resizing as in `pipelines` (bilinear with
    half-pixel centers, rounded to 8 bits), the run's temperature, and softmax, or sigmoid where an
    image has several labels. It is loaded with its own runtime and run on images of its own sizes
    and batch sizes; only if it agrees with Keras it gets its name, and replaces an earlier file
    there. It works with every backend of Keras; TensorFlow traces the graph.

    Args:
        model_or_run: A built `keras.Model` with a `BiTBackbone` and logits (batch, classes), the
            output folder of a run or the `model.keras` in it, or a `FineTuneResult`.
        path: What to write: a file `.tflite`, `.onnx` or `.xml` (OpenVINO, which writes its
            weights to a `.bin` file beside it), or a folder for a SavedModel. The class names, if
            they are known, are written beside it, `photos.labels.json` beside `photos.onnx`, and
            into it as metadata.
        format: `"tf_saved_model"`, `"litert"`, `"onnx"` or `"openvino"`. All but the first need an
            extra of the same name, such as `pip install "keras_bit[onnx]"`.
        image_size: Height and width of the images that the file takes, one number for both, in
            pixels. Default: any for a run, and what the model's input takes for a model. A run's
            images are resized to the run's size, and those of a model with a fixed input to that.
            The batch size is always free.
        input: `"uint8"`, or `"float32"` for images in [0, 1]; both (batch, height, width, 3), RGB.
        outputs: `"probabilities"`, or `"logits"`, both float32 (batch, classes); logits are divided
            by the run's temperature. That an image may have several labels is known of a run; of a
            model it is by `data` that has them.
        quantize: `None`; `"dynamic"` for weights of 8 bits (litert, onnx); or `"int8"` for
            activations of 8 bits as well (litert, onnx, openvino), calibrated with `data`.
        data: Images to compare on: an `ImageDataset`, of which test images are compared and
            training images calibrate; or uint8 images (n, height, width, 3) for both. Default:
            crops of two photographs that come with scikit-learn.
        value_range: What a model takes, where it does not begin with its backbone: `(0, 1)`,
            `(0, 255)` or `(-1, 1)`.
        min_agreement: Share of the images on which a quantized file must name the class that Keras
            names. A file in float32 must have the outputs of Keras, to 0.001 of the largest one or
            of 1; to 0.01 where it resizes images, which it rounds to 8 bits as Keras's are.
        verbose: Whether to print what is done and the result.

    Returns:
        An `ExportResult`: largest difference, agreement, size, latency.

    Raises:
        ImportError: If a package is missing; the message names the extra.
        TypeError, ValueError: If an argument is out of range, or the format has no such file; both
            before the model is traced.
        FileExistsError: If `path` is a folder that holds no SavedModel, or a file of another kind.
        ExportError: If the file cannot be written or run, or does not agree with Keras. It is
            removed, and an earlier one stays as it was.

    Example, which takes some seconds:

    >>> backbone = keras_bit.BiTBackbone((1, 1, 1, 1), width=0.25)
    >>> model = keras_bit.BiTClassifier(backbone, 2)
    >>> result = keras_bit.export(model, "model", image_size=32, verbose=0)  # doctest: +SKIP
    >>> result.agreement  # doctest: +SKIP
    1.0
    >>> loaded = tf.saved_model.load("model")  # doctest: +SKIP
    >>> tuple(loaded.serve(np.zeros((8, 32, 32, 3), np.uint8)).shape)  # doctest: +SKIP
    (8, 2)
    """
    chosen = _checked_format(format, input, outputs, quantize)
    target, shape = checked_path(path, chosen), _checked_size(image_size)
    _check_share(min_agreement)
    images = Images.of(data)
    if quantize == INT8 and data is None:
        raise ValueError(
            "`data` must be given, training images to calibrate with, for quantize='int8'. "
            "Received: data=None"
        )
    chosen.check_packages(quantize)
    source = Source.of(model_or_run, value_range, images.dataset)
    _check_outputs(source, outputs)
    chosen.check_size(source.weight_bytes)
    probabilities = outputs == PROBABILITIES
    serving = _serving(source, shape, input, probabilities, quantize)
    work = _Work(chosen, source, serving, images, probabilities, quantize)
    target.parent.mkdir(parents=True, exist_ok=True)
    check_room(target.parent, _COPIES * source.weight_bytes, "The export")
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        written = pathlib.Path(folder, target.name)
        announce(f"Writing {target}.", verbose)
        with _explained(target, chosen, "cannot be written"):
            work.write(written)
        announce("Comparing it with Keras.", verbose)
        with _explained(target, chosen, "cannot be run"):
            comparison, latency, keras_latency = work.compare(written)
        if fault := comparison.fault(quantize is not None, min_agreement):
            raise ExportError(f"{target} was not kept: {fault}.")
        files = (file for file in written.parent.rglob("*") if file != chosen.labels_file(written))
        size = sum(file.stat().st_size for file in files if file.is_file())
        labels = publish(written, target, chosen)
    result = ExportResult(
        path=target,
        labels_file=labels,
        format=format,
        quantize=quantize,
        size=size,
        latency=latency,
        keras_latency=keras_latency,
        **comparison.figures(),
    )
    announce(str(result), verbose)
    return result


@dataclasses.dataclass(frozen=True, eq=False)
class _Work:
    """What is exported, how, and the images for it."""

    format: Format
    source: Source
    serving: Serving
    images: Images
    probabilities: bool
    quantize: str | None

    @property
    def size(self):
        """Height and width to which images are resized that have to be of one size."""
        fixed = None not in self.serving.image_size
        return self.serving.image_size if fixed else self.serving.network_size

    def write(self, path):
        """Writes the file or folder, and the class names beside it."""
        graph = path.with_name(f"{path.name}.graph")
        write_graph(self.source.folded(), self.serving, graph)
        output_name = PROBABILITIES if self.probabilities else LOGITS
        metadata: dict[str, Any] = {
            "serving": {**dataclasses.asdict(self.serving), "outputs": output_name}
        }
        if (names := self.source.label_names) is not None:
            metadata["label_names"] = names
            write_json(self.format.labels_file(path), names)
        texts = {name: json.dumps(content) for name, content in metadata.items()}
        calibration = []
        if self.quantize == INT8:
            images = (image[None] for image in self.images.calibration())
            calibration = [self._fed(resize_all(image, self.size)) for image in images]
        contents = Contents(graph, output_name, texts, self.quantize, calibration)
        self.format.module.write(contents, path)
        shutil.rmtree(graph)

    def compare(self, path):
        """Returns how the file compares with Keras, and their seconds for one image."""
        load = self.format.module.load(path)

        def run(images):
            return load(self._fed(images))

        fixed = None not in self.serving.image_size
        some = batches(self.images.examples(), self.size, fixed)
        decide = functools.partial(self.source.decide, probabilities=self.probabilities)
        tolerance = RESIZED_TOLERANCE if self.serving.resizes else TOLERANCE
        comparison = compare(run, self._keras, decide, some, tolerance)
        example = resize_all(next(self.images.examples())[0][None], self.size)
        return comparison, *latencies((lambda: run(example), lambda: self._keras(example)))

    def _fed(self, images):
        """uint8 images as the file takes them."""
        return images if self.serving.input == UINT8 else images.astype("float32") / 255

    def _keras(self, images):
        images = resize_all(images, self.serving.network_size)
        return self.source.predict(images, self.probabilities)


def _checked_format(format, input, outputs, quantize):
    choices = {"format": (format, FORMATS), "input": (input, INPUTS), "outputs": (outputs, OUTPUTS)}
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            names = ", ".join(map(repr, allowed))
            raise ValueError(f"`{name}` must be one of {names}. Received: {name}={value!r}")
    FORMATS[format].check_quantize(quantize)
    return FORMATS[format]


def _checked_size(image_size):
    """Height and width, or `None` where none is given."""
    if image_size is None:
        return None
    pair = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size,) * 2
    if len(pair) != 2:
        raise ValueError(
            "`image_size` must be a number of pixels, or height and width. "
            f"Received: image_size={image_size!r}"
        )
    height, width = (check_integer("image_size", edge, minimum=1) for edge in pair)
    return height, width


def _check_share(min_agreement):
    if not is_number(min_agreement) or not 0 <= min_agreement <= 1:
        raise ValueError(
            f"`min_agreement` must lie in [0, 1]. Received: min_agreement={min_agreement!r}"
        )


def _check_outputs(source, outputs):
    if outputs == PROBABILITIES and source.gives == "features":
        raise ValueError(
            '`outputs="probabilities"` needs a model with a head. Received: a model that ends with '
            'its BiTBackbone. Pass `outputs="logits"` to export its features.'
        )
    if outputs == LOGITS and source.gives == PROBABILITIES:
        raise ValueError(
            '`outputs="logits"` needs a model that gives logits. Received: a model that ends with '
            "a softmax or sigmoid."
        )


def _serving(source, image_size, input, probabilities, quantize):
    network_size = None if None in source.size else source.size
    if image_size is None:
        image_size = (None, None) if source.any_image else source.size
    elif network_size is None and min(image_size) < MIN_EDGE:
        raise ValueError(
            f"`image_size` must be at least {MIN_EDGE} pixels, as the network takes no smaller "
            f"images. Received: image_size={image_size}"
        )
    unchecked = input == FLOAT32 or (network_size is None and None in image_size)
    return Serving(
        input=input,
        image_size=image_size,
        network_size=network_size,
        value_range=source.value_range,
        temperature=source.outputs.temperature if source.gives == LOGITS else 1.0,
        activation=source.activation(probabilities),
        guarded=unchecked and quantize != INT8,  # no integer stands for NaN
    )


@contextlib.contextmanager
def _explained(path, format, fault):
    """Turns what libraries raise into one error."""
    try:
        yield
    except (ExportError, MemoryError, OSError):
        raise
    except Exception as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, 300, placeholder=" ...")
        raise ExportError(
            f"{path} {fault}, and was not kept. {format.name} says: {reason}"
        ) from error
