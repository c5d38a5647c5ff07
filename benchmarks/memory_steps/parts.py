"""The components and the bench of the stages that are measured."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillbench.bench import Bench
from distillbench.catalog import Catalog
from distillbench.hookspecs import hookimpl
from distillbench.manager import make_manager
from distillbench.protocols import Context, Filter, Grader, Teacher
from distillbench.records import Choice, Judgement, Message, Problem, Trace
from distillbench.store.store import Store
from distillbench.tasks.identity import TaskIndex
from distillbench.tasks.loader import LmEvalTasks
from distillbench_plugins.students.tiny_qwen3 import TinyQwen3
from memory_steps.made import Size, Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Number(Grader):
    """Compares a boxed number."""

    name = "number"

    def extract(self, answer: str, problem: Problem) -> str | None:
        """What stands in the box."""
        return answer.rpartition("\\boxed{")[2].partition("}")[0] or None

    def judge(self, problem: Problem, extracted: str) -> Judgement:
        """Right where it is the gold answer."""
        return Judgement(extracted == problem.gold)


@dataclass(frozen=True)
class MadeOptions:
    """How many traces, and how long."""

    n: int
    scale: float


class Made(Teacher[MadeOptions]):
    """Gives as many traces as it is told to."""

    name = "made"

    def traces(self, context: Context, start: int) -> Iterator[Trace]:
        """All of them; every run gives the same."""
        text = Text(Size(self.options.n, self.options.scale))
        for number, n_tokens in enumerate(text.lengths()):
            one = problem(number, text)
            trace = Trace(one, text.text(n_tokens), "So it is \\boxed{7}.", "stop", n_tokens, "made", f"row {number}")
            if number >= start:
                yield trace


class Sevenths(Filter):
    """Rejects one trace of seven."""

    name = "sevenths"

    def reason(self, trace: Trace, context: Any) -> str | None:
        """By the number of its problem."""
        return "seventh: as it happens" if int(trace.problem.problem_id.partition("/")[2]) % 7 == 0 else None


class Tiny(TinyQwen3):
    """The tiny student, which need not be built for its tokenizer."""

    name = "tiny"

    def load_tokenizer(self, built: Path | None) -> PreTrainedTokenizerBase:
        """The one it will have."""
        return self.preview_tokenizer()


@hookimpl
def distillbench_benchmarks() -> list[type[Grader]]:
    """The grader that is measured with."""
    return [Number]


@hookimpl
def distillbench_teachers() -> list[type[Teacher]]:
    """The teacher that is measured with."""
    return [Made]


@hookimpl
def distillbench_filters() -> list[type[Filter]]:
    """The filter that is measured with."""
    return [Sevenths]


@hookimpl
def distillbench_students() -> list[type[Tiny]]:
    """The student that is measured with."""
    return [Tiny]


@cache
def catalog() -> Catalog:
    """The components that there are, and those of this module."""
    manager = make_manager(())
    manager.register(sys.modules[__name__], "memory")
    return Catalog(manager)


def choice(kind: str, component: str, **options: Any) -> Choice:
    """A component, chosen."""
    made = catalog().kind(kind)[component].Options(**options)
    return Choice(kind, component, component, made, "{}")


def bench_in(folder: Path) -> Bench:
    """What stages work with."""
    store = Store(folder / "store")
    store.prepare()
    return Bench(store, catalog(), LmEvalTasks(TaskIndex(())))


def problem(number: int, text: Text) -> Problem:
    """A problem of some 300 characters, twice: its message, and its task's document."""
    asked = text.text(90)
    return Problem(f"p/{number}", "t", (Message("user", asked),), "7", {"doc": {"problem": asked, "answer": "7"}})
