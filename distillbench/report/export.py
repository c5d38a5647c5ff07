"""The report's files: report.md, results.parquet, samples.parquet, budgets.parquet, and lm-eval's own result files.

Equal results give equal bytes: rows have a fixed order, and no time stands in any file but in lm-eval's file names.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillbench.outcomes import OUTCOMES
from distillbench.report.markdown import render_markdown
from distillbench.report.repeats import AtK, Repeats, most_repeats
from distillbench.report.results import CheckpointResult, GradedSample, Results, Section
from distillbench.report.statistics import REASONING_STATES, Interval, scores, verdicts
from distillbench.report.tables import INVALID, Row, budget_of, budget_rows, build_rows, conclusions, notes

if TYPE_CHECKING:
    import pyarrow as pa

_TEXT, _WHOLE, _REAL, _YES_NO = "string", "int64", "float64", "bool"
_LONGEST_NAME = 100

ROW_COLUMNS: Mapping[str, str] = {
    "cell": _TEXT,
    "step": _WHOLE,
    **dict.fromkeys(("evaluation", "task"), _TEXT),
    "is_baseline": _YES_NO,
    **dict.fromkeys(("teacher", "student", "renderer", "trainer", "filters"), _TEXT),
    "seed": _WHOLE,
    **dict.fromkeys(("axes", "subset", "settings", "grader"), _TEXT),
    **dict.fromkeys(("n", "n_problems", *(f"n_{outcome}" for outcome in OUTCOMES), "scored", "errors"), _WHOLE),
    **dict.fromkeys(("invalid", "by_score"), _YES_NO),
    **dict.fromkeys(("completion_rate", "accuracy", "accuracy_low", "accuracy_high"), _REAL),
    **dict.fromkeys(("accuracy_completed", "accuracy_completed_low", "accuracy_completed_high"), _REAL),
    **dict.fromkeys(("bound_low", "bound_high", "score", "score_low", "score_high"), _REAL),
    "repeats": _WHOLE,
    "pass_at_k": _TEXT,
    **dict.fromkeys(("maj_at_k", "maj_at_k_low", "maj_at_k_high"), _REAL),
    **dict.fromkeys((f"reasoning_{state}" for state in REASONING_STATES), _REAL),
    "ran_on": _WHOLE,
    "tokens_median": _REAL,
    "tokens_p95": _WHOLE,
    "baseline": _TEXT,
    **dict.fromkeys(("difference", "difference_low", "difference_high", "difference_p"), _REAL),
    "difference_method": _TEXT,
    **dict.fromkeys(("n_pairs", "n_dropped"), _WHOLE),
    "difference_reason": _TEXT,
    **dict.fromkeys(("train_loss", "held_out_nll"), _REAL),
    "held_out_tokens": _WHOLE,
    "accepted": _TEXT,
}

#: `recomputed_from` is the budget of the generation that was cut; null where the row is that generation itself.
BUDGET_COLUMNS: Mapping[str, str] = {"budget": _WHOLE, "recomputed_from": _WHOLE, **ROW_COLUMNS}

SAMPLE_COLUMNS: Mapping[str, str] = {
    "cell": _TEXT,
    "step": _WHOLE,
    **dict.fromkeys(("evaluation", "task", "problem_id"), _TEXT),
    "repeat": _WHOLE,
    **dict.fromkeys(("outcome", "detail", "extracted", "canonical", "scores", "reasoning_state"), _TEXT),
    "n_tokens": _WHOLE,
    "ran_on": _YES_NO,
    **dict.fromkeys(("finish_reason", "text", "prompt", "gold", "doc"), _TEXT),
}


def write(results: Results, folder: Path, sections: Iterable[Section] = (), now: datetime | None = None) -> list[Path]:
    """Writes every file of the report; each appears whole or not at all.

    An lm-eval file whose content is already there under an earlier time is not written again; one with other content
    is left where it is.

    Args:
        results: What to write.
        folder: Made where it is not there.
        sections: Plugins' sections for report.md.
        now: The time in lm-eval's file names; the clock's, in UTC, where None.

    Returns:
        The files written.

    Raises:
        ResultsError: Samples contradict one another.
        OSError: A file cannot be written.
    """
    rows = build_rows(results)
    folder.mkdir(parents=True, exist_ok=True)
    _put(folder / "report.md", _utf8(render_markdown(results, sections)))
    _put_table(folder / "results.parquet", ROW_COLUMNS, [[flat_row(row, results) for row in rows]])
    _put_table(folder / "samples.parquet", SAMPLE_COLUMNS, (_sample_rows(row.result) for row in rows))
    written = [folder / name for name in ("report.md", "results.parquet", "samples.parquet")]
    written += _put_budgets(folder / "budgets.parquet", results, rows)
    time = (now or datetime.now(UTC)).replace(tzinfo=None)
    stamp = time.isoformat().replace(":", "-")  # as lm-eval's tracker does
    for (cell, step), group in _by_checkpoint(rows).items():
        written += _put_lm_eval(folder / "lm_eval" / f"{_file_name(cell)}@{step}", lm_eval_files(group, results), stamp)
    return written


def _put_budgets(path: Path, results: Results, rows: Sequence[Row]) -> list[Path]:
    """The budget curves; without any, an earlier report's file goes."""
    found = _budget_rows(results, rows)
    if not found:
        path.unlink(missing_ok=True)
        return []
    _put_table(path, BUDGET_COLUMNS, [found])
    return [path]


