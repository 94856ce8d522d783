import html.parser
import json

import numpy as np

from keras_bit import Evaluation, HyperRule
from keras_bit.evaluation import report
from tests.evaluation.test_pictures import BLUE, RED, curves, pixels, plain, undecodable_folder


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.sources, self.tags, self.text, self.tables = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)
        if self.tags[-1] in ("td", "th"):
            self.tables[-1][-1].append(data)


def page_of(folder, evaluation, metrics=(), **options):
    """The page of a report with this evaluation; its images are plain."""
    mistaken = [plain(BLUE)] * len(evaluation.mistakes(report.SHOWN_MISTAKES))
    report.write_report(
        folder,
        text="The plan.",
        metrics=dict(metrics),
        rule=HyperRule(32, 100, 16),
        history=curves(),
        evaluation=evaluation,
        training_examples=(np.stack([plain(RED)] * 2), np.eye(len(evaluation.label_names))[[0, 1]]),
        mistaken_images=mistaken,
        **options,
    )
    return Page((folder / report.PAGE_FILE).read_text("utf-8"))


def test_the_mistakes_are_listed_with_their_files(tmp_path):
    probabilities = np.array([[0.4, 0.6], [0.8, 0.2], [0.07, 0.93], [0.1, 0.9]])
    files = ("/photos/a <b>/1.png", "/photos/2.png", "/photos/3.png", "4.png")
    evaluation = Evaluation([0, 0, 0, 1], np.log(probabilities), ("cat", "dog & co"), files)
    page = page_of(tmp_path, evaluation)
    assert page.tables[1] == [
        ["file", "true class", "prediction", "probability"],
        ["/photos/3.png", "cat", "dog & co", "0.93"],
        ["/photos/a <b>/1.png", "cat", "dog & co", "0.60"],
    ]
    assert not any("more." in text for text in page.text)
    right = Evaluation([0, 1], np.eye(2), ("cat", "dog"))
    assert len(page_of(tmp_path, right).tables) == 2  # the facts, and class by class


def test_no_more_mistakes_are_listed_than_a_page_holds(tmp_path):
    true = np.zeros(1234, int)
    confidence = np.linspace(1, 2, 1234)
    logits = np.stack([0 * confidence, confidence], axis=-1)
    page = page_of(tmp_path, Evaluation(true, logits, ("cat", "dog")))
    header, *rows = page.tables[1]
    assert [row[0] for row in rows] == [str(index) for index in range(1233, 1033, -1)]
    assert "And 1,034 more." in page.text


def test_facts_that_say_nothing_are_left_out(tmp_path):
    metrics = {"remat": False, "best_update": 0, "half_precision": True, "note": None, "loss": 0.0}
    page = page_of(tmp_path, Evaluation([0, 1], np.eye(2), ("cat", "dog")), metrics)
    assert page.tables[0] == [["best update", "0"], ["half precision", "yes"], ["loss", "0"]]


def test_a_class_of_no_known_encoding_is_in_the_report(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (name,) = undecodable_folder(folder)
    files = tuple(str(folder / name / f"{index}.png") for index in range(3))
    evaluation = Evaluation([0, 1, 1], np.eye(2)[[1, 1, 0]], ("cat", name), files)
    page = page_of(tmp_path, evaluation)
    assert page.tables[1][1][1:3] == ["cat", "caf\\udce9"]
    assert page.tables[1][2][0].endswith("photos/caf\\udce9/2.png")
    assert page.tables[2][1][0] == "cat" and page.tables[2][2][0] == "caf\\udce9"


def test_the_page_holds_everything_itself(tmp_path):
    names = ("<script>alert(1)</script>", "dog")
    logits = np.eye(2)[[0, 0, 1, 1, 1, 1]]
    report.write_report(
        tmp_path,
        text="BiT-HyperRule <b>",
        metrics={"accuracy": 0.98765, "validation_images": 12345},
        rule=HyperRule(32, 100, 16, mixup_alpha=0.1),
        history=curves(),
        evaluation=Evaluation([0, 0, 0, 1, 1, 1], logits, names),
        training_examples=(np.stack([plain(RED)] * 2), np.eye(2)),
        mistaken_images=[plain(BLUE)],
    )
    text = (tmp_path / report.PAGE_FILE).read_text("utf-8")
    page = Page(text)
    assert len(page.sources) == 6 == page.tags.count("img")
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "script" not in page.tags and "b" not in page.tags
    shown = json.dumps(page.text)
    for expected in ("83.33%", "0.9877", "12,345", "With MixUp", "BiT-HyperRule", "alert(1)"):
        assert expected in shown
    assert pictures_in(tmp_path) == set(report.PICTURE_FILES) - {report.CLASSES, report.MAPS}


def pictures_in(folder):
    """The names of the pictures of a report, none of which is empty."""
    paths = list((folder / report.PICTURES_FOLDER).iterdir())
    for path in paths:
        assert np.ptp(pixels(path)) > 100, f"{path.name} is empty"
    return {path.name for path in paths}


def test_a_report_of_several_labels(tmp_path):
    labels = [[1, 1], [0, 1], [1, 0], [0, 0], [0, 1]]
    logits = np.array([[3.0, 1], [-1, 2], [1, 1.5], [-2, -1], [-1, 1]])
    evaluation = Evaluation(labels, logits, ("cat", "dog"), tuple("vwxyz"))
    page = page_of(tmp_path, evaluation, {"mean_average_precision": 0.9}, train_counts=[30, 10])
    assert pictures_in(tmp_path) == set(report.PICTURE_FILES) - {report.CONFUSION, report.MAPS}
    assert "Fine-tuning: mean average precision 0.917 on validation" in page.text
    assert any(text.startswith("The thresholds were chosen on these images") for text in page.text)
    assert any("In training, the largest class (cat: 30) has 3 times" in text for text in page.text)
    columns = ["file", "true classes", "predictions", "wrong or missed", "probability"]
    assert page.tables[1] == [columns, ["x", "cat", "cat, dog", "dog", "0.82"]]
    assert page.tables[2][1] == ["dog", "3", "0.750", "1.000", "0.857", "0.833", "0.500"]
