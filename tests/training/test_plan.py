import dataclasses
import json
import math
import sys

import keras
import numpy as np
import pytest

import keras_bit
from keras_bit.checkpoints.settings import differences
from keras_bit.core.device import Device
from keras_bit.training import RunPlan
from keras_bit.training.data_summary import DataSummary
from keras_bit.training.resolve import check_arguments, resolve_preset
from keras_bit.weights.presets import EMBEDDED
from tests.conftest import as_numpy
from tests.weight_files import SMALL, random_arrays, save_npz

pytestmark = pytest.mark.tensorflow

RULE = {"batch_size": 16, "schedule_length": 25, "crop_size": 32}
RECIPE = keras_bit.presets()[EMBEDDED].recipe
MODULE = sys.modules["keras_bit.training.plan"]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (61, 40, 36, 3)).astype("uint8")
    labels = np.arange(61) % 3
    return keras_bit.ImageDataset.from_arrays(
        images[:48], labels[:48], images[48:], labels[48:], ("red", "green", "blue")
    )


def test_everything_is_resolved(data, tmp_path):
    plan = keras_bit.plan(data, **RULE, micro_batch_size=8, cache_dir=tmp_path, seed=3)
    rule = keras_bit.HyperRule((40, 36), 48, micro_batch_size=8, recipe=RECIPE, **RULE)
    assert plan.rule == rule
    assert (plan.preset, plan.depth, plan.width) == (EMBEDDED, (1, 1, 1, 1), 0.5)
    model = plan.build_classifier()
    assert plan.parameters == model.count_params()
    assert (plan.data.train_size, plan.data.test_size) == (48, 13)
    assert plan.data == DataSummary(
        (40, 36), ("red", "green", "blue"), (16, 16, 16), (5, 4, 4), 0,
        data.train.fingerprint, data.test.fingerprint,
    )  # fmt: skip
    assert (plan.freeze_backbone, plan.remat, plan.precision) == (False, False, "float32")
    assert (plan.seed, plan.device.kind) == (3, "cpu")
    # 25 updates of two steps; a tenth, rounded up to whole updates, is three updates.
    assert (plan.steps_per_epoch, plan.epochs) == (6, 9)
    assert plan.cache_dir == str(tmp_path)
    assert plan.cache_sizes == (48 * rule.resize_edge**2 * 3, 13 * 32**2 * 3)
    backbone = keras_bit.BiTBackbone((1, 1, 1, 1), 0.5)
    assert plan.memory == keras_bit.training_memory(backbone, 3, rule)
    assert plan.memory_with_remat.total < plan.memory.total
    assert plan.duration.operations > 0 and plan.duration.seconds > 0


def test_the_rule_suits_the_network(data, rng, tmp_path):
    suited = keras_bit.HyperRule.for_preset(EMBEDDED, (40, 36), 48)
    plan = keras_bit.plan(data)
    assert plan.rule == suited and f"suits {EMBEDDED}" in str(plan)
    # Whoever trained the weights of the same small network, and if nobody did.
    assert keras_bit.plan(data, depth=(1, 1, 1, 1), width=0.5).rule == suited
    assert keras_bit.plan(data, learning_rate=0.5).rule == suited.replace(learning_rate=0.5)
    published = keras_bit.HyperRule((40, 36), 48, 64)
    for network in ({"preset": "m-r50x1"}, {"depth": 50}):
        plan = keras_bit.plan(data, **network)
        assert plan.rule == published and "suits" not in str(plan)
    path = save_npz(tmp_path / "small.npz", random_arrays(rng))
    assert keras_bit.plan(data, preset=path).rule == published


def test_a_plan_is_as_good_in_json(data, tmp_path):
    for options in ({}, {"depth": 50, "remat": True, "cache_dir": tmp_path}):
        plan = keras_bit.plan(data, **RULE, **options)
        again = RunPlan.from_json(plan.to_json())
        assert again == plan and str(again) == str(plan)
        assert again.rule.get_config()["crop_size"] == 32
        assert json.loads(plan.to_json())["rule"]["schedule_length"] == 25
    for text in ("", "{}", "[1]", plan.to_json().replace('"seed"', '"sead"')):
        with pytest.raises(ValueError, match="`text` must be what `RunPlan.to_json` returns"):
            RunPlan.from_json(text)


