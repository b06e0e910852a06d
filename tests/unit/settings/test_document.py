from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from velox_core.domain.errors import ConfigError
from velox_core.settings import document, load_settings
from velox_core.settings.document import BYTES_MAX, parse, scalar


@pytest.fixture(params=["SafeLoader", "CSafeLoader"], autouse=True)
def parser(request, monkeypatch):
    """Both parsers of PyYAML, whichever a machine has, must agree."""
    if not hasattr(yaml, request.param):
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(document, "_PARSER", getattr(yaml, request.param))


LAUGHS = "\n".join(
    [
        "a: &a [x, x, x, x, x, x, x, x, x]",
        *(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    ]
)

JUNK = [
    (b"", "is empty"),
    (b"   \n\n", "is empty"),
    (b"# only a comment\n", "is empty"),
    (b"---\n", "the file holds null"),
    (b"- a\n- b\n", "the file holds a list of 2 values"),
    (b"just text", "the file holds 'just text'"),
    (b"5", "the file holds 5"),
    (b"a: 1\n---\nb: 2\n", ":2: a second document starts here"),
    (b"a: *b\n", "alias *b has no anchor"),
    (b"a: &a [*a]\n", "alias *a stands inside its own anchor"),
    (b"a: &a {b: *a}\n", "alias *a stands inside its own anchor"),
    (b"a: &x 1\nb: &x 2\n", "the anchor &x is there twice"),
    (LAUGHS.encode(), "holds more than 10,000 values, aliases counted"),
    (b"\tsystem: 1\n", "not valid YAML"),
    (b"system:\n\trisk: 1\n", "not valid YAML"),
    (b"system: {risk: 1\n", "not valid YAML"),
    (b"system: 'open\n", "not valid YAML"),
    (b"a: b: c\n", "not valid YAML"),
    (b"%YAML 9.9\n---\na: 1\n", "not valid YAML"),
    (b"\xff\xfe\x00", "is not UTF-8 text: byte 0xff at offset 0"),
    (b"system: caf\xe9\n", "is not UTF-8 text: byte 0xe9"),
    ("system: 1".encode("utf-16"), "is not UTF-8 text"),
    (b"system: \x00\x01\n", "not valid YAML"),
    (b"\x7fELF\x01\x01", "not valid YAML"),
    (b"[" * 900_000, "nested more than 24 levels deep"),
    (b"{" * 900_000, "nested more than 24 levels deep"),
    (b"- " * 400_000, "nested more than 24 levels deep"),
    (b"a: 1\n" * 190_000, "holds more than 10,000 values"),
    (b"x" * 990_000, "the file holds 'xxx"),
    (b"a" * 10_000_000, "has 10,000,000 bytes: allowed are at most 1,000,000"),
]


@pytest.mark.parametrize(
    ("content", "expected"), JUNK, ids=[expected[:40] + str(number) for number, (_, expected) in enumerate(JUNK)]
)
def test_junk_is_refused_in_one_line(project, content, expected):
    problems = project.problems(content)
    assert len(problems) == 1
    assert problems[0].startswith("system.yaml:")
    assert expected in problems[0]


def test_tab_is_named_as_a_tab(project):
    (problem,) = project.problems(b"system:\n\trisk: 1\n")
    assert problem.startswith("system.yaml:2: ")
    assert problem.endswith("(the line holds a tab: indent with spaces)")


def test_byte_order_mark_is_taken(project, guide):
    assert project.load(b"\xef\xbb\xbf" + guide.encode()).account == "primary"


def test_file_at_the_size_bound_is_read_and_above_is_not(project, guide):
    filler = "#" * (BYTES_MAX - len(guide.encode()) - 1) + "\n"
    assert project.load(guide + filler).account == "primary"
    assert "bytes: allowed are at most 1,000,000" in project.problems(guide + "#" + filler)[0]


def test_duplicate_key_is_refused_with_both_lines(project, guide):
    problems = project.problems(guide + "  live: false\n  live: true\n")
    assert problems == ["system.yaml:19: system.live is there twice, first in line 18: keep one"]


def test_duplicate_section_is_refused(project, guide):
    problems = project.problems(guide + "  risk: {max_daily_loss: 90000}\n")
    assert problems == ["system.yaml:18: system.risk is there twice, first in line 6: keep one"]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("  <<: {live: true}\n", "system.<<: merge keys are not allowed"),
        (
            "  account: !!python/object/apply:os.system ['true']\n",
            "the tag tag:yaml.org,2002:python/object/apply:os.system is not allowed",
        ),
        ("  account: !!str 5\n", "the tag tag:yaml.org,2002:str is not allowed"),
        ("  feed: !secret {}\n", "the tag !secret is not allowed"),
        ("  ? [a]\n  : 5\n", "a list is used as a key below system"),
        ("  ? {a: b}\n  : 5\n", "a mapping is used as a key below system"),
        ("  5: 5\n", "system.5 is not a known key"),
        ("  '': 5\n", "system.'' is not a known key"),
        ("  'a\\n b': 5\n", "is not a known key (value 5)"),
    ],
)
def test_structure_that_a_configuration_does_not_need_is_refused(project, guide, extra, expected):
    assert any(expected in problem for problem in project.problems(guide + extra))


