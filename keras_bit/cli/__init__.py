"""The command `keras-bit`."""

from keras_bit.cli.main import main

__all__ = ["main"]
