import pathlib

from keras_bit import presets
from keras_bit.cli.main import main
from keras_bit.weights.presets import EMBEDDED


def test_download_fills_the_cache(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KERAS_BIT_MIRROR", str(tmp_path))
    (tmp_path / "BiT-M-R50x1.npz").write_bytes(b"weights")
    assert main(["download", "m-r50x1", "BiT-M-R50x1"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert main(["download", "m-r50x1", "-q"]) == 0
    assert capsys.readouterr() == (f"{first}\n", "")
    assert first == second and pathlib.Path(first).read_bytes() == b"weights"
    assert tmp_path / "home" in pathlib.Path(first).parents
    assert main(["download", "m-r50x1", "m-r50x7"]) == 2
    assert "Did you mean 'm-r50x" in capsys.readouterr().err
    assert main(["download", EMBEDDED]) == 0
    assert capsys.readouterr().out == f"{presets()[EMBEDDED].path}\n"
    assert main(["download", "s-r50x1"]) == 2
    assert "BiT-S-R50x1.npz" in capsys.readouterr().err
