"""The command line: exit codes, JSON, choosing cells, what is said of mistakes, and what is never imported."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from core_bench import Control
from core_factories import merged

from distillbench.cli.main import EPILOG, hoist, make_group
from distillbench.errors import DistillbenchError
from distillbench.records import Cell, Choice
from distillbench.session.choosing import cells_there_are, choose_cells

Cli = Callable[..., Any]
Matrix = Callable[..., Path]
COMMANDS = [
    "check",
    "data",
    "eval",
    "export",
    "gc",
    "init",
    "plan",
    "plugins",
    "report",
    "run",
    "samples",
    "show",
    "status",
    "tasks",
    "tokens",
]
HEAVY = {
    "torch",
    "transformers",
    "trl",
    "peft",
    "lm_eval",
    "vllm",
    "datasets",
    "pandas",
    "scipy",
    "statsmodels",
    "evalplus",
}
SMALL: dict[str, Any] = {
    "students": {"small": {"use": "toy-hub-student"}},
    "trainers": {"fit": {"steps": [1]}},
    "matrix": {"seed": [0, 1]},
}


@pytest.fixture(autouse=True)
def _with_toys(toys: Path) -> None:
    """The toy plugin is installed in every test of this module."""


# ---------------------------------------------------------------- help, and what is imported


def test_the_group_has_these_commands() -> None:
    assert sorted(make_group().commands) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help(cli: Cli, command: str, option: str) -> None:
    done = cli(command, option)
    assert done.code == 0 and done.err == ""
    assert done.out.startswith(f"Usage: distillbench {command}")
    assert "Options:" in done.out and len(done.out.splitlines()) > 5


def test_the_groups_help_names_every_command_and_exit_code(cli: Cli) -> None:
    done = cli("--help")
    assert done.code == 0
    assert all(f"\n  {command} " in done.out for command in COMMANDS)
    assert all(f"\n    {code} " in done.out for code in (0, 1, 2, 3, 130)) and "Exit codes" in EPILOG
    assert cli("--version").out.startswith("distillbench, version 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plan", "toys.yaml"],
        ["plan", "toys.yaml", "--json"],
        ["plugins"],
        ["show", "toys.yaml"],
        ["status"],
    ],
)
def test_quick_commands_import_nothing_heavy(
    run_python: Callable[..., Any], toy_site: Path, matrix: Matrix, arguments: list[str]
) -> None:
    path = matrix()
    code = """
