"""A `tf.data` pipeline of your own, augmented by the rule's layers.

`photos` holds a folder of images for each class:

    python -m keras_bit.examples.own_tf_data photos
"""

import pathlib
import sys

import keras
import tensorflow as tf

import keras_bit

FOLDER = sys.argv[1] if len(sys.argv) > 1 else "photos"
PRESET = "f-r14x0.5"  # comes with the package, for CPUs; for real use "m-r50x1"
BATCH_SIZE = 64
IMAGE_SIZE = 500  # a usual edge of your images, in pixels; decides how far they are reduced
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png"}

files = sorted(f for f in pathlib.Path(FOLDER).glob("*/*") if f.suffix.lower() in SUFFIXES)
classes = sorted({file.parent.name for file in files})
labels = [classes.index(file.parent.name) for file in files]
examples = tf.data.Dataset.from_tensor_slices((list(map(str, files)), labels))
examples = examples.shuffle(len(files), seed=0, reshuffle_each_iteration=False)
test_size = max(1, len(files) // 10)
train_size = len(files) - test_size


def load(file, label):
    """Any uint8 or float image, and a one-hot label, which MixUp needs."""
    image = tf.io.decode_image(tf.io.read_file(file), channels=3, expand_animations=False)
    return image, tf.one_hot(label, len(classes))


rule = keras_bit.HyperRule.for_preset(PRESET, IMAGE_SIZE, train_size, BATCH_SIZE)
augment = keras_bit.Augment(rule, seed=0)
train = examples.skip(test_size).shuffle(train_size, seed=0).repeat()
train = train.map(load, num_parallel_calls=tf.data.AUTOTUNE).map(augment).batch(rule.batch_size)
if rule.mixup_alpha:
    train = train.map(keras_bit.MixUp(rule.mixup_alpha, seed=0))
train = train.prefetch(tf.data.AUTOTUNE)
test = examples.take(test_size).map(load).map(lambda x, y: augment(x, y, training=False))
test = test.batch(rule.batch_size).cache()

backbone = keras_bit.BiTBackbone.from_preset(PRESET, value_range=(0, 255))  # as the images have it
model = keras_bit.BiTClassifier(backbone, len(classes))
loss = keras.losses.CategoricalCrossentropy(from_logits=True)
model.compile(optimizer=rule.optimizer(), loss=loss, metrics=["accuracy"])
model.fit(train, validation_data=test, **keras_bit.fit_hyperrule(rule))
model.save("photos.keras")
