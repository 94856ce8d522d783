"""`python -m keras_bit.examples` lists the examples; with the name of one it prints its file."""

import ast
import pathlib
import sys
from collections.abc import Sequence

from keras_bit.cli.parser import Parser, nearest

COMMAND = "python -m keras_bit.examples"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code, 0, and ends with 2 for a wrong argument."""
    parser = Parser(prog=COMMAND, description=__doc__, epilog=f"Example: {COMMAND} fit > fit.py")
    parser.add_argument("name", metavar="NAME", nargs="?", help="the example whose file to print")
    name = parser.parse_args(argv).name
    files = example_files()
    if name is None:
        print(listing(files))
    elif name in files:
        print(files[name].read_text(encoding="utf-8"), end="")
    else:
        right = nearest(name, files)
        hint = f"Did you mean `{right}`?" if right else f"`{COMMAND}` lists them."
        parser.error(f"`{name}` is no example. {hint}")
    return 0


def example_files() -> dict[str, pathlib.Path]:
    """Returns the files of the examples by their names."""
    files = sorted(pathlib.Path(__file__).parent.glob("[!_]*.py"))
    return {file.stem: file for file in files}


def listing(files: dict[str, pathlib.Path]) -> str:
    """Returns a line for each example, and how to run and copy one."""
    width = max(map(len, files))
    lines = [f"{name:<{width}}  {summary(file)}" for name, file in files.items()]
    return "\n".join(
        [
            *lines,
            "",
            f"Run one:   {COMMAND}.fit photos    (its first lines say what it takes)",
            f"Copy one:  {COMMAND} fit > fit.py",
        ]
    )


def summary(file: pathlib.Path) -> str:
    """Returns the first line of a file's docstring."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
