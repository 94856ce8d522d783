"""Several labels an image, from a table: train, choose thresholds, and predict.

`photos.csv` begins with `file,tags` and has lines such as `beach/1.jpg,sea|sunset`:

    python -m keras_bit.examples.multi_label_table photos.csv
"""

import sys

import keras_bit

TABLE = sys.argv[1] if len(sys.argv) > 1 else "photos.csv"
PRESET = "f-r14x0.5"  # comes with the package, for CPUs; for real use "m-r50x1"
OUTPUT = "photos-tags"

# `label` may also name columns of 0 and 1, one for each label; `split` one of train and test.
data = keras_bit.image_table(TABLE, path="file", label="tags", separator="|")
print(f"{data.train_size:,} training images, labels {', '.join(data.label_names)}")

# Binary cross-entropy; each label gets the threshold with its best F1 on validation.
result = keras_bit.fine_tune(data, preset=PRESET, output=OUTPUT)
print(f"Mean average precision {result.metrics['mean_average_precision']:.3f}")
for scores in result.evaluation.class_scores:
    precision, recall = f"precision {scores.precision:.2f}", f"recall {scores.recall:.2f}"
    print(f"{scores.name}: {precision}, {recall}, from {scores.threshold:.2f} on")

photographs = data.test.names[:5]  # or paths, folders and patterns of your own
for prediction in keras_bit.predict_files(OUTPUT, photographs):
    print(prediction.file, [name for name, _ in prediction.classes])
