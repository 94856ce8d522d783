"""Predictions for files of images, by the model of a run."""

import os
from collections.abc import Iterable

from keras_bit.core.arguments import check_integer
from keras_bit.data.images import SKIP, check_damaged
from keras_bit.evaluation.files import find_images
from keras_bit.evaluation.map_files import check_maps_folder, draw_file_maps
from keras_bit.evaluation.saved_run import BATCH_SIZE, FilePrediction, SavedRun


def predict_files(
    run: str | os.PathLike,
    files: str | os.PathLike | Iterable[str | os.PathLike],
    *,
    top: int | None = None,
    batch_size: int = BATCH_SIZE,
    damaged: str = SKIP,
    maps: str | os.PathLike | None = None,
) -> list[FilePrediction]:
    """Names the classes of image files.

    Probabilities are those after the run's temperature, if one was fitted (`keras_bit.evaluate`).
    Images are decoded and resized as those that the run was evaluated on. Files that cannot be
    read are reported and do not stop the others; what is no image in a folder, or among the files
    that a pattern matches, is counted in a warning.

    Args:
        run: Output folder of `keras_bit.fine_tune`, or the `model.keras` in it; beside the model
            lie `label_names.json`, `rule.json` and, but for runs of earlier versions,
            `outputs.json`.
        files: Paths of JPEG, PNG, BMP, GIF, WebP or TIFF files; of folders, which mean all images
            below them, sorted by path, without hidden and system files; or patterns of paths with
            `*`, `?` or `[`, in which `**` stands for any number of folders. The name of a file
            that exists is that file, whatever it holds. Several of them, or one.
        top: Number of classes for each file. Default: 3; of a run whose images have several labels
            each, all labels whose probability reaches the threshold of their class.
        batch_size: Number of images that are predicted together.
        damaged: Whether to `"skip"` JPEG files that are cut short or damaged, as those that cannot
            be read, or to `"keep"` them as far as they can be decoded, named in one warning.
        maps: New or empty folder for pictures of the class activation maps, a PNG for each image:
            where in it the logits of its `classes` come from. Default: none are drawn.

    Returns:
        A list of `FilePrediction`, one for each file, in order.

    Raises:
        FileNotFoundError: If `run` is something else, with all of the run's files that are
            missing; before the model is loaded.
        FileExistsError: If the folder `maps` is not empty.
        ValueError: If a number is out of range, there is no image in a folder, a pattern matches
            none, a file of the run is damaged, or its model has no class activation maps.
        FloatingPointError: If weights or outputs of the model are infinite or NaN.

    Example:

    ```python
    import tempfile
    import keras_bit

    folder = tempfile.mkdtemp()
    data = keras_bit.digits(examples_per_class=2)
    keras_bit.fine_tune(data, schedule_length=1, crop_size=32, output=folder, verbose=0)
    keras.utils.save_img(f"{folder}/digit.png", next(data.test.map(lambda image: image)))
    for prediction in keras_bit.predict_files(folder, f"{folder}/*.png", top=1):
        print(prediction.file, prediction.classes)
    ```
    """
    top = top if top is None else check_integer("top", top, minimum=1)
    batch_size = check_integer("batch_size", batch_size, minimum=1)
    check_damaged(damaged)
    saved = SavedRun.open(run)
    folder = None if maps is None else check_maps_folder(maps)
    found = find_images(files)
    predictions = saved.predict(found, top, batch_size, damaged, maps=folder is not None)
    if folder is not None:
        predictions = draw_file_maps(predictions, folder, saved.rule.crop_size)
    return list(predictions)
