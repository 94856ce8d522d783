"""What a killed search repeats, and what two workers share."""

import itertools
import math

import keras_tuner
import pytest

from keras_bit.tuning.oracle import STOP, needed_weights
from tests.tuning.formula import (
    KINDS,
    LIMITS,
    Custom,
    Worker,
    is_killed,
    killed_at,
    numbers,
    outcome,
    score_of,
    scores,
    space_of,
    warns,
    whole_list,
)

pytestmark = [
    pytest.mark.usefixtures("no_waiting"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_killed_again_and_again_it_ends_the_same(whole, tmp_path, kind):
    moments, ended, deaths = itertools.cycle([5, 0, 3, 7, 2, 9, 4, 1, 6, 8]), [], 0
    for moment in moments:
        worker = killed_at(moment, tmp_path, kind)
        died = is_killed(worker)
        ended += worker.ended
        deaths += died
        if not died:
            break
    assert deaths > 8
    assert outcome(tmp_path) == outcome(whole(kind))
    assert ended == sorted(ended) and len(ended) == len(set(ended))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_every_moment_it_ends_the_same(whole, tmp_path, kind):
    for moment in itertools.count():
        first = killed_at(moment, tmp_path / str(moment), kind)
        died = is_killed(first)
        second = Worker(tmp_path / str(moment), kind)
        second.search()
        assert outcome(tmp_path / str(moment)) == outcome(whole(kind)), moment
        repeated = set(first.ran) & set(second.ran)
        assert len(repeated) <= 1 and repeated <= set(second.ended), moment
        if not died:
            assert second.ran == [] and moment > 8 * len(first.ran)
            return


def test_a_trial_whose_end_was_not_listed_is_not_run_again(whole, tmp_path):
    first, second = killed_at(6, tmp_path), Worker(tmp_path)
    assert is_killed(first)
    assert first.ran == ["0000"] and first.ended == []
    assert [event["kind"] for event in whole_list(tmp_path)] == ["begin"]
    second.search()
    assert second.ran == numbers(5)[1:] and second.ended == numbers(5)
    assert outcome(tmp_path) == outcome(whole("random"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_trial_has_the_defaults(whole, kind):
    (trial, values), *rest = outcome(whole(kind))
    assert (trial, values) == ("0000", {"n": 1, "x": 1.0})
    assert {trial for trial, *_ in rest} == set(numbers(LIMITS.get(kind, 5)))
    assert whole_list(whole(kind))[-1] == STOP


def test_it_suggests_what_keras_tuner_does(whole):
    """The default first; then what the tuner by itself suggests."""
    space = space_of(keras_tuner.HyperParameters())
    objective = keras_tuner.Objective("score", "max")
    oracle = keras_tuner.oracles.RandomSearchOracle(objective, 9, seed=1, hyperparameters=space)
    oracle._save_trial = oracle.save = lambda *ignored: None
    oracle.verbose = 0
    expected = [oracle.create_trial(str(i)).hyperparameters.values for i in range(4)]
    found = [values for trial, values, *status in outcome(whole("random")) if not status]
    assert found[1:] == expected


def test_what_another_process_did_is_repeated(whole, tmp_path):
    """Values that a trial declares itself, conditions, and the trial's own place are kept."""

    def declare(trial):
        trial.hyperparameters.Choice("later", [0, 1])

    Worker(tmp_path, hook=declare, limit=2).search()
    first = Worker(tmp_path, hook=declare, limit=4)
    first.search()
    assert first.ran == ["0002", "0003"]
    assert all("later" in values for _, values, *status in outcome(tmp_path)[4:] if not status)
    one = Worker(tmp_path / "one", hook=declare, limit=4)
    one.search()
    assert outcome(tmp_path / "one") == outcome(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_workers_trial_is_run_by_another(tmp_path, kind):
    a, b = Worker(tmp_path, kind, limit=4), Worker(tmp_path, kind, limit=4)
    of_a, of_b = a.ask(), b.ask()
    assert (of_a.trial_id, of_b.trial_id) == ("0000", "0001")
    b.run(of_b)
    a.oracle.close()  # as the system does for a killed process
    again = b.ask()
    assert again.trial_id == "0000"
    assert again.hyperparameters.values == of_a.hyperparameters.values
    b.run(again)
    c = Worker(tmp_path, kind, limit=4)
    for worker in (c, b):
        worker.search()
        assert worker.ask().status == "STOPPED"
    assert b.ran + c.ran == ["0001", "0000", "0002", "0003"]
    assert all(len(found) == 3 for found in scores(tmp_path).values())
    assert list(scores(tmp_path)) == numbers(4)


def test_a_trial_that_was_taken_over_ends_once(tmp_path):
    """Its first worker was thought dead: where the disk has no locks."""
    a, b = Worker(tmp_path, limit=1), Worker(tmp_path, limit=1)
    of_a = a.ask()
    a.oracle._locks.pop("0000").close()
    of_b = b.ask()
    assert of_a.trial_id == of_b.trial_id
    for worker, trial in ((b, of_b), (a, of_a)):
        worker.run(trial)
        assert worker.ask().status == "STOPPED"
    assert (a.ended, b.ended) == ([], ["0000"])
    assert len(outcome(tmp_path)) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_who_has_nothing_to_do_waits_for_the_last_trial(tmp_path, kind):
    a, b = Worker(tmp_path, kind, limit=2), Worker(tmp_path, kind, limit=2)
    a.run(a.ask())
    last = a.ask()
    before = whole_list(tmp_path)
    for _ in range(3):
        assert b.ask().status == "IDLE"
    assert whole_list(tmp_path) == before
    a.run(last)
    assert b.ask().status == a.ask().status == "STOPPED"
    assert whole_list(tmp_path).count(STOP) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pattern", ["abab", "aabb", "abba", "abbbbbba"])
def test_two_workers_in_turns_and_a_third_that_repeats_it(tmp_path, kind, pattern):
    """Each letter is a step of a worker: it takes a trial, or ends the one that it has."""
    workers = {name: Worker(tmp_path, kind) for name in "ab"}
    has, status = {}, {}
    for name in itertools.cycle(pattern):
        worker = workers[name]
        if trial := has.pop(name, None):
            worker.run(trial)
        elif (trial := worker.ask()).status == "RUNNING":
            assert trial.trial_id not in [other.trial_id for other in has.values()]
            has[name] = trial
        status[name] = trial.status
        if set(status.values()) == {"STOPPED"} and len(status) == 2:
            break
    limit = LIMITS.get(kind, 5)
    assert sorted(workers["a"].ran + workers["b"].ran) == numbers(limit)
    assert all(len(found) == 3 for found in scores(tmp_path).values())
    third = Worker(tmp_path, kind, limit=limit + 2)
    third.search()  # warns of nothing: it suggests what they did, in the order of then
    assert third.ran == numbers(limit + 2)[limit:]
    assert len(third.oracle.trials) == limit + 2 and not third.oracle.ongoing_trials


def test_a_grid_is_searched_to_its_end_by_two(tmp_path):
    def two(hp):
        hp.Choice("x", [1.0, 2.0, 3.0])
        return hp

    class Small(keras_tuner.oracles.GridSearchOracle):
        def __init__(self, objective, hyperparameters, seed):
            super().__init__(objective, hyperparameters=two(keras_tuner.HyperParameters()))

    a, b = (Worker(tmp_path, Small, limit=99) for _ in range(2))
    for worker in (a, b):
        worker.tuner.run_trial = lambda trial, **options: {"score": 1.0}
    one = a.ask()
    other = b.ask()
    last = a.oracle.create_trial("x") if one is None else None
    assert last is None
    b.run(other)
    a.run(one)
    b.search()
    a.search()
    values = [found[0]["x"] for found in scores(tmp_path).values()]
    assert sorted(values) == [1.0, 2.0, 3.0]


class Waiting(keras_tuner.Oracle):
    """Wants the trials before to end; waits once where nothing runs; ends by itself."""

    asked = 0

    def populate_space(self, trial_id):
        self.asked += 1
        if self.ongoing_trials or self.asked == 3:
            return {"status": "IDLE"}
        if len(self.trials) == 3:
            return {"status": "STOPPED"}
        return {"status": "RUNNING", "values": {"n": 0, "x": float(self.asked)}}


def test_an_oracle_that_waits(tmp_path):
    a, b = Worker(tmp_path, Waiting, limit=99), Worker(tmp_path, Waiting, limit=99)
    first = a.ask()
    assert [b.ask().status for _ in range(3)] == ["IDLE"] * 3
    a.run(first)
    b.search()
    a.search()
    assert b.ran == ["0001", "0002"]
    assert [e["kind"] for e in whole_list(tmp_path)].count("idle") == 2
    third = Worker(tmp_path, Waiting, limit=99)
    third.search()
    assert third.ran == [] and third.oracle.asked == b.oracle.asked


class Drawing(Custom):
    """Draws random numbers without a seed."""

    drawn = itertools.count(1)

    def populate_space(self, trial_id):
        return {"status": "RUNNING", "values": {"n": 0, "x": 0.1 + 0.01 * next(self.drawn)}}


class Silent(keras_tuner.oracles.GridSearchOracle):
    """Has nothing to say the second time."""

    lives = itertools.count()

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.life = next(self.lives)

    def populate_space(self, trial_id):
        if self.life and self.trials:
            return {"status": "IDLE"}
        return super().populate_space(trial_id)


class Unsteady(keras_tuner.oracles.HyperbandOracle):
    """Has another seed each time."""

    seeds = itertools.count(5)

    def __init__(self, objective, hyperparameters, seed):
        super().__init__(
            objective, max_epochs=4, seed=next(self.seeds), hyperparameters=hyperparameters
        )


@pytest.mark.parametrize("oracle", [Drawing, Unsteady])
def test_an_oracle_that_suggests_something_else(tmp_path, oracle):
    first = killed_at(30, tmp_path, oracle)
    assert is_killed(first)
    before = outcome(tmp_path)
    second = Worker(tmp_path, oracle, limit=8)
    with warns("suggests other hyperparameters for trial 0001"):
        second.search()
    assert outcome(tmp_path)[: len(before)] == before
    assert list(scores(tmp_path)) == numbers(8)
    assert not second.oracle.ongoing_trials
    for trial, (values, status, metrics) in scores(tmp_path).items():
        assert status == "COMPLETED" and metrics == {"score": score_of(values)}
        assert second.oracle.get_trial(trial).hyperparameters.values == values
    assert len(second.oracle._tried_so_far) == 8


def test_an_oracle_that_has_fallen_silent(tmp_path, monkeypatch):
    monkeypatch.setattr(Silent, "lives", itertools.count())
    Worker(tmp_path, Silent, limit=3).search()
    second = Worker(tmp_path, Silent, limit=3)
    with warns("suggests other hyperparameters for trial 0001"):
        second.search()
    assert second.ran == []
    second.limit = 4
    second.search()  # it waits for nothing, and is believed to have ended
    assert second.ran == [] and whole_list(tmp_path)[-1] == STOP
    second.oracle._oracle.life = 0
    second.limit = 5
    second.search()
    assert second.ran == numbers(5)[3:]


@pytest.mark.filterwarnings("ignore:All-NaN:RuntimeWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_trials_that_fail(tmp_path, kind):
    def fail(trial):
        if trial.trial_id in ("0001", "0002"):
            raise ValueError("no luck")
        if trial.trial_id == "0003":
            return {"score": math.nan}
        if trial.trial_id == "0004":
            return {"score": math.inf, "other": 1}
        return {"score": 1.0, "other": math.nan}

    limit = LIMITS.get(kind, 5) + 1
    Worker(tmp_path, kind, fail, limit=3).search()
    second = Worker(tmp_path, kind, fail, limit=limit)
    second.search()
    found = {trial: status for trial, (_, status, _) in scores(tmp_path).items()}
    assert list(found.values()) == ["COMPLETED"] + ["INVALID"] * 4 + ["COMPLETED"] * (limit - 5)
    messages = [event["message"] for event in whole_list(tmp_path) if event["kind"] == "end"]
    assert messages[3:5] == [f"The objective 'score' has become {x}." for x in ("nan", "inf")]
    assert "no luck" in messages[1] and messages[0] is None
    assert [t.status for t in second.oracle.trials.values()][1:5] == ["FAILED"] * 4


def test_metrics_without_the_objective_fail_a_trial_at_once(tmp_path):
    worker = Worker(tmp_path, limit=1)
    worker.tuner.run_trial = lambda trial, **options: worker.oracle.update_trial(
        trial.trial_id, {"other": 1.0}
    )
    worker.search()
    [(_, status, _)] = scores(tmp_path).values()
    assert status == "INVALID"
    assert "Objective value missing" in whole_list(tmp_path)[1]["message"]


def test_which_weights_hyperband_still_needs(tmp_path):
    worker = Worker(tmp_path, "hyperband", limit=99)
    needed = {}
    for _ in range(9):
        trial = worker.ask()
        needed[trial.trial_id] = needed_weights(worker.oracle, worker.oracle.running_trials())
        worker.run(trial)
    # The five of the first round could be promoted until two have been, and then no more.
    first = set(numbers(6)[1:])
    assert first - {"0005"} <= needed["0005"]
    assert needed["0006"] == first and needed["0007"] == {"0004"}
    assert not needed["0008"] & first
    random = Worker(tmp_path / "random", limit=1)
    random.search()
    assert needed_weights(random.oracle, []) == set()
