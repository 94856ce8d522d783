import logging

from keras_bit.core.text import announce, list_some, readable_size, table


def test_a_table_has_columns():
    text = table("Title", [("name", 1, "why"), ("longer name", "12345", "")])
    assert text == "Title\n  name         1      why\n  longer name  12345"


def test_sizes_are_powers_of_a_thousand():
    assert [readable_size(size) for size in (0, 999, 1000, 19_660_800_000)] == [
        "0 bytes", "999 bytes", "1.0 kB", "19.7 GB"
    ]  # fmt: skip


def test_some_of_many():
    assert list_some([], 2) == ""
    assert list_some(["a", "b"], 2) == "a, b"
    assert list_some(["a", "b", "c"], 2, "; ") == "a; b and 1 more"


def test_announcements_are_logged_and_printed_where_wanted(capsys, caplog):
    with caplog.at_level(logging.INFO, "keras_bit"):
        announce("one")
        announce("two", verbose=0)
    assert capsys.readouterr().out == "one\n"
    assert [record.getMessage() for record in caplog.records] == ["one", "two"]
