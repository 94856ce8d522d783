"""How much longer a trial takes than the `fit` in it: with keras-tuner alone, and in a search.

    python -m benchmarks.studies.trial_overhead

All trials are the same small run on scikit-learn's digits. `fit` by itself is timed with a model
that has been traced. Prints the rows of a table in `results/search.md`.
"""

import argparse
import itertools
import tempfile
import time

import keras_tuner

import keras_bit
from benchmarks.harness.tables import median_and_range

EPOCHS = 5


class Clock(keras_bit.HyperBiT):
    """Notes when each trial's model is asked for, and when its training has ended."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.times = []

    def fit(self, *args, **kwargs):
        history = super().fit(*args, **kwargs)
        self.times.append(time.perf_counter())
        return history


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--trials", type=int, default=8)
    arguments = parser.parse_args()
    data = keras_bit.digits()
    options = {"crop_size": 32, "mixup_alpha": 0.1, "schedule_length": arguments.updates}
    space = {"rate": [1 + i / 100 for i in range(50)]}

    hypermodel = Clock(data, epochs=EPOCHS, **options)
    bare = list(itertools.islice(bare_fits(hypermodel), arguments.trials))
    show("`fit` of a traced model", bare[1:])

    fixed = keras_tuner.HyperParameters()
    fixed.Choice("learning_rate_factor", space["rate"])
    fixed.Fixed("schedule_factor", 1.0)
    fixed.Fixed("mixup_alpha", 0.1)
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.RandomSearch(
            Clock(data, epochs=EPOCHS, **options),
            "val_accuracy",
            max_trials=arguments.trials,
            hyperparameters=fixed,
            directory=folder,
        )
        tuner.search(verbose=0)
    show("a trial with keras-tuner alone", differences(tuner.hypermodel.times))

    hypermodel = Clock(data, epochs=EPOCHS, **options)
    with tempfile.TemporaryDirectory() as folder:
        keras_bit.search(hypermodel, trials=arguments.trials, space=space, output=folder, verbose=0)
    show("a trial of a search", differences(hypermodel.times))


def bare_fits(hypermodel):
    """Seconds of each `fit` of one model, again and again, with new batches."""
    hp = keras_tuner.HyperParameters()
    rule = hypermodel.rule_for(hp)
    model = hypermodel.plan.build_classifier()
    start = model.get_weights()
    keras_bit.compile_classifier(model, rule.optimizer())
    while True:
        model.set_weights(start)
        model.optimizer.iterations.assign(0)
        train, test = hypermodel.make_data(hp, rule, seed=0, initial_step=0)
        arguments = keras_bit.fit_hyperrule(rule, -(-rule.schedule_length // EPOCHS))
        begun = time.perf_counter()
        model.fit(train, validation_data=test, shuffle=False, verbose=0, **arguments)
        yield time.perf_counter() - begun


def differences(times):
    """From the end of one trial to that of the next; the first has no trial before it."""
    return [after - before for before, after in itertools.pairwise(times)]


def show(name, seconds):
    print(f"{name}: {median_and_range(seconds)} s, {len(seconds)} runs", flush=True)


if __name__ == "__main__":
    main()
