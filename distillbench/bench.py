"""What the steps of a stage work with: the store, the components, the tasks."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock, get_ident
from typing import TYPE_CHECKING, Any

from distillbench.catalog import Catalog
from distillbench.errors import StageError
from distillbench.plan.stage import Stage
from distillbench.protocols import Context, Grader, Grading, Progress, Renderer, Student
from distillbench.records import Choice, Resources, TaskRef
from distillbench.store.store import Store
from distillbench.tasks.loader import LmEvalTasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODEL = "model"


@dataclass(frozen=True, slots=True)
class Bench:
    """What all steps of a process share.

    Attributes:
        store: Where results are.
        catalog: The components.
        tasks: The tasks.
        resources: What the launcher granted to the process.
        stack: Closes what is held open for many stages.
        loading: Held by a thread while it may import what is heavy: of two threads that import transformers at once,
            one sees half of it.
    """

    store: Store
    catalog: Catalog
    tasks: LmEvalTasks
    resources: Resources = field(default_factory=Resources)
    stack: ExitStack = field(default_factory=ExitStack)
    loading: Any = field(default_factory=RLock)
    _renderers: dict[tuple[str, str, str | None, int], Renderer] = field(default_factory=dict)
    _gradings: dict[tuple[str, str | TaskRef], tuple[Grader, Grading]] = field(default_factory=dict)

    def context(self, stage: Stage, choice: Choice, progress: Progress, seed: int = 0) -> Context:
        """The context of a method of the component that a stage chose."""
        return Context(
            work=self.store.scratch(stage),
            seed=seed,
            progress=progress,
            tasks=self.tasks,
            resources=self.resources,
            components=self.catalog.needed(choice),
        )

    def session_context(self, stage: Stage, engine: Choice, progress: Progress) -> Context:
        """The context of the engine that serves a sample stage and all others of its session."""
        work = self.store.session(stage.process.rpartition(" ")[2])
        needed = self.catalog.needed(engine)
        return Context(work, progress=progress, tasks=self.tasks, resources=self.resources, components=needed)

    def built(self, build: Stage | None) -> Path | None:
        """The folder of a student that a stage built; None for one that needs no building.

        Raises:
            DamagedError: Its files are not what was written.
        """
        if build is None:
            return None
        is_there = self.store.folder(build).exists()
        return (self.store.whole if is_there else self.store.folder)(build) / MODEL

    def renderer(self, student: Choice, renderer: Choice, built: Stage | None) -> Renderer:
        """A renderer with a student's tokenizer, made once for each thread: tokenizers are not to be shared by threads.

        Args:
            student: The student.
            renderer: The renderer.
            built: The stage that made the student; None where there is none, or where the tokenizer is known before it.
        """
        wanted = (student.identity, renderer.identity, built.key if built else None, get_ident())
        with self.loading:
            if wanted not in self._renderers:
                model: Student = self.catalog.build(student)
                component: Renderer = self.catalog.build(renderer)
                if component.needs_tokenizer:
                    component = component.bind(self._tokenizer(model, built))
                self._renderers[wanted] = component
            return self._renderers[wanted]

    def _tokenizer(self, student: Student, built: Stage | None) -> PreTrainedTokenizerBase:
        """A student's tokenizer.

        Raises:
            StageError: It has none before it is built.
        """
        if built is not None or not student.builds:
            return student.load_tokenizer(self.built(built))
        if (found := student.preview_tokenizer()) is None:
            raise StageError(f"student {student.name!r} has no tokenizer before it is built")
        return found

    def grader(self, choice: Choice, task: str | TaskRef) -> Grader:
        """A grader; with lm-eval's own task object where it grades through that."""
        component: Grader = self.catalog.build(choice)
        return component.with_task(self.tasks.load(task)) if component.needs_task else component

    def grading(self, choice: Choice, task: str | TaskRef) -> tuple[Grader, Grading]:
        """A grader, and its grading held open for all stages of this process."""
        wanted = (choice.identity, task)
        with self.loading:
            if wanted not in self._gradings:
                grader = self.grader(choice, task)
                context = Context(
                    self.store.cache(choice.component),
                    tasks=self.tasks,
                    resources=self.resources,
                    components=self.catalog.needed(choice),
                )
                self._gradings[wanted] = grader, self.stack.enter_context(grader.open(context))
            return self._gradings[wanted]
