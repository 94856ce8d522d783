import copy
import csv
import math
import re
import warnings

import keras
import numpy as np
import pytest

from keras_bit import HyperRule, fit_hyperrule
from tests.conftest import ON_TORCH, as_numpy, not_on_torch

X = np.random.default_rng(0).normal(size=(36, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(36, 2)).astype("float32")
BATCHES = 9  # of four


def rule_of(length, accumulation=1):
    return HyperRule(32, 36, 4, micro_batch_size=4 // accumulation, schedule_length=length)


def model_of(rule, optimizer=None, **options):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(optimizer or rule.optimizer(), "mse", **options)
    return model


class Batches(keras.utils.PyDataset):
    """Batches for either backend; endless ones go round."""

    def __init__(self, size, endless, first=0):
        super().__init__()
        self.size = size
        self.endless = endless
        self.first = first

    def __len__(self):
        return 10**6 if self.endless else math.ceil(len(X) / self.size)

    def __getitem__(self, index):
        index += self.first
        rows = np.arange(index * self.size, (index + 1) * self.size) % len(X)
        return X[rows], Y[rows]


def run(rule, endless=True, data=None, callbacks=(), steps_per_epoch=None, **options):
    model = model_of(rule, **options)
    data = data or Batches(rule.micro_batch_size, endless)
    arguments = fit_hyperrule(rule, steps_per_epoch, callbacks)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*ran out of data")
        warnings.filterwarnings("ignore", message=".*jit")
        history = model.fit(data, validation_data=(X, Y), verbose=0, **arguments)
    return model, history


class Poisoned(Batches):
    """One batch holds NaN, counted as they are asked for: Keras asks for some more at first."""

    def __init__(self, *arguments, bad):
        super().__init__(*arguments)
        self.until_bad = bad

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        self.until_bad -= 1
        return (x * np.nan, y) if self.until_bad == -1 else (x, y)


@pytest.mark.parametrize("accumulation, first", [(1, 22), (2, 11)])
@pytest.mark.parametrize(
    "beside", [(), (keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None),)]
)
def test_a_loss_that_is_not_finite_ends_training_within_the_epoch(accumulation, first, beside):
    rule, seen = rule_of(500, accumulation), []
    callbacks = [
        keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: seen.append(batch))
    ]
    data = Poisoned(rule.micro_batch_size, True, bad=23)
    message = r"training loss has become nan by update (\d+). .*`value_range`.*learning rate"
    with pytest.raises(FloatingPointError, match=message) as error:
        run(rule, data=data, steps_per_epoch=500, callbacks=[*callbacks, *beside])
    assert 22 <= len(seen) < 480  # not to the end of the epoch
    update = int(re.search(message, str(error.value))[1])
    # Elsewhere Keras calls it in threads, of which a later one may come first.
    is_exact = beside or keras.backend.backend() == "tensorflow"
    assert first <= update <= (first + 2 if is_exact else len(seen))


def test_a_validation_loss_that_is_not_finite_ends_training():
    rule = rule_of(8)
    model = model_of(rule)
    saved = []
    later = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: saved.append(epoch))
    with pytest.raises(FloatingPointError, match="validation loss has become nan by update 4"):
        model.fit(
            Batches(4, True), validation_data=(X * np.nan, Y), verbose=0,
            **fit_hyperrule(rule, 4, later),
        )  # fmt: skip
    assert saved == []  # other callbacks, which keep the best weights, do not see such an epoch


@pytest.mark.parametrize("endless", [True, False])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(
    "steps_per_execution", [1, *(pytest.param(n, marks=not_on_torch) for n in (4, 7))]
)
@pytest.mark.parametrize("length", [pytest.param(40, marks=pytest.mark.slow), 43])
def test_runs_exactly_the_schedule(length, steps_per_execution, accumulation, endless):
    rule = rule_of(length, accumulation)
    model, history = run(rule, endless, steps_per_execution=steps_per_execution)
    assert int(model.optimizer.iterations) == length
    assert model.steps_per_execution == steps_per_execution
    if endless:
        assert len(history.epoch) == math.ceil(length / math.ceil(length / 10))
        assert len(history.history["val_loss"]) == len(history.epoch)


