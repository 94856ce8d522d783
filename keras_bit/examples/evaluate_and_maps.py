"""Evaluate a run on other images, and see where in them its answers come from.

`cats-vs-dogs` is a folder that `fine_tune` or `keras-bit fine-tune` has written, `photos` holds a
folder of images for each of its classes, or for some of them:

    python -m keras_bit.examples.evaluate_and_maps cats-vs-dogs photos
"""

import json
import pathlib
import sys

import keras
from PIL import Image, ImageOps

import keras_bit

RUN, FOLDER = sys.argv[1:] or ("cats-vs-dogs", "photos")
OUTPUT = "evaluation"  # a new folder

data = keras_bit.image_folder(FOLDER)
evaluation = keras_bit.evaluate(RUN, data, output=OUTPUT)
low, high = evaluation.metrics["accuracy_low"], evaluation.metrics["accuracy_high"]
print(f"Accuracy {evaluation.metrics['accuracy']:.1%} (95% interval {low:.1%} to {high:.1%})")
print(f"Calibration error {evaluation.metrics['calibration_error']:.3f}")
for scores in evaluation.class_scores:
    taken_for = f", most others taken for {scores.confused_with}" if scores.confused_with else ""
    print(f"{scores.name}: {scores.right} of {scores.support}{taken_for}")

# The most confident mistakes, or any images where there are none, with their maps as pictures.
names = [mistake.name for mistake in evaluation.mistakes(5)] or evaluation.names[:5]
predictions = keras_bit.predict_files(RUN, names, maps=f"{OUTPUT}/maps")
for prediction in predictions:
    name, probability = prediction.classes[0]
    print(f"{prediction.file}: {name} with {probability:.0%}, see {prediction.map_file}")

# The maps as numbers, of the first of them: a logit is the mean of its class's map.
model = keras.saving.load_model(f"{RUN}/model.keras")
edge = json.loads(pathlib.Path(RUN, "rule.json").read_text())["crop_size"]
upright = ImageOps.exif_transpose(Image.open(names[0]))  # as the camera was held
image = keras.utils.img_to_array(upright.convert("RGB")) / 255
images = keras.ops.image.resize(image[None], (edge, edge))
class_maps = keras.ops.convert_to_numpy(model.class_maps(images))[0]
class_id = class_maps.mean(axis=(0, 1)).argmax()
print(f"{names[0]}: the map of {evaluation.label_names[class_id]}, a value every 32 pixels")
print(class_maps[:, :, class_id].round(2))
