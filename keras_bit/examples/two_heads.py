"""A model of your own around the backbone: two heads, two losses, one rule.

Here they tell which digit an image shows and whether it is odd; the digits come with scikit-learn.
With Keras on TensorFlow:

    python -m keras_bit.examples.two_heads
"""

import keras

import keras_bit

PRESET = "f-r14x0.5"  # comes with the package, for CPUs; for real use "m-r50x1"
BATCH_SIZE = 64

data = keras_bit.digits()
size = data.image_size, data.train_size
rule = keras_bit.HyperRule.for_preset(PRESET, *size, BATCH_SIZE, random_flip=False)


def with_both(images, digits):
    """Labels by the names of the outputs; mixed labels stay mixed."""
    odd = keras.ops.sum(digits[:, 1::2], axis=1, keepdims=True)
    return images, {"digit": digits, "is_odd": odd}


train, test = (batches.map(with_both) for batches in keras_bit.pipelines(data, rule))

images = keras.Input((None, None, 3), name="images")
features = keras_bit.BiTBackbone.from_preset(PRESET)(images)
heads = {
    "digit": keras_bit.ZeroInitHead(data.num_classes, name="digit"),
    "is_odd": keras_bit.ZeroInitHead(1, name="is_odd"),
}
model = keras.Model(images, {name: head(features) for name, head in heads.items()})
model.compile(
    optimizer=rule.optimizer(),
    loss={
        "digit": keras.losses.CategoricalCrossentropy(from_logits=True),
        "is_odd": keras.losses.BinaryCrossentropy(from_logits=True),
    },
    loss_weights={"digit": 1.0, "is_odd": 0.5},
    metrics={
        "digit": keras.metrics.CategoricalAccuracy(name="accuracy"),
        "is_odd": keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0),  # of logits
    },
)
model.fit(train, validation_data=test, **keras_bit.fit_hyperrule(rule))
scores = model.evaluate(test, verbose=0, return_dict=True)
print({name: f"{scores[f'{name}_accuracy']:.1%}" for name in heads})
model.save("two-heads.keras")