import sys
from distillbench.cli.main import invoke
code = invoke(sys.argv[1:])
print("imported:", code, *{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""
    done = run_python("-c", code, *arguments, path=toy_site, cwd=path.parent)
    _, found, *modules = done.err.splitlines()[-1].split()
    assert found == "0" and "click" in modules and "distillbench_toys" in modules
    assert HEAVY.isdisjoint(modules)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan"], "Missing argument 'MATRIX'"),
        (["plan", "nothing.yaml"], "nothing.yaml"),
        (["pln", "m.yaml"], "No such command 'pln'"),
        (["plan", "--al", "m.yaml"], "No such option"),
        (["run", "toys.yaml", "--limit", "0"], "0 is not in the range x>=1"),
        (["run", "toys.yaml", "--limit", "3", "--fast"], "--limit and --fast exclude each other"),
        (["plan", "toys.yaml", "--only", "wize"], "--only 'wize' matches no cell; did you mean 'wise'?"),
        (["plan", "toys.yaml", "--only", "x*"], "matches no cell; one of: base-small, wise"),
        (["show", "toys.yaml", "wize"], "no cell is named 'wize'; did you mean 'wise'?"),
        (["plugins", "toy-trainr"], "no component is named 'toy-trainr'; did you mean 'toy-trainer'?"),
        (["-p", "sft", "plan", "toys.yaml"], "-p takes no:NAME, got 'sft'"),
        (["plan", "."], "."),
    ],
)
def test_a_mistake_is_said_without_a_traceback(
    cli: Cli, matrix: Matrix, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(matrix().parent)
    done = cli(*arguments)
    assert done.code == 2 and said in done.err and done.out == ""
    assert "Traceback" not in done.err


def test_mistakes_in_a_matrix_are_counted(cli: Cli, matrix: Matrix) -> None:
    path = matrix({"trainers": {"fit": {"rat": 1}}, "teachers": {"wise": {"n": "many"}}})
    for command in ("plan", "run", "show", "check", "report"):
        done = cli(command, path)
        assert done.code == 2 and "Traceback" not in done.err
        assert done.err.endswith("2 mistakes found\n")
        assert "trainers.fit.rat" in done.err and "teachers.wise.n" in done.err


def test_a_store_that_is_damaged_is_said(cli: Cli, matrix: Matrix, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "store.json").write_text('{"format": 77}')
    done = cli("plan", matrix())
    assert done.code == 2 and "wanted store format 3, got 77" in done.err


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EROFS])
def test_what_a_disk_refuses_is_no_traceback(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Root writes anywhere, so the refusal is the test's own."""

    real = Path.open

    def refuse(path: Path, *rest: Any, **more: Any) -> Any:
        if path.name == "new.yaml":
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(Path, "open", refuse)
    done = cli("init", tmp_path / "new.yaml")
    assert (done.code, done.err) == (1, f"error: {tmp_path / 'new.yaml'}: {os.strerror(number)}\n")


def test_two_matrices_of_one_name_do_not_write_over_each_other(cli: Cli, matrix: Matrix, tmp_path: Path) -> None:
    first, second = matrix(), tmp_path / "copies" / "second.yaml"
    second.parent.mkdir()
    shutil.copyfile(first, second)
    assert cli("report", first).code == 0
    report = tmp_path / "store" / "reports" / "toys" / "report.md"
    before = report.read_bytes(), report.stat().st_mtime_ns
    for command in ("report", "run"):
        done = cli(command, second)
        assert done.code == 2
        assert f"is the report of another matrix, {first}" in done.err and "another `name`" in done.err
    assert (report.read_bytes(), report.stat().st_mtime_ns) == before
    first.unlink()
    assert cli("report", second).code == 0, "a matrix that was renamed keeps its report"


# ---------------------------------------------------------------- options anywhere


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["plan", "m", "-v"], ["-v", "plan", "m"]),
        (["plan", "-vv", "m", "--store", "S"], ["-vv", "--store", "S", "plan", "m"]),
        (["run", "m", "-p", "no:x", "--store=S", "-q"], ["-p", "no:x", "--store=S", "-q", "run", "m"]),
        (["run", "m", "--only", "a", "-pno:x"], ["-pno:x", "run", "m", "--only", "a"]),
        (["show", "m", "--", "-v"], ["show", "m", "--", "-v"]),
        (["--store"], ["--store"]),
        (["plan", "-"], ["plan", "-"]),
        ([], []),
    ],
)
def test_common_options_may_stand_anywhere(given: list[str], wanted: list[str]) -> None:
    assert hoist(given) == wanted


def test_the_store_can_be_named_in_three_ways(run_cli: Callable[..., Any], toy_site: Path, tmp_path: Path) -> None:
    def root(*arguments: str, **environment: str) -> str:
        done = run_cli(*arguments, "--json", path=toy_site, cwd=tmp_path, **environment)
        return str(done.json["root"])

    assert root("status") == str(tmp_path / "distillbench-runs")
    assert root("--store", "there", "status") == root("status", "--store", "there") == str(tmp_path / "there")
    assert root("status", DISTILLBENCH_STORE="env") == str(tmp_path / "env")
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"


# ---------------------------------------------------------------- plan, show, plugins, status, init


def test_plan_as_json(cli: Cli, matrix: Matrix) -> None:
    found = cli("plan", matrix(), "--json").json
    assert set(found) == {"matrix", "cells", "stages", "cell_stages", "open_cells", "estimate"}
    assert [(cell["name"], cell["baseline"]) for cell in found["cells"]] == [("wise", False), ("base-small", True)]
    keys = [stage["key"] for stage in found["stages"]]
    assert len(set(keys)) == len(keys) == 12
    assert all(set(stage["needs"]) <= set(keys) and stage["state"] == "todo" for stage in found["stages"])
    assert set(found["cell_stages"]["base-small"]) < set(keys)
    assert found["estimate"] == {
        "stages": {
            "student": 1,
            "traces": 1,
            "curate": 1,
            "render": 1,
            "check": 1,
            "train": 1,
            "sample": 3,
            "grade": 3,
        },
        "samples": 18,
        "most_tokens": 18 * 16,
        "seconds": None,
        "unknown_kinds": ["student", "traces", "curate", "render", "check", "train", "sample", "grade"],
    }