def _budget_rows(results: Results, rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {
            "budget": budget_of(row),
            "recomputed_from": None if row.result.budget is None else row.result.settings.get("max_tokens"),
            **flat_row(row, results),
        }
        for curve in budget_rows(results, rows).values()
        for row in curve
    ]


def summary_json(results: Results) -> dict[str, Any]:
    """The report's numbers as plain JSON values, for `distillbench report --json`. No NaN: it becomes null."""
    rows = build_rows(results)
    document = {
        "matrix": results.matrix,
        "provenance": results.provenance,
        "rows": [flat_row(row, results) for row in rows],
        "budgets": _budget_rows(results, rows),
        "cells": [
            {
                "name": cell.name,
                "is_baseline": cell.is_baseline,
                "axes": cell.axes,
                "nll": [{name: getattr(point, name) for name in point.__slots__} for point in cell.nll],
                "traces": cell.traces,
                "problems": cell.problems,
                "missing": cell.missing,
                "preflight": cell.preflight,
            }
            for cell in results.cells
        ],
        "conclusions": conclusions(rows),
        "notes": notes(rows, results),
    }
    finite: dict[str, Any] = _finite(document)
    return finite


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


# --- rows -----------------------------------------------------------------------------------------------------------


def flat_row(row: Row, results: Results) -> dict[str, Any]:
    """Every number of a row, under the names of `ROW_COLUMNS`."""
    result, summary, gap, nll = row.result, row.summary, row.difference, row.nll
    axes = next((cell.axes for cell in results.cells if cell.name == result.cell), {})
    plain_fields = ("cell", "step", "evaluation", "task", "is_baseline", "teacher", "student", "renderer", "trainer")
    numbers = ("n", "n_problems", "scored", "errors", "invalid", "by_score", "completion_rate")
    flat = {name: getattr(result, name) for name in (*plain_fields, "seed", "subset", "grader")}
    flat |= {"accepted": ", ".join(result.accepted)}
    flat |= {"filters": ", ".join(result.filters), "axes": _json(axes), "settings": _json(result.settings)}
    flat |= {name: getattr(summary, name) for name in (*numbers, "ran_on", "tokens_median", "tokens_p95")}
    flat |= {f"n_{outcome}": count for outcome, count in summary.counts.items()}
    flat |= {f"reasoning_{state}": summary.reasoning.get(state) for state in REASONING_STATES}
    flat |= _spread("accuracy", summary.accuracy, summary.accuracy_interval)
    flat |= _spread("accuracy_completed", summary.accuracy_completed, summary.accuracy_completed_interval)
    flat |= _spread("score", summary.score, summary.score_interval)
    flat |= {"repeats": most_repeats(result.samples)} | _together(row.repeats)
    flat |= {f"bound_{end}": getattr(summary.bounds, end, None) for end in ("low", "high")}
    flat |= _spread("difference", gap.value if gap else None, gap.interval if gap else None)
    flat |= {"baseline": result.baseline, "difference_p": gap.p_value if gap else None}
    flat |= {f"difference_{name}": getattr(gap, name, None) for name in ("method", "reason")}
    flat |= {name: getattr(gap, name, None) for name in ("n_pairs", "n_dropped")}
    flat |= {name: getattr(nll, name, None) for name in ("train_loss", "held_out_nll", "held_out_tokens")}
    return {name: flat[name] for name in ROW_COLUMNS}


def _together(repeats: Repeats | None) -> dict[str, Any]:
    """pass@k as JSON, because every evaluation has k of its own; maj@k is at `repeats`."""
    if repeats is None:
        return {"pass_at_k": None} | _spread("maj_at_k", None, None)
    found = {
        str(at.k): _spread("value", at.value, at.interval) | {"n_problems": at.n_problems, "n_left_out": at.n_left_out}
        for at in repeats.pass_at
    }
    majority = repeats.majority
    spread = _spread("maj_at_k", majority.value if majority else None, majority.interval if majority else None)
    return {"pass_at_k": _json(found)} | spread


def _spread(name: str, value: float | None, interval: Interval | None) -> dict[str, float | None]:
    ends = {f"{name}_{end}": getattr(interval, end, None) for end in ("low", "high")}
    return {name: value, **ends}


