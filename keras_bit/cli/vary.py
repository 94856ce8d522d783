"""What `--vary` of `keras-bit search` asks for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_bit.cli.parser import nearest

if TYPE_CHECKING:
    from keras_bit.hyperrule import HyperRule

_ANSWERS = {"yes": True, "true": True, "no": False, "false": False}


def hyperparameters_of(rule: "HyperRule | None", preset: str | None = None) -> dict[str, Any]:
    """Returns the hyperparameters that a search may name, by the names that `--vary` takes."""
    from keras_bit.hyperrule import HyperRule
    from keras_bit.tuning.space import hyperparameters

    # What they are called, and of which kind, is the same for every rule.
    return hyperparameters(rule or HyperRule(512, 1000, 64), preset)


def space_of(texts: Sequence[str], decisions: dict[str, Any]) -> dict[str, Any] | None:
    """Returns what `--vary` asks for, as `space` of `keras_bit.search`."""
    if not texts:
        return None
    known = hyperparameters_of(decisions.get("rule"), decisions.get("preset"))
    space: dict[str, Any] = {}
    for text in texts:
        names, is_given, values = text.partition("=")
        for name in [names] if is_given else names.split(","):
            if name not in known:
                raise ValueError(_unknown(name, known))
            if name in space:
                raise ValueError(
                    f"`space` must name {name!r} once. Received: {' and '.join(texts)}"
                )
            default = known[name].default
            space[name] = None
            if is_given:
                space[name] = [_value(name, value, default) for value in values.split(",")]
            elif known[name].values is None:
                raise ValueError(
                    f"`space` must give the values of {name!r}, which has no usual ones: "
                    f"--vary '{name}=m-r50x1,m-r101x1'. Received: {text!r}"
                )
            _check_values(name, space[name] or known[name].values, decisions)
    return space


def _unknown(name, known):
    similar = nearest(name, known)
    hint = f" Did you mean {similar!r}?" if similar else ""
    return f"`space` must name some of {', '.join(known)}. Received: {name!r}.{hint}"


def _value(name, text, default):
    kind = str if default is None else type(default)
    try:
        return _ANSWERS[text] if kind is bool else kind(text)
    except (KeyError, ValueError):
        what = {bool: "yes or no", int: "integers", float: "numbers"}[kind]
        raise ValueError(
            f"`space` must give {what} as the values of {name!r}. Received: '{name}={text}'"
        ) from None


def _check_values(name, values, decisions):
    """Raises where a rule, or a run, cannot have one of the values."""
    from keras_bit.hyperrule import HyperRule
    from keras_bit.training.resolve import check_arguments
    from keras_bit.tuning.space import changed_decisions, changed_rule

    key = hyperparameters_of(None)[name].name
    for value in values:
        try:
            rule = changed_rule(decisions.get("rule") or HyperRule(512, 1000, 64), {key: value})
            changed = {key: value} if name == "preset" else changed_decisions({key: value})
            if decisions.get("rule"):  # else it depends on the data
                changed["rule"] = rule
            check_arguments(**{**decisions, **changed})
        except (ValueError, TypeError, OSError) as error:
            raise ValueError(
                f"`space` must give values of {name!r} that a run can have. Received: "
                f"'{name}={value}'. {error}"
            ) from error
