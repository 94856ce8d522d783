import sys

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

from keras_bit import BiTBackbone, HyperBiT, ImageDataset
from keras_bit.tuning import hypermodel
from keras_bit.weights.presets import EMBEDDED
from tests.conftest import as_numpy, exhaustive
from tests.tuning.conftest import UPDATES

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("undrawn")]


class Recorder(HyperBiT):
    """Notes what every trial started from and ended with."""

    def __init__(self, *args, **kwargs):
        self.runs = []
        super().__init__(*args, **kwargs)

    def fit(self, hp, model, *args, **kwargs):
        run = {"hp": dict(hp.values), "start": int(model.optimizer.iterations)}
        run["weights"] = model.get_weights()
        run["policy"] = model.layers[0].dtype_policy.name
        self.runs.append(run)
        history = super().fit(hp, model, *args, **kwargs)
        run["end"] = int(model.optimizer.iterations)
        run["boundaries"] = model.optimizer._learning_rate.boundaries
        run["history"] = history
        return history


class CountEpochs(keras.callbacks.Callback):
    total = 0

    def on_epoch_end(self, epoch, logs=None):
        assert "learning_rate" in logs
        CountEpochs.total += 1


def tuner_of(kind, hypermodel, tmp_path, **options):
    options = {"objective": "val_accuracy", "directory": tmp_path, "seed": 1, **options}
    return kind(hypermodel, **options)


def test_the_rule_is_the_middle_of_the_space(data, rule):
    space = keras_tuner.HyperParameters()
    assert HyperBiT(data, rule).rule_for(space) == rule
    assert space.values == {"learning_rate_factor": 1, "schedule_factor": 1, "mixup_alpha": 0}
    factor, length, alpha = space.space
    assert (factor.min_value, factor.max_value, factor.sampling) == (0.1, 10, "log")
    assert list(length.values) == [0.5, 1, 2] and list(alpha.values) == [0, 0.1, 0.2]
    other = keras_tuner.HyperParameters()
    assert HyperBiT(data, rule.replace(mixup_alpha=0.3)).rule_for(other).mixup_alpha == 0.3
    assert list(other.space[2].values) == [0, 0.1, 0.2, 0.3]


def test_hyperparameters_change_the_rule(data, rule):
    space = keras_tuner.HyperParameters()
    space.Fixed("learning_rate_factor", 3.0)
    space.Choice("schedule_factor", [2.5, 4.0])
    space.values["mixup_alpha"] = 0.1
    changed = HyperBiT(data, rule).rule_for(space)
    assert changed.learning_rate == pytest.approx(3 * 0.003 * 8 / 512)
    assert changed.schedule_length == 25 and changed.boundaries == (10, 15, 20)
    assert changed.mixup_alpha == 0.1
    assert changed.crop_size == 32 and changed.batch_size == 8


@pytest.mark.slow
def test_a_trial_trains_every_array_of_bit(data, rule, tmp_path):
    sizes = {"depth": (1, 1, 1, 1), "width": 0.125, "epochs": 2}
    recorder = HyperBiT(data, rule.replace(schedule_length=4), **sizes)
    tuner = tuner_of(keras_tuner.RandomSearch, recorder, tmp_path, max_trials=1)
    tuner.search(verbose=0)
    [trial] = tuner.oracle.get_best_trials()
    assert trial.status == "COMPLETED" and 0 <= trial.score <= 1
    [model] = tuner.get_best_models()
    backbone, head = model.layers
    assert isinstance(backbone, BiTBackbone) and np.abs(as_numpy(head.kernel)).max() > 0
    momenta = {v.path: as_numpy(v) for v in model.optimizer.variables if "momentum" in v.path}
    assert len(momenta) == len(backbone.weights) + 2
    assert all(np.abs(momentum).max() > 0 for momentum in momenta.values())


