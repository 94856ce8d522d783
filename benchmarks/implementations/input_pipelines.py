"""Input pipelines, this package's and those that users write today, by name.

Each is a function from a folder with `train` and `test` folders of classes of JPEG files, a folder
for the cache, and a `HyperRule`, to an endless iterator of training batches. Frameworks are
imported when it is called, so that a process can first say how many cores they may use.

The peers' prefetch two batches, not as many as `tf.data.AUTOTUNE` sees fit: what a pipeline
prepares while others are timed would count for nothing.
"""

from functools import partial
from pathlib import Path

AHEAD = 2
SHUFFLE_BUFFER = 512


def own_pipeline(folder, cache_dir, rule, in_memory=False, **options):
    """`keras_bit.pipelines`, with a cache on the disk or in memory."""
    import keras_bit

    data = keras_bit.image_folder(folder)
    train, _ = keras_bit.pipelines(data, rule, None if in_memory else cache_dir, **options)
    return iter(train)


def copied_pipeline(folder, cache_dir, rule):
    """What posts and notebooks on BiT show: resize, cache, shuffle buffer, crop, flip, MixUp."""
    import tensorflow as tf
    import tensorflow_probability as tfp

    files = sorted(Path(folder, "train").glob("*/*.jpg"))
    names = sorted({file.parent.name for file in files})
    labels = [names.index(file.parent.name) for file in files]
    crop_shape = (rule.crop_size, rule.crop_size, 3)
    beta = tfp.distributions.Beta(rule.mixup_alpha, rule.mixup_alpha)

    def decode_and_resize(file, label):
        image = tf.io.decode_jpeg(tf.io.read_file(file), channels=3)
        image = tf.image.resize(image, (rule.resize_edge, rule.resize_edge))
        return image / 255.0, tf.one_hot(label, len(names))

    def augment(image, label):
        image = tf.image.random_crop(image, crop_shape)
        return tf.image.random_flip_left_right(image), label

    def mix_up(images, labels):
        weight = beta.sample()
        mixed = weight * images + (1 - weight) * tf.reverse(images, [0])
        return mixed, weight * labels + (1 - weight) * tf.reverse(labels, [0])

    files = tf.data.Dataset.from_tensor_slices(([str(file) for file in files], labels))
    images = files.map(decode_and_resize, num_parallel_calls=tf.data.AUTOTUNE)
    images = images.cache(str(Path(cache_dir, "images"))).shuffle(SHUFFLE_BUFFER).repeat()
    images = images.map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    batches = images.batch(rule.batch_size).map(mix_up, num_parallel_calls=tf.data.AUTOTUNE)
    return iter(batches.prefetch(AHEAD))


def keras_pipeline(folder, cache_dir, rule):
    """`image_dataset_from_directory` with Keras's augmentation layers: no cache and no MixUp."""
    import keras
    import tensorflow as tf

    batches = keras.utils.image_dataset_from_directory(
        Path(folder, "train"),
        label_mode="categorical",
        image_size=(rule.resize_edge, rule.resize_edge),
        batch_size=rule.batch_size,
        verbose=False,
    )
    augment = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.RandomCrop(rule.crop_size, rule.crop_size),
            keras.layers.RandomFlip("horizontal"),
        ]
    )
    augmented = batches.repeat().map(
        lambda images, labels: (augment(images, training=True), labels),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return iter(augmented.prefetch(AHEAD))


COPIED = "tf.data as copied"
DIRECTORY = "image_dataset_from_directory"
DISK = "keras_bit, float32"
MEMORY = "keras_bit, float32 in memory"
MIX_IN_MODEL = "keras_bit, uint8, mix_in_model"
PIPELINES = {
    DISK: own_pipeline,
    MEMORY: partial(own_pipeline, in_memory=True),
    "keras_bit, uint8": partial(own_pipeline, dtype="uint8"),
    MIX_IN_MODEL: partial(own_pipeline, dtype="uint8", mix_in_model=True),
    COPIED: copied_pipeline,
    DIRECTORY: keras_pipeline,
}
