"""Tasks through lm-eval's own TaskManager: built-in ones and local YAML."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distillbench.errors import TaskError
from distillbench.protocols import Grader
from distillbench.records import Choice, Evaluation, Message, Problem, Sampling
from distillbench.tasks.identity import TaskIndex
from distillbench.tasks.loader import LmEvalTasks
from distillbench_tasks.splits import is_test

ROOT = Path(__import__("distillbench_tasks").__file__).parent


@pytest.fixture(scope="module")
def builtin() -> LmEvalTasks:
    """The built-in tasks, each loaded once."""
    return LmEvalTasks(TaskIndex([ROOT]))


@pytest.fixture
def local(tmp_path: Path) -> Callable[[str], LmEvalTasks]:
    """Writes a local task `t` with three test and four training problems."""
    (tmp_path / "data.py").write_text(
        "from datasets import Dataset\n"
        "def load(**kwargs):\n"
        "    rows = lambda n, name: Dataset.from_list([{'q': f'{name}{i}', 'a': str(i), 'n': i} for i in range(n)])\n"
        "    return {'test': rows(3, 'T'), 'train': rows(4, 'R')}\n"
        "def broken(**kwargs):\n"
        "    raise RuntimeError('the data is gone')\n"
    )
    head = "task: t\ncustom_dataset: !function data.load\ntest_split: test\ntraining_split: train\n"
    head += "output_type: generate_until\n"

    def write(text: str, replace: tuple[str, str] = ("", "")) -> LmEvalTasks:
        (tmp_path / "t.yaml").write_text((head + text).replace(*replace) if replace[0] else head + text)
        return LmEvalTasks(TaskIndex([tmp_path]))

    return write


QUESTION = 'doc_to_text: "Q {{q}}"\ndoc_to_target: "{{a}}"\n'


@pytest.mark.parametrize(("name", "n_test", "n_train"), [("coins", 200, 2000), ("digits", 200, 1000)])
def test_the_built_in_tasks(builtin: LmEvalTasks, name: str, n_test: int, n_train: int) -> None:
    test, train = builtin.problems(name, "test"), builtin.problems(name, "train")
    assert (len(test), len(train)) == (n_test, n_train)
    assert builtin.index.find(name).settings["docs"] == n_test
    first = test[0]
    assert first.problem_id == f"{name}/0" and first.domain == name
    assert [message.role for message in first.messages] == ["user"]
    assert first.messages[0].content == first.metadata["doc"]["question"]
    assert first.gold == first.metadata["doc"]["answer"]
    assert 0 <= int(first.gold) <= 9
    assert len({problem.problem_id for problem in test}) == n_test


@pytest.mark.parametrize("name", ["coins", "digits"])
def test_no_training_problem_is_a_test_problem(builtin: LmEvalTasks, name: str) -> None:
    questions = {
        split: [problem.messages[0].content for problem in builtin.problems(name, split)] for split in ("train", "test")
    }
    assert not set(questions["train"]) & set(questions["test"])
    assert all(is_test(question) for question in questions["test"])
    assert not any(is_test(question) for question in questions["train"])
    assert len(set(questions["train"])) == len(questions["train"])


def test_problems_are_the_same_in_every_process(builtin: LmEvalTasks) -> None:
    again = LmEvalTasks(TaskIndex([ROOT]))
    assert again.problems("coins", "test") == builtin.problems("coins", "test")


def test_a_limit_keeps_the_first_ones(builtin: LmEvalTasks) -> None:
    whole = builtin.problems("coins", "train")
    assert builtin.problems("coins", "train", 5) == whole[:5]
    assert builtin.problems("coins", "train", 10**6) == whole


def evaluation(limit: int | None, subset: Any = "first") -> Evaluation:
    grader = Choice("benchmark", "g", "g", None, "{}")
    return Evaluation("c", "coins", ROOT, Sampling(), "none", 1, limit, subset, (), "s", "g", None, grader)


def test_the_problems_of_an_evaluation(builtin: LmEvalTasks) -> None:
    whole = builtin.problems("coins", "test")
    assert builtin.evaluation_problems(evaluation(None)) == whole
    assert builtin.evaluation_problems(evaluation(7)) == whole[:7]
    shuffled = builtin.evaluation_problems(evaluation(20, "shuffled"))
    assert len({problem.problem_id for problem in shuffled}) == 20
    assert shuffled != whole[:20]
    assert [whole.index(problem) for problem in shuffled] == sorted(whole.index(problem) for problem in shuffled)
    assert builtin.evaluation_problems(evaluation(20, "shuffled")) == shuffled
    assert builtin.evaluation_problems(evaluation(10**6, "shuffled")) == whole


def test_a_plain_local_task(local: Callable[..., LmEvalTasks]) -> None:
    tasks = local(QUESTION)
    assert tasks.problems("t", "test")[1] == Problem(
        "t/1", "t", (Message("user", "Q T1"),), "1", {"doc": {"q": "T1", "a": "1", "n": 1}}
    )


def test_few_shot_examples_are_turns_of_their_own_and_the_same_every_time(local: Callable[..., LmEvalTasks]) -> None:
    text = QUESTION + 'num_fewshot: 2\nfewshot_split: train\ndescription: "Say the number."\ngen_prefix: "So"\n'
    problems = local(text).problems("t", "test")
    for number, problem in enumerate(problems):
        roles = [message.role for message in problem.messages]
        assert roles == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
        assert problem.messages[0].content == "Say the number."
        assert problem.messages[-2].content == f"Q T{number}"
        assert problem.messages[-1].content == "So"
        for question, answer in ((1, 2), (3, 4)):
            asked = problem.messages[question].content
            assert asked.startswith("Q R")
            assert problem.messages[answer].content.strip().endswith(asked.removeprefix("Q R"))
    assert local(text).problems("t", "test") == problems


def test_asking_for_training_problems_first_does_not_change_few_shot_examples(
    local: Callable[..., LmEvalTasks],
) -> None:
    """A prompt must not depend on what else this process has done: a resumed run asks less."""
    text = QUESTION + "num_fewshot: 2\nfewshot_split: train\nfewshot_config: {sampler: default}\n"
    plain = local(text).problems("t", "test")
    other = local(text)
    other.problems("t", "train")
    assert other.problems("t", "test") == plain


def test_a_target_that_is_no_text_is_kept_as_json(local: Callable[..., LmEvalTasks]) -> None:
    (problem, *_) = local('doc_to_text: "{{q}}"\ndoc_to_target: n\n').problems("t", "test")
    assert json.loads(problem.gold) == 0


def test_a_task_without_a_test_split_uses_its_validation_split(local: Callable[..., LmEvalTasks]) -> None:
    tasks = local(QUESTION, ("test_split: test", "validation_split: test"))
    assert len(tasks.problems("t", "test")) == 3


def test_a_split_that_is_not_there(local: Callable[..., LmEvalTasks]) -> None:
    tasks = local(QUESTION, ("training_split: train\n", ""))
    with pytest.raises(TaskError, match=r"task 't' \(.*t\.yaml\) has no train split"):
        tasks.problems("t", "train")


def test_a_task_whose_code_fails_says_its_file_and_the_cause(local: Callable[..., LmEvalTasks]) -> None:
    tasks = local(QUESTION, ("data.load", "data.broken"))
    with pytest.raises(TaskError) as caught:
        tasks.load("t")
    said = str(caught.value)
    assert "t.yaml: lm-eval cannot load task 't'" in said
    assert "cause: RuntimeError: the data is gone" in said
    assert "lm_eval validate --tasks t --include_path" in said


def test_a_template_that_fails_on_a_document_is_an_error_of_the_task(local: Callable[..., LmEvalTasks]) -> None:
    tasks = local('doc_to_text: "{{q | no_such_filter}}"\ndoc_to_target: "{{a}}"\n')
    with pytest.raises(TaskError, match=r"t\.yaml.*\n?.*no_such_filter"):
        tasks.problems("t", "test")


def test_a_template_that_fails_on_one_document_only(local: Callable[..., LmEvalTasks]) -> None:
    """lm-eval tries the first one itself; `check` and a stage must say which file it is, without a traceback."""
    tasks = local('doc_to_text: "{{ 6 // (2 - n) }}"\ndoc_to_target: "{{a}}"\n')
    with pytest.raises(
        TaskError, match=r"t\.yaml: no prompt can be made of the test split\n    cause: ZeroDivisionError"
    ):
        tasks.problems("t", "test")


def test_what_no_engine_does_is_refused(local: Callable[..., LmEvalTasks]) -> None:
    rolling = local('doc_to_text: ""\ndoc_to_target: "{{q}}"\n', ("generate_until", "loglikelihood_rolling"))
    with pytest.raises(TaskError, match=r"its `output_type` is 'loglikelihood_rolling'\n.*`multiple_choice`"):
        rolling.problems("t", "test")


def test_choices_in_the_context_are_refused(local: Callable[..., LmEvalTasks]) -> None:
    text = 'doc_to_text: n\ndoc_to_target: "{{a}}"\ndoc_to_choice: [one, two, three, four]\n'
    with pytest.raises(TaskError, match=r"its choices stand in the context \(`doc_to_text` gives a number\)"):
        local(text, ("generate_until", "multiple_choice")).problems("t", "test")


def test_mutual_information_is_refused(local: Callable[..., LmEvalTasks]) -> None:
    text = QUESTION.replace('"{{a}}"', "n") + "doc_to_choice: [a, b, c]\nmetric_list:\n  - metric: acc_mutual_info\n"
    with pytest.raises(TaskError, match="its metric `acc_mutual_info` scores each choice without the context"):
        local(text, ("generate_until", "multiple_choice")).problems("t", "test")


def test_a_target_that_is_no_text_cannot_be_scored(local: Callable[..., LmEvalTasks]) -> None:
    with pytest.raises(TaskError, match=r"document 0 of task 't' does not ask for .* texts after its one context"):
        local('doc_to_text: "{{q}}"\ndoc_to_target: n\n', ("generate_until", "loglikelihood")).problems("t", "test")


CHOICES = QUESTION.replace('"{{a}}"', "n") + "doc_to_choice: [a, b, c, d]\n"


def test_continuations_stand_with_their_problem(local: Callable[..., LmEvalTasks]) -> None:
    tasks = local(CHOICES, ("generate_until", "multiple_choice"))
    chat, text = tasks.problems("t", "test")[1], tasks.problems("t", "test", as_text=True)[1]
    assert chat.messages == text.messages == (Message("user", "Q T1"),)
    assert chat.metadata["continuations"] == ["a", "b", "c", "d"], "a turn of its own begins without a delimiter"
    assert text.metadata["continuations"] == [" a", " b", " c", " d"]
    assert (chat.gold, chat.problem_id) == (text.gold, text.problem_id) == ("1", "t/1")


def test_bare_text_has_the_examples_in_it(local: Callable[..., LmEvalTasks]) -> None:
    """The same examples for whoever asks, in whatever order chats and texts are asked for."""
    more = "num_fewshot: 1\nfewshot_split: train\nfewshot_config: {sampler: default}\n"
    tasks = local(CHOICES + more, ("generate_until", "multiple_choice"))
    chats, texts = tasks.problems("t", "test"), tasks.problems("t", "test", as_text=True)
    for chat, text in zip(chats, texts, strict=True):
        (message,) = text.messages
        asked, told, last = (one.content for one in chat.messages)
        assert message.content == f"{asked} {told}\n\n{last}"
    assert local(CHOICES + more, ("generate_until", "multiple_choice")).problems("t", "test", as_text=True) == texts


def test_a_grader_gets_the_task_that_lm_eval_made(local: Callable[..., LmEvalTasks]) -> None:
    class Through(Grader):
        """Grades through the task."""

        name = "through"

        def extract(self, answer: str, problem: Problem) -> str:
            return answer

        def judge(self, problem: Problem, extracted: str) -> Any:
            return self._task.process_results(problem.metadata["doc"], [extracted])  # type: ignore[attr-defined]

    tasks = local(QUESTION + "metric_list:\n  - metric: exact_match\n")
    problem = tasks.problems("t", "test")[2]
    judge = Through(None).with_task(tasks.load("t")).judge
    assert judge(problem, "2") == {"exact_match": 1.0} and judge(problem, "3") == {"exact_match": 0.0}