@pytest.mark.slow
def test_random_search(quick, data, rule, tmp_path, capsys):
    space = keras_tuner.HyperParameters()
    space.Choice("schedule_factor", [0.5, 1.0])
    space.Fixed("mixup_alpha", 0.1)
    recorder = Recorder(data, rule, epochs=2, cache_dir=tmp_path / "cache")
    options = {"max_trials": 2, "hyperparameters": space}
    tuner = tuner_of(keras_tuner.RandomSearch, recorder, tmp_path, **options)
    CountEpochs.total = 0
    capsys.readouterr()
    tuner.search(callbacks=[CountEpochs()], verbose=0)
    assert "Epoch" not in capsys.readouterr().out
    assert CountEpochs.total == 4 and len(recorder.runs) == 2
    for run in recorder.runs:
        assert run["hp"]["mixup_alpha"] == 0.1
        assert (run["start"], run["end"]) == (0, UPDATES * run["hp"]["schedule_factor"])
        last = run["hp"]["learning_rate_factor"] * rule.learning_rate / 1000
        assert run["history"].history["learning_rate"][-1] == pytest.approx(last, rel=1e-5)
    factors = [run["hp"]["learning_rate_factor"] for run in recorder.runs]
    assert factors[0] != factors[1] and all(0.1 <= factor <= 10 for factor in factors)

    [best] = tuner.oracle.get_best_trials()
    scores = [max(run["history"].history["val_accuracy"]) for run in recorder.runs]
    assert best.score == max(scores)
    chosen = recorder.rule_for(tuner.get_best_hyperparameters()[0])
    assert chosen.mixup_alpha == 0.1
    [model] = tuner.get_best_models()
    images = np.stack(list(data.test.map(lambda image: image))).astype("float32") / 255
    answers = model.predict(images, verbose=0).argmax(axis=-1)
    assert np.mean(answers == data.test.labels) == best.score


@pytest.mark.slow
def test_epochs_of_the_search_shorten_the_schedule(quick, data, rule, tmp_path):
    space = keras_tuner.HyperParameters()
    space.Fixed("schedule_factor", 1.0)
    options = {"max_trials": 1, "hyperparameters": space, "tune_new_entries": False}
    recorder = Recorder(data, rule, epochs=5)
    tuner = tuner_of(keras_tuner.RandomSearch, recorder, tmp_path, **options)
    tuner.search(epochs=2, verbose=0)
    [run] = recorder.runs
    assert run["end"] == 4 and run["boundaries"] == (2, 2, 3)
    assert len(run["history"].epoch) == 2
    assert recorder.rule_for(tuner.get_best_hyperparameters()[0]) == rule


def test_every_trial_keeps_the_precision_policy(quick, data, rule, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    recorder = Recorder(data, rule.replace(schedule_length=1), epochs=1)
    tuner = tuner_of(keras_tuner.RandomSearch, recorder, tmp_path, max_trials=1)
    tuner.search(verbose=0)
    [run] = recorder.runs
    assert run["policy"] == "mixed_bfloat16"


@pytest.mark.slow
@pytest.mark.exhaustive
def test_hyperband_resumes_where_the_promoted_trial_stood(quick, data, rule, tmp_path):
    space = keras_tuner.HyperParameters()
    space.Fixed("schedule_factor", 1.0)
    space.Fixed("mixup_alpha", 0.0)
    recorder = Recorder(data, rule, epochs=2, cache_dir=tmp_path / "cache")
    options = {"max_epochs": 2, "factor": 2, "hyperparameters": space}
    tuner = tuner_of(keras_tuner.Hyperband, recorder, tmp_path, **options)
    tuner.search(verbose=0)
    assert all(trial.status == "COMPLETED" for trial in tuner.oracle.trials.values())
    rounds = {"short": [], "promoted": [], "whole": []}
    for run in recorder.runs:
        short = run["hp"]["tuner/epochs"] == 1
        kind = "short" if short else "promoted" if "tuner/trial_id" in run["hp"] else "whole"
        rounds[kind].append(run)
    assert {kind: len(runs) for kind, runs in rounds.items()} == {
        "short": 2,
        "promoted": 1,
        "whole": 2,
    }
    for kind, start, end, boundaries in (
        ("short", 0, 5, (2, 3, 4)),
        ("promoted", 5, 10, (4, 6, 8)),
        ("whole", 0, 10, (4, 6, 8)),
    ):
        for run in rounds[kind]:
            assert (run["start"], run["end"], run["boundaries"]) == (start, end, boundaries), kind
    [promoted] = rounds["promoted"]
    assert promoted["history"].epoch == [1]
    source = tuner.oracle.trials[promoted["hp"]["tuner/trial_id"]]
    model = tuner.load_model(source)
    for restored, saved in zip(promoted["weights"], model.get_weights(), strict=True):
        np.testing.assert_array_equal(restored, saved)
    momentum = [as_numpy(v) for v in model.optimizer.variables[1:]]
    assert any(np.abs(values).max() > 0 for values in momentum)


class Custom(keras_tuner.Oracle):
    """An oracle of a user's: it lengthens the schedule from trial to trial."""

    def populate_space(self, trial_id):
        if len(self.trials) == 2:
            return {"status": "STOPPED"}
        factor = 0.5 * (1 + len(self.trials))
        values = {"schedule_factor": factor, "learning_rate_factor": 1.0, "mixup_alpha": 0.0}
        return {"status": "RUNNING", "values": values}


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["BayesianOptimization", exhaustive("GridSearch"), exhaustive("custom")]
)
def test_other_tuners(quick, data, rule, tmp_path, kind):
    recorder = Recorder(data, rule, epochs=2)
    if kind == "custom":
        oracle = Custom("val_accuracy")
        tuner = keras_tuner.Tuner(oracle, recorder, directory=tmp_path)
    else:
        kind = getattr(keras_tuner, kind)
        tuner = tuner_of(kind, recorder, tmp_path, max_trials=2)
    tuner.search(verbose=0)
    assert len(recorder.runs) == 2
    for run in recorder.runs:
        assert (run["start"], run["end"]) == (0, UPDATES * run["hp"]["schedule_factor"])
    [model] = tuner.get_best_models()
    images = np.stack(list(data.test.map(lambda image: image))).astype("float32") / 255
    answers = model.predict(images, verbose=0).argmax(axis=-1)
    assert np.mean(answers == data.test.labels) == tuner.oracle.get_best_trials()[0].score


