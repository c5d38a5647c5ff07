"""The result files that lm-eval's own tracker would have written."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distillbench.report.columns import flat_row
from distillbench.report.files import file_name, put, text_hash, unknown, utf8
from distillbench.report.repeats import AtK
from distillbench.report.results import CheckpointResult, GradedSample, Results
from distillbench.report.statistics import scores, verdicts
from distillbench.report.tables import INVALID, Row


def lm_eval_files(rows: Sequence[Row], results: Results) -> dict[tuple[str, str], bytes]:
    """The files that lm-eval's tracker would have written for one checkpoint.

    A task has lm-eval's name, or `task@evaluation` where two evaluations use it. The filter is our grader. Outcomes
    and intervals stand under the further key `distillbench`. Where a result is INVALID the metric is that word.

    Args:
        rows: The checkpoint on each evaluation.
        results: Where provenance comes from.

    Returns:
        (prefix, suffix) of the file name, the time goes between, and the bytes.

    Source: lm_eval 0.4.13, `result_schema.py`, `evaluator.py`, `evaluator_utils.py`, `loggers/evaluation_tracker.py`.
    """
    times = Counter(row.result.task for row in rows)
    named = {_task_name(row.result, times[row.result.task]): row for row in rows}
    samples = {name: list(_lm_eval_samples(row)) for name, row in named.items()}
    document = _lm_eval_document(named, samples, results)
    files = {("results", ".json"): utf8(json.dumps(document, indent=2, default=unknown, ensure_ascii=False))}
    for name, lines in samples.items():
        text = "".join(json.dumps(line, default=unknown, ensure_ascii=False) + "\n" for line in lines)
        files[f"samples_{file_name(name)}", ".jsonl"] = utf8(text)
    return files


def _task_name(result: CheckpointResult, times: int) -> str:
    return result.task if times == 1 else f"{result.task}@{result.evaluation}"


def _lm_eval_document(
    named: Mapping[str, Row], samples: Mapping[str, list[dict[str, Any]]], results: Results
) -> dict[str, Any]:
    first = next(iter(named.values())).result
    model = f"{first.cell}@{first.step}"
    settings = {name: row.result.settings for name, row in named.items()}
    given = ("git_hash", "date", "lm_eval_version", "transformers_version")
    return {
        "results": {name: _lm_eval_metrics(name, row) for name, row in named.items()},
        "group_subtasks": {},
        "configs": {name: _lm_eval_config(row.result) for name, row in named.items()},
        "versions": {name: values["task_version"] for name, values in settings.items() if "task_version" in values},
        "n-shot": {name: values["num_fewshot"] for name, values in settings.items() if "num_fewshot" in values},
        "higher_is_better": {
            name: {_metric(row): True, "completion_rate": True} | dict.fromkeys(_at_ks(row), True)
            for name, row in named.items()
        },
        "n-samples": {name: _lm_eval_size(row) for name, row in named.items()},
        "config": {
            "model": "distillbench",
            "model_args": {name: getattr(first, name) for name in ("cell", "step", "student", "teacher", "trainer")},
            "random_seed": first.seed,
        },
        **{key: results.provenance[key] for key in given if key in results.provenance},
        "task_hashes": {
            name: text_hash("".join(line["doc_hash"] + line["prompt_hash"] + line["target_hash"] for line in lines))
            for name, lines in samples.items()
        },
        "distillbench": {name: flat_row(row, results) for name, row in named.items()},
        "model_source": "distillbench",
        "model_name": model,
        "model_name_sanitized": re.sub(r"[\"<>:/|\\?*\[\]]+", "__", model),
    }


def _lm_eval_size(row: Row) -> dict[str, int]:
    original = row.result.settings.get("n_docs")
    return ({} if original is None else {"original": original}) | {"effective": row.summary.n_problems}


def _metric(row: Row) -> str:
    return "score" if row.summary.by_score else "acc"


def _filter(result: CheckpointResult) -> str:
    return result.grader or "none"


def _lm_eval_metrics(name: str, row: Row) -> dict[str, Any]:
    summary, grader = row.summary, _filter(row.result)
    value = summary.score if summary.by_score else summary.accuracy
    groups = (scores if summary.by_score else verdicts)(row.result.samples)
    shown: Any = INVALID if summary.invalid else "N/A" if value is None else value
    metrics = {
        "name": name,
        "alias": name,
        "sample_len": summary.n_problems,
        f"{_metric(row)},{grader}": shown,
        f"{_metric(row)}_stderr,{grader}": "N/A" if summary.invalid else _stderr(groups.values()),
    }
    if summary.completion_rate is not None:
        metrics[f"completion_rate,{grader}"] = summary.completion_rate
    for key, at in _at_ks(row).items():
        metrics[f"{key},{grader}"] = "N/A" if at.value is None else at.value
        metrics[f"{key}_stderr,{grader}"] = "N/A" if at.stderr is None else at.stderr
    return metrics


def _at_ks(row: Row) -> dict[str, AtK]:
    """pass@k and maj@k by the names that lm-eval's tasks give them; pass@1 too, which differs from acc with errors."""
    if row.repeats is None:
        return {}
    found = {f"pass@{at.k}": at for at in row.repeats.pass_at}
    return found | ({f"maj@{row.repeats.asked}": row.repeats.majority} if row.repeats.majority else {})


