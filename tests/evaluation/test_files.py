import glob
import os
import pathlib

import pytest
from PIL import Image

from keras_bit.data import images as image_files
from keras_bit.evaluation import files
from keras_bit.evaluation.files import find_images

pytestmark = pytest.mark.filterwarnings("ignore:Skipped")

TREE = ("b.png", "a/2.jpg", "a/10.png", "a-c.gif", "a/deep/er/x.png", "c/y.bmp", "c/[1].png")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder `tree` of images, beside files that are none."""
    for name in TREE:
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    (tmp_path / "tree" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "tree" / "c" / "empty.png").touch()
    monkeypatch.chdir(tmp_path)
    return pathlib.Path("tree")


def posix(paths):
    return [path.replace(os.sep, "/") for path in paths]


def test_a_folder_is_all_images_below_it_in_the_order_of_their_paths(tree):
    expected = sorted(pathlib.PurePosixPath("tree", name).parts for name in TREE)
    found = find_images([tree])
    assert [pathlib.PurePath(path).parts for path in found] == expected
    assert find_images(str(tree)) == find_images(tree) == found


def test_what_is_no_image_is_counted_once(tree):
    with pytest.warns(UserWarning) as caught:
        find_images([tree, tree / "b.png", tree / "c"])
    (warning,) = caught
    assert str(warning.message).startswith("Skipped: 3, which are no images (JPEG, PNG, BMP, GIF, ")
    assert "notes.txt" in str(warning.message) and warning.filename == __file__


def test_hidden_and_system_files_are_ignored(tree, recwarn):
    folder = tree / "a" / "deep"
    expected = find_images([folder])
    for name in (".hidden.png", ".folder/x.png", "__MACOSX/x.png", "Thumbs.db"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / name, "PNG")
    assert find_images([folder]) == expected and not recwarn
    assert len(find_images([folder / ".folder"])) == 1


@pytest.mark.parametrize(
    "pattern",
    [
        "tree/*.png", "tree/?.png", "tree/a/[0-9]*", "*/*/*.jpg", "tree/**/*.png", "**/*.gif",
        "tree/**/er/*", "tree/*/**/*.png", "**/**/x.png", "tree/[!a]/*.bmp", "t*/**/[!x].*",
    ],
)  # fmt: skip
def test_a_pattern_matches_what_glob_finds(tree, pattern):
    expected = [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
    images = [path for path in expected if not path.endswith(("notes.txt", "empty.png"))]
    found = find_images([pattern])
    assert sorted(found) == sorted(set(images)) and images
    assert found == sorted(found, key=lambda path: pathlib.PurePath(path).parts)


def test_a_folder_that_a_pattern_matches_is_what_lies_below_it(tree):
    expected = find_images([tree / "a"])
    assert find_images(["tree/[a]"]) == find_images(["**/a"]) == expected
    assert find_images(["tree/**/deep"]) == find_images([tree / "a" / "deep"])
    assert find_images(["tree/**"]) == find_images(["**"]) == find_images([tree])


def test_names_with_special_signs_are_those_of_files_and_folders_that_exist(tree):
    assert find_images(["tree/c/[1].png"]) == ["tree/c/[1].png"]
    (tree / "c" / "[2].txt").write_text("no image, but named")
    assert find_images(["tree/c/[2].txt"]) == ["tree/c/[2].txt"]
    (tree / "c" / "[1].png").unlink()
    (tree / "c" / "1.png").write_bytes((tree / "b.png").read_bytes())
    assert posix(find_images(["tree/c/[1].png"])) == ["tree/c/1.png"]
    (tree / "c").rename(tree / "c [new]")
    assert posix(find_images(["tree/c [new]/*.bmp"])) == ["tree/c [new]/y.bmp"]
    assert posix(find_images(["tree/c [new]/**/y.*"])) == ["tree/c [new]/y.bmp"]


def test_links_are_followed_but_not_in_circles(tree):
    (tree / "a" / "deep" / "back").symlink_to("../..", target_is_directory=True)
    (tree / "a" / "deep" / "up").symlink_to("..", target_is_directory=True)
    (tree / "elsewhere").symlink_to("c", target_is_directory=True)
    found = posix(find_images([tree / "a"]))
    # Each link leads on once: to the tree, and from there to nothing that is being looked at.
    assert len(found) == len(set(found)) < 30
    assert {"tree/a/2.jpg", "tree/a/deep/back/b.png"} <= set(found)
    assert "tree/elsewhere/y.bmp" in posix(find_images(["tree/**/*.bmp"]))
    assert len(find_images(["tree/**/b.png"])) < 10


def test_pipes_in_a_folder_are_no_images_and_are_not_opened(tree):
    os.mkfifo(tree / "pipe.png")
    assert "tree/pipe.png" not in posix(find_images([tree]))


def test_what_cannot_be_read_is_left_to_be_reported(tree, monkeypatch):
    (tree / "dangling.png").symlink_to("nowhere")
    real = image_files.read_image_size

    def refusing(path):
        if str(path).endswith("b.png"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(files, "read_image_size", refusing)
    assert {"tree/b.png", "tree/dangling.png"} <= set(posix(find_images([tree])))


def test_the_name_of_a_file_is_returned_as_it_is(tree, recwarn):
    named = ["tree/none.png", "tree/a/notes.txt", "./tree//b.png", tree / "c" / "empty.png"]
    assert find_images(named) == [os.fspath(name) for name in named] and not recwarn
    assert find_images([]) == []


@pytest.mark.parametrize("nothing", ["tree/none", "tree/*.webp", "no/**/*.png", "tree/a/n*"])
def test_a_folder_or_pattern_without_images_is_an_error(tree, nothing):
    if not glob.has_magic(nothing):
        pathlib.Path(nothing).mkdir()
    with pytest.raises(
        ValueError, match="`files` must be images.*no image among [01] file"
    ) as error:
        find_images([tree, nothing])
    assert f"Received: {nothing}, " in str(error.value)
    with pytest.raises(ValueError, match="`IMAGE` must be"):
        find_images(nothing, "IMAGE")
