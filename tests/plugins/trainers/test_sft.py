"""The sft trainer: steps, held-out rows, refusals, and what a short real training leaves."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugin_helpers import Run, Tiny, coins_traces, metrics, problem, trace, train

from distillbench.errors import StageError
from distillbench.records import Rendered, RowCounts, Trace
from distillbench_plugins.renderers.qwen import Qwen3Options, Qwen3Renderer
from distillbench_plugins.trainers.held_out import held_out, held_out_nll
from distillbench_plugins.trainers.sft import SftOptions, SftTrainer

ADAPTER = "adapter_model.safetensors"


def steps(n_traces: int | None, **options: Any) -> tuple[int, ...] | None:
    counts = None if n_traces is None else RowCounts(n_traces, 0, 0)
    return SftTrainer(SftOptions(**options)).checkpoint_steps(counts)


@pytest.mark.parametrize(
    ("n_traces", "options", "expected"),
    [
        (None, {"max_steps": 10, "checkpoint_every": 4}, (4, 8, 10)),
        (None, {"max_steps": 8, "checkpoint_every": 4}, (4, 8)),
        (None, {"max_steps": 3, "checkpoint_every": 4}, (3,)),
        (7, {"max_steps": 1}, (1,)),
        (None, {"epochs": 2}, None),
        (100, {"batch_size": 10, "holdout": 0, "checkpoint_every": 4}, (4, 8, 10)),
        (101, {"batch_size": 10, "holdout": 0, "checkpoint_every": 4}, (4, 8, 11)),
        (100, {"batch_size": 10, "holdout": 0.1, "checkpoint_every": 4}, (4, 8, 9)),
        (100, {"batch_size": 10, "holdout": 0, "epochs": 0.5, "checkpoint_every": 4}, (4, 5)),
        (100, {"batch_size": 10, "holdout": 0, "epochs": 2.5, "checkpoint_every": 100}, (25,)),
        (3, {"batch_size": 32}, (1,)),
        (1, {"batch_size": 32}, (1,)),
        (100, {"max_steps": 7, "epochs": 9}, (7,)),
    ],
)
def test_checkpoint_steps(n_traces: int | None, options: dict[str, Any], expected: tuple[int, ...] | None) -> None:
    assert steps(n_traces, **options) == expected


@given(st.integers(1, 5000), st.integers(1, 64), st.floats(0.01, 5), st.integers(1, 300), st.floats(0, 0.5))
def test_checkpoint_steps_rise_and_end_with_the_last(
    n_traces: int, batch_size: int, epochs: float, every: int, holdout: float
) -> None:
    found = steps(n_traces, batch_size=batch_size, epochs=epochs, checkpoint_every=every, holdout=holdout)
    assert found
    assert list(found) == sorted(set(found))
    assert all(step % every == 0 for step in found[:-1])
    assert all(later - earlier <= every for earlier, later in zip((0, *found), found, strict=False))
    seen = found[-1] * batch_size
    assert seen - batch_size < epochs * n_traces + 1, "no step more than the epochs need"


def test_options_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="micro_batch_size 3 does not divide batch_size 16"):
        SftOptions(batch_size=16, micro_batch_size=3)
    assert SftOptions(batch_size=16, micro_batch_size=4).micro_batch_size == 4


def held_out_of(traces: list[Trace], share: float) -> list[bool]:
    """Which traces' rows are held out."""
    found: list[bool] = held_out([one.problem.problem_id for one in traces], share).tolist()
    return found


def numbered(ids: list[int]) -> list[Trace]:
    """A trace for each problem number."""
    return [
        trace("r", f"\\boxed{{{row}}}", problem=problem(problem_id=f"made/{number}"), source=f"made row {row}")
        for row, number in enumerate(ids)
    ]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.floats(0, 0.99), st.randoms(use_true_random=False))
def test_held_out_goes_by_problem_and_is_deterministic(ids: list[int], share: float, rnd: Any) -> None:
    traces = numbered(ids)
    out = held_out_of(traces, share)
    assert out == held_out_of(traces, share)
    problems = {number: {is_out for other, is_out in zip(ids, out, strict=True) if other == number} for number in ids}
    assert all(len(kinds) == 1 for kinds in problems.values()), "the rows of a problem stay together"
    if share == 0 or len(ids) == 1:
        assert not any(out)
    else:
        wanted = min(len(ids) - 1, max(1, round(len(ids) * share)))
        most = max(ids.count(number) for number in ids)
        assert wanted <= sum(out) < wanted + most
    order = list(range(len(ids)))
    rnd.shuffle(order)
    assert held_out_of([traces[number] for number in order], share) == [out[number] for number in order]


