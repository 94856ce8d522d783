"""Speed and memory beside peers; README.md has the tables."""

import pathlib
import runpy

# By path and first of all: the package imports Keras, and Keras TensorFlow. The processes that
# benchmarks start inherit it; a variable that is set stays.
_ONEDNN = pathlib.Path(__file__).parent.parent / "keras_bit" / "core" / "onednn.py"
runpy.run_path(str(_ONEDNN))["enable_onednn"]()
