import csv
import dataclasses
import json
import logging
import pathlib
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

import keras_bit
from keras_bit.checkpoints.files import newest_checkpoint
from keras_bit.core import device
from keras_bit.core.device import Device
from keras_bit.evaluation import report
from keras_bit.training import RunPlan
from keras_bit.training.run_folder import UNFINISHED_FOLDER
from keras_bit.weights.presets import EMBEDDED
from tests.image_files import make_folder

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("undrawn")]

# With a sixteenth of the width some seeds learn nothing, and then rounding decides.
TINY = {"depth": (1, 1, 1, 1), "width": 1 / 4}
RULE = {"batch_size": 16, "schedule_length": 12, "crop_size": 32, "learning_rate": 0.05}
FILES = {
    "model.keras",
    "label_names.json",
    "outputs.json",
    "rule.json",
    "plan.json",
    "history.csv",
    "metrics.json",
    "report.html",
    *(f"report/{name}" for name in report.PICTURE_FILES),
} - {f"report/{name}" for name in (report.CLASSES, report.MAPS)}  # one label, and no mistakes


def colors(count, seed=0):
    """Noise with a red, green or blue square: three classes that anything can learn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = rng.integers(0, 120, (count, 32, 32, 3)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4:28, 4:28, label] = 255
    return images, labels


@pytest.fixture(scope="module")
def data():
    names = ("red", "green", "blue")
    return keras_bit.ImageDataset.from_arrays(*colors(48), *colors(13, 1), label_names=names)


@pytest.fixture
def quick(monkeypatch):
    """Puts a model that trains in a moment in the place of BiT."""

    def classifier(backbone, head):
        model = keras.Sequential([backbone, head])
        model.build((None, None, None, 3))
        return model

    def build_classifier(plan):
        with device.policy_scope(plan.precision):
            head = keras_bit.ZeroInitHead(len(plan.data.label_names))
            return classifier(keras.layers.GlobalAveragePooling2D(), head)

    monkeypatch.setattr("keras_bit.training.run_files.BiTClassifier", classifier)
    monkeypatch.setattr(RunPlan, "build_classifier", build_classifier)


@pytest.fixture
def lines(caplog):
    """The lines that a silent run logs."""
    with caplog.at_level(logging.INFO, "keras_bit"):
        yield caplog


def files_in(folder):
    folder = pathlib.Path(folder)
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return {path.as_posix() for path in paths}


def content_of(folder):
    return {name: (pathlib.Path(folder) / name).read_bytes() for name in files_in(folder)}


class RuinHead(keras.callbacks.Callback):
    """Sets the bias of the head when an epoch begins."""

    def __init__(self, bias, epoch):
        super().__init__()
        self.bias, self.epoch = np.array(bias), epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.model.layers[-1].bias.assign(self.bias)


@pytest.fixture(scope="module")
def whole_run(data, tmp_path_factory):
    """One run of everything, which is best after its first epoch; read by several tests."""
    output = tmp_path_factory.mktemp("run") / "deep" / "output"
    return keras_bit.fine_tune(
        data,
        **TINY,
        **RULE,
        steps_per_epoch=5,
        output=output,
        callbacks=[RuinHead([0.0, 1e4, 0.0], epoch=1)],
        verbose=0,
    )


def test_a_run_leaves_its_files_and_nothing_else(whole_run):
    result = whole_run
    written = files_in(result.output)
    logs = {name for name in written if name.startswith("logs/")}
    assert written - logs == FILES
    assert {name.split("/")[1] for name in logs} == {"train", "validation"}
    assert not (result.output / UNFINISHED_FOLDER).exists()


def test_history_has_a_row_for_every_epoch_and_ends_with_the_schedule(whole_run):
    result = whole_run
    with open(result.output / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["updates"]) for row in rows] == [5, 10, 12] == result.history["updates"]
    rates = [float(row["learning_rate"]) for row in rows]
    # The boundaries of a schedule of 12 are 5, 7 and 10.
    assert rates == pytest.approx([0.05, 0.0005, 0.00005]) == result.history["learning_rate"]
    for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert [float(row[key]) for row in rows] == pytest.approx(result.history[key])


def test_the_best_weights_are_the_result_and_not_the_last(whole_run, data):
    result = whole_run
    accuracies = result.history["val_accuracy"]
    assert accuracies[0] > accuracies[-1] == pytest.approx(4 / 13)
    assert result.metrics["accuracy"] == pytest.approx(accuracies[0])
    assert result.metrics["loss"] == pytest.approx(result.history["val_loss"][0], rel=1e-4)
    assert result.metrics["best_update"] == 5
    _, test = keras_bit.pipelines(data, result.rule)
    loss, accuracy = result.model.evaluate(test, verbose=0)
    assert (loss, accuracy) == pytest.approx(
        (result.metrics["loss"], result.metrics["accuracy"]), rel=1e-4
    )


@pytest.mark.slow
def test_the_saved_model_gives_the_same_logits_and_takes_any_size(whole_run, data):
    result = whole_run
    saved = keras.saving.load_model(result.output / "model.keras")
    images = colors(5, 2)[0].astype("float32") / 255
    expected = result.model.predict(images, verbose=0)
    np.testing.assert_allclose(saved.predict(images, verbose=0), expected, rtol=1e-5, atol=1e-6)
    assert saved(np.zeros((1, 48, 40, 3), "float32")).shape == (1, 3)
    assert not saved.compiled


def test_rule_labels_and_metrics_can_be_read_back(whole_run):
    result = whole_run
    stored = json.loads((result.output / "rule.json").read_text())
    assert keras_bit.HyperRule.from_config(stored["config"]) == result.rule
    assert (stored["crop_size"], stored["boundaries"]) == (32, list(result.rule.boundaries))
    names = json.loads((result.output / "label_names.json").read_text())
    assert names == ["red", "green", "blue"]
    metrics = json.loads((result.output / "metrics.json").read_text())
    assert metrics == result.metrics
    assert (metrics["training_images"], metrics["validation_images"]) == (48, 13)
    assert metrics["weights"] == "random"


@pytest.mark.filterwarnings("ignore:.*could not be read")
def test_images_that_only_decoding_shows_to_be_unreadable_are_not_counted(tmp_path):
    make_folder(tmp_path, {"cat": 9, "dog": 9}, size=(40, 40))
    options = {"depth": (1, 1, 1, 1), "width": 0.0625, "batch_size": 4, "schedule_length": 1}
    options |= {"crop_size": 32, "resize_edge": 36, "verbose": 0}

    def break_images(count):
        for path in sorted((tmp_path / "dog").iterdir())[:count]:
            path.write_bytes(path.read_bytes()[:60])

    def fine_tune():
        data = keras_bit.image_folder(tmp_path)
        return data, keras_bit.fine_tune(data, **options).metrics

    break_images(5)
    data, metrics = fine_tune()
    assert metrics["training_images"] + metrics["validation_images"] == 13 < data.train_size
    break_images(9)
    with pytest.raises(ValueError, match="Every class must have training images.*none of dog"):
        fine_tune()


def test_the_plan_is_stored_and_told(whole_run):
    text = (whole_run.output / "plan.json").read_text()
    assert RunPlan.from_json(text) == whole_run.plan
    assert (whole_run.plan.preset, whole_run.plan.epochs) == (None, 3)


def test_the_evaluation_is_that_of_the_best_weights(whole_run, data):
    evaluation = whole_run.evaluation
    assert evaluation.labels.tolist() == data.test.labels.tolist()
    assert evaluation.names == data.test.names and evaluation.label_names == data.label_names
    images = np.stack(list(data.test.map(lambda image: image))).astype("float32") / 255
    np.testing.assert_allclose(
        evaluation.logits, whole_run.model.predict(images, verbose=0), rtol=1e-5, atol=1e-6
    )
    assert evaluation.metrics["accuracy"] == whole_run.metrics["accuracy"]


def test_an_output_folder_that_holds_anything_is_refused_untouched(whole_run, data, tmp_path):
    result = whole_run
    before = content_of(result.output)
    with pytest.raises(FileExistsError, match="which holds a run"):
        keras_bit.fine_tune(data, **RULE, output=result.output)
    assert content_of(result.output) == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="which holds files"):
        keras_bit.fine_tune(data, **RULE, output=tmp_path)
    with pytest.raises(NotADirectoryError, match="`output`"):
        keras_bit.fine_tune(data, **RULE, output=tmp_path / "notes.txt")
    assert files_in(tmp_path) == {"notes.txt"}


@pytest.mark.slow
def test_overwriting_replaces_the_run_and_keeps_other_files(data, quick, tmp_path):
    keras_bit.fine_tune(data, **RULE, output=tmp_path, verbose=0)
    mine = {"notes.txt", "report/notes.txt", "logs/notes.txt"}
    for name in mine:
        (tmp_path / name).write_text("mine")
    old_logs = {name for name in files_in(tmp_path) if "tfevents" in name}
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(FILES <= files_in(tmp_path))
    )
    keras_bit.fine_tune(
        data, **RULE, output=tmp_path, overwrite=True, report=False, callbacks=[look], verbose=0
    )
    assert seen and all(seen), "the old run must stay until the new one is complete"
    left = files_in(tmp_path)
    logs = {name for name in left if "tfevents" in name}
    no_report = {name for name in FILES if not name.startswith("report")}
    assert left - logs == no_report | mine
    assert len(logs) == 2 and not logs & old_logs
    assert all((tmp_path / name).read_text() == "mine" for name in mine)


class Stop(Exception):
    pass


def stop(*arguments, **keywords):
    raise Stop


def test_a_run_that_fails_before_its_first_validation_leaves_nothing(data, quick, tmp_path):
    failing = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
    with pytest.raises(Stop):
        keras_bit.fine_tune(data, **RULE, output=tmp_path, callbacks=[failing], verbose=0)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_ends_the_run(data, quick):
    ruin = RuinHead([np.nan] * 3, epoch=1)
    settings = {"steps_per_epoch": 2, "callbacks": [ruin], "verbose": 0}
    with pytest.raises(FloatingPointError, match="training loss has become nan by update 3"):
        keras_bit.fine_tune(data, **RULE, **settings)


class RuinWeights(keras.callbacks.Callback):
    """Makes weights NaN after an epoch's last update, before its validation."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_test_begin(self, logs=None):
        if int(self.model.optimizer.iterations) == 12:
            weights = [w for w in self.model.weights if w.path.endswith(self.path)]
            for weight in weights:
                weight.assign(weight * np.nan)


