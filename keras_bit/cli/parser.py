"""The parser of the command line, which answers a wrong name with the right one."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

FAILED = 2
# What other tools call it, or what it is called in another command.
_OTHER_OPTIONS = {
    "--schedule-length": ("--epochs", "--num-epochs", "--steps", "--max-steps", "--iterations"),
    "--steps": ("--epochs", "--num-epochs", "--max-steps", "--schedule-length"),
    "--learning-rate": ("--lr", "--rate"),
    "--crop-size": ("--image-size", "--img-size", "--imgsz"),
    "--preset": ("--model", "--weights", "--pretrained"),
}
_OTHER_COMMANDS = {"train": "fine-tune", "finetune": "fine-tune", "models": "presets"}
_REMARKS = {
    "--schedule-length": (
        ", which counts updates: one pass over 1,000 images is 16 updates at a batch size of 64"
    )
}
_MISSING = "the following arguments are required: "


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line, without abbreviations of options."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(allow_abbrev=False, **arguments)
        self.commands: Any = None
        self.renamed: dict[str, str] = {}  # arguments of the API that another option stands for

    def add_subparsers(self, **arguments: Any) -> Any:
        """As in `ArgumentParser`."""
        self.commands = super().add_subparsers(**arguments)
        return self.commands

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in `ArgumentParser`, which would take the value of an unknown option for a FOLDER."""
        args = list(sys.argv[1:] if args is None else args)
        if self.commands:
            self._check_command(args)
        else:
            self._check_options(args)
        namespace, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(
                f"`{self._call()}` must have no further arguments. Received: {' '.join(rest)}. "
                "Options come last, and a path with spaces needs quotes."
            )
        return namespace, rest

    def error(self, message: str) -> NoReturn:
        """Prints one line and ends with code 2."""
        message = re.sub(r"^argument (\S+): must", r"`\1` must", message)
        choice = r"^argument (\S+): invalid choice: (.+) \(choose from (.+)\)$"
        message = re.sub(choice, r"`\1` must be one of \3. Received: \2", message)
        value = r"`\1` must have a value; one that begins with a hyphen stands after `=`."
        message = re.sub(r"^argument (\S+): expected one argument$", value, message)
        if message.startswith(_MISSING):
            names = message.removeprefix(_MISSING).replace(", ", "`, `")
            message = f"`{names}` must be given: `{self._call()}`. {self.epilog}"
        self.exit(FAILED, f"keras-bit: error: {message}\n")

    def has_option(self, name: str) -> bool:
        """Whether the command has an option such as `--seed`."""
        return any(name in action.option_strings for action in self._actions)

    def with_options(self, message: str) -> str:
        """Returns a message of the Python API with its arguments as the options of this parser."""
        options = {
            action.dest: next(name for name in action.option_strings if name.startswith("--"))
            for action in self._actions
            if action.option_strings
        }
        options |= self.renamed
        message = re.sub(r"(?<=`)\w+(?=`)", lambda name: options.get(name[0], name[0]), message)
        known = "|".join(options)
        message = re.sub(
            rf"(?<=`)({known})=(?:['\"](\w+)['\"]|(\d+))(?=`)",
            lambda found: f"{options[found[1]]} {found[2] or found[3]}",
            message,
        )
        return re.sub(rf"(?<= )({known})=", lambda name: f"{options[name[1]]} ", message)

    def _call(self) -> str:
        """The command with its arguments."""
        return (self.usage or self.prog).splitlines()[0]

    def _check_command(self, args: Sequence[str]) -> None:
        """Raises where the first argument is neither a command nor an option."""
        if not args:
            self.error(f"`COMMAND` must be one of {', '.join(self.commands.choices)}. {self._help}")
        name = args[0]
        if name.startswith("-"):
            self._check_options([name])
        elif name not in self.commands.choices:
            right = _OTHER_COMMANDS.get(name) or nearest(name, self.commands.choices)
            hint = f"Did you mean `keras-bit {right}`?" if right else self._help
            self.error(f"`{name}` is no command of `keras-bit`. {hint}")

    def _check_options(self, args: Iterable[str]) -> None:
        """Raises at the first option that there is not."""
        for argument in args:
            if argument == "--":
                return
            option = argument.partition("=")[0]
            if option in self._option_string_actions or not _is_option(option):
                continue
            file = " A file of this name is written `./{}`." if os.path.lexists(argument) else ""
            hint = self._hint("--" + option.lstrip("-").replace("_", "-").lower())
            self.error(f"`{option}` is no option of `{self.prog}`. {hint}{file.format(argument)}")

    def _hint(self, option: str) -> str:
        """What to use in place of an unknown option."""
        positional = [action.metavar for action in self._actions if not action.option_strings]
        if option[2:].upper() in positional:
            return f"Its value stands alone: `{self._call()}`."
        others = [known for known, names in _OTHER_OPTIONS.items() if option in names]
        for known in others:
            if known in self._option_string_actions:
                return f"Use {self._described(known)}{_REMARKS.get(known, '')}."
        if others:
            return f"`keras-bit fine-tune` has `{others[0]}`{_REMARKS.get(others[0], '')}."
        similar = nearest(option, self._option_string_actions)
        return f"Did you mean {self._described(similar)}?" if similar else self._help

    def _described(self, option: str) -> str:
        """An option with its value, in backticks."""
        metavar = self._option_string_actions[option].metavar
        return f"`{option} {metavar}`" if metavar else f"`{option}`"

    @property
    def _help(self) -> str:
        return f"`{self.prog} --help` lists them."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that `name` begins or resembles, or `None`.

    >>> nearest("--crop", ["--crop-size", "--cache-dir"])
    '--crop-size'
    >>> nearest("fine-tun", ["fine-tune", "plan"])
    'fine-tune'
    """
    known = list(known)
    longer = [each for each in known if each.startswith(name) and len(name) > 3]
    return next(iter(longer or difflib.get_close_matches(name, known, n=1)), None)


def _is_option(text: str) -> bool:
    """Whether this is meant as an option: a number below zero is not, nor is standard input."""
    try:
        float(text)
    except ValueError:
        return text.startswith("-") and text != "-"
    return False
