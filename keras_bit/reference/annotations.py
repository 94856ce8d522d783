"""Annotations as a user writes them: `keras.Model` and not `keras.src.models.model.Model`."""

import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

import numpy.typing as npt

WORD = re.compile(r"(?<![\w.])\w+(?![\w.])")


class Spelled:
    """An annotation that prints as it is spelled."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self):
        return self.text


def spelled_signature(function: Callable, names: dict[type, str]) -> inspect.Signature:
    """Returns the signature that a caller sees: without `self`, annotations as they are spelled.

    Args:
        function: The function.
        names: Public names of classes.
    """
    found = inspect.signature(function)
    parameters = [
        parameter.replace(
            annotation=_spelled(parameter.annotation, names), default=_plain(parameter.default)
        )
        for parameter in found.parameters.values()
        if parameter.name not in ("self", "cls", "_cls")
    ]
    constructor = function.__name__ in ("__init__", "__new__")
    returned = found.empty if constructor else _spelled(found.return_annotation, names)
    return found.replace(parameters=parameters, return_annotation=returned)


def _spelled(annotation, names):
    if annotation is inspect.Signature.empty:
        return annotation
    return Spelled(spell(annotation, names))


def _plain(default):
    made_when_called = repr(default) == "<factory>"  # of a dataclass
    return Spelled("...") if made_when_called else default


def spell(annotation: Any, names: dict[type, str]) -> str:
    """Returns an annotation as text."""
    if annotation is None or annotation is types.NoneType:
        return "None"
    if annotation is Ellipsis:
        return "..."
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        public = {cls.__name__: name for cls, name in names.items()}
        return WORD.sub(lambda word: public.get(word[0], word[0]), annotation)
    if isinstance(annotation, list):
        return f"[{', '.join(spell(part, names) for part in annotation)}]"
    origin, parts = typing.get_origin(annotation), list(typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        array_like = set(typing.get_args(npt.ArrayLike))
        if array_like <= set(parts):
            parts = ["ArrayLike", *(part for part in parts if part not in array_like)]
        return " | ".join(spell(part, names) for part in parts)
    if origin:
        return f"{spell(origin, names)}[{', '.join(spell(part, names) for part in parts)}]"
    return _class_name(annotation, names)


def spelled_bases(cls: type, names: dict[type, str]) -> list[str]:
    """Returns the names of the public classes that a class inherits from."""
    found = []
    for base in cls.__bases__:
        hidden = base.__module__.startswith("keras_bit.") and base not in names
        found += spelled_bases(base, names) if hidden else [spell(base, names)]
    return [name for name in found if name != "object"]


def _class_name(annotation, names):
    if annotation in names:
        return names[annotation]
    name, module = annotation.__qualname__, annotation.__module__
    if module in ("builtins", "collections.abc", "typing"):
        return name
    for path, face in _faces(module.partition(".")[0]).items():
        if getattr(face, name, None) is annotation:
            return f"{path}.{name}"
    return f"{module}.{name}"


@functools.cache
def _faces(package):
    """A package and its public modules to a depth of two, by path, the shortest paths first."""
    found = {package: sys.modules[package]}
    for _ in range(2):
        found |= {
            f"{path}.{name}": inner
            for path, outer in found.items()
            for name, inner in vars(outer).items()
            if inspect.ismodule(inner)
            and inner.__name__.startswith(f"{package}.")
            and not name.startswith("_")
            and name != "src"
        }
    return found
