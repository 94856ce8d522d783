import functools
import re
import shutil

import numpy as np
import pytest

from keras_bit import BiTBackbone, BiTClassifier
from keras_bit.layers.group_norm import choose_groups
from keras_bit.weights.saved_model import (
    check_against_module,
    probe,
    read_saved_model,
    saved_model_readings,
    verified,
)
from tests import oracle
from tests.conftest import as_numpy

pytestmark = pytest.mark.tensorflow

UNITS = (2, 1, 1, 2)
WIDTH = 0.25
CLASSES = 7
IMAGES = np.random.default_rng(6).uniform(0, 1, (2, 32, 40, 3)).astype("float32")
PROJ = "block1/unit01/a/proj/standardized_conv2d/kernel"
LAST = "block1/unit01/c/standardized_conv2d/kernel"


@functools.cache
def shapes_of_backbone():
    weights = BiTBackbone(UNITS, WIDTH).named_weights()
    return {name: tuple(variable.shape) for name, variable in weights.items()}


def random_arrays(head=False, beta_mean=0.0):
    """Arrays under their names in `WeightArrays`, in the order of the forward pass."""
    rng = np.random.default_rng(1)
    means = {"gamma": 1.0, "beta": beta_mean}
    arrays = {
        name: rng.normal(means.get(name.rpartition("/")[2], 0.0), 0.3, shape).astype("float32")
        for name, shape in shapes_of_backbone().items()
    }
    if head:
        features = arrays["group_norm/gamma"].size
        arrays["head/kernel"] = rng.normal(0, 0.1, (features, CLASSES)).astype("float32")
        arrays["head/bias"] = rng.normal(0, 1, CLASSES).astype("float32")
    return {name: arrays[name] for name in sorted(arrays, key=forward)}


def forward(name):
    """Sorts names as TensorFlow 1 made the variables: in a unit norm a, proj, a, norm b, b, ..."""
    part = ("root", "bloc", "grou", "head").index(name[:4])
    unit, _, inner = name.rpartition("/unit")
    return (part, unit, inner[:4], "conv" in inner, "proj" not in inner, name.endswith("beta"))