def test_anchor_used_rightly_is_taken(project, guide):
    text = guide.replace("capital: 100000  # Your actual", "capital: &capital 100000  # Your actual").replace(
        "initial_capital: 100000", "initial_capital: *capital"
    )
    assert project.load(text).risk.limits.initial_capital_paise == 10_000_000


def test_anchor_as_a_key_and_over_deep_alias_are_bounded():
    assert parse("&k system: 1\nb: *k\n", "x").data == {"system": 1, "b": "system"}
    deep = "\n".join(["a0: &a0 [[[[[[[[x]]]]]]]]", *(f"a{i + 1}: &a{i + 1} [[[[*a{i}]]]]" for i in range(8))])
    with pytest.raises(ConfigError, match="nested more than 24 levels deep, aliases counted"):
        parse(deep, "x")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("NULL", None),
        ("nULL", "nULL"),
        ("True", True),
        ("off", False),
        ("tRue", "tRue"),
        ("0", 0),
        ("-7", -7),
        ("+7", 7),
        ("100_000", 100_000),
        ("2.50", 2.5),
        ("1.5e+3", 1500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("007", "007"),
        ("00.5", "00.5"),
        ("0x1F", "0x1F"),
        ("0b1", "0b1"),
        ("1e3", "1e3"),
        ("14:45", "14:45"),
        ("1:30:00", "1:30:00"),
        ("2024-01-15", "2024-01-15"),
        ("9" * 18, int("9" * 18)),
        ("9" * 19, "9" * 19),
        ("9" * 5000, "9" * 5000),
        ("-.INF", float("-inf")),
        ("٣", "٣"),
    ],
)
def test_scalar_is_read_without_yaml_surprises(text, value):
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_current_folder_that_is_gone_is_refused_in_one_line(tmp_path: Path, monkeypatch, guide):
    folder = tmp_path / "gone"
    folder.mkdir()
    file = tmp_path / "a.yaml"
    file.write_text(guide)
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(Path("a.yaml"), {})
    assert load_settings(file, {}).root == tmp_path


def test_many_structural_problems_are_bounded(project, guide):
    repeats = project.problems(guide + "  live: false\n" * 300)
    tags = project.problems(guide + "".join(f"  key_{number}: !x {number}\n" for number in range(300)))
    for problems in (repeats, tags):
        assert len(problems) == 101
        assert problems[-1] == "and more problems: correct these first"


def test_half_a_character_is_refused():
    found = parse('a: "\\ud800"', "x") if document._PARSER is yaml.SafeLoader else None
    assert found is None or "lone surrogate" in found.problems[0].text


def test_missing_file_folder_and_odd_names_are_refused_in_one_line(tmp_path: Path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, expected in [
        (tmp_path / "none.yaml", "No such file or directory; name an existing, readable file"),
        (tmp_path, "is not a file"),
        (fifo, "is not a file"),
        (Path("/dev/zero"), "is not a file"),
        (loop, "cannot be read"),
        (tmp_path / ("x" * 300), "File name too long"),
        (Path("/proc/self/mem"), "cannot be read: Input/output error"),
        (tmp_path / "a\0b", "is not a file name"),
        (tmp_path / "a\nb", "No such file"),
        (tmp_path / "none.yaml" / "below", "No such file"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_settings(path, {})
        (problem,) = caught.value.problems
        assert problem.isprintable()
        assert expected in problem


def test_file_without_permission_is_refused_in_one_line(project, guide):
    project.load(guide)
    project.file.chmod(0)
    as_root = os.geteuid() == 0
    if as_root:
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match="Permission denied; name an existing, readable file"):
            load_settings(project.file, {})
    finally:
        if as_root:
            os.seteuid(0)
