import keras
import numpy as np
import pytest

from keras_bit import HyperRule
from keras_bit.tuning.schedule import VariableSchedule
from tests.conftest import as_numpy

RULES = [
    HyperRule(500, 1000, 64, schedule_length=50, warmup=warmup, micro_batch_size=micro)
    for warmup in (False, True)
    for micro in (64, 16)
]


@pytest.mark.parametrize("rule", RULES)
def test_the_rates_are_those_of_the_rule_to_the_bit(rule):
    other = rule.replace(schedule_length=7, warmup=True, learning_rate=1.0)
    schedule = VariableSchedule(rule.optimizer(), other)
    steps = np.arange(60 * rule.accumulation_steps)
    assert (as_numpy(schedule(steps)) == as_numpy(other.schedule()(steps))).all()
    schedule.assign(rule)
    assert (as_numpy(schedule(steps)) == as_numpy(rule.schedule()(steps))).all()
    assert float(schedule(30)) == float(rule.schedule()(30))
    assert schedule.get_config() == rule.schedule().get_config()


def test_a_compiled_step_sees_new_numbers(rng):
    rule = RULES[0]
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    optimizer = rule.optimizer(momentum=0.0)
    model.compile(optimizer, "mse")
    optimizer.learning_rate = schedule = VariableSchedule(optimizer, rule)
    x, y = np.ones((4, 2), "float32"), np.full((4, 1), 2.0, "float32")
    moved = []
    for factor in (1, 10):
        schedule.assign(rule.replace(learning_rate=factor * 1e-3))
        model.set_weights([np.zeros((2, 1))])
        model.fit(x, y, epochs=1, verbose=0)
        moved.append(model.get_weights()[0])
    np.testing.assert_allclose(moved[1], 10 * moved[0], rtol=1e-5)


def test_a_saved_model_loads_with_the_plain_schedule(reload_model):
    rule = RULES[1]
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimizer = rule.optimizer()
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    optimizer.learning_rate = VariableSchedule(optimizer, rule)
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        loaded = reload_model(model)
    assert loaded.optimizer.get_config() == rule.optimizer(name=optimizer.name).get_config()
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])
