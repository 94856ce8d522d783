import json

import numpy as np
import pytest

from keras_bit.data.sources.labels import check_label_names, class_names


@pytest.mark.parametrize(
    "given",
    [["cat", "dog"], ("cat", "dog"), np.array(["cat", "dog"]), {"cat": 0, "dog": 1}, iter("ab")],
)
def test_names_become_a_tuple_of_plain_strings(given):
    names = check_label_names(given)
    assert names in (("cat", "dog"), ("a", "b")) and {type(name) for name in names} == {str}
    assert tuple(json.loads(json.dumps(names))) == names


@pytest.mark.parametrize(
    ("error", "words", "given"),
    [
        (TypeError, "must be a sequence of strings.*label_names='cat'", "cat"),
        (TypeError, "must be a sequence of strings.*label_names=3", 3),
        (TypeError, r"must be strings.*label_names\[1\]=7", ["cat", 7]),
        (TypeError, r"must be strings.*label_names\[0\]=None", [None, "dog"]),
        (TypeError, r"must be strings.*label_names\[0\]=b'cat'", [b"cat", b"dog"]),
        (ValueError, r"must not be empty.*label_names\[2\]=''", ["cat", "dog", ""]),
        (ValueError, r"must not be empty.*label_names\[0\]=' '", [" ", "dog"]),
        (ValueError, r"must differ.*label_names\[2\]='cat'", ["cat", "dog", "cat"]),
    ],
)
def test_bad_names_are_refused(error, words, given):
    with pytest.raises(error, match=words):
        check_label_names(given)


def test_ids_name_themselves():
    assert class_names(None, 2, images=3) == ("0", "1", "2")
    assert class_names(["a", "b", "c"], 1, images=3) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("highest", "images", "fits"),
    [
        (999, 2, True),  # a few images of ImageNet
        (1000, 2, False),
        (1000, 1000, False),
        (1000, 1001, True),
        (10_000_000, 50_000, False),
        (2**31 - 1, 10**6, False),
        (2**40, 10**6, False),
        (2**64 - 1, 10**6, False),
    ],
)
def test_ids_without_names_are_not_far_above_the_number_of_images(highest, images, fits):
    if fits:
        assert class_names(None, highest, images)[-1] == str(highest)
    else:
        with pytest.raises(ValueError, match=rf": {images} images, class ids up to {highest}\."):
            class_names(None, highest, images)
    if highest < 20_000:
        names = [f"class {index}" for index in range(highest + 1)]
        assert class_names(names, highest, images) == tuple(names)


def test_too_few_names_or_classes():
    with pytest.raises(ValueError, match="2 names, class ids up to 2"):
        class_names(["a", "b"], 2, images=10)
    for names in (None, ["a"]):
        with pytest.raises(ValueError, match="At least two classes"):
            class_names(names, 0, images=10)
