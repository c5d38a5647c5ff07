"""Reading YAML: scalars, lines, merge keys, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distillbench.errors import MatrixError, Mistake
from distillbench.matrix import read as read_module
from distillbench.matrix.read import Document, read_document

Write = Callable[[str], Path]


def read(path: Path) -> Document:
    mistakes: list[Mistake] = []
    document = read_document(path, mistakes)
    assert not mistakes
    return document


def mistakes_of(path: Path) -> list[str]:
    mistakes: list[Mistake] = []
    try:
        read_document(path, mistakes)
    except MatrixError as error:
        mistakes.extend(error.mistakes)
    return [str(mistake) for mistake in mistakes]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-3", 0.005),
        ("1e-4", 0.0001),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("-3", -3),
        ("+3", 3),
        ("017", 17),
        ("0o17", 15),
        ("0xff", 255),
        ("off", "off"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
        ("-.inf", float("-inf")),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
        ("=", "="),
        ("'<<'", "<<"),
        ("nul", "nul"),
        ('"\\u00e9"', "é"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(write: Write, text: str, value: object) -> None:
    found = read(write(f"key: {text}\n")).data["key"]
    assert found == value
    assert type(found) is type(value)


def test_every_key_and_item_has_its_line(write: Write) -> None:
    document = read(
        write(
            "# a comment\n"
            "trainers:\n"
            "  lora:\n"
            "    use: sft\n"
            "    lr: 1e-4\n"
            "matrix:\n"
            "  teacher:\n"
            "  - concise\n"
            "  -\n"
            "    verbose\n"
            "  include: [{teacher: x,\n"
            "             seed: 3}]\n"
        )
    )
    assert str(document.place("trainers", "lora", "lr")) == "matrix.yaml:5: trainers.lora.lr"
    assert str(document.place("trainers", "lora", "rank")) == "matrix.yaml:3: trainers.lora.rank"
    assert str(document.place("students", "tiny")) == "matrix.yaml:1: students.tiny"
    assert str(document.place("matrix", "teacher", 0)) == "matrix.yaml:8: matrix.teacher[0]"
    assert str(document.place("matrix", "include", 0, "seed")) == "matrix.yaml:12: matrix.include[0].seed"
    assert str(document.place()) == "matrix.yaml:1"
    assert document.line("matrix", "teacher", 1) == 10


def test_merge_keys_and_anchors(write: Write) -> None:
    document = read(
        write(
            "base: &base {lr: 1, rank: 8}\n"
            "more: &more {rank: 16, steps: 5}\n"
            "one:\n"
            "  <<: *base\n"
            "  lr: 2\n"
            "two: {<<: [*base, *more], own: 1}\n"
            "list: &list [1, 2]\n"
            "again: *list\n"
        )
    )
    assert document.data["one"] == {"lr": 2, "rank": 8}
    assert document.data["two"] == {"lr": 1, "rank": 8, "steps": 5, "own": 1}
    assert document.data["again"] == [1, 2]
    assert str(document.place("one", "lr")) == "matrix.yaml:5: one.lr"
    assert str(document.place("one", "rank")) == "matrix.yaml:1: one.rank"


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: x\n")
    assert read(path).data == {"name": "x"}


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("a: 1\nb: 2\na: 3\n", ["matrix.yaml:3: a", "each key once", "lines 1 and 3"]),
        ("x: {a: 1, a: 2}\ny: {a: 1}\n", ["matrix.yaml:1: x.a", "lines 1 and 1"]),
        ("a:\n  1: x\n", ["matrix.yaml:2: a.1", "a key that is a string", "1 (int)", '"1"']),
        ("true: x\n", ["matrix.yaml:1: true", "a key that is a string"]),
        ("? [a]\n: b\n", ["matrix.yaml:1", "a list or a mapping as a key"]),
        ("a: !!python/object:os.system x\n", ["matrix.yaml:1: a", "a plain value", "python/object:os.system"]),
        ("a: !!python/object/apply:os.system [x]\n", ["matrix.yaml:1: a", "a plain list or mapping"]),
        ("a: !function x\n", ["matrix.yaml:1: a", "!function"]),
        ("a: !!timestamp 2024-01-01\n", ["matrix.yaml:1: a", "!!timestamp"]),
        ("a: !!int x\n", ["matrix.yaml:1: a", "a value of type int", "x"]),
        ("a: !!bool yes\n", ["matrix.yaml:1: a", "a value of type bool", "yes"]),
        ("a: " + "9" * 5000, ["matrix.yaml:1: a", "a value of type int", "5000 characters"]),
        ("a: {<<: 5}\n", ["matrix.yaml:1: a.<<", "a mapping to merge"]),
        ("\na:\n\tb: 1\n", ["matrix.yaml:3", "valid YAML", "spaces, never with tabs"]),
        ("a: {b: c\nd: e\n", ["valid YAML", "while parsing a flow mapping"]),
        ("é: é\na: b\x01c\n", ["matrix.yaml:2", "a control character"]),
        ("a: *nowhere\n", ["matrix.yaml:1", "undefined alias"]),
        ("a: 1\n---\nb: 2\n", ["matrix.yaml:2", "another document"]),
        ("", ["matrix.yaml", "an empty file"]),
        ("# only a comment\n", ["matrix.yaml", "an empty file"]),
        ("~\n", ["matrix.yaml:1", "an empty file"]),
        ("- a\n- b\n", ["matrix.yaml:1", "a mapping of keys", "a list"]),
        ("just text\n", ["matrix.yaml:1", "a mapping of keys", "'just text'"]),
        ("a: &a\n  b: *a\n", ["matrix.yaml:1: a.b", "an alias of something that it is inside of"]),
        ("a: &a [*a]\n", ["matrix.yaml:1: a[0]", "an alias of something that it is inside of"]),
        ("a: &a {<<: *a}\n", ["matrix.yaml:1: a", "an alias of something that it is inside of"]),
        ("a: " + "[" * 100_000, ["matrix.yaml:1", "at most 50 levels"]),
        ("a: " + "{a: " * 60 + "}" * 60, ["matrix.yaml:1", "at most 50 levels"]),
        ("\n" * 4 + "- " * 70, ["matrix.yaml:5", "at most 50 levels"]),
    ],
)
def test_what_is_refused_is_refused_with_its_line(write: Write, text: str, fragments: list[str]) -> None:
    found = mistakes_of(write(text))
    assert len(found) == 1
    assert [fragment for fragment in fragments if fragment not in found[0]] == []


@pytest.mark.parametrize(
    "step", ["[*x{0}, *x{0}, *x{0}, *x{0}, *x{0}, *x{0}, *x{0}, *x{0}, *x{0}]", "{{<<: [*x{0}, *x{0}]}}"]
)
def test_an_alias_bomb_is_refused(write: Write, step: str) -> None:
    levels = 40 if "<<" in step else 9
    lines = ["x0: &x0 {a: 1}", *(f"x{n + 1}: &x{n + 1} {step.format(n)}" for n in range(levels))]
    (found,) = mistakes_of(write("\n".join(lines)))
    assert "aliases that repeat at most 100,000 values" in found


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in mistakes_of(tmp_path / "none.yaml")[0]
    assert "Is a directory" in mistakes_of(tmp_path)[0]
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: x\ntitle: caf\xe9\n".encode("latin-1"))
    (found,) = mistakes_of(latin)
    assert "latin.yaml:2" in found
    assert "byte 0xe9, which is not UTF-8" in found


def test_a_duplicate_inside_an_anchor_is_told_once(write: Write) -> None:
    assert len(mistakes_of(write("a: &a {b: 1, b: 2}\nc: *a\nd: {<<: *a}\n"))) == 1


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
DATA = st.dictionaries(
    st.text(min_size=1),
    st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)),
    max_size=5,
)


def lines_of(value: Any, document: Document, source: list[str], keys: tuple[str | int, ...] = ()) -> None:
    """Every key's own line holds its text."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        line = source[document.lines[(*keys, key)] - 1]
        assert not isinstance(key, str) or json.dumps(key) in line
        lines_of(entry, document, source, (*keys, key))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(DATA)
