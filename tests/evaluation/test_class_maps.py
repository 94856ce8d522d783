import dataclasses
import pathlib
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from keras_bit import BiTBackbone, BiTClassifier, Evaluation, ZeroInitHead, predict_files
from keras_bit.evaluation import FilePrediction, RunOutputs, class_maps, map_files, report
from keras_bit.evaluation.saved_run import SavedRun
from tests.evaluation.test_pictures import BLUE, RED, pixels, plain
from tests.evaluation.test_report import page_of
from tests.saved_files import RUN

pytestmark = pytest.mark.tensorflow

ORANGE, COLD = np.array([213, 94, 0]), np.array([0, 114, 178])  # Okabe and Ito's
EDGE = 96  # three positions


def strength(picture):
    """How strongly each pixel is colored: gray has three equal channels."""
    return np.ptp(picture.astype(int), axis=-1)


def test_a_position_is_drawn_around_its_pixel_in_the_color_of_its_sign():
    gray = plain((128, 128, 128), EDGE)
    one = np.zeros((3, 3))
    one[1, 2] = 5.0
    drawn = class_maps.overlay(gray, one, EDGE, scale=5.0)
    assert np.unravel_index(strength(drawn).argmax(), (EDGE, EDGE)) == (32, 64)
    faded = 255 - 0.75 * (255 - 128)
    np.testing.assert_allclose(drawn[32, 64], 0.2 * faded + 0.8 * ORANGE, atol=1)
    np.testing.assert_allclose(drawn[32, 80], 0.6 * faded + 0.4 * ORANGE, atol=1)  # halfway
    assert not strength(drawn)[:, :33].any() and not strength(drawn)[64:].any()
    against = class_maps.overlay(gray, -one / 2, EDGE, scale=5.0)
    np.testing.assert_allclose(against[32, 64], 0.6 * faded + 0.4 * COLD, atol=1)


def test_maps_lie_over_a_larger_image_as_over_what_the_network_saw():
    one = np.zeros((3, 3))
    one[1, 2] = 1.0
    drawn = class_maps.overlay(np.full((4 * EDGE, 2 * EDGE, 3), 128, np.uint8), one, EDGE, 1.0)
    row, column = np.unravel_index(strength(drawn).argmax(), drawn.shape[:2])
    assert abs(row + 0.5 - 4 * 32.5) <= 4 and abs(column + 0.5 - 2 * 64.5) <= 2


def test_a_map_of_zeros_has_no_color():
    assert not strength(class_maps.overlay(plain((9, 9, 9)), np.zeros((1, 1)), 32, 0.0)).any()


def test_only_average_pooling_before_a_linear_head_has_maps(rng):
    def sequential(*layers):
        return keras.Sequential([keras.Input((None, None, 3)), *layers])

    def backbone(pooling="avg"):
        return BiTBackbone((1, 1, 1, 1), 1 / 16, pooling=pooling)

    for model in (
        BiTClassifier(backbone("max"), 2),
        sequential(backbone(), keras.layers.Dense(2, "softmax")),
        sequential(backbone(), keras.layers.Dense(4), ZeroInitHead(2)),
    ):
        assert class_maps.class_map_function(model) is None
    model = sequential(backbone(), ZeroInitHead(2))
    model.layers[1].kernel.assign(rng.normal(size=model.layers[1].kernel.shape))
    images = rng.integers(0, 256, (2, 40, 40, 3)).astype(np.uint8)
    maps = class_maps.class_map_function(model)(images)
    assert maps.shape == (2, 2, 2, 2)
    logits = model.predict(images / np.float32(255), verbose=0)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), logits, atol=1e-4 * np.abs(logits).max())


