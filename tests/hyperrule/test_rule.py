import copy
import dataclasses
import json
import pickle

import keras
import numpy as np
import pytest

from keras_bit import HyperRule, presets
from keras_bit.hyperrule.optimizer import SGD
from keras_bit.weights.recipe import Recipe


@pytest.mark.parametrize(
    "dataset_size, length, boundaries, warmup, alpha",
    [
        (1, 500, (200, 300, 400), 100, 0.0),
        (19_999, 500, (200, 300, 400), 100, 0.0),
        (20_000, 10_000, (3_000, 6_000, 9_000), 500, 0.1),
        (499_999, 10_000, (3_000, 6_000, 9_000), 500, 0.1),
        (500_000, 20_000, (6_000, 12_000, 18_000), 500, 0.1),
    ],
)
def test_table_of_the_paper(dataset_size, length, boundaries, warmup, alpha):
    rule = HyperRule(224, dataset_size, warmup=True)
    assert (rule.schedule_length, rule.boundaries) == (length, boundaries)
    assert (rule.warmup_steps, rule.mixup_alpha) == (warmup, alpha)
    assert (rule.learning_rate, rule.momentum) == (0.003, 0.9)
    assert HyperRule(224, dataset_size).warmup_steps == 0


@pytest.mark.parametrize(
    "image_size, edges",
    [
        (32, (160, 128)),
        (95, (160, 128)),
        (96, (512, 480)),
        ((64, 143), (160, 128)),  # 9152 pixels, under 9216
        ((64, 144), (512, 480)),  # exactly 96 x 96
        ([480, 640], (512, 480)),
    ],
)
def test_image_sizes(image_size, edges):
    rule = HyperRule(image_size, 1000)
    assert (rule.resize_edge, rule.crop_size) == edges


def test_batch_size_scales_rate_and_all_lengths():
    rule = HyperRule(32, 50_000, batch_size=64, warmup=True)
    assert rule.learning_rate == 0.000375
    assert rule.schedule_length == 80_000
    assert rule.boundaries == (24_000, 48_000, 72_000)
    assert rule.warmup_steps == 4_000


def test_rounding_is_to_the_nearest_step_halves_up():
    # 500, 200, 300, 400 and 100 times 512 / 1024: halves where odd; times 512 / 1000: fractions.
    assert HyperRule(32, 1000, batch_size=1000).boundaries == (102, 154, 205)  # 102.4 153.6 204.8
    rule = HyperRule(32, 1000, batch_size=512, schedule_length=25, warmup=True)
    assert (rule.boundaries, rule.warmup_steps) == ((10, 15, 20), 5)
    odd = HyperRule(32, 1000, schedule_length=5, warmup=True)
    assert (odd.boundaries, odd.warmup_steps) == ((2, 3, 4), 1)
    assert HyperRule(32, 30_000, schedule_length=5).boundaries == (2, 3, 5)  # 1.5, 3, 4.5
    assert HyperRule(32, 1000, batch_size=10**7).schedule_length == 1


def test_overrides_keep_the_rest_consistent():
    rule = HyperRule(224, 1000, crop_size=240)
    assert (rule.resize_edge, rule.crop_size) == (256, 240)
    rule = HyperRule(32, 1000, resize_edge=80)
    assert (rule.resize_edge, rule.crop_size) == (80, 64)
    assert HyperRule(32, 1000, resize_edge=70, crop_size=65).crop_size == 65
    assert HyperRule(32, 1000, random_crop=False).resize_edge == 128
    assert HyperRule(32, 1000, crop_size=50, random_crop=False).resize_edge == 50
    assert HyperRule(32, 1000, mixup_alpha=0.3).mixup_alpha == 0.3
    assert HyperRule(32, 50_000, mixup_alpha=0).mixup_alpha == 0.0
    assert HyperRule(32, 1000, learning_rate=0.1, batch_size=7).learning_rate == 0.1
    assert HyperRule(32, 1000, random_flip=False).random_flip is False


def test_micro_batches():
    rule = HyperRule(32, 1000, batch_size=512, micro_batch_size=64)
    assert (rule.micro_batch_size, rule.accumulation_steps) == (64, 8)
    assert rule.optimizer().gradient_accumulation_steps == 8
    assert rule.learning_rate == 0.003 and rule.schedule_length == 500
    whole = HyperRule(32, 1000, batch_size=512)
    assert (whole.micro_batch_size, whole.accumulation_steps) == (512, 1)
    assert whole.optimizer().gradient_accumulation_steps is None