@pytest.mark.parametrize("steps_per_execution", [1, pytest.param(4, marks=not_on_torch)])
def test_trains_on_the_batches_that_plain_fit_would(steps_per_execution):
    rule = rule_of(20)
    model, _ = run(rule, steps_per_execution=steps_per_execution)
    plain = model_of(rule)
    keras.utils.set_random_seed(0)
    start = model_of(rule).get_weights()
    for each in (model, plain):
        each.set_weights(start)
    model.compile(rule.optimizer(), "mse", steps_per_execution=steps_per_execution)
    model.fit(Batches(4, True), shuffle=False, verbose=0, **fit_hyperrule(rule))
    plain.fit(Batches(4, True), shuffle=False, epochs=1, steps_per_epoch=20, verbose=0)
    for a, b in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_hands_its_arguments_to_fit():
    other = keras.callbacks.TerminateOnNaN()
    callback = fit_hyperrule(rule_of(40, accumulation=2), callbacks=other)
    arguments = dict(**callback)
    assert arguments["steps_per_epoch"] == 8 and callback.planned_epochs == 10
    assert arguments["callbacks"] == [callback, other]
    assert arguments["epochs"] == 80
    with pytest.raises(KeyError):
        callback["batch_size"]


def test_progress_bar_shows_the_planned_epochs(capsys):
    rule = rule_of(40)
    model_of(rule).fit(Batches(4, True), verbose=2, **fit_hyperrule(rule, steps_per_epoch=15))
    printed = capsys.readouterr().out
    assert "Epoch 1/3" in printed and "Epoch 3/3" in printed and "Epoch 4" not in printed


def test_last_epoch_may_be_shorter():
    steps = []
    count = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: steps.append(0),
        on_train_batch_end=lambda batch, logs: steps.append(steps.pop() + 1),
    )
    run(rule_of(25), callbacks=[count], steps_per_epoch=10)
    assert steps == [10, 10, 5]


def test_as_a_plain_callback_it_ends_training():
    rule = rule_of(20)
    model = model_of(rule, steps_per_execution=1 if ON_TORCH else 4)
    history = model.fit(
        Batches(4, True), epochs=50, steps_per_epoch=6, callbacks=[fit_hyperrule(rule)], verbose=0
    )
    assert int(model.optimizer.iterations) == 20
    assert len(history.epoch) == 4


@pytest.mark.parametrize("arguments", [{"epochs": 3, "steps_per_epoch": 6}, {"epochs": 2}])
def test_refuses_a_fit_that_ends_too_early(arguments):
    rule = rule_of(20)
    model = model_of(rule)
    with pytest.raises(ValueError, match="(?s)`epochs` and `steps_per_epoch`.*Received: epochs="):
        model.fit(Batches(4, False), callbacks=[fit_hyperrule(rule)], verbose=0, **arguments)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_warns_where_an_early_end_could_not_be_foreseen():
    rule = rule_of(20)

    def generator():
        yield from ((X[:4], Y[:4]) for _ in range(7))

    with pytest.warns(UserWarning, match="updates before the end of the schedule"):
        model_of(rule).fit(generator(), callbacks=[fit_hyperrule(rule)], verbose=0)


