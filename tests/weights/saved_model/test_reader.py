import shutil

import numpy as np
import pytest

from keras_bit import BiTBackbone, BiTClassifier
from keras_bit.weights.saved_model.reader import read_candidates, read_saved_model
from tests.conftest import as_numpy
from tests.weight_files import assert_equal_arrays
from tests.weights.saved_model.modules import (
    CLASSES,
    SPELLINGS,
    UNITS,
    WIDTH,
    authors_name,
    leaf_name,
    make_variables,
    no_name,
    numbers_alone,
    oracle_network,
    oracle_outputs,
    random_arrays,
    save_arrays,
    save_variables,
    swapped,
)

pytestmark = pytest.mark.tensorflow

IMAGES = np.random.default_rng(6).uniform(0, 1, (2, 32, 40, 3)).astype("float32")


@pytest.mark.parametrize("spelling", ["authors", "keras"])
def test_arrays_by_name(tmp_path, spelling):
    arrays = random_arrays(head=True)
    folder = save_arrays(tmp_path / "module", arrays, SPELLINGS[spelling], spelling)
    [candidate] = read_candidates(folder)
    assert_equal_arrays(candidate, arrays)


@pytest.mark.parametrize("name_of, spelling", [(leaf_name, "authors"), (numbers_alone, "keras")])
def test_arrays_by_structure(tmp_path, name_of, spelling):
    arrays = random_arrays(head=True, beta_mean=2.0 if name_of is leaf_name else 0.0)
    assert_equal_arrays(
        read_saved_model(save_arrays(tmp_path / "module", arrays, name_of, spelling)), arrays
    )


def test_the_names_of_tensorflow_1(tf1_module):
    assert_equal_arrays(read_saved_model(tf1_module), random_arrays(head=True))


def test_names_of_the_attributes(tmp_path):
    """Neither the order of the paths nor that of the attributes helps."""
    import tensorflow as tf

    arrays = random_arrays(beta_mean=2.0)
    top = tf.Module()
    for name, variable in reversed(make_variables(arrays, no_name).items()):
        *parents, leaf = name.split("/")
        if name.startswith("block"):
            parents = [f"stage{9 - int(name[5])}", *parents]
        module = top
        for parent in parents:
            if not hasattr(module, parent):
                setattr(module, parent, tf.Module())
            module = getattr(module, parent)
        setattr(module, leaf, variable)
    tf.saved_model.save(top, tmp_path / "module")
    [candidate] = read_candidates(tmp_path / "module")
    assert_equal_arrays(candidate, arrays)


@pytest.mark.parametrize("name_of", [authors_name, leaf_name])
def test_what_is_no_weight_is_skipped(tmp_path, name_of):
    import tensorflow as tf

    arrays = random_arrays(head=True)
    variables = make_variables(arrays, name_of)
    others = tf.Module()
    others.steps = tf.Variable(np.int64(7), name="global_step")
    others.rate = tf.Variable(0.1, name="rate")
    others.labels = tf.Variable(["a", "b"], name="labels")
    others.Momentum = [tf.Variable(v, name="momentum") for v in variables.values()]
    folder = save_variables(tmp_path / "module", variables.values(), training=others)
    assert_equal_arrays(read_saved_model(folder), arrays)


@pytest.mark.parametrize("slot", ["Momentum", "ExponentialMovingAverage", ".OPTIMIZER_SLOT/m"])
def test_slots_of_an_optimizer_are_skipped(tmp_path, slot):
    arrays = random_arrays()
    with_slots = {**arrays, **{f"{name}/slot": array for name, array in arrays.items()}}

    def name_of(name, number):
        if name.endswith("/slot"):
            return f"layer_{number - len(arrays)}/{name.split('/')[-2]}/{slot}"
        return leaf_name(name, number)

    folder = save_arrays(tmp_path / "module", with_slots, name_of, spelling="keras")
    assert_equal_arrays(read_saved_model(folder), arrays)


def test_arrays_are_read_when_asked_for(features_module, tmp_path):
    folder = shutil.copytree(features_module, tmp_path / "module")
    data = folder / "variables" / "variables.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 255
    data.write_bytes(content)
    read = read_saved_model(folder)
    assert read.shapes == {name: array.shape for name, array in random_arrays().items()}
    with pytest.raises(ValueError, match=f"Received: {folder}.*Checksum does not match"):
        dict(read.items())


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def html(path):
    path.write_text("<!doctype html><html><body>Not found</body></html>")


def empty(path):
    path.write_bytes(b"")


def absent(path):
    path.unlink()


def one_of_two(path):
    path.rename(path.with_name("variables.data-00000-of-00002"))


