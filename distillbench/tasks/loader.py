"""Loads tasks with lm-eval's own TaskManager. The one place that imports lm_eval; only running stages use it."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping, Sequence
from itertools import islice
from threading import RLock
from typing import Any

from distillbench.errors import DistillbenchError, TaskError
from distillbench.records import Evaluation, Message, Problem, TaskRef
from distillbench.tasks.identity import OUTPUT_TYPES, TaskIndex, TaskSpec
from distillbench.tasks.problems import problem_id, unknown_problems

#: lm-eval's own default, so that few-shot examples are those of the stock command.
FEWSHOT_SEED = 1234
#: Decides which problems `subset: shuffled` keeps; fixed, so that two runs keep the same ones.
SUBSET_SEED = 20_260_101

#: A task, a split of it, and whether its problems are bare text.
_Asked = tuple[str | TaskRef, str, bool]


class LmEvalTasks:
    """lm-eval tasks by name, each loaded once.

    Args:
        index: Where their YAML files are.
    """

    def __init__(self, index: TaskIndex) -> None:
        self.index = index
        self._lock = RLock()  # a worker samples in one thread and grades in another
        self._tasks: dict[str | TaskRef, Any] = {}
        self._made: dict[_Asked, list[Problem]] = {}
        self._docs: dict[_Asked, Any] = {}

    def load(self, task: str | TaskRef) -> Any:
        """The lm-eval `Task`.

        Raises:
            TaskError: lm-eval cannot load it, or it asks for something that no engine does.
        """
        with self._lock:
            if task not in self._tasks:
                loaded = _load(self.index.find(task))
                if isinstance(task, TaskRef) and task.num_fewshot is not None:
                    _set_fewshot(loaded, task.num_fewshot)
                self._tasks[task] = loaded
            return self._tasks[task]

    def problems(
        self, task: str | TaskRef, split: str, limit: int | None = None, as_text: bool = False
    ) -> list[Problem]:
        """The problems of a split (`train` or `test`), in the task's own order.

        Args:
            task: The task.
            split: The split.
            limit: How many; None for all.
            as_text: Whether each is one message: the text that lm-eval makes without a chat template, examples
                included.

        Raises:
            TaskError: The task has no such split, or its own code or templates fail on a document.
        """
        with self._lock:
            return self._problems(task, split, limit, as_text)

    def _problems(self, task: str | TaskRef, split: str, limit: int | None, as_text: bool) -> list[Problem]:
        loaded, spec = self.load(task), self.index.find(task)
        system = task.system if isinstance(task, TaskRef) else ""
        asked = (task, split, as_text)
        if asked not in self._made:
            self._docs[asked] = _docs(loaded, spec, split)
            self._made[asked] = []
        made = self._made[asked]
        # Only as many as are asked for, because lm-eval compiles its templates anew for each document; but few-shot
        # examples are drawn one after the other, so that those of a document must not depend on who asked when.
        stop = None if loaded.config.num_fewshot else limit
        try:
            for number, doc in islice(enumerate(self._docs[asked]), len(made), stop):
                made.append(_problem(loaded, spec, number, doc, as_text, system))
        except TaskError:
            raise
        except Exception as error:  # templates and functions of the task raise anything
            raise TaskError(
                f"{spec.path}: no prompt can be made of the {split} split\n    cause: {type(error).__name__}: {error}"
            ) from error
        return made[:limit]

    def evaluation_problems(self, evaluation: Evaluation, as_text: bool = False) -> list[Problem]:
        """The problems that an evaluation samples: all or those it names, of these the first or those of a shuffle.

        Args:
            evaluation: The evaluation.
            as_text: See `problems`.

        Raises:
            TaskError: It names problems that the task has not; or see `problems`.
        """
        is_cut = evaluation.limit is not None and evaluation.subset == "first"
        if evaluation.problems is not None:
            problems = self._named(evaluation, evaluation.problems, as_text)
        else:
            problems = self.problems(evaluation.ref, "test", evaluation.limit if is_cut else None, as_text)
        if evaluation.limit is None or is_cut:
            return problems[: evaluation.limit]
        chosen = random.Random(SUBSET_SEED).sample(range(len(problems)), min(evaluation.limit, len(problems)))
        return [problems[number] for number in sorted(chosen)]

    def _named(self, evaluation: Evaluation, places: Sequence[int], as_text: bool) -> list[Problem]:
        """The problems at some places of the task."""
        found = self.problems(evaluation.ref, "test", max(places) + 1, as_text)
        if missing := [place for place in places if place >= len(found)]:
            raise TaskError(f"evaluation {evaluation.name!r}: {unknown_problems(evaluation.task, missing, len(found))}")
        return [found[place] for place in places]


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
    if why := _why_not(task):
        wanted = ", ".join(f"`{word}`" for word in OUTPUT_TYPES)
        raise TaskError(
            f"{spec.path}: task {spec.name!r} cannot be evaluated: {why}\n"
            f"    wanted: a task with `output_type` {wanted}, each problem with one context"
        )
    return task


def _why_not(task: Any) -> str:
    """Why no engine can do what a task asks for; empty where one can."""
    if task.OUTPUT_TYPE not in OUTPUT_TYPES:
        return f"its `output_type` is {task.OUTPUT_TYPE!r}"
    if getattr(task, "multiple_input", 0):
        return "its choices stand in the context (`doc_to_text` gives a number), so that each has a context of its own"
    if task.OUTPUT_TYPE == "multiple_choice" and "acc_mutual_info" in task.aggregation():
        return "its metric `acc_mutual_info` scores each choice without the context as well"
    return ""


def _set_fewshot(task: Any, num_fewshot: int) -> None:
    """Has a task put so many examples before each problem.

    Where it names no split for them and has only its test split, lm-eval draws from that, and would draw a problem
    among its own examples: it leaves the problem out only where the split is named.
    """
    task.set_config("num_fewshot", num_fewshot)
    if task.fewshot_cfg.split is None and not task.has_training_docs() and not task.has_validation_docs():
        task.fewshot_cfg.split = task.config.test_split


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


def _problem(
    task: Any, spec: TaskSpec, number: int, doc: Mapping[str, Any], as_text: bool, system: str = ""
) -> Problem:
    """One document as a problem; its messages come out of lm-eval through the chat template callable."""
    unstored = frozenset(spec.settings.get("grading_columns", ()))
    context = task.fewshot_context(
        doc,
        num_fewshot=task.config.num_fewshot or 0,
        system_instruction=system or None,
        apply_chat_template=not as_text,
        fewshot_as_multiturn=not as_text,
        chat_template=None if as_text else _as_messages,
        gen_prefix=task.doc_to_prefix(doc),
    )
    target = task.doc_to_target(doc)
    metadata: dict[str, Any] = {"doc": {name: value for name, value in doc.items() if name not in unstored}}
    if task.OUTPUT_TYPE != "generate_until":
        metadata["continuations"] = _continuations(task, spec, number, doc, context)
    return Problem(
        problem_id=problem_id(spec.name, number),
        domain=spec.name,
        messages=(Message("user", context),) if as_text else context,
        gold=target if isinstance(target, str) else json.dumps(target),
        metadata=metadata,
    )


def _continuations(task: Any, spec: TaskSpec, number: int, doc: Mapping[str, Any], context: Any) -> list[str]:
    """What lm-eval would score after a context, in its order, the delimiter in front of each included."""
    made = task.construct_requests(doc, context, apply_chat_template=not isinstance(context, str))
    found = [instance.args for instance in (made if isinstance(made, list) else [made])]
    for arguments in found:
        if len(arguments) != 2 or arguments[0] is not context or not isinstance(arguments[1], str):
            raise TaskError(
                f"{spec.path}: document {number} of task {spec.name!r} does not ask for the log-likelihood of texts "
                f"after its one context, but of {arguments!r:.200}\n"
                f"    wanted: choices, or a target, that are text, and a problem without images"
            )
    return [continuation for _, continuation in found]


def _as_messages(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> tuple[Message, ...]:
    return tuple(Message(message["role"], message["content"]) for message in messages)  # type: ignore[arg-type]