def test_plan_as_text(cli: Cli, matrix: Matrix, tmp_path: Path) -> None:
    done = cli("plan", matrix({"trainers": {"fit": {"steps": []}}}))
    assert done.code == 0 and done.err == ""
    assert "toys: 2 cells" in done.out and "untouched" in done.out
    assert "6+ of 6+" in done.out, "more stages once traces are rendered"
    assert "time: unknown until stages like these have run in this store" in done.out
    assert not (tmp_path / "store").exists()


def test_an_open_plan_says_at_least(cli: Cli, matrix: Matrix) -> None:
    """What comes after the traces is not known, and is most of the work."""
    done = cli("plan", matrix({"trainers": {"fit": {"steps": []}}}))
    assert "to do: at least 1 student" in done.out and "samples: at least 6, of at most 96 tokens" in done.out
    assert "1 cells (wise) get their checkpoints once their traces are rendered; their samples are not" in done.out
    whole = cli("plan", matrix())
    assert "at least" not in whole.out and "samples: 18, of at most 288 tokens" in whole.out


GPU = {"students": {"small": {"use": "hf", "model": "nobody/nothing"}}, "renderers": {"toy-renderer": {}}}


@pytest.mark.parametrize("visible", ["", "3"])
def test_a_gpu_that_is_asked_for_and_not_there_is_refused_before_anything_runs(
    cli: Cli, matrix: Matrix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    wanted = {"students": {"small": {"gpus": 2}}}
    done = cli("run", matrix(merged(GPU, wanted)))
    assert done.code == 2 and "ask for a GPU that is not there; nothing has run" in done.err
    assert "wanted: 2 GPUs, for train wise, sample wise@1 on toy" in done.err
    assert f"launcher 'toy-launcher' has {'1' if visible else 'none'} here" in done.err and "`device: cpu`" in done.err
    assert not list((tmp_path / "store").rglob("*.parquet")) and "nobody/nothing" not in done.err
    assert cli("plan", matrix(merged(GPU, wanted))).code == 0, "a machine without one may plan for another"
    for changes in ({"gpus": 2, "device": "cpu"}, {"gpus": 0}):
        done = cli("run", matrix(merged(GPU, {"students": {"small": changes}})))
        assert "GPU" not in done.err and "nobody/nothing" in done.err, "the next thing that is wrong"


def test_the_device_is_in_the_report(cli: Cli, matrix: Matrix, control: Control) -> None:
    control.set("device", "NVIDIA Toy 80GB")
    hub = {"students": {"small": {"use": "toy-hub-student"}}, "evaluations": {"toy": {"limit": 1}}}
    done = cli("run", matrix(hub), "--json")
    assert {row["device"] for row in done.json["rows"]} == {"NVIDIA Toy 80GB"}
    assert done.json["provenance"]["device"] == {"training": "cpu", "sampling": "NVIDIA Toy 80GB"}


def test_a_long_plan_is_cut_unless_all_is_asked(cli: Cli, matrix: Matrix) -> None:
    path = matrix({"matrix": {"seed": list(range(60))}})
    short, whole = cli("plan", path).out, cli("plan", path, "--all").out
    assert "... and 21 more cells (--all shows them)" in short and "seed=59" not in short
    assert "seed=59" in whole and "--all shows" not in whole


def test_show_says_every_option_and_where_it_came_from(cli: Cli, matrix: Matrix) -> None:
    path = matrix({"trainers": {"fit": {"rate": 0.3}}, "evaluations": {"toy": {"max_tokens": 9}}})
    assert cli("show", path).out.split() == ["wise", "base-small"]
    found = cli("show", path, "wise", "--json").json
    assert found["choices"]["trainer"]["options"] == {"steps": [1, 2], "kind": "adapter", "rate": 0.3, "micro": 0}
    origins = found["choices"]["trainer"]["origins"]
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "rate" in text)
    assert origins["rate"] == f"toys.yaml:{line}: trainers.fit.rate" and origins["micro"] == "default"
    evaluation = found["evaluations"]["toy"]
    assert evaluation["settings"]["max_tokens"] == 9 and evaluation["settings"]["temperature"] == 0
    assert "evaluations.toy.max_tokens" in evaluation["origins"]["max_tokens"]
    assert evaluation["origins"]["temperature"] == "task toy.yaml"
    text = cli("show", path, "wise").out
    assert "trainer.rate" in text and f"toys.yaml:{line}: trainers.fit.rate" in text and "(toy-trainer)" in text
    base = cli("show", path, "base-small", "--json").json
    assert base["baseline"] and set(base["choices"]) == {"student", "renderer", "engine"}


