"""Weights of classes: what they are, and what the pipeline makes of them."""

import itertools

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from keras_bit.data.class_weight import check_class_weight, resolve_class_weight
from keras_bit.data.dataset import ImageDataset
from keras_bit.data.pipeline import pipelines
from keras_bit.hyperrule.rule import HyperRule

LABELS = np.repeat([0, 1, 2], [9, 2, 1])
IMAGES = np.random.RandomState(0).randint(0, 256, (12, 12, 12, 3), np.uint8)
NAMES = ("cat", "dog", "emu")


def make_data(labels=LABELS, names=NAMES):
    return ImageDataset.from_arrays(IMAGES, labels, IMAGES, labels, names)


def test_balanced_weights_are_scikit_learn_s():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    weights = resolve_class_weight("balanced", make_data())
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    assert np.mean(np.array(weights)[LABELS]) == pytest.approx(1)
    with_empty = make_data(names=(*NAMES, "fox"))
    np.testing.assert_allclose(resolve_class_weight("balanced", with_empty), [*expected, 1])


@pytest.mark.parametrize(
    "given", [{"dog": 3, "emu": 0.5}, {1: 3, np.int64(2): 0.5}, [1, 3, 0.5], np.array([1, 3, 0.5])]
)
def test_weights_by_name_id_or_in_order(given):
    assert resolve_class_weight(given, make_data()) == (1.0, 3.0, 0.5)
    assert resolve_class_weight(None, make_data()) is None


@pytest.mark.parametrize(
    "given", ["even", 3, np.array(["a"]), {1: "x"}, {1: -1}, [1, float("nan"), 1], {"a": True}]
)
def test_what_is_wrong_whatever_the_data(given):
    with pytest.raises(ValueError, match="`class_weight` must .*Received: "):
        check_class_weight(given)


def test_what_does_not_fit_the_data():
    for given, match in (
        ([1, 2], "each of the 3 classes. Received: 2"),
        ({"cow": 1}, "ids or names of classes. Received: 'cow'"),
        ({3: 1}, "Received: 3;"),
        ({True: 1}, "Received: True;"),
    ):
        with pytest.raises(ValueError, match=match):
            resolve_class_weight(given, make_data())
    with pytest.raises(ValueError, match="several labels"):
        resolve_class_weight("balanced", make_data(np.eye(3, dtype=int)[LABELS] | [1, 0, 0]))


@pytest.mark.tensorflow
@pytest.mark.parametrize("options", [{}, {"mix_in_model": True}, {"shard": (1, 2)}])
def test_the_pipeline_yields_the_weights_of_mixed_labels(options):
    rule = HyperRule(12, 12, 4, resize_edge=12, crop_size=8, mixup_alpha=0.4)
    weights = np.float32([0.5, 2.0, 3.0])
    plain, _ = pipelines(make_data(), rule, **options)
    weighted, test = pipelines(make_data(), rule, class_weight=list(weights), **options)
    mixed = 0
    for a, b in itertools.islice(zip(plain, weighted, strict=True), 4):
        np.testing.assert_array_equal(a[1], b[1])
        np.testing.assert_array_equal(b[2], (b[1].numpy() * weights).sum(1))
        mixed += np.count_nonzero(np.max(b[1], axis=1) < 1)
    assert mixed and len(next(iter(test))) == 2
