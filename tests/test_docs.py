"""The reference: every public name has its place, and no docstring is rendered broken."""

import importlib
import inspect
import re
from collections.abc import Sequence
from html.parser import HTMLParser

import keras
import numpy.typing as npt
import pytest

import keras_bit

reference = pytest.importorskip(
    "keras_bit.reference.pages", reason="needs pdoc", exc_type=ImportError
)
from keras_bit.reference.annotations import spell, spelled_signature  # noqa: E402
from keras_bit.reference.docstrings import entries, to_markdown  # noqa: E402

FACES = [face.__name__ for face in reference.subpackages()]
NAMES = [(face, name) for face in FACES for name in importlib.import_module(face).__all__]
VOID = ("br", "img", "input", "link", "meta", "path", "wbr")
MARKUP = re.compile(r"`|\*\*|>>>|##|\|-|\b(Args|Raises|Attributes|Returns|Yields):|\bExample\b.*:$")


class Page(HTMLParser):
    """The texts of a page by where they stand, its links, and what they can lead to."""

    def __init__(self, path):
        super().__init__()
        self.path, self.open, self.section = path, [], None
        self.links, self.targets = [], set()
        self.prose, self.parts = [], {}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.links += [attributes["href"]] if "href" in attributes else []
        self.targets.add(attributes.get("id"))
        if tag == "section":
            self.section = attributes.get("id")
        if tag not in VOID:
            self.open.append(f"{tag} {attributes.get('class') or ''}".split())

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        around = {word for words in self.open for word in words}
        kind = next((k for k in ("pre", "signature", "entry", "h6", "code") if k in around), None)
        self.parts.setdefault((self.section, kind), []).append(data)
        if kind is None and "docstring" in around:
            self.prose.append(data)

    def text(self, name, kind):
        """What stands in the section of a name: its signature, code, entries or headings."""
        return "".join(self.parts.get((name, kind), ()))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    reference.build(folder)
    return {path.relative_to(folder).as_posix(): Page(path) for path in folder.rglob("*.html")}


@pytest.mark.slow
@pytest.mark.parametrize("face, name", NAMES)
def test_every_public_name_has_a_section(pages, face, name):
    thing = getattr(importlib.import_module(face), name)
    page, docstring = pages[face.replace(".", "/") + ".html"], inspect.getdoc(thing)
    assert name in page.targets
    function = vars(thing).get("__init__") if inspect.isclass(thing) else thing
    if function:
        signature = page.text(name, "signature")
        for parameter in inspect.signature(function).parameters:
            assert parameter == "self" or re.search(rf"\b{parameter}\b", signature), parameter
    for names, _ in entries(docstring, "Args"):
        assert all(word in page.text(name, "entry") for word in names.split(", "))
    for line in re.findall(r"^>>> (.*?)(?: *# doctest.*)?$", docstring, re.MULTILINE):
        assert line in page.text(name, "pre")
    if "\nRaises:" in docstring:
        assert "Raises" in page.text(name, "h6")
    shown = f"{face.replace('.', '/')}.html#{name}"
    assert shown in pages["keras_bit.html"].links


@pytest.mark.slow
def test_no_docstring_is_rendered_broken(pages):
    for path, page in pages.items():
        broken = [text for text in page.prose if MARKUP.search(text.strip())]
        assert not broken, f"{path}: {broken}"
        assert page.prose or path == "index.html"


@pytest.mark.slow
def test_every_link_leads_somewhere(pages):
    folder = pages["keras_bit.html"].path.parent
    for page in pages.values():
        for link in page.links:
            if link.startswith("http"):
                continue
            path, _, target = link.partition("#")
            file = (page.path.parent / path).resolve() if path else page.path
            assert not target or target in pages[file.relative_to(folder).as_posix()].targets, link


@pytest.mark.slow
def test_helpers_and_overridden_methods_are_not_shown(pages):
    shown = {target for page in pages.values() for target in page.targets if target}
    assert {"BiTBackbone.stages", "HyperRule.optimizer"} <= shown
    hidden = {"BiTBackbone.get_config", "BiTBackbone.dtype", "BiTBackbone._parts"}
    assert not hidden & shown and "network_function" not in shown


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(pages):
    for page in pages.values():
        html = page.path.read_text()
        assert not re.search(r"(src=|@import|url\()\s*[\"']?https?:", html)


@pytest.mark.slow
def test_an_argument_that_is_not_there_fails_the_build(monkeypatch, tmp_path):
    monkeypatch.setattr(keras_bit.fold, "__doc__", "Folds.\n\nArgs:\n    modle: A model.\n")
    with pytest.raises(UserWarning, match=r"keras_bit\.fold has no argument \['modle'\]"):
        reference.build(tmp_path)


def test_sections_become_headings_lists_and_code():
    text = to_markdown(
        """Adds.

        Args:
            first, second: Numbers,
                on two lines.
            **others: More of them.

        Returns:
            The sum.

        Input shape: (batch,). Output shape: ().

        Example, which is short:

        >>> add(1, 2)  # doctest: +SKIP
        3
        """
    )
    assert re.split(r"\n{2,}", text.rstrip()) == [
        "Adds.",
        "###### Arguments",
        '- <strong class="entry">first</strong>, <strong class="entry">second</strong>: Numbers,\n'
        '  on two lines.\n- <strong class="entry">\\*\\*others</strong>: More of them.',
        "###### Returns",
        "The sum.",
        "**Input shape:** (batch,). **Output shape:** ().",
        "###### Example, which is short",
        "```pycon\n>>> add(1, 2)\n3\n```",
    ]


@pytest.mark.parametrize("text", ["Note:\n    Never.", "Args:\n    no name"])
def test_unknown_sections_and_nameless_entries_are_errors(text):
    with pytest.raises(ValueError, match="A docstring|The entry"):
        to_markdown(f"Adds.\n\n{text}")


@pytest.mark.parametrize(
    "annotation, text",
    [
        (int | None, "int | None"),
        (Sequence[float], "Sequence[float]"),
        (tuple[str, ...], "tuple[str, ...]"),
        (npt.ArrayLike | None, "ArrayLike | None"),
        (keras.callbacks.Callback, "keras.callbacks.Callback"),
        (keras.Model, "keras.Model"),
        (keras.utils.PyDataset, "keras.utils.PyDataset"),
        ("tuple[MixUp, tf.data.Dataset]", "tuple[keras_bit.MixUp, tf.data.Dataset]"),
        (keras_bit.MixUp, "keras_bit.MixUp"),
    ],
)
def test_annotations_are_spelled_as_users_write_them(annotation, text):
    assert spell(annotation, {keras_bit.MixUp: "keras_bit.MixUp"}) == text


def test_signatures_are_those_that_callers_see():
    signature = spelled_signature(keras_bit.MixUp.__init__, {})
    assert str(signature) == "(alpha: float = 0.1, seed: int | None = None, **kwargs: Any)"
