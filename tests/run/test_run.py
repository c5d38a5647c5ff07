"""The runner with real worker processes: what fails, what goes on, what is reused, what is made again and why."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from core_bench import Control, Heard, Toys, noted
from core_factories import keys, merged, states, tree

from distillbench.cli.invocation import Invocation
from distillbench.events import Ended, Event, Planned, Started
from distillbench.hookspecs import hookimpl
from distillbench.manager import make_manager
from distillbench.plan.plan import Plan
from distillbench.run.runner import Summary
from distillbench.sealed import read_sealed, write_sealed
from distillbench.store.rows import DECISIONS, SAMPLES, TRACES, VERDICTS, read_rows
from distillbench.store.store import MANIFEST

pytestmark = pytest.mark.slow

TRAINED, BASE = "wise", "base-small"
ALL_ASKED = [f"toy/{number}#0 {step}" for step in ("1", "2", "base") for number in range(6)]


@pytest.fixture
def bench(bench: Toys) -> Toys:
    """A student that no stage builds saves a process in every run."""
    hub = {"students": {"small": {"use": "toy-hub-student"}}}
    return Toys(bench.session, lambda changes=None: bench.matrix(merged(hub, changes or {})))


def endings(summary: Summary, kind: str) -> list[str]:
    """How the stages of a kind ended, in the plan's order."""
    return [summary.endings[key] for key, one in summary.plan.stages.items() if one.kind == kind]


def counts(summary: Summary) -> dict[str, int]:
    return {ending: n for ending in ("done", "reused", "holes", "failed", "blocked") if (n := summary.count(ending))}


