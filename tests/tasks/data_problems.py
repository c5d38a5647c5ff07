"""A few problems of our own in the form of each benchmark's source, and of the copy below a data root."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distillbench.fingerprint import canonical_json
from distillbench.records import TaskRef
from distillbench.tasks.identity import TaskIndex
from distillbench.tasks.loader import LmEvalTasks

TASK_ROOT = Path(__import__("distillbench_tasks").__file__).parent
Row = Mapping[str, Any]

MATH500 = [
    {"problem": "What is $2+3$?", "answer": "5", "subject": "Algebra", "level": 1, "unique_id": "own/1"},
    {
        "problem": "Halve $1$.",
        "answer": "\\frac{1}{2}",
        "subject": "Algebra",
        "level": 2,
        "unique_id": "own/2",
    },
    {
        "problem": "What is $7\\cdot 6$?",
        "answer": "42",
        "subject": "Algebra",
        "level": 1,
        "unique_id": "own/3",
    },
]
AIME = [
    {"id": 7, "question": "Count to 25.", "answer": "025", "url": "https://x.org/2022_AIME_I_Problems/Problem_3"},
    {"id": 8, "question": "Count to 4.", "answer": "4", "url": "https://x.org/2024_AIME_II_Problems/Problem_15"},
]
AIME25 = [
    {"idx": 0, "prompt": "<|im_start|>user\nWhat is $6^2$?\nPlease reason step by step, and so on.<|im_end|>\n",
     "reference_solution": "\\boxed{36^\\circ}\n#### 36^\\circ"},
]  # fmt: skip
AIME_HUB = [
    {"id": 7, "problem": "Count to 25.", "answer": "025", "url": "https://x.org/2022_AIME_I_Problems/Problem_3"}
]
AIME25_HUB = [{"id": "3", "problem": "What is $6^2$?", "answer": "36"}]


def evalplus(name: str) -> list[Row]:
    """Rows whose inputs have another type in each row, as EvalPlus' have."""
    about = {"contract": "", "atol": 0}
    double = {
        "prompt": '\ndef double(x):\n    """Twice x."""\n',
        "entry_point": "double",
        "canonical_solution": "    return 2 * x\n",
        "base_input": [[1], [2.5]],
        "plus_input": [[10**30], [-3]],
    }
    join = {
        "prompt": '\ndef join(parts, by="-"):\n    """Joins the parts."""\n',
        "entry_point": "join",
        "canonical_solution": "    return by.join(parts)\n",
        "base_input": [[["a", "b"], "+"], [[]]],
        "plus_input": [[["é", "\u2028"]]],
        "atol": 1e-6,
    }
    return [about | {"task_id": f"{name}/0"} | double, about | {"task_id": f"{name}/1"} | join]


LIVECODEBENCH = [
    {
        "question_id": "own_1", "question_title": "Sum", "platform": "atcoder", "contest_date": "2024-07-31T00:00:00",
        "difficulty": "easy", "starter_code": "", "question_content": "Add two numbers.", "in_release_v5": True,
        "public_tests": [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}],
        "hidden_tests_seen": [{"inputs": "5 6\n", "expected": "11\n"}],
    },
    {
        "question_id": "own_2", "question_title": "Twice", "platform": "leetcode",
        "contest_date": "2024-08-01T18:30:00",
        "difficulty": "easy", "question_content": "Say it twice.", "in_release_v5": True,
        "starter_code": "class Solution:\n    def twice(self, s: str, n: int) -> str:\n        ",
        "public_tests": [{"input": '"ab"\n2', "output": '"abab"', "testtype": "functional"}],
        "hidden_tests_seen": [{"inputs": "['x', 3]", "expected": "xxx"}, {"inputs": "[inf, 1]", "expected": "?"}],
    },
    {
        "question_id": "own_3", "question_title": "Flags", "platform": "leetcode",
        "contest_date": "2025-02-01T00:00:00",
        "difficulty": "hard", "question_content": "Are they true?", "in_release_v5": True,
        "starter_code": "class Solution:\n    def flags(self, xs: List[int]) -> List[bool]:\n        ",
        "public_tests": None, "hidden_tests_seen": [{"inputs": "[[1, 0]]", "expected": "[True, False]"}],
    },
    {
        "question_id": "own_4", "question_title": "Later", "platform": "leetcode",
        "contest_date": "2025-04-01T00:00:00",
        "difficulty": "hard", "question_content": "Not in v5.", "in_release_v5": False, "starter_code": "",
        "public_tests": [], "hidden_tests_seen": None,
    },
]  # fmt: skip
LIVECODEBENCH_HUB = [
    {
        "question_title": "Twice", "question_content": "Say it twice.", "platform": "leetcode", "question_id": "own_2",
        "contest_id": "1", "contest_date": "2024-08-01T18:30:00", "difficulty": "easy",
        "starter_code": "class Solution:\n    def twice(self, s: str, n: int) -> str:\n        ",
        "public_test_cases": '[{"input": "\\"ab\\"\\n2", "output": "\\"abab\\"", "testtype": "functional"}]',
        "private_test_cases": "eJxrYJnKzQABGj1iAAZyAU0=", "metadata": '{"func_name": "twice"}',
    },
    {
        "question_title": "Sum", "question_content": "Add two numbers.", "platform": "atcoder", "question_id": "own_1",
        "contest_id": "2", "contest_date": "2024-07-31T00:00:00", "difficulty": "easy", "starter_code": "",
        "public_test_cases": '[{"input": "1 2\\n", "output": "3\\n", "testtype": "stdin"}]',
        "private_test_cases": "[]", "metadata": "{}",
    },
]  # fmt: skip


