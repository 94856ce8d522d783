import contextlib
import json
import re
import signal

import pytest

import keras_bit
from keras_bit.cli.main import main, make_parser
from keras_bit.cli.options import check_outside
from keras_bit.training import RunPlan
from keras_bit.weights.presets import EMBEDDED
from tests.cli.conftest import TINY, start
from tests.conftest import exhaustive
from tests.image_files import make_folder

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore:Skipped")]


def test_fine_tune_writes_the_run_and_says_how_it_went(whole_run):
    assert whole_run.code == 0, whole_run.error
    written = {path.name for path in whole_run.output.iterdir()}
    assert written == {
        "model.keras", "label_names.json", "rule.json", "plan.json", "history.csv", "metrics.json",
        "report.html", "report", "logs", "outputs.json",
    }  # fmt: skip
    rows = (whole_run.output / "history.csv").read_text().splitlines()
    assert len(rows) == 1 + 4
    assert re.findall(r"^update (\d+):", whole_run.out, re.MULTILINE) == ["8", "16", "24", "30"]
    accuracy = json.loads((whole_run.output / "metrics.json").read_text())["accuracy"]
    assert f"Accuracy {accuracy:.2%} on 6 validation" in whole_run.out
    plan = RunPlan.from_json((whole_run.output / "plan.json").read_text())
    assert plan.preset is None and "weights: random" in whole_run.out


def test_fine_tune_is_readable_in_a_narrow_window_and_in_a_pipe(whole_run):
    lines = whole_run.out.splitlines()
    assert max(len(line) for line in lines if str(whole_run.output) not in line) <= 40
    assert f"Model: {whole_run.output / 'model.keras'}" in lines
    assert f"Report: {whole_run.output / 'report.html'}" in lines
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", whole_run.out + whole_run.error)


def test_fine_tune_reports_what_it_skips_and_nothing_else_on_stderr(whole_run):
    of_tensorflow_2_20 = ("WARNING: All log messages before", "I0000")
    lines = whole_run.error.splitlines()
    (warning,) = (line for line in lines if not line.startswith(of_tensorflow_2_20))
    assert warning.startswith("keras-bit: warning: ")
    assert "broken.jpg" in warning


def test_an_output_that_would_be_a_class_is_refused(tmp_path, capsys, monkeypatch):
    make_folder(tmp_path / "photos", {"cat": 5, "dog": 5})
    monkeypatch.chdir(tmp_path / "photos")
    for words in (["fine-tune", "."], ["search", "."], ["fine-tune", ".", "--output", "cat/run"]):
        assert main(words) == 2
        message = capsys.readouterr().err
        assert "`--output` must lie outside of FOLDER, each folder of which is a class" in message
    make_folder(tmp_path / "split/train", {"cat": 5, "dog": 5})
    make_folder(tmp_path / "split/test", {"cat": 5, "dog": 5})
    check_outside(str(tmp_path / "split/run"), str(tmp_path / "split"))