def test_a_larger_share_holds_out_what_a_smaller_one_did_and_more() -> None:
    traces = numbered(list(range(50)) * 2)
    small, large = held_out_of(traces, 0.1), held_out_of(traces, 0.3)
    assert sum(small) == 10
    assert sum(large) == 30
    assert all(more for less, more in zip(small, large, strict=True) if less)
    other = held_out_of(numbered([number + 1000 for number in range(50)] * 2), 0.1)
    assert other != small, "the ids decide, not the places"


def test_duplicated_rows_do_not_change_which_problems_are_held_out() -> None:
    once, twice = numbered(list(range(40))), numbered([number for number in range(40) for _ in range(2)])
    of_once = {one.problem.problem_id for one, out in zip(once, held_out_of(once, 0.25), strict=True) if out}
    of_twice = {one.problem.problem_id for one, out in zip(twice, held_out_of(twice, 0.25), strict=True) if out}
    assert of_once == of_twice


SHORT: dict[str, Any] = {
    "lora_rank": 4, "learning_rate": 5e-3, "batch_size": 8, "max_steps": 2, "checkpoint_every": 2, "max_length": 256,
    "holdout": 0.1,
}  # fmt: skip


def test_rows_that_are_too_long_stop_the_training(tiny: Tiny, tmp_path: Path) -> None:
    traces = coins_traces(20)
    lengths = [len(tiny.renderer.render(one).input_ids) for one in traces]
    limit = sorted(lengths)[15]
    n = sum(length > limit for length in lengths)
    with pytest.raises(StageError) as caught:
        train(tiny, traces, tmp_path / "out", **SHORT | {"max_length": limit})
    said = rf"{n} of 20 rows are longer than max_length {limit} \((the )?longest: {max(lengths)}\)"
    assert re.match(said, str(caught.value))
    assert "overlong: truncate" in str(caught.value)
    assert not list((tmp_path / "out").iterdir())


def test_rows_without_loss_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    traces = coins_traces(20)
    silent = trace("Mon 6-3=3, T", "", "length", source="row 17 of traces.jsonl")
    answers_alone = replace(tiny, renderer=Qwen3Renderer(Qwen3Options(reasoning="strip")).bind(tiny.tokenizer))
    with pytest.raises(StageError, match=r"1 rows carry no loss at all; the first comes from row 17 of traces\.jsonl"):
        train(answers_alone, [*traces, silent], tmp_path / "out", **SHORT)
    prompt = len(tiny.renderer.prompt(traces[0].problem.messages).input_ids)
    with pytest.raises(StageError, match="carry no loss at all; the first comes from coins train problem"):
        train(tiny, traces, tmp_path / "cut", **SHORT | {"max_length": prompt, "overlong": "truncate"})


def test_nothing_to_train_on_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    one_problem = [replace(one, problem=coins_traces(1)[0].problem) for one in coins_traces(5)]
    with pytest.raises(StageError, match="no row is left to train on"):
        train(tiny, one_problem, tmp_path / "out", **SHORT)


def nll(model: Any, rows: list[Rendered]) -> tuple[float, int]:
    """Sum of the loss tokens' negative log-likelihood, row by row without padding, and their number."""
    import torch

    total, count = 0.0, 0
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row.input_ids.tolist()])
            log_p = torch.log_softmax(model(input_ids=ids).logits[0].double(), dim=-1)  # T x V
            for place in range(1, ids.shape[1]):
                if row.loss_mask[place]:
                    total -= float(log_p[place - 1, ids[0, place]])
                    count += 1
    return total, count


def checkpoint_model(tiny: Tiny, checkpoint: Any) -> Any:
    from peft import PeftModel

    if checkpoint.kind == "full":
        return tiny.student.load_model(tiny.built, "cpu", weights=checkpoint.path).eval()
    return PeftModel.from_pretrained(tiny.student.load_model(tiny.built, "cpu"), str(checkpoint.path)).eval()


@pytest.mark.parametrize("name", ["lora", "full"])
def test_metrics_hold_the_held_out_nll_of_every_checkpoint(
    tiny: Tiny, name: str, request: pytest.FixtureRequest
) -> None:
    run: Run = request.getfixturevalue(name)
    out = held_out_of(run.traces, run.options["holdout"])
    rows = [tiny.renderer.render(one) for one, is_out in zip(run.traces, out, strict=True) if is_out]
    assert len(rows) == round(0.1 * len(run.traces))
    found = metrics(run.output)
    assert [row["step"] for row in found] == [checkpoint.step for checkpoint in run.checkpoints]
    before, n_tokens = nll(tiny.student.load_model(tiny.built, "cpu").eval(), rows)
    expected = [before / n_tokens]
    for row, checkpoint in zip(found, run.checkpoints, strict=True):
        total, count = nll(checkpoint_model(tiny, checkpoint), rows)
        assert row["held_out_tokens"] == count == n_tokens
        assert row["held_out_nll"] == pytest.approx(total / count, abs=2e-5)
        expected.append(total / count)
        assert {"train_loss", "grad_norm", "learning_rate"} <= set(row)
        assert all(math.isfinite(value) for value in row.values())
    assert expected == sorted(expected, reverse=True), "it falls from the untouched student on"
    assert expected[-1] < 0.8 * expected[0]
    assert [row["train_loss"] for row in found] == sorted((row["train_loss"] for row in found), reverse=True)