def test_plugins_lists_components_with_their_options(cli: Cli) -> None:
    found = {(one["kind"], one["name"]): one for one in cli("plugins", "--json").json}
    assert found["trainer", "sft"]["plugin"] == "trainers.sft" and found["trainer", "toy-trainer"]["plugin"] == "toys"
    options = {option["name"]: option for option in found["trainer", "toy-trainer"]["options"]}
    assert options["rate"] == {
        "name": "rate",
        "type": "a number",
        "required": False,
        "default": 0.1,
        "help": "A learning rate.",
    }
    assert options["kind"]["type"] == "one of: adapter, full"
    (limit,) = found["filter", "max_tokens"]["options"]
    assert limit["required"] and limit["default"] is None
    text = cli("plugins", "toy-trainer").out
    assert text.startswith("trainers\n  toy-trainer") and "A learning rate." in text and "sft" not in text
    assert "trainers\n" in cli("plugins").out and "learning rate" not in cli("plugins").out


def test_init_writes_a_matrix_and_never_overwrites(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "first.yaml"
    done = cli("init", path)
    assert done.code == 0 and f"next: distillbench plan {path}" in done.out
    text = path.read_text()
    assert cli("plan", path).code == 0
    path.write_text("mine")
    again = cli("init", path)
    assert again.code == 2 and "exists and is left as it is" in again.err and path.read_text() == "mine"
    assert len(text.splitlines()) > 10


# ---------------------------------------------------------------- choosing cells


def cells() -> list[Cell]:
    def choice(kind: str, name: str) -> Choice:
        return Choice(kind, name, name, None, f'"{name}"')

    def cell(name: str, student: str, trained: bool) -> Cell:
        recipe = {"teacher": choice("teacher", "t"), "trainer": choice("trainer", "f")} if trained else {}
        return Cell(name, choice("student", student), choice("renderer", "r"), choice("engine", "e"), (), **recipe)  # type: ignore[arg-type]

    return [
        cell("a,seed=0", "s", True),
        cell("a,seed=1", "s", True),
        cell("b", "l", True),
        cell("base-s", "s", False),
        cell("base-l", "l", False),
    ]


@pytest.mark.parametrize(
    ("only", "chosen"),
    [
        ([], ["a,seed=0", "a,seed=1", "b", "base-s", "base-l"]),
        (["b"], ["b", "base-l"]),
        (["a*"], ["a,seed=0", "a,seed=1", "base-s"]),
        (["*seed=1"], ["a,seed=1", "base-s"]),
        (["b", "a,seed=0"], ["a,seed=0", "b", "base-s", "base-l"]),
        (["base-s"], ["base-s"]),
        (["base-*"], ["base-s", "base-l"]),
        (["a,seed=?"], ["a,seed=0", "a,seed=1", "base-s"]),
    ],
)
def test_only_brings_the_baselines_that_are_compared_with(only: list[str], chosen: list[str]) -> None:
    assert [cell.name for cell in choose_cells(cells(), only)] == chosen


def test_every_pattern_of_only_must_match() -> None:
    with pytest.raises(DistillbenchError, match="--only 'c' matches no cell"):
        choose_cells(cells(), ["b", "c"])


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("concsie,learning_rate=1e-4,seed=0", "concise,learning_rate=1e-4,seed=0"),
        ("concise,learning_rat=1e-4,seed=0", "concise,learning_rate=1e-4,seed=0"),
        ("base-tinny", "base-tiny"),
        ("concise,learning_rate=2e-4,seed=0", None),
        ("concise,learning_rate=1e-4,seed=3", None),
        ("concise,learning_rate=1e-5,seed=0", None),
        ("concise,learning_rate=0.1,seed=0", None),
        ("concise,seed=0", None),
        ("verbose,learning_rate=1e-4,seed=1", None),
        ("verbose*", None),
        ("other,learning_rate=1e-4,seed=0", None),
        ("", None),
    ],
)
def test_a_name_that_is_none_is_answered_with_the_names_there_are(wanted: str, meant: str | None) -> None:
    """`verbose` is a value that cells have, 2e-4 another number: neither was meant as what there is."""
    names = [f"concise,learning_rate=1e-4,seed={seed}" for seed in (0, 1)]
    names += ["verbose,learning_rate=1e-4,seed=0", "base-tiny"]
    told = cells_there_are(wanted, names)
    assert ("did you mean" in told) == (meant is not None)
    assert meant is None or f"did you mean {meant!r}?" in told
    assert all(name in told for name in names)


