"""The light reader of task YAML: what is read, and which change reaches the prompt or only the verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distillbench.errors import TaskError
from distillbench.tasks.identity import TaskIndex, read_task
from distillbench.tasks.merging import Function

TASK = """\
task: sums
custom_dataset: !function problems.load
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
process_results: !function scoring.process
generation_kwargs: {until: [], max_gen_toks: 32}
metric_list:
  - metric: exact_match
metadata: {version: 1.0, distillbench: {grader: math_boxed, docs: 20}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A task with two modules and an include."""
    root = tmp_path / "tasks"
    root.mkdir()
    (root / "sums.yaml").write_text("include: _base.yaml\n" + TASK)
    (root / "_base.yaml").write_text(
        "num_fewshot: 0\nfewshot_config: {sampler: first_n}\nfilter_list:\n  - name: none\n"
    )
    (root / "problems.py").write_text("def load(**kwargs): ...\n")
    (root / "scoring.py").write_text("def process(doc, results): ...\n")
    return root


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    """A change of one file; it must find what it replaces."""

    def change(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))

    return change


def identities(root: Path) -> tuple[str, str]:
    spec = read_task(root / "sums.yaml")
    return spec.sample_identity, spec.grade_identity


@pytest.mark.parametrize(
    "change",
    [
        edit("sums.yaml", "scoring.process", "scoring.other"),
        edit("scoring.py", "...", "return {}"),
        edit("sums.yaml", "metric: exact_match", "metric: bleu"),
        edit("sums.yaml", "version: 1.0", "version: 1.1"),
        edit("sums.yaml", "grader: math_boxed", "grader: lm_eval"),
        edit("_base.yaml", "name: none", "name: strict"),
    ],
    ids=["process_results", "its module", "metric_list", "metadata", "grader", "filter_list of an include"],
)
def test_what_only_reaches_the_verdict(folder: Path, change: Callable[[Path], None]) -> None:
    sample, grade = identities(folder)
    change(folder)
    assert identities(folder)[0] == sample
    assert identities(folder)[1] != grade


@pytest.mark.parametrize(
    "change",
    [
        edit("sums.yaml", "{{question}}", "Q: {{question}}"),
        edit("sums.yaml", "{{answer}}", "{{gold}}"),
        edit("sums.yaml", "problems.load", "problems.load_more"),
        edit("problems.py", "...", "return {}"),
        edit("sums.yaml", "test_split: test", "test_split: validation"),
        edit("_base.yaml", "num_fewshot: 0", "num_fewshot: 2"),
        edit("_base.yaml", "sampler: first_n", "sampler: default"),
        edit("sums.yaml", "test_split: test", "test_split: test\ndescription: Add them."),
        edit("sums.yaml", "test_split: test", "test_split: test\ngen_prefix: 'So'"),
        edit("sums.yaml", "test_split: test", "test_split: test\ndataset_kwargs: {revision: abc}"),
    ],
    ids=[
        "doc_to_text",
        "gold",
        "function",
        "its module",
        "split",
        "include",
        "nested",
        "description",
        "prefix",
        "revision",
    ],
)
def test_what_reaches_the_prompt_reaches_the_verdict_too(folder: Path, change: Callable[[Path], None]) -> None:
    sample, grade = identities(folder)
    change(folder)
    assert identities(folder)[0] != sample
    assert identities(folder)[1] != grade


@pytest.mark.parametrize(
    "change",
    [
        edit("sums.yaml", "max_gen_toks: 32", "max_gen_toks: 64"),
        edit("sums.yaml", "task: sums", "repeats: 3\ntask: sums"),
        edit("sums.yaml", "task: sums\n", "# a comment\ntask: sums\n"),
        edit(
            "sums.yaml",
            "test_split: test\noutput_type: generate_until\n",
            "output_type: generate_until\ntest_split: test\n",
        ),
    ],
    ids=["generation_kwargs", "repeats", "comment", "order"],
)
def test_what_has_its_own_place_in_the_key_or_no_meaning(folder: Path, change: Callable[[Path], None]) -> None:
    """Sampling is resolved by the evaluation, which puts it into the key itself."""
    before = identities(folder)
    change(folder)
    assert identities(folder) == before


def test_an_identity_does_not_depend_on_where_the_task_lies(folder: Path, tmp_path: Path) -> None:
    before = identities(folder)
    folder.rename(tmp_path / "elsewhere")
    assert identities(tmp_path / "elsewhere") == before


def test_a_local_key_wins_over_an_include_and_a_later_include_over_an_earlier(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("one: a\ntwo: a\nthree: a\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.yaml").write_text("include: c.yaml\ntwo: b\nthree: b\n")
    (tmp_path / "sub" / "c.yaml").write_text("four: c\ntwo: c\n")
    (tmp_path / "t.yaml").write_text("include: [a.yaml, sub/b.yaml]\ntask: t\nthree: t\n")
    config = read_task(tmp_path / "t.yaml").config
    assert config == {"one": "a", "two": "b", "three": "t", "four": "c", "task": "t"}


def test_a_function_of_an_include_is_looked_for_beside_the_include(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "base.yaml").write_text("doc_to_text: !function text.make\n")
    (tmp_path / "sub" / "text.py").write_text("def make(doc): return doc['q']\n")
    (tmp_path / "t.yaml").write_text("include: sub/base.yaml\ntask: t\n")
    before = read_task(tmp_path / "t.yaml")
    assert before.config["doc_to_text"] == Function("text.make")
    (tmp_path / "sub" / "text.py").write_text("def make(doc): return 'Q: ' + doc['q']\n")
    assert read_task(tmp_path / "t.yaml").sample_identity != before.sample_identity


def test_a_function_in_a_list_counts_too(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("task: t\nfewshot_config:\n  samples: [!function shots.list]\n")
    (tmp_path / "shots.py").write_text("list = 1\n")
    before = read_task(tmp_path / "t.yaml").sample_identity
    (tmp_path / "shots.py").write_text("list = 22\n")
    assert read_task(tmp_path / "t.yaml").sample_identity != before


def test_a_data_file_beside_the_task_is_part_of_its_prompt(tmp_path: Path) -> None:
    """Otherwise an edited data set would be reported under the results of the old one."""
    (tmp_path / "data.jsonl").write_text('{"q": 1}\n')
    data = {"data_files": {"test": str(tmp_path / "data.jsonl")}}
    (tmp_path / "t.yaml").write_text(f"task: t\ndataset_path: json\ndataset_kwargs: {data}\n")
    before = read_task(tmp_path / "t.yaml").sample_identity
    (tmp_path / "moved").mkdir()
    (tmp_path / "data.jsonl").rename(tmp_path / "moved" / "data.jsonl")
    (tmp_path / "t.yaml").write_text((tmp_path / "t.yaml").read_text().replace("data.jsonl", "moved/data.jsonl"))
    assert read_task(tmp_path / "t.yaml").sample_identity == before
    (tmp_path / "moved" / "data.jsonl").write_text('{"q": 1}\n{"q": 2}\n')
    assert read_task(tmp_path / "t.yaml").sample_identity != before


def test_data_that_lies_elsewhere_is_known_by_name_and_revision(tmp_path: Path) -> None:
    found = set()
    for number, line in enumerate(
        (
            "dataset_path: openai/gsm8k",
            "dataset_path: openai/gsm9k",
            "dataset_path: openai/gsm8k\ndataset_kwargs: {revision: a}",
        )
    ):
        path = tmp_path / f"t{number}.yaml"
        path.write_text(f"task: t\n{line}\n")
        found.add(read_task(path).sample_identity)
    assert len(found) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task: t\ndoc_to_text: [1\n", r"t\.yaml:3: not valid YAML"),
        ("task: t\na: {b\n c: d}}\n", r"t\.yaml:\d: not valid YAML"),
        ("- task: t\n", "wanted a mapping of keys, got list"),
        ("", "wanted a mapping of keys, got NoneType"),
        ("doc_to_text: x\n", "wanted `task: NAME`, got None"),
        ("task: [a, b]\n", r"wanted `task: NAME`, got \['a', 'b'\]"),
        ("task: t\ninclude: gone.yaml\n", r"gone\.yaml: cannot be read"),
        ("task: t\ninclude: t.yaml\n", r"includes itself: .*t\.yaml -> .*t\.yaml"),
        ("task: t\ndoc_to_text: !!python/object:os.system x\n", "not valid YAML"),
        ("task: t\nfewshot: .nan\n", "has no identity"),
        ("1: x\ntask: t\n", "wanted keys that are names, got 1"),
    ],
)
def test_a_task_that_cannot_be_read(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(TaskError, match=said):
        read_task(tmp_path / "t.yaml")


def test_a_task_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_bytes(b"task: \xff\xfe")
    with pytest.raises(TaskError, match=r"t\.yaml: cannot be read"):
        read_task(tmp_path / "t.yaml")


def test_includes_in_a_circle_name_the_circle(tmp_path: Path) -> None:
    for here, there in ("ab", "bc", "ca"):
        (tmp_path / f"{here}.yaml").write_text(f"task: {here}\ninclude: {there}.yaml\n")
    with pytest.raises(TaskError, match=r"includes itself: .*a\.yaml -> .*b\.yaml -> .*c\.yaml -> .*a\.yaml"):
        read_task(tmp_path / "a.yaml")


def test_one_file_included_twice_is_no_circle(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("num_fewshot: 1\n")
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("include: base.yaml\n")
    (tmp_path / "t.yaml").write_text("task: t\ninclude: [a.yaml, b.yaml]\n")
    assert read_task(tmp_path / "t.yaml").config["num_fewshot"] == 1


def test_the_index_finds_tasks_in_every_folder(tmp_path: Path) -> None:
    for folder, name in (("one/deep", "alpha"), ("two", "beta")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"{name}.yaml").write_text(f"task: {name}  # a comment\n")
    (tmp_path / "two" / "quoted.yml").write_text("dataset_path: x\ntask: 'gamma'\n")
    (tmp_path / "two" / "_template.yaml").write_text("doc_to_text: x\n")
    (tmp_path / "two" / "group.yaml").write_text("group: all\ntask:\n  - alpha\n  - beta\n")
    index = TaskIndex([tmp_path / "one", tmp_path / "two"])
    assert index.names == ["alpha", "beta", "gamma"]
    assert index.find("gamma").path == (tmp_path / "two" / "quoted.yml").resolve()
    assert index.find("alpha") is index.find("alpha")
    with pytest.raises(TaskError, match=r"no task is named 'alpa'; did you mean 'alpha'\?"):
        index.find("alpa")


def test_one_name_in_two_files_is_an_error_that_names_both(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.yaml").write_text("task: same\n")
    with pytest.raises(TaskError, match=r"'same' is defined twice: .*one/t\.yaml and .*two/t\.yaml"):
        TaskIndex([tmp_path / "one", tmp_path / "two"]).find("same")


def test_one_folder_given_twice_is_no_double(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("task: same\n")
    assert TaskIndex([tmp_path, tmp_path / ".." / tmp_path.name]).names == ["same"]


def test_what_a_task_says_of_distillbench(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(TASK)
    (tmp_path / "plain.yaml").write_text("task: plain\nmetadata: 3\n")
    spec = read_task(tmp_path / "t.yaml")
    assert spec.settings == {"grader": "math_boxed", "docs": 20}
    assert spec.generation_kwargs == {"until": [], "max_gen_toks": 32}
    plain = read_task(tmp_path / "plain.yaml")
    assert (plain.settings, plain.generation_kwargs) == ({}, {})


def test_a_task_of_lm_eval_is_found_without_importing_it(run_python: Callable[..., Any]) -> None:
    code = """
import sys
from distillbench.tasks.identity import TaskIndex
spec = TaskIndex([]).find("gsm8k")
print(spec.name, spec.path.name, spec.path.parent.parent.parent.name, spec.config["dataset_path"])
print(sorted({"lm_eval", "datasets", "torch"} & set(sys.modules)))
"""
    done = run_python("-c", code)
    first, imported = done.out.splitlines()
    assert first.startswith("gsm8k gsm8k.yaml lm_eval ") and first.endswith("gsm8k"), done.err
    assert imported == "[]"


def test_a_folder_of_ones_own_outweighs_lm_eval(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("task: gsm8k\ndataset_path: mine\n")
    assert TaskIndex([tmp_path]).find("gsm8k").config["dataset_path"] == "mine"


@pytest.mark.parametrize("name", ["/", "..", "../..", "", "."])
def test_a_name_that_is_a_path_finds_nothing_and_reads_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`benchmark: /` must not read every YAML file of the machine."""
    read: list[Path] = []
    monkeypatch.setattr("distillbench.tasks.identity._tasks_below", lambda root: read.append(root) or iter(()))
    with pytest.raises(TaskError, match="no task is named"):
        TaskIndex([]).find(name)
    assert all("lm_eval" in path.parts and ".." not in path.parts for path in read)


def test_what_a_module_imports_and_names_is_part_of_the_task(tmp_path: Path) -> None:
    files = {
        "sums.yaml": "task: sums\ncustom_dataset: !function data.load\n",
        "data.py": "import helper\nFILE = 'questions.jsonl'\ndef load(**kwargs): ...\n",
        "helper.py": "from deeper import thing\n",
        "deeper.py": "thing = 1\n",
        "questions.jsonl": "{}\n",
        "unrelated.py": "x = 1\n",
        "unrelated.jsonl": "{}\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    first = read_task(tmp_path / "sums.yaml").sample_identity
    for name in ("unrelated.py", "unrelated.jsonl"):
        (tmp_path / name).write_text("y = 2\n")
        assert read_task(tmp_path / "sums.yaml").sample_identity == first, name
    seen = {first}
    for name in ("helper.py", "deeper.py", "questions.jsonl", "data.py"):
        (tmp_path / name).write_text(files[name] + "\n# changed\n")
        seen.add(read_task(tmp_path / "sums.yaml").sample_identity)
    assert len(seen) == 5


def test_a_module_that_names_odd_files_is_read_and_never_run(tmp_path: Path) -> None:
    (tmp_path / "sums.yaml").write_text("task: sums\ncustom_dataset: !function data.load\n")
    (tmp_path / "data.py").write_text(
        "NAMES = ['/etc/passwd', '../secret', '', '.', 'a' * 9, 'a\\0b', 'x' + 'y', '~']\nraise SystemExit\n"
    )
    assert read_task(tmp_path / "sums.yaml").sample_identity
    (tmp_path / "data.py").write_text("def load(: broken")
    assert read_task(tmp_path / "sums.yaml").sample_identity
