"""Docstrings as Markdown: sections of Google's style as headings, lists and code."""

import inspect
import re
import textwrap
from collections.abc import Iterator

LISTS = ("Args", "Attributes", "Call arguments", "Raises")
TEXTS = ("Returns", "Yields")
TITLES = {"Args": "Arguments"}
EXAMPLE = re.compile(r"^(Example\b[^\n]*):$", re.MULTILINE)
SHAPE = re.compile(
    r"(?:^|(?<=\. ))((?:Input|Output|Input and output) shape|Output): ", re.MULTILINE
)
SECTION = re.compile(r"^(?P<title>[A-Z][a-z ]+):\n(?P<body> .*\n(?:\n| .*\n)*)", re.MULTILINE)
ENTRY = re.compile(r"^(?=\S)", re.MULTILINE)
SESSION = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
DIRECTIVE = re.compile(r" *# doctest: .*")


def to_markdown(docstring: str) -> str:
    """Returns a docstring as Markdown.

    Raises:
        ValueError: If it has a section of another name, or an entry of a list without a name.
    """
    text = SECTION.sub(_section, inspect.cleandoc(docstring) + "\n")
    text = SHAPE.sub(r"**\1:** ", EXAMPLE.sub(r"###### \1", text))
    return SESSION.sub(_session, text)


def first_paragraph(docstring: str) -> str:
    """Returns the summary of a docstring."""
    return inspect.cleandoc(docstring).partition("\n\n")[0]


def entries(docstring: str, title: str) -> Iterator[tuple[str, str]]:
    """Yields the names and the text of the entries of one section."""
    for section in SECTION.finditer(inspect.cleandoc(docstring) + "\n"):
        if section["title"] == title:
            yield from _entries(section["body"])


def _section(match):
    title, body = match["title"], match["body"]
    if title in LISTS:
        body = "".join(
            f"- {_names(names)}: {textwrap.indent(text, '  ').lstrip()}\n"
            for names, text in _entries(body)
        )
    elif title in TEXTS:
        body = textwrap.dedent(body)
    else:
        raise ValueError(f"A docstring has the unknown section {title!r}.")
    return f"###### {TITLES.get(title, title)}\n\n{body}\n"


def _entries(body):
    for entry in filter(None, ENTRY.split(textwrap.dedent(body).strip("\n"))):
        names, colon, text = entry.partition(": ")
        if not colon:
            raise ValueError(f"The entry of a docstring has no name: {entry!r}")
        first, _, others = text.partition("\n")
        yield names, f"{first}\n{textwrap.dedent(others)}".rstrip()


def _names(names):
    escaped = names.replace("*", r"\*").split(", ")
    return ", ".join(f'<strong class="entry">{name}</strong>' for name in escaped)


def _session(match):
    return f"```pycon\n{DIRECTIVE.sub('', match[0])}\n```"