def test_a_resumed_run_ends_where_one_run_would(tmp_path):
    rule = rule_of(30)
    model = model_of(rule)
    whole = model_of(rule)
    whole.set_weights(model.get_weights())
    # Its batches run on from epoch to epoch, so that the rest begins with the seventh.
    whole.fit(Batches(4, True), shuffle=False, verbose=0, **fit_hyperrule(rule))

    class StopAfterTwoEpochs(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    stop = fit_hyperrule(rule, callbacks=[StopAfterTwoEpochs()])
    model.fit(Batches(4, True), shuffle=False, verbose=0, **stop)
    assert int(model.optimizer.iterations) == 6
    model.save(tmp_path / "interrupted.keras")
    restored = keras.saving.load_model(tmp_path / "interrupted.keras")
    rest = Batches(4, True, first=6)
    history = restored.fit(rest, shuffle=False, verbose=0, **fit_hyperrule(rule))
    assert int(restored.optimizer.iterations) == 30
    assert len(history.epoch) == 8
    assert len(whole.optimizer.variables) == len(restored.optimizer.variables) == 3
    for a, b in (
        *zip(whole.get_weights(), restored.get_weights(), strict=True),
        *zip(whole.optimizer.variables, restored.optimizer.variables, strict=True),
    ):
        np.testing.assert_allclose(as_numpy(b), as_numpy(a), rtol=1e-5, atol=1e-7)


def test_a_finished_schedule_is_not_trained_on():
    rule = rule_of(10)
    model, _ = run(rule)
    before = model.get_weights()
    with pytest.warns(UserWarning, match="had ended before the first step"):
        model.fit(Batches(4, True), validation_data=(X, Y), verbose=0, **fit_hyperrule(rule))
    assert int(model.optimizer.iterations) == 10
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_skipped_float16_updates_are_made_up_for():
    # The first losses overflow on purpose: the scale halves with every skipped update.
    class LargeTargets(Batches):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x, 10 * y

    rule = rule_of(20)
    optimizer = keras.optimizers.LossScaleOptimizer(rule.optimizer(), initial_scale=2.0**127)
    model, _ = run(rule, data=LargeTargets(4, True), optimizer=optimizer)
    assert int(model.optimizer.iterations) == 20
    assert float(as_numpy(model.optimizer.dynamic_scale)) < 2.0**127


def test_beside_other_callbacks(tmp_path):
    rule = rule_of(40)
    model, history = run(
        rule,
        callbacks=[
            keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True),
            keras.callbacks.CSVLogger(tmp_path / "history.csv"),
            keras.callbacks.EarlyStopping(patience=100),
        ],
    )
    assert int(model.optimizer.iterations) == 40
    rates = history.history["learning_rate"]
    expected = [float(rule.schedule()(step)) for step in range(4, 41, 4)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    with open(tmp_path / "history.csv") as file:
        logged = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(logged, rates, rtol=1e-6)
    assert keras.saving.load_model(tmp_path / "best.keras").optimizer.iterations > 0


def test_early_stopping_still_stops():
    stop = keras.callbacks.EarlyStopping(monitor="learning_rate", mode="max", patience=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, history = run(rule_of(40), callbacks=[stop])
    assert len(history.epoch) == 3 and int(model.optimizer.iterations) == 12


CLASSES = (Y[:, 0] > 0).astype("int32")


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "loss, labels, metrics",
    [
        ("categorical_crossentropy", np.eye(2)[CLASSES], ["accuracy"]),
        ("sparse_categorical_crossentropy", CLASSES, ["accuracy"]),
        ("mse", Y, None),
    ],
)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_first_step_is_traced_once(loss, labels, metrics, accumulation):
    import tensorflow as tf

    rule, traces, histories = rule_of(BATCHES, accumulation), [], []
    for arguments in (fit_hyperrule(rule, steps_per_epoch=BATCHES * accumulation), {}):
        keras.utils.set_random_seed(0)
        model = model_of(rule)
        model.compile(rule.optimizer(), loss, metrics=metrics, weighted_metrics=metrics)
        model.train_step = lambda data, step=model.train_step: traces.append(0) or step(data)
        data = tf.data.Dataset.from_tensor_slices((X, labels)).batch(rule.micro_batch_size)
        histories.append(model.fit(data, verbose=0, **arguments).history)
        assert len(traces) == (1 if arguments else 1 + 2), "and twice with plain `fit`"
    for name, values in histories[1].items():
        np.testing.assert_allclose(histories[0][name], values, rtol=1e-6)


class OneHotInside(keras.Sequential):
    """Takes class ids with a number beside them, which Keras's own steps do not understand."""

    def train_step(self, data):
        images, ids, weight, _ = data
        return super().train_step((images, keras.ops.one_hot(ids, 4), weight))


@pytest.mark.tensorflow
def test_models_with_a_step_of_their_own_are_left_to_keras():
    import tensorflow as tf

    ids = np.arange(32) % 4  # as many classes as images in a batch, where ids would pass for labels
    data = tf.data.Dataset.from_tensor_slices((X[:32], ids, np.ones(32), ids)).batch(4)
    rule, accuracies = rule_of(BATCHES), []
    for arguments in (fit_hyperrule(rule, steps_per_epoch=8), {"epochs": 2}):
        keras.utils.set_random_seed(0)
        model = OneHotInside([keras.Input((3,)), keras.layers.Dense(4)])
        model.compile(rule.optimizer(), "mse", metrics=["accuracy"])
        accuracies.append(model.fit(data, verbose=0, **arguments).history["accuracy"][0])
    assert accuracies[0] == accuracies[1]


class Bias(keras.layers.Layer):
    def build(self, _):
        self.bias = self.add_weight(shape=(), initializer="zeros")

    def call(self, x):
        return 0 * x + self.bias


@pytest.mark.tensorflow
@pytest.mark.parametrize("steps_per_execution", [1, 4])
@pytest.mark.parametrize("steps_per_epoch", [5, BATCHES, 60])
def test_steps_that_find_no_more_data_are_not_counted(steps_per_epoch, steps_per_execution):
    import tensorflow as tf

    model = keras.Sequential([keras.Input((3,)), Bias()])
    model.compile(
        keras.optimizers.SGD(1.0),
        loss=lambda labels, outputs: keras.ops.mean(outputs, -1),  # its gradient is 1
        steps_per_execution=steps_per_execution,
    )
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4).filter(lambda x, y: True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*ran out of data")
        warnings.filterwarnings("ignore", message=".*does not follow")
        model.fit(data, verbose=0, **fit_hyperrule(rule_of(60), steps_per_epoch))
    assert int(model.optimizer.iterations) == 60
    assert float(model.layers[0].bias.numpy()) == -60


@pytest.mark.tensorflow
def test_an_epoch_without_data_ends_training():
    import tensorflow as tf

    pairs = ((X[:4], Y[:4]) for _ in range(10))
    once = tf.data.Dataset.from_generator(
        lambda: pairs, output_signature=(tf.TensorSpec((4, 3)), tf.TensorSpec((4, 2)))
    )
    none = tf.data.Dataset.from_tensor_slices((X, Y)).batch(64, drop_remainder=True)
    for data, epochs, updates in ((once, 4, 10), (none, 2, 0)):
        model = model_of(rule := rule_of(60))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            history = model.fit(data, validation_data=(X, Y), verbose=0, **fit_hyperrule(rule))
        assert len(history.epoch) == epochs and int(model.optimizer.iterations) == updates
        expected = f"{60 - updates} updates before the end of the schedule: epoch {epochs} found no"
        assert any(expected in str(warning.message) for warning in caught)


@pytest.mark.tensorflow
def test_models_of_several_outputs_are_left_to_keras():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, {name: keras.layers.Dense(2)(inputs) for name in "ab"})
    rule = rule_of(BATCHES)
    model.compile(rule.optimizer(), "mse", metrics={"a": ["mae"], "b": ["mse"]})
    history = model.fit(X, {"a": Y, "b": Y}, verbose=0, **fit_hyperrule(rule)).history
    assert {"a_mae", "b_mse", "a_loss", "b_loss"} < set(history)


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="an older Keras")
@pytest.mark.filterwarnings("ignore:The compiled optimizer does not follow")
def test_a_head_with_an_optimizer_of_its_own():
    rule = rule_of(12)
    optimizers = keras.optimizers.OptimizerMap(rule.optimizer(), {".*": keras.optimizers.SGD(0.1)})
    model, history = run(rule, optimizer=keras.optimizers.MultiOptimizer(optimizers))
    assert int(model.optimizer.iterations) == 12 and "learning_rate" not in history.history


