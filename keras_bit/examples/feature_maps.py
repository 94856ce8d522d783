"""Feature maps for a detector: a pretrained backbone under a feature pyramid.

The head gives, for each position of three maps, the logits of the classes and the distances of a
box's four sides, as in FCOS; loss and labels are yours. Shown on two photographs that come with
scikit-learn:

    python -m keras_bit.examples.feature_maps
"""

import keras
import numpy as np
from sklearn.datasets import load_sample_images

import keras_bit

PRESET = "f-r14x0.5"  # comes with the package, for CPUs; for real use "m-r50x1"
CHANNELS = 64  # of the pyramid; 256 are usual with "m-r50x1"
NUM_CLASSES = 80
STAGES = {"P3": "block2", "P4": "block3", "P5": "block4"}  # an 8th, a 16th, a 32nd of the size


def lateral(x):
    """Normalized and activated, which the maps of a pre-activation network are not yet."""
    x = keras.layers.ReLU()(keras_bit.GroupNorm()(x))
    return keras.layers.Conv2D(CHANNELS, 1)(x)


images = keras.Input((None, None, 3), name="images")  # height and width are multiples of 32
maps = keras_bit.BiTBackbone.from_preset(PRESET, value_range=(0, 255)).stages(images)
pyramid, above = {}, None
for level, stage in reversed(STAGES.items()):
    x = lateral(maps[stage])
    above = x if above is None else x + keras.layers.UpSampling2D()(above)
    pyramid[level] = keras.layers.Conv2D(CHANNELS, 3, padding="same", name=level)(above)

head = keras.Sequential(
    [
        keras.layers.Conv2D(CHANNELS, 3, padding="same", activation="relu"),
        keras.layers.Conv2D(NUM_CLASSES + 4, 3, padding="same"),
    ],
    name="head",
)
detector = keras.Model(images, {level: head(x) for level, x in pyramid.items()})
detector.save("detector.keras")

photographs = np.stack(load_sample_images().images)[:, :416]
predictions = detector.predict(photographs, verbose=0)
for level, outputs in sorted(predictions.items()):
    step = photographs.shape[1] // outputs.shape[1]
    print(f"{level}: {outputs.shape}, a position every {step} pixels")