def test_micro_batches_train_as_the_whole_batch_does(rng):
    x = rng.normal(size=(48, 8)).astype("float32")
    y = rng.normal(size=(48, 3)).astype("float32")
    start = [rng.normal(size=(8, 3)).astype("float32"), np.zeros(3, "float32")]

    def train(micro_batch_size):
        rule = HyperRule(
            32, 48, 12, micro_batch_size=micro_batch_size, schedule_length=8, learning_rate=0.1
        )
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        model.set_weights(start)
        model.compile(rule.optimizer(), "mse")
        model.fit(x, y, batch_size=rule.micro_batch_size, epochs=2, shuffle=False, verbose=0)
        assert int(model.optimizer.iterations) == 8
        return model.get_weights()

    whole, split = train(12), train(3)
    assert np.abs(whole[0] - start[0]).max() > 0.1
    for a, b in zip(whole, split, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_optimizer_is_sgd_with_momentum_and_the_schedule():
    optimizer = HyperRule(32, 1000, batch_size=128).optimizer()
    assert type(optimizer) is SGD and isinstance(optimizer, keras.optimizers.SGD)
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, False)
    assert float(optimizer.learning_rate) == pytest.approx(0.00075, rel=1e-6)


def test_the_optimizer_takes_what_sgd_takes():
    rule = HyperRule(32, 1000, batch_size=128, micro_batch_size=64)
    given = {"clipnorm": 0.5, "weight_decay": 1e-4, "use_ema": True, "nesterov": True}
    config = rule.optimizer(**given, momentum=0.8).get_config()
    assert {name: config[name] for name in given} == given and config["momentum"] == 0.8
    assert config["gradient_accumulation_steps"] == 2
    for name, value in {"learning_rate": 0.1, "gradient_accumulation_steps": 4}.items():
        with pytest.raises(ValueError, match=f"`{name}` is decided by the rule. Received: {name}="):
            rule.optimizer(**{name: value})


def test_decisions_are_all_that_is_decided():
    rule = HyperRule((30, 40), 1000, 64, micro_batch_size=32, warmup=True, schedule_length=10)
    assert rule.decisions() == {
        "image_size": (30, 40),
        "dataset_size": 1000,
        "batch_size": 64,
        "micro_batch_size": 32,
        "accumulation_steps": 2,
        "resize_edge": 160,
        "crop_size": 128,
        "random_crop": True,
        "random_flip": True,
        "mixup_alpha": 0.0,
        "schedule_length": 10,
        "boundaries": (4, 6, 8),
        "warmup_steps": 2,
        "learning_rate": 0.000375,
        "momentum": 0.9,
    }
    assert rule.given["schedule_length"] == 10 and rule.given["learning_rate"] is None


def test_is_immutable():
    rule = HyperRule(32, 1000)
    with pytest.raises(AttributeError):
        rule.batch_size = 3
    with pytest.raises(AttributeError):
        del rule.batch_size
    assert rule.batch_size == 512
    rule.get_config()["batch_size"] = 3
    assert rule.replace().batch_size == 512


def test_replace_decides_again():
    rule = HyperRule(32, 1000).replace(batch_size=64)
    assert rule == HyperRule(32, 1000, 64)
    assert rule.schedule_length == 4000
    assert HyperRule(32, 1000, schedule_length=9).replace(batch_size=64).schedule_length == 9


def test_equality_copy_and_serialization():
    rule = HyperRule((30, 40), 1000, 64, micro_batch_size=32, warmup=True, random_crop=False)
    restored = HyperRule.from_config(json.loads(json.dumps(rule.get_config())))
    assert restored == rule and hash(restored) == hash(rule)
    assert copy.deepcopy(rule) == rule == pickle.loads(pickle.dumps(rule))
    assert rule != HyperRule((30, 40), 1001, 64) and rule != "rule"
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rule))
    assert again == rule
    assert eval(repr(rule)) == rule


def test_table_tells_decisions_and_reasons():
    text = str(HyperRule(224, 3_000, 64, micro_batch_size=16))
    for part in (
        "512x512",
        "480x480",
        "4,000",
        "1,600, 2,400, 3,200",
        "0.000375",
        "4 micro-batches of 16",
    ):
        assert part in text
    assert "`crop_size`, as given" in str(HyperRule(224, 3_000, crop_size=240))
    assert max(map(len, text.splitlines())) <= 100


RECIPE = Recipe(
    "net", 32, 0.1, 250, warmup=True,
    small_images=(48, 40), large_images=(80, 64), few_images=(50, 45), few_below=700,
)  # fmt: skip


def test_a_recipe_takes_the_place_of_the_tables():
    rule = HyperRule((300, 400), 1000, batch_size=32, recipe=RECIPE)
    assert (rule.learning_rate, rule.schedule_length, rule.mixup_alpha) == (0.1, 250, 0.0)
    assert (rule.resize_edge, rule.crop_size) == (80, 64)
    # Boundaries and warm-up in the proportions of 500: 200, 300, 400 and 100.
    assert (rule.boundaries, rule.warmup_steps) == ((100, 150, 200), 50)
    # By hand, at twice the batch and for 50,000 small images: 10,000 / 500 * 250 / 2 updates.
    large = HyperRule(32, 50_000, batch_size=64, recipe=RECIPE)
    assert (large.learning_rate, large.schedule_length) == (0.2, 2500)
    assert (large.boundaries, large.warmup_steps) == ((750, 1500, 2250), 125)
    assert large.mixup_alpha == 0.1  # by the number of images, as the rule has it
    assert (large.resize_edge, large.crop_size) == (48, 40)
    few = HyperRule(300, 699, recipe=RECIPE)
    assert (few.resize_edge, few.crop_size) == (50, 45)
    assert HyperRule(300, 700, recipe=RECIPE).crop_size == 64
    assert HyperRule(32, 699, recipe=RECIPE).crop_size == 40


