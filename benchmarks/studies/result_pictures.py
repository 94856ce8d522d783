"""Draws tables of the pages as pictures: `python -m benchmarks.studies.result_pictures`.

The figures are read from the pages, which alone hold them.
"""

import re
from pathlib import Path

from benchmarks.harness.pictures import FOLDER, draw_rows, import_pyplot, save_picture
from benchmarks.harness.tables import Row

README = FOLDER.parent.parent / "README.md"
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def read_tables(page):
    """Yields (the heading and the line above a table, its headings, its rows) of a page."""
    heading = above = ""
    table = []
    for line in [*Path(page).read_text().splitlines(), ""]:
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip("|").split("|")])
        elif table:
            yield (heading, above), table[0], table[2:]
            table = []
        if line.startswith("#"):
            heading = line.strip("# ")
        if line and not line.startswith("|"):
            above = line


def numbers(*cells):
    """The numbers in cells such as `"35.6"` and `"33.8 to 36.1"`."""
    return [float(found.replace(",", "")) for cell in cells for found in NUMBER.findall(cell)]


def network():
    """A panel for each machine and work of the network's page."""
    for (machine, work), headings, rows in read_tables(FOLDER.parent / "network.md"):
        if headings[:2] == ["implementation", "images/s, median"]:
            values = {row[0]: numbers(*row[1:3]) for row in rows}
            yield Row(
                f"{machine}: {work[0].lower()}{work[1:].rstrip(':')}", "images/s", values, True
            )


def input_pipeline():
    """A panel for each size of the first epoch of a new process."""
    page = FOLDER.parent / "input_pipeline.md"
    _, headings, rows = next(read_tables(page))
    for column in (1, 3):
        values = {row[0]: numbers(row[column]) for row in rows}
        size = headings[column].partition(":")[0]
        yield Row(f"first epoch of a program, {size}", "images/s", values, True)


def draw_gains(path):
    """The ratios of the headline table of README.md, as bars from 1."""
    _, _, rows = next(read_tables(README))
    ratios = {_plain(row[0]): numbers(row[-1])[0] for row in rows}
    names = list(ratios)[::-1]
    figure, axes = import_pyplot().subplots(
        figsize=(9, 0.36 * len(names) + 0.8), layout="constrained"
    )
    colors = ["tab:orange" if ratios[name] >= 1 else "tab:gray" for name in names]
    axes.barh(names, [ratios[name] - 1 for name in names], left=1, color=colors)
    for place, name in enumerate(names):
        axes.annotate(
            f" {ratios[name]:.2f}x ", (max(1, ratios[name]), place), va="center", fontsize=8
        )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "as good", "2x better", "4x"])
    axes.minorticks_off()
    axes.set_xlim(0.2, 8)
    axes.tick_params(labelsize=8)
    axes.set_title("keras_bit beside the best of the others", fontsize=10)
    save_picture(figure, path)


def _plain(text):
    """Text without links and code marks."""
    return re.sub(r"\[(.*?)\]\(.*?\)", r"\1", text).replace("`", "")


def main():
    draw_rows(list(network()), "R50x1 at 224 px", FOLDER / "network.png", columns=3)
    pipeline = list(input_pipeline())
    draw_rows(pipeline, "1,280 photographs of 500 px", FOLDER / "input-pipeline.png")
    draw_gains(FOLDER / "gains.png")


if __name__ == "__main__":
    main()
