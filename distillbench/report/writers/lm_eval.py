"""The result files that lm-eval's own tracker would have written."""

from __future__ import annotations

import filecmp
import hashlib
import json
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np

from distillbench.outcomes import CORRECT, ERRORS, GRADED
from distillbench.report.evaluated import Evaluated
from distillbench.report.results import CheckpointResult, GradedSample, Results
from distillbench.report.statistics.repeats import AtK
from distillbench.report.statistics.values import Values, score_values, verdicts
from distillbench.report.words import INVALID
from distillbench.report.writers.columns import flat_row
from distillbench.report.writers.files import file_name, text_hash, unknown, utf8
from distillbench.writing import naming

#: Keys of a line that lm-eval does not know, one value for each repeat.
_OWN_KEYS = ("outcome", "detail", "reasoning_state", "finish_reason", "n_tokens", "ran_on")


def put_lm_eval(folder: Path, rows: Sequence[Evaluated], results: Results) -> list[Path]:
    """Writes the files that lm-eval's tracker would have written for one checkpoint.

    Their time is that of the newest result, so that a result has one set of them however often it is reported; an older
    set goes once all that it holds is in the new one.

    A task has lm-eval's name, or `task@evaluation` where two evaluations use it. The filter is our grader. Outcomes
    and intervals stand under the further key `distillbench`. Where a result is INVALID the metric is that word.

    Args:
        folder: Where to.
        rows: The checkpoint on each evaluation.
        results: Where provenance comes from.

    Returns:
        What was written.

    Source: lm_eval 0.4.13, `result_schema.py`, `evaluator.py`, `evaluator_utils.py`, `loggers/evaluation_tracker.py`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stamp = _stamp(rows)
    earlier = [path.name.removeprefix("results_").removesuffix(".json") for path in folder.glob("results_*.json")]
    with _scratch(folder) as scratch:
        made = _write(scratch, rows, results)
        written = [folder / _stamped(path, stamp) for path in made]
        for path, target in zip(made, written, strict=True):
            there = (folder / _stamped(path, time) for time in earlier)
            _put(path, target, next((one for one in there if _is_same(path, one)), None))
    for time in earlier:
        if time != stamp:
            _drop(folder, time, stamp)
    return written


def _stamp(rows: Sequence[Evaluated]) -> str:
    """When the last of some results was graded, as lm-eval's tracker writes a time into names of files."""
    time = datetime.fromtimestamp(max(row.result.graded_at for row in rows), UTC).replace(tzinfo=None)
    return time.isoformat(timespec="microseconds").replace(":", "-")


def _drop(folder: Path, earlier: str, stamp: str) -> None:
    """Removes an older set of files of which the new one holds every result; its results go last."""
    old = list(folder.glob(f"samples_*_{escape(earlier)}.jsonl"))
    new = [folder / f"{path.name.removesuffix(f'{earlier}.jsonl')}{stamp}.jsonl" for path in old]
    if old and all(_is_same(path, there) for path, there in zip(old, new, strict=True)):
        for path in (*old, folder / f"results_{earlier}.json"):
            path.unlink(missing_ok=True)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for files that are not whole yet; it goes at the end."""
    scratch = folder / f".{os.getpid()}.tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir()
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _stamped(path: Path, stamp: str) -> str:
    """lm-eval's name of a file: the time stands before its suffix, and a task's name may hold a dot."""
    return f"{path.name.removesuffix(path.suffix)}_{stamp}{path.suffix}"


def _is_same(path: Path, there: Path) -> bool:
    """Whether a file lies there already."""
    return there.is_file() and filecmp.cmp(path, there, shallow=False)


def _put(path: Path, target: Path, earlier: Path | None) -> None:
    """Gives a file its place; one that is there under an earlier time gets another name and takes no more room."""
    with naming(target):
        if earlier == target:
            return
        if earlier is not None and path.suffix != ".json":
            with suppress(OSError):  # a file system without hard links holds it twice
                linked = path.with_name(f"{path.name}.link")
                os.link(earlier, linked)
                linked.replace(target)
                return
        path.replace(target)


def _write(scratch: Path, rows: Sequence[Evaluated], results: Results) -> list[Path]:
    """The files, without a time in their names. The results come last: whoever sees them finds their samples."""
    times = Counter(row.result.task for row in rows)
    named = {_task_name(row.result, times[row.result.task]): row for row in rows}
    paths = {name: scratch / f"samples_{file_name(name)}.jsonl" for name in named}
    hashes = {name: _write_samples(paths[name], row) for name, row in named.items()}
    document = json.dumps(_document(named, hashes, results), indent=2, default=unknown, ensure_ascii=False)
    last = scratch / "results.json"
    with naming(last):
        last.write_bytes(utf8(document))
    return [*reversed(paths.values()), last]


def _write_samples(path: Path, row: Evaluated) -> str:
    """One line per document; returns the task's hash."""
    of_task = hashlib.sha256()
    with path.open("wb") as file:
        for line in _lines(row):
            with naming(path):
                file.write(utf8(json.dumps(line, default=unknown, ensure_ascii=False) + "\n"))
            of_task.update(utf8(line["doc_hash"] + line["prompt_hash"] + line["target_hash"]))
    return of_task.hexdigest()


def _task_name(result: CheckpointResult, times: int) -> str:
    return result.task if times == 1 else f"{result.task}@{result.evaluation}"


