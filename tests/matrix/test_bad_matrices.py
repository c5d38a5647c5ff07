"""Matrix files with mistakes, and what a user is told: the line, the key, what was wanted, what came, the nearest name.

Each case changes the good file below. `#!` in a change marks the line that the message must name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distillbench.catalog import Catalog
from distillbench.errors import MatrixError
from distillbench.matrix.resolve import Matrix, load_matrix

GOOD = """\
name: quickstart
keep: [full]
defaults:
  trainer: {max_steps: 100}
teachers:
  concise: {use: synthetic, style: concise}
  verbose: {use: synthetic, style: verbose}
students:
  tiny: {hidden: 64}
filters:
  fits: {max_tokens: 160}
trainers:
  lora: {use: sft, method: lora}
evaluations:
  coins: {temperature: 0}
matrix:
  teacher: [concise, verbose]
  filters: [[correct_only, fits]]
  trainer: lora
  seed: [0, 1]
"""
AFTER = "  seed: [0, 1]\n"


@dataclass(frozen=True)
class Bad:
    """One case.

    Attributes:
        name: What is wrong.
        old: What of the good file goes away.
        new: What comes instead, with `#!` on the line of the mistake.
        key: The key that the message names; empty for a mistake without one.
        told: What else the message says.
        count: How many mistakes there are.
    """

    name: str
    old: str
    new: str
    key: str
    told: tuple[str, ...]
    count: int = 1


TABLE = [
    Bad(
        "unknown top-level key", "students:", "studnets: #!", "studnets", ("'studnets'", "did you mean 'students'?"), 2
    ),
    Bad("matrix name with a slash", "name: quickstart", "name: a/b #!", "name", ("'a/b'", "letters, digits")),
    Bad("matrix name of dots", "name: quickstart", "name: .. #!", "name", ("'..'",)),
    Bad("matrix name too long", "name: quickstart", f"name: {'x' * 101} #!", "name", ("at most 100 letters",)),
    Bad("matrix name that is a number", "name: quickstart", "name: 5 #!", "name", ("a string", "5")),
    Bad("unknown thing to keep", "[full]", "[full, merge] #!", "keep", ("one of: full, merged", "wrong at item 2")),
    Bad("keep is no list", "[full]", "full #!", "keep", ("a list of values, each one of: full, merged", "'full'")),
    Bad("task_paths is no list", "keep: [full]", "task_paths: tasks #!", "task_paths", ("a list of paths",)),
    Bad("task path missing", "keep: [full]", "task_paths: [nowhere] #!", "task_paths[0]", ("nowhere", "no folder")),
    Bad("unknown launcher", "keep: [full]", "launcher: {use: locl} #!", "launcher.use", ("did you mean 'local'?",)),
    Bad("launcher as a string", "keep: [full]", "launcher: local #!", "launcher", ("a mapping", "{use: local}")),
    Bad("wrong launcher option", "keep: [full]", "launcher: {workers: x} #!", "launcher.workers", ("a whole number",)),
    Bad("defaults of no kind", "  trainer: {max", "  trainers: #!\n    {max", "defaults.trainers", ("'trainer'",)),
    Bad("defaults is a list", "defaults:\n  trainer: {max_steps: 100}", "defaults: [1] #!", "defaults", ("a mapping",)),
    Bad(
        "defaults of a kind is a number", "{max_steps: 100}", "5 #!", "defaults.trainer", ("a mapping of options", "5")
    ),
    Bad(
        "default that no trainer has",
        "{max_steps: 100}",
        "{max_step: 100} #!",
        "defaults.trainer.max_step",
        ("an option of a trainer that this file uses", "did you mean 'max_steps'?"),
    ),
    Bad(
        "default that no evaluation has",
        "  trainer: {max_steps: 100}",
        "  evaluation: {max_token: 5} #!",
        "defaults.evaluation.max_token",
        ("did you mean 'max_tokens'?",),
    ),
    Bad(
        "default of the wrong type",
        "{max_steps: 100}",
        "{max_steps: ten} #!",
        "defaults.trainer.max_steps",
        ("a whole number", "'ten'"),
    ),
    Bad(
        "section is a list",
        "filters:\n  fits: {max_tokens: 160}",
        "filters: [fits] #!",
        "filters",
        ("a mapping of names", "['fits']"),
    ),
    Bad("entry is a string", "{use: sft, method: lora}", "sft #!", "trainers.lora", ("a mapping", "write {use: sft}")),
    Bad(
        "entry with a bad name",
        "  tiny: {h",
        "  ti/ny: #!\n    {use: tiny, h",
        "students.ti/ny",
        ("letters, digits",),
        1,
    ),
    Bad("unknown component", "{use: sft,", "{use: stf, #!\n   ", "trainers.lora.use", ("'stf'", "did you mean 'sft'?")),
    Bad(
        "entry that is no component", "  tiny: {", "  tny: #!\n    {", "students.tny", ("'tny'", "did you mean 'tiny'?")
    ),
    Bad("use is a number", "{use: sft,", "{use: 5, #!\n   ", "trainers.lora.use", ("the name of a component", "5")),
    Bad(
        "unknown option",
        "method: lora}",
        "methd: lora} #!",
        "trainers.lora.methd",
        ("an option of trainer 'lora' (sft)", "did you mean 'method'?"),
    ),
    Bad(
        "option outside its choices",
        "method: lora}",
        "method: lorra} #!",
        "trainers.lora.method",
        ("one of: lora, full", "'lorra'", "did you mean 'lora'?"),
    ),
    Bad(
        "number as a string",
        "method: lora}",
        "learning_rate: fast} #!",
        "trainers.lora.learning_rate",
        ("a number > 0", "'fast'"),
    ),
    Bad("options that clash", "method: lora}", "method: full} #!", "trainers.lora", ("method full has no rank",)),
    Bad("off is no boolean", "method: lora}", "packing: off} #!", "trainers.lora.packing", ("true or false", "'off'")),
    Bad(
        "required option missing",
        "{use: synthetic, style: verbose}",
        "{use: recorded} #!",
        "teachers.verbose",
        ("`path`: a path", "nothing"),
    ),
    Bad(
        "input file missing",
        "{use: synthetic, style: verbose}",
        "{use: recorded, path: no.jsonl} #!",
        "teachers.verbose.path",
        ("no.jsonl", "No such file"),
    ),
    Bad(
        "unused entry with a mistake",
        "students:",
        "  spare: {use: synthetic, n: many} #!\nstudents:",
        "teachers.spare.n",
        ("a whole number", "'many'"),
    ),
    Bad("no evaluation", "  coins: {temperature: 0}\n", "", "evaluations", ("at least one evaluation",)),
    Bad("unknown task", "  coins: {", "  coin: #!\n    {", "evaluations.coin", ("no task is named 'coin'", "'coins'")),
    Bad(
        "unknown benchmark",
        "{temperature: 0}",
        "{benchmark: dise} #!",
        "evaluations.coins.benchmark",
        ("no task is named 'dise'", "did you mean 'dice'?"),
    ),
    Bad(
        "broken task file",
        "{temperature: 0}",
        "{benchmark: broken} #!",
        "evaluations.coins.benchmark",
        ("broken.yaml", "not valid YAML"),
    ),
    Bad("benchmark is a number", "{temperature: 0}", "{benchmark: 5} #!", "evaluations.coins.benchmark", ("a string",)),
    Bad("negative temperature", "temperature: 0", "temperature: -1 #!\n  ", "evaluations.coins.temperature", (">= 0",)),
    Bad("no budget", "temperature: 0}", "max_tokens: 0} #!", "evaluations.coins.max_tokens", ("a whole number >= 1",)),
    Bad("unknown prefill", "temperature: 0}", "prefill: thnk} #!", "evaluations.coins.prefill", ("'think'",)),
    Bad(
        "limit of zero", "temperature: 0}", "limit: 0} #!", "evaluations.coins.limit", ("a whole number >= 1 or null",)
    ),
    Bad("unknown grader", "temperature: 0}", "grader: maths_boxed} #!", "evaluations.coins.grader", ("'math_boxed'",)),
    Bad(
        "unknown grader option",
        "temperature: 0}",
        "grader_options: {strct: true}} #!",
        "evaluations.coins.grader_options.strct",
        ("an option of grader 'math_boxed'", "did you mean 'strict'?"),
    ),
    Bad("axis without values", "seed: [0, 1]", "seed: [] #!", "matrix.seed", ("at least one value",)),
    Bad("axis that is null", "trainer: lora", "trainer: #!", "matrix.trainer", ("the name of a trainer", "None")),
    Bad("no chain", "[[correct_only, fits]]", "[] #!", "matrix.filters", ("at least one value", "[[]]")),
    Bad(
        "chain without its own brackets",
        "[[correct_only, fits]]",
        "\n  - correct_only #!\n  - fits",
        "matrix.filters[0]",
        ("a chain", '[["correct_only", "fits"]] for one chain'),
        2,
    ),
    Bad("unknown name", "verbose]", "verbos] #!", "matrix.teacher[1]", ("an entry of `teachers`", "'verbose'")),
    Bad("unknown filter", "[[correct_only", "[[corect_only #!\n   ", "matrix.filters[0][0]", ("'correct_only'",)),
    Bad("name that is a mapping", "trainer: lora", "trainer: [{use: sft}] #!", "matrix.trainer[0]", ("the name of a",)),
    Bad("unknown axis", AFTER, AFTER + "  sede: 1 #!\n", "matrix.sede", ("an axis", "did you mean 'seed'?")),
    Bad("unknown dotted axis", AFTER, AFTER + "  trainers.rank: 1 #!\n", "matrix.trainers.rank", ("'trainer.rank'",)),
    Bad(
        "dotted axis of an unknown option",
        AFTER,
        AFTER + "  trainer.lerning_rate: [1, 2] #!\n",
        "matrix.trainer.lerning_rate",
        ("an option of trainer 'lora' (sft)", "did you mean 'learning_rate'?"),
    ),
    Bad(
        "dotted axis of the wrong type",
        AFTER,
        AFTER + "  trainer.rank:\n  - 1\n  - two #!\n",
        "matrix.trainer.rank[1]",
        ("a whole number or null", "'two'"),
    ),
    Bad(
        "dotted axis of an unknown evaluation",
        AFTER,
        AFTER + "  evaluations.coinz.limit: 5 #!\n",
        "matrix.evaluations.coinz.limit",
        ("the name of an evaluation", "did you mean 'coins'?"),
    ),
    Bad(
        "dotted axis of an unknown filter",
        AFTER,
        AFTER + "  filters.fit.max_tokens: 5 #!\n",
        "matrix.filters.fit.max_tokens",
        ("an entry of `filters`", "did you mean 'fits'?"),
    ),
    Bad(
        "dotted axis that no filter uses",
        AFTER,
        AFTER.replace("  seed", "  filters.max_tokens: 5 #!\n  seed"),
        "matrix.filters.max_tokens",
        ("filters.NAME.OPTION",),
    ),
    Bad("negative seed", "[0, 1]", "[0, -1] #!", "matrix.seed[1]", ("a whole number >= 0", "-1")),
    Bad("seed that is no number", "[0, 1]", "zero #!", "matrix.seed", ("a whole number >= 0", "'zero'")),
    Bad("seed that is a boolean", "[0, 1]", "[true] #!", "matrix.seed[0]", ("a whole number >= 0", "True")),
    Bad("value twice", "[0, 1]", "[0, 0] #!", "matrix.seed[1]", ("each value once", "0 again")),
    Bad(
        "duplicate cells",
        "matrix:",
        "matrix: #!\n  trainer.learning_rate: [1e-3]\n  include: [{teacher: concise, seed: 0, trainer: sft}]",
        "matrix",
        ("duplicate cells: {", "teacher: concise", "trainer: lora", "} and {", "trainer: sft"),
    ),
    Bad(
        "axis that changes nothing",
        "matrix:\n  teacher: [concise, verbose]\n  filters: [[correct_only, fits]]",
        "matrix: #!\n  filters: correct_only\n  filters.fits.max_tokens: [1, 2]",
        "matrix",
        ("duplicate cells", "filters.fits.max_tokens: 2"),
        4,
    ),
    Bad(
        "exclude that matches nothing",
        AFTER,
        AFTER + "  exclude:\n  - {teacher: verbose}\n  - {teacher: verbos} #!\n",
        "matrix.exclude[1]",
        ("values of at least one combination", "teacher never is 'verbos'"),
    ),
    Bad(
        "exclude of an axis left out",
        AFTER,
        AFTER + "  exclude: [{engine: vllm}] #!\n",
        "matrix.exclude[0]",
        ("engine",),
    ),
    Bad("unknown axis in exclude", AFTER, AFTER + "  exclude: [{sed: 1}] #!\n", "matrix.exclude[0].sed", ("'seed'",)),
    Bad(
        "exclude of everything", AFTER, AFTER + "  exclude: [{}] #!\n", "matrix.exclude[0]", ("a mapping of axes", "{}")
    ),
    Bad("exclude is a mapping", AFTER, AFTER + "  exclude: {seed: 1} #!\n", "matrix.exclude", ("a list of mappings",)),
    Bad(
        "nothing is left",
        "matrix:",
        "matrix: #!\n  exclude: [{student: tiny}]",
        "matrix",
        ("at least one combination", "`exclude` removes all"),
    ),
    Bad("include is a string", AFTER, AFTER + "  include: [verbose] #!\n", "matrix.include[0]", ("a mapping of axes",)),
    Bad("unknown key in include", AFTER, AFTER + "  include: [{sed: 1}] #!\n", "matrix.include[0].sed", ("'seed'",)),
    Bad("list in include", AFTER, AFTER + "  include: [{seed: [1]}] #!\n", "matrix.include[0].seed", (">= 0", "[1]")),
    Bad(
        "unknown name in include",
        AFTER,
        AFTER + "  include:\n  - {teacher: concise, seed: 9}\n  - {teacher: consise, seed: 9} #!\n",
        "matrix.include[1].teacher",
        ("did you mean 'concise'?",),
    ),
    Bad(
        "include without what its combination needs",
        AFTER,
        AFTER + "  include: [{teacher: synthetic}] #!\n",
        "matrix.include[0]",
        ("`seed`, since it makes a combination of its own", "one of: 0, 1"),
    ),
    Bad(
        "one name for several cells",
        AFTER,
        AFTER + "  include: [{teacher: concise, name: mine}] #!\n",
        "matrix.include[0].name",
        ("a name for one cell", "a name for 2 cells"),
        2,
    ),
    Bad(
        "duplicate names",
        "matrix:",
        "matrix: #!\n  include: [{teacher: concise, seed: 9, name: 'verbose,seed=1'}]",
        "matrix",
        ("cells with names of their own", "two named 'verbose,seed=1'"),
    ),
    Bad(
        "name that is no folder",
        AFTER,
        AFTER + "  include: [{teacher: concise, seed: 9, name: ../x}] #!\n",
        "matrix.include[0].name",
        ("can be a folder", "'../x'"),
    ),
    Bad("matrix is a list", GOOD[GOOD.index("matrix:") :], "matrix: [1] #!\n", "matrix", ("a mapping of axes", "[1]")),
    Bad(
        "too many combinations",
        "[0, 1]",
        f"{list(range(60_000))}",
        "matrix",
        ("at most 100,000 combinations", "120,000"),
    ),
    Bad("student without a renderer", "  tiny: {hidden: 64}", "  silent: {} #!", "students.silent", ("`renderer`",)),
    Bad("engine left out and unknown", AFTER, AFTER + "  engine: [vlm] #!\n", "matrix.engine[0]", ("'vllm'",)),
    Bad("duplicate key", "matrix:", "keep: [] #!\nmatrix:", "keep", ("each key once", "on lines 2 and 16")),
    Bad(
        "key that is no string", "  tiny: {", "  1.5: #!\n    {use: tiny, ", "students.1.5", ("a key that is a string",)
    ),
    Bad(
        "do_sample beside a temperature",
        "{temperature: 0}",
        "{do_sample: false, temperature: 0.7} #!",
        "evaluations.coins.do_sample",
        ("do_sample: false with temperature 0.7 (matrix.yaml:15", "`temperature: 0` is greedy", "to sample at 0.7"),
    ),
    Bad(
        "do_sample alone",
        "{temperature: 0}",
        "{do_sample: false} #!",
        "evaluations.coins.do_sample",
        ("`temperature`, which alone says", "do_sample: false", "`temperature: 0` is greedy"),
    ),
    Bad(
        "do_sample that is true",
        "{temperature: 0}",
        "{do_sample: true} #!",
        "evaluations.coins.do_sample",
        ("`temperature: 0` is greedy, any above 0 samples",),
    ),
    Bad(
        "do_sample among defaults, the temperature in an entry",
        "  trainer: {max_steps: 100}\n",
        "  evaluation: {do_sample: false} #!\n",
        "defaults.evaluation.do_sample",
        ("`temperature: 0` is greedy",),
    ),
    Bad(
        "do_sample as an axis",
        AFTER,
        AFTER + "  evaluation.do_sample: [false] #!\n",
        "matrix.evaluation.do_sample[0]",
        ("`temperature: 0` is greedy",),
    ),
    Bad(
        "do_sample in a student's sampling",
        "{hidden: 64}",
        "{sampling: {do_sample: false, temperature: 0.6}} #!",
        "students.tiny.sampling.do_sample",
        ("with temperature 0.6 (matrix.yaml:9: students.tiny.sampling.temperature)",),
    ),
    Bad(
        "sampling option of a student that is none",
        "{hidden: 64}",
        "{sampling: {temprature: 0.6}} #!",
        "students.tiny.sampling.temprature",
        ("the sampling of student 'tiny'", "did you mean 'temperature'?"),
    ),
    Bad(
        "option of an evaluation in a student's sampling",
        "{hidden: 64}",
        "{sampling: {limit: 5}} #!",
        "students.tiny.sampling.limit",
        ("the sampling of student 'tiny'", "'limit'"),
    ),
    Bad(
        "value in a student's sampling",
        "{hidden: 64}",
        "{sampling: {top_p: 2}} #!",
        "students.tiny.sampling.top_p",
        ("a number > 0 and <= 1", "2"),
    ),
    Bad(
        "value in the sampling of a student that no cell uses",
        "  tiny: {hidden: 64}",
        "  tiny: {hidden: 64}\n  other: {use: tiny, sampling: {top_k: -1}} #!",
        "students.other.sampling.top_k",
        ("a whole number >= 0", "-1"),
    ),
    Bad(
        "sampling of a student that is no mapping",
        "{hidden: 64}",
        "{sampling: greedy} #!",
        "students.tiny.sampling",
        ("a mapping of sampling options", "'greedy'", "{temperature: 0.6"),
    ),
    Bad(
        "sampling of a student as an axis",
        AFTER,
        AFTER + "  student.sampling.top_k: [5, 9] #!\n",
        "matrix.student.sampling.top_k",
        ("an axis of evaluations, such as `evaluation.temperature`",),
    ),
    Bad(
        "sampling of a student among defaults",
        "  trainer: {max_steps: 100}\n",
        "  student: {sampling: {top_k: 5}} #!\n",
        "defaults.student.sampling",
        ("stands in a student's entry", "`defaults.evaluation`"),
    ),
    Bad(
        "empty stop string",
        "{temperature: 0}",
        "{stop: [a, '']} #!",
        "evaluations.coins.stop",
        ("a list of strings of length >= 1", "wrong at item 2"),
    ),
    Bad(
        "stop that is no list",
        "{temperature: 0}",
        "{stop: END} #!",
        "evaluations.coins.stop",
        ("a list of strings", "'END'"),
    ),
    Bad(
        "budgets that do not ascend",
        "{temperature: 0}",
        "{budgets: [200, 100]} #!",
        "evaluations.coins.budgets",
        ("each budget once, the smallest first", "[200, 100]", "write [100, 200]"),
    ),
    Bad(
        "a budget twice",
        "{temperature: 0}",
        "{budgets: [100, 100]} #!",
        "evaluations.coins.budgets",
        ("each budget once", "write [100]"),
    ),
    Bad(
        "a budget that is the generation's own",
        "{temperature: 0}",
        "{max_tokens: 200, budgets: [100, 200]} #!",
        "evaluations.coins.budgets",
        ("budgets below max_tokens 200 (matrix.yaml:15: evaluations.coins.max_tokens)", "[100, 200]"),
    ),
    Bad(
        "a budget above the task's",
        "{temperature: 0}",
        "{budgets: [300]} #!",
        "evaluations.coins.budgets",
        ("budgets below max_tokens 256", "coins.yaml: generation_kwargs.max_gen_toks", "[300]"),
    ),
    Bad(
        "a budget above what an axis says",
        AFTER,
        AFTER + "  evaluation.budgets: [[100]] #!\n  evaluation.max_tokens: [200, 50]\n",
        "matrix.evaluation.budgets[0]",
        ("budgets below max_tokens 50 (matrix.yaml:22: matrix.evaluation.max_tokens[1])",),
    ),
    Bad(
        "a budget of no tokens",
        "{temperature: 0}",
        "{budgets: [0, 5]} #!",
        "evaluations.coins.budgets",
        ("a list of whole numbers >= 1", "wrong at item 1"),
    ),
    Bad(
        "negative sampling seed",
        "{temperature: 0}",
        "{seed: -1} #!",
        "evaluations.coins.seed",
        ("a whole number >= 0", "-1"),
    ),
    Bad("tab", "  tiny: {hidden: 64}", "\ttiny: {hidden: 64} #!", "", ("valid YAML", "never with tabs")),
    Bad("brace left open", "{hidden: 64}", "{hidden: 64", "", ("valid YAML",)),
    Bad(
        "python tag",
        "{hidden: 64}",
        "{hidden: !!python/name:os.system x} #!",
        "students.tiny.hidden",
        ("a plain value",),
        2,
    ),
    Bad("cyclic YAML", "{hidden: 64}", "&a {hidden: *a} #!", "students.tiny.hidden", ("inside of",)),
    Bad("unknown alias", "{hidden: 64}", "{hidden: *a} #!", "", ("undefined alias",)),
]


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name.replace(" ", "-"))
def test_a_bad_matrix_is_told_with_its_line_and_key(bad: Bad, write: Callable[[str], Path], catalog: Catalog) -> None:
    assert GOOD.count(bad.old) == 1, "the case must change one place of the good file"
    text = GOOD.replace(bad.old, bad.new)
    lines = [number for number, line in enumerate(text.split("\n"), 1) if "#!" in line]
    with pytest.raises(MatrixError) as caught:
        load_matrix(write(text.replace("#!", "")), catalog)
    message = str(caught.value)
    place = f"matrix.yaml:{lines[0]}" if lines else "matrix.yaml:"
    matching = [
        str(mistake)
        for mistake in caught.value.mistakes
        if str(mistake.place).startswith(place) and str(mistake.place).endswith(f": {bad.key}" if bad.key else "")
    ]
    assert matching, message
    assert any(all(fragment in text for fragment in bad.told) for text in matching), message
    assert len(caught.value.mistakes) == bad.count, message


def test_the_good_file_is_good(write: Callable[[str], Path], catalog: Catalog) -> None:
    assert len(load_matrix(write(GOOD), catalog).cells) == 5


def test_every_mistake_comes_at_once_in_the_order_of_the_file(write: Callable[[str], Path], catalog: Catalog) -> None:
    text = (
        GOOD.replace("name: quickstart", "name: a/b\nnmae: x")
        .replace("max_steps: 100", "max_stps: 100")
        .replace("hidden: 64", "hidden: big")
        .replace("method: lora", "methd: lora, learning_rate: -1")
        .replace("temperature: 0", "temperature: hot, benchmark: dise")
        .replace("verbose]", "verbos]")
        .replace("seed: [0, 1]", "seed: [-1]\n  trainer.rnk: 3\n  exclude: [{sed: 1}]")
    )
    with pytest.raises(MatrixError) as caught:
        load_matrix(write(text), catalog)
    places = [str(mistake.place).removeprefix("matrix.yaml:") for mistake in caught.value.mistakes]
    assert places == [
        "1: name",
        "2: nmae",
        "5: defaults.trainer.max_stps",
        "10: students.tiny.hidden",
        "14: trainers.lora.methd",
        "14: trainers.lora.learning_rate",
        "16: evaluations.coins.benchmark",
        "16: evaluations.coins.temperature",
        "18: matrix.teacher[1]",
        "21: matrix.seed[0]",
        "22: matrix.trainer.rnk",
        "23: matrix.exclude[0].sed",
    ]


def test_a_kind_that_is_missing_is_told(load: Callable[..., Matrix]) -> None:
    head = GOOD[: GOOD.index("matrix:")]
    for old, new, told in (
        ("trainers:\n  lora: {use: sft, method: lora}\n", "", "matrix.yaml:1: trainers"),
        ("students:\n  tiny: {hidden: 64}\n", "students:\n", "matrix.yaml:7: students"),
        (GOOD[GOOD.index("teachers:") : GOOD.index("students:")], "teachers: {}\n", "matrix.yaml:4: teachers"),
    ):
        with pytest.raises(MatrixError) as caught:
            load(head.replace(old, new).replace("  trainer: {max_steps: 100}\n", ""))
        assert [str(mistake.place) for mistake in caught.value.mistakes] == [told]


@pytest.mark.parametrize(
    ("benchmark", "told"),
    [
        ("beams", ("beams.yaml: generation_kwargs.num_beams", "an option of evaluation 'coins'", "'num_beams'")),
        ("hot", ("hot.yaml: generation_kwargs.temperature", "a number >= 0", "'very'")),
        ("typo", ("typo.yaml: metadata.distillbench.gradr", "did you mean 'grader'?")),
        ("nograder", ("nograder.yaml", "a registered grader", "did you mean 'math_boxed'?")),
    ],
)
def test_a_bad_task_is_told_with_its_file(benchmark: str, told: tuple[str, ...], load: Callable[..., Matrix]) -> None:
    with pytest.raises(MatrixError) as caught:
        load(GOOD.replace("{temperature: 0}", f"{{benchmark: {benchmark}}}"))
    assert [fragment for fragment in told if fragment not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "an empty file"),
        (b"name: caf\xe9\n", "which is not UTF-8"),
        (b"- a\n", "a mapping of keys"),
        (
            b"x0: &x0 [1]\n" + b"".join(b"x%d: &x%d [%s]\n" % (n, n, b"*x%d," % (n - 1) * 9) for n in range(1, 9)),
            "aliases",
        ),
        (b"a: " + b"[" * 100_000, "at most 50 levels"),
        (b"a: b\x00c\n", "a control character"),
    ],
)
def test_a_file_that_is_no_matrix(content: bytes, told: str, tmp_path: Path, catalog: Catalog) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_bytes(content)
    with pytest.raises(MatrixError, match=told):
        load_matrix(path, catalog)


def test_a_missing_file_and_a_folder(tmp_path: Path, catalog: Catalog) -> None:
    with pytest.raises(MatrixError, match="No such file"):
        load_matrix(tmp_path / "none.yaml", catalog)
    with pytest.raises(MatrixError, match="Is a directory"):
        load_matrix(tmp_path, catalog)


def test_a_file_name_that_cannot_be_a_folder_needs_a_name(tmp_path: Path, catalog: Catalog) -> None:
    path = tmp_path / "my matrix.yaml"
    path.write_text(GOOD.replace("name: quickstart\n", ""))
    with pytest.raises(MatrixError, match="give another with `name:`"):
        load_matrix(path, catalog)


DATA = {
    **yaml.safe_load(GOOD),
    "launcher": {"use": "local"},
    "task_paths": [],
}
DATA["matrix"] |= {
    "trainer.learning_rate": [1e-4, 2e-4],
    "evaluations.coins.limit": [5],
    "include": [{"teacher": "concise", "seed": 9, "name": "mine"}, {"trainer.rank": 3}],
    "exclude": [{"teacher": "verbose", "seed": 1}],
}
JUNK = st.recursive(
    st.sampled_from(
        [None, True, 0, -1, 10**30, 1e300, float("nan"), "", "..", "lora", "é\u0000", "a/b", "trainer.rank"]
    ),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["use", "", "x", "seed"]), inner, max_size=2)
    ),
    max_leaves=3,
)


def spoil(data: Any, junk: Any, random: Any) -> Any:
    """A copy with one value replaced by junk, dropped, or put under another key."""
    if not isinstance(data, dict | list) or not data or random.random() < 0.1:
        return junk
    copy: Any = dict(data) if isinstance(data, dict) else dict(enumerate(data))
    key = random.choice(list(copy))
    action = random.random()
    if action < 0.1:
        del copy[key]
    elif action < 0.2:
        copy[f"{key}x"] = copy.pop(key)
    elif action < 0.3:
        copy["junk"] = junk
    else:
        copy[key] = spoil(copy[key], junk, random)
    return copy if isinstance(data, dict) else list(copy.values())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400, deadline=None)
@given(JUNK, JUNK, st.randoms(use_true_random=False))
def test_no_spoiled_matrix_gives_a_traceback(
    tmp_path: Path, catalog: Catalog, one: Any, other: Any, random: Any
) -> None:
    path = tmp_path / "matrix.yaml"
    spoiled = spoil(spoil(DATA, one, random), other, random)
    path.write_text(yaml.safe_dump(spoiled, sort_keys=False), encoding="utf-8")
    try:
        matrix = load_matrix(path, catalog)
    except MatrixError as error:
        assert error.mistakes
        assert all(mistake.wanted and mistake.got for mistake in error.mistakes)
    else:
        assert len({cell.name for cell in matrix.cells}) == len(matrix.cells) > 0


def test_thousands_of_duplicates_are_told_in_a_few(load: Callable[..., Matrix]) -> None:
    text = GOOD.replace("[0, 1]", str(list(range(1000)))).replace("[[correct_only, fits]]", "[[]]")
    with pytest.raises(MatrixError) as caught:
        load(text + "  filters.fits.max_tokens: [1, 2]\n")
    assert len(caught.value.mistakes) == 11
    assert "duplicate cells: 1990 more" in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "key", "told"),
    [
        ("evaluations.math500.max_tokens: 5", "evaluations.math500.max_tokens", "the name of an evaluation"),
        ("filters.nope.limit: 5", "filters.nope.limit", "an entry of `filters`"),
        ("filters.fits.max_tokens: 5", "", "filters.fits.max_tokens never is 5"),
        ("trainer.rank: 5", "", "trainer.rank never is 5"),
        ("evaluation.limit: 5", "", "evaluation.limit never is 5"),
    ],
)
def test_an_exclude_of_an_axis_that_is_nowhere_is_told_with_its_line(
    entry: str, key: str, told: str, write: Callable[[str], Path], catalog: Catalog
) -> None:
    """An entry with a mistake stands before it, so that its index in the file is not its index among the good."""
    path = write(GOOD + f"  exclude:\n    - {{tacher: x}}\n    - {{{entry}}}\n")
    with pytest.raises(MatrixError) as caught:
        load_matrix(path, catalog)
    places = [str(mistake.place) for mistake in caught.value.mistakes]
    assert "matrix.yaml:22: matrix.exclude[0].tacher" in places
    if key:
        assert f"matrix.yaml:23: matrix.exclude[1].{key}" in places
        assert told in str(caught.value)


@pytest.mark.parametrize("entry", ["evaluation.limit: 5", "trainer.rank: 5", "seed: 7", "teacher: verbose, seed: 8"])
def test_an_idle_exclude_after_a_wide_one_is_told_at_its_own_line(
    entry: str, write: Callable[[str], Path], catalog: Catalog
) -> None:
    path = write(GOOD + f"  exclude:\n    - {{seed: 1}}\n    - {{{entry}}}\n")
    with pytest.raises(MatrixError) as caught:
        load_matrix(path, catalog)
    assert [str(mistake.place) for mistake in caught.value.mistakes] == ["matrix.yaml:23: matrix.exclude[1]"]


def test_the_root_of_the_disk_is_no_folder_of_tasks(write: Callable[[str], Path], catalog: Catalog) -> None:
    path = write("task_paths: [/]\n" + GOOD.replace("coins:", "nope:"))
    with pytest.raises(MatrixError, match="files and folders"):
        load_matrix(path, catalog)


@pytest.mark.parametrize(
    "line",
    [
        "generation_kwargs: {temperature: !function d.f}",
        "generation_kwargs: {temperature: 2026-01-01}",
        "generation_kwargs: {until: !!set {a}}",
        "generation_kwargs: {until: !!binary aGVsbG8=}",
        "generation_kwargs: {1: 2}",
        "generation_kwargs: {true: 2}",
        "repeats: !function d.f",
        "repeats: 2026-01-01",
        "output_type: !function d.f",
        "metadata: {distillbench: {grader: !function d.f}}",
        "metadata: {distillbench: {grader_options: {strict: !function d.f}}, 1: 2}",
        "metadata: {distillbench: {grader_options: {strict: {1: {2026-01-01: 2}}}}}",
        "metadata: {distillbench: {grader_options: [1]}}",
        "metadata: {distillbench: {2: 3, grader: math_boxed}}",
        "metadata: {distillbench: {docs: .inf}}",
        "metadata: {data: {1: 2, hub: x}}",
        "metadata: {data: {hub: x, rows: 1, file: /etc/passwd}}",
        "metadata: {data: {hub: x, rows: 1, file: ../a}}",
        "metadata: {data: {hub: x, rows: 1, file: 'a**b'}}",
        "metadata: {data: {hub: x, rows: 1, file: ''}}",
    ],
)
def test_an_odd_value_in_a_task_is_a_mistake_with_its_file(
    line: str, tmp_path: Path, write: Callable[[str], Path], catalog: Catalog
) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "t.yaml").write_text(f"task: t\n{line}\n")
    path = write("task_paths: [odd]\n" + GOOD.replace("coins: {", "t: {metadata: {}, "))
    with pytest.raises(MatrixError) as caught:
        load_matrix(path, catalog)
    assert "t.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        (f"task_paths: [{'a' * 300}]", ("matrix.yaml:1: task_paths[0]", "which is no folder")),
        ("task_paths: [~nobody_of_this_name/tasks]", ("matrix.yaml:1: task_paths[0]", "which is no folder")),
        ('task_paths: ["a\\0b"]', ("matrix.yaml:1: task_paths", "no path holds a NUL")),
        ("task_paths: [/dev/null]", ("matrix.yaml:1: task_paths[0]", "which is no folder")),
        (f"data_root: {'a' * 300}", ("matrix.yaml:1: data_root", "which is no folder")),
        ("data_root: ~nobody_of_this_name", ("matrix.yaml:1: data_root", "which is no folder")),
    ],
)
def test_paths_that_no_system_has_are_mistakes(
    section: str, told: tuple[str, ...], write: Callable[[str], Path], catalog: Catalog
) -> None:
    with pytest.raises(MatrixError) as caught:
        load_matrix(write(f"{section}\n{GOOD}"), catalog)
    assert all(words in str(caught.value) for words in told)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("a" * 300, "File name too long"),
        ("~nobody_of_this_name/x", "No such file or directory"),
        ("/dev/zero", "neither a file nor a folder"),
        ('"a\\0b"', "no path holds a NUL"),
    ],
)
def test_inputs_that_cannot_be_read_are_told_at_their_line(
    path: str, told: str, write: Callable[[str], Path], catalog: Catalog
) -> None:
    text = GOOD.replace("concise: {use: synthetic, style: concise}", f"concise: {{use: recorded, path: {path}}}")
    with pytest.raises(MatrixError) as caught:
        load_matrix(write(text), catalog)
    assert [str(mistake.place) for mistake in caught.value.mistakes] == ["matrix.yaml:6: teachers.concise.path"]
    assert told in str(caught.value)


def test_a_folder_of_everything_is_no_input(
    write: Callable[[str], Path], catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distillbench.fingerprint._MOST_FILES", 20)
    (tmp_path / "many").mkdir()
    for number in range(21):
        (tmp_path / "many" / str(number)).touch()
    text = GOOD.replace("concise: {use: synthetic, style: concise}", "concise: {use: recorded, path: many}")
    with pytest.raises(MatrixError, match="a folder of more than 20 files"):
        load_matrix(write(text), catalog)
    (tmp_path / "many" / "20").unlink()
    assert load_matrix(write(text), catalog).cells
