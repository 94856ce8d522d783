"""Cats and dogs from TensorFlow Datasets: train with `fit`, draw predictions.

Downloads 786 MiB when it first runs, and needs `pip install "keras_bit[tfds]"`:

    python -m keras_bit.examples.cats_vs_dogs_tfds
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_bit

PRESET = "f-r14x0.5"  # comes with the package, for CPUs; for real use "m-r50x1"
EXAMPLES_PER_CLASS = None  # all; 500 take minutes on a CPU
BATCH_SIZE = 64

data = keras_bit.cats_vs_dogs(examples_per_class=EXAMPLES_PER_CLASS)
print(f"{data.train_size:,} training images, {data.test_size:,} test images, {data.label_names}")
rule = keras_bit.HyperRule.for_preset(PRESET, data.image_size, data.train_size, BATCH_SIZE)
train, test = keras_bit.pipelines(data, rule, cache_dir="cache")

model = keras_bit.BiTClassifier(keras_bit.BiTBackbone.from_preset(PRESET), data.num_classes)
model.compile(
    optimizer=rule.optimizer(),
    loss=keras.losses.CategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
history = model.fit(train, validation_data=test, **keras_bit.fit_hyperrule(rule)).history
print(f"Accuracy {history['val_accuracy'][-1]:.1%} on the test images")
model.save("cats-vs-dogs.keras")

images, labels = (np.asarray(part)[:9] for part in next(iter(test)))
logits = model.predict(images, verbose=0)
probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
figure, axes = plt.subplots(3, 3, figsize=(9, 9), layout="constrained")
for i, axis in enumerate(axes.flat[: len(images)]):
    predicted = probabilities[i].argmax()
    axis.imshow(images[i])
    axis.set_axis_off()
    axis.set_title(
        f"{data.label_names[predicted]}, {probabilities[i, predicted]:.0%}",
        color="black" if predicted == labels[i].argmax() else "red",
    )
figure.savefig("cats-vs-dogs.png")
