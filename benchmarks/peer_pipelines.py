"""Input pipelines as users write them today, each an endless iterator of training batches.

Both prefetch two batches, not as many as `tf.data.AUTOTUNE` sees fit: what a pipeline prepares
while the others have their turn would count for nothing.
"""

from pathlib import Path

import keras

AHEAD = 2
SHUFFLE_BUFFER = 512


def copied_pipeline(folder, cache_file, rule):
    """What blog posts and notebooks on BiT show: resize, cache, shuffle buffer, crop, flip, MixUp.

    Args:
        folder: Folder of class folders of JPEG files.
        cache_file: Path for `Dataset.cache`.
        rule: `HyperRule`, for sizes and the alpha of MixUp.
    """
    import tensorflow as tf
    import tensorflow_probability as tfp

    files = sorted(Path(folder).glob("*/*.jpg"))
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
    images = images.cache(str(cache_file)).shuffle(SHUFFLE_BUFFER).repeat()
    images = images.map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    batches = images.batch(rule.batch_size).map(mix_up, num_parallel_calls=tf.data.AUTOTUNE)
    return iter(batches.prefetch(AHEAD))


def keras_pipeline(folder, rule):
    """`image_dataset_from_directory` with Keras's augmentation layers: no cache and no MixUp."""
    import tensorflow as tf

    batches = keras.utils.image_dataset_from_directory(
        folder,
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
