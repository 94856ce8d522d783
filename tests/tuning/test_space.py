import keras_tuner
import pytest

from keras_bit import HyperRule
from keras_bit.tuning.space import changed_decisions, changed_rule, make_space

RULE = HyperRule(500, 1000, 64, schedule_length=100, resize_edge=128, crop_size=96)


def names(space):
    return {hp.name: getattr(hp, "values", None) for hp in space.space}


def test_the_default_space():
    space = make_space(None, RULE, "m-r50x1")
    assert names(space) == {
        "learning_rate_factor": [0.3, 1.0, 3.0],
        "schedule_factor": [0.5, 1.0, 2.0],
        "mixup_alpha": [0.0, 0.1],
    }
    assert space.values == {"learning_rate_factor": 1, "schedule_factor": 1, "mixup_alpha": 0}


def test_what_is_not_named_is_fixed_at_what_the_rule_has():
    space = make_space(["crop", "warmup"], RULE, None)
    assert names(space)["crop_factor"] == [0.75, 1.0, 1.25]
    assert list(names(space)["warmup"]) == [False, True]
    fixed = {hp.name: hp.value for hp in space.space if type(hp).__name__ == "Fixed"}
    assert fixed == {"learning_rate_factor": 1.0, "schedule_factor": 1.0, "mixup_alpha": 0.0}
    assert changed_rule(RULE, space.values).decisions() == RULE.decisions()


def test_values_and_spaces_of_the_user():
    space = make_space({"rate": (0.5, 2), "preset": ["m-r50x1", "s-r50x1"]}, RULE, "m-r50x1")
    assert names(space)["learning_rate_factor"] == [0.5, 1.0, 2.0]
    assert space.values["preset"] == "m-r50x1" and space.values["learning_rate_factor"] == 1.0
    assert make_space({"rate": 0.5}, RULE, None).values["learning_rate_factor"] == 0.5
    mine = keras_tuner.HyperParameters()
    mine.Float("learning_rate_factor", 0.1, 10)
    space = make_space(mine, RULE, None)
    assert [type(hp).__name__ for hp in space.space] == ["Float", "Fixed", "Fixed"]


def test_the_first_values_of_a_space_of_the_user_are_those_of_the_rule():
    mine = keras_tuner.HyperParameters()
    mine.Float("learning_rate_factor", 0.3, 3.0, sampling="log")
    mine.Int("frozen_blocks", 0, 4)
    mine.Choice("schedule_factor", [0.5, 1.0])
    mine.Choice("own", [3, 4])
    space = make_space(mine, RULE, None, frozen_blocks=2)
    expected = {"learning_rate_factor": 1.0, "frozen_blocks": 2, "schedule_factor": 1.0}
    assert {hp.name: hp.default for hp in space.space if hp.name in expected} == expected
    assert changed_rule(RULE, space.values).decisions() == RULE.decisions()
    assert mine.values["learning_rate_factor"] == 0.3, "the user's own is not changed"
    mine = keras_tuner.HyperParameters()
    mine.Choice("mixup_alpha", [0.1, 0.2])
    with pytest.warns(UserWarning, match="first trial is not the rule.*mixup_alpha=0.0.*takes 0.1"):
        assert make_space(mine, RULE, None).values["mixup_alpha"] == 0.1


def test_a_hyperparameter_that_depends_on_another_is_not_fixed():
    mine = keras_tuner.HyperParameters()
    mine.Choice("schedule_factor", [1.0, 2.0])
    with mine.conditional_scope("schedule_factor", [2.0]):
        mine.Choice("mixup_alpha", [0.1, 0.2])
    space = make_space(mine, RULE, None)
    assert [hp.name for hp in space.space].count("mixup_alpha") == 1


def test_what_the_run_has_is_tried_and_is_the_default():
    others = {"frozen_blocks": 1, "weight_decay": 0.01, "dropout": 0.3}
    space = make_space(["frozen", "decay", "dropout"], RULE, None, **others)
    assert names(space)["weight_decay"] == [0.0, 1e-4, 1e-3, 0.01]
    assert changed_decisions(space.values) == others


@pytest.mark.parametrize(
    "given, message",
    [
        (["rat"], "`space` must name hyperparameters among rate, length.*'rat'"),
        ("rate, length", "Received: 'rate, length'"),
        (["preset"], "`space` must give the values of 'preset'"),
        ({"rate": ()}, "values of 'rate' of the type float. Received: \\[\\]"),
        ({"rate": ["high"]}, "values of 'rate' of the type float. Received: .'high'."),
        ({"frozen": [0, True]}, "values of 'frozen' of the type int"),
    ],
)
def test_refuses(given, message):
    with pytest.raises(ValueError, match=message):
        make_space(given, RULE, None)


@pytest.mark.parametrize(
    "values, expected",
    [
        ({}, {}),
        ({"learning_rate_factor": 3.0}, {"learning_rate": 3 * RULE.learning_rate}),
        ({"schedule_factor": 0.5}, {"schedule_length": 50, "boundaries": (20, 30, 40)}),
        ({"mixup_alpha": 0.1}, {"mixup_alpha": 0.1}),
        ({"crop_factor": 0.75}, {"crop_size": 72, "resize_edge": 96}),
        ({"warmup": True}, {"warmup_steps": 20}),
        (
            {"batch_factor": 0.5},
            {
                "batch_size": 32,
                "micro_batch_size": 32,
                "learning_rate": RULE.learning_rate / 2,
                "schedule_length": 200,
                "boundaries": (80, 120, 160),
            },
        ),
    ],
)
def test_what_values_change(values, expected):
    changed = changed_rule(RULE, values).decisions()
    assert changed == {**RULE.decisions(), **expected}


def test_the_micro_batch_still_divides_the_batch():
    rule = changed_rule(RULE.replace(micro_batch_size=16), {"batch_factor": 2.0})
    assert (rule.batch_size, rule.micro_batch_size) == (128, 16)


def test_what_is_decided_beside_the_rule():
    values = {"frozen_blocks": 2, "dropout": 0.5, "mixup_alpha": 0.1, "tuner/epochs": 4}
    assert changed_decisions(values) == {"frozen_blocks": 2, "dropout": 0.5}


def test_crops_that_the_network_cannot_see_are_not_tried():
    rule = RULE.replace(crop_size=40, resize_edge=48)
    assert names(make_space(["crop"], rule, None))["crop_factor"] == [1.0, 1.25]
