"""The pages: one for each subpackage with public names, and an overview."""

import importlib
import inspect
import pathlib
import pkgutil
import re
import warnings
from functools import cached_property

import jinja2
import pdoc
from markupsafe import Markup
from pdoc.render_helpers import linkify as linkify_local
from pdoc.render_helpers import relative_link

import keras_bit
from keras_bit.reference.annotations import spell, spelled_bases, spelled_signature
from keras_bit.reference.docstrings import entries, first_paragraph, to_markdown

ROOT = keras_bit.__name__
PUBLIC = vars(keras_bit)["__all__"]
CODE = re.compile(r"<code>(\w+)</code>")
TEMPLATE = pathlib.Path(__file__).parent / "template"


class Face(pdoc.doc.Module):
    """A page with the public names of a subpackage, those of `keras_bit` first."""

    submodules = ()  # type: ignore[assignment]

    @cached_property
    def members(self):
        names = sorted(super().members, key=lambda name: name not in PUBLIC)
        return {name: super(Face, self).members[name] for name in names}


class Overview(Face):
    """The first page; its names are those of `keras_bit`, which other pages describe."""

    def __init__(self, faces):
        super().__init__(keras_bit)
        described = {name: doc for face in faces for name, doc in face.members.items()}
        self.members = {name: described[name] for name in PUBLIC}
        self.docstring = first_paragraph(keras_bit.__doc__)


def subpackages():
    """Returns the subpackages with public names, those with names of `keras_bit` first."""
    inner = pkgutil.iter_modules(keras_bit.__path__, f"{ROOT}.")
    packages = [importlib.import_module(module.name) for module in inner if module.ispkg]
    found = [package for package in packages if getattr(package, "__all__", None)]
    return sorted(found, key=lambda package: set(package.__all__).isdisjoint(PUBLIC))


def is_shown(doc):
    """Whether a member is public, and documented itself, not by a class that it overrides."""
    own = doc.docstring if doc.kind == "variable" else doc.obj.__doc__
    of_tuple = own and own.startswith("Alias for field number")
    inherited = doc.taken_from[1] != doc.qualname
    return bool(own) and not (of_tuple or inherited or doc.name.startswith("_"))


def spell_names(described):
    """Gives names, signatures and annotations the spelling of those who use the package."""
    for doc in described:
        if doc.name in PUBLIC:
            doc.fullname = f"{ROOT}.{doc.name}"
    names = {doc.obj: doc.fullname for doc in described if doc.kind == "class"}
    for doc in described:
        for part in [doc, *getattr(doc, "own_members", ())]:
            if part.kind == "class":
                own = [name for name in ("__init__", "__new__") if name in vars(part.obj)]
                part.signature = own and spelled_signature(getattr(part.obj, own[0]), names)
                part.bases = spelled_bases(part.obj, names)
            elif part.kind == "function":
                part.signature = spelled_signature(part.obj, names)
            elif part.annotation is not inspect.Signature.empty:
                part.annotation_str = f": {spell(part.annotation, names)}"


def check_arguments(described):
    """Warns of documented arguments that a function does not have."""
    for doc in described:
        for part in [doc, *filter(is_shown, getattr(doc, "own_members", ()))]:
            documented = entries(part.docstring, "Args")
            unknown = {name.lstrip("*") for names, _ in documented for name in names.split(", ")}
            if part.kind != "variable" and part.signature:
                unknown -= set(part.signature.parameters)
            if unknown:
                warnings.warn(f"{part.fullname} has no argument {sorted(unknown)}", stacklevel=1)


def linkify_with(described):
    """Returns pdoc's filter that links names, which then links those of other pages as well.

    Functions with a name of one word are left out: they have the names of arguments and methods.
    """
    linked = {doc.name: doc for doc in described if doc.kind == "class" or "_" in doc.name}

    @jinja2.pass_context
    def linkify(context, html, *arguments, **options):
        def link(match):
            doc = linked.get(match[1])
            if doc is None:
                return match[0]
            path = relative_link(context["module"].modulename, doc.modulename)
            return f'<code><a href="{path}#{doc.name}">{doc.name}</a></code>'

        if not isinstance(context["module"], Overview):  # which describes nothing itself
            html = linkify_local(context, html, *arguments, **options)
        return Markup(CODE.sub(link, html))

    return linkify


def build(folder: pathlib.Path) -> None:
    """Writes the pages to a folder; a warning on the way is an error."""
    modules = subpackages()  # what is imported on the way may warn of itself
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        faces = [Face(module) for module in modules]
        described = [doc for face in faces for doc in face.members.values()]
        spell_names(described)
        check_arguments(described)
        configure(described)
        pages = {page.modulename: page for page in [Overview(faces), *faces]}
        for name, page in pages.items():
            write(folder / f"{name.replace('.', '/')}.html", pdoc.render.html_module(page, pages))
        write(folder / "index.html", pdoc.render.html_index(pages))
        write(folder / "search.js", pdoc.render.search_index(pages))


def configure(described):
    """Tells pdoc how to render docstrings and names."""
    footer = f"{ROOT} {keras_bit.__version__}"
    pdoc.render.configure(
        docformat="google",  # for what a search shows; pages have `to_markdown`
        show_source=False,
        footer_text=footer,
        template_directory=TEMPLATE,
    )
    pdoc.render.env.filters |= {
        "first_paragraph": first_paragraph,
        "linkify": linkify_with(described),
        "to_markdown": to_markdown,
    }
    pdoc.render.env.globals |= {
        "is_shown": is_shown,
        "path_to": lambda page, name: relative_link(page.modulename, name) or "#",
    }


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
