"""The headline table: what is chosen, measured and written. `pytest benchmarks` measures truly."""

import re

import pytest
from PIL import Image

from benchmarks.harness import machine, pictures
from benchmarks.harness.tables import Row, comparison_table, median_and_range
from benchmarks.headline import __main__ as command
from benchmarks.headline import measure
from benchmarks.headline.measure import Work, choose_works, measure_works
from benchmarks.headline.page import write_page
from benchmarks.implementations import registry

MACHINE = {
    "processor": "A Processor (family 25, model 1, AVX2)",
    "cores": 2,
    "kind": "cpu",
    "device": "CPU",
    "memory": 24_000_000_000,
    "backend": "tensorflow",
    "python": "3.11.7",
    "versions": {"keras": "3.15.1", "timm": None},
}
ABOUT = {
    "title": "R50x1",
    "command": "python -m benchmarks.headline",
    "date": "2026-11-27",
    "rounds": 3,
    "small": False,
}
ROWS = [
    Row("training, batch 8", "images/s", {"keras_bit": [10, 12, 11], "timm": [10, 9, 8]}, True),
    Row("first step", "s", {"keras_bit": [12.0], "timm": [3.0], "plain": [20.0]}, False),
    Row("memory", "MB", {"keras_bit": [2345.6]}, False),
]


def test_the_page(tmp_path):
    path = tmp_path / "folder" / "page.md"
    table = write_page(path, ROWS, {"hub": "not installed"}, MACHINE, ABOUT)
    text = path.read_text()
    # By hand: 11 / 9, and 3 / 12 where less is better.
    assert (
        "| training, batch 8, images/s | 11.0 (10.0 to 12.0) | 9.00 (8.00 to 10.0): timm | 1.22x |"
        in table
    )
    assert "| first step, s | 12.0 | 3.00: timm | 0.25x |" in table
    assert "| memory, MB | 2,346 |  |  |" in table
    assert "\n".join(table) in text
    for fact in ("A Processor (family 25, model 1, AVX2), 2 cores", "no GPU, 24.0 GB for Keras"):
        assert fact in text
    assert "keras 3.15.1, Python 3.11.7" in text and "timm None" not in text
    assert "`python -m benchmarks.headline`" in text and "2026-11-27" in text
    assert "- hub: not installed" in text and "small form" not in text
    (name,) = re.findall(r"!\[.*\]\((.*)\)", text)
    with Image.open(path.parent / name) as drawn:
        assert drawn.format == "PNG" and min(drawn.size) > 200
    assert sorted(file.name for file in path.parent.iterdir()) == ["page.md", "page.png"]


def test_an_earlier_page_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "page.md"
    path.write_text("earlier")

    def fail(*arguments):
        raise OSError("no space")

    monkeypatch.setattr(pictures, "save_picture", fail)
    with pytest.raises(OSError):
        write_page(path, ROWS, {}, MACHINE, ABOUT)
    assert path.read_text() == "earlier" and list(tmp_path.iterdir()) == [path]


def test_comparison_table():
    values = {"keras_bit": [4.0, 2.0, 3.0], "peer": [1.0], "other peer": [2.0]}
    title, _, _, _, *rows = comparison_table("Title", "s", values, more_is_better=False)
    assert title == "Title"
    assert rows == [
        "| peer | 1.00 | 1.00 to 1.00 | 1.00x |",
        "| other peer | 2.00 | 2.00 to 2.00 | 2.00x |",
        "| keras_bit | 3.00 | 2.00 to 4.00 | 3.00x |",
    ]
    assert median_and_range([3, 1, 2000], ",.0f") == "3 (1 to 2,000)"
    assert median_and_range([3, 1, 2000]) == "3.00 (1.00 to 2,000)"
    assert median_and_range([12.34]) == "12.3"