def test_checkpoints_are_what_was_promised(lora: Run, full: Run) -> None:
    assert [(one.kind, one.step, one.samples_seen) for one in lora.checkpoints] == [
        ("adapter", 4, 64),
        ("adapter", 8, 16 * 7 - 4 + 16),
        ("adapter", 12, 108 + 16 * 5),
    ], "108 rows are trained on: the last batch of an epoch has 12"
    assert [(one.kind, one.step) for one in full.checkpoints] == [("full", 20)]
    for run in (lora, full):
        assert {path.name for path in run.output.iterdir()} == {"metrics.jsonl"} | {
            f"step-{one.step}" for one in run.checkpoints
        }
        for one in run.checkpoints:
            held = {path.name for path in one.path.iterdir()}
            assert "tokenizer.json" in held
            assert (ADAPTER in held) == (one.kind == "adapter")
            assert ("model.safetensors" in held) == (one.kind == "full")
            assert not [name for name in held if name.startswith(("optimizer", "trainer_state", "rng", "scheduler"))]


@pytest.mark.parametrize("micro_batch_size", [0, 4])
def test_samples_seen_is_what_trl_was_fed(tiny: Tiny, tmp_path: Path, micro_batch_size: int) -> None:
    """TRL counts tokens: after whole passes over the rows it has seen each row as often."""
    traces = coins_traces(20)
    n_tokens = sum(len(tiny.renderer.render(one).input_ids) for one in traces)
    given = {"holdout": 0, "max_steps": 6, "checkpoint_every": 3, "micro_batch_size": micro_batch_size}
    checkpoints = train(tiny, traces, tmp_path / "out", **SHORT | given)
    (state,) = (tmp_path / "out-work").rglob("checkpoint-6/trainer_state.json")
    log = json.loads(state.read_text())["log_history"]
    assert [one.samples_seen for one in checkpoints] == [20, 40]
    seen = {row["step"]: row["num_tokens"] for row in log}
    assert (seen[3], seen[6]) == (n_tokens, 2 * n_tokens)


