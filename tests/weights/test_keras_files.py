import h5py
import keras
import numpy as np
import pytest

from keras_bit import BiTBackbone, BiTClassifier, ZeroInitHead
from keras_bit.weights.keras_files import read_keras
from tests.conftest import as_numpy
from tests.weight_files import ROOT, assert_equal_arrays

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


class Neck(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = keras.layers.LayerNormalization()

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x):
        return self.norm(x)


def test_a_norm_of_another_layer_is_skipped(classifier, tmp_path):
    images = keras.Input((64, 64, 3))
    keras.Sequential([images, classifier.backbone, Neck(), classifier.head]).save_weights(
        tmp_path / "model.weights.h5"
    )
    read = read_keras(tmp_path / "model.weights.h5")
    expected = classifier.backbone.named_weights() | classifier.head.named_weights()
    for name, variable in expected.items():
        np.testing.assert_array_equal(read[name], as_numpy(variable), err_msg=name)
    assert len(read.shapes) == len(expected)


@pytest.mark.parametrize("file", ["model.weights.h5", "model.keras"])
def test_arrays_in_bfloat16(tmp_path, file):
    keras.config.set_dtype_policy("bfloat16")
    model = random_classifier()
    (model.save_weights if "weights" in file else model.save)(tmp_path / file)
    read = read_keras(tmp_path / file)
    for name, variable in model.backbone.named_weights().items():
        assert read[name].dtype == "float32"
        np.testing.assert_array_equal(read[name], as_numpy(keras.ops.cast(variable, "float32")))


def test_the_epsilon_of_kernels_is_that_of_the_saved_backbone(tmp_path):
    for epsilon in (1e-10, 1e-8):
        backbone = BiTBackbone(**NETWORK, kernel_epsilon=epsilon)
        nested(BiTClassifier(backbone, 5)).save(tmp_path / "model.keras")
        assert read_keras(tmp_path / "model.keras").epsilon == epsilon
        again = BiTBackbone.from_preset(tmp_path / "model.keras")
        assert again.kernel_epsilon == epsilon
        shapes_alone = BiTBackbone.from_preset(tmp_path / "model.keras", load_weights=False)
        assert shapes_alone.kernel_epsilon == epsilon


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


def test_the_backbone_of_a_model_with_two_heads(tmp_path):
    images = keras.Input((32, 32, 3))
    backbone = BiTBackbone(**NETWORK)
    features = backbone(images)
    heads = [ZeroInitHead(classes)(features) for classes in (2, 3)]
    keras.Model(images, heads).save(tmp_path / "two.keras")
    loaded = BiTBackbone.from_preset(tmp_path / "two.keras")
    for mine, theirs in zip(loaded.variables, backbone.variables, strict=True):
        np.testing.assert_array_equal(as_numpy(mine), as_numpy(theirs))
    with pytest.raises(ValueError, match="without one"):
        BiTClassifier.from_preset(tmp_path / "two.keras")


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


# The authors' files of TF2.

UNIT = ("a", "b", "c")
LAYERS = {"block1": 1, "block2": 2, "block3": 1, "block4": 1}


def authors_weights():
    """Pairs of a layer of the authors' `bit_tf2` and the names of its arrays, in its order.

    As their code has them under Keras 2: in a unit a norm and a kernel for each part, then the
    projection, which is made when the unit is built. Names are unique within a layer alone.
    """
    yield "root_block", ["standardized_conv2d/kernel"]
    for layer, units in LAYERS.items():
        names = []
        for unit in (f"unit{number:02d}" for number in range(1, units + 1)):
            for part in UNIT:
                names += [f"{unit}/{part}/group_norm/{which}" for which in ("gamma", "beta")]
                names.append(f"{unit}/{part}/standardized_conv2d/kernel")
            names += [f"{unit}/a/proj/standardized_conv2d/kernel"] * (unit == "unit01")
        yield layer, names
    yield "group_norm", ["group_norm/gamma", "group_norm/beta"]
    yield "re_lu_15", []
    yield "global_average_pooling2d", []
    yield "head/dense", ["head/dense/kernel", "head/dense/bias"]


