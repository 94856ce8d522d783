import h5py
import keras
import numpy as np
import pytest

from keras_bit import BiTBackbone, BiTClassifier
from keras_bit.weights.keras_files import read_keras
from tests.conftest import as_numpy
from tests.weight_files import ROOT

NETWORK = {"depth": (1, 2, 1, 1), "width": 0.25}


def random_classifier():
    model = BiTClassifier(BiTBackbone(**NETWORK), 5)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.normal(size=variable.shape))
    return model


@pytest.fixture(scope="module")
def classifier():
    return random_classifier()


def sequential(classifier):
    return keras.Sequential([keras.Input((None, None, 3)), *classifier.layers])


def functional(classifier):
    images = keras.Input((64, 64, 3))
    hidden = keras.layers.Dense(7)(classifier.backbone(images))
    return keras.Model(images, [classifier.head(classifier.backbone(images)), hidden])


def nested(classifier):
    return keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Rescaling(1.0), classifier])


@pytest.mark.parametrize("make", [lambda classifier: classifier, sequential, functional, nested])
@pytest.mark.parametrize("file", ["model.weights.h5", "model.keras"])
def test_every_array_is_found_in_every_kind_of_model(classifier, tmp_path, make, file):
    model = make(classifier)
    (model.save_weights if "weights" in file else model.save)(tmp_path / file)
    expected = classifier.backbone.named_weights() | classifier.head.named_weights()
    read = read_keras(tmp_path / file)
    assert read.shapes == {name: tuple(variable.shape) for name, variable in expected.items()}
    for name, variable in expected.items():
        np.testing.assert_array_equal(read[name], as_numpy(variable), err_msg=name)


def test_a_trained_model_with_its_optimizer(rng, tmp_path):
    classifier = random_classifier()
    classifier.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    variables = classifier.trainable_variables
    before = as_numpy(variables[0]).copy()
    gradients = [rng.normal(size=v.shape).astype("float32") for v in variables]
    classifier.optimizer.apply(list(map(keras.ops.convert_to_tensor, gradients)), variables)
    classifier.save(tmp_path / "model.keras")
    loaded = BiTClassifier.from_weights(tmp_path / "model.keras")
    assert np.ptp(as_numpy(variables[0]) - before) > 0.1
    for mine, theirs in zip(loaded.variables, classifier.variables, strict=True):
        np.testing.assert_array_equal(as_numpy(mine), as_numpy(theirs), err_msg=mine.path)


def test_two_backbones(tmp_path):
    images = keras.Input((32, 32, 3))
    two = [BiTBackbone(**NETWORK)(images) for _ in range(2)]
    keras.Model(images, two).save_weights(tmp_path / "two.weights.h5")
    with pytest.raises(ValueError, match="two.weights.h5.*twice"):
        read_keras(tmp_path / "two.weights.h5")


def test_damaged_files(classifier, tmp_path):
    path = tmp_path / "model.weights.h5"
    classifier.save_weights(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    half = path.stat().st_size
    with pytest.raises(
        ValueError, match=rf"undamaged.*model.weights.h5, which is cut: {half:,} of "
    ):
        list(read_keras(path).values())


def test_a_shape_without_room_for_it(tmp_path):
    path = tmp_path / "lie.weights.h5"
    with h5py.File(path, "w") as file:
        key = "layers/bi_t_backbone/root_block/conv/vars/0"
        file.create_dataset(key, shape=(7, 7, 3, 10**9), dtype="float32", chunks=(7, 7, 3, 1))
    with pytest.raises(ValueError, match="declares the shape.*1000000000"):
        read_keras(path)


def test_an_array_is_read_when_it_is_asked_for(classifier, tmp_path, monkeypatch):
    classifier.save_weights(tmp_path / "model.weights.h5")
    reads = []
    getitem = h5py.Dataset.__getitem__

    def counted(dataset, key):
        reads.append(dataset.name)
        return getitem(dataset, key)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    read = read_keras(tmp_path / "model.weights.h5")
    assert read.shapes and reads == []
    assert read[ROOT].shape == (7, 7, 3, 16) and len(reads) == 1


def test_arrays_that_lie_in_other_files_are_not_read(tmp_path):
    path, key = tmp_path / "far.weights.h5", "layers/bi_t_backbone/root_block/conv/vars/0"
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(4 * 7 * 7 * 3 * 4))
    layout = h5py.VirtualLayout((7, 7, 3, 4), "float32")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        layout[:] = h5py.VirtualSource(file.create_dataset("a", data=np.zeros((7, 7, 3, 4))))
    external = {"external": [(secret, 0, secret.stat().st_size)]}
    for write in (
        lambda file: file.create_dataset(key, (7, 7, 3, 4), "float32", **external),
        lambda file: file.create_virtual_dataset(key, layout),
    ):
        with h5py.File(path, "w") as file:
            write(file)
        with pytest.raises(ValueError, match="far.weights.h5.*lies in another file"):
            read_keras(path)
    with h5py.File(path, "w") as file:
        file[key] = h5py.ExternalLink(tmp_path / "other.h5", "a")
    assert read_keras(path).shapes == {}


def test_damage_that_hdf5_does_not_see(classifier, tmp_path):
    path = tmp_path / "model.keras"
    classifier.save(path)
    array = as_numpy(classifier.backbone.root_block.conv.kernel).tobytes()
    content = path.read_bytes()
    place = content.index(array)
    path.write_bytes(content[:place] + array[::-1] + content[place + len(array) :])
    with pytest.raises(ValueError, match="'model.weights.h5' has another checksum"):
        read_keras(path)
