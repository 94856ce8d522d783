import os
import sys

import numpy as np
import pytest
from PIL import Image

from keras_bit import Evaluation, HyperRule
from keras_bit.evaluation import Calibration, Mistake, RunOutputs, pictures

NAMES = ("cat", "dog", "a class whose name is much too long for any table", "$\\bad{_x$")
RED, GREEN, BLUE = (220, 20, 20), (20, 220, 20), (20, 20, 220)


def plain(color, edge=32):
    return np.full((edge, edge, 3), color, np.uint8)


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.verify()
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def columns_of(picture, color):
    """The range of columns that hold `color`, as shares of the picture's width."""
    near = (abs(picture - np.array(color)) < 12).all(axis=-1).any(axis=0)
    return np.flatnonzero(near)[[0, -1]] / picture.shape[1]


def undecodable_folder(root):
    """The names of the folders in `root`: one, in an encoding that is not UTF-8."""
    try:
        os.mkdir(os.path.join(os.fsencode(root), b"caf\xe9"))
    except OSError:
        pytest.skip("This file system has names in UTF-8 only.")
    return os.listdir(root)


def evaluation_of(counts, names):
    """An evaluation with these counts, true classes in rows."""
    true, predicted = (np.repeat(ids.ravel(), counts.ravel()) for ids in np.indices(counts.shape))
    return Evaluation(true, np.eye(len(names))[predicted], names)


def curves(updates=(5, 10, 12)):
    return {
        "loss": [2.0, 1.0, 0.5],
        "accuracy": [0.1, 0.5, 0.9],
        "val_loss": [2.1, 0.8, 0.9],
        "val_accuracy": [0.1, 0.6, 0.5],
        "updates": list(updates),
    }


def test_labels_are_described_with_their_weights():
    assert pictures.describe_label([0, 1, 0, 0], NAMES) == "dog"
    assert pictures.describe_label([0.17, 0.83, 0, 0], NAMES) == "0.83 dog\n0.17 cat"
    assert pictures.describe_label([0.996, 0.004, 0, 0], NAMES) == "cat"
    assert pictures.shorten("abcdefghij", 5) == "ab…ij"
    assert pictures.shorten("abcde", 5) == "abcde"


def test_schedule_points_are_exact_on_both_sides_of_a_boundary():
    rule = HyperRule(224, 100_000, warmup=True)
    steps, rates = pictures.schedule_points(rule, points=50)
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
    pictures.draw_schedule(path, HyperRule(224, 100, 64, schedule_length=length, warmup=True))
    first = pixels(path)
    assert first.shape == (440, 880, 3)
    pictures.draw_schedule(path, HyperRule(224, 100, 64, schedule_length=length, learning_rate=1.0))
    assert (first != pixels(path)).any()
    assert [file.name for file in tmp_path.iterdir()] == ["rate.png"]


def test_curves_picture_follows_the_history(tmp_path):
    path = tmp_path / "curves.png"
    pictures.draw_curves(path, curves())
    first = pixels(path)
    assert first.shape == (462, 1100, 3)
    pictures.draw_curves(path, {**curves(), "val_loss": [2.1, 0.8, 1.2]})
    changed = (first != pixels(path)).any(axis=(0, 2))
    assert changed[:550].any() and not changed[550:].any()


def test_curves_of_one_epoch_and_of_a_loss_that_is_never_finite(tmp_path):
    history = {key: [float("nan")] for key in curves()} | {"updates": [7]}
    pictures.draw_curves(tmp_path / "none.png", history)
    pictures.draw_curves(tmp_path / "loss.png", history | {"loss": [0.5]})
    none, loss = (pixels(tmp_path / name) for name in ("none.png", "loss.png"))
    blue = np.array([0x00, 0x72, 0xB2])  # of training; the legends have a little of it
    drawn = [(abs(picture - blue) < 12).all(axis=-1).sum() for picture in (none, loss)]
    assert drawn[1] > drawn[0] + 20, "the one finite value must be drawn"


