import random

import keras
import keras_tuner
import numpy as np
import pytest

from keras_bit import BiTBackbone, HyperBiT
from keras_bit.tuning import hypermodel as module
from tests.conftest import as_numpy

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("undrawn")]
SMALL = {"depth": (1, 1, 1, 1), "width": 0.125, "epochs": 1}


def space(**values):
    hp = keras_tuner.HyperParameters()
    for name, value in values.items():
        hp.Fixed(name, value)
    return hp


def values_of(model):
    return [as_numpy(variable) for variable in [*model.variables, *model.optimizer.variables]]


def assert_equal(some, others):
    for one, other in zip(some, others, strict=True):
        np.testing.assert_array_equal(one, other)


def test_random_weights_are_those_of_the_seed(data, rule):
    hypermodels = [HyperBiT(data, rule, seed=seed, **SMALL) for seed in (3, 3, 4)]
    random.seed(5)
    expected = random.random()
    random.seed(5)
    models = [hypermodel.build(space()) for hypermodel in hypermodels]
    assert random.random() == expected
    same, again, other = map(values_of, models)
    assert_equal(same, again)
    assert any((a != b).any() for a, b in zip(same, other, strict=True))


def test_a_preset_is_read_once(data, rule, monkeypatch):
    read = BiTBackbone.from_preset
    calls = []

    def from_preset(*args, **kwargs):
        calls.append(args)
        return read(*args, **kwargs)

    monkeypatch.setattr(BiTBackbone, "from_preset", from_preset)
    hypermodel = HyperBiT(data, rule, preset="f-r14x0.5")
    first, second = (values_of(hypermodel.build(space())) for _ in range(2))
    assert calls == [("f-r14x0.5",)]
    assert_equal(first, second)


def test_all_models_of_a_preset_are_the_same_network(data, rule, tmp_path):
    backbone = BiTBackbone((1, 1, 1, 1), kernel_epsilon=1e-8)
    backbone.build((None, None, None, 3))
    backbone.save_safetensors(tmp_path / "timm.safetensors")
    hypermodel = HyperBiT(data, rule, preset=tmp_path / "timm.safetensors")
    first = hypermodel.build(space()).backbone
    (tmp_path / "timm.safetensors").unlink()  # It has been read.
    second = hypermodel.build(space()).backbone
    assert first.kernel_epsilon == second.kernel_epsilon == 1e-8
    assert_equal(map(as_numpy, first.weights), map(as_numpy, second.weights))


def test_a_frozen_backbone_stays(data, rule):
    model = HyperBiT(data, rule, freeze_backbone=True, **SMALL).build(space())
    assert [v.path.split("/")[-1] for v in model.trainable_variables] == ["kernel", "bias"]


def test_images_are_decoded_once(quick, data, rule, monkeypatch):
    calls = []
    make = module.cache_splits
    monkeypatch.setattr(module, "cache_splits", lambda *a: calls.append(a) or make(*a))
    hypermodel = HyperBiT(data, rule)
    for name in ("mixup_alpha", "learning_rate_factor"):
        hp = space(**{name: 0.2})
        hypermodel.make_data(hp, hypermodel.rule_for(hp), 0, 0)
    assert len(calls) == 1
    hp = space(crop_factor=0.5)
    hypermodel.make_data(hp, hypermodel.rule_for(hp), 0, 0)
    assert len(calls) == 2


def run(hypermodel, hp):
    model = hypermodel.build(hp)
    history = hypermodel.fit(hp, model, verbose=0).history
    return model, history, values_of(model)


@pytest.mark.slow
def test_trials_that_share_a_traced_step_end_as_those_that_do_not(data, rule):
    rule = rule.replace(schedule_length=4)
    spaces = [
        dict(learning_rate_factor=2.0),
        dict(schedule_factor=2.0, warmup=True),
        dict(mixup_alpha=0.1),
    ]
    alone = [
        run(HyperBiT(data, rule, preset="f-r14x0.5", epochs=2), space(**values))
        for values in spaces
    ]
    hypermodel = HyperBiT(data, rule, preset="f-r14x0.5", epochs=2)
    with hypermodel.traced_once():
        shared = [run(hypermodel, space(**values)) for values in spaces]
        other = hypermodel.build(space(weight_decay=0.1))
    assert len({id(model) for model, *_ in shared}) == 1 and other is not shared[0][0]
    assert hypermodel.build(space()) is not hypermodel.build(space())
    for (_, history, values), (_, expected, others) in zip(shared, alone, strict=True):
        assert history == expected
        assert_equal(values, others)


@pytest.mark.slow
def test_the_function_is_traced_once(quick, data, rule, monkeypatch):
    traces = []
    train_step = keras.Sequential.train_step
    monkeypatch.setattr(
        keras.Sequential, "train_step", lambda *a: traces.append(1) or train_step(*a)
    )
    hypermodel = HyperBiT(data, rule, preset="f-r14x0.5", epochs=2)
    with hypermodel.traced_once():
        for factor in (0.5, 1.0, 3.0):
            run(hypermodel, space(learning_rate_factor=factor))
    assert len(traces) == 1
