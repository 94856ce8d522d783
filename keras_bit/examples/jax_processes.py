"""Keras on JAX in several processes, each with its part of every batch.

The same program runs in each, with its own PROCESS_ID and a folder of the same content; the result
is that of one process. Two of them on this machine:

    export KERAS_BACKEND=jax
    export KERAS_DISTRIBUTION_JOB_ADDRESSES=127.0.0.1:1234 KERAS_DISTRIBUTION_NUM_PROCESSES=2
    KERAS_DISTRIBUTION_PROCESS_ID=1 python -m keras_bit.examples.jax_processes photos &
    KERAS_DISTRIBUTION_PROCESS_ID=0 python -m keras_bit.examples.jax_processes photos
"""

import sys

import jax
import keras

import keras_bit

FOLDER = sys.argv[1] if len(sys.argv) > 1 else "photos"
PRESET = "f-r14x0.5"  # comes with the package, for CPUs; for real use "m-r50x1"
BATCH_SIZE = 512  # of all processes together

if keras.backend.backend() != "jax":
    sys.exit("Set KERAS_BACKEND=jax.")
keras.distribution.initialize()  # before anything else uses JAX
# `pipelines` hands each process its part of the batches.
keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
is_first = jax.process_index() == 0
print(f"Process {jax.process_index()} of {jax.process_count()}, {jax.device_count()} devices")

data = keras_bit.image_folder(FOLDER)
rule = keras_bit.HyperRule.for_preset(PRESET, data.image_size, data.train_size, BATCH_SIZE)
# On a disk that all share: each process decodes its part of the images, and all resume together.
checkpoint = keras_bit.Checkpoint("photos-checkpoints")
train, test = keras_bit.pipelines(data, rule, "cache", initial_step=checkpoint.initial_step)

keras.utils.set_random_seed(0)
model = keras_bit.BiTClassifier(keras_bit.BiTBackbone.from_preset(PRESET), data.num_classes)
keras_bit.compile_classifier(model, rule.optimizer())
callbacks = keras_bit.fit_hyperrule(rule, callbacks=[checkpoint])
model.fit(train, validation_data=test, verbose=2 if is_first else 0, **callbacks)
if is_first:
    # Saving makes variables, which all processes would have to make together.
    keras.distribution.set_distribution(None)
    model.save("photos.keras")