@pytest.mark.slow
def test_each_image_has_its_maps_whatever_the_replicas(rng, two_replicas):
    with two_replicas.scope():
        model = BiTClassifier(BiTBackbone((1, 1, 1, 1), 1 / 16), 2)
        model.head.kernel.assign(rng.normal(size=model.head.kernel.shape))
        images = rng.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
        maps = class_maps.class_map_function(model)(images)
    alone = BiTClassifier(BiTBackbone((1, 1, 1, 1), 1 / 16), 2)
    alone.set_weights(model.get_weights())
    expected = class_maps.class_map_function(alone)(images)
    np.testing.assert_allclose(maps, expected, atol=1e-4 * np.abs(expected).max())


@pytest.fixture
def draw(tmp_path):
    """Draws the maps of mistakes: zero for the cat, for the dog and against the fox."""

    def drawn(true, predicted):
        logits = np.full((len(true), 3), -3.0)
        for row, classes in zip(logits, predicted, strict=True):
            row[classes] = 3.0
        outputs = RunOutputs(multi_label=bool(np.ndim(true[0])))
        evaluation = Evaluation(true, logits, ("cat", "dog", "fox"), outputs=outputs)
        mistakes = evaluation.mistakes()
        maps = np.zeros((len(mistakes), 1, 1, 3))
        maps[..., 1], maps[..., 2] = 1.0, -1.0
        images = [plain(RED)] * len(mistakes)
        path = tmp_path / "maps.png"
        class_maps.draw_mistake_maps(path, images, maps, mistakes, evaluation.label_names)
        return pixels(path)

    return drawn


def panels(picture, color, count):
    """Whether each of the panels, in one row, has much of a color."""
    near = (np.abs(picture - color) < 40).all(axis=-1)[: int(len(picture) * 0.8)]
    return [bool(part.mean() > 0.02) for part in np.array_split(near, count, axis=1)]


FADED_RED = 255 - 0.75 * (255 - 0.299 * 220 - 0.701 * 20)
FOR, AGAINST = (0.2 * FADED_RED + 0.8 * color for color in (ORANGE, COLD))


def test_mistakes_are_drawn_with_the_maps_of_both_classes(draw):
    picture = draw([0, 2], [1, 1])
    assert panels(picture, np.array(RED), 6) == [True, False, False] * 2
    assert panels(picture, FOR, 6) == [False, True, False] * 2
    # The first mistake's true class has an empty map, the second one's speaks against it.
    assert panels(picture, AGAINST, 6) == [False] * 5 + [True]


def test_of_several_labels_the_wrong_one_is_drawn(draw):
    picture = draw([[1, 0, 0], [0, 1, 1]], [[0, 1], [1]])
    assert panels(picture, np.array(RED), 4) == [True, False] * 2
    assert panels(picture, FOR, 4) == [False, True, False, False]  # a dog that is none
    assert panels(picture, AGAINST, 4) == [False, False, False, True]  # a fox that is missed


def test_the_report_shows_the_maps_of_mistakes(tmp_path, monkeypatch):
    maps = np.ones((1, 2, 2, 2))
    write = report.write_report
    monkeypatch.setattr(report, "write_report", lambda *a, **k: write(*a, **k, mistake_maps=maps))
    page = page_of(tmp_path, Evaluation([0, 0], np.eye(2), ("cat", "dog")))
    text = " ".join(page.text)
    assert "Where the mistakes come from" in text and "2 x 2 positions" in text
    assert np.ptp(pixels(tmp_path / "report" / report.MAPS)) > 100


@pytest.fixture
def photos(tmp_path):
    """Images of the same name, but for case, in three folders."""
    files = [tmp_path / folder / name for folder, name in (("a", "X"), ("b", "x"), ("c", "x"))]
    for file, color in zip(files, (RED, BLUE, RED), strict=True):
        file.parent.mkdir()
        Image.fromarray(plain(color, 50)).save(f"{file}.png")
    return [f"{file}.png" for file in files]


