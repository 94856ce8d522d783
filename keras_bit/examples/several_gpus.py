"""Mixed precision on all GPUs of a machine, with Keras on TensorFlow or on JAX.

`photos` holds a folder of images for each class. Without KERAS_BACKEND it is TensorFlow:

    KERAS_BACKEND=jax python -m keras_bit.examples.several_gpus photos
"""

import sys

import keras

import keras_bit

FOLDER = sys.argv[1] if len(sys.argv) > 1 else "photos"
PRESET = "f-r14x0.5"  # comes with the package, for CPUs; for real use "m-r50x1"
BATCH_SIZE = 512  # of all GPUs together; JAX needs a multiple of their number
PRECISION = "mixed_bfloat16"  # "mixed_float16" on GPUs before compute capability 8.0

keras.config.set_dtype_policy(PRECISION)  # weights, standardization and logits stay in float32
if keras.backend.backend() == "jax":
    # `pipelines` shares out the batches itself.
    devices = keras.distribution.DataParallel(auto_shard_dataset=False).scope()
else:
    import tensorflow as tf

    devices = tf.distribute.MirroredStrategy().scope()

data = keras_bit.image_folder(FOLDER)
rule = keras_bit.HyperRule.for_preset(PRESET, data.image_size, data.train_size, BATCH_SIZE)
with devices:
    train, test = keras_bit.pipelines(data, rule)
    backbone = keras_bit.BiTBackbone.from_preset(PRESET)
    model = keras_bit.BiTClassifier(backbone, data.num_classes)
    # Test images that cannot be shared evenly come with weights, which its metrics heed.
    keras_bit.compile_classifier(model, rule.optimizer())
    model.fit(train, validation_data=test, **keras_bit.fit_hyperrule(rule))
    model.save("photos.keras")
