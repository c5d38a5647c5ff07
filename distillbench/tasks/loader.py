"""Loads tasks with lm-eval's own TaskManager. The one place that imports lm_eval; only running stages use it."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping
from itertools import islice
from typing import Any

from distillbench.errors import DistillbenchError, TaskError
from distillbench.records import Evaluation, Message, Problem, TaskRef
from distillbench.tasks.identity import TaskIndex, TaskSpec

#: lm-eval's own default, so that few-shot examples are those of the stock command.
FEWSHOT_SEED = 1234
#: Decides which problems `subset: shuffled` keeps; fixed, so that two runs keep the same ones.
SUBSET_SEED = 20_260_101


class LmEvalTasks:
    """lm-eval tasks by name, each loaded once.

    Args:
        index: Where their YAML files are.
    """

    def __init__(self, index: TaskIndex) -> None:
        self.index = index
        self._tasks: dict[str | TaskRef, Any] = {}
        self._made: dict[tuple[str | TaskRef, str], list[Problem]] = {}
        self._docs: dict[tuple[str | TaskRef, str], Any] = {}

    def load(self, task: str | TaskRef) -> Any:
        """The lm-eval `Task`.

        Raises:
            TaskError: lm-eval cannot load it, or it does not generate text.
        """
        if task not in self._tasks:
            self._tasks[task] = _load(self.index.find(task))
        return self._tasks[task]

    def problems(self, task: str | TaskRef, split: str, limit: int | None = None) -> list[Problem]:
        """The problems of a split (`train` or `test`), in the task's own order.

        Raises:
            TaskError: The task has no such split, or its own code or templates fail on a document.
        """
        loaded, spec = self.load(task), self.index.find(task)
        if (task, split) not in self._made:
            self._docs[task, split] = _docs(loaded, spec, split)
            self._made[task, split] = []
        made = self._made[task, split]
        # Only as many as are asked for, because lm-eval compiles its templates anew for each document; but few-shot
        # examples are drawn one after the other, so that those of a document must not depend on who asked when.
        stop = None if loaded.config.num_fewshot else limit
        try:
            for number, doc in islice(enumerate(self._docs[task, split]), len(made), stop):
                made.append(_problem(loaded, spec, number, doc))
        except Exception as error:  # templates and functions of the task raise anything
            raise TaskError(
                f"{spec.path}: no prompt can be made of the {split} split\n    cause: {type(error).__name__}: {error}"
            ) from error
        return made[:limit]

    def evaluation_problems(self, evaluation: Evaluation) -> list[Problem]:
        """The problems that an evaluation samples: all, the first ones, or those of a fixed shuffle."""
        if evaluation.limit is None or evaluation.subset == "first":
            return self.problems(evaluation.ref, "test", evaluation.limit)
        problems = self.problems(evaluation.ref, "test")
        chosen = random.Random(SUBSET_SEED).sample(range(len(problems)), min(evaluation.limit, len(problems)))
        return [problems[number] for number in sorted(chosen)]


def _load(spec: TaskSpec) -> Any:
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        manager = TaskManager(include_path=str(spec.path.parent), include_defaults=False, metadata=dict(spec.runtime))
        task = manager.load(spec.name)["tasks"][spec.name]
    except DistillbenchError:
        raise
    except Exception as error:  # lm-eval, datasets and the task's own code raise anything; it is said, not hidden
        raise TaskError(
            f"{spec.path}: lm-eval cannot load task {spec.name!r}\n    cause: {type(error).__name__}: {error}\n"
            f"    hint:  lm-eval says more: lm_eval validate --tasks {spec.name} --include_path {spec.path.parent}"
        ) from error
    if task.OUTPUT_TYPE != "generate_until":
        raise TaskError(
            f"{spec.path}: wanted `output_type: generate_until`, got {task.OUTPUT_TYPE!r}\n"
            f"    hint:  distillbench grades generated text; loglikelihood tasks are not supported yet"
        )
    return task


def _docs(task: Any, spec: TaskSpec, split: str) -> Any:
    """The documents of a split; few-shot examples are drawn anew from here on."""
    if split == "train":
        found = task.training_docs() if task.has_training_docs() else None
    elif task.has_test_docs():
        found = task.test_docs()
    else:
        found = task.validation_docs() if task.has_validation_docs() else None
    if found is None:
        raise TaskError(f"task {spec.name!r} ({spec.path}) has no {split} split")
    task.set_fewshot_seed(FEWSHOT_SEED)
    return found


def _problem(task: Any, spec: TaskSpec, number: int, doc: Mapping[str, Any]) -> Problem:
    """One document as a problem; its messages come out of lm-eval through the chat template callable."""
    unstored = frozenset(spec.settings.get("grading_columns", ()))
    messages = task.fewshot_context(
        doc,
        num_fewshot=task.config.num_fewshot or 0,
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        chat_template=_as_messages,
        gen_prefix=task.doc_to_prefix(doc),
    )
    target = task.doc_to_target(doc)
    return Problem(
        problem_id=f"{spec.name}/{number}",
        domain=spec.name,
        messages=messages,
        gold=target if isinstance(target, str) else json.dumps(target),
        metadata={"doc": {name: value for name, value in doc.items() if name not in unstored}},
    )


def _as_messages(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> tuple[Message, ...]:
    return tuple(Message(message["role"], message["content"]) for message in messages)  # type: ignore[arg-type]
