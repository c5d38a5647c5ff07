"""The `synthetic` teacher: correct worked solutions in two styles, made without a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from annotated_types import Gt

from distillbench.errors import StageError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Context, Teacher
from distillbench.records import Trace
from distillbench_tasks.coins.problems import sums

#: What it reads of a document.
_NEEDS = frozenset({"answer", "start", "steps"})


@dataclass(frozen=True)
class SyntheticOptions:
    """Options of the `synthetic` teacher.

    Attributes:
        style: `concise` writes one short sum a step; `verbose` doubts and repeats each of them.
        task: The task whose training problems it solves; its documents need what those of coins have.
        n: Problems to solve.
    """

    style: Literal["concise", "verbose"] = "concise"
    task: str = "coins"
    n: Annotated[int, Gt(0)] = 1000


class SyntheticTeacher(Teacher[SyntheticOptions]):
    """Worked solutions of step-by-step word problems, always right, concise or verbose."""

    name = "synthetic"

    def task(self) -> str:
        """The task whose problems it solves."""
        return self.options.task

    def preview(self, context: Context, limit: int) -> list[Trace]:
        """The first traces; they cost nothing."""
        first = replace(self.options, n=min(limit, self.options.n))
        return list(SyntheticTeacher(first).traces(context, start=0))

    def traces(self, context: Context, start: int) -> Iterator[Trace]:
        """One trace for each of the first `n` training problems, from number `start` on."""
        if context.tasks is None:
            raise ValueError("the synthetic teacher needs `tasks` in its context")
        problems = context.tasks.problems(self.options.task, "train", self.options.n)
        if len(problems) < self.options.n:
            raise StageError(
                f"task {self.options.task!r} has {len(problems)} training problems; the teacher's n is {self.options.n}"
            )
        has = set(problems[0].metadata["doc"])
        if not has >= _NEEDS:
            raise StageError(
                f"the synthetic teacher cannot solve task {self.options.task!r}: its documents need "
                f"{', '.join(sorted(_NEEDS))}, and have {', '.join(sorted(has))}"
            )
        write = WRITERS[self.options.style]
        for number, problem in enumerate(problems[start:], start):
            yield Trace(
                problem=problem,
                reasoning=write(problem.metadata["doc"]),
                answer=f"\\boxed{{{problem.metadata['doc']['answer']}}}",
                finish_reason="stop",
                n_tokens=None,
                teacher=f"synthetic-{self.options.style}",
                source=f"{self.options.task} train problem {number}",
            )


def concise(doc: dict[str, Any]) -> str:
    """One short sum a step: `Mon 6-3=3, Tue 3+2=5`."""
    return ", ".join(f"{day} {line}" for day, line, _ in sums(doc))


def verbose(doc: dict[str, Any]) -> str:
    """The same sums, each doubted and checked again."""
    return "\n".join(
        f"{day} {line}. Wait, let me re-check {day}: {line}. Yes, {after}." for day, line, after in sums(doc)
    )


WRITERS = {"concise": concise, "verbose": verbose}


@hookimpl
def distillbench_teachers() -> Iterable[type[Teacher]]:
    """The synthetic teacher."""
    return [SyntheticTeacher]