def test_of_many_names_the_first_are_told() -> None:
    told = cells_there_are("x", [f"seed={seed:04}" for seed in range(1000)])
    assert "seed=0039, and 960 more: `distillbench show MATRIX` lists all" in told and "seed=0040" not in told


# ---------------------------------------------------------------- running


def test_a_part_of_a_benchmark_is_marked(cli: Cli, matrix: Matrix) -> None:
    drawn = {**SMALL, "evaluations": {"toy": {"limit": 2, "subset": "shuffled"}}}
    done = cli("run", matrix(drawn), "--only", "base-*")
    assert done.code == 0 and "toy: a subset, 2 problems, fixed shuffle." in done.out


@pytest.mark.slow
def test_a_run_from_the_first_to_the_report(cli: Cli, matrix: Matrix, control: Control, tmp_path: Path) -> None:
    path = matrix(SMALL)
    dry = cli("run", path, "--dry-run", "--json")
    assert dry.code == 0 and dry.json["cells"][2]["name"] == "base-small"
    assert control.log("teacher") == [] and not (tmp_path / "store").exists()

    one = cli("run", path, "--only", "seed=1", "--limit", "2", "--json")
    assert one.code == 0 and control.log("train") == ["1 4"]
    assert sorted(control.log("asked")) == ["toy/0#0 1", "toy/0#0 base", "toy/1#0 1", "toy/1#0 base"]
    assert {row["cell"] for row in one.json["rows"]} == {"seed=1", "base-small"}
    assert {(row["n"], row["subset"]) for row in one.json["rows"]} == {(2, "first 2 problems")}

    fast = cli("run", path, "--only", "seed=*", "--fast")
    assert fast.code == 0 and "subset" not in fast.out, "the task has six problems, and all were asked"
    assert control.log("train") == ["0 4"], "a training does not depend on the problems asked"

    whole = cli("run", path)
    assert whole.code == 0 and "stages: 7 done now, 5 reused" in whole.out
    assert "toy: 18/18" in whole.err and "subset" not in whole.out
    report = tmp_path / "store" / "reports" / "toys" / "report.md"
    assert f"report: {report}" in whole.out and "seed=0" in report.read_text()

    control.log("asked")
    quiet = cli("-q", "run", path)
    assert quiet.code == 0 and quiet.err == "" and "12 reused" in quiet.out and control.log("asked") == []
    loud = cli("run", path, "-v")
    assert loud.err.count(": reused") == 0 and "12 done, 0 to do" in loud.err
    assert cli("plan", path).out.rstrip().endswith("nothing to do")

    shutil.rmtree(report.parent)
    again = cli("report", path)
    assert again.code == 0 and report.exists()
    assert cli("report", path, "--json").json["rows"] == cli("run", path, "--json").json["rows"]
    assert len(cli("report", path, "--only", "seed=0", "--json").json["rows"]) == 2

    status = cli("status", "--json").json
    assert {kind: found["stages"] for kind, found in status["finished"].items()} == {
        "traces": 1,
        "check": 3,
        "curate": 1,
        "render": 1,
        "train": 2,
        "sample": 8,
        "grade": 8,
    }
    assert status["unfinished"] == []
    assert status["reports"] == [str(report), str(report.parent / "only-seed=0" / "report.md")]
    text = cli("status").out
    assert re.search(r"^  sample +8 finished", text, re.MULTILINE) and f"report: {report}" in text
    assert "time: about" in cli("plan", matrix({**SMALL, "evaluations": {"toy": {"max_tokens": 3}}}, "more.yaml")).out


@pytest.mark.slow
def test_exit_code_1_says_what_failed_and_where_its_log_is(
    cli: Cli, matrix: Matrix, control: Control, tmp_path: Path
) -> None:
    control.set("fail-train-1", "no luck with seed 1")
    done = cli("run", matrix(SMALL))
    assert done.code == 1
    assert "FAILED: train seed=1\n    no luck with seed 1\n    log: " in done.err
    assert "1 FAILED, 2 BLOCKED" in done.out and "Traceback" not in done.err + done.out
    assert "2 stages that need what failed" in done.err
    report = (tmp_path / "store" / "reports" / "toys" / "report.md").read_text()
    assert "no luck with seed 1" in report
    as_json = cli("run", matrix(SMALL), "--json")
    assert as_json.code == 1 and as_json.json
    control.unset("fail-train-1")
    assert cli("run", matrix(SMALL)).code == 0


