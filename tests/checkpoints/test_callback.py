import errno
import json
import shutil
import signal
import types
import warnings

import keras
import numpy as np
import pytest

from keras_bit import Checkpoint, fit_hyperrule
from keras_bit.checkpoints import callback, files, interval
from keras_bit.checkpoints.files import BackgroundWriter, newest_checkpoint
from keras_bit.core.keras_internals import skipped_steps
from tests.checkpoints.runs import (
    Interrupt,
    Interrupted,
    X,
    Y,
    endless_batches,
    make_model,
    make_rule,
    outcome,
    train,
)
from tests.conftest import ON_TORCH, as_numpy, exhaustive, not_on_torch
from tests.processes import run_python


def until_done(folder, *interruptions, **options):
    """Runs again after each interruption, and then to the end."""
    policy = keras.config.dtype_policy()
    for interruption in interruptions:
        with pytest.raises(Interrupted):
            train(folder, interruption, **options)
        keras.backend.clear_session(free_memory=False)
        keras.config.set_dtype_policy(policy)
    return train(folder, **options)


@pytest.mark.parametrize(
    "accumulation, steps_per_execution, endless",
    [
        (2, 1, True),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [(1, 1, True), (2, 1, False)]),
        *(
            pytest.param(*case, marks=(pytest.mark.slow, not_on_torch))
            for case in [(1, 4, False), (2, 3, True)]
        ),
    ],
)
def test_an_interrupted_run_ends_as_one_that_was_not(
    accumulation, steps_per_execution, endless, tmp_path
):
    options = {
        "rule": make_rule(accumulation=accumulation),
        "endless": endless,
        "steps_per_execution": steps_per_execution,
    }
    expected = outcome(*train(None, **options))
    moments = [(5, "train"), (18, "test"), (19, "train"), (33, "train"), (43, "test")]
    resumed = until_done(tmp_path, *(Interrupt(*moment) for moment in moments), **options)
    assert outcome(*resumed) == expected


@pytest.mark.slow
def test_an_epoch_may_begin_within_an_update(tmp_path):
    options = {"rule": make_rule(20, accumulation=4), "steps": 6}
    if ON_TORCH:
        with pytest.raises(ValueError, match="`steps_per_epoch`.*Received: .*=6, 4 acc.*to 8"):
            train(tmp_path, **options)
        assert not any(tmp_path.iterdir())
        return
    expected = outcome(*train(None, **options))
    resumed = until_done(tmp_path, Interrupt(5), Interrupt(11), Interrupt(17), **options)
    assert outcome(*resumed) == expected


def test_a_run_without_interruption_is_not_changed(tmp_path):
    assert outcome(*train(tmp_path)) == outcome(*train(None))


def test_a_finished_run_trains_no_more(tmp_path, caplog):
    expected = outcome(*train(tmp_path))
    seen = []
    look = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append(epoch))
    with caplog.at_level("INFO", "keras_bit"):
        assert outcome(*train(tmp_path, look)) == expected
    assert seen == [] and "had come to its end after update 43" in caplog.text


def test_the_progress_bar_and_other_callbacks_see_each_epoch_once(tmp_path):
    def look(seen):
        return keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append((epoch, logs)),
            on_train_batch_end=lambda batch, logs: seen.append((batch, set(logs))),
        )

    whole, resumed = [], []
    train(None, look(whole))
    interrupted(tmp_path)
    train(tmp_path, look(resumed))
    # From the first step of the epoch that resumes: the steps that are done have logs as well.
    assert resumed == whole[-len(resumed) :] and 0 < len(resumed) < len(whole)
    assert resumed[0][0] == 0