def only_training(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A change that leaves few samples, where samples do not matter."""
    return {"trainers": {"fit": {"steps": [1]}}, "evaluations": {"toy": {"limit": 1}}, **(changes or {})}


def folder(bench: Toys, plan: Plan, kind: str, cell: str | None = None, which: int = 0) -> Path:
    return bench.session.store.folder(plan.stages[keys(plan, kind, cell)[which]])


# ---------------------------------------------------------------- once, and again


def test_a_run_and_the_same_again(bench: Toys, control: Control) -> None:
    heard = Heard()
    changes = {"students": {"small": {"use": "toy-student"}}, "launcher": {"use": "local"}}
    summary = bench.run(changes, on_event=heard)
    assert counts(summary) == {"done": 12} and summary.reasons == {}
    assert sorted(control.log("asked")) == sorted(ALL_ASKED)
    assert len(control.log("sessions")) == 1, "one engine for every checkpoint and the baseline"
    assert control.log("train") == ["0 4"]
    assert isinstance(heard[0], Planned) and heard[0].n_stages == 12
    assert len(heard.of(Started)) == [one.ending for one in heard.of(Ended)].count("done") == 12
    before = tree(bench.session.store.root / "stages")
    again = bench.run(changes)
    assert counts(again) == {"reused": 12}
    assert control.log("asked") == control.log("train") == []
    assert tree(bench.session.store.root / "stages") == before
    assert not list((bench.session.store.root / "work").glob("*"))
    assert len(list(folder(bench, again.plan, "train").glob("step-*"))) == 2, "adapters stay"


def test_what_the_stages_leave(bench: Toys) -> None:
    changes = {
        "filters": {"sure": {"use": "toy-verdict-filter"}, "short": {"use": "toy-filter", "limit": 6}},
        "teachers": {"wise": {"n": 5, "wrong": 1}},
        "evaluations": {"toy": {"repeats": 2}},
    }
    plan = bench.run(changes).plan
    traces = read_rows(folder(bench, plan, "traces") / TRACES)
    ids = [row["trace_id"] for row in traces]
    assert [one.partition("-")[0] for one in ids] == [f"{n:06d}" for n in range(5)] and len(set(ids)) == 5
    verdicts = read_rows(folder(bench, plan, "verdict") / "verdict.parquet")
    assert [row["trace_id"] for row in verdicts] == ids
    assert [row["outcome"] for row in verdicts] == ["wrong", "correct", "correct", "correct", "correct"]
    decisions = read_rows(folder(bench, plan, "curate") / DECISIONS)
    assert [ids[row["row"]] for row in decisions] == [row["trace_id"] for row in decisions]
    decided = [(row["row"], row["kept"], row["filter"], row["category"], row["detail"]) for row in decisions]
    assert decided == [
        (0, False, "sure", "not right", ""),
        (3, False, "short", "long", "9"),
        (4, False, "short", "long", "12"),
        (1, True, None, None, None),
        (2, True, None, None, None),
    ]
    facts = bench.session.store.facts(plan.stages[keys(plan, "curate")[0]])
    assert facts == {"kept": 2, "rejected": {"sure: not right": 1, "short: long": 2}}
    samples = read_rows(folder(bench, plan, "sample", BASE) / SAMPLES)
    assert [(row["sample_id"], row["repeat"]) for row in samples[:3]] == [
        ("toy/0#0", 0),
        ("toy/0#1", 1),
        ("toy/1#0", 0),
    ]
    assert len({row["seed"] for row in samples}) == 12, "every sample has a seed of its own"
    assert samples[2]["prompt"] == "Say 1" and samples[2]["finish_reason"] == "stop" and samples[2]["text"] == "u=-1"
    trained = read_rows(folder(bench, plan, "sample", TRAINED) / SAMPLES)
    assert [row["seed"] for row in trained] == [row["seed"] for row in samples], "the same ones for every checkpoint"
    verdicts = read_rows(folder(bench, plan, "grade", BASE) / VERDICTS)
    assert [row["outcome"] for row in verdicts] == ["correct", "correct", "wrong", "wrong"] * 3
    assert verdicts[2]["detail"] == "wrong_answer" and verdicts[2]["extracted"] == "-1" and verdicts[0]["n_tokens"] == 4
    manifest = bench.session.store.manifest(plan.stages[keys(plan, "train")[0]])
    assert manifest and manifest["outputs"] == ["step-1/model.safetensors", "step-2/model.safetensors"]
    one = {"path": "step-1", "kind": "adapter", "step": 1, "samples_seen": 1}
    assert manifest["facts"] == {"checkpoints": [one, one | {"path": "step-2", "step": 2, "samples_seen": 2}]}
    assert manifest["parts"]["trainer"]["component"] == "toy-trainer"
    assert manifest["about"]["packages"]["distillbench"] and manifest["about"]["python"]


def test_a_grader_that_changes_grades_again_and_samples_nothing(bench: Toys, control: Control) -> None:
    bench.run()
    control.log("asked")
    summary = bench.run({"evaluations": {"toy": {"grader_options": {"strict": False}}}})
    assert counts(summary) == {"done": 4, "reused": 7}
    assert set(endings(summary, "grade")) == {"done"}
    assert control.log("asked") == []
    verdicts = read_rows(folder(bench, summary.plan, "grade", BASE) / VERDICTS)
    assert {row["outcome"] for row in verdicts} == {"correct"}


def test_a_grader_that_fails_costs_no_samples_their_verdict(bench: Toys, control: Control) -> None:
    control.set("fail-judge", "the grader is out of order")
    summary = bench.run(only_training())
    assert set(endings(summary, "grade")) == {"holes"}, "graded and reported as it is"
    (verdict,) = read_rows(folder(bench, summary.plan, "grade", BASE) / VERDICTS)
    assert (verdict["outcome"], verdict["detail"]) == ("grader_error", "StageError: the grader is out of order")


def test_hooks_are_told(bench: Toys) -> None:
    class Spy:
        said: list[tuple[str, ...]] = []  # noqa: RUF012

        @hookimpl
        def distillbench_event(self, event: Event) -> None:
            if isinstance(event, Planned):
                self.said.append(("plan", event.matrix, str(len(event.stages))))
            elif isinstance(event, Started):
                self.said.append(("started", event.stage.kind))
            elif isinstance(event, Ended):
                self.said.append((event.stage.kind, event.ending))

    bench.session.manager.register(Spy(), "spy")
    bench.run(only_training())
    assert Spy.said[0] == ("plan", "toys", "9")
    assert Spy.said.count(("sample", "done")) == Spy.said.count(("started", "sample")) == 2
    assert Spy.said.index(("started", "train")) < Spy.said.index(("train", "done"))


# ---------------------------------------------------------------- failures


def test_a_failed_stage_blocks_what_needs_it_and_the_rest_goes_on(bench: Toys, control: Control) -> None:
    changes = only_training({"matrix": {"seed": [0, 1]}})
    control.set("fail-train-1", "no luck with seed 1")
    summary = bench.run(changes)
    assert counts(summary) == {"done": 9, "failed": 1, "blocked": 2}
    failed, good = "seed=1", "seed=0"
    ended = {name: [summary.endings[key] for key in found] for name, found in summary.plan.cell_stages.items()}
    assert ended[failed] == ["done", "done", "done", "done", "failed", "blocked", "blocked"]
    assert set(ended[good]) == {"done"} and set(ended[BASE]) == {"done"}
    (train,) = keys(summary.plan, "train", failed)
    assert summary.reasons[train].startswith("no luck with seed 1")
    log = bench.session.store.root / "logs" / f"train-{train}.log"
    assert f"log: {log}" in summary.reasons[train] and log.exists()
    (sample,) = keys(summary.plan, "sample", failed)
    assert summary.reasons[sample] == "needs train seed=1, which did not succeed"
    control.unset("fail-train-1")
    control.log("asked"), control.log("train")
    again = bench.run(changes)
    assert counts(again) == {"done": 3, "reused": 9}
    assert control.log("train") == ["1 4"] and control.log("asked") == ["toy/0#0 1"]


def test_a_worker_that_is_killed_is_a_failure_with_its_exit_code_and_log(bench: Toys, control: Control) -> None:
    control.set("kill-train")
    summary = bench.run(only_training())
    assert endings(summary, "train") == ["failed"]
    (train,) = keys(summary.plan, "train")
    assert summary.reasons[train].startswith("its process ended with exit code -9; what it printed: ")
    assert Path(summary.reasons[train].rpartition(" ")[2]).exists()
    assert [summary.endings[key] for key in summary.plan.cell_stages[BASE]] == ["done"] * 2
    assert not bench.session.store.is_locked(train), "the kernel frees the lock of a process that is gone"


def test_an_exception_that_nobody_expected_is_a_failure_with_its_traceback_in_the_log(
    bench: Toys, control: Control
) -> None:
    control.set("sleep-train", "no number")
    summary = bench.run(only_training())
    (train,) = keys(summary.plan, "train")
    assert summary.reasons[train].startswith("ValueError: could not convert string to float")
    log = Path(summary.reasons[train].rpartition("log: ")[2])
    assert "Traceback" in log.read_text() and "distillbench_toys" in log.read_text()


def test_an_engine_that_breaks_fails_one_stage_and_the_session_goes_on(bench: Toys, control: Control) -> None:
    control.set("fail-sample-toy-3#0", "broken at 3")
    summary = bench.run({"evaluations": {"first": {"benchmark": "toy", "limit": 2}}})
    whole = [key for key in keys(summary.plan, "sample") if summary.plan.stages[key].label.endswith("toy")]
    assert {summary.endings[key] for key in whole} == {"failed"}
    first = set(keys(summary.plan, "sample")) - set(whole)
    assert len(first) == 3 and {summary.endings[key] for key in first} == {"done"}
    assert sorted(endings(summary, "grade")) == ["blocked"] * 3 + ["done"] * 3


LAZY = """
from distillbench.hookspecs import hookimpl
from distillbench_toys import ToyTrainer

class Lazy(ToyTrainer):
    "Leaves out the last checkpoint."
    name = "lazy-trainer"
    def train(self, job, context):
        return super().train(job, context)[:-1]

class Odd(ToyTrainer):
    "Writes weights in a format of its own."
    name = "odd-trainer"
    def train(self, job, context):
        found = super().train(job, context)
        for path in job.output.glob("step-*/model.safetensors"):
            path.rename(path.with_suffix(".bin"))
        return found

@hookimpl
def distillbench_trainers():
    return [Lazy, Odd]
"""


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ("lazy-trainer", "promised checkpoints at steps [1, 2] and left [1]"),
        ("odd-trainer", "no *.safetensors file was left"),
    ],
)
def test_a_trainer_that_breaks_its_contract_is_what_fails(
    bench: Toys, install_plugin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: str, said: str
) -> None:
    """Its result must not be kept as finished: the samples after it would fail forever, or never become stale."""
    install_plugin(tmp_path / "lazy", "lazy", {f"lazy_{trainer[:3]}": LAZY}, {"lazy": f"lazy_{trainer[:3]}"})
    monkeypatch.syspath_prepend(str(tmp_path / "lazy"))
    lazy = Toys(Invocation(make_manager(), (), tmp_path / "store", 0), bench.matrix)
    summary = lazy.run({"trainers": {"fit": {"use": trainer}}, "evaluations": {"toy": {"limit": 1}}})
    (train,) = keys(summary.plan, "train")
    assert summary.endings[train] == "failed"
    assert said in summary.reasons[train]
    assert [summary.endings[key] for key in summary.plan.cell_stages[BASE]] == ["done"] * 2


# ---------------------------------------------------------------- holes


def test_holes_are_filled_by_the_next_run_which_asks_nothing_else_again(bench: Toys, control: Control) -> None:
    control.set("errors", "toy/1#0 toy/4#0")
    summary = bench.run()
    assert endings(summary, "sample") == ["holes"] * 3
    assert endings(summary, "grade") == ["done"] * 3, "a stage with holes is graded as it is"
    verdicts = read_rows(folder(bench, summary.plan, "grade", BASE) / VERDICTS)
    assert [row["outcome"] for row in verdicts].count("generation_error") == 2
    assert verdicts[1]["detail"] == "the toy engine was told to fail"
    seeds = [row["seed"] for row in read_rows(folder(bench, summary.plan, "sample", BASE) / SAMPLES)]
    control.log("asked")
    still = bench.run()
    assert endings(still, "sample") == ["holes"] * 3
    assert len(control.log("asked")) == 6
    control.unset("errors")
    plan = bench.plan()
    assert states(plan)["sample"] == {"holes"} and states(plan)["grade"] == {"waits"}
    filled = bench.run()
    assert counts(filled) == {"done": 6, "reused": 5}
    assert sorted(control.log("asked")) == sorted(f"toy/{n}#0 {step}" for n in (1, 4) for step in ("1", "2", "base"))
    rows = read_rows(folder(bench, filled.plan, "sample", BASE) / SAMPLES)
    assert [row["error"] for row in rows] == [None] * 6 and [row["seed"] for row in rows] == seeds
    verdicts = read_rows(folder(bench, filled.plan, "grade", BASE) / VERDICTS)
    assert [row["outcome"] for row in verdicts] == ["correct", "wrong"] * 3


def test_verdicts_on_samples_that_are_not_there_any_more_are_not_reported(bench: Toys, cli: Any) -> None:
    """As when another matrix has filled the holes of a stage that both share."""
    store, plan = bench.session.store, bench.run().plan
    (sample,) = [
        stage for stage in plan.stages.values() if stage.label == "base-small@0 on toy" and stage.kind == "sample"
    ]
    reported = cli("--store", store.root, "report", "--json", bench.matrix()).json
    path = store.folder(sample) / "manifest.json"
    write_sealed(path, read_sealed(path, MANIFEST) | {"digest": "another"}, MANIFEST)
    changed = cli("--store", store.root, "report", "--json", bench.matrix()).json
    assert len(changed["rows"]) == len(reported["rows"]) - 1
    (missing,) = [why for cell in changed["cells"] for why in cell["missing"]]
    assert missing.startswith("1 results are of inputs that changed since")


def test_where_a_grader_failed_the_next_run_grades_again_and_nothing_else(bench: Toys, control: Control) -> None:
    control.set("fail-judge-toy-1", "the judge is away")
    summary = bench.run()
    assert endings(summary, "sample") == ["done"] * 3 and endings(summary, "grade") == ["holes"] * 3
    verdicts = read_rows(folder(bench, summary.plan, "grade", BASE) / VERDICTS)
    assert [row["outcome"] for row in verdicts].count("grader_error") == 1
    control.unset("fail-judge-toy-1")
    assert states(bench.plan())["grade"] == {"holes"}
    control.log("judged"), control.log("asked")
    filled = bench.run()
    assert counts(filled) == {"done": 3, "reused": 8}
    assert control.log("judged") == ["toy/1"] * 3 and control.log("asked") == []
    verdicts = read_rows(folder(bench, filled.plan, "grade", BASE) / VERDICTS)
    assert [row["outcome"] for row in verdicts] == ["correct", "wrong"] * 3


SURE: dict[str, Any] = {
    "filters": {"sure": {"use": "toy-verdict-filter"}},
    "students": {"small": {"use": "toy-hub-student"}},
    "trainers": {"fit": {"steps": [1]}},
    "evaluations": {"toy": {"limit": 1}},
}


def test_a_judge_that_was_down_leaves_holes_in_the_verdicts_which_the_next_run_fills(
    bench: Toys, control: Control
) -> None:
    away = [f"fail-judge-toy-{number}" for number in (101, 102, 103)]
    for name in away:
        control.set(name, "the judge cannot be reached")
    first = bench.run(SURE)
    assert endings(first, "verdict") == ["holes"] and endings(first, "train") == ["done"]
    verdicts = read_rows(folder(bench, first.plan, "verdict") / "verdict.parquet")
    assert [row["outcome"] for row in verdicts] == ["correct", *["grader_error"] * 3]
    assert "the judge cannot be reached" in verdicts[1]["detail"]
    store = bench.session.store
    assert (store.facts(first.plan.stages[keys(first.plan, "curate")[0]]) or {})["kept"] == 1
    for name in away:
        control.unset(name)
    control.log("judged")
    assert states(bench.plan(SURE))["verdict"] == {"holes"}
    again = bench.run(SURE)
    assert endings(again, "verdict") == endings(again, "curate") == endings(again, "train") == ["done"]
    assert [one for one in control.log("judged") if one > "toy/1"] == ["toy/101", "toy/102", "toy/103"]
    assert (store.facts(again.plan.stages[keys(again.plan, "curate")[0]]) or {})["kept"] == 4
    assert bench.plan(SURE).pending() == []


def test_verdicts_that_were_journaled_before_a_kill_are_not_asked_again(bench: Toys, control: Control) -> None:
    control.set("kill-judge-toy-102")
    assert endings(bench.run(SURE), "verdict") == ["failed"]
    control.unset("kill-judge-toy-102")
    before = [one for one in control.log("judged") if one.startswith("toy/10")]
    assert endings(bench.run(SURE), "verdict") == ["done"]
    after = [one for one in control.log("judged") if one.startswith("toy/10")]
    assert before == ["toy/100", "toy/101"] and after == ["toy/102", "toy/103"]


def test_rows_are_tokenised_once_for_every_limit_the_training_and_whoever_looks_at_tokens(
    bench: Toys, control: Control, cli: Any, tmp_path: Path
) -> None:
    limits = {
        "filters": {"a": {"use": "toy-row-filter", "limit": 900}, "b": {"use": "toy-row-filter", "limit": 800}},
        "matrix": {"filters": [["a"], ["b"]]},
        "evaluations": {"toy": {"limit": 1}},
    }
    summary = bench.run(limits)
    assert not summary.reasons
    assert len(endings(summary, "length")) == 1 and len(endings(summary, "render")) == 2
    assert control.log("rendered") == [f"toy {number}" for number in range(4)]
    shown = cli("tokens", bench.matrix(limits), "--cell", "a", "--rows", "2", "--json").json
    assert [one["title"][:10] for one in shown[:2]] == ["row: toy 0", "row: toy 3"] and control.log("rendered") == []


def test_a_filter_asks_the_judge_that_it_needs_and_another_judge_filters_again(bench: Toys, control: Control) -> None:
    def judged(**judge: Any) -> dict[str, Any]:
        engines = {"judge": {"use": "toy-engine", **judge}}
        return {"filters": {"fair": {"use": "toy-asking-filter", "judge": "judge"}}, "engines": engines}

    mild = bench.run(judged())
    assert not mild.reasons and endings(mild, "curate") == ["done"]
    assert control.log("judge") == [""] * 4
    assert endings(bench.run(judged(batch_size=2)), "curate") == ["reused"], "speed is not in the key"
    strict = bench.run(judged(words="no"))
    assert endings(strict, "traces") == ["reused"] and endings(strict, "curate") == ["failed"]
    assert control.log("judge") == ["no"] * 4


# ---------------------------------------------------------------- kills and what they leave


def test_samples_that_were_journaled_before_a_kill_are_not_asked_again(bench: Toys, control: Control) -> None:
    control.set("kill-sample-toy-3#0")
    summary = bench.run()
    assert set(endings(summary, "sample")) == {"failed"}
    asked = control.log("asked")
    assert asked[:3] == ["toy/0#0 base", "toy/1#0 base", "toy/2#0 base"]
    control.unset("kill-sample-toy-3#0")
    assert bench.run().count("failed") == 0
    assert sorted(asked + control.log("asked")) == sorted(ALL_ASKED)


def test_samples_of_other_weights_are_asked_again_after_a_kill(bench: Toys, control: Control) -> None:
    """What was journaled belongs to the checkpoint of then; a training that came out otherwise makes it worthless."""
    control.set("kill-sample-toy-3#0")
    plan = bench.run().plan
    control.unset("kill-sample-toy-3#0")
    shutil.rmtree(folder(bench, plan, "train"))
    control.set("salt", "other weights")
    control.log("asked")
    bench.run()
    assert sorted(control.log("asked")) == sorted(set(ALL_ASKED) - {f"toy/{number}#0 base" for number in range(3)})


def test_traces_that_were_journaled_before_a_kill_are_not_made_again(bench: Toys, control: Control) -> None:
    """A teacher that costs money is asked once; what it said stays, whatever it would say now."""
    control.set("salt", "before")
    control.set("kill-teacher-2")
    changes = only_training()
    assert endings(bench.run(changes), "traces") == ["failed"]
    assert control.log("teacher") == ["0", "1"]
    control.unset("kill-teacher-2")
    control.set("salt", "after")
    plan = bench.run(changes).plan
    assert control.log("teacher") == ["2", "3"]
    traces = read_rows(folder(bench, plan, "traces") / TRACES)
    assert [row["reasoning"].split()[-1] for row in traces] == ["before", "before", "after", "after"]


# ---------------------------------------------------------------- stale


def test_traces_that_come_out_as_before_cost_nothing_further(bench: Toys, control: Control) -> None:
    plan = bench.run(only_training()).plan
    shutil.rmtree(folder(bench, plan, "traces"))
    before = bench.plan(only_training())
    assert states(before)["traces"] == {"todo"} and states(before)["train"] == {"waits"}
    control.log("train"), control.log("asked")
    summary = bench.run(only_training())
    assert counts(summary) == {"done": 1, "reused": 8}
    assert control.log("train") == control.log("asked") == []
    assert bench.session.store.overview()["unfinished"] == [], "a stage that was reused is not under way"


def test_traces_that_come_out_otherwise_make_everything_after_them_stale(bench: Toys, control: Control) -> None:
    plan = bench.run(only_training()).plan
    shutil.rmtree(folder(bench, plan, "traces"))
    control.set("salt", "another day")
    control.set("fail-train", "stop here")
    bench.run(only_training())
    stale = bench.plan(only_training())
    (train,) = keys(stale, "train")
    assert stale.statuses[train].state == "stale"
    assert stale.statuses[train].reason == "render wise by no filter for small changed since"
    assert {stale.statuses[key].state for key in keys(stale, "sample", TRAINED)} == {"waits"}
    assert {stale.statuses[key].state for key in stale.cell_stages[BASE]} == {"done"}
    control.unset("fail-train")
    summary = bench.run(only_training())
    assert counts(summary) == {"done": 3, "reused": 6}
    assert bench.plan(only_training()).pending() == []
    kinds = sorted(path.name for path in (bench.session.store.root / "superseded").iterdir())
    assert kinds == ["check", "curate", "grade", "render", "sample", "train"]


# ---------------------------------------------------------------- checkpoints that are freed


FULL = {"trainers": {"fit": {"kind": "full"}}}


def test_full_checkpoints_are_deleted_once_evaluated_and_made_again_when_needed(bench: Toys, control: Control) -> None:
    summary = bench.run(FULL)
    train = folder(bench, summary.plan, "train")
    assert summary.freed_bytes > 0
    assert sorted(path.name for path in train.iterdir()) == ["manifest.json", "metrics.jsonl"]
    assert bench.plan(FULL).pending() == []
    control.log("train")
    more = {**FULL, "evaluations": {"long": {"benchmark": "toy", "max_tokens": 99}}}
    plan = bench.plan(more)
    (key,) = keys(plan, "train")
    assert plan.statuses[key].state == "todo" and "deleted after evaluation" in plan.statuses[key].reason
    again = bench.run(more)
    assert control.log("train") == ["0 4"]
    assert counts(again) == {"done": 8, "reused": 9}
    assert sorted(path.name for path in train.iterdir()) == ["manifest.json", "metrics.jsonl"]
    assert bench.plan(more).pending() == []


def test_a_training_that_is_not_deterministic_settles_after_one_run(bench: Toys, control: Control) -> None:
    """Weights made again differ, so samples of the old ones are made again too, in that same run."""
    bench.run(FULL)
    control.set("salt", "another order of sums")
    more = {**FULL, "evaluations": {"long": {"benchmark": "toy", "max_tokens": 99}}}
    control.log("train")
    bench.run(more)
    assert control.log("train") == ["0 4"]
    assert bench.plan(more).pending() == []


@pytest.mark.parametrize("changes", [{"keep": ["full"]}, {"evaluations": {"toy": {"limit": 2}}}], ids=["keep", "limit"])
def test_full_checkpoints_that_stay(bench: Toys, changes: dict[str, Any]) -> None:
    """A run of a few problems is followed by one of all of them, which needs its checkpoints."""
    summary = bench.run({**FULL, **changes})
    assert len(list(folder(bench, summary.plan, "train").glob("step-*"))) == 2


def test_a_checkpoint_that_another_matrix_keeps_stays(bench: Toys) -> None:
    noted(bench.load({**FULL, "name": "keeper", "keep": ["full"]}))
    summary = bench.run(FULL)
    assert len(list(folder(bench, summary.plan, "train").glob("step-*"))) == 2
    (bench.session.store.reports("spoiled") / "stages.json").write_text("{")
    assert bench.run(FULL).freed_bytes == 0, "what it keeps is not known"
    noted(bench.load({**FULL, "name": "spoiled"}))
    noted(bench.load({**FULL, "name": "keeper"}))
    assert bench.run(FULL).freed_bytes > 0
    assert not list(folder(bench, summary.plan, "train").glob("step-*"))


def test_a_checkpoint_stays_while_a_sample_of_it_is_missing(bench: Toys, control: Control) -> None:
    control.set("errors", "toy/1#0")
    summary = bench.run(FULL)
    assert len(list(folder(bench, summary.plan, "train").glob("step-*"))) == 2
    control.unset("errors")
    bench.run(FULL)
    assert not list(folder(bench, summary.plan, "train").glob("step-*"))


# ---------------------------------------------------------------- open cells


def test_a_cell_grows_once_its_traces_are_curated(bench: Toys, control: Control) -> None:
    changes = {"trainers": {"fit": {"steps": []}}, "evaluations": {"toy": {"limit": 1}}}
    assert bench.plan(changes).open_cells == {TRAINED}
    heard = Heard()
    summary = bench.run(changes, on_event=heard)
    assert len(heard.of(Planned)) == 2
    assert not summary.plan.open_cells
    assert counts(summary) == {"done": 11}
    assert control.log("asked") == ["toy/0#0 base", "toy/0#0 1", "toy/0#0 2"]
    assert bench.plan(changes).pending() == []


def test_a_cell_that_stays_open_because_its_traces_failed_ends(bench: Toys, control: Control) -> None:
    control.set("fail-teacher", "no traces today")
    summary = bench.run({"trainers": {"fit": {"steps": []}}, "evaluations": {"toy": {"limit": 1}}})
    assert summary.plan.open_cells == {TRAINED}
    assert counts(summary) == {"done": 2, "failed": 1, "blocked": 4}


# ---------------------------------------------------------------- choosing


def test_a_filter_that_keeps_nothing_fails_with_its_reasons(bench: Toys) -> None:
    summary = bench.run(
        only_training({"filters": {"short": {"use": "toy-filter", "limit": 0}}, "teachers": {"wise": {"n": 1}}})
    )
    assert endings(summary, "train") == ["done"], "the first trace has no reasoning at all"
    none = bench.run(only_training({"filters": {"rows": {"use": "toy-row-filter", "limit": 1}}}))
    (curate,) = keys(none.plan, "curate")
    assert "no trace is left after the filters: {'rows: long': 4}" in none.reasons[curate]


def test_one_core_is_enough(bench: Toys) -> None:
    summary = bench.run(only_training({"launcher": {"use": "local", "cpus": 1}, "matrix": {"seed": [0, 1]}}))
    assert counts(summary) == {"done": 12}


def test_two_evaluations_of_one_meaning_share_their_stages(bench: Toys, control: Control) -> None:
    changes = {"evaluations": {"toy": {"limit": 1}, "same": {"benchmark": "toy", "limit": 1}}}
    summary = bench.run(changes)
    assert counts(summary) == {"done": 11}
    assert len(control.log("asked")) == 3
