import json
import pathlib

import keras
import numpy as np
import pytest

from keras_bit import (
    BiTBackbone,
    BiTClassifier,
    HyperRule,
    ZeroInitHead,
    largest_micro_batch,
)
from keras_bit.core.device import Device
from keras_bit.training import micro_batch
from tests.conftest import as_numpy

RULE = HyperRule(32, 1_000, 8, crop_size=32, schedule_length=10)


@pytest.fixture
def model(randomize):
    model = BiTClassifier(BiTBackbone((1, 1, 1, 1), 0.25), 3)
    randomize(model)
    return model


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A GPU with room for `most` images: a function from `most` to the list of what is tried.

    Its steps change the weights, as training does, but compile nothing.
    """
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def make(most, memory=10**8, error="RESOURCE_EXHAUSTED: Out of memory"):
        device = Device("gpu", "Test GPU", memory, True)
        monkeypatch.setattr(micro_batch, "current_device", lambda: device)
        tried = []

        def train_on_batch(model, images, labels):
            if tried[-1:] != [len(images)]:
                tried.append(len(images))
            for variable in model.layers[0].variables:
                variable.assign(variable + 1)
            if len(images) > most:
                raise RuntimeError(error)

        monkeypatch.setattr(keras.Sequential, "train_on_batch", train_on_batch)
        monkeypatch.setattr(micro_batch.gc, "collect", lambda: 0)  # a second each, late in a run
        return tried

    return make


@pytest.mark.parametrize("most, memory", [(2, 10**8), (8, 10**8), (3, 4 * 10**6), (1, None)])
def test_finds_the_largest_divisor_that_fits(gpu, model, most, memory, capsys):
    tried = gpu(most, memory)
    before = model.get_weights()
    found = largest_micro_batch(model, RULE)
    (line,) = capsys.readouterr().out.splitlines()
    assert found == max(divisor for divisor in (1, 2, 4, 8) if divisor <= most)
    assert len(set(tried)) == len(tried)
    assert f" {found} images fit Test GPU" in line
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not model.compiled


def test_a_good_estimate_needs_two_tries(gpu, model):
    rule = RULE.replace(crop_size=96)
    memory = micro_batch.training_memory(model.backbone, 3, rule.replace(micro_batch_size=4))
    tried = gpu(4, memory.total)
    assert largest_micro_batch(model, rule, verbose=0) == 4
    assert tried == [4, 8]


def test_a_try_is_two_real_updates_with_momentum_and_sums(model, monkeypatch):
    trained = []
    train = keras.Sequential.train_on_batch

    def train_on_batch(model, images, labels):
        loss = train(model, images, labels)
        trained.append((images.shape, int(as_numpy(model.optimizer.iterations))))
        return loss

    monkeypatch.setattr(keras.Sequential, "train_on_batch", train_on_batch)
    before = model.get_weights()
    assert micro_batch.fits_device(model, RULE.replace(micro_batch_size=2))
    assert trained == [((2, 32, 32, 3), updates) for updates in (0, 1, 1, 2)]
    assert not model.compiled
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_try_draws_no_numbers_from_the_seed_of_dropout():
    backbone = BiTBackbone((1, 1, 1, 1), width=0.25)
    model = BiTClassifier(backbone, ZeroInitHead(10, dropout=0.2, seed=1))
    before = [as_numpy(variable).copy() for variable in model.variables]
    assert micro_batch.fits_device(model, RULE.replace(micro_batch_size=8))
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(as_numpy(variable), value)


def remembered(folder):
    (path,) = pathlib.Path(folder).rglob("*.json")
    return path


def test_what_was_found_is_remembered_for_the_same_case_alone(gpu, model, tmp_path):
    gpu(2)
    assert largest_micro_batch(model, RULE, verbose=0) == 2
    path = remembered(tmp_path)
    assert json.loads(path.read_text())["micro_batch_size"] == 2
    tried = gpu(8)
    assert largest_micro_batch(model, RULE, verbose=0) == 2 and tried == []
    assert largest_micro_batch(model, RULE.replace(crop_size=40), verbose=0) == 8 and tried
    model.backbone.blocks[0].trainable = False
    assert largest_micro_batch(model, RULE, verbose=0) == 8
    lean = BiTClassifier(BiTBackbone((1, 1, 1, 1), 0.25, remat=True), 3)
    assert largest_micro_batch(lean, RULE, verbose=0) == 8
    assert len(list(tmp_path.rglob("*.json"))) == 4


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b'{"micro_batch_size": 2}'])
def test_a_damaged_memory_is_skipped_and_replaced(gpu, model, tmp_path, damage):
    gpu(2)
    largest_micro_batch(model, RULE, verbose=0)
    path = remembered(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage)
    assert largest_micro_batch(model, RULE, verbose=0) == 2
    assert path.read_bytes() == whole


@pytest.mark.parametrize("number", [3, 0, True, "2", None])
def test_a_remembered_number_that_divides_nothing_is_skipped(gpu, model, tmp_path, number):
    gpu(2)
    largest_micro_batch(model, RULE, verbose=0)
    path = remembered(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"micro_batch_size": number}))
    assert largest_micro_batch(model, RULE, verbose=0) == 2


def test_a_folder_that_cannot_be_written_is_no_error(gpu, model, tmp_path):
    gpu(2)
    (tmp_path / "keras_bit").write_text("a file where the folder should be")
    assert largest_micro_batch(model, RULE, verbose=0) == 2


def test_other_errors_come_through_and_weights_are_put_back(gpu, model):
    gpu(1, error="INTERNAL: a bug")
    before = model.get_weights()
    with pytest.raises(RuntimeError, match="a bug"):
        largest_micro_batch(model, RULE, verbose=0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_where_nothing_fits_it_says_so_and_remembers_nothing(gpu, model, tmp_path):
    gpu(0)
    with pytest.raises(MemoryError, match="one image of 32 pixels.*`remat`"):
        largest_micro_batch(model, RULE, verbose=0)
    assert not list(tmp_path.rglob("*.json"))


def test_on_a_cpu_the_estimate_decides(model, monkeypatch):
    rule = RULE.replace(crop_size=96)

    def most(share):
        memory = micro_batch.training_memory(model.backbone, 3, rule.replace(micro_batch_size=4))
        free = share * (memory.total - memory.weights) / micro_batch.CPU_SHARE
        device = Device("cpu", "CPU", free, False)
        monkeypatch.setattr(micro_batch, "current_device", lambda: device)
        return largest_micro_batch(model, rule, verbose=0)

    monkeypatch.setattr(micro_batch, "fits_device", None)  # which no CPU may come to
    assert [most(share) for share in (0.99, 1.01, 10)] == [2, 4, 8]
    with pytest.raises(MemoryError, match="CPU does not suffice"):
        most(0.01)


def test_a_rule_takes_no_auto_and_says_who_does():
    with pytest.raises(ValueError, match="`keras_bit.largest_micro_batch"):
        RULE.replace(micro_batch_size="auto")


def test_refuses_other_models():
    with pytest.raises(ValueError, match="`model` must be a keras_bit.BiTClassifier"):
        largest_micro_batch(keras.Sequential(), RULE)


def test_for_a_plan_a_cpu_builds_nothing_and_a_gpu_tries(gpu, monkeypatch):
    backbone = BiTBackbone((1, 1, 1, 1), 0.25)
    device = Device("cpu", "CPU", None, False)
    monkeypatch.setattr(micro_batch, "current_device", lambda: device)
    rule = RULE.replace(crop_size=96)
    assert micro_batch.find_micro_batch(backbone, 3, rule, verbose=0).micro_batch_size == 8
    assert not backbone.built
    # Weights that are not there yet need room as well.
    memory = micro_batch.training_memory(backbone, 3, rule.replace(micro_batch_size=4))
    device = Device("cpu", "CPU", 1.01 * memory.total / micro_batch.CPU_SHARE, False)
    assert micro_batch.find_micro_batch(backbone, 3, rule, verbose=0).micro_batch_size == 4
    tried = gpu(2)
    assert micro_batch.find_micro_batch(backbone, 3, rule, verbose=0).micro_batch_size == 2
    assert tried and backbone.built