@pytest.mark.filterwarnings("ignore:Training resumes with epoch")
def test_another_learning_rate_is_told_of(tmp_path):
    def fit(rate, *epochs):
        model = make_model(make_rule(), optimizer=keras.optimizers.SGD(rate))
        checkpoint = Checkpoint(tmp_path, verbose=False)
        slow_down = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
        options = {"batch_size": 4, "shuffle": False, "verbose": 0}
        for last in epochs:
            model.fit(X, Y, epochs=last, callbacks=[slow_down, checkpoint], **options)
        return float(as_numpy(model.optimizer.learning_rate.value))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert (fit(0.5, 1, 2), fit(0.5, 3)) == (0.125, 0.0625)
        assert not any("learning rate" in str(warning.message) for warning in caught)
    with pytest.warns(UserWarning, match="began with 0.5. Received.*learning_rate=0.25, which"):
        assert fit(0.25, 4) == 0.03125


@pytest.mark.parametrize("first", [True, False])
def test_a_rate_that_an_epoch_has_changed_is_not_changed_again(tmp_path, first):
    def fit(folder, *interruptions):
        keras.utils.set_random_seed(0)
        model = make_model(make_rule(), optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
        slow_down = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.7 * rate)
        checkpoint = Checkpoint(folder, 1, verbose=False)
        callbacks = [checkpoint, slow_down] if first else [slow_down, checkpoint]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Training resumes with epoch")
            history = model.fit(
                X, Y, batch_size=4, epochs=4, validation_data=(X, Y), shuffle=False, verbose=0,
                callbacks=[*callbacks, *interruptions],
            )  # fmt: skip
        return model, history

    expected = fit(tmp_path / "whole")
    for step, during in ((5, "train"), (9, "test"), (18, "train"), (30, "test")):
        with pytest.raises(Interrupted):
            fit(tmp_path / "cut", Interrupt(step, during))
    resumed = fit(tmp_path / "cut")
    assert resumed[1].history == expected[1].history
    assert outcome(*resumed) == outcome(*expected)