def test_arguments_come_before_the_recipe():
    changes = {"learning_rate": 0.5, "schedule_length": 10, "warmup": False, "mixup_alpha": 0.2}
    rule = HyperRule(300, 1000, 32, recipe=RECIPE, crop_size=32, **changes)
    assert {name: rule.decisions()[name] for name in ("learning_rate", "schedule_length")} == {
        "learning_rate": 0.5, "schedule_length": 10
    }  # fmt: skip
    assert (rule.warmup_steps, rule.mixup_alpha) == (0, 0.2)
    mixed = dataclasses.replace(RECIPE, mixup_alpha=0.4)
    assert HyperRule(300, 50_000, recipe=mixed).mixup_alpha == 0.4
    assert HyperRule(300, 50_000, recipe=mixed, mixup_alpha=0).mixup_alpha == 0
    assert (rule.resize_edge, rule.crop_size) == (40, 32)  # the recipe's proportion, 80 to 64


def test_the_table_says_what_suits_the_network():
    lines = str(HyperRule(300, 1000, 32, recipe=RECIPE, crop_size=32)).splitlines()
    suited = [line.split()[0] for line in lines if "suits net" in line]
    assert suited == ["training", "updates", "warm-up", "learning"]
    assert "suits" not in str(HyperRule(300, 1000, 32))
    mixed = dataclasses.replace(RECIPE, mixup_alpha=0.4)
    (line,) = (
        line for line in str(HyperRule(300, 9, recipe=mixed)).splitlines() if "MixUp" in line
    )
    assert line.split() == ["MixUp", "alpha", "0.4", "suits", "net"]


def test_a_recipe_survives_json_and_replace():
    rule = HyperRule(300, 1000, 32, recipe=RECIPE)
    config = json.loads(json.dumps(rule.get_config()))
    again = HyperRule.from_config(config)
    assert again == rule and again.get_config() == rule.get_config()
    assert rule.replace(batch_size=64).learning_rate == 0.2
    assert str(again) == str(rule)
    for bad in ("f-r14x0.5", 3, {"name": "net"}):
        with pytest.raises(ValueError, match="`recipe` must be that of a preset"):
            HyperRule(300, 1000, recipe=bad)


def test_the_rule_of_a_preset():
    recipe = presets()["f-r14x0.5"].recipe
    rule = HyperRule.for_preset("f-r14x0.5", 500, 1000)
    assert rule == HyperRule(500, 1000, recipe.batch_size, recipe=recipe)
    assert rule.learning_rate == recipe.learning_rate
    assert HyperRule.for_preset("f-r14x0.5", 500, 1000, 16, crop_size=96).crop_size == 96
    for name, preset in presets().items():
        if name != "f-r14x0.5":
            assert preset.recipe is None  # Google's keep the published rule
    assert HyperRule.for_preset("m-r50x1", 500, 1000) == HyperRule(500, 1000)
    assert HyperRule.for_preset("m-r50x1", 500, 1000, 64) == HyperRule(500, 1000, 64)
    with pytest.raises(ValueError, match="must be one of keras_bit.presets"):
        HyperRule.for_preset("f-r14", 500, 1000)


def test_numpy_numbers_become_plain_ones():
    rule = HyperRule(
        np.array([300, 400]).tolist(), np.int64(1000), np.int32(64),
        schedule_length=np.int64(2), learning_rate=np.float32(0.01), mixup_alpha=np.float64(0.1),
        crop_size=np.uint8(64), warmup=np.bool_(True), random_flip=np.bool_(False),
    )  # fmt: skip
    assert HyperRule.from_config(json.loads(json.dumps(rule.get_config()))) == rule
    assert json.loads(json.dumps(rule.decisions()))["schedule_length"] == 2
    assert type(rule.learning_rate) is float and rule.random_flip is False


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"warmup": "no"}, "warmup"),
        ({"random_crop": "false"}, "random_crop"),
        ({"random_flip": None}, "random_flip"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": (32,)}, "image_size"),
        ({"image_size": (32, -1)}, "image_size"),
        ({"image_size": "32"}, "image_size"),
        ({"dataset_size": 0}, "dataset_size"),
        ({"dataset_size": 1.5}, "dataset_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"batch_size": 10, "micro_batch_size": 3}, "micro_batch_size"),
        ({"schedule_length": 0}, "schedule_length"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"resize_edge": 0}, "resize_edge"),
        ({"crop_size": 200, "resize_edge": 100}, "crop_size"),
        ({"crop_size": 50, "resize_edge": 60, "random_crop": False}, "resize_edge"),
        ({"mixup_alpha": -0.1}, "mixup_alpha"),
    ],
)
def test_refuses_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"(?s)`{name}`.*Received"):
        HyperRule(**{"image_size": 32, "dataset_size": 1000, **arguments})
