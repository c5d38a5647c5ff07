"""What a task's file may look like, and what a user is told of one that cannot be read."""

from __future__ import annotations

import os
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from distillbench.errors import TaskError
from distillbench.tasks.files import task_files
from distillbench.tasks.identity import TaskIndex, read_task
from distillbench.tasks.merging import Function


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"\xef\xbb\xbftask: n\n", "n"),
        (b"task: n\r\nrepeats: 1\r\n", "n"),
        (b"task : n\n", "n"),
        (b"task: >-\n  n\n", "n"),
        (b"task: |-\n  n\n", "n"),
        (b'"task": "n"\n', "n"),
        (b"'task' : 'n' # why\n", "n"),
        (b"{task: n, repeats: 1}\n", "n"),
        (b'{"repeats": 1,\n"task": "n"}\n', "n"),
        (b"? task\n: n\n", "n"),
        (b"--- # a task\ntask: n\n...\n", "n"),
        (b"%YAML 1.1\n---\ntask: n\n", "n"),
        (b"task: !!str n\n", "n"),
        (b"task: ! n\n", "n"),
        (b"task: &name n\nalias: *name\n", "n"),
        (b"alias: &name n\ntask: *name\n", "n"),
        (b"metadata: {alias: [&name n]}\ntask: *name\n", "n"),
        (b"task: a\n  b\n", "a b"),
        (b"task: a\n\n  b\n", "a\nb"),
        (b"task: a b # c\n", "a b"),
        (b"task: a#b\n", "a#b"),
        (b'task: "1"\n', "1"),
        (b"task: 'yes'\n", "yes"),
        ("task: '日本'\n".encode(), "日本"),
        (b"doc_to_text: |\n  task: other\ntask: n\n", "n"),
        (b'doc_to_text: "a\n task: other"\ntask: n\n', "n"),
        (b"nested:\n  task: other\ntask: n\n", "n"),
        (b"- task: other\n", None),
        (b"group: all\ntask:\n- a\n- b\n", None),
        (b"group: all\ntask: [a, b]\n", None),
        (b"task: {a: b}\n", None),
        (b"doc_to_text: x\n", None),
        (b"", None),
        (b"# task: n\n", None),
    ],
)
def test_a_tasks_name_is_what_yaml_says(raw: bytes, name: str | None, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_bytes(raw)
    (file,) = task_files(tmp_path)
    assert (file.name, file.why) == (name, "")
    if name is not None:
        assert TaskIndex([tmp_path]).find(name).name == name


@given(
    st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=12)
    | st.text(string.ascii_letters + "_.-: #'\"\n", min_size=1)
)
@settings(max_examples=300, deadline=None)
def test_every_name_that_is_written_is_found(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.mktemp("names")
    text = yaml.safe_dump({"dataset_path": "x", "task": name}, allow_unicode=True)
    (folder / "t.yaml").write_text(text, "utf-8", newline="")
    wanted = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))[
        "task"
    ]  # U+0085 comes back as a blank
    assert [file.name for file in task_files(folder)] == [wanted]
    assert TaskIndex([folder]).find(wanted).name == wanted