@pytest.mark.parametrize(
    "backend, names",
    [
        ("tensorflow", ["keras_bit", "keras_bit, folded, jit_compile"]),
        ("jax", ["keras_bit, jit_compile", "keras_bit, folded, jit_compile"]),
        ("torch", ["keras_bit", "keras_bit, folded"]),
    ],
)
def test_what_runs_on_a_processor(backend, names, monkeypatch):
    everything = {name: None for peers in measure.CPU_PEERS.values() for name in peers}
    for work, known in registry.IMPLEMENTATIONS.items():
        monkeypatch.setitem(registry.IMPLEMENTATIONS, work, {**everything, **known})
    works = choose_works({**MACHINE, "backend": backend})
    assert [(work.name, work.batch_size) for work in works] == [
        ("training step", 8),
        ("forward", 8),
        ("forward", 1),
    ]
    chosen = [list(work.implementations) for work in works]
    assert [names[0], names[1], names[1]] == [own for own, *_ in chosen]
    plain = names[0].replace("keras_bit", "plain Keras 3")
    assert chosen[0] == [names[0], plain, *measure.CPU_PEERS["training step"]]
    assert chosen[1][2:] == chosen[2][2:] == list(measure.CPU_PEERS["forward"])
    small = choose_works({**MACHINE, "backend": backend}, small=True)
    assert [list(work.implementations) for work in small] == [chosen[0][:2]]


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_what_runs_on_a_gpu(backend, monkeypatch):
    modules = {
        "keras_bit": "jax_gpu",
        "keras_bit on TensorFlow": "tensorflow_gpu",
        "timm": "torch_gpu",
    }
    monkeypatch.setattr(
        registry, "GPU_IMPLEMENTATIONS", {"forward": modules, "training step": modules}
    )
    monkeypatch.setattr(
        "benchmarks.harness.gpu_run.GPU_IMPLEMENTATIONS", registry.GPU_IMPLEMENTATIONS
    )
    works = choose_works({**MACHINE, "kind": "gpu", "backend": backend})
    own = {"jax": "keras_bit", "tensorflow": "keras_bit on TensorFlow"}[backend]
    assert [work.batch_size for work in works] == [128, 128, 1]
    assert all(list(work.implementations) == [own, "timm"] for work in works)


def result(step):
    return {"step": step, "first": 10 * step, "peak": 9e6 * step, "peak beyond imports": 1e6 * step}


def fail():
    raise RuntimeError("measuring failed (1):\nTraceback\nNo compiler found")


def quiet(line):
    pass


def test_rows_and_peers_that_fail(monkeypatch):
    monkeypatch.setattr(registry, "not_installed", lambda: {})
    steps = iter([1.0, 2.0, 4.0])
    implementations = {"keras_bit": lambda: result(next(steps)), "a peer": lambda: result(0.5)}
    works = [
        Work("forward", 8, {**implementations, "keras_bit": lambda: result(2.0)}),
        Work("training step", 8, {**implementations, "another": fail}),
    ]
    (first, later), (rows, missing) = measure_works(works, 3, announce=quiet)
    assert [row.title for row in first] == ["inference, batch 8"]
    assert later == {"training, batch 8": "the command did not come to it"}
    assert missing == {"another, training, batch 8": "No compiler found"}
    found = {row.title: (row.unit, row.values, row.more_is_better) for row in rows}
    assert found == {
        "inference, batch 8": ("images/s", {"keras_bit": [4] * 3, "a peer": [16] * 3}, True),
        "training, batch 8": ("images/s", {"keras_bit": [8, 4, 2], "a peer": [16] * 3}, True),
        "first training step of a program": (
            "s",
            {"keras_bit": [10, 20, 40], "a peer": [5] * 3},
            False,
        ),
        "memory of training at the peak, beyond the imports": (
            "MB",
            {"keras_bit": [1, 2, 4], "a peer": [0.5] * 3},
            False,
        ),
    }


def test_a_work_in_which_the_own_network_fails(monkeypatch):
    monkeypatch.setattr(registry, "not_installed", lambda: {})
    peer = {"a peer": lambda: result(0.5)}
    works = [
        Work("training step", 8, {"keras_bit": fail, **peer}),
        Work("forward", 1, {"keras_bit": lambda: result(1.0), **peer}),
    ]
    (before, _), (rows, missing) = measure_works(works, 2, announce=quiet)
    assert before == [] and [row.title for row in rows] == ["inference, one image"]
    assert missing == {"keras_bit, training, batch 8": "No compiler found"}


