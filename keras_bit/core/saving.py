"""How the package's classes get into files, and what those files say of it."""

from typing import Any, TypeVar

import keras

PACKAGE = "keras_bit"
HINT = {"note": "`import keras_bit` before loading: it registers the classes of this file"}
_Class = TypeVar("_Class", bound=type)


def register(cls: _Class) -> _Class:
    """Class decorator: Keras loads `cls` from files.

    In a process that has not imported the package Keras cannot; its error shows the config of the
    layer, whose last entry, a note in the build config, then says what to do.
    """
    registered: Any = keras.saving.register_keras_serializable(package=PACKAGE)(cls)
    if hasattr(registered, "get_build_config"):
        build_config = registered.get_build_config

        def get_build_config(self: Any) -> dict[str, Any] | None:
            config = build_config(self)
            return None if config is None else {**config, **HINT}

        registered.get_build_config = get_build_config
    return registered