@pytest.mark.parametrize(
    ("written", "kind"),
    [("123", "int"), ("017", "int"), ("1.5", "float"), ("yes", "bool"), ("No", "bool"), ("2026-01-01", "timestamp")],
)
def test_a_name_that_is_no_string_is_told_with_its_file(written: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(f"task: {written}\n")
    with pytest.raises(TaskError, match=rf't\.yaml says `task: {written}`.* of type {kind}: write "{written}"'):
        TaskIndex([tmp_path]).find(written)


def test_a_file_that_cannot_be_read_is_told_where_a_name_is_missed(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.yaml").write_bytes(b"task: \xff\n")
    with pytest.raises(TaskError) as caught:
        TaskIndex([tmp_path]).find("missed")
    assert "0.yaml cannot be read: byte 0xff, which is not UTF-8" in str(caught.value)
    assert "and 2 files more" in str(caught.value)


def test_a_folder_of_everything_is_no_folder_of_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distillbench.tasks.files._MOST_ENTRIES", 50)
    for number in range(30):
        (tmp_path / f"folder{number}").mkdir()
        (tmp_path / f"folder{number}" / "file").touch()
    with pytest.raises(TaskError, match="got one that holds more than 50 files and folders"):
        TaskIndex([tmp_path]).find("t")


def test_what_vanishes_or_is_no_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "t.yaml").write_text("task: t\n")
    assert TaskIndex([tmp_path]).names == ["t"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("doc_to_text: a\ndoc_to_text: b\n", ("'doc_to_text' on lines 2 and 3",)),
        ("metadata:\n  version: 1\n  version: 2\n", ("'version' on lines 3 and 4",)),
        ("filter_list:\n- {name: a, name: b}\n", ("'name' on lines 3 and 3",)),
        ('"repeats": 1\nrepeats: 2\nrepeats: 3\n', ("'repeats' on lines 2 and 3", "'repeats' on lines 2 and 4")),
        ("include: other.yaml\n", ("'num_fewshot' on lines 1 and 2",)),
        ("a: {b: 1}\nc: {b: 1}\nd: [{b: 1}, {b: 1}]\n", ()),
        ("a: &a {b: 1}\nc: {<<: *a, b: 2}\n", ()),
        ("a: &a {b: 1, b: 2}\nc: *a\nd: *a\n", ("'b' on lines 2 and 2",)),
    ],
)
def test_a_key_twice_is_a_finding(text: str, said: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("num_fewshot: 1\nnum_fewshot: 2\n")
    (tmp_path / "t.yaml").write_text("task: t\n" + text)
    found = read_task(tmp_path / "t.yaml").findings
    assert [name for name, _ in found] == ["key_twice"] * len(said)
    for (_, told), wanted in zip(found, said, strict=True):
        assert ".yaml: " + wanted in told


def test_two_names_in_one_file_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("task: one\ntask: two\n")
    with pytest.raises(TaskError, match=r"t\.yaml: wanted `task:` once, got 'one' and 'two'"):
        TaskIndex([tmp_path]).find("one")


_BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{one}: &{one} [{', '.join(['*' + other] * 10)}]\n" for other, one in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_BOMB, "aliases that repeat at most 100,000 values"),
        ("x: &x [*x]\n", "an alias of something that it is inside of"),
        ("x: " + "[" * 60 + "]" * 60 + "\n", "at most 50 levels"),
        ("x: !!timestamp soon\n", "holds a value that cannot be read"),
        ("x: !!int one\n", "holds a value that cannot be read"),
        ("x: !!bool perhaps\n", "holds a value that cannot be read"),
        ("x: 2026-13-45\n", "holds a value that cannot be read"),
        ("x: " + "9" * 5000 + "\n", "holds a value that cannot be read"),
        ("x: !function [a, b]\n", "not valid YAML"),
        ("? [a, b]\n: x\n", "not valid YAML"),
        ("x: \x01\n", "a control character"),
        ("x:\ty: z\n\tq: 1\n", "not valid YAML"),
        ("include: ~\n", "include: wanted the name of a file"),
        ("include: [1]\n", "include: wanted the name of a file"),
        (f"include: {'x' * 300}.yaml\n", "cannot be read: wanted a YAML file that can be read, got File name too long"),
        ('include: "a\\0b"\n', "cannot be read"),
        ("include: /dev/zero\n", "a YAML file of at most 64 MiB"),
        ("include: .\n", "Is a directory"),
    ],
)
def test_odd_files_are_refused_in_words(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("task: t\n" + text)
    with pytest.raises(TaskError, match=r"(?s).*") as caught:
        TaskIndex([tmp_path]).find("t")
    assert said in str(caught.value)


def test_the_root_of_the_disk_is_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distillbench.tasks.content._MOST_DATA_FILES", 100)
    (tmp_path / "t.yaml").write_text("task: t\ndataset_path: /\n")
    with pytest.raises(TaskError, match="/: wanted a file or folder of data, got a folder of 100 files and more"):
        TaskIndex([tmp_path]).find("t")


@pytest.mark.parametrize("value", ["x" * 300, "a\\0b", "x" * 5000, "é" * 150])
def test_an_over_long_name_of_data_is_a_name(value: str, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(f'task: t\ndataset_path: "{value}"\ncustom: !function {"y" * 300}.f\n')
    (tmp_path / "data.py").write_text(f"NAME = '{'é' * 150}'\n")
    spec = TaskIndex([tmp_path]).find("t")
    assert spec.sample_identity
    assert spec.config["custom"] == Function("y" * 300 + ".f")
    with pytest.raises(TaskError, match="no task is named"):
        TaskIndex([tmp_path]).find("x" * 300)


def test_a_sets_order_is_no_part_of_an_identity(tmp_path: Path) -> None:
    found = set()
    for number, words in enumerate(("a, b, c", "c, a, b")):
        (tmp_path / f"{number}.yaml").write_text(f"task: t\nx: !!set {{{words}}}\n")
        found.add(read_task(tmp_path / f"{number}.yaml").sample_identity)
    assert len(found) == 1
