"""Models as files that other runtimes run, each compared with Keras before it is kept."""

from keras_bit.exporters.export import ExportError, export
from keras_bit.exporters.result import ExportResult

__all__ = ["ExportError", "ExportResult", "export"]
