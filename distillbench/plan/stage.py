"""A stage is what runs. Its key says everything that decides its result, and nothing else.

A kind of stage is one class in one module of `distillbench.stages`: its fields are its inputs and what it uses, and
`run` makes its result.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, dataclass_transform

from distillbench.events import About
from distillbench.fingerprint import canonical_json, key_of
from distillbench.records import Choice, Evaluation, Resources

if TYPE_CHECKING:
    from distillbench.bench import Bench
    from distillbench.protocols import Progress
    from distillbench.store.store import Made

#: Part of every key; bumped when the meaning of stages or of their files changes.
KEY_FORMAT = 3
#: Metadata of a field that is not in the key, where it has no default.
UNKEYED = {"key": False}


def unkeyed(*, default: Any) -> Any:
    """A field of a stage that does not decide its result, so that it is not in the key."""
    return field(default=default, metadata=UNKEYED)


class Pace(NamedTuple):
    """How much a stage did or has to do, and what decides how fast that goes.

    Attributes:
        work: Optimizer steps, samples times the tokens that one may have, samples to grade; 1 for other kinds. None
            where that is not known yet.
        alike: Stages that have it in common go equally fast.
    """

    work: float | None
    alike: str


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=False, field_specifiers=(field, unkeyed))
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Stage(ABC):
    """One unit of work whose result is stored under its key.

    A subclass is a kind. It is a frozen dataclass with keywords only: a field that holds a stage, or several, is an
    input, and the field's name is its role; every other field is part of the key unless it is `unkeyed`.

    Attributes:
        kind: Names the kind in the store and to people.
        version: Of the kind; bumped when the same fields give another result.
        is_long: Whether stages of this kind take nearly all the time of a run.
        is_heavy: Whether its result holds weights, which are compared with their digests only when they are read.
        key: Names the result in the store.
        label: What a person reads.
        group: Stages of one group run together in one process; empty for a process of its own.
        after: Stages that must have succeeded before it runs, and of which it reads nothing.
        resources: What it asks of the machine.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    is_long: ClassVar[bool] = False
    is_heavy: ClassVar[bool] = False

    key: str = field(init=False)
    label: str = field(default="", metadata=UNKEYED)
    group: str = field(default="", metadata=UNKEYED)
    after: tuple[Stage, ...] = field(default=(), metadata=UNKEYED)
    resources: Resources = field(default_factory=Resources, metadata=UNKEYED)

    def __init_subclass__(cls) -> None:
        """Makes a kind a dataclass."""
        super().__init_subclass__()
        dataclass(frozen=True, kw_only=True, eq=False, repr=False)(cls)

    def __post_init__(self) -> None:
        """Makes the key."""
        inputs = {role: [one.key for one in stages] for role, stages in self.inputs().items()}
        facts = {"format": KEY_FORMAT, "kind": self.kind, "version": self.version}
        object.__setattr__(self, "key", key_of(facts | {"parts": self.key_parts(), "inputs": inputs}))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.label} {self.key[:8]}>"

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.kind} {self.label}"

    @property
    def process(self) -> str:
        """Stages that have it in common run together in one process."""
        return self.group or self.key

    @property
    def needs(self) -> tuple[Stage, ...]:
        """Every stage whose result it reads, once."""
        return tuple(dict.fromkeys(one for stages in self.inputs().values() for one in stages))

    @property
    def waits_for(self) -> tuple[Stage, ...]:
        """Every stage that must have succeeded before it runs."""
        return tuple(dict.fromkeys((*self.needs, *self.after)))

    @property
    def about(self) -> About:
        """What events say of it."""
        return About(self.key, self.kind, self.label)

    def inputs(self) -> dict[str, tuple[Stage, ...]]:
        """The stages whose results it reads, by role."""
        found = ((one.name, getattr(self, one.name)) for one in _given(type(self)) if one.name != "after")
        return {name: value if isinstance(value, tuple) else (value,) for name, value in found if _is_input(value)}

    def key_parts(self) -> dict[str, Any]:
        """What of it is in the key beside its inputs: every field that is not `unkeyed`, as plain values."""
        named = {one.name: getattr(self, one.name) for one in _given(type(self)) if one.metadata != UNKEYED}
        return {name: identity(value) for name, value in named.items() if not _is_input(value)}

    def described(self) -> dict[str, Any]:
        """What of it is in the key, for people: components with their options in full."""
        named = {one.name: getattr(self, one.name) for one in _given(type(self)) if one.metadata != UNKEYED}
        return self.key_parts() | {name: _in_full(value) for name, value in named.items() if _is_chosen(value)}

    @property
    def evaluation(self) -> Evaluation | None:
        """What it samples or grades; None for a stage that does neither."""
        return None

    def completions(self) -> tuple[int | None, int] | None:
        """How many it has to generate (None where the task does not say) and the most tokens of one; None for none."""
        return None

    def pace(self) -> Pace:
        """How much it has to do."""
        return Pace(1.0, self.kind)

    def did(self, facts: Mapping[str, Any], seconds: float) -> tuple[float, float]:
        """How much a finished one did, and how many of its seconds that took."""
        return 1.0, seconds

    @abstractmethod
    def run(self, bench: Bench, progress: Progress) -> Made:
        """Reads its inputs' results, writes into its work folder, and says what it left there.

        It can be killed and called again: what it journaled is there, and what it makes is the same.
        """


def with_needs(stages: Iterable[Stage], known: Mapping[str, Stage] | None = None) -> dict[str, Stage]:
    """Stages with everything that they wait for, directly or not, by key; needs first.

    Args:
        stages: The stages.
        known: Those that take the place of others of their key, such as one that has been told what it waits for.
    """
    known = known or {}
    found: dict[str, Stage] = {}

    def add(stage: Stage) -> None:
        if stage.key not in found:
            stage = known.get(stage.key, stage)
            for need in stage.waits_for:
                add(need)
            found[stage.key] = stage

    for stage in stages:
        add(stage)
    return found


def alike(kind: str, *deciding: Choice) -> str:
    """Names what decides how fast stages of a kind are: the student's options, say, and the component at work."""
    return canonical_json([kind, *(one.identity if one.kind == "student" else one.component for one in deciding)])


@lru_cache(maxsize=256)
def _given(kind: type[Stage]) -> tuple[Any, ...]:
    return tuple(one for one in fields(kind) if one.init)


def _is_input(value: Any) -> bool:
    return isinstance(value, Stage) or (isinstance(value, tuple) and bool(value) and isinstance(value[0], Stage))


def _is_chosen(value: Any) -> bool:
    return isinstance(value, Choice) or (isinstance(value, tuple) and bool(value) and isinstance(value[0], Choice))


def identity(value: Any) -> Any:
    """A field as a key holds it.

    Raises:
        TypeError: Nothing says what of it decides a result.
    """
    if isinstance(value, Choice):
        return _short(value.identity)
    if isinstance(value, tuple):
        return [identity(entry) for entry in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a stage's field holds {type(value).__name__}: it is to be `unkeyed`, or `key_parts` to say it")


def _in_full(value: Any) -> Any:
    return [_in_full(entry) for entry in value] if isinstance(value, tuple) else json.loads(value.identity)


@lru_cache(maxsize=65536)
def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
