"""Mutations of YAML files: odd values in the places of others, lines and bytes that are gone, doubled or moved."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import yaml

#: Written into the file as they stand, as a value and as a key.
ODD = (
    *("~", "''", "yes", "on", "off", "no", "true", "0", "-1", "1", "1e400", ".inf", "-.inf", ".nan", "0x1F", "0o17"),
    *("017", "1_000", "190:20:30", "9" * 25, "9" * 5000, "0.10", "2e-4", "1E-05", "+1", "2026-01-01", "2026-13-45"),
    *("2026-01-01T10:00:00Z", "[]", "{}", "[[]]", "[1, [2, {a: 3}]]", "{a: {b: {c: 1}}}", "[null]", "{null: 1}"),
    *("{1: 2}", "{1.5: a, true: b}", "{? [a, b] : c}", "{? {a: 1} : c}", "{2026-01-01: x}", "{.nan: x}", "{'': x}"),
    *("!function rows.load", "!function", "!function nope", "!function [a, b]", "!function {a: b}", "!!set {a, b}"),
    *("!!omap [a: 1]", "!!pairs [a: 1]", "!!binary aGVsbG8=", "!!binary '%%'", "!!int abc", "!!float x", "!!null x"),
    *("!!python/object/apply:os.getcwd []", "!!python/name:os.system", "!unknown x", "!!str 5", "!!timestamp x"),
    *("&x [*x]", "&x {a: *x}", "*unknown", "&a a", "{<<: 5}", "{<<: [1, 2]}", "{<<: {a: 1}}", "{<<: {<<: {a: 1}}}"),
    *(
        "<<",
        "'<<'",
        "=",
        "..",
        ".",
        "/",
        "//",
        "../..",
        "a/b",
        "/etc/passwd",
        "/dev/null",
        "~/x",
        "'~root'",
        "~nobody/x",
    ),
    *(
        "x" * 300,
        "x" * 5000,
        "' '",
        "'a b'",
        "'a\tb'",
        '"\\0"',
        '"\\x1b[31m"',
        '"\\ud800"',
        '"\\u202e"',
        '"\\n"',
        '"a\\nb"',
    ),
    *("é", "日本", "'\U0001f600'", "'*'", "'a.b'", "'.'", "'a.'", "'.a'", "'a..b'", "-", "--limit", "'%'", "'{{x}}'"),
    *("'{% for %}'", "'{{ 1/0 }}'", "coins", "digits", "small", "sft", "qwen3", "tiny", "synthetic", "concise", "use"),
    *(
        "matrix.yaml",
        "task.yaml",
        "rows.py",
        "[matrix.yaml, task.yaml]",
        "include.yaml",
        "'#'",
        "'http://x'",
        "|\n    a\n    b",
    ),
)
#: What a matrix or a task could say, for places where it says something else.
WORDS = (
    *("evaluations.nope.max_tokens", "evaluations.coins.max_tokens", "filters.nope.limit", "filters.fits.limit"),
    *("trainer.nope", "trainer.learning_rate", "trainer.", ".x", "student.sampling.top_p", "teacher.n", "renderer.x"),
    *("evaluation.budgets", "evaluation.repeats", "evaluation.metadata", "engine.x", "include", "exclude", "matrix"),
    *("task_paths", "data_root", "sampling", "budgets", "metadata", "name", "seed", "defaults", "launcher", "keep"),
    *("accept", "max_cut", "use", "teacher", "student", "trainer", "filters", "engine", "renderer", "students"),
    *("task", "group", "tag", "output_type", "doc_to_text", "doc_to_target", "doc_to_choice", "generation_kwargs"),
    *("dataset_path", "dataset_kwargs", "dataset_name", "custom_dataset", "test_split", "fewshot_split", "repeats"),
    *("num_fewshot", "process_results", "process_docs", "filter_list", "metric_list", "data", "distillbench", "grader"),
    *("steps", "problems", "system", "repetition_penalty", "presence_penalty", "reasoning_tags", "{every: 2}", "last"),
    *("grader_options", "grading_columns", "docs", "hub", "urls", "rows", "file", "class", "gen_prefix", "description"),
)
_HELD = re.compile(r"'?@(\d+)@'?")
_ALL = (*ODD, *WORDS)


def mutated(text: str, draw: random.Random) -> bytes:
    """A file spoiled in one to three ways, in its structure or in its bytes."""
    if draw.random() < 0.75:
        data = yaml.load(text, Loader=_Reader)
        for _ in range(draw.choice((1, 1, 1, 2))):
            data = _restructured(data, draw)
        text = _written(data)
        is_enough = draw.random() < 0.85
    else:
        is_enough = False
    raw = text.encode("utf-8", "surrogatepass")
    return raw if is_enough else draw.choice(_TEXTUAL)(raw, draw)


class _Reader(yaml.SafeLoader):
    """Keeps `!function` as a tag to be written again."""


class _Tagged(str):
    """A `!function` value."""


class _Writer(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Reader.add_constructor("!function", lambda loader, node: _Tagged(node.value))
_Writer.add_representer(_Tagged, lambda dumper, value: dumper.represent_scalar("!function", str(value)))


def _written(data: Any) -> str:
    """YAML in which the odd values stand as they are."""
    text = yaml.dump(data, Dumper=_Writer, sort_keys=False, width=1 << 20)
    return _HELD.sub(lambda found: _ALL[int(found[1])], text)


def _odd(draw: random.Random) -> str:
    return f"@{draw.randrange(len(_ALL))}@"


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys."""
    for key in list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        yield data, key
        yield from _places(data[key])


