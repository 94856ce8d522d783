import json

import numpy as np

from keras_bit.data.sources.selection import Selection


def test_numpy_numbers_become_plain_ones():
    selection = Selection(np.float32(0.25), np.int64(3), np.uint8(96), np.int32(5))
    plain = {"validation_split": 0.25, "seed": 3, "min_edge": 96, "examples_per_class": 5}
    assert vars(selection) == plain
    assert json.loads(json.dumps(vars(selection))) == plain
    assert Selection(0.1, 0).examples_per_class is None
