"""A page in HTML that holds its pictures inside, so that it can be sent as one file.

All functions but `write_page` return a part of its body, with every text escaped.
"""

import base64
import html
import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from keras_bit.core.files import atomic_write
from keras_bit.evaluation.pictures import printable

_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "img{max-width:100%;height:auto}pre{overflow-x:auto}table{border-spacing:0}"
    "th{text-align:left}td,th{padding:.1rem 1.5rem .1rem 0;vertical-align:top}"
)


class Picture(NamedTuple):
    """One picture of a page: the PNG file, its title and the sentence that explains it."""

    path: pathlib.Path
    title: str
    caption: str


def write_page(path: str | os.PathLike, title: str, parts: Iterable[str]) -> None:
    """Writes a page whose heading is `title`, with the parts of its body, to the file `path`."""
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style><h1>{_escape(title)}</h1>{''.join(parts)}</html>\n"
    )
    with atomic_write(path) as temporary:
        temporary.write_text(printable(page), encoding="utf-8")


def heading(text: str) -> str:
    """A heading below that of the page."""
    return f"<h2>{_escape(text)}</h2>"


def paragraph(text: str) -> str:
    """A paragraph."""
    return f"<p>{_escape(text)}</p>"


def preformatted(text: str) -> str:
    """Text with its line breaks and columns as they are."""
    return f"<pre>{_escape(text)}</pre>"


def table(rows: Iterable[Iterable[object]], names: Iterable[str] = ()) -> str:
    """A table of `rows`, below the names of their columns where given."""
    head = "".join(f"<th>{_escape(name)}" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{_escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"


def illustration(picture: Picture) -> str:
    """A picture below its title and caption."""
    return (
        f"{heading(picture.title)}{paragraph(picture.caption)}"
        f'<img alt="{_escape(picture.title)}" src="data:image/png;base64,'
        f'{base64.b64encode(picture.path.read_bytes()).decode()}">'
    )


def _escape(value):
    return html.escape(str(value))
