"""What loggers of others record of a run, in their offline forms."""

import collections
import json
import os

import pytest

import keras_bit
from tests.checkpoints.runs import Interrupt, Interrupted
from tests.training.test_run import RULE, colors

pytestmark = [
    pytest.mark.usefixtures("undrawn"),
    pytest.mark.tensorflow,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # those of the loggers' own imports
]

SETTINGS = {**RULE, "depth": (1, 1, 1, 1), "width": 1 / 16, "schedule_length": 12}
STEPS = 5  # of an epoch: the last one of three has two
NEVER = 10**9


@pytest.fixture(scope="module")
def data():
    return keras_bit.ImageDataset.from_arrays(*colors(48), *colors(13, 1))


def run(data, output, callbacks, stop=NEVER):
    """A run of three epochs, stopped after so many steps."""
    return keras_bit.fine_tune(
        data,
        **SETTINGS,
        steps_per_epoch=STEPS,
        output=output,
        callbacks=[*callbacks, Interrupt(stop)],
        report=False,
        verbose=0,
    )


def resumed(data, output, make_callbacks):
    """The result of a run that was stopped within its second epoch, and resumed."""
    with pytest.raises(Interrupted):
        run(data, output, make_callbacks(), stop=7)
    return run(data, output, make_callbacks())


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    experiment = mlflow.create_experiment("tests", str(tmp_path / "artifacts"))
    mlflow.set_experiment(experiment_id=experiment)
    yield mlflow
    mlflow.keras.autolog(disable=True)
    mlflow.end_run()
    mlflow.set_tracking_uri(None)


def recorded_by_mlflow(mlflow, run_id):
    """The values of each metric by their steps, and the parameters."""
    mlflow.flush_async_logging()
    client = mlflow.MlflowClient()
    found = client.get_run(run_id).data
    histories = {name: client.get_metric_history(run_id, name) for name in found.metrics}
    values = {
        name: [(each.step, each.value) for each in sorted(history, key=lambda each: each.step)]
        for name, history in histories.items()
        if not name.startswith("validation_")  # without a step of their own
    }
    return values, found.params


def test_mlflow_records_the_epochs_of_a_resumed_run(mlflow, data, tmp_path):
    with mlflow.start_run() as active:
        result = resumed(data, tmp_path / "run", lambda: [mlflow.keras.MlflowCallback()])
    values, _ = recorded_by_mlflow(mlflow, active.info.run_id)
    assert result.history["updates"] == [5, 10, 12]
    assert set(values) == set(result.history)
    for name, history in result.history.items():
        assert values[name] == [(step, pytest.approx(value)) for step, value in enumerate(history)]


def test_mlflow_s_autolog_records_the_epochs_that_there_are(mlflow, data, tmp_path):
    mlflow.keras.autolog(log_models=False, log_datasets=False)
    with mlflow.start_run() as active:
        result = run(data, tmp_path / "run", ())
    values, parameters = recorded_by_mlflow(mlflow, active.info.run_id)
    assert (parameters["epochs"], parameters["steps_per_epoch"]) == ("3", str(STEPS))
    assert [step for step, _ in values["loss"]] == [0, 1, 2]
    assert [value for _, value in values["loss"]] == pytest.approx(result.history["loss"])


@pytest.mark.exhaustive
def test_wandb_records_the_epochs_and_steps_of_a_resumed_run(data, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from wandb.integration.keras import WandbMetricsLogger

    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    with wandb.init(project="tests") as active:
        result = resumed(data, tmp_path / "run", lambda: [WandbMetricsLogger(log_freq=1)])
        folder = active.dir
    with wandb.init(project="tests") as active:
        run(data, tmp_path / "again", [WandbMetricsLogger()])
        folders = [folder, active.dir]
    by_step, by_epoch = (recorded_by_wandb(os.path.dirname(each)) for each in folders)
    steps = [row["batch/batch_step"] for row in by_step if "batch/batch_step" in row]
    # The run died after seven steps, and resumed where its last checkpoint was, after five.
    assert steps == [*range(7), *range(5, 12)]
    rows = collections.defaultdict(list)
    for row in by_epoch:
        for name, value in row.items():
            rows[name.removeprefix("epoch/")].append(value)
    assert rows["epoch"] == [0, 1, 2]
    for name, history in result.history.items():
        assert rows[name] == pytest.approx(history, rel=1e-4)


def recorded_by_wandb(folder):
    """The rows of an offline run: a log of LevelDB's format, whose records are protocol buffers."""
    from wandb.proto import wandb_internal_pb2

    (file,) = (name for name in os.listdir(folder) if name.endswith(".wandb"))
    with open(os.path.join(folder, file), "rb") as opened:
        content = opened.read()
    rows, record, place = [], b"", 7  # behind the header of the file
    while place + 7 <= len(content):
        left = 2**15 - place % 2**15  # of the block
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole of a record, or its last part
            parsed = wandb_internal_pb2.Record.FromString(record)
            items = parsed.history.item
            if items:
                names = ["/".join(item.nested_key) or item.key for item in items]
                values = [json.loads(item.value_json) for item in items]
                rows.append(dict(zip(names, values, strict=True)))
            record = b""
    return rows