@pytest.mark.parametrize("scale", [255.0, None])
def test_training_images_stand_in_the_order_of_the_batch(tmp_path, scale):
    images = np.stack([plain(color) for color in (RED, GREEN, BLUE)])
    images = images if scale is None else (images / scale).astype(np.float32)
    labels = np.array([[0.8, 0, 0.2, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    pictures.draw_training_images(tmp_path / "grid.png", images, labels, NAMES)
    picture = pixels(tmp_path / "grid.png")
    assert picture.shape == (319, 880, 3)
    for place, color in enumerate((RED, GREEN, BLUE)):
        first, last = columns_of(picture, color)
        assert place / 4 - 0.01 < first < last < (place + 1) / 4 + 0.01


def test_training_images_are_no_more_than_a_page_shows(tmp_path):
    images = np.stack([plain(RED)] * 16 + [plain(BLUE)] * 20)
    labels = np.tile([1.0, 0, 0, 0], (36, 1))
    pictures.draw_training_images(tmp_path / "grid.png", images, labels, NAMES)
    picture = pixels(tmp_path / "grid.png")
    assert picture.shape == (1111, 880, 3)
    assert not (abs(picture - np.array(BLUE)) < 12).all(axis=-1).any()


def test_mistakes_picture_shows_their_images_or_says_that_there_are_none(tmp_path):
    path = tmp_path / "mistakes.png"
    mistakes = [Mistake(4, "4.png", 0, 1, 0.9, 1), Mistake(2, "2.png", 2, 3, 0.5, 3)]
    pictures.draw_mistakes(path, [plain(RED), plain(GREEN)], mistakes, NAMES)
    picture = pixels(path)
    assert columns_of(picture, RED)[1] < columns_of(picture, GREEN)[0]
    pictures.draw_mistakes(path, [], [], NAMES)
    none = pixels(path)
    assert none.shape == (132, 880, 3)
    assert (none < 100).any(), "an empty picture"


@pytest.mark.parametrize("classes", [2, 10, 40, 100, 150])
def test_confusion_picture_grows_with_the_classes_up_to_a_limit(tmp_path, classes):
    names = [f"class {index}" for index in range(classes)]
    evaluation = evaluation_of(np.eye(classes, dtype=int) * 7, names)
    pictures.draw_confusion(tmp_path / "matrix.png", evaluation)
    height, width, _ = pixels(tmp_path / "matrix.png").shape
    edge = {2: 3.0, 10: 7.0, 40: 12.0, 100: 16.0, 150: 16.0}[classes]
    assert edge * pictures.DPI < height < (edge + 2.2) * pictures.DPI
    assert edge * pictures.DPI < width < (edge + 3) * pictures.DPI


def test_confusion_colors_are_shares_of_the_true_class(tmp_path):
    counts = np.array([[1000, 0], [1, 1]])
    pictures.draw_confusion(tmp_path / "matrix.png", evaluation_of(counts, ("cat", "dog")))
    picture = pixels(tmp_path / "matrix.png")

    def occurs(share):
        from matplotlib import cm

        color = np.array(cm.Blues(share)[:3]) * 255
        return (abs(picture - color) < 1).all(axis=-1).sum() > 5_000

    # Counts of one and one are each half of their class; of all images they would be nothing.
    assert occurs(1.0) and occurs(0.5) and occurs(0.0)
    assert not occurs(0.25)


def test_class_names_with_mathematical_signs_are_plain_text(tmp_path):
    def drawn(sign):
        names = ("cat", f"{sign}x{sign}")
        evaluation = evaluation_of(np.eye(2, dtype=int), names)
        pictures.draw_confusion(tmp_path / "matrix.png", evaluation)
        images = np.stack([plain(RED)] * 2)
        pictures.draw_training_images(tmp_path / "grid.png", images, np.eye(2), names)
        return pixels(tmp_path / "matrix.png"), pixels(tmp_path / "grid.png")

    # As mathematics the dollars would vanish, and an underscore alone is an error.
    for dollars, plain_text in zip(drawn("$"), drawn(""), strict=True):
        assert dollars.shape != plain_text.shape or (dollars != plain_text).any()
    drawn("$\\bad{_")


def test_names_that_the_font_lacks_are_no_reason_to_warn(tmp_path, recwarn):
    evaluation = evaluation_of(np.eye(2, dtype=int), ("cat", "\u65e5\u672c"))
    pictures.draw_confusion(tmp_path / "matrix.png", evaluation)
    assert np.ptp(pixels(tmp_path / "matrix.png")) > 100 and not recwarn


def test_no_picture_needs_pyplot(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    evaluation = evaluation_of(np.eye(2, dtype=int), ("cat", "dog"))
    pictures.draw_confusion(tmp_path / "matrix.png", evaluation)
    assert "matplotlib.pyplot" not in sys.modules


def test_each_mistake_has_the_name_of_its_file(tmp_path):
    def drawn(second, first="/a/folder/1.png"):
        mistakes = [Mistake(0, first, 0, 1, 0.9, 1), Mistake(1, second, 2, 1, 0.5, 1)]
        pictures.draw_mistakes(tmp_path / "wrong.png", [plain(RED), plain(GREEN)], mistakes, NAMES)
        return pixels(tmp_path / "wrong.png")

    before = drawn("/a/folder/2.png")
    changed = (before != drawn("/a/folder/3.png")).any(axis=-1)
    assert changed.any() and not changed[:, :220].any()  # a quarter of the width for each image
    assert (drawn("/another/2.png") == before).all()
    assert (drawn("7") != drawn("8")).any(), "images without files have numbers"
    long = "x" * 30
    assert (drawn(f"{long}ab{long}.png") == drawn(f"{long}cd{long}.png")).all()


def test_the_second_curve_is_that_of_the_metric_there_is(tmp_path):
    history = curves()
    pictures.draw_curves(tmp_path / "accuracy.png", history)
    history["pr_auc"], history["val_pr_auc"] = history.pop("accuracy"), history.pop("val_accuracy")
    pictures.draw_curves(tmp_path / "auc.png", history)
    changed = pixels(tmp_path / "accuracy.png") != pixels(tmp_path / "auc.png")
    assert changed[:60, 550:].any() and not changed[60:].any(), "only the title differs"


def test_reliability_picture_has_bars_of_the_shares_that_came_true(tmp_path):
    shares, true = np.repeat([0.1, 0.5, 0.9], 4), [0, 0, 0, 1, 0, 0, 1, 1, 1, 1, 1, 1]
    pictures.draw_reliability(tmp_path / "some.png", Calibration.of(shares, true))
    picture = pixels(tmp_path / "some.png")
    blue = (abs(picture - np.array([0x00, 0x72, 0xB2])) < 12).all(axis=-1)[:-60]  # but the legend's
    columns = np.flatnonzero(blue.any(axis=0))
    bars = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    # The whole height of a column: of the dot at the mean probability, only its middle lacks.
    heights = [np.ptp(np.flatnonzero(blue[:, bar[len(bar) // 4]])) for bar in bars]
    np.testing.assert_allclose(np.array(heights) / heights[2], [0.25, 0.5, 1], atol=0.01)
    pictures.draw_reliability(tmp_path / "one.png", Calibration.of([1.0], [True]))
    assert np.ptp(pixels(tmp_path / "one.png")) > 100


def several_labels(classes, rng, images=40):
    labels = (rng.uniform(size=(images, classes)) < 0.4).astype(int)
    labels[0], labels[:, 1] = 1, 0
    logits = labels + rng.normal(size=labels.shape)
    return Evaluation(labels, logits, [f"class {i}" for i in range(classes)])


def test_classes_picture_grows_with_the_classes_up_to_a_limit(tmp_path, rng):
    heights = []
    for classes in (2, 61, 90):
        pictures.draw_class_scores(tmp_path / "c.png", several_labels(classes, rng))
        heights.append(pixels(tmp_path / "c.png").shape[0])
    assert heights[0] < heights[1] == heights[2]


def test_classes_picture_has_a_dot_at_each_f1(tmp_path):
    labels = np.array([[1, 0, 1]] * 6 + [[1, 1, 0]] * 3 + [[0, 0, 0]] * 3)
    logits = np.where(labels, 1.0, -1.0)
    logits[:3, 0] = -1.0  # F1 of 6 found of 9: 0.8
    logits[6:8, 1] = -1.0  # 1 of 3: 0.5
    outputs = RunOutputs(True)
    evaluation = Evaluation(labels, logits, ("cat", "dog", "fox"), outputs=outputs)
    pictures.draw_class_scores(tmp_path / "classes.png", evaluation)
    picture = pixels(tmp_path / "classes.png")
    blue = (abs(picture - np.array([0x00, 0x72, 0xB2])) < 12).all(axis=-1)[:-60]  # but the legend's
    rows = np.flatnonzero(blue.any(axis=1))
    dots = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    places = [np.flatnonzero(blue[dot].any(axis=0)).mean() for dot in dots]
    assert (places[1] - places[0]) / (places[2] - places[0]) == pytest.approx(0.6, abs=0.02)


def test_a_mistake_of_several_labels_is_drawn(tmp_path):
    def drawn(true, predicted):
        mistakes = [Mistake(0, "1.png", true, predicted, 0.9, 1)]
        pictures.draw_mistakes(tmp_path / "wrong.png", [plain(RED)], mistakes, NAMES)
        return pixels(tmp_path / "wrong.png")

    missed = drawn((0, 1), ())
    assert (missed != drawn((0,), (1,))).any() and (missed != drawn((0, 1, 2), ())).any()
    assert drawn((), (1,)).shape == missed.shape


def test_names_of_no_known_encoding_are_drawn_with_backslashes(tmp_path):
    (name,) = undecodable_folder(tmp_path)
    assert pictures.shorten(name) == "caf\\udce9"
    # Backslashes count when a name is shortened.
    assert pictures.shorten(8 * name[-1], 15) == "\\udce9\\…9\\udce9"
    assert pictures.describe_label([0.0, 1.0], ("cat", name)) == "caf\\udce9"

    def drawn(name):
        names = ("cat", name)
        pictures.draw_confusion(tmp_path / "matrix.png", evaluation_of(np.eye(2, dtype=int), names))
        images = np.stack([plain(RED)] * 2)
        pictures.draw_training_images(tmp_path / "grid.png", images, np.eye(2), names)
        mistakes = [Mistake(0, f"/{name}/{name}", 0, 1, 0.9, 1)]
        pictures.draw_mistakes(tmp_path / "wrong.png", images[:1], mistakes, names)
        return [pixels(tmp_path / f"{kind}.png") for kind in ("matrix", "grid", "wrong")]

    for odd, spelled in zip(drawn(name), drawn("caf\\udce9"), strict=True):
        np.testing.assert_array_equal(odd, spelled)
