"""The strict reader of YAML data files: types by name, complaints by line, no tricks."""

from __future__ import annotations

from datetime import date, time
from decimal import Decimal
from pathlib import Path

import pytest

from velox_core.domain.errors import CalendarError, ConfigError
from velox_core.strict_yaml import FILE_BYTES_MAX, Value, read_document


def read(folder: Path, text: str | bytes) -> Value:
    file = folder / "data.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_document(file, ConfigError)


def test_value_of_each_type_is_read_exactly(tmp_path: Path) -> None:
    text = "word: hello\ncount: -3\nrate: 0.1\nyes_no: true\nday: 2024-02-29\nearly: 09:15\nlate: 15:30:05\nmany: [1, 2]\n"
    section = read(tmp_path, text).section(
        required=("word", "count", "rate", "yes_no", "day", "early", "late", "many"), optional=("absent",)
    )
    assert section["word"].text() == "hello"
    assert section["count"].whole_number() == -3
    assert section["rate"].number() == Decimal("0.1")
    assert section["yes_no"].truth() is True
    assert section["day"].day() == date(2024, 2, 29)
    assert section["early"].clock() == time(9, 15)
    assert section["late"].clock() == time(15, 30, 5)
    assert [item.whole_number() for item in section["many"].items()] == [1, 2]
    assert "absent" not in section
    assert section["many"].items()[1].where == "many[1]"
    assert section["late"].line == 7


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("text", "5"),
        ("text", "''"),
        ("text", "~"),
        ("text", "2024-01-01"),
        ("whole_number", "1.5"),
        ("whole_number", "'1'"),
        ("whole_number", "0x10"),
        ("whole_number", "1_000"),
        ("whole_number", "15:30"),
        ("whole_number", "1000000000000000"),
        ("number", "1e3"),
        ("number", ".inf"),
        ("number", "-0.5"),
        ("number", "15:30"),
        ("truth", "yes"),
        ("truth", "1"),
        ("day", "2023-02-29"),
        ("day", "'2024-01-01'"),
        ("day", "2024-01-01 10:00:00"),
        ("day", "2024-1-1"),
        ("clock", "24:00"),
        ("clock", "9:15"),
        ("clock", "930"),
        ("items", "{a: 1}"),
        ("section", "[1]"),
        ("pairs", "word"),
        ("dated_pairs", "{a: 1}"),
    ],
)
def test_value_of_another_type_is_refused_with_its_line(tmp_path: Path, kind: str, text: str) -> None:
    value = read(tmp_path, f"# a comment\nkey: {text}\n").section(required=("key",))["key"]
    with pytest.raises(ConfigError, match=r"data\.yaml, line 2: key: .* is not .*; write "):
        getattr(value, kind)()


def test_value_key_that_is_not_a_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 1: : a key must be a plain word"):
        read(tmp_path, "[1, 2]: x\n").pairs()


def test_value_choice_names_what_is_allowed(tmp_path: Path) -> None:
    value = read(tmp_path, "key: maybe\n").section(required=("key",))["key"]
    with pytest.raises(ConfigError, match="'maybe' is not known; write one of yes, no"):
        value.choice("yes", "no")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        ("key: [1, 2", "this is not YAML"),
        ("a: 1\n b: 2\n", "this is not YAML"),
        ("a: \x00\n", "is not YAML"),
        ("a: &x [1]\nb: *x\n", "anchors, aliases"),
        ("a: &x [*x]\n", "anchors, aliases"),
        ("a: " + "[" * 50 + "]" * 50, "deep nesting"),
        ("a" * (FILE_BYTES_MAX + 1), "not the right file"),
    ],
)
def test_read_document_unreadable_file_is_refused_in_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert "data.yaml" in str(caught.value)
    assert len(caught.value.problems) == 1


def test_read_document_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalendarError, match="cannot be read"):
        read_document(tmp_path, CalendarError)
