"""Cats and dogs from a folder: fine-tune, evaluate, classify new photographs.

`PetImages` is what https://www.microsoft.com/en-us/download/details.aspx?id=54765 unpacks to; any
folder with `Cat` and `Dog` folders will do. Files that are no images are skipped and counted:

    python -m keras_bit.examples.cats_vs_dogs_folder PetImages
"""

import sys

import keras_bit

FOLDER = sys.argv[1] if len(sys.argv) > 1 else "PetImages"
PRESET = "f-r14x0.5"  # comes with the package, for CPUs; for real use "m-r50x1"
EXAMPLES_PER_CLASS = None  # all; 500 take minutes on a CPU
OUTPUT = "cats-vs-dogs"

data = keras_bit.image_folder(FOLDER, examples_per_class=EXAMPLES_PER_CLASS)
result = keras_bit.fine_tune(data, preset=PRESET, output=OUTPUT)  # resumes where it was stopped

evaluation = result.evaluation
low, high = evaluation.metrics["accuracy_low"], evaluation.metrics["accuracy_high"]
print(f"Accuracy {evaluation.metrics['accuracy']:.1%} (95% interval {low:.1%} to {high:.1%})")
for mistake in evaluation.mistakes(3):
    said = data.label_names[mistake.predicted]
    print(f"{mistake.name}: {said} with {mistake.probability:.0%}, which is wrong")

photographs = evaluation.names[:5]  # or paths, folders and patterns of your own
for prediction in keras_bit.predict_files(OUTPUT, photographs):
    name, probability = prediction.classes[0]
    print(f"{prediction.file}: {name} with {probability:.0%}")
print(f"Report: {OUTPUT}/report.html")
