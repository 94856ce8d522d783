"""Train only a part of the network: frozen blocks, weight decay, clipping.

Less memory and time, and less that a small data set can spoil. `photos` holds a folder of images
for each class:

    python -m keras_bit.examples.frozen_parts photos
"""

import sys

import keras
import numpy as np

import keras_bit

FOLDER = sys.argv[1] if len(sys.argv) > 1 else "photos"
PRESET = "f-r14x0.5"  # comes with the package, for CPUs; for real use "m-r50x1"
BATCH_SIZE = 64
FROZEN = ["root_block", "block1", "block2"]  # of root_block, block1 to block4, group_norm

data = keras_bit.image_folder(FOLDER)
rule = keras_bit.HyperRule.for_preset(PRESET, data.image_size, data.train_size, BATCH_SIZE)
train, test = keras_bit.pipelines(data, rule)

# Later, too, before `compile`: `backbone.blocks[2].trainable = False`, or the whole backbone.
backbone = keras_bit.BiTBackbone.from_preset(PRESET, frozen=FROZEN)
model = keras_bit.BiTClassifier(backbone, keras_bit.ZeroInitHead(data.num_classes, dropout=0.1))
trained = sum(np.prod(weight.shape) for weight in model.trainable_weights)
print(f"{trained:,} of {model.count_params():,} parameters are trained")
memory = keras_bit.training_memory(backbone, data.num_classes, rule)
print(f"Training takes about {memory.total / 1e6:,.0f} MB")

model.compile(
    optimizer=rule.optimizer(weight_decay=1e-4, clipnorm=1.0),
    loss=keras.losses.CategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.fit(train, validation_data=test, **keras_bit.fit_hyperrule(rule))
model.save("photos.keras")  # frozen parts stay so when it is loaded