def _sample_rows(result: CheckpointResult) -> list[dict[str, Any]]:
    here = {name: getattr(result, name) for name in ("cell", "step", "evaluation", "task")}
    own = [name for name in SAMPLE_COLUMNS if name not in here and name not in ("scores", "doc")]
    return [
        here
        | {name: getattr(sample, name) for name in own}
        | {"scores": _json(sample.scores), "doc": _json(sample.doc)}
        for sample in result.samples
    ]


def _put_table(path: Path, columns: Mapping[str, str], batches: Iterable[Sequence[Mapping[str, Any]]]) -> None:
    """One row group per batch, so that only one checkpoint's samples are held twice."""
    import pyarrow.parquet as pq

    schema = _schema(columns)
    with _whole(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(_arrow(batch, schema))


def _schema(columns: Mapping[str, str]) -> pa.Schema:
    import pyarrow as pa

    types = {_TEXT: pa.string(), _WHOLE: pa.int64(), _REAL: pa.float64(), _YES_NO: pa.bool_()}
    return pa.schema([(name, types[kind]) for name, kind in columns.items()])


def _arrow(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    clean = [{key: _storable(value) for key, value in row.items()} for row in rows]
    return pa.Table.from_pylist(clean, schema=schema)


def _storable(value: Any) -> Any:
    # an API may send half a surrogate pair, which is no UTF-8
    return _utf8(value).decode() if isinstance(value, str) and not value.isascii() else value


# --- lm-eval --------------------------------------------------------------------------------------------------------


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
    files = {("results", ".json"): _utf8(json.dumps(document, indent=2, default=_unknown, ensure_ascii=False))}
    for name, lines in samples.items():
        text = "".join(json.dumps(line, default=_unknown, ensure_ascii=False) + "\n" for line in lines)
        files[f"samples_{_file_name(name)}", ".jsonl"] = _utf8(text)
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
            name: _hash("".join(line["doc_hash"] + line["prompt_hash"] + line["target_hash"] for line in lines))
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
    dumped = json.dumps(first.doc, indent=2, default=_unknown, ensure_ascii=False)
    return {
        "doc_id": doc_id,
        "doc": first.doc,
        "target": first.gold,
        "arguments": {"gen_args_0": {"arg_0": first.prompt, "arg_1": dict(row.result.settings)}},
        "resps": [[sample.text for sample in group]],
        "filtered_resps": extracted if len(group) == 1 else [extracted],
        "filter": _filter(row.result),
        "metrics": list(metrics),
        "doc_hash": _hash(dumped),
        "prompt_hash": _hash(first.prompt),
        "target_hash": _hash(first.gold),
        **metrics,
        "problem_id": first.problem_id,
        **{name: [getattr(sample, name) for sample in group] for name in _OWN_KEYS},
    }


_OWN_KEYS = ("outcome", "detail", "reasoning_state", "finish_reason", "n_tokens", "ran_on")


def _put_lm_eval(folder: Path, files: Mapping[tuple[str, str], bytes], stamp: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    earlier = [path.name.removeprefix("results_").removesuffix(".json") for path in folder.glob("results_*.json")]
    if any(_same(folder, files, time) for time in earlier):
        return []
    # the results come last: whoever sees them finds their samples
    written = []
    for (prefix, suffix), data in reversed(list(files.items())):
        written.append(folder / f"{prefix}_{stamp}{suffix}")
        _put(written[-1], data)
    return written


def _same(folder: Path, files: Mapping[tuple[str, str], bytes], stamp: str) -> bool:
    paths = {folder / f"{prefix}_{stamp}{suffix}": data for (prefix, suffix), data in files.items()}
    return all(path.is_file() and path.read_bytes() == data for path, data in paths.items())


def _by_checkpoint(rows: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.result.cell, row.result.step), []).append(row)
    return groups


# --- files ----------------------------------------------------------------------------------------------------------


def _file_name(name: str) -> str:
    """A name for a file or folder; one that had to be changed gets a hash, so that no two share one."""
    clean = re.sub(r"[^\w.,=+@-]", "_", name)[:_LONGEST_NAME]
    return clean if clean == name else f"{clean}-{_hash(name)[:8]}"


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`, which takes its place at the end, or goes when writing fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _put(path: Path, data: bytes) -> None:
    with _whole(path) as temporary:
        temporary.write_bytes(data)


def _utf8(text: str) -> bytes:
    # half a surrogate pair becomes its escape, which in JSON still means the same
    return text.encode("utf-8", errors="backslashreplace")


def _hash(text: str) -> str:
    return hashlib.sha256(_utf8(text)).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=_unknown, ensure_ascii=False)


def _unknown(value: Any) -> Any:
    """As lm-eval's `handle_non_serializable`: numpy scalars are numbers, a set is a list, the rest is text."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)  # lm-eval keeps the set's own order, which changes from run to run
    if isinstance(value, Mapping):
        return dict(value)
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)
