"""What a search brings: the rule and the outcome of a search, on images that neither has seen.

    python -m benchmarks.studies.search_gain PHOTOS --output FOLDER

PHOTOS has `train` and `test` folders of classes. The search splits the images of `train` into
those that it trains on and those that it compares trials with; in the end the rule and the trials
that were compared with it are trained on all of `train` with several seeds and judged on `test`,
after their last update.
Killed, it resumes. Prints the rows of the table in `results/search.md`.
"""

import argparse
import pathlib
import statistics

import keras_bit

FINAL_SEEDS = (100, 101, 102)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", metavar="PHOTOS", type=pathlib.Path)
    parser.add_argument("--output", metavar="FOLDER", type=pathlib.Path, required=True)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--tuner", default="random")
    parser.add_argument("--schedule-length", type=int, default=240)
    arguments = parser.parse_args()
    data = keras_bit.image_folder(arguments.photos / "train", validation_split=0.25)
    result = keras_bit.search(
        data,
        trials=arguments.trials,
        tuner=arguments.tuner,
        schedule_length=arguments.schedule_length,
        output=arguments.output,
        cache_dir=arguments.output.with_name(f"{arguments.output.name}-cache"),
    )
    whole = keras_bit.image_folder(arguments.photos)
    compared = [trial for trial in result.trials if trial.repeats]
    for trial in compared:
        again = 100 * statistics.mean(trial.repeats.values())
        accuracies = [100 * accuracy(whole, trial, seed) for seed in FINAL_SEEDS]
        listed = ", ".join(f"{accuracy:.1f}" for accuracy in accuracies)
        print(
            f"trial {trial.number}: {100 * trial.score:.1f} % on validation, {again:.1f} % with "
            f"further seeds; {statistics.mean(accuracies):.1f} % on {whole.test_size} test images "
            f"({listed})",
            flush=True,
        )


def accuracy(data, trial, seed):
    """Accuracy on the test images after the last update of a run on all training images."""
    sizes = {"image_size": data.image_size, "dataset_size": data.train_size}
    rule = trial.rule.replace(**sizes)
    run = keras_bit.fine_tune(data, rule=rule, seed=seed, verbose=0, **trial.decisions)
    return run.history["val_accuracy"][-1]


if __name__ == "__main__":
    main()