def _stderr(groups: Iterable[Sequence[float]]) -> float | str:
    """The standard error of the mean over documents, as lm-eval's `mean_stderr`; N/A below two documents."""
    from statistics import stdev

    means = [math.fsum(values) / len(values) for values in groups]
    return stdev(means) / math.sqrt(len(means)) if len(means) > 1 else "N/A"


def _lm_eval_config(result: CheckpointResult) -> dict[str, Any]:
    return {
        "task": result.task,
        "output_type": "generate_until",
        "generation_kwargs": dict(result.settings),
        "repeats": 1 + max((sample.repeat for sample in result.samples), default=0),
        "metadata": {"evaluation": result.evaluation, "grader": result.grader, "subset": result.subset},
    }


def _lm_eval_samples(row: Row) -> Iterator[dict[str, Any]]:
    """One line per document, its repeats in `resps`; `doc_id` counts the documents in the order they were asked."""
    documents: dict[str, list[GradedSample]] = {}
    for sample in row.result.samples:
        documents.setdefault(sample.problem_id, []).append(sample)
    for doc_id, group in enumerate(documents.values()):
        yield _lm_eval_sample(doc_id, sorted(group, key=lambda sample: sample.repeat), row)


def _lm_eval_sample(doc_id: int, group: Sequence[GradedSample], row: Row) -> dict[str, Any]:
    first = group[0]
    found = (scores if row.summary.by_score else verdicts)(group).get(first.problem_id)
    metrics = {_metric(row): math.fsum(found) / len(found)} if found else {}  # no key where nothing was scored
    extracted = ["[invalid]" if sample.extracted is None else sample.extracted for sample in group]  # lm-eval's word
    dumped = json.dumps(first.doc, indent=2, default=unknown, ensure_ascii=False)
    return {
        "doc_id": doc_id,
        "doc": first.doc,
        "target": first.gold,
        "arguments": {"gen_args_0": {"arg_0": first.prompt, "arg_1": dict(row.result.settings)}},
        "resps": [[sample.text for sample in group]],
        "filtered_resps": extracted if len(group) == 1 else [extracted],
        "filter": _filter(row.result),
        "metrics": list(metrics),
        "doc_hash": text_hash(dumped),
        "prompt_hash": text_hash(first.prompt),
        "target_hash": text_hash(first.gold),
        **metrics,
        "problem_id": first.problem_id,
        **{name: [getattr(sample, name) for sample in group] for name in _OWN_KEYS},
    }


_OWN_KEYS = ("outcome", "detail", "reasoning_state", "finish_reason", "n_tokens", "ran_on")


def put_lm_eval(folder: Path, files: Mapping[tuple[str, str], bytes], stamp: str) -> list[Path]:
    """Writes the files of one checkpoint, unless equal ones lie there.

    Args:
        folder: Where to.
        files: As `lm_eval_files` gives them.
        stamp: The time in their names.

    Returns:
        What was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    earlier = [path.name.removeprefix("results_").removesuffix(".json") for path in folder.glob("results_*.json")]
    if any(_same(folder, files, time) for time in earlier):
        return []
    # the results come last: whoever sees them finds their samples
    written = []
    for (prefix, suffix), data in reversed(list(files.items())):
        written.append(folder / f"{prefix}_{stamp}{suffix}")
        put(written[-1], data)
    return written


def _same(folder: Path, files: Mapping[tuple[str, str], bytes], stamp: str) -> bool:
    paths = {folder / f"{prefix}_{stamp}{suffix}": data for (prefix, suffix), data in files.items()}
    return all(path.is_file() and path.read_bytes() == data for path, data in paths.items())


def by_checkpoint(rows: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    """The rows of each (cell, step)."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.result.cell, row.result.step), []).append(row)
    return groups