@pytest.mark.tensorflow
def test_tensorboard_shows_the_learning_rate(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(rule_of(20), callbacks=[keras.callbacks.TensorBoard(tmp_path)])
    events = EventAccumulator(str(tmp_path / "train"))
    events.Reload()
    assert any("learning_rate" in tag for tag in events.Tags()["tensors"])


@pytest.mark.tensorflow
@pytest.mark.parametrize("steps_per_execution", [1, pytest.param(7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("repeat", [True, False])
def test_with_tf_data(steps_per_execution, repeat):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(36).batch(4)
    data = data.repeat() if repeat else data
    rule = rule_of(43)
    model, _ = run(rule, data=data, steps_per_execution=steps_per_execution)
    assert int(model.optimizer.iterations) == 43


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_under_mirrored_strategy(two_replicas):
    with two_replicas.scope():
        model = model_of(rule_of(20))
    model.fit(X, Y, batch_size=4, verbose=0, **fit_hyperrule(rule_of(20)))
    assert as_numpy(model.optimizer.iterations.value) == 20
    with two_replicas.scope():
        model = model_of(rule_of(20, accumulation=2))
    with pytest.raises(ValueError, match="`micro_batch_size` cannot be combined"):
        model.fit(X, Y, batch_size=2, verbose=0, **fit_hyperrule(rule_of(20, accumulation=2)))


def test_warns_when_the_optimizer_does_not_follow():
    rule = rule_of(10)
    shorter = rule.replace(schedule_length=9).schedule()
    for rate in (0.01, lambda: 0.01, shorter):
        model = model_of(rule, keras.optimizers.SGD(rate))
        with pytest.warns(UserWarning, match="does not follow the rule's"):
            model.fit(Batches(4, True), verbose=0, **fit_hyperrule(rule))
        assert int(model.optimizer.iterations) == 10
    accumulating = keras.optimizers.SGD(rule.schedule(), gradient_accumulation_steps=2)
    model = model_of(rule, accumulating)
    with pytest.warns(UserWarning, match="optimizer accumulates 2"):
        callback = fit_hyperrule(rule)
        model.fit(Batches(4, True), epochs=9, steps_per_epoch=5, callbacks=[callback], verbose=0)
    assert int(model.optimizer.iterations) == 10


def test_accepts_an_equal_schedule_of_another_class():
    rule = rule_of(10)
    rates = [rule.learning_rate / 10**drop for drop in range(4)]
    same = keras.optimizers.schedules.PiecewiseConstantDecay(list(rule.boundaries), rates)
    model = model_of(rule, keras.optimizers.SGD(same))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(Batches(4, True), verbose=0, **fit_hyperrule(rule))


def test_survives_deepcopy_before_and_after_a_run():
    rule = rule_of(10)
    callback = fit_hyperrule(rule, 3, [keras.callbacks.TerminateOnNaN()])
    model_of(rule).fit(Batches(4, True), verbose=0, **callback)
    twin = copy.deepcopy(callback)
    assert twin is not callback and twin.rule == rule and twin["steps_per_epoch"] == 3
    assert twin.callbacks[0] is not callback.callbacks[0]
    model = model_of(rule)
    model.fit(Batches(4, True), verbose=0, **twin)
    assert int(model.optimizer.iterations) == 10


def test_one_callback_serves_several_runs():
    rule = rule_of(10)
    callback = fit_hyperrule(rule)
    for _ in range(2):
        model = model_of(rule)
        model.fit(Batches(4, True), verbose=0, **callback)
        assert int(model.optimizer.iterations) == 10


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"rule": 500}, "rule"),
        ({"steps_per_epoch": 0}, "steps_per_epoch"),
        ({"callbacks": [print]}, "callbacks"),
    ],
)
def test_refuses_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}`.*Received"):
        fit_hyperrule(**{"rule": rule_of(10), **arguments})
