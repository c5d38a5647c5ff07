"""Tasks that score given continuations: the stock `lm_eval` command and ours, with and without a chat template."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from plugin_helpers import Tiny

from distillbench.errors import GraderError, StageError
from distillbench.outcomes import decide
from distillbench.protocols import Context, Renderer
from distillbench.records import Batch, Choice, Completion, Evaluation, Generation, Message, Sampling, Verdict
from distillbench.stages.continuations import scoring_request
from distillbench.tasks.identity import TaskIndex
from distillbench.tasks.loader import LmEvalTasks
from distillbench_plugins.benchmarks.lm_eval_metric import LmEvalMetric, LmEvalOptions
from distillbench_plugins.engines.transformers import TransformersEngine, TransformersOptions
from distillbench_plugins.renderers.hosted import HostedRenderer, HostedRendererOptions
from distillbench_plugins.renderers.plain import PlainOptions, PlainRenderer

#: How far a log-likelihood may be from the stock command's, in nats.
CLOSE = 1e-3

ARC = [
    {
        "id": f"own_{number}",
        "question": question,
        "choices": {"text": list(choices), "label": list("ABCD")[: len(choices)]},
        "answerKey": key,
    }
    for number, (question, key, choices) in enumerate(
        [
            ("How many legs has a spider?", "D", ("2", "4", "6", "8")),
            ("What do bees make?", "A", ("honey", "a long thread of silk", "milk")),
            ("Tom has 6 coins and takes 3. How many has he?", "B", ("3", "9", "no coins at all", "6 and 3")),
        ]
    )
]
ARC_CARD = """---
configs:
- config_name: ARC-Easy
  data_files:
  - {split: train, path: ARC-Easy/test.jsonl}
  - {split: validation, path: ARC-Easy/test.jsonl}
  - {split: test, path: ARC-Easy/test.jsonl}
---
"""
LAMBADA = [
    {"text": "Tom has six coins. He takes three coins. Now Tom has nine coins"},
    {"text": "She looked at the red house and then walked back to the house"},
]
LAMBADA_CARD = "---\nconfigs:\n- config_name: default\n  data_files: [{split: test, path: data/test.jsonl}]\n---\n"

#: Our own, in everything that changes what is tokenised together; all of them on one set of documents.
DATA = """
from datasets import Dataset

def load(**metadata):
    rows = lambda names: Dataset.from_list([
        {"q": f"Which is {name}?", "wrong": f"{name} not", "right": name, "n": number % 2, "empty": ""}
        for number, name in enumerate(names)
    ])
    return {"train": rows(["red", "green", "blue", "grey"]), "test": rows(["one", "two", "three"])}

def shares(doc, results):
    "As truthfulqa_mc2: how much of the probability lies on what is right."
    import math
    found = [math.exp(number) for number, _ in results]
    return {"acc": found[doc["n"]] / sum(found)}
"""
HEAD = """
custom_dataset: !function data.load
training_split: train
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_target: n
doc_to_choice: "{{[right, wrong]}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
OWN = {
    "spaces": 'doc_to_text: "{{q}} \\n\\n "\n',
    "glued": 'target_delimiter: ""\n',
    "empty": 'doc_to_text: "{{empty}}"\n',
    "prefixed": 'gen_prefix: "It is"\n',
    "shots": "num_fewshot: 2\nfewshot_split: train\ndescription: Choose well.\n",
    "letters": 'doc_to_text: "{{q}} A. {{right}} B. {{wrong}}"\ndoc_to_choice: [A, B]\n',
    "graded": "process_results: !function data.shares\n",
}
TASKS = ("arc_easy", "lambada_openai", *OWN)