@pytest.mark.slow
def test_exit_code_3_says_that_samples_are_missing(cli: Cli, matrix: Matrix, control: Control) -> None:
    control.set("errors", "toy/1#0")
    changes = {**SMALL, "matrix": {"seed": 0}}
    done = cli("run", matrix(changes))
    assert done.code == 3 and "2 with holes" in done.out and "holes in" in done.err
    assert "1 samples failed" in done.err
    planned = cli("plan", matrix(changes)).out
    assert "holes, 1 samples failed and will be tried again" in planned
    control.unset("errors")
    assert cli("run", matrix(changes)).code == 0


@pytest.mark.slow
def test_check_loads_every_task_and_renders_every_prompt(cli: Cli, matrix: Matrix, toys: Path, tmp_path: Path) -> None:
    done = cli("check", matrix())
    assert done.code == 0 and "ok  task toy: 6 problems" in done.out
    assert "ok  small with toy-renderer" not in done.out
    assert (
        "not looked at  small with toy-renderer on wise (wise): prompts of toy and training rows: there is no"
        in done.out
    )
    assert "not looked at  small with toy-renderer, untouched (base-small): prompts of toy: there is no tok" in done.out
    assert "2 cells: 0 refused, 0 accepted, 0 warning, 2 not looked at" in done.out
    hub = cli("check", matrix({"students": {"small": {"use": "toy-hub-student"}}}), "--json").json
    assert [(line["level"], line["subject"]) for line in hub] == [
        ("ok", "task toy"),
        ("ok", "small with toy-renderer on wise (wise)"),
        ("not looked at", "small with toy-renderer on wise (wise)"),
        ("ok", "small with toy-renderer, untouched (base-small)"),
    ]
    assert hub[1]["text"] == " prompts of toy; reasoning is not told apart"
    assert "training rows: teacher 'wise' gives no preview" in hub[2]["text"]
    assert "`distillbench run` looks at every row before it trains" in hub[2]["text"]
    tasks = tmp_path / "tasks"
    shutil.copytree(toys / "toy_tasks", tasks)
    text = (tasks / "toy.yaml").read_text().replace("task: toy", "task: broken").replace("{{question}}", "{{question")
    (tasks / "toy.yaml").write_text(text)
    changes = {
        "task_paths": ["tasks"],
        "evaluations": {"toy": {"benchmark": "broken"}},
        "teachers": {"wise": {"task": "broken"}},
    }
    bad = cli("check", matrix({**changes, "students": {"small": {"use": "toy-hub-student"}}}))
    assert bad.code == 2 and "refused  task broken: " in bad.out and "Traceback" not in bad.out + bad.err
    assert "lm-eval cannot load task 'broken'" in bad.out or "no prompt can be made" in bad.out


@pytest.mark.slow
def test_evaluations_of_one_meaning_are_both_reported(cli: Cli, matrix: Matrix, control: Control) -> None:
    changes = {
        **SMALL,
        "matrix": {"seed": 0},
        "evaluations": {"toy": {"limit": 1}, "same": {"benchmark": "toy", "limit": 1}},
    }
    done = cli("run", matrix(changes), "--json")
    assert done.code == 0, done.err
    assert sorted((row["cell"], row["evaluation"]) for row in done.json["rows"]) == [
        ("base-small", "same"),
        ("base-small", "toy"),
        ("wise", "same"),
        ("wise", "toy"),
    ]
    assert len(control.log("asked")) == 2


def test_every_json_output_is_json_alone(cli: Cli, matrix: Matrix) -> None:
    path = matrix()
    for arguments in (["plan", path], ["show", path, "wise"], ["plugins"], ["status"], ["report", path]):
        done = cli(*arguments, "--json")
        assert done.code == 0
        json.loads(done.out)


def test_check_counts_each_finding_once() -> None:
    from distillbench.cli.check import _count
    from distillbench.session.checking import Checked

    lines = [
        Checked("refused", "tiny on wise", " prompts of a"),
        Checked("refused", "tiny on wise", "\nfirst", "lost_text", "a"),
        Checked("refused", "tiny on wise", "\nsecond", "one_sided_system", "a"),
        Checked("refused", "task b", " no data"),
        Checked("ok", "tiny, untouched", " prompts of a"),
        Checked("warning", "tiny, untouched", "\nthird", "greedy_with_temperature", "a"),
    ]
    assert [_count(lines, level) for level in ("refused", "warning", "accepted")] == [3, 1, 0]