def test_a_state_that_has_become_nan_is_no_end(tmp_path):
    def fit(rate):
        model = make_model(make_rule(), optimizer=keras.optimizers.SGD(rate))
        callbacks = [keras.callbacks.TerminateOnNaN(), Checkpoint(tmp_path, verbose=False)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return model.fit(
                X, Y, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=callbacks
            ).history["loss"]

    assert not np.isfinite(fit(1e30)[-1])
    assert np.isfinite(fit(0.01)).all()


def test_there_is_nothing_to_wait_for_before_fit(tmp_path):
    Checkpoint(tmp_path).wait()


@pytest.mark.slow
def test_plain_fit_resumes_within_an_epoch(tmp_path):
    def fit(folder, *interruptions):
        keras.utils.set_random_seed(0)
        model = make_model(make_rule(), optimizer=keras.optimizers.Adam(0.01))
        early = keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
        checkpoint = Checkpoint(folder, 1, callbacks=[early], verbose=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Training resumes with epoch")
            history = model.fit(
                X, Y, batch_size=4, epochs=20, validation_data=(X, Y), shuffle=False, verbose=0,
                callbacks=[early, checkpoint, *interruptions],
            )  # fmt: skip
        return model, history, early

    model, history, early = fit(tmp_path / "whole")
    for update in (4, 9, 40):
        with pytest.raises(Interrupted):
            fit(tmp_path / "other", Interrupt(update))
    again, history_again, early_again = fit(tmp_path / "other")
    assert outcome(again, history_again) == outcome(model, history)
    for name in ("wait", "best", "best_epoch", "stopped_epoch", "patience"):
        assert getattr(early_again, name) == getattr(early, name)
    for one, other in zip(early_again.best_weights, early.best_weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_rate_that_a_callback_has_lowered_stays_so(tmp_path):
    def fit(folder, *interruptions):
        model = make_model(make_rule(), optimizer=keras.optimizers.SGD(0.5))
        plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=10)
        checkpoint = Checkpoint(tmp_path / folder, 1, callbacks=[plateau], verbose=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Training resumes with epoch")
            history = model.fit(
                X, Y, epochs=5, verbose=0, callbacks=[plateau, checkpoint, *interruptions]
            )
        return history.history["learning_rate"]

    with pytest.raises(Interrupted):
        fit("other", Interrupt(5))
    assert fit("other") == fit("whole") == [0.5, 0.5, 0.25, 0.125, 0.0625]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_every_precision_resumes(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    expected = outcome(*train(None))
    assert outcome(*until_done(tmp_path, Interrupt(9), Interrupt(21))) == expected


@pytest.mark.parametrize("every, updates", [(10, [40, 43]), (100, [43])])
def test_saves_are_made_every_so_many_updates(every, updates, tmp_path, monkeypatch):
    monkeypatch.setattr(callback.BackgroundWriter, "is_idle", lambda writer: True)
    train(tmp_path, every=every)
    found = sorted(tmp_path.iterdir())
    assert [json.loads((path / "manifest.json").read_text())["content"]["update"] for path in found]
    assert [
        json.loads((path / "manifest.json").read_text())["content"]["update"] for path in found
    ] == updates


def test_processes_beside_the_first_do_not_ask_for_the_state(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(callback, "processes", lambda: types.SimpleNamespace(index=1, count=2))
    monkeypatch.setattr(callback.Checkpoint, "_updated_optimizer", lambda own: asked.append(1))
    train(tmp_path, every=1)
    assert asked == [] and not list(tmp_path.iterdir())


def test_what_could_not_be_written_is_not_said_to_be_there(tmp_path, monkeypatch):
    writer = BackgroundWriter(tmp_path, keep=2)
    writer.write({}, {})
    writer.wait()
    assert writer.path is not None

    def fail(*args):
        raise OSError("no space left")

    monkeypatch.setattr(files, "write_checkpoint", fail)
    writer.write({}, {})
    with pytest.warns(UserWarning, match="could not be saved; training continues. no space left"):
        writer.close()
    assert writer.path is None


def test_by_default_saves_are_made_after_epochs_and_as_time_passes(tmp_path, monkeypatch):
    moments, clock = [], [0.0]

    def note(writer, arrays, content):
        moments.append((content["epoch"], content["batch"]))

    monkeypatch.setattr(callback.BackgroundWriter, "write", note)
    monkeypatch.setattr(callback.time, "monotonic", lambda: clock[0])

    def tick(batch, logs):
        clock[0] += 25.0

    train(tmp_path, keras.callbacks.LambdaCallback(on_train_batch_begin=tick), every=None)
    # Epochs of five updates: a minute has passed before the fourth, and later after three more.
    assert moments[:4] == [(0, 3), (1, 0), (1, 3), (2, 0)]
    assert moments[-1] == (9, 0)


def test_slow_saves_are_made_less_often(tmp_path, monkeypatch):
    moments = []

    def note(writer, arrays, content):
        moments.append(content["update"])

    monkeypatch.setattr(callback.BackgroundWriter, "write", note)
    monkeypatch.setattr(interval, "PAUSE", 1e9)
    train(tmp_path, every=None)
    assert moments == [5, 43]  # The first has nothing to go by, the last is always made.


def test_within_an_accumulation_nothing_is_saved(tmp_path, monkeypatch):
    steps = []

    def note(writer, arrays, content):
        steps.append(content["batches_before"] + content["batch"])

    monkeypatch.setattr(callback.BackgroundWriter, "write", note)
    train(tmp_path, rule=make_rule(9, accumulation=4), every=1)
    assert len(steps) > 8 and all(step % 4 == 0 for step in steps)


def test_a_counter_with_the_name_of_an_argument_is_restored(tmp_path):
    class Decay(keras.callbacks.Callback):
        def __init__(self, weight=1.0, batches=0):
            super().__init__()
            self.weight, self.batches, self.seen = weight, batches, []

        def on_train_batch_end(self, batch, logs=None):
            self.batches += 1  # of steps that are skipped, too

        def on_epoch_end(self, epoch, logs=None):
            self.weight /= 2
            self.seen.append(self.weight)

    whole, first, resumed = Decay(), Decay(), Decay()
    train(tmp_path / "whole", callbacks=[whole])
    with pytest.raises(Interrupted):
        train(tmp_path / "other", Interrupt(22), callbacks=[first])
    train(tmp_path / "other", callbacks=[resumed])
    assert first.seen == whole.seen[: len(first.seen)] != []
    assert resumed.seen == whole.seen[-len(resumed.seen) :]  # from the last save on
    assert resumed.batches == whole.batches == 43


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, code, during",
    [
        exhaustive("SIGTERM", 143, "train"),
        exhaustive("SIGINT", -2, "test"),
        ("SIGKILL", -9, "train"),
    ],
)
def test_signals(name, code, during, tmp_path):
    if ON_TORCH and name == "SIGINT":
        code = 1  # as of any program that imports Keras on PyTorch and ends by KeyboardInterrupt
    for update in (7, 20, 31):
        done = run_python("-m", "tests.checkpoints.runs", tmp_path, name, str(update), during)
        assert done.returncode == code, done.stderr
        if name != "SIGKILL":
            saved = newest_checkpoint(tmp_path).content["update"]
            assert update <= saved <= update + 5
    assert outcome(*train(tmp_path)) == outcome(*train(None))


def test_a_signal_after_a_failed_fit_is_not_swallowed(tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path, Interrupt(5), close=False)
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.parametrize("during", ["train", "test"])
def test_a_signal_at_the_very_first_step_is_heeded(during, tmp_path):
    def send():
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Interrupt(0, during, action=send), every=100)
    assert newest_checkpoint(tmp_path).content["update"] in (1, 5)
    assert outcome(*train(tmp_path)) == outcome(*train(None))


def test_a_signal_while_batches_are_dropped_stops_at_once(tmp_path, capsys):
    interrupted(tmp_path)
    model = make_model(make_rule())
    checkpoint = Checkpoint(tmp_path)
    data = endless_batches(4, checkpoint.initial_step)
    send = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: signal.raise_signal(signal.SIGINT)
    )
    arguments = fit_hyperrule(make_rule(), None, [send, checkpoint])
    with pytest.raises(KeyboardInterrupt):
        model.fit(data, shuffle=False, verbose=0, **arguments)
    begun, stopped = capsys.readouterr().out.splitlines()
    update = begun.split(",")[0].rpartition(" ")[2]
    assert stopped.startswith(f"Stopped after update {update} by Ctrl-C. The same call resumes")
    assert not skipped_steps(model)
    assert outcome(*train(tmp_path)) == outcome(*train(None))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_in_the_last_step_is_heeded(name, tmp_path):
    class Send(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 43 and batch == 2:
                signal.raise_signal(getattr(signal, name))

    with pytest.raises(KeyboardInterrupt if name == "SIGINT" else SystemExit):
        train(tmp_path, Send())
    assert newest_checkpoint(tmp_path).content["update"] == 43
    assert outcome(*train(tmp_path)) == outcome(*train(None))


def test_after_a_handler_that_returns_training_goes_on(tmp_path):
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        send = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: (
                None if received else signal.raise_signal(signal.SIGTERM)
            )
        )
        assert outcome(*train(tmp_path, send)) == outcome(*train(None))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]


def test_averaged_weights_of_a_validation_are_not_saved(tmp_path):
    def run(folder, *interruptions):
        swap = keras.callbacks.SwapEMAWeights()
        schedule = make_rule().schedule()
        optimizer = keras.optimizers.SGD(schedule, use_ema=True, ema_momentum=0.9)
        return train(folder, *interruptions, callbacks=[swap], optimizer=optimizer)

    interrupt = Interrupt(14, "test", action=lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, interrupt)
    assert outcome(*run(tmp_path)) == outcome(*run(None))


def test_a_second_signal_stops_at_once(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second is ignored")

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Interrupt(5, action=twice), close=False)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def interrupted(folder, **options):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        # Else a save that a slow disk is still writing would be in the place of later ones.
        patch.setattr(callback.BackgroundWriter, "is_idle", lambda writer: True)
        train(folder, Interrupt(22), **options)
    keras.backend.clear_session(free_memory=False)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rule": make_rule(44)}, "optimizer.config.learning_rate.config"),
        ({"rule": make_rule(accumulation=2)}, "gradient_accumulation_steps: null, now 2"),
        ({"optimizer": keras.optimizers.Adam(0.1)}, 'class_name: .*now "Adam"'),
        pytest.param(
            {"steps_per_execution": 2}, "steps_per_execution: 1, now 2", marks=not_on_torch
        ),
        ({"callbacks": [keras.callbacks.EarlyStopping()]}, "callbacks: "),
    ],
)
def test_another_run_is_refused_with_the_differences(change, message, tmp_path):
    interrupted(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The compiled optimizer does not follow")
        with pytest.raises(ValueError, match=f"resume with what it began with.*{message}"):
            train(tmp_path, **change)
    assert sorted(tmp_path.rglob("*")) == before


def test_another_precision_is_refused(tmp_path):
    interrupted(tmp_path)
    keras.config.set_dtype_policy("bfloat16")
    with pytest.raises(ValueError, match=r"kernel: float32 \(3, 8\), now uint16 \(3, 8\)"):
        train(tmp_path)


def test_another_model_is_refused_with_the_differences(tmp_path):
    interrupted(tmp_path)
    rule = make_rule()
    for units, message in (
        (3, r"kernel: float32 \(3, 8\), now float32 \(3, 3\)"),
        (None, "5 variables of the model, now 2"),
    ):
        layers = [keras.layers.Dense(units), keras.layers.Dropout(0.5)] if units else []
        model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(2)])
        model.compile(rule.optimizer(), "mse")
        with pytest.raises(ValueError, match=message):
            model.fit(
                endless_batches(4), verbose=0, shuffle=False,
                **fit_hyperrule(rule, callbacks=[Checkpoint(tmp_path, verbose=False)]),
            )  # fmt: skip