def test_an_output_folder_in_use_is_refused_before_the_images_are_read(whole_run, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole_run.output.rglob("*")}
    assert main(["fine-tune", "no folder", "--output", str(whole_run.output)]) == 2
    error = capsys.readouterr().err
    assert "holds a run" in error and "overwrite" in error and len(error.splitlines()) == 1
    assert main(["demo", "--output", str(whole_run.output)]) == 2
    assert {path: path.stat().st_mtime_ns for path in whole_run.output.rglob("*")} == before


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [exhaustive(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_stops_quietly_and_resumes(number, code, photos, tmp_path, capsys):
    settings = ("--schedule-length", "12", "--steps-per-epoch", "2", "--learning-rate", "0.02")
    arguments = ("fine-tune", photos, *TINY, *settings, "--output", tmp_path / "output")
    with start(arguments) as process:
        for line in process.stdout:
            if line.startswith("update 4:"):
                process.send_signal(number)
                break
        _, error = process.communicate(timeout=300)
    assert process.returncode == code
    last = error.splitlines()[-1]
    resumes = re.fullmatch(r"keras-bit: stopped; the same command resumes after update (\d+)", last)
    assert resumes and 4 <= int(resumes[1]) < 12 and "Traceback" not in error
    assert main([*map(str, arguments), "--seed", "1"]) == 2
    assert "seed: 0, now 1" in capsys.readouterr().err
    assert main([*map(str, arguments), "--no-resume"]) == 2
    assert "an interrupted run" in capsys.readouterr().err
    assert main([*map(str, arguments)]) == 0
    out = capsys.readouterr().out
    assert f"Resuming after update {resumes[1]}" in out
    assert re.findall(r"^update (\d+):", out, re.MULTILINE)[-1] == "12"
    assert len((tmp_path / "output" / "history.csv").read_text().splitlines()) == 1 + 6


def test_an_interruption_does_not_advise_what_would_remove_the_run(monkeypatch):
    folder = "keras_bit.training.run_folder"
    text = "the same command resumes after update 4"
    monkeypatch.setattr(f"{folder}.describe_interrupted", lambda output: text)
    arguments = make_parser().parse_args(["fine-tune", "photos"])
    assert arguments.kept(arguments) == text
    arguments = make_parser().parse_args(["fine-tune", "photos", "--no-resume"])
    assert arguments.kept(arguments) == text.replace("resumes", "without --no-resume resumes")


def test_a_quiet_run_prints_nothing(photos, fake_fine_tune, tmp_path, capsys):
    arguments = ["fine-tune", str(photos), "--output", str(tmp_path / "new")]
    assert main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(arguments) == 0
    assert "Accuracy 50.00%" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, expected",
    [
        ([], {"preset": EMBEDDED, "depth": (1, 1, 1, 1), "width": 0.5, "freeze_backbone": False}),
        (["--from-scratch"], {"preset": None, "depth": (1, 1, 1, 1), "width": 0.5}),
        (["--from-scratch", "--width", "2"], {"preset": None, "depth": 50, "width": 2}),
        (
            ["--preset", "s-r50x1", "--freeze-backbone"],
            {"preset": "s-r50x1", "freeze_backbone": True, "depth": 50, "width": 1},
        ),
        (
            ["--frozen-blocks", "2", "--weight-decay", "1e-4", "--dropout", "0.5"],
            {"frozen_blocks": 2, "weight_decay": 1e-4, "dropout": 0.5},
        ),
        (["--remat", "--dtype", "mixed_float16"], {"remat": True, "precision": "mixed_float16"}),
        (
            ["--steps-per-epoch", "7", "--cache-dir", "cache", "--seed", "3"],
            {"steps_per_epoch": 7, "cache_dir": "cache", "seed": 3},
        ),
    ],
)
def test_fine_tune_runs_the_plan_of_its_options(
    photos, fake_fine_tune, tmp_path, options, expected
):
    arguments = ["fine-tune", str(photos), "--output", str(tmp_path / "new"), *options]
    assert main(arguments) == 0
    assert {name: getattr(fake_fine_tune["plan"], name) for name in expected} == expected
    assert fake_fine_tune["output"] == str(tmp_path / "new")
    assert fake_fine_tune["data"].train_size == 54


def test_a_table_in_place_of_a_folder(photos, fake_fine_tune, tmp_path, capsys):
    rows = ["file;kind;part"]
    for name in ("green", "red"):
        rows += [f"{name}/{i}.png;{name};{'val' if i < 4 else 'train'}" for i in range(20)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(rows))
    options = ["--csv", str(table), "--path-column", "file", "--label-column", "kind"]
    options += ["--split-column", "part", "--root", str(photos), "--class-weight", "balanced"]
    output = ["--output", str(tmp_path / "new")]
    assert main(["fine-tune", *options, *output]) == 0
    data, plan = fake_fine_tune["data"], fake_fine_tune["plan"]
    assert data.label_names == ("green", "red") and (data.train_size, data.test_size) == (32, 8)
    assert plan.class_weight == (1.0, 1.0)
    with table.open("a") as file:
        file.write("\nred/0.png;green;val")
    options = ["--csv", str(table), "--root", str(photos), "--path-column", "file"]
    assert main(["fine-tune", *options, *output, "--label-column", "kind"]) == 2
    assert "`--csv` must name a file once" in capsys.readouterr().err
    hot = tmp_path / "hot.csv"
    hot.write_text("path,a,b\n" + "".join(f"red/{i}.png,{i % 2},1\n" for i in range(20)))
    options = ["--csv", str(hot), "--root", str(photos)]
    assert main(["fine-tune", *options, *output, "--label-column=a", "--label-column=b"]) == 0
    data = fake_fine_tune["data"]
    assert data.multi_label and data.label_names == ("a", "b") and data.train_size == 18


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "`FOLDER` must be given, or a table of images as `--csv FILE`. Example: keras-bit"),
        (["photos", "--csv", "a.csv"], "`--csv` must be omitted beside a FOLDER"),
        (["photos", "--label-column", "a"], "`--label-column` must be omitted beside a FOLDER"),
        (["--csv", "no.csv"], "`--csv` must be a file. Received: --csv no.csv, no such file"),
        (["--csv", "no.xls"], "`--csv` must be a file named .csv, .tsv or .parquet"),
        (["photos", "--class-weight", "even"], "--class-weight"),
    ],
)
def test_what_is_wrong_with_a_table(arguments, message, capsys):
    with contextlib.suppress(SystemExit):
        assert main(["fine-tune", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def best_rule(tmp_path):
    """A file as a search writes it, for the photographs."""
    rule = keras_bit.HyperRule((40, 36), 54, 8, schedule_length=7, crop_size=40)
    decisions = {"preset": EMBEDDED, "frozen_blocks": 1, "dropout": 0.5}
    path = tmp_path / "best_rule.json"
    path.write_text(json.dumps({"config": rule.get_config(), "decisions": decisions, "score": 1}))
    return path


def test_the_rule_of_a_search_decides(photos, best_rule, fake_fine_tune, tmp_path):
    arguments = ["fine-tune", str(photos), "--output", str(tmp_path / "new")]
    beside = ["--weight-decay", "0.1", "--frozen-blocks", "1", "--micro-batch-size", "auto"]
    assert main([*arguments, "--rule", str(best_rule), *beside]) == 0
    plan = fake_fine_tune["plan"]
    assert (plan.rule.schedule_length, plan.rule.crop_size, plan.rule.batch_size) == (7, 40, 8)
    assert (plan.frozen_blocks, plan.dropout, plan.weight_decay) == (1, 0.5, 0.1)


def test_the_rule_of_a_run_makes_another_like_it(photos, whole_run, fake_fine_tune, tmp_path):
    arguments = ["fine-tune", str(photos), "--output", str(tmp_path / "new")]
    assert main([*arguments, "--rule", str(whole_run.output / "rule.json")]) == 0
    plan = RunPlan.from_json((whole_run.output / "plan.json").read_text())
    assert fake_fine_tune["plan"].rule == plan.rule and plan.rule.schedule_length == 30


@pytest.mark.parametrize("command", ["plan", "fine-tune"])
@pytest.mark.parametrize(
    "options, message",
    [
        ("--batch-size 8 --no-random-flip", "`--rule`.* Received: `--batch-size`, `--no-random-f"),
        ("--micro-batch-size 4", "must not stand beside `--rule`.* Received: `--micro-batch-size`"),
        ("--preset m-r50x1", "`--preset` must not contradict .* beside --rule .*preset f-r14x0.5"),
        ("--from-scratch", "`--from-scratch` must not contradict"),
        ("--depth 50", "`--depth` must not contradict"),
        ("--freeze-backbone", "`--freeze-backbone` must not contradict .* frozen_blocks 1"),
        ("--frozen-blocks 2", "Received: --frozen-blocks 2 beside --rule .* frozen_blocks 1"),
        ("--dropout 0", "Received: --dropout 0.0 beside --rule .* dropout 0.5. Leave the option"),
    ],
)
def test_options_beside_a_rule_must_not_contradict_it(command, options, message, best_rule, capsys):
    assert main([command, "no folder", "--rule", str(best_rule), *options.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line), line


def test_auto_is_resolved_before_the_run(photos, monkeypatch, tmp_path):
    def fine_tune(data, plan, **arguments):
        assert plan.rule.micro_batch_size in (1, 2, 4, 8)
        raise ValueError("enough")

    monkeypatch.setattr(keras_bit, "fine_tune", fine_tune)
    output = ("--output", str(tmp_path / "new"))
    options = ("--batch-size", "8", "--micro-batch-size", "auto")
    assert main(["fine-tune", str(photos), *output, *options]) == 2
