"""A page and a JSON endpoint to try the classifier of a run."""

from keras_bit.serving.app import make_app
from keras_bit.serving.server import serve

__all__ = ["make_app", "serve"]