def test_json_is_read_as_json_with_the_line_of_every_key(tmp_path: Path, data: dict[str, Any]) -> None:
    # JSON is YAML 1.2; pretty-printed, each key stands on a line of its own
    path = tmp_path / "matrix.yaml"
    text = json.dumps(data, indent=2)
    path.write_text(text, encoding="utf-8")
    try:
        document = read(path)
    except MatrixError as error:
        assert "\\ud" in text or "\\u0000" in text, error  # half surrogates are no characters
        return
    assert document.data == data
    lines_of(data, document, text.split("\n"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.text(alphabet="ab:{}[]&*!<-? \n\t'\"#,|>%@~1.", max_size=40))
def test_no_text_gives_a_traceback(tmp_path: Path, text: str) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        read_document(path, [])
    except MatrixError as error:
        assert error.mistakes


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(st.binary(max_size=40))
def test_no_bytes_give_a_traceback(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_bytes(content)
    try:
        read_document(path, [])
    except MatrixError as error:
        assert error.mistakes


def test_the_pure_python_parser_reads_the_same(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("a: {b: [1, 5e-3, off]}\nc: &c {d: 1}\ne: {<<: *c}\n")
    fast = read(path)
    monkeypatch.delattr(yaml, "CSafeLoader")
    spec = importlib.util.spec_from_file_location("read_without_libyaml", read_module.__file__)
    assert spec and spec.loader
    copy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, copy)
    spec.loader.exec_module(copy)
    slow = copy.read_document(path, [])
    assert (slow.data, slow.lines) == (fast.data, fast.lines)
    deep = write("a: " + "[" * 10_000)
    with pytest.raises(MatrixError, match="at most 50 levels"):
        copy.read_document(deep, [])