def _restructured(data: Any, draw: random.Random) -> Any:
    """A copy with one thing changed."""
    data = deepcopy(data)
    places = list(_places(data))
    if not places or draw.random() < 0.01:
        return _odd(draw)
    holder, key = draw.choice(places)
    change = draw.choice(("odd", "odd", "odd", "delete", "duplicate", "rename", "move", "insert", "wrap"))
    if change == "odd":
        holder[key] = _odd(draw)
    elif change == "delete":
        del holder[key]
    elif change == "wrap":
        holder[key] = draw.choice(([holder[key]], {"x": holder[key]}, [holder[key], holder[key]]))
    else:
        _placed(change, holder, key, draw.choice(places), draw)
    return data


def _placed(change: str, holder: Any, key: Any, other: tuple[Any, Any], draw: random.Random) -> None:
    """Renames, moves, copies or inserts."""
    value = deepcopy(holder[key])
    target, place = other
    if change == "insert":
        target, value, place = holder, _odd(draw), _odd(draw)
    elif change == "rename":
        target, place = holder, _odd(draw) if draw.random() < 0.6 else f"{key}x"
    if change in ("rename", "move") and (isinstance(holder, dict) or change == "move"):
        del holder[key]
    if isinstance(target, list):
        target.insert(draw.randint(0, len(target)), value)
    elif place in target and change == "duplicate":
        target[f"{place}2"] = value
    else:
        target[place] = value


def _flipped(raw: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(raw) + 1)
    return raw[:at] + bytes([draw.randrange(256)]) + raw[at + 1 :]


def _inserted(raw: bytes, draw: random.Random) -> bytes:
    words = (
        b"\t",
        b"\0",
        b"\x1b",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n",
        b": ",
        b"- ",
        b"{",
        b"}",
        b"[",
        b"]",
        b"&a ",
    )
    more = (
        b"*a",
        b"!x ",
        b"|",
        b">-\n",
        b"%YAML 9.9\n",
        b"---\n",
        b"...\n",
        b"#",
        b"'",
        b'"',
        b"? ",
        b"<<: *a\n",
        b"\xc2\x85",
    )
    at = draw.randrange(len(raw) + 1)
    return raw[:at] + draw.choice((*words, *more)) + raw[at:]


def _with_lines(raw: bytes, draw: random.Random) -> bytes:
    """A line lost, doubled, swapped with another, or indented."""
    lines = raw.split(b"\n")
    one, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    change = draw.randrange(4)
    if change == 0:
        del lines[one]
    elif change == 1:
        lines.insert(other, lines[one])
    elif change == 2:
        lines[one], lines[other] = lines[other], lines[one]
    else:
        lines[one] = b" " + lines[one]
    return b"\n".join(lines)


_TEXTUAL: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flipped,
    _inserted,
    _with_lines,
    lambda raw, draw: raw[: draw.randrange(len(raw) + 1)],
    lambda raw, draw: raw.replace(b"\n", b"\r\n"),
    lambda raw, draw: b"\xef\xbb\xbf" + raw,
    lambda raw, draw: raw.decode("utf-8", "replace").encode(draw.choice(("utf-16", "latin-1")), "replace"),
)
