import os

import pytest

from keras_bit.weights.fetch import folders
from keras_bit.weights.fetch.folders import check_owner, make_folder


@pytest.fixture
def shared(tmp_path):
    """A folder such as /tmp."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


@pytest.fixture
def belongs_to_another(monkeypatch):
    """A function that gives a file to another user, as far as the tested code can see."""
    lstat, paths = os.lstat, set()

    def lstat_of_others(path, **options):
        status = lstat(path, **options)
        return os.stat_result((*status[:4], 1234, *status[5:])) if str(path) in paths else status

    monkeypatch.setattr(os, "lstat", lstat_of_others)
    return lambda path: paths.add(str(path))


def mode(path):
    return path.stat().st_mode & 0o777


def test_folders_of_downloads_are_private_where_everybody_may_write(shared):
    make_folder(shared / "keras" / "keras_bit" / "example.org")
    assert mode(shared / "keras") == mode(shared / "keras" / "keras_bit" / "example.org") == 0o700
    make_folder(shared / "keras" / "keras_bit")
    check_owner(shared / "keras" / "keras_bit" / "file")


def test_folders_of_downloads_are_as_usual_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_is_shared", lambda folder: False)
    make_folder(tmp_path / "keras" / "keras_bit")
    (tmp_path / "usual").mkdir()
    assert mode(tmp_path / "keras" / "keras_bit") == mode(tmp_path / "usual")


def test_a_folder_of_somebody_else_is_refused(shared, tmp_path, belongs_to_another):
    (shared / "keras").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (shared / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "long way").symlink_to(shared / "keras")
    check_owner(shared / "keras" / "a" / "b")
    belongs_to_another(shared / "keras")
    belongs_to_another(shared / "link")
    for path in (shared / "keras", shared / "link", tmp_path / "long way"):
        for check in (check_owner, make_folder):
            with pytest.raises(PermissionError, match="nobody else may write.*KERAS_HOME") as error:
                check(path / "keras_bit")
            assert "belongs to the user with number" in str(error.value)
    belongs_to_another(tmp_path / "elsewhere")
    check_owner(tmp_path / "elsewhere" / "keras_bit")  # where not everybody may write
