"""A pytest plugin: as if TensorFlow and its company were not installed."""

import sys

for absent in ("tensorflow", "tensorflow_probability", "tensorflow_hub", "keras_tuner", "PIL"):
    sys.modules[absent] = None