def test_memory_of_a_gpu():
    assert measure._peak({"peak": 3e6}) == 3.0


@pytest.fixture
def works(monkeypatch):
    """The works of the command, to be filled."""
    works = []
    monkeypatch.setattr(command, "ask_for_machine", lambda: MACHINE)
    monkeypatch.setattr(measure, "choose_works", lambda machine, small: works)
    return works


def test_an_interruption_leaves_what_was_measured(works, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    works += [
        Work("forward", 8, {"keras_bit": lambda: result(2.0)}),
        Work("forward", 1, {"keras_bit": interrupt}),
    ]
    path = tmp_path / "page.md"
    with pytest.raises(KeyboardInterrupt):
        command.main(["--output", str(path)])
    text = path.read_text()
    assert "| inference, batch 8, images/s | 4.00 (4.00 to 4.00) |" in text
    assert "- inference, one image: the command did not come to it" in text


def test_a_command_that_measures_nothing_of_its_own(works, tmp_path):
    works += [Work("forward", 8, {"keras_bit": fail, "a peer": lambda: result(1.0)})]
    with pytest.raises(SystemExit) as stopped:
        command.main(["--output", str(tmp_path / "page.md")])
    assert "keras_bit, inference, batch 8: No compiler found" in stopped.value.code
    assert list(tmp_path.iterdir()) == []


def test_pytorch_on_a_gpu_is_not_measured(works, tmp_path, monkeypatch):
    monkeypatch.setattr(
        command, "ask_for_machine", lambda: {**MACHINE, "kind": "gpu", "backend": "torch"}
    )
    with pytest.raises(SystemExit, match="set KERAS_BACKEND"):
        command.main(["--output", str(tmp_path / "page.md")])


def test_processor(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    lines = [
        "cpu family\t: 25",
        "model\t\t: 1",
        "model name\t: AMD EPYC",
        "flags\t\t: fpu avx2 fma",
    ]
    cpuinfo.write_text("\n".join(["processor\t: 0", *lines, "", "processor\t: 1", *lines, ""]))
    assert machine.processor(cpuinfo) == "AMD EPYC (family 25, model 1, AVX2)"
    assert machine.processor(tmp_path / "none")


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "ask_for_machine", lambda: MACHINE)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(
        measure, "measure_network", lambda work, case, name, steps: result(case.batch_size / steps)
    )
    path = tmp_path / "page.md"
    command.main(["--small", "--rounds", "2", "--output", str(path)])
    text = path.read_text()
    assert "`KERAS_BACKEND=jax python -m benchmarks.headline --small --rounds 2`" in text
    assert "small form" in text and str(tmp_path) not in text
    two = "2.00 (2.00 to 2.00)"
    # The machine's backend is TensorFlow.
    assert f"| training, batch 2, images/s | {two} | {two}: plain Keras 3 | 1.00x |" in text
    assert f"Page: {path}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "output, message",
    [
        ("page.txt", "`--output` must be a file whose name ends in .md. Received: "),
        ("folder.md", "`--output` must be a file whose name ends in .md. Received: "),
        ("file/page.md", "`--output` must lie in a folder that can be written to. Received: "),
    ],
)
def test_outputs_that_cannot_be_written(output, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "ask_for_machine", lambda: pytest.fail("this takes a while"))
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        command.main(["--output", str(tmp_path / output)])
    assert f"{message}{tmp_path / output}" in capsys.readouterr().err


@pytest.mark.parametrize("rounds", ["0", "-1"])
def test_rounds_that_are_none(rounds, capsys):
    with pytest.raises(SystemExit):
        command.main(["--rounds", rounds])
    assert f"`--rounds` must be at least 1. Received: {rounds}" in capsys.readouterr().err
