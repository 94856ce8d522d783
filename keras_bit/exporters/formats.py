"""The formats: what each can hold, and what it takes to write and to run it."""

import dataclasses
import importlib
import importlib.util
import pathlib
from typing import Any

from keras_bit.core.text import readable_size
from keras_bit.exporters.contents import DYNAMIC, INT8

_MOST_BYTES = 2**31  # of a message in protobuf, and of a flatbuffer


@dataclasses.dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        name: Of the format, and of the module here that writes and loads it.
        suffix: Of its files; none for a folder.
        quantizations: What `quantize` may be, beside `None`.
        packages: What must be installed, and how the extra is called that brings it.
        is_limited: Whether a file holds less than 2 GB.
        quantizers: What must be installed to quantize.
        weights_suffix: Of the file of the weights beside it, if there is one.
    """

    name: str
    suffix: str
    quantizations: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    extra: str = ""
    is_limited: bool = False
    quantizers: tuple[str, ...] = ()
    weights_suffix: str = ""

    def check_quantize(self, quantize: str | None) -> None:
        """Raises where the format has no such quantization."""
        if quantize is not None and quantize not in self.quantizations:
            choices = " or ".join(repr(each) for each in (None, *self.quantizations))
            raise ValueError(
                f"`quantize` must be {choices} with format={self.name!r}. "
                f"Received: quantize={quantize!r}"
            )

    def check_packages(self, quantize: str | None) -> None:
        """Raises where a package is missing."""
        needed = ("tensorflow", *self.packages) + (self.quantizers if quantize is not None else ())
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        if missing:
            source = f'"keras_bit[{self.extra}]"' if self.extra else "tensorflow"
            raise ImportError(
                f"format={self.name!r} needs {' and '.join(missing)}: `pip install {source}`."
            )

    def check_size(self, weight_bytes: int) -> None:
        """Raises where a file cannot hold that many bytes."""
        if self.is_limited and weight_bytes >= _MOST_BYTES:
            raise ValueError(
                f"`model_or_run` must have less than 2 GB of weights for format={self.name!r}. "
                f"Received: {readable_size(weight_bytes)}. Use tf_saved_model or openvino."
            )

    def labels_file(self, path: pathlib.Path) -> pathlib.Path:
        """Returns where the class names of a file stand: beside it."""
        return path.with_name(f"{path.name.removesuffix(self.suffix)}.labels.json")

    @property
    def module(self) -> Any:
        """The module that writes and loads the format."""
        return importlib.import_module(f"keras_bit.exporters.{self.name}")


FORMATS = {
    each.name: each
    for each in (
        Format("tf_saved_model", ""),
        Format("litert", ".tflite", (DYNAMIC, INT8), ("ai_edge_litert",), "litert", True),
        Format("onnx", ".onnx", (DYNAMIC, INT8), ("onnxruntime", "tf2onnx"), "onnx", True),
        Format("openvino", ".xml", (INT8,), ("openvino",), "openvino", False, ("nncf",), ".bin"),
    )
}
