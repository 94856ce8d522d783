"""The headline page: a table with the machine it was measured on, and its picture."""

import pathlib
import statistics

from benchmarks.harness.pictures import draw_rows
from benchmarks.harness.tables import (
    best_peer,
    comparison_table,
    is_own,
    markdown_table,
    median_and_range,
)
from keras_bit.core.files import atomic_write
from keras_bit.core.text import readable_size


def write_page(path, rows, missing, machine, options):
    """Writes the page and, beside it, the picture; returns the lines of the page's first table.

    Files at these places are replaced when the new ones are whole.

    Args:
        path: Of the page, a `.md` file; the picture takes its name with `.png`.
        rows: The `Row`s.
        missing: Dict from what was not measured to the reason.
        machine: What `find_machine` returned.
        options: Dict of `title`, `command`, `date`, `rounds` and `small`.
    """
    path = pathlib.Path(path)
    picture = path.with_suffix(".png")
    table = summary(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_rows(rows, options["title"], picture)
    with atomic_write(path) as temporary:
        lines = page_lines(rows, missing, machine, options, picture.name)
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def page_lines(rows, missing, machine, options, picture):
    facts = {
        "Question": "what does keras_bit gain on this machine?",
        "Command": f"`{options['command']}`",
        "Processor": _processor(machine),
        "Date": options["date"],
        "Software": _software(machine),
    }
    lines = [f"# {options['title']}", "", *(f"- **{name}:** {x}" for name, x in facts.items()), ""]
    if options["small"]:
        lines += ["**The small form: it shows that the code works, and nothing of its speed.**", ""]
    lines += [
        f"{_rounds(options['rounds'])} In the last column more than 1 is in favor of keras_bit.",
        "",
        *summary(rows),
        "",
        f"![{options['title']}, keras_bit beside others]({picture})",
    ]
    for row in rows:
        lines += ["", f"## {row.title[0].upper()}{row.title[1:]}", ""]
        lines += comparison_table("", row.unit, row.values, more_is_better=row.more_is_better)[2:]
    if missing:
        lines += ["", "## Not measured", ""]
        lines += [f"- {name}: {reason}" for name, reason in missing.items()]
    return lines


def _rounds(rounds):
    if rounds == 1:
        return "One process each."
    return (
        f"Medians of {rounds} processes each, interleaved, with the range from the smallest to the "
        "largest."
    )


def _processor(machine):
    memory = "" if machine["memory"] is None else f", {readable_size(machine['memory'])} for Keras"
    device = machine["device"] if machine["kind"] != "cpu" else "no GPU"
    return f"{machine['processor']}, {machine['cores']} cores; {device}{memory}"


def _software(machine):
    found = [f"{name} {version}" for name, version in machine["versions"].items() if version]
    versions = ", ".join([*found, f"Python {machine['python']}"])
    return f"Keras on {machine['backend']}; {versions}"


def summary(rows):
    """Lines of the table: this package's median beside that of the best peer."""
    cells = []
    for row in rows:
        medians = {name: statistics.median(values) for name, values in row.values.items()}
        own = next(name for name in medians if is_own(name))
        peer = best_peer(medians, row.more_is_better)
        best = f"{median_and_range(row.values[peer])}: {peer}" if peer else ""
        cells.append(
            [
                f"{row.title}, {row.unit}",
                median_and_range(row.values[own]),
                best,
                ratio(row, own, peer),
            ]
        )
    return markdown_table(["", "keras_bit", "the best of the others", "ratio"], cells)


def ratio(row, own, peer):
    """How many times better this package is, as text."""
    if peer is None:
        return ""
    own, peer = (statistics.median(row.values[name]) for name in (own, peer))
    return f"{own / peer if row.more_is_better else peer / own:.2f}x"
