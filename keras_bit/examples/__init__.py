"""Examples, one short file for each task, to run as they are or to copy.

`python -m keras_bit.examples` lists them.
"""
