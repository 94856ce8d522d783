"""Models as files that other runtimes run, each compared with Keras before it is kept."""

from keras_bit.exporters.export import export
from keras_bit.exporters.result import ExportError, ExportResult

__all__ = ["ExportError", "ExportResult", "export"]
