import html.parser
import json
import sys

import numpy as np
import pytest
from PIL import Image

from keras_bit import HyperRule, report
from keras_bit.files import written_whole

NAMES = ("cat", "dog", "a class whose name is much too long for any table", "$\\bad{_x$")
RED, GREEN, BLUE = (220, 20, 20), (20, 220, 20), (20, 20, 220)


def plain(colour, edge=32):
    return np.full((edge, edge, 3), colour, np.uint8)


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.verify()
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def columns_of(picture, colour):
    """The range of columns that hold `colour`, as shares of the picture's width."""
    near = (abs(picture - np.array(colour)) < 12).all(axis=-1).any(axis=0)
    return np.flatnonzero(near)[[0, -1]] / picture.shape[1]


def curves(updates=(5, 10, 12)):
    return {
        "loss": [2.0, 1.0, 0.5],
        "accuracy": [0.1, 0.5, 0.9],
        "val_loss": [2.1, 0.8, 0.9],
        "val_accuracy": [0.1, 0.6, 0.5],
        "updates": list(updates),
    }


def test_softmax_of_a_hand_example_and_of_huge_logits():
    np.testing.assert_allclose(report.softmax([[0.0, np.log(3.0)]]), [[0.25, 0.75]])
    np.testing.assert_array_equal(report.softmax([[1e5, -1e5]]), [[1.0, 0.0]])


def test_confusion_counts_of_a_hand_example():
    true = [0, 0, 0, 1, 1, 3]
    predicted = [0, 1, 1, 1, 0, 0]
    counts = report.confusion_counts(true, predicted, 4)
    assert counts.tolist() == [[1, 2, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]


def test_confident_mistakes_are_the_wrong_ones_in_order_of_their_probability():
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    mistakes = report.confident_mistakes(probabilities, [1, 1, 1, 0])
    assert mistakes == [
        report.Mistake(index=2, true=1, predicted=0, probability=0.8),
        report.Mistake(index=3, true=0, predicted=1, probability=0.7),
        report.Mistake(index=0, true=1, predicted=0, probability=0.6),
    ]
    assert report.confident_mistakes(probabilities, [1, 1, 1, 0], limit=1) == mistakes[:1]
    assert report.confident_mistakes(probabilities, [0, 1, 0, 1]) == []


def test_class_rows_begin_with_the_worst_class():
    counts = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 2]])
    rows = report.class_rows(counts, ("cat", "dog", "fox"))
    assert rows == [("fox", 4, 2, "cat"), ("cat", 4, 3, "dog"), ("dog", 0, 0, "")]


def test_labels_are_described_with_their_weights():
    assert report.describe_label([0, 1, 0, 0], NAMES) == "dog"
    assert report.describe_label([0.17, 0.83, 0, 0], NAMES) == "0.83 dog\n0.17 cat"
    assert report.describe_label([0.996, 0.004, 0, 0], NAMES) == "cat"
    assert report.shorten("abcdefghij", 5) == "ab…ij"
    assert report.shorten("abcde", 5) == "abcde"


def test_schedule_points_are_exact_on_both_sides_of_a_boundary():
    rule = HyperRule(224, 100_000, warmup=True)
    steps, rates = report.schedule_points(rule, points=50)
    assert len(steps) < 70
    rate = dict(zip(steps.tolist(), rates.tolist(), strict=True))
    assert (steps[0], steps[-1]) == (0, 9_999)
    assert rate[500] == rate[3_000] == pytest.approx(0.003)
    assert rate[3_001] == rate[6_000] == pytest.approx(0.0003)
    assert rate[9_001] == rate[9_999] == pytest.approx(0.000003)
    assert rate[0] == 0


@pytest.mark.parametrize("length", [1, 3, 500, 80_000])
def test_schedule_picture(tmp_path, length):
    path = tmp_path / "rate.png"
    report.draw_schedule(path, HyperRule(224, 100, 64, schedule_length=length, warmup=True))
    first = pixels(path)
    assert first.shape == (440, 880, 3)
    report.draw_schedule(path, HyperRule(224, 100, 64, schedule_length=length, learning_rate=1.0))
    assert (first != pixels(path)).any()
    assert [file.name for file in tmp_path.iterdir()] == ["rate.png"]


def test_curves_picture_follows_the_history(tmp_path):
    path = tmp_path / "curves.png"
    report.draw_curves(path, curves(), curves()["updates"])
    first = pixels(path)
    assert first.shape == (462, 1100, 3)
    report.draw_curves(path, {**curves(), "val_loss": [2.1, 0.8, 1.2]}, curves()["updates"])
    changed = (first != pixels(path)).any(axis=(0, 2))
    assert changed[:550].any() and not changed[550:].any()


def test_curves_of_one_epoch_and_of_a_loss_that_is_never_finite(tmp_path):
    history = {key: [float("nan")] for key in curves()}
    report.draw_curves(tmp_path / "curves.png", history, [7])
    assert pixels(tmp_path / "curves.png").shape == (462, 1100, 3)