def test_settings_of_the_user_are_compared_before_fit(tmp_path):
    rule = make_rule()
    settings = {"rule": rule.get_config(), "data": "abc", "sizes": (1, 2), "seed": np.int64(3)}

    def fit(changes=None):
        checkpoint = Checkpoint(tmp_path, settings={**settings, **(changes or {})}, verbose=False)
        checkpoint.check_settings()
        make_model(rule).fit(
            endless_batches(4, checkpoint.initial_step), verbose=0, shuffle=False,
            **fit_hyperrule(rule, callbacks=[checkpoint]),
        )  # fmt: skip

    fit()
    fit()
    for changes, message in (
        ({"data": "abd"}, 'data: "abc", now "abd"'),
        ({"sizes": (1, 3)}, r"sizes\[1\]: 2, now 3"),
        ({"rule": make_rule(9).get_config()}, "rule.schedule_length: 43, now 9"),
        ({"more": 1}, "more: nothing, now 1"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(changes)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path):
    interrupted(tmp_path)
    older, newer = sorted(tmp_path.iterdir())
    arrays = newer / "arrays.safetensors"
    content = bytearray(arrays.read_bytes())
    content[-3] ^= 1
    arrays.write_bytes(content)
    with pytest.warns(UserWarning, match=f"{newer.name}.*checksum.*before it"):
        resumed = train(tmp_path)
    assert outcome(*resumed) == outcome(*train(None))


def test_where_all_are_damaged_training_starts_again(tmp_path):
    interrupted(tmp_path)
    for path in tmp_path.iterdir():
        (path / "manifest.json").write_text("{")
    with pytest.warns(UserWarning, match="undamaged checkpoint"):
        resumed = train(tmp_path)
    assert outcome(*resumed) == outcome(*train(None))


def test_a_full_disk_is_warned_of_and_training_goes_on(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    free = [10]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=free[0]))

    def make_room(epoch, logs):
        free[0] = 10 if epoch < 5 else 10**9

    room = keras.callbacks.LambdaCallback(on_epoch_begin=make_room)
    with pytest.warns(UserWarning, match="could not be saved; training continues. .*10 bytes free"):
        result = train(tmp_path, room)
    assert outcome(*result) == outcome(*train(None))
    assert newest_checkpoint(tmp_path).content["update"] == 43