@pytest.mark.parametrize(
    "name, damage, reason",
    [
        ("saved_model.pb", absent, "without saved_model.pb"),
        ("saved_model.pb", html, "saved_model.pb is a web page"),
        ("saved_model.pb", cut, "must be a whole SavedModel"),
        ("saved_model.pb", empty, "saved_model.pb is empty"),
        ("variables/variables.index", absent, "variables.index is missing"),
        ("variables/variables.index", cut, "must be a whole SavedModel"),
        ("variables/variables.index", html, "must be a whole SavedModel"),
        ("variables/variables.index", empty, "variables.index is empty"),
        ("variables/variables.data-00000-of-00001", absent, "not all of its files"),
        ("variables/variables.data-00000-of-00001", one_of_two, "not all of its files"),
        ("variables/variables.data-00000-of-00001", cut, r"take \d+ bytes, of which \d+ are there"),
        ("variables/variables.data-00000-of-00001", html, r"take \d+ bytes, of which 50 are there"),
    ],
)
def test_damaged_folders(features_module, tmp_path, name, damage, reason):
    folder = shutil.copytree(features_module, tmp_path / "module")
    damage(folder / name)
    with pytest.raises(ValueError, match=f"(?s)Received: {folder}.*{reason}|{reason}.*{folder}"):
        read_saved_model(folder)


def test_no_folder_and_no_bit(tmp_path):
    import tensorflow as tf

    with pytest.raises(FileNotFoundError, match="`folder` must be a SavedModel.*nowhere"):
        read_saved_model(tmp_path / "nowhere")
    other = save_variables(tmp_path / "other", [tf.Variable(np.ones((3, 3)), name="dense/kernel")])
    with pytest.raises(ValueError, match=r"must hold a BiT network.*1 variables.*dense/kernel"):
        read_saved_model(other)


@pytest.mark.parametrize("module", ["features_module", "logits_module", "tf1_module"])
def test_modules_are_verified(request, module):
    folder = request.getfixturevalue(module)
    sizes = []

    def network(arrays):
        def outputs(images):
            assert images.dtype == "float32" and 0 <= images.min() < images.max() <= 1
            sizes.append(images.shape)
            return oracle_outputs(images, arrays)

        arrays = dict(arrays)
        return outputs

    arrays = read_saved_model(folder, network)
    assert_equal_arrays(arrays, random_arrays(head=module != "features_module"))
    any_size = [(2, 64, 64, 3), (2, 75, 50, 3)]
    assert sizes == ([(2, 32, 40, 3)] if module == "logits_module" else any_size)


def test_a_network_with_other_arrays_is_found(logits_module):
    with pytest.raises(ValueError, match=r"Received: .*logits.*differ from it by (0\.\d|\d)"):
        read_saved_model(logits_module, lambda arrays: oracle_network(swapped(arrays)))


def test_outputs_that_are_no_numbers(logits_module):
    with pytest.raises(ValueError, match="differ from it by nan"):
        read_saved_model(
            logits_module, lambda arrays: lambda images: np.full((len(images), CLASSES), np.nan)
        )


def test_names_that_lie_are_found(lying_module):
    assert_equal_arrays(read_saved_model(lying_module), random_arrays())
    with pytest.raises(ValueError, match=r"read in 1 way.*cannot be decided"):
        read_saved_model(lying_module, oracle_network)


def test_the_module_decides_where_the_means_mislead(nameless_module):
    arrays = random_arrays(beta_mean=2.0)
    candidates = read_candidates(nameless_module)
    assert len(candidates) == 2
    np.testing.assert_array_equal(candidates[0]["group_norm/gamma"], arrays["group_norm/beta"])
    assert_equal_arrays(read_saved_model(nameless_module), dict(candidates[0]))
    assert_equal_arrays(read_saved_model(nameless_module, oracle_network), arrays)


# The layer and the model that are made of a module.


def test_a_backbone_of_a_module(nameless_module):
    arrays = random_arrays(beta_mean=2.0)
    backbone = BiTBackbone.from_weights(nameless_module, value_range=(0, 255), pooling="max")
    assert (backbone.depth, backbone.width, backbone.value_range) == (UNITS, WIDTH, (0, 255))
    for name, variable in backbone.named_weights().items():
        np.testing.assert_array_equal(as_numpy(variable), arrays[name], err_msg=name)


def test_a_classifier_of_a_module(logits_module):
    classifier = BiTClassifier.from_weights(logits_module, num_classes=CLASSES)
    expected = oracle_outputs(IMAGES, random_arrays(head=True))
    difference = np.abs(as_numpy(classifier(IMAGES)) - expected).max()
    assert difference / np.abs(expected).max() < 1e-4


@pytest.mark.slow
def test_a_module_that_takes_images_around_zero(centered_module):
    """As those that were made of the authors' TF2 code."""
    backbone = BiTBackbone.from_weights(centered_module, value_range=(-1, 1))
    expected = oracle_outputs(IMAGES, random_arrays())
    difference = np.abs(as_numpy(backbone(2 * IMAGES - 1)) - expected).max()
    assert difference / np.abs(expected).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("module", ["features_module", "tf1_module"])
def test_models_of_modules_for_images_of_any_size(request, module):
    folder = request.getfixturevalue(module)
    kind = BiTBackbone if module == "features_module" else BiTClassifier
    expected = oracle_outputs(IMAGES, random_arrays(head=kind is BiTClassifier))
    difference = np.abs(as_numpy(kind.from_weights(folder)(IMAGES)) - expected).max()
    assert difference / np.abs(expected).max() < 1e-4


def test_a_module_that_computes_something_else(lying_module):
    with pytest.raises(ValueError, match="must equal the module's own function.*differ from it by"):
        BiTBackbone.from_weights(lying_module)
