"""Options are typed in their components: for type checkers, and when a program runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import new_class
from typing import Generic, TypeVar

import pytest

from distillbench.protocols import Filter, NoOptions

PLUGIN = '''
from dataclasses import dataclass

from distillbench.protocols import Context, Filter, NoOptions
from distillbench.records import Trace
from distillbench_plugins.trainers.sft import SftOptions, SftTrainer


@dataclass(frozen=True)
class ShortOptions:
    words: int = 20


class Short(Filter[ShortOptions]):
    """Keeps what is short."""

    name = "short"

    def reason(self, trace: Trace, context: Context) -> str | None:
        return None if len(trace.answer.split()) < self.options.words else "long"


class Kept(Filter):
    """Keeps everything: it has no options."""

    name = "kept"

    def reason(self, trace: Trace, context: Context) -> str | None:
        return None


def is_filter(one: Filter) -> bool:
    return bool(one.name)


is_filter(Short(ShortOptions()))
rate: float = SftTrainer(SftOptions()).options.learning_rate
words: int = Short(ShortOptions(words=3)).options.words
'''
WRONG = {
    "Short(ShortOptions()).options.no_such_option": 'has no attribute "no_such_option"',
    "SftTrainer(SftOptions()).options.no_such_option": 'has no attribute "no_such_option"',
    "Kept(NoOptions()).options.no_such_option": 'has no attribute "no_such_option"',
    "Short(SftOptions())": "incompatible type",
    "text: str = Short(ShortOptions()).options.words": "Incompatible types in assignment",
}


def test_a_wrong_option_of_a_plugin_is_found_by_mypy(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    (tmp_path / "right.py").write_text(PLUGIN)
    lines = PLUGIN.splitlines()
    (tmp_path / "wrong.py").write_text("\n".join([*lines, *WRONG]) + "\n")
    root = Path(__file__).parents[1]
    told, _, _ = api.run(
        ["--strict", "--config-file", str(root / "pyproject.toml"), "--cache-dir", str(root / ".mypy_cache"),
         "--python-executable", sys.executable, str(tmp_path / "right.py"), str(tmp_path / "wrong.py")]
    )  # fmt: skip
    found = dict(line.split("wrong.py:")[1].split(": error: ") for line in told.splitlines() if "wrong.py:" in line)
    assert list(found) == [str(len(lines) + number) for number in range(1, len(WRONG) + 1)], told
    assert all(wanted in said for wanted, said in zip(WRONG.values(), found.values(), strict=True)), told
    assert "right.py" not in told


@dataclass(frozen=True)
class Fine:
    rate: float = 1.0


@dataclass(frozen=True)
class Finer(Fine):
    most: int = 1


def test_options_are_inherited_and_a_component_without_has_none() -> None:
    short = new_class("Short", (Filter[Fine],))
    bound = new_class("Bound", (Filter[TypeVar("FineT", bound=Fine)],))  # type: ignore[misc]
    assert bound.Options is Fine and new_class("Finer", (bound[Finer],)).Options is Finer
    assert Filter.Options is NoOptions and short.Options is Fine and type("Shorter", (short,), {}).Options is Fine


def test_of_several_brackets_the_one_of_the_options_counts() -> None:
    T, U = TypeVar("T"), TypeVar("U")
    paired = new_class("Paired", (Filter[U], Generic[T, U]))
    counted = new_class("Counted", (Filter[Fine], Generic[T]))
    assert paired.Options is NoOptions and new_class("Both", (paired[int, Fine],)).Options is Fine
    assert counted.Options is Fine and new_class("One", (counted[int],)).Options is Fine


def test_options_that_are_given_in_another_way_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Toy.Options is set\n +wanted: the options behind the base, as in `class Toy"):
        type("Toy", (Filter,), {"Options": Fine})
