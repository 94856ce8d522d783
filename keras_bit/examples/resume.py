"""A run that survives crashes: stop or kill it, start it again, and it resumes.

Weights, momentum, random states, history and the order of the images continue as they were; on a
CPU the result is that of an uninterrupted run, to the bit. `photos` holds a folder of images for
each class:

    python -m keras_bit.examples.resume photos
"""

import sys

import keras

import keras_bit

FOLDER = sys.argv[1] if len(sys.argv) > 1 else "photos"
PRESET = "f-r14x0.5"  # comes with the package, for CPUs; for real use "m-r50x1"
BATCH_SIZE = 64
SEED = 0

data = keras_bit.image_folder(FOLDER)
rule = keras_bit.HyperRule.for_preset(PRESET, data.image_size, data.train_size, BATCH_SIZE)

# What `settings` holds must be the same when the run resumes; else it says what differs.
settings = {"rule": rule.decisions(), "data": data.train.fingerprint, "seed": SEED}
checkpoint = keras_bit.Checkpoint("photos-checkpoints", settings=settings)
start = checkpoint.initial_step
train, test = keras_bit.pipelines(data, rule, "cache", seed=SEED, initial_step=start)

keras.utils.set_random_seed(SEED)
model = keras_bit.BiTClassifier(keras_bit.BiTBackbone.from_preset(PRESET), data.num_classes)
model.compile(
    optimizer=rule.optimizer(),
    loss=keras.losses.CategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
callbacks = keras_bit.fit_hyperrule(rule, callbacks=[checkpoint])
history = model.fit(train, validation_data=test, **callbacks).history
print(f"{len(history['loss'])} epochs in all, validation {history['val_accuracy'][-1]:.1%}")
model.save("photos.keras")
