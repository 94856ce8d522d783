import keras
import pytest

from keras_bit import BiTBackbone, HyperRule
from keras_bit.training import duration
from keras_bit.training.duration import Duration, estimate_duration, forward_operations


def operations_of(depth, width, edge):
    return sum(forward_operations(BiTBackbone(depth, width), edge).values())


def test_operations_of_r50x1_are_those_of_the_literature():
    # 4.1 billion multiply-adds for ResNet-50 at 224 px (He et al. 2016: 3.8, with the stride in the
    # first convolution of a unit in place of the second).
    assert operations_of(50, 1, 224) == pytest.approx(2 * 4.1e9, rel=0.03)


def test_operations_of_a_small_network_counted_by_hand():
    # Edges 33 -> 17 -> 9 -> 9, 5, 3, 2; root of 8 channels, blocks of 8, 16, 32, 64 in the middle.
    total, channels, edge = 49 * 3 * 8 * 17**2, 8, 9
    for block, middle in enumerate((8, 16, 32, 64)):
        total += channels * middle * edge**2
        edge = edge if block == 0 else (edge + 1) // 2
        total += (9 * middle**2 + 4 * middle**2 + channels * 4 * middle) * edge**2
        channels = 4 * middle
    assert operations_of((1, 1, 1, 1), 0.125, 33) == 2 * total


def test_training_validation_remat_and_frozen_parts_count(monkeypatch):
    monkeypatch.setattr(duration, "matrix_product_rate", lambda dtype: {"float32": 1e9}[dtype])
    rule = HyperRule(32, 100, 8, schedule_length=10, crop_size=32)
    forward = operations_of((1, 1, 1, 1), 0.125, 32)

    def operations(frozen=False, **options):
        backbone = BiTBackbone((1, 1, 1, 1), 0.125, **options)
        backbone.trainable = not frozen
        return estimate_duration(backbone, rule, epochs=2, test_size=5).operations / forward

    assert operations() == 3 * 80 + 10
    assert operations(remat=True) == 4 * 80 + 10
    assert operations(frozen=True) == 80 + 10


def test_frozen_blocks_have_no_backward_pass(monkeypatch):
    monkeypatch.setattr(duration, "matrix_product_rate", lambda dtype: 1e9)
    rule = HyperRule(32, 100, 8, schedule_length=10, crop_size=32)
    # Of an image of 32 pixels, by hand: edges of 16 in the root and of 8 in the first block, with
    # 8 channels; the second block has 32 at first and 16 in the middle, and edges of 4.
    root = 2 * 49 * 3 * 8 * 16**2
    first = 2 * (8 * 8 + 9 * 8 * 8 + 8 * 32 + 8 * 32) * 8**2
    second = 2 * (32 * 16 * 8**2 + (9 * 16 * 16 + 16 * 64 + 32 * 64) * 4**2)

    def saved(**options):
        whole, part = (
            estimate_duration(BiTBackbone((1, 1, 1, 1), 0.125, **each), rule, 2, 5).operations
            for each in ({**options, "frozen": ()}, options)
        )
        return (whole - part) / 80

    assert saved(frozen=["root_block", "block1"]) == 2 * (root + first)
    assert saved(frozen=["root_block", "block1"], remat=True) == 3 * (root + first)
    assert saved(frozen=["block2"]) == second  # whose inputs have gradients still
    assert saved(frozen=["root_block", "block2"]) == 2 * root + second


@pytest.mark.parametrize(
    "seconds, text",
    [
        (29, "under a minute"),
        (31, "about a minute"),
        (89, "about a minute"),
        (91, "about 2 minutes"),
        (600, "about 10 minutes"),
        (7200, "about 2 hours"),
    ],
)
def test_durations_are_told_in_round_numbers(seconds, text):
    estimate = Duration(seconds * duration.SHARE * 1e9, 1e9)
    assert estimate.seconds == pytest.approx(seconds) and str(estimate) == text
    gflop = f"{seconds * duration.SHARE:,.0f}"
    expected = f"{gflop} GFLOP at 50% of a matrix product's 1 GFLOP/s, measured"
    assert estimate.reason == expected


def test_the_rate_is_measured_once(monkeypatch):
    monkeypatch.setitem(duration.MATRIX_EDGE, "cpu", 64)
    duration.matrix_product_rate.cache_clear()
    rate = duration.matrix_product_rate("float32")
    assert 1e6 < rate < 1e15
    monkeypatch.setattr(keras.ops, "matmul", None)
    assert duration.matrix_product_rate("float32") == rate
    duration.matrix_product_rate.cache_clear()