def test_nan_in_the_last_validation_alone_fails_the_run(data, quick, tmp_path):
    settings = {"callbacks": [RuinWeights("bias")], "output": tmp_path, "verbose": 0}
    with pytest.raises(FloatingPointError, match="validation loss has become nan by update 12"):
        keras_bit.fine_tune(data, **RULE, **settings)
    # What was best before is kept in the checkpoint, and no model that is NaN.
    kept = newest_checkpoint(tmp_path / "unfinished" / "checkpoints").arrays
    best = [array for name, array in kept.items() if "best_weights" in name]
    assert best and all(np.isfinite(array).all() for array in best)
    assert not (tmp_path / "model.keras").exists()


def test_weights_that_compiled_code_hides_fail_the_run(data, quick, monkeypatch):
    # As if a ReLU had turned the NaN into 0: the loss is finite.
    ruin = RuinWeights("kernel")

    def call(head, x):
        return keras.ops.nan_to_num(keras.ops.matmul(x, head.kernel)) + head.bias

    monkeypatch.setattr(keras_bit.ZeroInitHead, "call", call)
    with pytest.raises(FloatingPointError, match="Weights have become infinite or NaN by update"):
        keras_bit.fine_tune(data, **RULE, callbacks=[ruin], verbose=0)


@pytest.mark.slow
def test_a_rate_far_too_large_fails_the_run(data, tmp_path):
    changes = {**RULE, "learning_rate": 1e6}
    with pytest.raises(FloatingPointError, match="Likely causes: .*learning rate, 1e.06"):
        keras_bit.fine_tune(data, **changes, output=tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").glob("model*"))


def test_onednn_is_hinted_at_once(data, quick, monkeypatch, capsys):
    module = sys.modules["keras_bit.training.run"]
    module._hint_at_onednn.cache_clear()
    monkeypatch.setattr(module, "is_left_off", lambda: True)
    for _ in range(2):
        keras_bit.fine_tune(data, **RULE, report=False)
    assert capsys.readouterr().out.count("export TF_ENABLE_ONEDNN_OPTS=1") == 1
    module._hint_at_onednn.cache_clear()
    monkeypatch.setattr(module, "is_left_off", lambda: False)
    keras_bit.fine_tune(data, **RULE, report=False)
    assert "ONEDNN" not in capsys.readouterr().out
    module._hint_at_onednn.cache_clear()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"overwrite": "no"}, "`overwrite` must be True or False"),
        ({"report": "no"}, "`report` must be True or False"),
        ({"output": ""}, "`output` must name a folder"),
        ({"callbacks": [print]}, "`callbacks` must hold"),
        ({"callbacks": 3}, "`callbacks` must hold"),
        ({"freeze_backbone": "no"}, "`freeze_backbone` must be True or False"),
        ({"remat": "no"}, "`remat` must be True or False"),
        ({"cache_dir": ""}, "`cache_dir` must name a folder"),
        ({"preset": ""}, "preset|`source`|`name`"),
        ({"crop_size": 16}, "`crop_size` must be at least 32.*Received: crop_size=16"),
        ({"width": True}, "`width`"),
        ({"seed": -1}, "`seed`"),
    ],
)
def test_arguments_are_checked_before_the_first_image_is_read(
    data, monkeypatch, arguments, message
):
    monkeypatch.setattr("keras_bit.training.run.cache_splits", lambda *_: pytest.fail("too late"))
    with pytest.raises(ValueError, match=message):
        keras_bit.fine_tune(data, **arguments, verbose=0)


