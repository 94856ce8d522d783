"""A batch that does not fit the device: accumulate over micro-batches.

The result is that of the whole batch. `photos` holds a folder of images for each class:

    python -m keras_bit.examples.micro_batches photos
"""

import sys

import keras

import keras_bit

FOLDER = sys.argv[1] if len(sys.argv) > 1 else "photos"
PRESET = "f-r14x0.5"  # comes with the package, for CPUs; for real use "m-r50x1"
BATCH_SIZE = 512  # of an update, as in the paper

data = keras_bit.image_folder(FOLDER)
rule = keras_bit.HyperRule.for_preset(PRESET, data.image_size, data.train_size, BATCH_SIZE)
# `remat=True` fits about three times as many images, and takes about a third more time.
backbone = keras_bit.BiTBackbone.from_preset(PRESET, remat=False)
model = keras_bit.BiTClassifier(backbone, data.num_classes)

# Found by trying on a GPU, by an estimate on a CPU; or say how many: `micro_batch_size=32`.
rule = rule.replace(micro_batch_size=keras_bit.largest_micro_batch(model, rule))
print(rule)

# Mixed over the whole batch, then split; the optimizer updates after `accumulation_steps`.
train, test = keras_bit.pipelines(data, rule)
model.compile(
    optimizer=rule.optimizer(),
    loss=keras.losses.CategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.fit(train, validation_data=test, **keras_bit.fit_hyperrule(rule))
model.save("photos.keras")