def write_rows(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with copies of the data sets, and below it our own tasks."""
    folder = tmp_path_factory.mktemp("scored")
    write_rows(folder / "allenai/ai2_arc/ARC-Easy/test.jsonl", ARC)
    (folder / "allenai/ai2_arc/README.md").write_text(ARC_CARD)
    write_rows(folder / "EleutherAI/lambada_openai/data/test.jsonl", LAMBADA)
    (folder / "EleutherAI/lambada_openai/README.md").write_text(LAMBADA_CARD)
    own = folder / "own"
    own.mkdir()
    (own / "data.py").write_text(DATA)
    (own / "base_yaml").write_text(HEAD)
    for name, more in OWN.items():
        (own / f"{name}.yaml").write_text(f"include: base_yaml\ntask: {name}\n{more}")
    return folder


@pytest.fixture(scope="module")
def tasks(here: Path) -> Iterator[LmEvalTasks]:
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", here / "cache")
        yield LmEvalTasks(TaskIndex([here / "own"]))


@dataclass(frozen=True)
class Scored:
    """What came of a task: each document's log-likelihoods with whether they are greedy, and the metrics' means."""

    scores: list[list[tuple[float, bool]]]
    means: dict[str, float]


def stock(here: Path, model: Path, *more: str, tasks: tuple[str, ...] = TASKS) -> dict[str, Scored]:
    """Runs `python -m lm_eval` as a user would."""
    output = here / f"stock-{len(list(here.iterdir()))}"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu", "--batch_size", "2"),
            *("--model_args", f"pretrained={model},dtype=float32", "--tasks", ",".join(tasks)),
            *("--include_path", str(here / "own"), "--output_path", str(output), "--log_samples", *more),
        ],
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HOME": str(here / "home")},
        cwd=here,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (results,) = output.rglob("results_*.json")
    means = json.loads(results.read_text())["results"]
    found = {}
    for task in tasks:
        (samples,) = output.rglob(f"samples_{task}_*.jsonl")
        rows = sorted((json.loads(line) for line in samples.read_text().splitlines()), key=lambda row: row["doc_id"])
        scores = [[(float(number), str(greedy) == "True") for ((number, greedy),) in row["resps"]] for row in rows]
        found[task] = Scored(scores, {name.partition(",")[0]: value for name, value in means[task].items()})
    return found


def evaluation(task: str, tasks: LmEvalTasks) -> Evaluation:
    spec = tasks.index.find(task)
    grader = Choice("benchmark", "lm_eval", "lm_eval", None, "{}")
    return Evaluation(
        task, task, spec.path, Sampling(max_tokens=1), "auto", 1, None, "first", (), "s", "g", None, grader,
        output_type=spec.output_type,
    )  # fmt: skip


def ours(tasks: LmEvalTasks, tiny: Tiny, renderer: Renderer) -> dict[str, Scored]:
    """The same through our loader, tokenisation, engine and grader."""
    found = {}
    engine = TransformersEngine(TransformersOptions())
    with engine.open(tiny.student, tiny.built, [], Context(work=tiny.built)) as session:
        for task in TASKS:
            asked = evaluation(task, tasks)
            problems = tasks.evaluation_problems(asked, renderer.is_plain)
            requests = [scoring_request(one, asked, renderer) for one in problems]
            given: dict[str, Generation] = {
                one.sample_id: one for one in session.loglikelihood(Batch(task, None, requests))
            }
            grader = LmEvalMetric(LmEvalOptions(graded=task == "graded")).with_task(tasks.load(task))
            verdicts = [
                verdict(grader, one, given[request.sample_id].text)
                for one, request in zip(problems, requests, strict=True)
            ]
            scores = [json.loads(given[request.sample_id].text) for request in requests]
            means = {name: sum(one.scores[name] for one in verdicts) / len(verdicts) for name in verdicts[0].scores}
            if task != "graded":
                assert [one.outcome == "correct" for one in verdicts] == [bool(one.scores["acc"]) for one in verdicts]
            found[task] = Scored([[(number, greedy) for number, greedy in row] for row in scores], means)
    return found


def verdict(grader: LmEvalMetric, asked: Any, text: str) -> Verdict:
    return decide(Completion(text, (), "stop", "", None, text, "absent"), asked, grader)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "chat"])
def test_every_score_is_the_stock_commands(kind: str, here: Path, tasks: LmEvalTasks, tiny: Tiny) -> None:
    if kind == "plain":
        wanted, renderer = stock(here, tiny.built), PlainRenderer(PlainOptions()).bind(tiny.tokenizer)
        found = ours(tasks, tiny, renderer)
    else:
        wanted, found = stock(here, tiny.built, "--apply_chat_template"), ours(tasks, tiny, tiny.renderer)
    for task in TASKS:
        assert len(found[task].scores) == len(wanted[task].scores) > 0
        for ours_of, stock_of in zip(found[task].scores, wanted[task].scores, strict=True):
            assert [one for one, _ in ours_of] == pytest.approx([one for one, _ in stock_of], abs=CLOSE), task
            assert [greedy for _, greedy in ours_of] == [greedy for _, greedy in stock_of], task
        for metric in wanted[task].means.keys() & found[task].means.keys():
            assert found[task].means[metric] == pytest.approx(wanted[task].means[metric], abs=CLOSE), (task, metric)
        assert "acc" in wanted[task].means.keys() & found[task].means.keys()
    log_likelihood = found["lambada_openai"].means["log_likelihood"]
    assert math.exp(-log_likelihood) == pytest.approx(wanted["lambada_openai"].means["perplexity"], rel=CLOSE)
    rights = [found[task].means["acc"] for task in TASKS]
    assert 0 < sum(rights) < len(rights), "neither everything right nor everything wrong"


def test_the_prompt_of_a_choice_is_bare_text_or_a_chat(tasks: LmEvalTasks, tiny: Tiny) -> None:
    asked = evaluation("arc_easy", tasks)
    plain = PlainRenderer(PlainOptions()).bind(tiny.tokenizer)
    (as_text, *_), (as_chat, *_) = tasks.evaluation_problems(asked, as_text=True), tasks.evaluation_problems(asked)
    text, chat = scoring_request(as_text, asked, plain), scoring_request(as_chat, asked, tiny.renderer)
    whole = tiny.tokenizer.encode("Question: How many legs has a spider?\nAnswer: 8", add_special_tokens=False)
    assert [*text.prompt.input_ids.tolist(), *text.continuations[3]] == whole
    told = tiny.renderer.prompt(as_chat.messages)
    assert [*chat.prompt.input_ids.tolist(), *chat.continuations[3]] == [
        *told.input_ids.tolist(),
        *tiny.tokenizer.encode("8", add_special_tokens=False),
    ], "nothing between the turn's beginning and the answer"
    assert chat.prompt.input_ids.tolist() == told.input_ids.tolist()[: len(chat.prompt.input_ids)]
    assert len(chat.prompt.input_ids) < len(told.input_ids), "the line break belongs to what is scored, as in lm-eval"


def test_a_prompt_that_does_not_tokenise_again_is_refused(tasks: LmEvalTasks, tiny: Tiny) -> None:
    """A turn begun in the middle of a token of its text."""
    asked = evaluation("prefixed", tasks)
    (one, *_) = tasks.evaluation_problems(asked)

    class Odd(type(tiny.renderer)):  # type: ignore[misc]
        """Tokenises each character alone."""

        name = "odd"

        def prompt(self, messages: Any, prefill: Any = "auto") -> Any:
            made = super().prompt(messages, prefill)
            last = [id_ for letter in "has" for id_ in self.tokenizer.encode(letter, add_special_tokens=False)]
            return type(made)(__import__("numpy").append(made.input_ids, last), made.prefill)

    with pytest.raises(StageError, match=r"renderer 'odd': the end of its prompt, .*has', does not tokenise"):
        scoring_request(one, asked, Odd(tiny.renderer.options).bind(tiny.tokenizer))


def test_a_model_that_is_only_served_has_no_tokens_to_score(tasks: LmEvalTasks) -> None:
    asked = evaluation("glued", tasks)
    (one, *_) = tasks.evaluation_problems(asked)
    with pytest.raises(StageError, match=r"task 'glued' scores given continuations \(multiple_choice\), for which"):
        scoring_request(one, asked, HostedRenderer(HostedRendererOptions()))


def test_repeats_in_the_defaults_are_told_where_to_write_one(cli: Any, here: Path, tmp_path: Path) -> None:
    path = matrix(tmp_path, here / "own", {"glued": {}}, defaults={"evaluation": {"repeats": 4}})
    ran = cli("plan", path)
    assert ran.code == 2
    assert "write `repeats: 1` in this evaluation" in ran.err
    assert cli("plan", matrix(tmp_path, here / "own", {"glued": {"repeats": 1}})).code == 0


GOOD, BAD = "[[-1.5, true], [-2.5, false]]", "[[-9.5, true], [-2.5, false]]"


def test_acc_decides_where_nothing_is_named(tasks: LmEvalTasks) -> None:
    (one, *_) = tasks.problems("glued", "test")
    grader = LmEvalMetric(LmEvalOptions()).with_task(tasks.load("glued"))
    grader.refuse_unusable()
    found = verdict(grader, one, GOOD)
    assert (found.outcome, found.scores) == ("correct", {"acc": 1.0, "acc_norm": 0.0})
    assert verdict(grader, one, BAD).outcome == "wrong"
    by_length = LmEvalMetric(LmEvalOptions(metric="acc_norm")).with_task(tasks.load("glued"))
    assert verdict(by_length, one, GOOD).outcome == "wrong", "-1.5 for 3 characters, -2.5 for 7"
    with by_length.open(Context(Path())) as grading:
        assert grading.facts == {"metric": "acc_norm", "filter": "none"}


def test_another_metric_that_is_not_there_is_a_grader_error(tasks: LmEvalTasks) -> None:
    (one, *_) = tasks.problems("glued", "test")
    grader = LmEvalMetric(LmEvalOptions(metric="f1")).with_task(tasks.load("glued"))
    assert verdict(grader, one, GOOD).outcome == "grader_error"
    with pytest.raises(GraderError, match="'f1' is not there"):
        grader.judge(one, GOOD)


def test_the_last_word_is_right_when_it_is_greedy(tasks: LmEvalTasks) -> None:
    (one, *_) = tasks.problems("lambada_openai", "test", as_text=True)
    assert one.metadata["continuations"] == [" coins"]
    assert one.messages == (Message("user", LAMBADA[0]["text"].rpartition(" ")[0]),)
    grader = LmEvalMetric(LmEvalOptions()).with_task(tasks.load("lambada_openai"))
    right, wrong = verdict(grader, one, "[[-0.5, true]]"), verdict(grader, one, "[[-0.25, false]]")
    assert (right.outcome, wrong.outcome) == ("correct", "wrong")
    assert (right.scores, wrong.scores) == (
        {"acc": 1.0, "log_likelihood": -0.5},
        {"acc": 0.0, "log_likelihood": -0.25},
    ), "not yet a perplexity, which is made from all samples"


# --- through distillbench ---------------------------------------------------------------------------------------------


def matrix(folder: Path, own: Path, evaluations: Any, **more: Any) -> Path:
    """A matrix of the untouched tiny student, hardly pretrained."""
    path = folder / "matrix.yaml"
    content = {
        "name": "scored",
        "task_paths": [str(own)],
        "students": {"tiny": {"use": "tiny-qwen3", "steps": 20}},
        "renderers": {"plain": {}},
        "evaluations": evaluations,
    }
    path.write_text(yaml.safe_dump(content | more))
    return path


@pytest.mark.slow
def test_arc_easy_runs_by_its_bare_name_beside_other_tasks(
    here: Path, tmp_path: Path, run_cli: Any, samples_with_texts: Any
) -> None:
    store = tmp_path / "store"
    evaluations = {
        "arc_easy": {},
        "by-length": {"benchmark": "arc_easy", "grader_options": {"metric": "acc_norm"}},
        "lambada_openai": {"limit": 1},
        "coins": {"limit": 3, "max_tokens": 8},
    }
    path = matrix(tmp_path, here / "own", evaluations, defaults={"evaluation": {"temperature": 0.5}})
    ran = run_cli("--store", store, "run", path, cwd=here, HF_HOME=str(here / "home"))
    assert ran.code == 0, ran.out + ran.err
    rows = samples_with_texts(store, "scored")
    counts = {name: [row["outcome"] for row in rows if row["evaluation"] == name] for name in evaluations}
    assert {name: len(found) for name, found in counts.items()} == {
        "arc_easy": 3, "by-length": 3, "lambada_openai": 1, "coins": 3,
    }  # fmt: skip
    scored = [outcome for name, found in counts.items() if name != "coins" for outcome in found]
    assert set(scored) <= {"correct", "wrong"}, "nothing is cut off, and no answer is missing"
    (model,) = store.glob("stages/*student*/**/model") or store.rglob("model")
    wanted = stock(here, model, tasks=("arc_easy",))["arc_easy"]
    for name, metric in (("arc_easy", "acc"), ("by-length", "acc_norm")):
        assert counts[name].count("correct") / 3 == pytest.approx(wanted.means[metric])
    texts = {row["problem_id"]: json.loads(row["text"]) for row in rows if row["evaluation"] == "arc_easy"}
    for number, of_stock in enumerate(wanted.scores):
        told = [one for one, _ in texts[f"arc_easy/{number}"]]
        assert told == pytest.approx([one for one, _ in of_stock], abs=CLOSE)
    again = run_cli("--store", store, "plan", "--json", path, cwd=here, HF_HOME=str(here / "home"))
    assert {stage["state"] for stage in again.json["stages"]} == {"done"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"repeats": 2}, "wanted: one repeat of task 'arc_easy' (multiple_choice)"),
        ({"budgets": [1]}, "wanted: no `budgets` where nothing is generated"),
        ({"temperature": 0.7}, "wanted: no `temperature` for task 'arc_easy' (multiple_choice)"),
        ({"stop": ["x"]}, "wanted: no `stop` for task 'arc_easy' (multiple_choice)"),
        ({"grader": "math_boxed"}, "wanted: `grader: lm_eval` for task 'arc_easy' (multiple_choice)"),
        ({"benchmark": "wikitext"}, "wikitext.yaml), with 'loglikelihood_rolling'"),
    ],
)
def test_what_means_nothing_here_is_a_mistake(
    cli: Any, here: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    ran = cli("plan", matrix(tmp_path, here / "own", {"arc_easy": options}))
    assert ran.code == 2
    assert said in ran.err
    (name,) = options
    assert f": evaluations.arc_easy.{name}" in ran.err


def test_sampling_in_the_defaults_changes_no_score(cli: Any, here: Path, tmp_path: Path) -> None:
    """What is meant for the other evaluations is passed over, and does not ask for the same scores anew."""

    def keys(**defaults: Any) -> Any:
        ran = cli("plan", "--json", matrix(tmp_path, here / "own", {"glued": {}}, defaults={"evaluation": defaults}))
        assert ran.code == 0, ran.err
        return {stage["kind"]: stage["key"] for stage in ran.json["stages"]}

    assert keys() == keys(temperature=0.7, max_tokens=9, until=["x"], seed=4)
