"""Parts of batches for several processes."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_bit.core.distribution import Processes
from keras_bit.data import shard
from keras_bit.data.shard import Shard
from keras_bit.hyperrule.rule import HyperRule

RULE = HyperRule(12, 10, batch_size=12, micro_batch_size=6, resize_edge=12, crop_size=8)


@pytest.mark.parametrize("count, batch_size", [(12, 6), (13, 6), (1, 6), (14, 9), (17, 3)])
def test_the_test_images_are_shared_and_weighted(count, batch_size):
    sides = [Shard(i, 3, 3).test_positions(count, batch_size) for i in range(3)]
    parts = [side[0] for side in sides]
    assert len({len(part) for part in parts}) == 1, "each process has as many rows as the others"
    weights = [side[1] if len(side) > 1 else np.ones(len(side[0])) for side in sides]
    # A third of each batch at a time, the order of one process.
    size = batch_size // 3
    starts = range(0, len(parts[0]), size)
    rows = np.concatenate([part[s : s + size] for s in starts for part in parts])
    weight = np.concatenate([part[s : s + size] for s in starts for part in weights])
    assert rows[weight > 0].tolist() == list(range(count))
    # What Keras computes: the sum of weighted losses by the number of rows.
    losses = np.arange(1.0, count + 1) ** 2
    assert np.sum(losses[rows] * weight) / len(rows) == pytest.approx(losses.mean(), rel=1e-6)


def test_what_is_shared_evenly_has_no_weights():
    assert len(Shard(1, 2, 4).test_positions(16, 8)) == 1
    assert len(Shard(1, 2, 4).test_positions(14, 8)) == 2


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0,), "ab", 1, (0, 1.5), (0, 0)])
def test_a_shard_is_a_pair(shard):
    with pytest.raises(ValueError, match="`shard` must be"):
        Shard.of(RULE, shard)


def test_batches_must_be_shared_evenly(monkeypatch):
    assert Shard.of(RULE, (2, 3)) == Shard(2, 3, 3)
    with pytest.raises(ValueError, match="multiple of the 4 devices.*micro_batch_size=6"):
        Shard.of(RULE, (0, 4))
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(shard, "replicas", lambda: 4)
    with pytest.raises(ValueError, match="multiple of the 12 devices"):
        Shard.of(RULE, (0, 3))


def test_processes_that_hold_one_replica_take_the_same_part(monkeypatch):
    mesh = SimpleNamespace(axis_names=["batch", "model"], shape=(2, 4))
    several = SimpleNamespace(device_mesh=mesh, batch_dim_name="batch", auto_shard_dataset=False)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(keras.distribution, "distribution", lambda: several)
    for index in range(4):
        monkeypatch.setattr(shard, "processes", lambda index=index: Processes(index, 4))
        assert Shard.of(RULE) == Shard(index // 2, 2, 2)


@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"mixup_alpha": 0.3, "micro_batch_size": 2},
        {"mixup_alpha": 0.3},
        {"mixup_alpha": 0.3, "mix_in_model": True, "dtype": "uint8"},
        {"mixup_alpha": 0.0, "dtype": "uint8"},
    ],
)
def test_the_parts_are_the_batches_of_one_process(options, monkeypatch):
    from tests.data.test_pipeline import make_data, make_rule, pipelines

    monkeypatch.setattr("keras_bit.data.pipeline._parts_are_joined", lambda: True)
    names = "mixup_alpha", "micro_batch_size"
    rule = make_rule(**{n: v for n, v in options.items() if n in names})
    options = {n: v for n, v in options.items() if n not in names}
    whole, *parts = (
        pipelines(make_data(), rule, seed=3, initial_step=2, shard=shard, **options)
        for shard in (None, (0, 2), (1, 2))
    )
    for batches in zip(whole[0].take(7), *(train.take(7) for train, _ in parts), strict=True):
        one, *halves = ([np.asarray(x) for x in keras.tree.flatten(batch)] for batch in batches)
        for expected, *found in zip(one, *halves, strict=True):
            np.testing.assert_array_equal(np.concatenate(found), expected)
    size = rule.micro_batch_size // 2
    assert all(s.shape[0] == size for s in keras.tree.flatten(parts[0][0].element_spec))
    images, weights = [], []
    for batches in zip(*(test for _, test in parts), strict=True):
        for inputs, _, weight in batches:
            images.append(inputs["images"] if isinstance(inputs, dict) else inputs)
            weights.append(weight)
    kept = np.concatenate(images)[np.concatenate(weights) > 0]
    expected = [x["images"] if isinstance(x, dict) else x for x, _ in whole[1]]
    np.testing.assert_array_equal(kept, np.concatenate(expected))
