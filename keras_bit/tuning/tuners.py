"""The tuners of keras-tuner for a search."""

import contextlib
import contextvars
import inspect
import os
import pathlib
from collections.abc import Iterator
from typing import Any, Protocol

import keras_tuner

from keras_bit.tuning.hypermodel import HyperBiT
from keras_bit.tuning.study_folder import TRIALS_FOLDER

TUNERS = {
    "random": keras_tuner.RandomSearch,
    "bayesian": keras_tuner.BayesianOptimization,
    "grid": keras_tuner.GridSearch,
    "hyperband": keras_tuner.Hyperband,
}
ENDLESS = 10**6  # trials and iterations: the search ends by itself
ADDRESS_VARIABLE = "KERASTUNER_ORACLE_IP"
ID_VARIABLE = "KERASTUNER_TUNER_ID"
CHIEF, WORKER = "chief", "worker"


class Workers(Protocol):
    """Processes that do the work of a search."""

    def have_ended(self) -> bool:
        """Whether all is done, called every half second; raises where nobody is left to do it."""


_workers: contextvars.ContextVar[Workers | None] = contextvars.ContextVar("workers", default=None)


def make_tuner(
    tuner: Any,
    hypermodel: HyperBiT,
    objective: Any,
    space: keras_tuner.HyperParameters,
    folder: pathlib.Path,
    scratch: str,
) -> keras_tuner.Tuner:
    """Returns a tuner that has not searched yet, for what `search` was given as `tuner`.

    Its trials lie in `folder`, and the state of its oracle, which nobody reads, in `scratch`.
    """
    common = {"directory": folder, "project_name": TRIALS_FOLDER}
    if isinstance(tuner, str):
        if tuner not in TUNERS:
            raise ValueError(f"`tuner` must be one of {', '.join(TUNERS)}. Received: {tuner!r}")
        tuner = TUNERS[tuner]
    if isinstance(tuner, type) and issubclass(tuner, keras_tuner.Tuner):
        offered = {
            "objective": objective,
            "hyperparameters": space,
            # Not 0, for which keras-tuner draws another one.
            "seed": hypermodel.plan.seed + 1,
            "max_trials": ENDLESS,
            "max_epochs": hypermodel.epochs,
            "hyperband_iterations": ENDLESS,
        }
        parameters = inspect.signature(tuner).parameters
        if "objective" not in parameters:
            raise ValueError(
                "`tuner` must be a class that names `objective` among its arguments, or a tuner "
                f"that is made already. Received: tuner={tuner!r}"
            )
        options = {name: value for name, value in offered.items() if name in parameters}
        made = tuner(hypermodel, **options, **common)
    elif isinstance(tuner, keras_tuner.Oracle):
        made = keras_tuner.Tuner(tuner, hypermodel, **common)
    elif isinstance(tuner, keras_tuner.Tuner):
        made = tuner
        made.hypermodel = hypermodel
        made.directory, made.project_name = common.values()
    else:
        raise ValueError(
            f"`tuner` must be one of {', '.join(TUNERS)}, a class of keras_tuner's tuners, a tuner "
            f"or an oracle. Received: tuner={tuner!r}"
        )
    _check_fresh(made.oracle, hypermodel.epochs)
    _adapt(made, hypermodel, scratch)
    return made


def _check_fresh(oracle, epochs):
    if oracle.trials:
        raise ValueError(
            "`tuner` must not have searched before. Received: one with "
            f"{len(oracle.trials)} trials. Make it again, in another folder."
        )
    if getattr(oracle, "max_epochs", epochs) > epochs:
        raise ValueError(
            "`tuner` must train for at most as many epochs as the trials. Received: max_epochs="
            f"{oracle.max_epochs} with epochs={epochs}. Make both equal."
        )


def _adapt(made, hypermodel, scratch):
    """Leaves to `search` what a tuner would decide itself: when to end, and what is kept."""
    oracle = made.oracle
    oracle.max_trials = None
    oracle.max_retries_per_trial = 0
    oracle.max_consecutive_failed_trials = None
    oracle.verbose = 0
    oracle._set_project_dir(scratch, TRIALS_FOLDER)
    made.save = lambda: None
    if hypermodel.has_own_classifier and not made.max_model_size:
        # keras-tuner clears Keras's session first, and with it what XLA has compiled.
        made._try_build = made._build_hypermodel


def describe_tuner(tuner: keras_tuner.Tuner) -> dict[str, Any]:
    """Returns what must be the same for a tuner to suggest the same trials, as plain values."""
    oracle = tuner.oracle
    names = ("seed", "factor", "max_epochs", "num_initial_points", "alpha", "beta")
    settings = {name: getattr(oracle, name) for name in names if hasattr(oracle, name)}
    return {"tuner": type(tuner).__name__, "oracle": type(oracle).__name__, **settings}


@contextlib.contextmanager
def chief_of(workers: Workers) -> Iterator[None]:
    """Makes `keras_bit.search` in this context the chief of `workers`: it waits for them."""
    token = _workers.set(workers)
    try:
        yield
    finally:
        _workers.reset(token)


def own_workers() -> Workers | None:
    """Returns the workers of `chief_of`; `None` where there are none, or the user starts them."""
    return _workers.get()


def role_in_search() -> str | None:
    """Returns whether keras-tuner's variables make this process the `CHIEF` or a `WORKER`."""
    if own_workers():
        return CHIEF
    if ADDRESS_VARIABLE not in os.environ:
        return None
    return CHIEF if CHIEF in os.environ.get(ID_VARIABLE, "") else WORKER


def check_role(role: str | None, output: str | os.PathLike | None, overwrite: bool) -> None:
    """Raises where the processes of a search would not find, or would remove, what they share."""
    if role is None:
        return
    received = f"{ID_VARIABLE}={os.environ.get(ID_VARIABLE)}" if own_workers() is None else role
    if output is None:
        raise ValueError(
            "`output` must be a folder that the processes of a search share. Received: "
            f"output=None with {received}."
        )
    if overwrite and role == WORKER:
        raise ValueError(
            "`overwrite` must be set in the chief alone, before the workers start. Received: "
            f"overwrite=True with {received}."
        )


@contextlib.contextmanager
def processes_of_search() -> Iterator[str | None]:
    """Yields `role_in_search()`.

    The processes of a search share a folder: within this context keras-tuner, which would have
    workers ask their chief over the network, does not see the variables.
    """
    role = role_in_search()
    address = os.environ.pop(ADDRESS_VARIABLE, None)
    try:
        yield role
    finally:
        if address is not None:
            os.environ[ADDRESS_VARIABLE] = address