@pytest.mark.slow
def test_numpy_numbers_are_as_good(data, quick, tmp_path):
    result = keras_bit.fine_tune(
        data, batch_size=np.int64(16), schedule_length=np.int64(2), crop_size=np.int32(32),
        learning_rate=np.float32(0.01), seed=np.uint8(3), freeze_backbone=np.bool_(False),
        steps_per_epoch=np.int64(1), output=tmp_path, verbose=0,
    )  # fmt: skip
    text = (tmp_path / "plan.json").read_text()
    assert RunPlan.from_json(text) == result.plan
    assert json.loads((tmp_path / "metrics.json").read_text())["seed"] == 3


def test_without_output_nothing_is_written(data, quick, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    result = keras_bit.fine_tune(data, **RULE, verbose=0)
    assert result.output is None
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""
    assert result.metrics["accuracy"] == pytest.approx(max(result.history["val_accuracy"]))


@pytest.mark.slow
def test_the_seed_decides_the_run(data, quick):
    losses = [
        keras_bit.fine_tune(data, **RULE, seed=seed, verbose=0).history["loss"]
        for seed in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]


def make_tagged(count, seed):
    """Images of which channels are bright, and which these are."""
    rng = np.random.RandomState(seed)
    labels = (rng.uniform(size=(count, 3)) < [0.5, 0.4, 0.2]).astype(np.uint8)
    images = rng.randint(60, 120, (count, 36, 36, 3)).astype(np.uint8)
    return images + 120 * labels[:, None, None], labels


@pytest.mark.slow
def test_images_of_several_labels(tmp_path):
    data = keras_bit.ImageDataset.from_arrays(
        *make_tagged(96, 0), *make_tagged(40, 1), ("red", "green", "blue")
    )
    rule = {"crop_size": 32, "batch_size": 16, "schedule_length": 60, "learning_rate": 0.05}
    result = keras_bit.fine_tune(data, **rule, mixup_alpha=0, output=tmp_path / "run", verbose=0)
    assert {"pr_auc", "val_pr_auc"} <= set(result.history)
    scores = result.history["val_pr_auc"]
    assert result.metrics["best_update"] == result.history["updates"][int(np.argmax(scores))]
    labels, names = data.test.labels, data.label_names
    assert average_precision_score(labels, result.evaluation.logits) > 0.95
    best = result.metrics["mean_average_precision"]
    assert best == pytest.approx(average_precision_score(labels, result.evaluation.logits))
    # Read back, the model names the labels above their thresholds.
    files = []
    for i, image in enumerate(data.test.map(np.array)):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(files[-1])
    predictions = list(keras_bit.predict_files(tmp_path / "run", files))
    for prediction, expected in zip(predictions, result.evaluation.predictions, strict=True):
        found = [name for name, _ in prediction.classes]
        assert sorted(found) == sorted(np.array(names)[expected.astype(bool)])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "mean average precision" in page.lower() and "green" in page


@pytest.mark.slow
def test_balanced_classes_change_the_loss_of_training_only(data, quick):
    plain, weighted = (
        keras_bit.fine_tune(data, **RULE, class_weight=weight, verbose=0).history
        for weight in (None, dict.fromkeys(data.label_names, 2.0))
    )
    # At the first update all logits are zero, whatever the weights: the loss is twice log(classes).
    assert weighted["val_loss"][0] < 1.5 * plain["val_loss"][0]
    assert weighted["loss"][0] == pytest.approx(2 * plain["loss"][0], rel=0.2)


def test_a_split_batch_makes_one_update_of_the_plan_s_optimizer(data, quick):
    settings = {**RULE, "micro_batch_size": 4, "weight_decay": 0.5, "steps_per_epoch": 8}
    result = keras_bit.fine_tune(data, **settings, verbose=0)
    assert result.history["updates"] == [2, 4, 6, 8, 10, 12]
    assert result.model.optimizer.weight_decay == 0.5


def test_batch_size_is_64_by_default_and_the_rest_follows_from_the_data(data, quick):
    result = keras_bit.fine_tune(data, schedule_length=1, crop_size=32, verbose=0)
    changes = {"schedule_length": 1, "crop_size": 32}
    assert result.rule == keras_bit.HyperRule.for_preset("f-r14x0.5", 32, 48, 64, **changes)


def test_arguments_that_contradict_each_other(data):
    rule = keras_bit.HyperRule(32, 48)
    with pytest.raises(ValueError, match="beside `rule`.*Received: `crop_size`"):
        keras_bit.fine_tune(data, rule=rule, crop_size=32)
    with pytest.raises(ValueError, match="`preset` is given.*depth=101"):
        keras_bit.fine_tune(data, preset="m-r50x1", depth=101)
    with pytest.raises(TypeError, match="crop_sise"):
        keras_bit.fine_tune(data, crop_sise=32)


def test_a_run_says_what_the_weights_of_this_package_are(data, lines):
    settings = {"batch_size": 16, "schedule_length": 2, "crop_size": 32, "freeze_backbone": True}
    result = keras_bit.fine_tune(data, verbose=0, **settings)
    assert f"{EMBEDDED}  " in lines.messages[0]
    assert "trained on synthetic (formula-driven) images, not Google's" in lines.messages[0]
    assert result.metrics["weights"] == EMBEDDED
    ours = keras_bit.BiTBackbone.from_preset(EMBEDDED)
    for variable, expected in zip(result.model.backbone.weights, ours.weights, strict=True):
        np.testing.assert_array_equal(variable, expected)


@pytest.fixture
def gpu(monkeypatch):
    found = Device("gpu", "Test GPU", None, True)
    for module in ("core.device", "training.micro_batch", "training.run"):
        monkeypatch.setattr(f"keras_bit.{module}.current_device", lambda: found)
    monkeypatch.setattr(sys.modules["keras_bit.training.plan"], "current_device", lambda: found)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_precision_and_remat_are_the_run_s_alone_and_are_told(data, gpu, tmp_path, lines):
    result = keras_bit.fine_tune(
        data,
        **TINY,
        **RULE,
        remat=True,
        output=tmp_path / "run",
        report=False,
        verbose=0,
    )
    assert keras.config.dtype_policy().name == "float32"
    assert result.model.backbone.remat and result.model.backbone.compute_dtype == "bfloat16"
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["precision"] == "mixed_bfloat16" and metrics["remat"] is True
    assert "mixed_bfloat16" in lines.messages[0] and "on Test GPU" in lines.messages[0]
    saved = keras.saving.load_model(tmp_path / "run" / "model.keras")
    images = colors(5, 2)[0].astype("float32") / 255
    logits = saved.predict(images, verbose=0)
    np.testing.assert_array_equal(logits, result.model.predict(images, verbose=0))
    assert logits.dtype == np.float32


def test_callbacks_may_log_values_of_their_own(data, quick, tmp_path):
    def log(epoch, logs):
        logs["every"] = epoch
        logs.update({"second": epoch} if epoch % 2 else {})

    logger = keras.callbacks.LambdaCallback(on_epoch_end=log)
    output = tmp_path / "run"
    keras_bit.fine_tune(
        data, **RULE, steps_per_epoch=4, output=output, report=False, callbacks=[logger], verbose=0
    )
    with open(output / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["every"] for row in rows] == ["0", "1", "2"] and "second" not in rows[0]


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_an_explicit_precision_is_heeded(data, quick, gpu, dtype):
    result = keras_bit.fine_tune(data, **RULE, dtype=dtype, verbose=0)
    assert result.metrics["precision"] == dtype == result.model.dtype_policy.name
    scaled = isinstance(result.model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (dtype == "mixed_float16")


@pytest.mark.parametrize("with_rule", [False, True])
def test_the_largest_micro_batch_is_that_of_the_run(data, quick, monkeypatch, tmp_path, with_rule):
    monkeypatch.setattr(
        sys.modules["keras_bit.training.plan"],
        "find_micro_batch",
        lambda backbone, classes, rule, verbose: rule.replace(micro_batch_size=4),
    )
    arguments = dict(RULE)
    if with_rule:
        arguments = {"rule": keras_bit.HyperRule(data.image_size, data.train_size, **RULE)}
    output = tmp_path / "run"
    settings = {"micro_batch_size": "auto", "output": output, "report": False, "verbose": 0}
    result = keras_bit.fine_tune(data, **arguments, **settings)
    assert result.rule.micro_batch_size == 4 and result.rule.accumulation_steps == 4
    assert result.model.optimizer.gradient_accumulation_steps == 4
    assert result.history["updates"][-1] == RULE["schedule_length"]
    assert json.loads((output / "rule.json").read_text())["config"]["micro_batch_size"] == 4


def test_a_plan_is_run_as_it_is(data, quick, tmp_path):
    plan = keras_bit.plan(data, **RULE, steps_per_epoch=4, seed=3)
    stored = RunPlan.from_json(plan.to_json())
    results = [
        keras_bit.fine_tune(data, plan=stored, verbose=0),
        keras_bit.fine_tune(data, **RULE, steps_per_epoch=4, seed=3, verbose=0),
    ]
    assert results[0].plan is stored and results[0].history == results[1].history
    assert results[0].history["updates"] == [4, 8, 12]


def test_a_plan_that_does_not_fit_is_refused(data, quick):
    plan = keras_bit.plan(data, **RULE)
    other = keras_bit.ImageDataset.from_arrays(*colors(48), *colors(13, 2))
    with pytest.raises(ValueError, match="`plan` must have been made for the same data.*test_fin"):
        keras_bit.fine_tune(other, plan=plan)
    with pytest.raises(ValueError, match="must not stand beside `plan`. Received: crop_size"):
        keras_bit.fine_tune(data, plan=plan, crop_size=32)
    with pytest.raises(ValueError, match="`plan` must be a RunPlan"):
        keras_bit.fine_tune(data, plan="plan.json")
    elsewhere = dataclasses.replace(plan, device=Device("gpu", "Test GPU", None, True))
    with pytest.warns(UserWarning, match="made on Test GPU and runs on CPU"):
        keras_bit.fine_tune(data, plan=elsewhere, verbose=0)


def test_the_test_images_are_read_once_after_training(data, quick, monkeypatch):
    reads = []
    make = sys.modules["keras_bit.training.run"].make_pipelines

    def counted(*args, **kwargs):
        import tensorflow as tf

        train, test = make(*args, **kwargs)

        def note(images, labels):
            tf.py_function(lambda count: reads.append(int(count)), [tf.shape(labels)[0]], [])
            return images, labels

        return train, test.map(note)

    monkeypatch.setattr("keras_bit.training.run.make_pipelines", counted)
    validations = []
    count = keras.callbacks.LambdaCallback(on_test_end=lambda logs: validations.append(len(reads)))
    keras_bit.fine_tune(data, **RULE, steps_per_epoch=6, callbacks=[count], verbose=0)
    assert validations == [1, 2] and len(reads) == 3