def test_seeds_and_first_steps_of_the_pipelines(quick, data, rule, monkeypatch):
    asked = []

    def note(*args, **options):
        asked.append((options["seed"], options["initial_step"]))
        raise keras_tuner.errors.FailedTrialError("enough")

    monkeypatch.setattr(hypermodel, "make_pipelines", note)
    recorder = Recorder(data, rule, seed=7)
    spaces = [keras_tuner.HyperParameters() for _ in range(2)]
    spaces[1].Fixed("schedule_factor", 2.0)
    for space, iterations in ((spaces[0], 0), (spaces[0], 0), (spaces[1], 3)):
        model = recorder.build(space)
        model.optimizer.variables[0].assign(iterations)
        with pytest.raises(keras_tuner.errors.FailedTrialError, match="enough"):
            recorder.fit(space, model)
    assert asked == [(7, 0), (8, 0), (7, 3)]


@pytest.fixture
def exhausted(monkeypatch):
    """The first trial runs out of memory."""
    make, calls = hypermodel.make_pipelines, []

    def pipelines(*args, **options):
        calls.append(args)
        if len(calls) == 1:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return make(*args, **options)

    monkeypatch.setattr(hypermodel, "make_pipelines", pipelines)


@pytest.mark.slow
def test_a_trial_without_memory_is_not_tried_again(quick, exhausted, data, rule, tmp_path):
    recorder = Recorder(data, rule, epochs=1)
    options = {"max_trials": 2, "max_retries_per_trial": 2}
    tuner = tuner_of(keras_tuner.RandomSearch, recorder, tmp_path, **options)
    tuner.search(verbose=0)
    assert len(recorder.runs) == 2
    states = {trial.status: trial.message for trial in tuner.oracle.trials.values()}
    assert set(states) == {"FAILED", "COMPLETED"}
    assert "The trial ran out of memory (OOM when allocating tensor)" in states["FAILED"]


@pytest.mark.parametrize(
    "error, scarce",
    [
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), True),
        (tf.errors.InternalError(None, None, "RESOURCE_EXHAUSTED: Out of memory"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate"), True),
        (MemoryError(), True),
        (RuntimeError("the head is missing"), False),
        (tf.errors.InvalidArgumentError(None, None, "shapes differ"), False),
        (ValueError("out of memory"), False),
    ],
)
@pytest.mark.parametrize("where", ["compile_classifier", "make_pipelines"])
def test_which_errors_are_of_memory(quick, data, rule, monkeypatch, where, error, scarce):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(hypermodel, where, fail)
    trial, space = HyperBiT(data, rule), keras_tuner.HyperParameters()
    expected = keras_tuner.errors.FailedTrialError if scarce else type(error)
    with pytest.raises(expected) as raised:
        trial.fit(space, trial.build(space))
    assert (raised.value.__cause__ if scarce else raised.value) is error


