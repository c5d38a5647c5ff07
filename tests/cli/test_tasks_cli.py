"""`distillbench tasks`, and groups and tags as lm-eval reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distillbench.errors import TaskError
from distillbench.tasks.groups import find_group, known_groups, stock_tasks
from distillbench.tasks.identity import TaskIndex, stock_root

Cli = Callable[..., Any]

TASK = "task: {name}\ndataset_path: {data}\ntest_split: test\ndoc_to_text: x\ndoc_to_target: y\n"


def write(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def task(folder: Path, name: str, more: str = "", data: str = "nobody/has-this") -> None:
    write(folder, f"{name}.yaml", TASK.format(name=name, data=data) + more)


def test_ours_are_listed_with_grader_source_and_data(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    found = {one["name"]: one for one in cli("tasks", "--json").json}
    assert {"math500", "coins", "digits"} <= found.keys() and "gsm8k" not in found
    math = found["math500"]
    assert (math["grader"], math["problems"], math["data"]) == ("math_boxed", 500, "not here")
    assert math["source"].startswith("HuggingFaceH4/MATH-500@")
    assert (found["coins"]["source"], found["coins"]["data"]) == ("made by the task's own code", "-")
    write(tmp_path / "copies" / "math500", "math500.jsonl", "{}\n")
    copied = cli("tasks", "math500", "--data-root", tmp_path / "copies", "--json").json
    assert {one["name"]: one["data"] for one in copied}["math500"] == "copy"
    commit = math["source"].partition("@")[2]
    (tmp_path / "hub" / "datasets--HuggingFaceH4--MATH-500" / "snapshots" / commit).mkdir(parents=True)
    assert {one["name"]: one["data"] for one in cli("tasks", "--json").json}["math500"] == "cached"
    shown = cli("tasks")
    assert shown.code == 0 and "math_boxed" in shown.out and "searches lm-eval's own too" in shown.out


def test_a_pattern_finds_lm_evals_own_and_a_users(cli: Cli, tmp_path: Path) -> None:
    task(tmp_path / "mine", "my_gsm8k", "tag: mine\n")
    write(tmp_path / "mine", "broken.yaml", "task: broken_gsm8k\ninclude: nowhere.yaml\n")
    found = {one["name"]: one for one in cli("tasks", "GSM8K", "--task-path", tmp_path / "mine", "--json").json}
    assert {"gsm8k", "gsm8k_cot", "my_gsm8k"} <= found.keys()
    assert (found["gsm8k"]["source"], found["gsm8k"]["grader"]) == ("openai/gsm8k (main)", "lm_eval")
    assert found["broken_gsm8k"]["data"].startswith("cannot be read: ")
    assert [one["name"] for one in cli("tasks", "gsm8k_c?t", "--json").json] == ["gsm8k_cot"]
    groups = {one["name"]: one for one in cli("tasks", "mmlu_stem*", "--json").json}
    assert (groups["mmlu_stem"]["kind"], groups["mmlu_stem"]["problems"]) == ("group", 19)
    assert groups["mmlu_stem_tasks"]["kind"] == "tag"
    everything = cli("tasks", "--all")
    assert everything.code == 0 and len(everything.out.splitlines()) > 13_000
    nothing = cli("tasks", "gsm8kk")
    assert nothing.code == 2 and "no benchmark's name holds 'gsm8kk'; did you mean 'gsm8k'?" in nothing.err


@pytest.mark.slow
def test_tasks_groups_and_tags_are_those_of_lm_evals_own_index() -> None:
    """lm-eval parses its 14,700 files for that, which takes a minute; ours looks at the lines that say so."""
    from lm_eval.tasks._index import Kind
    from lm_eval.tasks._index import TaskIndex as Theirs

    root = stock_root()
    assert root is not None
    theirs = Theirs.build([root]).values()
    assert set(stock_tasks()) == {one.name for one in theirs if one.kind in (Kind.TASK, Kind.PY_TASK)}
    known = known_groups(TaskIndex([]), with_stock=True)
    assert {name for name, kind in known.items() if kind == "group"} == {
        one.name for one in theirs if one.kind is Kind.GROUP
    }
    for one in theirs:
        if one.kind is Kind.TAG and known[one.name] == "tag":
            found = find_group(one.name, TaskIndex([]))
            assert found is not None and set(found.tasks) == one.tags


def test_a_group_of_groups_and_tags(tmp_path: Path) -> None:
    for name in ("a", "b"):
        task(tmp_path, name, "tag: [letters, all]\n")
    write(tmp_path, "_template", "tag:\n  - digits\n  - all\ndataset_path: d\n")
    write(tmp_path, "one.yaml", "include: _template\ntask: one\n")
    weighted = "aggregate_metric_list:\n  - metric: acc\n    weight_by_size: {}\n"
    write(tmp_path, "inner.yaml", "group: inner\ntask:\n  - digits\n" + weighted.format("false"))
    write(
        tmp_path,
        "outer.yaml",
        "group: outer\ntask:\n  - inner\n  - letters\n  - group: named\n    task: [b, {task: a}]\n"
        + weighted.format("true"),
    )
    index = TaskIndex([tmp_path])
    outer = find_group("outer", index)
    assert outer is not None
    assert (outer.tasks, outer.weight_by_size) == (("one", "a", "b"), True)
    assert [(one.name, one.tasks, one.weight_by_size) for one in outer.groups] == [("inner", ("one",), False)]
    everything = find_group("all", index)
    assert everything is not None and everything.tasks == ("a", "b", "one") and everything.weight_by_size is None
    assert find_group("nothing", index) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("group: g\ntask: [g]\n", "group 'g' holds itself: g -> g"),
        ("group: g\ntask: [a, nowhere]\n", "names 'nowhere', which is no task, group or tag"),
        ("group: g\ntask: [{task: a, num_fewshot: 3}]\n", "options of its own"),
        ("group: g\ntask: a\n", "wanted a list under `task`"),
        ("group: g\ntask: []\n", "has no task"),
        ("group: g\ntask: [3]\n", "options of its own"),
    ],
)
def test_groups_that_cannot_be_used_are_told(tmp_path: Path, text: str, words: str) -> None:
    task(tmp_path, "a")
    write(tmp_path, "g.yaml", text)
    with pytest.raises(TaskError, match=words):
        find_group("g", TaskIndex([tmp_path]))
