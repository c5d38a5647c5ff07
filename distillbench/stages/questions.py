"""The problems that a sample stage asks: an evaluation's, a task's split, a teacher's, or those of a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from distillbench.errors import StageError
from distillbench.records import Message, Problem, Questions, Role, Trace
from distillbench.store.kept import Whole

if TYPE_CHECKING:
    from distillbench.bench import Bench
    from distillbench.stages.traces import Traces

#: What a line of a file may say, beside `question` or `messages`.
_TEXTS = ("gold", "problem_id", "domain")


def asked_problems(asked: Questions, source: Traces | None, bench: Bench) -> list[Problem]:
    """The problems of a teacher that asks.

    Args:
        asked: What it asks.
        source: The traces whose problems are asked; None where they are a task's or a file's.
        bench: The store and the tasks.

    Raises:
        StageError: There are none, or fewer than are asked for, or the file has a line that is none.
        TaskError: The task has no such split.
    """
    if source is not None:
        found, whose = list(islice(distinct(Whole(bench.store, source)), asked.limit)), f"teacher {source.label!r}"
    elif asked.path is not None:
        found, whose = list(islice(_of_file(asked.path), asked.limit)), str(asked.path)
    else:
        found = bench.tasks.problems(asked.task or "", asked.split, asked.limit)[: asked.limit]
        whose = f"the split {asked.split!r} of task {asked.task!r}"
    if len(found) < (asked.limit or 1):
        raise StageError(f"{whose} has {len(found)} problems; wanted: {asked.limit or 'one at least'}")
    return found


def distinct(traces: Iterable[Trace]) -> Iterator[Problem]:
    """The problems of traces, each once.

    Raises:
        StageError: Two problems have one id.
    """
    seen: dict[str, int] = {}
    for problem in (trace.problem for trace in traces):
        asked = hash(problem.messages)
        if problem.problem_id not in seen:
            seen[problem.problem_id] = asked
            yield problem
        elif seen[problem.problem_id] != asked:
            raise StageError(f"two problems have the id {problem.problem_id!r}, and ask different things")


def _of_file(path: Path) -> Iterator[Problem]:
    if path.is_dir():
        raise StageError(f"{path}: wanted a file of JSON lines\n    got: a folder")
    seen: dict[str, int] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            problem = _of_line(line, path, number)
            if problem.problem_id in seen:
                told = f"problem_id {problem.problem_id!r} is line {seen[problem.problem_id]}'s too"
                raise StageError(f"{path}:{number}: {told}")
            seen[problem.problem_id] = number
            yield problem


def _of_line(given_line: bytes, path: Path, number: int) -> Problem:
    """A problem.

    Raises:
        StageError: The line is none.
    """
    try:
        line = given_line.decode("utf-8-sig" if number == 1 else "utf-8")
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()  # half of a character can be written as an escape
    except UnicodeError as error:
        raise StageError(f"{path}:{number}: wanted text in UTF-8, of whole characters: {error}") from error
    except ValueError as error:
        raise StageError(f"{path}:{number}: wanted one JSON object in the line: {error}") from error
    wrong = "no object" if not isinstance(row, dict) else _why_not(row)
    if wrong:
        told = "`question`, a text, or `messages`, a list of {role, content}; gold, problem_id and domain are texts"
        raise StageError(f"{path}:{number}: wanted {told}\n    got: {wrong}: {line.strip()[:200]!r}")
    given = row.get("messages") or [{"role": "user", "content": row["question"]}]
    messages = tuple(Message(one["role"], one["content"]) for one in given)
    texts = {name: row.get(name) or "" for name in _TEXTS}
    return Problem(texts["problem_id"] or f"{path.stem}/{number - 1}", texts["domain"], messages, texts["gold"])


def _why_not(row: dict[str, Any]) -> str:
    """What is wrong with a line's object; empty for a problem."""
    messages = row.get("messages")
    if messages is None:
        question = row.get("question")
        if not isinstance(question, str) or not question.strip():
            return "no `question`" if question is None else "`question` is no text"
    elif not (isinstance(messages, list) and messages and all(map(_is_message, messages))):
        return "`messages` is no list of messages"
    return next((f"`{name}` is no text" for name in _TEXTS if not isinstance(row.get(name, ""), str)), "")


def _is_message(given: Any) -> bool:
    return isinstance(given, dict) and given.get("role") in get_args(Role) and isinstance(given.get("content"), str)