def test_a_plan_cannot_be_changed(data):
    plan = keras_bit.plan(data, **RULE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.seed = 1


def test_the_table_tells_what_is_decided(data, monkeypatch):
    device = Device("gpu", "Test GPU", 16 * 10**9, True)
    monkeypatch.setattr(MODULE, "current_device", lambda: device)
    plan = keras_bit.plan(data, **RULE, depth=50, dtype="mixed_bfloat16")
    text = str(plan)
    expected = (
        "48", "3 classes", "13", "median size 40x36 pixels", "R50x1", "23,506,499 parameters",
        "random", "mixed_bfloat16", "on Test GPU, 16.0 GB for Keras", "one every 3 steps",
        "in memory", "GFLOP/s, measured", "with remat", "images that fit",
    )  # fmt: skip
    for part in expected:
        assert part in text, part
    assert str(plan.rule) in text
    assert max(map(len, text.splitlines())) <= 120
    assert "with remat" not in str(keras_bit.plan(data, **RULE, remat=True))
    assert "  head" in str(keras_bit.plan(data, **RULE, freeze_backbone=True))
    assert "decay" not in text and "dropout" not in text and "  all\n" in text
    text = str(keras_bit.plan(data, **RULE, frozen_blocks=2, weight_decay=1e-4, dropout=0.25))
    words = " ".join(text.split())
    for part in ("trained all above block 2", "weight decay 0.0001 times", "dropout 0.25 of the"):
        assert part in words


def test_a_file_of_weights_decides_the_network(data, rng, tmp_path):
    path = save_npz(tmp_path / "small.npz", random_arrays(rng))
    plan = keras_bit.plan(data, preset=path, **RULE)
    assert (plan.preset, plan.depth, plan.width) == (str(path), SMALL["depth"], SMALL["width"])
    assert plan.build_classifier().count_params() == plan.parameters


def test_a_preset_need_not_be_downloaded(data, monkeypatch):
    plan = keras_bit.plan(data, preset="m-r101x3", **RULE)
    assert (plan.depth, plan.width) == (101, 3)
    assert plan.memory.weights == 4 * plan.parameters == 4 * (381_789_888 + (6144 + 1) * 3)


def test_auto_is_resolved_in_the_plan(data, monkeypatch):
    asked = []

    def find(backbone, classes, rule, verbose):
        asked.append((backbone.remat, classes, verbose))
        return rule.replace(micro_batch_size=4)

    monkeypatch.setattr(MODULE, "find_micro_batch", find)
    rule = keras_bit.HyperRule(data.image_size, data.train_size, **RULE)
    for arguments in ({"rule": rule}, RULE):
        options = {"micro_batch_size": "auto", "remat": True, "verbose": 0}
        plan = keras_bit.plan(data, **arguments, **options)
        assert plan.rule.micro_batch_size == plan.memory.images == 4
        assert plan.steps_per_epoch == 3 * 4
    assert asked == [(True, 3, 0)] * 2


def test_the_precision_is_the_plan_s_alone(data):
    plan = keras_bit.plan(data, **RULE, dtype="mixed_bfloat16", depth=(1, 1, 1, 1), width=0.125)
    model = plan.build_classifier()
    assert model.backbone.compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize(
    "given, depth, width",
    [({"depth": (1, 1, 1, 1)}, (1, 1, 1, 1), 1), ({"width": 1 / 16}, 50, 1 / 16)],
)
def test_a_model_with_random_weights(data, given, depth, width):
    model = keras_bit.plan(data, **RULE, **given).build_classifier()
    backbone = model.backbone
    assert (backbone.depth, backbone.width, backbone.remat) == (depth, width, False)
    assert len(backbone.trainable_weights) == len(backbone.weight_shapes())
    assert not model.non_trainable_variables
    images = np.ones((2, 32, 32, 3), "float32")
    np.testing.assert_array_equal(as_numpy(model(images)), np.zeros((2, 3)))


def test_a_model_with_pretrained_weights(data, rng):
    model = keras_bit.plan(data, **RULE, freeze_backbone=True, remat=True).build_classifier()
    images = rng.uniform(0, 1, (2, 45, 40, 3)).astype("float32")
    expected = keras_bit.BiTBackbone.from_preset("f-r14x0.5")(images)
    np.testing.assert_allclose(as_numpy(model.backbone(images)), as_numpy(expected), rtol=1e-4)
    trained = [weight.path for weight in model.trainable_weights]
    assert trained == [weight.path for weight in model.head.weights]
    assert model.backbone.remat and model.head.num_classes == 3


@pytest.mark.parametrize("network", [{}, {"depth": (1, 1, 1, 1), "width": 1 / 16}])
def test_frozen_blocks_are_those_next_to_the_input(data, network):
    parts = ["root_block", "block1", "block2", "block3", "block4", "group_norm", "head"]
    for frozen_blocks in (0, 1, 3, 4):
        plan = keras_bit.plan(data, **RULE, **network, frozen_blocks=frozen_blocks)
        model = plan.build_classifier()
        named = {**model.backbone.named_weights(), **model.head.named_weights()}
        trained = [id(weight) for weight in model.trainable_variables]
        found = {name.partition("/")[0] for name in named if id(named[name]) in trained}
        assert found == set(parts[frozen_blocks + 1 :] if frozen_blocks else parts)
        sizes = [math.prod(weight.shape) for weight in model.trainable_variables]
        assert plan.memory.training == 2 * 4 * sum(sizes)
        assert (plan.memory_with_remat is None) == (frozen_blocks == 4)


def test_dropout_is_the_head_s_and_follows_the_seed(data):
    small = {**RULE, "depth": (1, 1, 1, 1), "width": 1 / 16}
    head = keras_bit.plan(data, **small, dropout=0.25, seed=3).build_classifier().head
    assert (head.dropout, head.seed) == (0.25, 3)
    assert keras_bit.plan(data, **small).build_classifier().head.dropout == 0


def test_weight_decay_is_the_optimizer_s(data):
    assert keras_bit.plan(data, **RULE).optimizer().weight_decay is None
    rule = keras_bit.HyperRule(36, 48, 16, learning_rate=0.5, schedule_length=100)
    optimizer = keras_bit.plan(data, rule=rule, weight_decay=0.1).optimizer()
    weight = keras.Variable(2.0)
    for gradient, expected in (
        (1.0, 2.0 - 0.1 * 0.5 * 2.0 - 0.5),
        # 1.4, less its decay, and a step of 0.9 * 0.5 + 0.5 * 2: of momentum, which has no decay.
        (2.0, 1.4 - 0.1 * 0.5 * 1.4 - (0.9 * 0.5 + 0.5 * 2.0)),
    ):
        optimizer.apply([keras.ops.array(gradient)], [weight])
        assert float(weight) == pytest.approx(expected, rel=1e-5)


def test_plans_and_checkpoints_of_earlier_versions_lack_some_decisions(data):
    plan = keras_bit.plan(data, **RULE)
    content = json.loads(plan.to_json())
    new = {name: content.pop(name) for name in ("frozen_blocks", "weight_decay", "dropout")}
    new["class_weight"] = content.pop("class_weight")
    del content["data"]["sizes"]
    assert RunPlan.from_json(json.dumps(content)) == plan
    assert not set(new) & set(plan.settings()) and "seed" in plan.settings()
    for name, value in (("frozen_blocks", 1), ("weight_decay", 0.1), ("dropout", 0.5)):
        other = keras_bit.plan(data, **RULE, **{name: value})
        assert RunPlan.from_json(other.to_json()) == other != plan
        assert differences(plan.settings(), other.settings()) == [f"{name}: nothing, now {value}"]


def test_a_plan_has_the_weight_of_each_class(data):
    labels = data.train.labels
    plan = keras_bit.plan(data, **RULE, class_weight="balanced")
    present = len(set(labels.tolist()))
    expected = [len(labels) / (present * n) for n in np.bincount(labels, minlength=present)]
    np.testing.assert_allclose(plan.class_weight, expected)
    assert RunPlan.from_json(plan.to_json()) == plan and "class weights" in str(plan)
    assert "class_weight" in plan.settings()
    names = {data.label_names[0]: 2}
    assert keras_bit.plan(data, **RULE, class_weight=names).class_weight[:2] == (2, 1)


def test_a_plan_of_images_with_several_labels():
    images, labels = np.zeros((20, 32, 32, 3), np.uint8), np.ones((20, 3), int)
    labels[::2, 0] = 0
    data = keras_bit.ImageDataset.from_arrays(images, labels, images[:5], labels[:5])
    plan = keras_bit.plan(data, **RULE)
    assert plan.data.multi_label and (plan.data.train_size, plan.data.test_size) == (20, 5)
    assert plan.data.train_counts == (10, 20, 20)
    assert RunPlan.from_json(plan.to_json()) == plan and "3 labels" in str(plan)
    assert plan.settings()["data"]["sizes"] == (20, 5)
    with pytest.raises(ValueError, match="`class_weight` must be omitted"):
        keras_bit.plan(data, **RULE, class_weight="balanced")


def test_a_preset_excludes_depth_and_width():
    assert resolve_preset(None, None, None) == "f-r14x0.5"
    assert resolve_preset("m-r50x1", None, None) == "m-r50x1"
    assert resolve_preset(None, 50, None) is None and resolve_preset(None, None, 2) is None
    with pytest.raises(ValueError, match="`depth` and `width` must be omitted.*width=2"):
        resolve_preset("m-r50x1", None, 2)


BAD = [
    ({"preset": "m-r50x7"}, "Did you mean 'm-r50x"),
    ({"preset": "m-r50x1", "depth": 101}, "`depth` and `width` must be omitted"),
    ({"depth": 49}, "`depth` must be"),
    ({"width": 0.3}, "`width` must be"),
    ({"dtype": "float23"}, "`dtype` must be"),
    ({"micro_batch_size": 7}, "`micro_batch_size` must divide"),
    ({"batch_size": 0}, "`batch_size` must be"),
    ({"steps_per_epoch": 0}, "`steps_per_epoch` must be"),
    ({"seed": -1}, "`seed` must be"),
    ({"frozen_blocks": 5}, "`frozen_blocks` must be at most 4"),
    ({"frozen_blocks": -1}, "`frozen_blocks` must be an integer of at least 0"),
    ({"frozen_blocks": True}, "`frozen_blocks` must be an integer"),
    ({"frozen_blocks": 1.5}, "`frozen_blocks` must be an integer"),
    ({"frozen_blocks": 1, "freeze_backbone": True}, "must be omitted where `freeze_backbone`"),
    ({"weight_decay": -0.1}, "`weight_decay` must be a finite number of at least 0"),
    ({"weight_decay": math.inf}, "`weight_decay` must be a finite number"),
    ({"weight_decay": "0.1"}, "`weight_decay` must be a finite number"),
    ({"dropout": 1}, "`dropout` must be a number of at least 0 and below 1"),
    ({"dropout": None}, "`dropout` must be a number"),
    ({"class_weight": "even"}, '`class_weight` must be "balanced", a dict'),
    ({"class_weight": [1, -1]}, "`class_weight` must have finite numbers"),
]


@pytest.mark.parametrize("arguments, message", BAD)
def test_refuses_bad_arguments_with_and_without_data(data, arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_bit.plan(data, **arguments)
    with pytest.raises(ValueError, match=message):
        check_arguments(**arguments)


def test_what_needs_the_data_to_be_refused(data):
    rule = keras_bit.HyperRule(32, 48)
    with pytest.raises(ValueError, match="beside `rule`.*Received: `crop_size`"):
        keras_bit.plan(data, rule=rule, crop_size=32)
    with pytest.raises(ValueError, match="`rule` must be a keras_bit.HyperRule"):
        keras_bit.plan(data, rule=500)
    with pytest.raises(TypeError, match="`data` must be .*keras_bit.image_folder"):
        keras_bit.plan("photos")
    check_arguments(batch_size=32, micro_batch_size="auto", remat=True, cache_dir="x")
