import keras
import numpy as np
import pytest

from keras_bit import HyperRule, HyperRuleSchedule
from tests.conftest import as_numpy

REGIMES = {
    3_000: (100, 200, 300, 400, 500),
    50_000: (500, 3_000, 6_000, 9_000, 10_000),
    1_000_000: (500, 6_000, 12_000, 18_000, 20_000),
}


def authors_rate(step, supports):
    """What `get_lr` of the authors' bit_hyperrule.py is defined to give, up to the end."""
    if step < supports[0]:
        return 0.003 * step / supports[0]
    return 0.003 / 10 ** sum(s < step for s in supports[1:])


@pytest.mark.parametrize("dataset_size", REGIMES)
def test_agrees_with_the_authors_at_every_step(dataset_size):
    supports = REGIMES[dataset_size]
    schedule = HyperRule(224, dataset_size, warmup=True).schedule()
    steps = np.arange(supports[-1])
    expected = [authors_rate(step, supports) for step in steps]
    np.testing.assert_allclose(as_numpy(schedule(steps)), expected, rtol=1e-6)


@pytest.mark.parametrize("dataset_size", REGIMES)
def test_equals_piecewise_constant_decay_without_warmup(dataset_size):
    rule = HyperRule(224, dataset_size)
    rates = [0.003, 0.0003, 0.00003, 0.000003]
    keras_schedule = keras.optimizers.schedules.PiecewiseConstantDecay(list(rule.boundaries), rates)
    schedule = rule.schedule()
    for boundary in (*rule.boundaries, rule.schedule_length):
        for step in (boundary - 1, boundary, boundary + 1):
            np.testing.assert_allclose(
                as_numpy(schedule(step)), as_numpy(keras_schedule(step)), rtol=1e-6
            )


def test_stays_at_the_last_value_past_the_end():
    schedule = HyperRuleSchedule(0.003, (6_000, 12_000, 18_000))
    assert float(schedule(10**9)) == pytest.approx(3e-6, rel=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_is_exact_at_step_20000_under_every_policy(policy):
    keras.config.set_dtype_policy(policy)
    schedule = HyperRuleSchedule(0.003, (19_999, 20_000, 20_001))
    values = [float(schedule(step)) for step in (19_999, 20_000, 20_001, 20_002)]
    np.testing.assert_array_equal(values, np.float32([3e-3, 3e-4, 3e-5, 3e-6]))
    assert keras.backend.standardize_dtype(schedule(20_000).dtype) == "float32"


def test_takes_steps_of_any_number_type():
    schedule = HyperRuleSchedule(0.003, (200, 300, 400), warmup_steps=100)
    for step in (50, np.int64(50), np.float32(50), keras.ops.convert_to_tensor(50)):
        assert float(schedule(step)) == pytest.approx(0.0015, rel=1e-6)


def test_counts_updates_where_keras_counts_steps():
    schedule = HyperRuleSchedule(0.003, (2,), accumulation_steps=4)
    # Steps 0 to 3 make update 0; the boundary lies between updates 2 and 3.
    rates = as_numpy(schedule(np.arange(16)))
    np.testing.assert_allclose(rates, [0.003] * 12 + [0.0003] * 4, rtol=1e-6)


def test_survives_serialization():
    schedule = HyperRuleSchedule(
        0.001, (5, 9), warmup_steps=3, decay_rate=0.5, accumulation_steps=2
    )
    config = keras.optimizers.schedules.serialize(schedule)
    restored = keras.optimizers.schedules.deserialize(config)
    steps = np.arange(15)
    np.testing.assert_array_equal(as_numpy(restored(steps)), as_numpy(schedule(steps)))
    assert restored.get_config() == schedule.get_config()


def test_drives_an_optimizer_in_compiled_training(reload_model):
    schedule = HyperRuleSchedule(1.0, (1, 2), decay_rate=0.5)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(schedule), "mae")
    model.set_weights([np.array([[10.0]])])
    # The gradient of |w x| is 1: weights fall by the sum of the rates 1, 1, 1/2, 1/4.
    model.fit(np.ones((4, 1)), np.zeros((4, 1)), batch_size=1, verbose=0)
    assert model.get_weights()[0][0, 0] == pytest.approx(10 - 2.75, abs=1e-6)
    assert float(reload_model(model).optimizer.learning_rate) == 0.25


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"boundaries": (3, 2)}, "boundaries"),
        ({"boundaries": (1.5,)}, "boundaries"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"decay_rate": "x"}, "decay_rate"),
    ],
)
def test_refuses_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}`.*Received"):
        HyperRuleSchedule(**arguments)
