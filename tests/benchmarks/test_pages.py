"""The pages of the benchmarks: that they name what exists, and that what exists has a page."""

import re

import pytest

from tests.processes import ROOT

FOLDER = ROOT / "benchmarks"
RESULTS = FOLDER / "results"
README = FOLDER / "README.md"
PAGES = sorted(RESULTS.glob("*.md"))
MACHINES = RESULTS / "machines.md"
MEASURED = [page for page in PAGES if page != MACHINES]
TEXT = "\n".join(page.read_text() for page in (README, *PAGES))
LINK = re.compile(r"\]\(((?!https?:)[^)#]+)\)")
COMMANDS = ("headline", "paper")


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    links = LINK.findall(page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_and_picture_is_linked():
    linked = {(README.parent / link).resolve() for link in LINK.findall(README.read_text())}
    linked |= {
        (RESULTS / link).resolve() for page in PAGES for link in LINK.findall(page.read_text())
    }
    assert set(PAGES) <= linked
    assert set((RESULTS / "pictures").iterdir()) <= linked


@pytest.mark.parametrize("page", MEASURED, ids=lambda page: page.stem)
def test_a_page_says_what_was_asked_and_where(page):
    title, _, *facts = page.read_text().splitlines()[:6]
    assert title.startswith("# ")
    named = [re.match(r"- \*\*(\w+):\*\* \S", fact) for fact in facts]
    assert [name and name[1] for name in named] == ["Question", "Command", "Processor", "Date"]
    if "(machines.md)" in facts[2]:
        known = set(re.findall(r"^\| ([A-Z]) \|", MACHINES.read_text(), re.MULTILINE))
        machines = set(re.findall(r"\b([A-Z])\b", facts[2]))
        assert machines <= known and (machines or "not run" in facts[2])


@pytest.mark.parametrize("page", MEASURED, ids=lambda page: page.stem)
def test_what_did_not_pay_comes_last(page):
    headings = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
    assert "What did not pay" not in headings[:-1]


def test_every_suite_and_study_has_a_page():
    suites = [f"benchmarks/suites/{path.name}" for path in (FOLDER / "suites").glob("test_*.py")]
    studies = [f"benchmarks.studies.{path.stem}" for path in (FOLDER / "studies").glob("[!_]*.py")]
    commands = [f"benchmarks.{name}" for name in COMMANDS]
    assert len(suites) > 5 and len(studies) > 5
    assert [name for name in (*suites, *studies, *commands) if name not in TEXT] == []


def test_commands_name_modules_and_files_that_exist():
    """In the pages, and wherever the repository names a module or a file of the benchmarks."""
    sources = [
        path for folder in ("benchmarks", "keras_bit") for path in (ROOT / folder).rglob("*.py")
    ]
    sources += [ROOT / "README.md", ROOT / "keras_bit/weights/embedded/README.md"]
    missing = []
    for text in (TEXT, *(source.read_text() for source in sources)):
        names = re.findall(r"\bbenchmarks(?:\.[a-z_]+)+\b", text)
        missing += [name for name in names if not exists(name.split("."))]
        files = re.findall(r"(?<![\w./])benchmarks/[\w/]+\.\w+", text)
        missing += [file for file in files if not (ROOT / file).exists()]
    assert missing == []


def exists(parts):
    """Whether there is such a module or package, or a module with such a function."""
    path = ROOT.joinpath(*parts)
    modules = (path, path.parent) if len(parts) > 2 else (path,)
    return path.is_dir() or any(module.with_suffix(".py").exists() for module in modules)


def test_the_first_page_is_one_page():
    lines = README.read_text().splitlines()
    assert len(lines) < 80 and lines[2].startswith("What a user gains")
