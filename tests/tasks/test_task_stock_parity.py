"""The stock `lm_eval` command and our engine, parser and graders: the same texts and the same accuracy.

Nothing is prefilled. Two models: one that answers directly, and one that reasons at length and is often cut off.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from plugin_helpers import TASK_ROOT, Run, Tiny, generate, requests_for, tasks

from distillbench.outcomes import CORRECT, decide
from distillbench.records import Generation, Sampling, Verdict
from distillbench_plugins.benchmarks.lm_eval_metric import LmEvalMetric, LmEvalOptions
from distillbench_plugins.benchmarks.math_boxed import MathBoxed, MathBoxedOptions

N = 40
BUDGET = 96


@dataclass(frozen=True)
class Stock:
    """What the stock command wrote of one task: the accuracy, and per sample the text and the metric, by doc id."""

    accuracy: float
    prompts: dict[int, str]
    texts: dict[int, str]
    scores: dict[int, float]


def run_stock(model: Path, output: Path, batch_size: int, budget: int) -> dict[str, Stock]:
    """Runs `python -m lm_eval` as a user would."""
    command = [
        *(sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu"),
        *("--model_args", f"pretrained={model},dtype=float32", "--tasks", "coins,digits"),
        *("--include_path", str(TASK_ROOT), "--apply_chat_template"),
        *(
            "--gen_kwargs",
            f"max_gen_toks={budget}",
            "--limit",
            str(N),
            "--batch_size",
            str(batch_size),
            "--output_path",
            str(output),
            "--log_samples",
        ),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, check=False, env=environment, cwd=output.parent, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (results,) = output.rglob("results_*.json")
    scores = json.loads(results.read_text())["results"]
    found = {}
    for task, metric in (("coins", "exact_match,none"), ("digits", "exact_match,boxed")):
        (samples,) = output.rglob(f"samples_{task}_*.jsonl")
        rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
        found[task] = Stock(
            accuracy=scores[task][metric],
            prompts={row["doc_id"]: row["arguments"]["gen_args_0"]["arg_0"] for row in rows},
            texts={row["doc_id"]: row["resps"][0][0] for row in rows},
            scores={row["doc_id"]: row["exact_match"] for row in rows},
        )
    return found


def ours(
    tiny: Tiny, task: str, checkpoint: Any, budget: int
) -> tuple[dict[int, str], dict[int, Generation], dict[int, Verdict]]:
    """Prompts, generations and verdicts of our own pipeline, by doc id."""
    grader: Any = MathBoxed(MathBoxedOptions())
    if task == "digits":
        grader = LmEvalMetric(LmEvalOptions(metric="exact_match")).with_task(tasks().load("digits"))
    requests = requests_for(tiny, task, N, Sampling(max_tokens=budget))
    found = generate(tiny, requests, checkpoint)
    prompts, generations, verdicts = {}, {}, {}
    for number, (problem, request) in enumerate(zip(tasks().problems(task, "test", N), requests, strict=True)):
        one = found[request.sample_id]
        assert one.finish_reason is not None
        completion = tiny.renderer.parse(one.token_ids, one.text, one.finish_reason, request.prompt.prefill)
        prompts[number] = tiny.tokenizer.decode(request.prompt.input_ids.tolist(), skip_special_tokens=False)
        generations[number], verdicts[number] = one, decide(completion, problem, grader)
    return prompts, generations, verdicts


@pytest.fixture(scope="module", params=["direct answers", "long reasoning"])
def both(request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The stock results of a model, and ours.

    Long reasoning gets less than its longest output, so that some of it is cut whatever was learned on this machine.
    """
    if request.param == "direct answers":
        checkpoint, model, batch_size, budget = None, tiny.built, 16, BUDGET
    else:
        checkpoint = request.getfixturevalue("full").checkpoints[-1]
        _, uncut, _ = ours(tiny, "coins", checkpoint, BUDGET)
        model, batch_size, budget = checkpoint.path, 1, max(len(one.token_ids) for one in uncut.values()) - 12
    stock = run_stock(model, tmp_path_factory.mktemp("stock") / "results", batch_size, budget)
    return request.param, {task: (stock[task], *ours(tiny, task, checkpoint, budget)) for task in ("coins", "digits")}


@pytest.mark.slow
def test_prompts_texts_and_accuracy_are_the_stock_commands(both: Any) -> None:
    for task, (stock, prompts, generations, verdicts) in both[1].items():
        assert prompts == stock.prompts, task
        assert {number: one.text for number, one in generations.items()} == stock.texts, task
        right = {number: float(one.outcome == CORRECT) for number, one in verdicts.items()}
        assert right == stock.scores, task
        assert sum(right.values()) / N == pytest.approx(stock.accuracy), task


@pytest.mark.slow
def test_the_comparison_is_one(both: Any, full: Run) -> None:
    """Neither everything right nor everything wrong, and the long outputs hold tags and cuts."""
    kind, found = both
    for task, (stock, _, generations, verdicts) in found.items():
        outcomes = Counter(one.outcome for one in verdicts.values())
        reasons = Counter(one.finish_reason for one in generations.values())
        print(f"{kind}, {task}: stock accuracy {stock.accuracy}, outcomes {dict(outcomes)}, {dict(reasons)}")
        if kind == "direct answers":
            assert 0 < stock.accuracy < 1
            assert set(outcomes) == {"correct", "wrong"}
        if kind == "long reasoning" and task == "coins":
            assert 1 <= outcomes["truncated"] + outcomes["loop"] <= reasons["length"]
            assert any("<think>" in text and "</think>" in text for text in stock.texts.values())
            assert len(set(stock.texts.values())) >= 4
