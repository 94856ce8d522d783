import csv
import json

import numpy as np
import pytest

from keras_bit import Evaluation
from keras_bit.evaluation import RunOutputs
from keras_bit.evaluation.results import check_results_folder, write_predictions, write_results
from tests.evaluation.test_pictures import BLUE, plain, undecodable_folder
from tests.evaluation.test_report import Page

FILES = ["evaluation.html", "metrics.json", "predictions.csv"]


def written(folder, evaluation):
    """The rows of the table, the metrics and the page."""
    images = [plain(BLUE)] * len(evaluation.mistakes(12))
    page = write_results(folder, evaluation, images)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, strict=True))
    text = (folder / "metrics.json").read_text("utf-8")
    metrics = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return rows, metrics, Page(page.read_text("utf-8"))


def test_the_files_of_an_evaluation(tmp_path):
    logits = np.log([[0.75, 0.25], [0.375, 0.625], [0.5625, 0.4375]])
    names = ("a, b.jpg", "/photos/2.jpg", "3.jpg")
    evaluation = Evaluation([0, 1, 1], logits, ("cat", 'dog "x"'), names)
    rows, metrics, page = written(tmp_path / "new" / "folder", evaluation)
    assert rows[0] == ["image", "true", "predicted", "probability", "p(cat)", 'p(dog "x")']
    assert rows[3][:3] == ["3.jpg", 'dog "x"', "cat"] and len(rows) == 4
    shares = [[float(cell) for cell in row[3:]] for row in rows[1:]]
    expected = [[0.75, 0.75, 0.25], [0.625, 0.375, 0.625], [0.5625, 0.5625, 0.4375]]
    np.testing.assert_allclose(shares, expected)
    assert metrics["accuracy"] == pytest.approx(2 / 3) and metrics["temperature"] == 1
    assert (metrics["images"], metrics["classes"], metrics["multi_label"]) == (3, 2, False)
    assert metrics["per_class"][1]["recall"] == 0.5 and metrics["fitted_here"] == []
    assert "Evaluation: 66.67% right on 3 images" in page.text and page.tags.count("img") == 3
    facts = dict(page.tables[0])
    assert facts["accuracy"].startswith("0.6667 (95% interval: 0.20")
    assert "accuracy low" not in facts


def test_the_files_of_several_labels(tmp_path):
    logits = np.log([[3.0, 1 / 3], [1.0, 4.0], [0.25, 0.25]])
    labels = [[1, 0], [1, 1], [0, 1]]
    outputs = RunOutputs(True, 1.0, (0.4, 0.6))
    evaluation = Evaluation(labels, logits, ("cat", "dog"), tuple("abc"), outputs)
    rows, metrics, page = written(tmp_path, evaluation)
    assert [row[:3] for row in rows[1:]] == [
        ["a", "cat", "cat"], ["b", "cat|dog", "cat|dog"], ["c", "dog", ""]
    ]  # fmt: skip
    assert [float(share) for share in rows[2][3].split("|")] == pytest.approx([0.5, 0.8])
    assert rows[3][3] == "" and metrics["per_class"][1]["threshold"] == 0.6
    assert "Evaluation: mean average precision 0.917 on 3 images" in page.text
    mistakes, classes = page.tables[1:]
    assert mistakes[1] == ["c", "dog", "none", "dog", "0.20"]
    assert classes[0][-2:] == ["average precision", "threshold"] and classes[1][0] == "dog"


def test_scores_that_there_are_not_are_null(tmp_path):
    evaluation = Evaluation([[0, 0]], [[-1.0, -2.0]], ("cat", "dog"))
    rows, metrics, _ = written(tmp_path, evaluation)
    assert metrics["mean_average_precision"] is None and rows[1][:4] == ["0", "", "", ""]


def test_of_many_classes_the_table_has_the_prediction_only(tmp_path):
    evaluation = Evaluation([0, 1], np.eye(101)[:2], tuple(map(str, range(101))))
    write_predictions(tmp_path / "table.csv", evaluation)
    rows = (tmp_path / "table.csv").read_text("utf-8").splitlines()
    assert rows[0] == "image,true,predicted,probability" and rows[2].startswith("1,1,1,0.0")


def test_names_of_no_known_encoding_are_written_with_backslashes(tmp_path):
    (tmp_path / "photos").mkdir()
    (name,) = undecodable_folder(tmp_path / "photos")
    evaluation = Evaluation([0, 1], np.eye(2), ("cat", name), (f"{name}/1.png", "2.png"))
    rows, metrics, _ = written(tmp_path / "out", evaluation)
    assert rows[1][0] == "caf\\udce9/1.png" and rows[2][1] == "caf\\udce9"
    assert metrics["classes"] == 2


def test_a_folder_that_holds_other_results_is_refused(tmp_path):
    check_results_folder(tmp_path, overwrite=False)
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(FileExistsError, match="`output` must hold no.*metrics.json.*`overwrite`"):
        check_results_folder(tmp_path, overwrite=False)
    check_results_folder(tmp_path, overwrite=True)
    (tmp_path / "model.keras").touch()
    with pytest.raises(FileExistsError, match="must not be the folder of a run"):
        check_results_folder(tmp_path, overwrite=True)
    with pytest.raises(NotADirectoryError):
        check_results_folder(tmp_path / "metrics.json", overwrite=True)