def test_an_adapter_has_the_options_that_were_asked(tiny: Tiny, lora: Run, tmp_path: Path) -> None:
    config = json.loads((lora.checkpoints[0].path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (8, 8, 0.0), "alpha is the rank unless given"
    assert {"q_proj", "o_proj", "gate_proj", "down_proj"} <= set(config["target_modules"])
    given = SHORT | {"lora_alpha": 8.0, "lora_dropout": 0.25, "max_steps": 1}
    (checkpoint,) = train(tiny, coins_traces(20), tmp_path / "out", **given)
    config = json.loads((checkpoint.path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8.0, 0.25)


def test_the_first_loss_is_that_of_the_untouched_student_on_the_masked_tokens(tiny: Tiny, tmp_path: Path) -> None:
    """One step on all rows in one batch: the mask, the shift and the mean are as they should be."""
    traces = [*coins_traces(6), *coins_traces(6, "verbose"), trace("cut", "", "length")]
    rows = [tiny.renderer.render(one) for one in traces]
    total, count = nll(tiny.student.load_model(tiny.built, "cpu").eval(), rows)
    for name, options in {"lora": {"method": "lora"}, "full": {"method": "full"}}.items():
        given = SHORT | {"batch_size": len(rows), "max_steps": 1, "holdout": 0} | options
        train(tiny, traces, tmp_path / name, **given)
        (row,) = metrics(tmp_path / name)
        assert row["train_loss"] == pytest.approx(total / count, abs=1e-4)
        assert "held_out_nll" not in row


def test_truncated_rows_train_on_what_is_left(tiny: Tiny, tmp_path: Path) -> None:
    traces = coins_traces(8, "verbose")
    limit = 100
    rows = [tiny.renderer.render(one) for one in traces]
    assert any(len(row.input_ids) > limit for row in rows)
    cut = [Rendered(row.input_ids[:limit], row.loss_mask[:limit]) for row in rows]
    total, count = nll(tiny.student.load_model(tiny.built, "cpu").eval(), cut)
    given = {"batch_size": 8, "max_steps": 1, "holdout": 0, "max_length": limit, "overlong": "truncate"}
    train(tiny, traces, tmp_path / "out", **SHORT | given)
    assert metrics(tmp_path / "out")[0]["train_loss"] == pytest.approx(total / count, abs=1e-4)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / ADAPTER).read_bytes()).hexdigest()


def test_held_out_rows_are_not_trained_on(tiny: Tiny, tmp_path: Path) -> None:
    """Other answers in the held-out rows leave the weights as they are, to the last bit; in the others they do not."""
    traces = coins_traces(40)
    out = held_out_of(traces, 0.2)

    def spoiled(is_spoiled: list[bool]) -> list[Trace]:
        return [
            replace(one, reasoning="Mon 0+0=0") if spoil else one for one, spoil in zip(traces, is_spoiled, strict=True)
        ]

    digests, lines = [], []
    for name, rows in {"as is": traces, "out": spoiled(out), "in": spoiled([not one for one in out])}.items():
        (checkpoint,) = train(tiny, rows, tmp_path / name, **SHORT | {"holdout": 0.2})
        digests.append(digest(checkpoint.path))
        lines.append(metrics(tmp_path / name)[0])
    assert digests[0] == digests[1] != digests[2]
    assert lines[0]["train_loss"] == lines[1]["train_loss"]
    assert lines[0]["held_out_nll"] != lines[1]["held_out_nll"]


def test_a_seed_decides_the_weights_and_another_gives_others(tiny: Tiny, tmp_path: Path) -> None:
    traces = coins_traces(40)
    found = {}
    for name, seed in {"first": 3, "again": 3, "other": 4}.items():
        (checkpoint,) = train(tiny, traces, tmp_path / name, seed=seed, **SHORT | {"lora_dropout": 0.1})
        found[name] = (digest(checkpoint.path), (tmp_path / name / "metrics.jsonl").read_text())
    assert found["first"] == found["again"]
    assert found["first"][0] != found["other"][0]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_micro_batch_changes_memory_and_not_the_result(tiny: Tiny, tmp_path: Path, method: str) -> None:
    """Rows of very different length: a mean over micro-batches instead of over tokens would show."""
    import torch
    from safetensors.torch import load_file

    traces = [one for pair in zip(coins_traces(12), coins_traces(12, "verbose"), strict=True) for one in pair]
    given = SHORT | {"method": method, "max_steps": 3, "checkpoint_every": 3, "learning_rate": 1e-3}
    found = {}
    for micro in (0, 2, 1):
        (checkpoint,) = train(tiny, traces, tmp_path / str(micro), **given | {"micro_batch_size": micro})
        (weights,) = checkpoint.path.glob("*.safetensors")
        found[micro] = (metrics(tmp_path / str(micro))[0], load_file(weights))
    whole, tensors = found[0]
    for micro in (2, 1):
        row, others = found[micro]
        for name in ("train_loss", "held_out_nll", "grad_norm"):
            assert row[name] == pytest.approx(whole[name], rel=1e-3), (micro, name)
        distance = sum(float(((tensors[key] - others[key]) ** 2).sum()) for key in tensors) ** 0.5
        size = sum(float((tensor**2).sum()) for tensor in tensors.values()) ** 0.5
        assert distance < 2e-3 * size
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_held_out_nll_does_not_depend_on_its_batches_or_the_models_mode(tiny: Tiny) -> None:
    model = tiny.student.load_model(tiny.built, "cpu")
    rows = [tiny.renderer.render(one) for one in [*coins_traces(9), *coins_traces(4, "verbose")]]
    total, count = nll(model.eval(), rows)
    for batch_size in (1, 4, 16):
        for training in (True, False):
            model.train(training)
            found = held_out_nll(model, rows, batch_size)
            assert found == {"held_out_nll": pytest.approx(total / count, abs=1e-5), "held_out_tokens": count}
            assert model.training is training
    assert held_out_nll(model, []) == {}


def test_a_tokenizer_without_a_pad_token_still_learns_the_end_of_turn(tiny: Tiny, tmp_path: Path) -> None:
    """Padding with the end-of-turn token is how other tools come to mask it: such a model never stops."""
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny.built, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    bare = replace(tiny, built=folder)
    assert bare.student.load_tokenizer(folder).pad_token is None
    traces = coins_traces(8)
    total, count = nll(tiny.student.load_model(tiny.built, "cpu").eval(), [tiny.renderer.render(one) for one in traces])
    train(bare, traces, tmp_path / "out", **SHORT | {"max_steps": 1, "holdout": 0})
    assert metrics(tmp_path / "out")[0]["train_loss"] == pytest.approx(total / count, abs=1e-4)
