"""The pieces in `fit`: backbone, zero-init head, pipelines, and the rule.

`photos` holds a folder of images for each class, or `train` and `test` folders of them:

    python -m keras_bit.examples.fit photos
"""

import sys

import keras

import keras_bit

FOLDER = sys.argv[1] if len(sys.argv) > 1 else "photos"
PRESET = "f-r14x0.5"  # comes with the package, for CPUs; for real use "m-r50x1"
BATCH_SIZE = 64

data = keras_bit.image_folder(FOLDER)
rule = keras_bit.HyperRule.for_preset(PRESET, data.image_size, data.train_size, BATCH_SIZE)
print(rule)
train, test = keras_bit.pipelines(data, rule)  # with `cache_dir`, images are kept on the disk

backbone = keras_bit.BiTBackbone.from_preset(PRESET)
model = keras.Sequential([backbone, keras_bit.ZeroInitHead(data.num_classes)])
model.compile(
    optimizer=rule.optimizer(),
    loss=keras.losses.CategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
# `train` never ends: `**` hands `fit` the epochs, the steps, and the callback that ends it.
model.fit(train, validation_data=test, **keras_bit.fit_hyperrule(rule))
model.save("photos.keras")

loaded = keras.saving.load_model("photos.keras")
loss, accuracy = loaded.evaluate(test, verbose=0)
print(f"photos.keras: accuracy {accuracy:.1%} on {data.test_size:,} test images")
