"""SavedModels of small BiT networks for the tests, under all kinds of names."""

import re

import numpy as np

from keras_bit import BiTBackbone
from keras_bit.layers.group_norm import choose_groups
from tests import oracle

UNITS = (2, 1, 1, 2)
WIDTH = 0.0625
CLASSES = 7
PROJ = "block1/unit01/a/proj/standardized_conv2d/kernel"
LAST = "block1/unit01/c/standardized_conv2d/kernel"


def random_arrays(head=False, beta_mean=0.0):
    """Arrays under their names in `WeightArrays`, in the order of the forward pass."""
    rng = np.random.default_rng(1)
    means = {"gamma": 1.0, "beta": beta_mean}
    arrays = {
        name: rng.normal(means.get(name.rpartition("/")[2], 0.0), 0.3, shape).astype("float32")
        for name, shape in BiTBackbone(UNITS, WIDTH).weight_shapes().items()
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


def swapped(arrays):
    """Two kernels of one shape exchanged."""
    return {**arrays, PROJ: arrays[LAST], LAST: arrays[PROJ]}


def oracle_outputs(images, arrays):
    """Features, or logits where there is a head, of the network in NumPy."""
    features = oracle.backbone(images * 2.0 - 1.0, arrays, UNITS, choose_groups).mean(axis=(1, 2))
    if "head/kernel" not in arrays:
        return features
    return features @ arrays["head/kernel"] + arrays["head/bias"]


def oracle_network(arrays):
    """A function of images with these arrays, as `read_weights` takes it."""
    arrays = dict(arrays)
    return lambda images: oracle_outputs(images, arrays)


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


# How variables are called. Functions from our name and a number.


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


SPELLINGS = {
    "authors": lambda name, number: f"resnet/{name}",
    "numbered": authors_name,
    "keras": keras_name,
    "prefixes": lambda name, number: f"module/bit/resnet50/{authors_name(name, number)}",
    "tensors": lambda name, number: f"resnet/{name}:0",
    "bare": lambda name, number: name,
    "underscores": lambda name, number: re.sub(r"block(\d)/unit0(\d)", r"block_\1/unit_\2", name),
}


# SavedModels.


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


def save_variables(folder, variables, **others):
    """A SavedModel that holds variables and computes nothing."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = list(variables)
    for name, other in others.items():
        setattr(module, name, other)
    tf.saved_model.save(module, folder)
    return folder


def save_function(folder, function, *specs):
    """A SavedModel of a function without variables."""
    import tensorflow as tf

    module = tf.Module()
    module.__call__ = tf.function(function, input_signature=specs)
    tf.saved_model.save(module, folder)
    return folder


def save_module(
    folder,
    variables,
    size=(None, None),
    as_signature=False,
    training=(False,),
    value_range=(0, 1),
):
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
        low, high = value_range
        outputs = tf_network((images - low) / (high - low), variables, head)
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