def test_an_interruption_within_a_write_leaves_no_half_of_it(tmp_path, monkeypatch):
    interrupted(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    from keras_bit.checkpoints import files

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_write_manifest", fail)
    with pytest.warns(UserWarning, match="No space left"):
        train(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def move(monkeypatch, **changes):
    """From here on the environment is another."""
    here = callback.environment()
    monkeypatch.setattr(callback, "environment", lambda: {**here, **changes})


def test_another_processor_is_warned_of(tmp_path, monkeypatch):
    interrupted(tmp_path)
    move(monkeypatch, processor="abacus")
    with pytest.warns(UserWarning, match='last bits: processor: .*now "abacus"'):
        train(tmp_path)


def test_another_backend_is_refused(tmp_path, monkeypatch):
    interrupted(tmp_path)
    move(monkeypatch, backend="abacus 1.0")
    with pytest.raises(ValueError, match='must resume with what it began.*backend: .*now "abacus"'):
        train(tmp_path)


def test_a_disk_that_fails_does_not_make_a_run_start_again(tmp_path, monkeypatch):
    interrupted(tmp_path)

    def fail(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "read_json", fail)
    with pytest.raises(OSError, match="Input/output error"):
        train(tmp_path)


def test_a_data_set_that_starts_again_is_warned_of(tmp_path):
    interrupted(tmp_path)
    rule = make_rule()
    with pytest.warns(UserWarning, match="initial_step=checkpoint.initial_step"):
        make_model(rule).fit(
            endless_batches(4), validation_data=(X, Y), verbose=0, shuffle=False,
            **fit_hyperrule(rule, callbacks=[Checkpoint(tmp_path, verbose=False)]),
        )  # fmt: skip


def test_a_second_fit_with_the_same_callback_goes_on(tmp_path):
    model = make_model(make_rule(), optimizer="sgd")
    checkpoint = Checkpoint(tmp_path, verbose=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Training resumes with epoch")
        for epochs in (2, 2, 5):
            history = model.fit(X, Y, epochs=epochs, verbose=0, callbacks=[checkpoint])
            assert history.epoch == list(range(epochs))
        # Without it, the model starts where `fit` says.
        assert model.fit(X, Y, epochs=1, verbose=0).epoch == [0]


def test_where_training_resumes_is_printed(tmp_path, capsys):
    interrupted(tmp_path)
    checkpoint = Checkpoint(tmp_path)
    rule = make_rule()
    make_model(rule).fit(
        endless_batches(4, checkpoint.initial_step), validation_data=(X, Y), verbose=0,
        shuffle=False, **fit_hyperrule(rule, callbacks=[checkpoint]),
    )  # fmt: skip
    assert capsys.readouterr().out.startswith("Resuming after update ")


def test_a_fit_of_no_epochs_leaves_all_as_it_is(tmp_path):
    early = keras.callbacks.EarlyStopping()
    checkpoint = Checkpoint(tmp_path, callbacks=[early], verbose=False)
    model = make_model(make_rule(), optimizer="sgd")
    model.fit(X, Y, epochs=3, initial_epoch=3, verbose=0, callbacks=[early, checkpoint])
    assert newest_checkpoint(tmp_path).content["update"] == 0


def test_a_model_that_is_not_built_is_refused(tmp_path):
    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    if keras.backend.backend() == "tensorflow":  # Keras builds it before callbacks begin on JAX.
        with pytest.raises(ValueError, match="`Checkpoint` needs a model that has been built"):
            model.fit(X, Y, verbose=0, callbacks=[Checkpoint(tmp_path)])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"folder": ""}, "`folder` must name a folder"),
        ({"every": 0}, "`every` must be an integer of at least 1"),
        ({"keep": 0}, "`keep` must be an integer of at least 1"),
        ({"every_seconds": 0}, "`every_seconds` must be a positive finite number"),
        ({"callbacks": [print]}, "`callbacks` must hold"),
        ({"settings": {"a": {1, 2}}}, "`settings` must hold what JSON can"),
    ],
)
def test_arguments_are_checked(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Checkpoint(**{"folder": tmp_path, **arguments})


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="`folder` must be a folder. .*, a file"):
        Checkpoint(tmp_path / "file")
