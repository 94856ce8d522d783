"""`python -m keras_bit.examples`, and what all examples have in common."""

import ast

import pytest

import keras_bit
from keras_bit.examples.__main__ import main
from tests.processes import ROOT, run_python
from tests.scripts.conftest import FOLDER

FILES = sorted(FOLDER.glob("[!_]*.py"))
MOST_LINES, WIDTH = 60, 100


def by_name(function):
    return pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)(function)


def test_the_list_names_all_and_needs_no_keras():
    result = run_python("-m", "keras_bit.examples", PYTHONPROFILEIMPORTTIME="1")
    assert result.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "keras_bit.examples" in imported and not imported & {"keras", "tensorflow", "numpy"}
    lines = result.stdout.splitlines()
    listed, _, hints = lines[: len(FILES)], lines[len(FILES)], lines[len(FILES) + 1 :]
    for line, file in zip(listed, FILES, strict=True):
        name, summary = line.split(maxsplit=1)
        assert name == file.stem and file.read_text().startswith(f'"""{summary}\n')
    assert "python -m keras_bit.examples.fit photos" in hints[0]
    assert "python -m keras_bit.examples fit > fit.py" in hints[1]
    assert max(map(len, lines)) <= WIDTH


def test_a_name_prints_the_file(capsys):
    assert main(["resume"]) == 0
    assert capsys.readouterr().out == (FOLDER / "resume.py").read_text()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["resum"], "`resum` is no example. Did you mean `resume`?"),
        (["fit.py"], "`fit.py` is no example. Did you mean `fit`?"),
        (["__main__"], "`__main__` is no example. `python -m keras_bit.examples` lists them."),
        (["fit", "photos"], "must have no further arguments. Received: photos."),
        (["--all"], "`--all` is no option of `python -m keras_bit.examples`."),
    ],
)
def test_a_wrong_argument_is_answered_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert ended.value.code == 2 and not captured.out
    assert line.startswith("keras-bit: error: ") and message in line


@by_name
def test_each_is_short_and_says_how_to_run_it(file):
    text = file.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    assert f"python -m keras_bit.examples.{file.stem}" in ast.get_docstring(ast.parse(text))


@by_name
def test_each_uses_public_names_only(file):
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.module.startswith("keras_bit")
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            assert not any(name.startswith("keras_bit.") for name in names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "keras_bit":
            assert node.attr in keras_bit.__all__


def test_each_has_a_test():
    tests = "".join(file.read_text() for file in (ROOT / "tests" / "scripts").glob("test_*.py"))
    for file in FILES:
        assert f"\ndef test_{file.stem}(" in tests