def tf_network(images, weights, head):
    """BiT in TensorFlow's own operations, as a module computes it. Images are in [0, 1]."""
    import tensorflow as tf

    def conv(x, name, stride=1):
        kernel = weights[f"{name}standardized_conv2d/kernel"]
        mean, variance = tf.nn.moments(kernel, [0, 1, 2], keepdims=True)
        edge = (kernel.shape[0] - 1) // 2
        x = tf.pad(x, [[0, 0], [edge, edge], [edge, edge], [0, 0]])
        return tf.nn.conv2d(x, (kernel - mean) / tf.sqrt(variance + 1e-10), stride, "VALID")

    def norm_relu(x, name):
        shape, channels = tf.shape(x), x.shape[-1]
        groups = choose_groups(channels)
        grouped = tf.reshape(x, [shape[0], shape[1], shape[2], groups, channels // groups])
        mean, variance = tf.nn.moments(grouped, [1, 2, 4], keepdims=True)
        x = tf.reshape((grouped - mean) / tf.sqrt(variance + 1e-5), shape)
        gamma, beta = (weights[f"{name}group_norm/{which}"] for which in ("gamma", "beta"))
        return tf.nn.relu(x * tf.reshape(gamma, [-1]) + tf.reshape(beta, [-1]))

    x = conv(images * 2.0 - 1.0, "root_block/", 2)
    x = tf.nn.max_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID")
    for block, count in enumerate(UNITS, 1):
        for unit in range(1, count + 1):
            name = f"block{block}/unit{unit:02d}/"
            stride = 2 if block > 1 and unit == 1 else 1
            y = norm_relu(x, f"{name}a/")
            shortcut = conv(y, f"{name}a/proj/", stride) if unit == 1 else x
            y = conv(norm_relu(conv(y, f"{name}a/"), f"{name}b/"), f"{name}b/", stride)
            x = shortcut + conv(norm_relu(y, f"{name}c/"), f"{name}c/")
    features = tf.reduce_mean(norm_relu(x, ""), [1, 2])
    if not head:
        return features
    kernel = tf.reshape(weights["head/kernel"], [-1, CLASSES])
    return features @ kernel + weights["head/bias"]


def released_shape(name, array, spelling):
    """As the authors store it: norms of rank 4, and the head as a 1x1 convolution or dense."""
    if name.endswith(("gamma", "beta")) and spelling == "authors":
        return array.reshape(1, 1, 1, -1)
    return array[None, None] if name == "head/kernel" and spelling == "authors" else array


def authors_name(name, number):
    name = name.replace("head/", "head/conv2d/")
    for layer in ("standardized_conv2d", "group_norm"):
        name = name.replace(f"{layer}/", f"{layer}_{number}/")
    return f"resnet/{name}"


def keras_name(name, number):
    return f"res_net_v2/{name.replace('head/', 'head/dense/')}"


def leaf_name(name, number):
    return f"layer_{number}/{name.rpartition('/')[2]}"


def no_name(name, number):
    return "w"


def numbers_alone(name, number):
    return f"variables/{number}"


def make_variables(arrays, name_of, spelling="authors"):
    """Dict from our names to variables called otherwise, in the order of `arrays`."""
    import tensorflow as tf

    return {
        name: tf.Variable(released_shape(name, array, spelling), name=name_of(name, number))
        for number, (name, array) in enumerate(arrays.items())
    }


def save_arrays(folder, arrays, name_of, spelling="authors"):
    """A SavedModel with the checkpoint of TensorFlow 1: arrays by name, without an object graph."""
    import tensorflow as tf
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    (folder / "variables").mkdir(parents=True)
    saved_model = SavedModel(meta_graphs=[MetaGraphDef()])
    (folder / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    tf.raw_ops.SaveV2(
        prefix=str(folder / "variables" / "variables"),
        tensor_names=[name_of(name, number) for number, name in enumerate(arrays)],
        shape_and_slices=[""] * len(arrays),
        tensors=[released_shape(name, array, spelling) for name, array in arrays.items()],
    )
    return folder


def save_variables(folder, *lists, **others):
    """A SavedModel that holds variables and computes nothing."""
    import tensorflow as tf

    module = tf.Module()
    for number, variables in enumerate(lists):
        setattr(module, ("weights", "copies")[number], list(variables))
    for name, other in others.items():
        setattr(module, name, other)
    tf.saved_model.save(module, folder)
    return folder


def save_module(folder, variables, size=(None, None), as_signature=False, training=(False,)):
    """A SavedModel that computes BiT with variables, called itself or as a signature."""
    import tensorflow as tf

    head = "head/kernel" in variables
    images = tf.TensorSpec((None, *size, 3), tf.float32)
    module = tf.Module()
    module.weights = list(variables.values())
    if as_signature:

        @tf.function(input_signature=[images])
        def serve(images):
            return {"logits" if head else "features": tf_network(images, variables, head)}

        tf.saved_model.save(module, folder, signatures=serve)
        return folder

    @tf.function
    def call(images, training=False):
        outputs = tf_network(images, variables, head)
        return -outputs if training else outputs

    for traced in training:
        call.get_concrete_function(images, training=traced)
    module.__call__ = call
    tf.saved_model.save(module, folder)
    return folder


def save_tf1_module(folder, arrays):
    """As the hub modules of TensorFlow 1: named variables, a second graph for training."""
    import tensorflow as tf

    v1 = tf.compat.v1
    builder = v1.saved_model.Builder(str(folder))
    for training in (False, True):
        with tf.Graph().as_default(), v1.Session() as session:
            images = v1.placeholder(tf.float32, (None, None, None, 3))
            variables = {
                name: v1.get_variable(f"module/{authors_name(name, 3)}", initializer=array)
                for name, array in arrays.items()
            }
            v1.get_variable("global_step", initializer=np.int64(3))
            v1.get_variable("module/resnet/root_block/kernel/Momentum", initializer=np.ones(3))
            outputs = tf_network(images, variables, head=True)
            signature = v1.saved_model.predict_signature_def(
                {"images": images}, {"default": outputs, "again": outputs}
            )
            session.run(v1.global_variables_initializer())
            if training:
                builder.add_meta_graph(["train"], {"default": signature})
            else:
                builder.add_meta_graph_and_variables(session, [], {"default": signature})
    builder.save()
    return folder


@pytest.fixture(scope="module")
def features_module(tmp_path_factory):
    """Features, images of any size, the authors' names with numbers."""
    variables = make_variables(random_arrays(), authors_name)
    return save_module(tmp_path_factory.mktemp("features"), variables, training=(True, False))


@pytest.fixture(scope="module")
def logits_module(tmp_path_factory):
    """Logits, images of 48x40 alone, names as in the authors' Keras code, a signature."""
    variables = make_variables(random_arrays(head=True), keras_name, spelling="keras")
    return save_module(tmp_path_factory.mktemp("logits"), variables, (48, 40), as_signature=True)


@pytest.fixture(scope="module")
def tf1_module(tmp_path_factory):
    return save_tf1_module(tmp_path_factory.mktemp("tf1") / "module", random_arrays(head=True))


@pytest.fixture(scope="module")
def nameless_module(tmp_path_factory):
    """Names that say nothing, and betas of a larger mean than the gammas."""
    variables = make_variables(random_arrays(beta_mean=2.0), no_name)
    return save_module(tmp_path_factory.mktemp("nameless"), variables)


def build(arrays):
    """The network in NumPy with arrays, as a function of images."""
    arrays = dict(arrays)
    return lambda images: oracle_outputs(images, arrays)


def build_layer(arrays):
    """The native layer with arrays, with the head if there is one."""
    backbone = BiTBackbone(UNITS, WIDTH)
    for name, variable in backbone.named_weights().items():
        variable.assign(arrays[name])

    def network(images):
        features = as_numpy(backbone(images))
        if "head/kernel" not in arrays:
            return features
        return features @ arrays["head/kernel"] + arrays["head/bias"]

    return network


def oracle_outputs(images, arrays):
    features = oracle.backbone(images * 2.0 - 1.0, arrays, UNITS, choose_groups).mean(axis=(1, 2))
    if "head/kernel" not in arrays:
        return features
    return features @ arrays["head/kernel"] + arrays["head/bias"]


def assert_equal_arrays(read, arrays):
    assert set(read) == set(arrays)
    assert read.shapes == {name: array.shape for name, array in arrays.items()}
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array, err_msg=name)


SPELLINGS = {
    "authors": lambda name, number: f"resnet/{name}",
    "numbered": authors_name,
    "keras": keras_name,
    "prefixes": lambda name, number: f"module/bit/resnet50/{authors_name(name, number)}",
    "tensors": lambda name, number: f"resnet/{name}:0",
    "bare": lambda name, number: name,
    "underscores": lambda name, number: re.sub(r"block(\d)/unit0(\d)", r"block_\1/unit_\2", name),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_names_that_say_where(tmp_path, spelling):
    arrays = random_arrays(head=True)
    disordered = {name: arrays[name] for name in sorted(arrays, key=lambda name: name[::-1])}
    folder = save_arrays(tmp_path / "module", disordered, SPELLINGS[spelling], spelling)
    readings = saved_model_readings(folder)
    assert len(readings) == 1
    assert_equal_arrays(readings[0], arrays)


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
    readings = saved_model_readings(tmp_path / "module")
    assert len(readings) == 1
    assert_equal_arrays(readings[0], arrays)


def test_attributes_that_tell_gamma_from_beta(tmp_path):
    import tensorflow as tf

    arrays = random_arrays(beta_mean=2.0)
    layers = []
    for name, variable in make_variables(arrays, no_name).items():
        leaf = name.rpartition("/")[2]
        if leaf != "beta":
            layers.append(tf.Module())
        setattr(layers[-1], leaf, variable)
    readings = saved_model_readings(save_variables(tmp_path / "module", layers))
    assert len(readings) == 1
    assert_equal_arrays(readings[0], arrays)


def test_two_lists_of_the_same_variables(tmp_path):
    """Keras exports every variable twice, as `variables` and `_all_variables`."""
    arrays = random_arrays()
    lists = [make_variables(arrays, authors_name).values() for _ in range(2)]
    readings = saved_model_readings(save_variables(tmp_path / "module", *lists))
    assert len(readings) == 1
    assert_equal_arrays(readings[0], arrays)


def test_names_that_are_not_unique(tmp_path):
    arrays = random_arrays()
    variables = make_variables(arrays, lambda name, number: name.replace("unit02", "unit01"))
    readings = saved_model_readings(save_variables(tmp_path / "module", variables.values()))
    assert len(readings) == 1
    assert_equal_arrays(readings[0], arrays)


def test_names_that_tell_of_a_part(tmp_path):
    """As Keras exports `BiTBackbone`: projections are called otherwise."""
    arrays = random_arrays()
    variables = make_variables(
        arrays, lambda name, number: name.replace("a/proj/standardized_conv2d", "shortcut")
    )
    readings = saved_model_readings(save_variables(tmp_path / "module", variables.values()))
    assert len(readings) == 1
    assert_equal_arrays(readings[0], arrays)


@pytest.mark.parametrize("name_of", [authors_name, leaf_name])
def test_what_is_no_weight_is_passed_over(tmp_path, name_of):
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
def test_slots_of_an_optimizer_are_passed_over(tmp_path, slot):
    arrays = random_arrays()
    with_slots = {**arrays, **{f"{name}/slot": array for name, array in arrays.items()}}

    def name_of(name, number):
        if name.endswith("/slot"):
            return f"layer_{number - len(arrays)}/{name.split('/')[-2]}/{slot}"
        return leaf_name(name, number)

    folder = save_arrays(tmp_path / "module", with_slots, name_of, spelling="keras")
    assert_equal_arrays(read_saved_model(folder), arrays)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_missing_array_is_left_to_the_strict_merge(tmp_path, spelling):
    arrays = random_arrays()
    del arrays[PROJ]
    folder = save_arrays(tmp_path / "module", arrays, SPELLINGS[spelling], spelling)
    assert_equal_arrays(read_saved_model(folder), arrays)


def projections_last_in_unit(name):
    unit = name[:13] if name.startswith("block") else ""
    return (*forward(name)[:1], unit, "proj" in name, forward(name))


def projections_last_in_block(name):
    block = name[:6] if name.startswith("block") else ""
    return (*forward(name)[:1], block, "proj" in name, forward(name))


def norms_first(name):
    return ("group_norm" not in name, forward(name))


def last_norm_first(name):
    return (not name.startswith("group_norm"), forward(name))


def gammas_then_betas(name):
    return (name.endswith("beta"), forward(name))


def betas_before_gammas(name):
    return (*forward(name)[:-1], name.endswith("gamma"))


def head_first(name):
    return (not name.startswith("head"), forward(name))


ORDERS = [
    forward,
    projections_last_in_unit,
    projections_last_in_block,
    norms_first,
    last_norm_first,
    gammas_then_betas,
    betas_before_gammas,
    head_first,
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name_of, spelling", [(leaf_name, "authors"), (numbers_alone, "keras")])
def test_structure_without_names(tmp_path, name_of, order, spelling):
    # Means that mislead where the names tell.
    arrays = random_arrays(head=True, beta_mean=2.0 if name_of is leaf_name else 0.0)
    ordered = {name: arrays[name] for name in sorted(arrays, key=order)}
    folder = save_arrays(tmp_path / "module", ordered, name_of, spelling)
    assert_equal_arrays(read_saved_model(folder), arrays)


def test_numbers_in_names_are_an_order(tmp_path):
    arrays = random_arrays()
    variables = make_variables(arrays, lambda name, number: f"v_{number}" if number else "v")
    alphabetical = sorted(variables.values(), key=lambda variable: variable.name)
    assert [v.name for v in alphabetical[:4]] == ["v:0", "v_10:0", "v_11:0", "v_12:0"]
    assert_equal_arrays(read_saved_model(save_variables(tmp_path / "m", alphabetical)), arrays)


def test_a_head_as_wide_as_other_kernels(tmp_path):
    arrays = random_arrays()
    shape = arrays["block4/unit02/a/standardized_conv2d/kernel"].shape
    rng = np.random.default_rng(2)
    arrays["head/kernel"] = rng.normal(0, 1, shape[2:]).astype("float32")
    arrays["head/bias"] = rng.normal(0, 1, shape[-1]).astype("float32")
    folder = save_arrays(tmp_path / "module", arrays, numbers_alone)
    assert_equal_arrays(read_saved_model(folder), arrays)


def test_arrays_are_read_when_asked_for(features_module, tmp_path):
    folder = shutil.copytree(features_module, tmp_path / "module")
    data = folder / "variables" / "variables.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 255
    data.write_bytes(content)
    read = read_saved_model(folder)
    assert read.shapes == shapes_of_backbone()
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
        ("saved_model.pb", html, "must be a whole SavedModel"),
        ("saved_model.pb", cut, "must be a whole SavedModel"),
        ("saved_model.pb", empty, "holds no graph"),
        ("variables/variables.index", absent, "variables.index is missing"),
        ("variables/variables.index", cut, "must be a whole SavedModel"),
        ("variables/variables.index", html, "must be a whole SavedModel"),
        ("variables/variables.index", empty, "must be a whole SavedModel"),
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
    arrays = random_arrays()
    for missing in (
        "block2/unit01/b/standardized_conv2d/kernel",
        "block2/unit01/b/group_norm/beta",
    ):
        some = {name: array for name, array in arrays.items() if name != missing}
        folder = save_arrays(tmp_path / missing, some, numbers_alone)
        with pytest.raises(ValueError, match="must hold a BiT network"):
            read_saved_model(folder)


@pytest.mark.parametrize("module", ["features_module", "logits_module"])
def test_the_probe_equals_the_numpy_oracle(request, module):
    folder = request.getfixturevalue(module)
    images = np.random.default_rng(4).uniform(0, 1, (3, 48, 40, 3)).astype("float32")
    expected = oracle_outputs(images, random_arrays(head=module != "features_module"))
    outputs = probe(folder, images)
    assert outputs.shape == expected.shape
    assert np.abs(outputs - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("module", ["features_module", "logits_module", "tf1_module"])
def test_modules_are_verified(request, module):
    folder = request.getfixturevalue(module)
    sizes = []

    def build_and_note_sizes(arrays):
        network = build_layer(arrays)

        def noting(images):
            sizes.append(images.shape)
            return network(images)

        return noting

    arrays = verified(folder, build_and_note_sizes)
    assert_equal_arrays(arrays, random_arrays(head=module != "features_module"))
    any_size = [(2, 64, 64, 3), (2, 75, 50, 3)]
    assert sizes == ([(2, 48, 40, 3)] if module == "logits_module" else any_size)


def swapped(arrays):
    return {**arrays, PROJ: arrays[LAST], LAST: arrays[PROJ]}


def test_a_swapped_pair_of_kernels_is_found(features_module):
    with pytest.raises(ValueError, match=r"Received: .*features.*differs by (0\.\d|\d)"):
        check_against_module(features_module, build(swapped(random_arrays())), IMAGES)


def test_names_that_lie_are_found(tmp_path):
    arrays = random_arrays()
    variables = swapped(make_variables(arrays, authors_name))
    folder = save_module(tmp_path / "module", variables)
    assert_equal_arrays(read_saved_model(folder), arrays)
    with pytest.raises(ValueError, match=r"read in 1 way.*cannot be decided"):
        verified(folder, build, IMAGES)


def test_the_probe_decides_where_the_means_mislead(nameless_module):
    arrays = random_arrays(beta_mean=2.0)
    readings = saved_model_readings(nameless_module)
    assert len(readings) == 2
    np.testing.assert_array_equal(readings[0]["group_norm/gamma"], arrays["group_norm/beta"])
    tried = []

    def build_and_note(read):
        tried.append(read)
        return build(read)

    assert_equal_arrays(verified(nameless_module, build_and_note, IMAGES), arrays)
    assert len(tried) == 2


def test_the_network_must_give_the_modules_kind_of_output(logits_module):
    with pytest.raises(ValueError, match=r"shape \(2, 5\).*module's have \(2, 7\)"):
        check_against_module(logits_module, lambda images: np.ones((len(images), 5)))
    with pytest.raises(ValueError, match="differs by nan"):
        check_against_module(logits_module, lambda images: np.full((len(images), 7), np.nan))


def test_images_given_to_compare_with(features_module):
    images = np.random.default_rng(5).uniform(0, 1, (3, 32, 36, 3)).astype("float32")
    seen = []

    def network(batch):
        seen.append(batch)
        return oracle_outputs(batch, random_arrays())

    assert check_against_module(features_module, network, images) < 1e-4
    assert len(seen) == 1 and seen[0] is images


def test_images_of_another_size(logits_module):
    with pytest.raises(ValueError, match=r"\(None, 48, 40, 3\).*\(2, 64, 64, 3\)"):
        probe(logits_module, np.zeros((2, 64, 64, 3), "float32"))
    with pytest.raises(ValueError, match=r"shape \(48, 40, 3\)"):
        probe(logits_module, np.zeros((48, 40, 3), "float32"))


def save_function(folder, function, *specs):
    import tensorflow as tf

    module = tf.Module()
    module.__call__ = tf.function(function, input_signature=specs)
    tf.saved_model.save(module, folder)
    return folder


def test_functions_that_are_no_networks(tmp_path):
    import tensorflow as tf

    images = tf.TensorSpec((None, None, None, 3), tf.float32)
    probes = np.ones((2, 40, 40, 3), "float32")
    silent = save_variables(tmp_path / "silent", [tf.Variable(1.0)])
    text = save_function(tmp_path / "text", lambda text: text, tf.TensorSpec((None,), tf.string))
    for folder in (silent, text):
        with pytest.raises(ValueError, match="must have a function of images"):
            probe(folder, probes)
    maps = save_function(tmp_path / "maps", lambda images: images, images)
    with pytest.raises(ValueError, match=r"one vector for each image.*\(2, 40, 40, 3\)"):
        probe(maps, probes)
    constant = save_function(tmp_path / "constant", lambda x: tf.ones([tf.shape(x)[0], 4]), images)
    with pytest.raises(ValueError, match="different outputs for different images"):
        check_against_module(constant, lambda images: np.ones((len(images), 4)))


def test_a_backbone_of_a_module(features_module):
    arrays = random_arrays()
    backbone = BiTBackbone.from_weights(features_module, value_range=(0, 255), pooling="max")
    assert (backbone.depth, backbone.width, backbone.value_range) == (UNITS, WIDTH, (0, 255))
    for name, variable in backbone.named_weights().items():
        np.testing.assert_array_equal(as_numpy(variable), arrays[name], err_msg=name)


@pytest.mark.parametrize("module", ["logits_module", "tf1_module"])
def test_a_classifier_of_a_module(request, module):
    classifier = BiTClassifier.from_weights(request.getfixturevalue(module), num_classes=CLASSES)
    expected = oracle_outputs(IMAGES, random_arrays(head=True))
    difference = np.abs(classifier.predict(IMAGES, verbose=0) - expected).max()
    assert difference / np.abs(expected).max() < 1e-4


def test_a_module_that_computes_something_else(tmp_path):
    variables = make_variables(random_arrays(), authors_name)
    swapped = {**variables, PROJ: variables[LAST], LAST: variables[PROJ]}
    folder = save_module(tmp_path / "swapped", swapped)
    with pytest.raises(ValueError, match="must equal the module's own function.*differ from it by"):
        BiTBackbone.from_weights(folder)


def test_a_backbone_of_a_module_without_names(nameless_module):
    backbone = BiTBackbone.from_weights(nameless_module)
    arrays = random_arrays(beta_mean=2.0)
    for name, variable in backbone.named_weights().items():
        np.testing.assert_array_equal(as_numpy(variable), arrays[name], err_msg=name)