def test_an_error_before_the_first_epoch_is_told_as_it_is(quick, data, rule, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("labels do not fit")

    monkeypatch.setattr(keras.Model, "fit", fail)
    trial, space = HyperBiT(data, rule), keras_tuner.HyperParameters()
    with pytest.raises(ValueError, match="labels do not fit"):
        trial.fit(space, trial.build(space))
    assert trial.last_run.summary()["history"] == {}
    trial.build(space)
    assert trial.last_run is None


def test_each_search_begins_with_the_seed_of_the_plan(quick, data, rule):
    trial, space = HyperBiT(data, rule, seed=5), keras_tuner.HyperParameters()
    trial._runs[hypermodel._key(space)] = 2
    with trial.traced_once():
        assert trial._seed(space) == 5


@pytest.mark.parametrize(
    "args, kwargs, message",
    [
        ((np.ones(3),), {}, "brings the data.*1 unnamed"),
        ((), {"validation_data": 1}, "brings the data.*validation_data"),
        ((), {"epochs": 11}, "`max_epochs` of Hyperband.*epochs=11 with HyperBiT\\(epochs=10\\)"),
        ((), {"epochs": 0}, "epochs=0"),
    ],
)
def test_a_search_with_other_arguments_ends_at_once(
    quick, data, rule, tmp_path, args, kwargs, message
):
    recorder = Recorder(data, rule)
    tuner = tuner_of(keras_tuner.RandomSearch, recorder, tmp_path, max_trials=3)
    with pytest.raises(keras_tuner.errors.FatalValueError, match=message):
        tuner.search(*args, **kwargs)
    assert len(recorder.runs) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"data": "photos"}, "`data` must be a keras_bit.ImageDataset.*'photos'"),
        ({"rule": 500}, "`rule` must be a keras_bit.HyperRule.*500"),
        ({"epochs": 0}, "`epochs`.*0"),
        ({"seed": -1}, "`seed`.*-1"),
        ({"preset": "m-r50x1", "width": 2}, "`depth` and `width` must be"),
    ],
)
def test_refuses_bad_arguments(data, rule, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        HyperBiT(**{"data": data, "rule": rule, **arguments})


def test_class_weights_are_those_of_all_trials(quick, data, rule, monkeypatch):
    trial, space = HyperBiT(data, rule, class_weight="balanced"), keras_tuner.HyperParameters()
    batch = next(iter(trial.make_data(space, trial.rule_for(space), seed=0, initial_step=0)[0]))
    np.testing.assert_allclose(
        batch[2], batch[1].numpy() @ np.float32(trial.plan.class_weight), rtol=1e-6
    )
    assert trial.decisions_for(space)["class_weight"] == trial.plan.class_weight


def test_images_of_several_labels_are_refused(data, rule):
    images, labels = np.zeros((4, 32, 32, 3), np.uint8), np.ones((4, 2), int)
    several = ImageDataset.from_arrays(images, labels, images, labels)
    with pytest.raises(ValueError, match="`data` of a search must have one label"):
        HyperBiT(several)


def test_the_plan_is_made_once_for_all_trials(data, rule):
    trial = HyperBiT(data, rule, preset="m-r50x1", seed=3, cache_dir="cache", remat=True)
    plan = trial.plan
    assert (plan.preset, plan.depth, plan.width) == ("m-r50x1", 50, 1)
    assert (plan.seed, plan.cache_dir, plan.remat, plan.rule) == (3, "cache", True, rule)
    model = HyperBiT(data, rule).build(keras_tuner.HyperParameters())
    ours = BiTBackbone.from_preset(EMBEDDED)
    for variable, expected in zip(model.backbone.weights, ours.weights, strict=True):
        np.testing.assert_array_equal(variable, expected)
    assert model.head.num_classes == 2


@pytest.mark.slow
@pytest.mark.exhaustive
def test_precision_remat_and_the_largest_micro_batch_are_those_of_all_trials(
    data, rule, tmp_path, monkeypatch
):
    asked = []

    def find(backbone, classes, rule, verbose):
        asked.append(backbone.remat)
        return rule.replace(micro_batch_size=4)

    monkeypatch.setattr(sys.modules["keras_bit.training.plan"], "find_micro_batch", find)
    small = {"depth": (1, 1, 1, 1), "width": 0.25}
    settings = {"dtype": "mixed_bfloat16", "remat": True, "micro_batch_size": "auto"}
    recorder = Recorder(data, rule, **small, **settings, epochs=2)
    tuner = tuner_of(keras_tuner.RandomSearch, recorder, tmp_path, max_trials=2)
    tuner.search(verbose=0)
    assert asked == [True]
    assert recorder.rule.micro_batch_size == 4
    assert [run["policy"] for run in recorder.runs] == ["mixed_bfloat16"] * 2
    assert keras.config.dtype_policy().name == "float32"
    with pytest.raises(ValueError, match="`micro_batch_size` must be .auto.*Received"):
        HyperBiT(data, rule, micro_batch_size=4)


def test_trials_are_planned_for_the_devices_that_train_them(data, rule, monkeypatch, two_replicas):
    import tensorflow as tf

    cpus = tf.config.list_logical_devices("CPU")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda device_type: cpus)
    assert hypermodel.plan_on_all_devices(data, rule=rule).devices == 2
    assert HyperBiT(data, rule).plan.devices == 1
    with two_replicas.scope():
        assert HyperBiT(data, rule).plan.devices == 2


def test_an_epoch_is_a_share_of_the_schedule(data, rule):
    with pytest.raises(ValueError, match="`steps_per_epoch` must be omitted.*steps_per_epoch=3"):
        HyperBiT(data, rule, steps_per_epoch=3)