def our_name(layer, theirs):
    prefix = {"group_norm": "", "head/dense": ""}.get(layer, f"{layer}/")
    return prefix + theirs.replace("head/dense", "head")


def save_as_keras_2(path, arrays, spell=lambda theirs, number: f"{theirs}:0", layers=None):
    """As `save_weights("x.h5")` of Keras 2 stores them, under names that `spell` changes."""
    with h5py.File(path, "w") as file:
        table = dict(authors_weights()) if layers is None else layers
        file.attrs["layer_names"] = [layer.encode() for layer in table]
        file.attrs["keras_version"] = b"2.3.0-tf"
        for layer, names in table.items():
            group = file.create_group(layer)
            spelled = [spell(name, number) for number, name in enumerate(names)]
            group.attrs["weight_names"] = [name.encode() for name in spelled]
            for name, theirs in zip(names, spelled, strict=True):
                group.create_dataset(theirs, data=arrays[our_name(layer, name)])
    return path


@pytest.fixture(scope="module")
def authors_arrays(classifier):
    weights = classifier.backbone.named_weights() | classifier.head.named_weights()
    return {name: as_numpy(variable) for name, variable in weights.items()}


def short(theirs, number):
    """As later versions call them: without unit and part, and numbered."""
    if "proj" in theirs or theirs.startswith("head"):
        return f"{theirs}:0"
    layer, leaf = theirs.split("/")[-2:]
    return f"{layer}_{number}/{leaf}:0"


@pytest.mark.parametrize("spell", [lambda theirs, number: f"{theirs}:0", short])
def test_the_authors_files_of_tf2(authors_arrays, classifier, tmp_path, images, spell):
    path = save_as_keras_2(tmp_path / "BiT-M.h5", authors_arrays, spell)
    assert_equal_arrays(read_keras(path), authors_arrays)
    read = BiTClassifier.from_preset(path)
    np.testing.assert_array_equal(as_numpy(read(images)), as_numpy(classifier(images)))


@pytest.fixture
def images(rng):
    return rng.uniform(0, 1, (1, 32, 32, 3)).astype("float32")


def exchanged(names, first, second):
    names = list(names)
    names[first], names[second] = names[second], names[first]
    return names


@pytest.mark.parametrize(
    "change",
    [
        # The last kernel of the first unit and the projection have one shape.
        lambda table: table | {"block1": exchanged(table["block1"], 8, 9)},
        lambda table: table | {"group_norm": table["group_norm"][::-1]},
        lambda table: table | {"block2": table["block2"][:-1]},
        lambda table: table | {"group_norm": ["group_norm/gamma"]},
        lambda table: table | {"block1": []} | {"conv_1": ["group_norm/gamma"]},
    ],
    ids=["order", "order of a norm", "a unit without an array", "half a norm", "another layer"],
)
def test_other_files_of_keras_2(authors_arrays, tmp_path, change):
    arrays = authors_arrays | {"conv_1/group_norm/gamma": np.ones(4, "float32")}
    path = save_as_keras_2(tmp_path / "x.h5", arrays, layers=change(dict(authors_weights())))
    expected = "Keras 2 the authors' ResnetV2.*x.h5.*its layer .* is none of the authors'. Use.*npz"
    with pytest.raises(ValueError, match=expected):
        read_keras(path)


def test_a_whole_model_of_keras_2(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_group("model_weights").attrs["layer_names"] = [b"root_block"]
    with pytest.raises(
        ValueError, match="Keras 2 the authors'.*x.h5.*it is a whole model. Use.*npz"
    ):
        read_keras(tmp_path / "x.h5")


def test_a_file_of_keras_2_with_a_link_to_another_file(authors_arrays, tmp_path):
    path = save_as_keras_2(tmp_path / "x.h5", authors_arrays)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["a"] = authors_arrays["group_norm/gamma"]
    with h5py.File(path, "a") as file:
        del file["group_norm/group_norm/gamma:0"]
        file["group_norm/group_norm/gamma:0"] = h5py.ExternalLink(tmp_path / "secret.h5", "a")
    with pytest.raises(ValueError, match="x.h5.*group_norm/group_norm/gamma:0"):
        read_keras(path)
