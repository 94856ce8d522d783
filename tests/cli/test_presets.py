from keras_bit import presets
from keras_bit.cli.main import main


def test_presets_are_listed(capsys):
    assert main(["presets"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.split()]
    expected = [name for name in presets() if not name.startswith("vtab/")]
    assert [name for name in listed if name in presets()] == expected
    assert main(["presets", "R152X2"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.split()]
    assert [name for name in listed if name in presets()] == [n for n in presets() if "r152x2" in n]
    assert main(["presets", "r77"]) == 2
    assert "`TEXT` must be" in capsys.readouterr().err


def test_presets_in_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["presets", "distill"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[0].startswith("distill/r50x1_224: 23.5M parameters") and "…" not in "".join(lines)