@pytest.mark.parametrize("scale", [255.0, None])
def test_training_images_stand_in_the_order_of_the_batch(tmp_path, scale):
    images = np.stack([plain(colour) for colour in (RED, GREEN, BLUE)])
    images = images if scale is None else (images / scale).astype(np.float32)
    labels = np.array([[0.8, 0, 0.2, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    report.draw_training_images(tmp_path / "grid.png", images, labels, NAMES)
    picture = pixels(tmp_path / "grid.png")
    assert picture.shape == (319, 880, 3)
    for place, colour in enumerate((RED, GREEN, BLUE)):
        first, last = columns_of(picture, colour)
        assert place / 4 - 0.01 < first < last < (place + 1) / 4 + 0.01


def test_training_images_are_no_more_than_a_page_shows(tmp_path):
    images = np.stack([plain(RED)] * 16 + [plain(BLUE)] * 20)
    labels = np.tile([1.0, 0, 0, 0], (36, 1))
    report.draw_training_images(tmp_path / "grid.png", images, labels, NAMES)
    picture = pixels(tmp_path / "grid.png")
    assert picture.shape == (1111, 880, 3)
    assert not (abs(picture - np.array(BLUE)) < 12).all(axis=-1).any()


def test_mistakes_picture_shows_their_images_or_says_that_there_are_none(tmp_path):
    path = tmp_path / "mistakes.png"
    mistakes = [report.Mistake(4, 0, 1, 0.9), report.Mistake(2, 2, 3, 0.5)]
    report.draw_mistakes(path, [plain(RED), plain(GREEN)], mistakes, NAMES)
    picture = pixels(path)
    assert columns_of(picture, RED)[1] < columns_of(picture, GREEN)[0]
    report.draw_mistakes(path, [], [], NAMES)
    none = pixels(path)
    assert none.shape == (132, 880, 3)
    assert (none < 100).any(), "an empty picture"


@pytest.mark.parametrize("classes", [2, 10, 40, 100, 150])
def test_confusion_picture_grows_with_the_classes_up_to_a_limit(tmp_path, classes):
    names = [f"class {index}" for index in range(classes)]
    report.draw_confusion(tmp_path / "matrix.png", np.eye(classes, dtype=int) * 7, names)
    height, width, _ = pixels(tmp_path / "matrix.png").shape
    edge = {2: 3.0, 10: 7.0, 40: 12.0, 100: 16.0, 150: 16.0}[classes]
    assert edge * report.DPI < height < (edge + 2.2) * report.DPI
    assert edge * report.DPI < width < (edge + 3) * report.DPI


def test_confusion_colours_are_shares_of_the_true_class(tmp_path):
    counts = np.array([[1000, 0], [1, 1]])
    report.draw_confusion(tmp_path / "matrix.png", counts, ("cat", "dog"))
    picture = pixels(tmp_path / "matrix.png")

    def occurs(share):
        from matplotlib import cm

        colour = np.array(cm.Blues(share)[:3]) * 255
        return (abs(picture - colour) < 1).all(axis=-1).sum() > 5_000

    # Counts of one and one are each half of their class; of all images they would be nothing.
    assert occurs(1.0) and occurs(0.5) and occurs(0.0)
    assert not occurs(0.25)


def test_class_names_with_mathematical_signs_are_plain_text(tmp_path):
    report.draw_confusion(tmp_path / "matrix.png", np.eye(4, dtype=int), NAMES)
    labels = np.eye(4)
    report.draw_training_images(tmp_path / "grid.png", np.stack([plain(RED)] * 4), labels, NAMES)
    assert pixels(tmp_path / "matrix.png").size and pixels(tmp_path / "grid.png").size


def test_no_picture_needs_pyplot(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    report.draw_confusion(tmp_path / "matrix.png", np.eye(2, dtype=int), ("cat", "dog"))
    assert "matplotlib.pyplot" not in sys.modules


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyError), written_whole(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.sources, self.tags, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_holds_everything_itself(tmp_path):
    names = ("<script>alert(1)</script>", "dog")
    report.write_report(
        tmp_path,
        label_names=names,
        metrics={"accuracy": 0.98765, "validation_images": 12345},
        rule=HyperRule(32, 100, 16, mixup_alpha=0.1),
        history=curves(),
        training_examples=(np.stack([plain(RED)] * 2), np.eye(2)),
        counts=np.array([[2, 1], [0, 3]]),
        mistakes=[report.Mistake(0, 0, 1, 0.75)],
        mistaken_images=[plain(BLUE)],
    )
    text = (tmp_path / report.PAGE_FILE).read_text("utf-8")
    page = Page(text)
    assert len(page.sources) == 5 == page.tags.count("img")
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "script" not in page.tags
    shown = json.dumps(page.text)
    for expected in ("98.77%", "0.9877", "12,345", "With MixUp", "BiT-HyperRule", "alert(1)"):
        assert expected in shown
    for name in report.PICTURE_FILES:
        assert pixels(tmp_path / report.PICTURES_FOLDER / name).size