def kodcode(number: int) -> Row:
    """A row of the local copy."""
    return {
        "instruction": f"def add_{number}(x: int) -> int:\n    '''Adds {number}.'''",
        "response": f"def add_{number}(x):\n    return x + {number}\n",
        "test_code": f"from solution import add_{number} as add\n\ndef test_it():\n    assert add(1) == {number + 1}\n",
        "metadata": {"mode": "own", "prompt_id": f"{number:08d}"},
    }


def kodcode_hub(number: int) -> Row:
    """A row of the Hub's set."""
    tested = {"docstring": "", "function_declaration": f"def add_{number}(x):", "function_name": f"add_{number}"}
    return {
        "style": "instruct", "subset": "Prefill", "question_id": f"Own_{number}_I", "question": f"Add {number}.",
        "solution": f"def add_{number}(x):\n    return x + {number}\n", "test": kodcode(number)["test_code"],
        "test_info": [tested | {"parameter_list": "(x)"}] * 2,
    }  # fmt: skip


_TAIL = "\n\nTags:\n['math']\n\nTime Limit: 1500 ms\nMemory Limit: 512 MB\n"
CODEFORCES = [
    {"problem": f"\nPrint twice n.\n\nInput Format:\nn\n\nOutput Format:\n2n\n{_TAIL}",
     "tests": [{"input": "2", "output": "4"}, {"input": "0", "output": "0"}]},
    {"problem": f"\nPrint two numbers whose sum is n. If there are multiple answers, print any of them.\n{_TAIL}",
     "tests": [{"input": "3", "output": "1 2"}]},
]  # fmt: skip
_CODEFORCES_ROW = {
    "title": "Twice", "time_limit": 2.0, "memory_limit": 256.0, "description": "Print twice n.", "input_format": "n",
    "output_format": "2n", "interaction_format": None, "note": None,
    "examples": [{"input": "2\r\n", "output": "4\r\n"}],
    "official_tests": [{"input": "2\r\n", "output": "4\r\n"}], "official_tests_complete": True, "input_mode": "stdio",
    "generated_checker": None,
}  # fmt: skip
CODEFORCES_HUB = [
    _CODEFORCES_ROW | {"id": "1/A"},
    _CODEFORCES_ROW | {"id": "1/B", "generated_checker": "import sys\nprint(1)\n", "note": "So it is."},
    _CODEFORCES_ROW | {"id": "1/C", "official_tests_complete": False},
    _CODEFORCES_ROW | {"id": "1/D", "input_mode": "file"},
    _CODEFORCES_ROW | {"id": "1/E", "interaction_format": "Ask and read."},
]

#: Each benchmark's copy below the data root, and how many problems it makes.
COPIES: Mapping[str, tuple[str, list[Row], int]] = {
    "math500": ("math500/math500.jsonl", MATH500, 3),
    "aime": ("aime_2022_2024/aimo-validation-aime.jsonl", AIME, 2),
    "aime25": ("aime25/aime25_promptcot.jsonl", AIME25, 1),
    "humaneval_plus": ("humaneval_plus/HumanEvalPlus.jsonl.gz", evalplus("HumanEval"), 2),
    "mbpp_plus": ("mbpp_plus/MbppPlus.jsonl.gz", evalplus("Mbpp"), 2),
    "livecodebench": ("lcb_tests/lcb_joined.jsonl", LIVECODEBENCH, 3),
    "kodcode": ("kodcode/Verified_own.json", [kodcode(number) for number in range(4)], 4),
    "codeforces": ("codeforces/deepcoder_codeforces_test.json", CODEFORCES, 2),
}
#: The same benchmarks in the Hub's columns.
HUB: Mapping[str, list[Row]] = {
    "math500": MATH500,
    "aime": AIME_HUB,
    "aime25": AIME25_HUB,
    "kodcode": [kodcode_hub(number) for number in range(4)],
    "codeforces": CODEFORCES_HUB,
}


def write_rows(path: Path, rows: Iterable[Row]) -> Path:
    """Writes a file as its name says: JSON lines, compressed or not, or a list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = list(rows)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "wt", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path


def write_copies(root: Path) -> Path:
    """A data root with a copy for every benchmark."""
    for file, rows, _ in COPIES.values():
        write_rows(root / file, rows)
    return root


def counted(task: str, **more: Any) -> TaskRef:
    """A task whose data is what `write_copies` writes."""
    n = COPIES[task.removesuffix("_base").replace("aime24", "aime")][2]
    return TaskRef(task, canonical_json({"data": {"rows": n, "file_rows": n}} | more))


def tasks_of(root: Path | None) -> LmEvalTasks:
    """The built-in tasks on a data root."""
    return LmEvalTasks(TaskIndex([TASK_ROOT], root))
