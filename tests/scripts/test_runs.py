"""The examples around whole runs and searches."""

import importlib.util
import json
import pathlib
import re

import keras
import numpy as np
import pytest
from PIL import Image

import keras_bit
from keras_bit.exporters.formats import FORMATS
from tests.conftest import as_numpy
from tests.saved_files import RUN

pytestmark = pytest.mark.tensorflow
# Orders of the channels of its image, by what the saved run takes it for then.
COLORS = {
    "red": [(0, 1, 2), (0, 2, 1)],
    "green": [(2, 0, 1), (1, 0, 2)],
    "blue": [(1, 2, 0), (2, 1, 0), (0, 1, 2)],
}


@pytest.mark.slow
def test_cats_vs_dogs_folder(run, pets, capsys):
    result = run("cats_vs_dogs_folder", pets).result
    assert result.metrics["accuracy"] > 0.5
    assert pathlib.Path("cats-vs-dogs", "report.html").is_file()
    said = re.findall(r"^(\S+): (cat|dog) with \d+%$", capsys.readouterr().out, re.MULTILINE)
    assert len(said) == 4
    right = [name == pathlib.Path(file).parent.name for file, name in said]
    assert np.mean(right) == result.metrics["accuracy"]


@pytest.mark.slow
def test_multi_label_table(run, pets, capsys):
    names = run("multi_label_table", pets.with_suffix(".csv")).data.label_names
    assert names == ("cat", "dog", "furry", "young")
    metrics = json.loads(pathlib.Path("photos-tags", "metrics.json").read_text())
    # Cats, dogs and what all of them are can be told; which are young cannot.
    assert metrics["mean_average_precision"] > 0.7
    output = capsys.readouterr().out
    assert "furry: precision 1.00, recall 1.00" in output
    said = re.findall(r"^(\S+) (\[.*\])$", output, re.MULTILINE)
    assert len(said) == 4 and all("'furry'" in labels for _, labels in said)
    assert all(f"'{pathlib.Path(file).parent.name}'" in labels for file, labels in said)


@pytest.fixture
def colors(tmp_path):
    """The image of the saved run in other colors; one of the blue images is red."""
    image = np.asarray(Image.open(RUN / "image.png").convert("RGB"))
    for name, orders in COLORS.items():
        (tmp_path / "colors" / name).mkdir(parents=True)
        for order in orders:
            file = tmp_path / "colors" / name / f"{''.join(map(str, order))}.png"
            Image.fromarray(image[..., order]).save(file)
    return tmp_path / "colors"


@pytest.mark.slow
def test_evaluate_and_maps(run, colors, capsys):
    result = run("evaluate_and_maps", RUN, colors)
    output = capsys.readouterr().out
    assert "red: 2 of 2\n" in output and "green: 2 of 2\n" in output
    assert "blue: 2 of 3, most others taken for red\n" in output and "Accuracy 85.7%" in output
    assert result.names == [str(colors / "blue" / "012.png")]
    assert pathlib.Path("evaluation", "evaluation.html").is_file()
    with Image.open(result.predictions[0].map_file) as picture:
        assert min(picture.size) > 100
    logits = as_numpy(result.model(result.images))[0]
    np.testing.assert_allclose(result.class_maps.mean(axis=(0, 1)), logits, atol=1e-4)
    assert result.evaluation.label_names[result.class_id] == "red"


@pytest.mark.filterwarnings("ignore")  # of the formats' own tools
@pytest.mark.slow
def test_export_runtimes(run, capsys):
    run("export_runtimes", RUN, RUN / "image.png")
    output = capsys.readouterr().out
    [(name, expected)] = [
        (name, value)
        for name, value in json.loads((RUN / "expected.json").read_text()).items()
        if value > 0.5
    ]
    for runtime, format in FORMATS.items():
        if all(map(importlib.util.find_spec, format.packages)):
            assert f"{runtime}: {name} with {expected:.0%}\n" in output
        else:
            assert f'pip install "keras_bit[{format.extra}]"' in output


@pytest.mark.slow
def test_search_own_model(run, pets, monkeypatch):
    """With averaged colors in place of the backbone: the search does not care which it is."""
    averages = keras.layers.GlobalAveragePooling2D
    monkeypatch.setattr(keras_bit.BiTBackbone, "from_preset", lambda preset: averages())
    result = run("search_own_model", pets, EPOCHS=3)
    trials = list(result.tuner.oracle.trials.values())
    assert {trial.status for trial in trials} == {"COMPLETED"}
    values = [trial.hyperparameters.values for trial in trials]
    assert {(v["tuner/initial_epoch"], v["tuner/epochs"]) for v in values} == {
        *((0, 1), (1, 3), (0, 3))
    }
    assert {each["schedule_factor"] for each in values} == {1.0}
    assert {each["hidden_units"] for each in values} == {0, 256}
    assert len({each["learning_rate_factor"] for each in values}) > 2
    [best] = result.tuner.oracle.get_best_trials()
    assert best.hyperparameters.values == result.best.values
    _, test = result.tuner.hypermodel.make_data(result.best, result.tuner.hypermodel.rule, 0, 0)
    labels = np.concatenate([np.argmax(labels, axis=-1) for _, labels in test])
    logits = keras.saving.load_model("photos.keras").predict(test, verbose=0)
    assert np.mean(logits.argmax(axis=-1) == labels) == best.score