def _document(named: Mapping[str, Evaluated], hashes: Mapping[str, str], results: Results) -> dict[str, Any]:
    first = next(iter(named.values())).result
    model = f"{first.cell}@{first.step}"
    settings = {name: row.result.settings for name, row in named.items()}
    given = ("git_hash", "lm_eval_version", "transformers_version")
    return {
        "results": {name: _metrics(name, row) for name, row in named.items()},
        "group_subtasks": {},
        "configs": {name: _config(row.result) for name, row in named.items()},
        "versions": {name: values["task_version"] for name, values in settings.items() if "task_version" in values},
        "n-shot": {name: values["num_fewshot"] for name, values in settings.items() if "num_fewshot" in values},
        "higher_is_better": {
            name: {_metric(row): True, "completion_rate": True} | dict.fromkeys(_at_ks(row), True)
            for name, row in named.items()
        },
        "n-samples": {name: _size(row) for name, row in named.items()},
        "config": {
            "model": "distillbench",
            "model_args": {name: getattr(first, name) for name in ("cell", "step", "student", "teacher", "trainer")},
            "random_seed": first.seed,
        },
        "date": max(row.result.graded_at for row in named.values()),
        **{key: results.provenance[key] for key in given if key in results.provenance},
        "task_hashes": hashes,
        "distillbench": {name: flat_row(row) for name, row in named.items()},
        "model_source": "distillbench",
        "model_name": model,
        "model_name_sanitized": re.sub(r"[\"<>:/|\\?*\[\]]+", "__", model),
    }


def _size(row: Evaluated) -> dict[str, int]:
    original = row.result.settings.get("n_docs")
    return ({} if original is None else {"original": original}) | {"effective": row.summary.n_problems}


def _metric(row: Evaluated) -> str:
    return "score" if row.summary.by_score else "acc"


def _filter(result: CheckpointResult) -> str:
    return result.grader or "none"


def _metrics(name: str, row: Evaluated) -> dict[str, Any]:
    summary, grader = row.summary, _filter(row.result)
    value = summary.score if summary.by_score else summary.accuracy
    values = (score_values if summary.by_score else verdicts)(row.result.scores)
    shown: Any = INVALID if summary.invalid else "N/A" if value is None else value
    metrics = {
        "name": name,
        "alias": name,
        "sample_len": summary.n_problems,
        f"{_metric(row)},{grader}": shown,
        f"{_metric(row)}_stderr,{grader}": "N/A" if summary.invalid else _stderr(values),
    }
    if summary.completion_rate is not None:
        metrics[f"completion_rate,{grader}"] = summary.completion_rate
    for key, at in _at_ks(row).items():
        metrics[f"{key},{grader}"] = "N/A" if at.value is None else at.value
        metrics[f"{key}_stderr,{grader}"] = "N/A" if at.stderr is None else at.stderr
    return metrics


def _at_ks(row: Evaluated) -> dict[str, AtK]:
    """pass@k and maj@k by the names that lm-eval's tasks give them; pass@1 too, which differs from acc with errors."""
    if row.repeats is None:
        return {}
    found = {f"pass@{at.k}": at for at in row.repeats.pass_at}
    return found | ({f"maj@{row.repeats.asked}": row.repeats.majority} if row.repeats.majority else {})


def _stderr(values: Values) -> float | str:
    """The standard error of the mean over documents, as lm-eval's `mean_stderr`; N/A below two documents."""
    means = values.means().tolist()
    return stdev(means) / math.sqrt(len(means)) if len(means) > 1 else "N/A"


def _config(result: CheckpointResult) -> dict[str, Any]:
    return {
        "task": result.task,
        "output_type": "generate_until",
        "generation_kwargs": dict(result.settings),
        "repeats": 1 + int(result.scores.repeat.max(initial=0)),
        "metadata": {"evaluation": result.evaluation, "grader": result.grader, "subset": result.subset},
    }


def _lines(row: Evaluated) -> Iterator[dict[str, Any]]:
    """One line per document, its repeats in `resps`; `doc_id` counts the documents in the order they were asked.

    Held are the documents of which a repeat is still to come: one, where those of a document lie side by side.
    """
    scores = row.result.scores
    asked = np.bincount(scores.problem)
    open_documents: dict[int, list[GradedSample]] = {}
    next_id = 0
    for document, sample in zip(scores.problem.tolist(), row.result.samples(), strict=True):
        open_documents.setdefault(document, []).append(sample)
        while len(group := open_documents.get(next_id, ())) and len(group) == asked[next_id]:
            yield _line(next_id, sorted(open_documents.pop(next_id), key=lambda sample: sample.repeat), row)
            next_id += 1


def _line(doc_id: int, group: Sequence[GradedSample], row: Evaluated) -> dict[str, Any]:
    first = group[0]
    found = _found(group, row.summary.by_score)
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


def _found(group: Sequence[GradedSample], by_score: bool) -> list[float]:
    """What the scored samples of a document are worth."""
    if by_score:
        return [float(sample.scores["score"]) for sample in group if sample.outcome == GRADED]
    return [float(sample.outcome == CORRECT) for sample in group if sample.outcome not in ERRORS]


def by_checkpoint(rows: Sequence[Evaluated]) -> dict[tuple[str, int], list[Evaluated]]:
    """The rows of each (cell, step)."""
    groups: dict[tuple[str, int], list[Evaluated]] = {}
    for row in rows:
        groups.setdefault((row.result.cell, row.result.step), []).append(row)
    return groups