def pictures_of(files, folder):
    """The names of the pictures that are drawn for files, with maps of zeros."""
    folder = map_files.check_maps_folder(folder)
    maps = np.zeros((1, 1, 2))
    classes = (("cat", 0.75), ("dog", 0.25))
    predictions = [FilePrediction(str(file), classes, maps=maps) for file in files]
    found = list(map_files.draw_file_maps(predictions, folder, 32))
    assert all(each.maps is None for each in found)
    names = [each.map_file and pathlib.Path(each.map_file).name for each in found]
    assert sorted(path.name for path in folder.iterdir()) == sorted(filter(None, names))
    return names, found


def test_files_get_pictures_whose_names_differ_on_every_system(photos, tmp_path):
    names, found = pictures_of([*photos, tmp_path / "gone.png", photos[0]], tmp_path / "new/maps")
    assert names == ["X.png.png", "x.png-2.png", "x.png-3.png", None, "X.png-4.png"]
    first = pixels(found[0].map_file)
    near = (np.abs(first - RED) < 12).all(axis=-1)
    assert np.flatnonzero(near.any(axis=0)).max() < first.shape[1] / 3  # the image itself
    assert found[3].error and found[3].classes == ()
    with pytest.raises(FileExistsError, match="`maps` must be an empty or new folder"):
        map_files.check_maps_folder(tmp_path / "new/maps")


def test_a_long_name_and_one_of_no_known_encoding(photos, tmp_path):
    files = [tmp_path / ("a" * 250 + ".png"), tmp_path / "caf\udce9.png"]
    try:
        for file in files:
            shutil.copy(photos[0], file)
    except OSError:
        files.pop()  # This file system has names in UTF-8 only.
    assert all(pictures_of(files, tmp_path / "maps")[0])


@pytest.mark.slow
def test_maps_of_files_are_those_of_the_classes_that_are_named(photos):
    saved = SavedRun.open(RUN)
    (every,) = saved.predict([photos[1]], top=len(saved.label_names), maps=True)
    assert [name for name, _ in every.classes] != list(saved.label_names)
    logits = every.maps.mean(axis=(0, 1))
    shares = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(shares, [share for _, share in every.classes], rtol=1e-4)
    (two,) = saved.predict([photos[1]], top=2, maps=True)
    np.testing.assert_array_equal(two.maps, every.maps[..., :2])
    (none,) = saved.predict([photos[1]], top=2)
    assert none.maps is None and none.classes == two.classes == every.classes[:2]


@pytest.mark.slow
def test_maps_of_several_labels_and_of_none(photos, tmp_path):
    def predicted(thresholds):
        run = dataclasses.replace(saved, outputs=RunOutputs(True, 1.0, thresholds))
        (found,) = run.predict([photos[1]], maps=True)
        return found

    saved = SavedRun.open(RUN)
    some, none = predicted((0.4, 0.4, 0.4)), predicted((1.0, 1.0, 1.0))
    logits = np.log([share / (1 - share) for _, share in some.classes])
    assert len(logits) > 0 == len(none.classes) and none.maps.shape[-1] == 0
    np.testing.assert_allclose(some.maps.mean(axis=(0, 1)), logits, rtol=1e-3, atol=1e-4)
    folder = map_files.check_maps_folder(tmp_path / "maps")
    for drawn in map_files.draw_file_maps([some, none], folder, saved.rule.crop_size):
        assert np.ptp(pixels(drawn.map_file)) > 100


@pytest.mark.slow
def test_a_model_without_maps_is_refused(photos, tmp_path, rng):
    run = pathlib.Path(shutil.copytree(RUN, tmp_path / "run"))
    classes = len(SavedRun.open(run).label_names)
    BiTClassifier(BiTBackbone((1, 1, 1, 1), 1 / 16, pooling="max"), classes).save(
        run / "model.keras"
    )
    with pytest.raises(ValueError, match="average pooling.*Received.*Predict without `maps`"):
        predict_files(run, photos, maps=tmp_path / "maps")
