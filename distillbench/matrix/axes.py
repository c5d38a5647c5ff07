"""Reads `matrix:` and makes the combinations that become cells.

Axes that the file leaves out take part as follows. `teacher`, `student` and `trainer` are axes of all the names in
their section, except where the file has `include` entries and no axis at all: then, as on GitHub, the entries are
the combinations. `filters` (one chain of all named filters), `engine` (`transformers`) and `seed` (0) are no axes:
they are filled in where nothing says otherwise. A combination that an `include` entry makes by itself is filled in
from the axes that have one value; where an axis has several, the entry must say which. One whose trainer needs no
traces gets no teacher, no filters and no seed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from distillbench.errors import Keys, Mistake, Place, nearest
from distillbench.matrix.expand import Combination, Source, expand
from distillbench.matrix.names import Number
from distillbench.matrix.read import Document
from distillbench.matrix.sections import SECTIONS, Sections
from distillbench.options import Given

#: The axes that name components, and the kind that each names.
COMPONENT_AXES: Mapping[str, str] = {
    "teacher": "teacher",
    "student": "student",
    "renderer": "renderer",
    "filters": "filter",
    "trainer": "trainer",
    "engine": "engine",
}
_CORE = (*COMPONENT_AXES, "seed")
_TRAINING = ("teacher", "trainer", "filters", "seed")
_IMPLIED = ("teacher", "student", "trainer")
_OF_TRACES = ("teacher", "filters", "seed")
_OPTION_OF_ANY = ("teacher", "student", "renderer", "trainer", "engine", "evaluation")
_OPTION_OF_ONE = {"filters": "filter", "evaluations": "evaluation"}
_MOST_SEED = 2**32 - 1  # numpy's limit
_MOST_COMBINATIONS = 100_000


@dataclass(frozen=True, slots=True)
class Target:
    """What a dotted axis such as `trainer.lr` or `filters.short.limit` sets: `name` is None for all of the kind."""

    kind: str
    name: str | None
    option: str


@dataclass(slots=True)
class Axes:
    """The `matrix:` section.

    Attributes:
        document: The file.
        values: The axes that are multiplied out, each with its values.
        fallback: The values that axes have which are filled in only.
        include: Cleaned entries, at their index in the file.
        exclude: Cleaned entries by their index in the file, without those that a mistake made wider.
        targets: What each dotted key sets.
        trains: False for a matrix of baselines only.
        places: Where each value of each axis stands.
        traceless: The names of trainers that need no traces.
        names_engine: Whether the file names an engine; where it does not, each student gets one that can serve it.
    """

    document: Document
    values: dict[str, list[Any]] = field(default_factory=dict)
    fallback: dict[str, list[Any]] = field(default_factory=dict)
    include: list[dict[str, Any]] = field(default_factory=list)
    exclude: dict[int, dict[str, Any]] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    trains: bool = True
    places: dict[str, list[Keys]] = field(default_factory=dict)
    traceless: Collection[str] = ()
    names_engine: bool = True

    def keys(self, key: str, source: Source) -> Keys:
        """The place of a combination's value, as keys."""
        kind, index = source
        return ("matrix", "include", index, key) if kind == "include" else self.places[key][index]

    def place(self, key: str, source: Source) -> Place:
        """The place of a combination's value."""
        return self.document.place(*self.keys(key, source))

    def first_place(self, key: str) -> Keys:
        """Where a dotted key first stands."""
        if key in self.places:
            return ("matrix", key)
        for word, entries in (("include", enumerate(self.include)), ("exclude", self.exclude.items())):
            for index, entry in entries:
                if key in entry:
                    return ("matrix", word, index, key)
        return ("matrix",)

    def picks(self, combination: Combination, kind: str, name: str | None = None) -> tuple[tuple[str, Source], ...]:
        """The dotted values of a combination that reach a component, by key and place; all of a kind for no name."""
        return tuple(
            [
                (key, combination.sources[key])
                for key, target in self.targets.items()
                if target.kind == kind
                and (name is None or target.name is None or target.name == name)
                and key in combination.sources
            ]
        )

    def layer(self, combination: Combination, picks: Sequence[tuple[str, Source]]) -> dict[str, Given]:
        """The options that these dotted values give; what names one component outweighs what names its kind."""
        ordered = sorted(picks, key=lambda pick: self.targets[pick[0]].name is not None)
        return {self.targets[key].option: self._given(key, source, combination.values[key]) for key, source in ordered}

    def _given(self, key: str, source: Source, value: Any) -> Given:
        keys = self.keys(key, source)
        exact = self.document.place(*keys)
        origin = exact if source[0] == "include" else replace(exact, keys=("matrix", key))
        return Given(value, origin, exact, self.document.path.parent.resolve())

    def as_written(self, combination: Combination) -> dict[str, Any]:
        """The values of a combination, numbers as they stand in the file."""
        written = self.document.written
        if not written:
            return combination.values
        return {
            key: _as_written(value, self.keys(key, combination.sources[key]), written)
            for key, value in combination.values.items()
        }

    def uses(self, axis: str) -> Iterator[tuple[Any, Keys]]:
        """Every value that an axis has, with its place."""
        values = self.values.get(axis) or self.fallback.get(axis, [])
        yield from zip(values, self.places.get(axis, []), strict=bool(values))
        for index, entry in enumerate(self.include):
            if axis in entry:
                yield entry[axis], ("matrix", "include", index, axis)


def read_axes(document: Document, sections: Sections, mistakes: list[Mistake], traceless: Collection[str] = ()) -> Axes:
    """Reads `matrix:`.

    Args:
        document: The file.
        sections: What it names.
        mistakes: Gets what is wrong.
        traceless: The names of trainers that need no traces.
    """
    axes = Axes(document, traceless=traceless)
    content = document.data.get("matrix")
    if not isinstance(content, dict | None):
        mistakes.append(Mistake(document.place("matrix"), "a mapping of axes", repr(content)))
        return axes
    reader = _Reader(axes, sections, mistakes)
    for key, value in (content or {}).items():
        if key == "include":
            axes.include = reader.entries(key, value)
        elif key == "exclude":  # an entry that lost a wrong key would remove too much
            whole = enumerate(zip(reader.entries(key, value), value if isinstance(value, list) else [], strict=True))
            axes.exclude = {index: entry for index, (entry, raw) in whole if entry and len(entry) == len(raw)}
        elif reader.knows(key, ("matrix", key)):
            reader.axis(key, value)
    reader.add_implied()
    return axes


def combine(axes: Axes, mistakes: list[Mistake], is_clean: bool) -> list[Combination]:
    """The combinations, each with a value for every axis that a cell needs.

    Args:
        axes: The `matrix:` section.
        mistakes: Gets what is wrong.
        is_clean: False when `matrix:` holds mistakes already, so that what follows from them is not reported too.
    """
    document = axes.document
    size = math.prod(len(values) for values in axes.values.values())
    if size > _MOST_COMBINATIONS:
        mistakes.append(Mistake(document.place("matrix"), f"at most {_MOST_COMBINATIONS:,} combinations", f"{size:,}"))
        return []
    excluded = list(axes.exclude)
    expansion = expand(axes.values, axes.include, list(axes.exclude.values()))
    if is_clean:
        mistakes.extend(_idle_exclude(axes, excluded[index]) for index in expansion.idle_excludes)
    if is_clean and not expansion.combinations:
        mistakes.append(Mistake(document.place("matrix"), "at least one combination", "none: `exclude` removes all"))
    complete = []
    for combination in expansion.combinations:
        missing = _fill(combination, axes)
        if missing is None:
            complete.append(combination)
        elif is_clean:
            mistakes.append(_incomplete(axes, combination, missing))
    return complete


def _as_written(value: Any, keys: Keys, written: Mapping[Keys, str]) -> Any:
    if isinstance(value, list):
        return [_as_written(entry, (*keys, index), written) for index, entry in enumerate(value)]
    return Number(written[keys], value) if keys in written else value


def _fill(combination: Combination, axes: Axes) -> str | None:
    """Fills in the axes that it lacks; gives the one that cannot be."""
    trainers = [combination.values["trainer"]] if "trainer" in combination.values else _candidates(axes, "trainer")
    is_traceless = len(trainers) == 1 and trainers[0] in axes.traceless
    for axis in _CORE:
        if axis in combination.values or (axis in _TRAINING and not axes.trains):
            continue
        if is_traceless and axis in _OF_TRACES:
            continue
        candidates = _candidates(axes, axis)
        if len(candidates) == 1:
            combination.values[axis] = candidates[0]
            combination.sources[axis] = ("axis", 0)
        elif axis != "renderer" or candidates:  # without any, the student says which renderer it gets
            return axis
    return None


def _candidates(axes: Axes, axis: str) -> list[Any]:
    return axes.values.get(axis) or axes.fallback.get(axis) or []


def _incomplete(axes: Axes, combination: Combination, axis: str) -> Mistake:
    sources = [source for source in combination.sources.values() if source[0] == "include"]
    place = axes.document.place("matrix", "include", sources[0][1]) if sources else axes.document.place("matrix")
    known = ", ".join(str(value) for value in axes.values.get(axis, []))
    wanted = f"`{axis}`, since it makes a combination of its own"
    return Mistake(place, wanted, _described(combination.values), f"one of: {known}" if known else "")


def _idle_exclude(axes: Axes, index: int) -> Mistake:
    entry = axes.exclude[index]
    strange = [f"{key} never is {value!r}" for key, value in entry.items() if value not in axes.values.get(key, [])]
    hint = f"{'; '.join(strange)}" if strange else "no combination has all of these values"
    place = axes.document.place("matrix", "exclude", index)
    return Mistake(place, "values of at least one combination", _described(entry), hint)


def _described(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in values.items()) or "nothing"


class _Reader:
    def __init__(self, axes: Axes, sections: Sections, mistakes: list[Mistake]) -> None:
        self.axes = axes
        self.sections = sections
        self.mistakes = mistakes

    def knows(self, key: str, keys: Keys) -> bool:
        """Whether this is an axis; notes what a dotted one sets."""
        if key in _CORE or key in self.axes.targets:
            return True
        prefix, _, rest = key.partition(".")
        target = None
        if prefix in _OPTION_OF_ANY and rest:
            target = Target(prefix, None, rest)
        elif prefix in _OPTION_OF_ONE:
            name, _, option = rest.rpartition(".")
            target = Target(_OPTION_OF_ONE[prefix], name, option) if name and option else None
        if target is None:
            known = [*_CORE, *(f"{kind}.{rest}" for kind in (*_OPTION_OF_ANY, *_OPTION_OF_ONE) if rest)]
            wanted = "an axis, or KIND.OPTION, filters.NAME.OPTION, evaluations.NAME.OPTION"
            self.wrong(keys, wanted, repr(key), nearest(key, known))
            return False
        if target.kind == "student" and target.option.partition(".")[0] == "sampling":
            hint = "how completions are drawn is an axis of evaluations, such as `evaluation.temperature`"
            self.wrong(keys, "an option of a student", repr(key), hint)
            return False
        self.axes.targets[key] = target
        return True

    def axis(self, key: str, raw: Any) -> None:
        """One axis; a value by itself stands for a list of one."""
        values: list[Any] = raw if isinstance(raw, list) else [raw]
        places: list[Keys] = [("matrix", key)]
        if isinstance(raw, list):
            places = [("matrix", key, index) for index in range(len(raw))]
        if not values:
            hint = "write [[]] for one empty chain" if key == "filters" else ""
            self.wrong(("matrix", key), "at least one value", "an empty list", hint)
        seen: set[Any] = set()
        for value, keys in zip(values, places, strict=True):
            if key == "filters" and isinstance(value, str) and len(values) > 1:
                chains = f"[{json.dumps(raw)}] for one chain, {json.dumps([[each] for each in raw])} for several"
                self.wrong(keys, "a chain: a list of filters", repr(value), f"write {chains}")
            elif self.fits(key, value, keys):
                self.add(key, value, keys, seen)

    def add(self, key: str, value: Any, keys: Keys, seen: set[Any]) -> None:
        token = json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else (type(value) is bool, value)
        if token in seen:
            self.wrong(keys, "each value once", f"{value!r} again")
            return
        seen.add(token)
        is_single_filter = key == "filters" and isinstance(value, str)
        self.axes.values.setdefault(key, []).append([value] if is_single_filter else value)
        self.axes.places.setdefault(key, []).append(keys)

    def fits(self, key: str, value: Any, keys: Keys) -> bool:
        """Whether a value can be this axis's; what an option's value must be is checked with the component."""
        if key == "seed":
            fits = type(value) is int and 0 <= value <= _MOST_SEED
            wanted = f"a whole number >= 0 and <= {_MOST_SEED}"
        elif key == "filters":
            chain = value if isinstance(value, list) else [value]
            fits, wanted = all(isinstance(each, str) for each in chain), "a chain: a list of names of filters"
        elif key in COMPONENT_AXES:
            fits, wanted = isinstance(value, str), f"the name of a {key}"
        elif key == "name":
            fits, wanted = isinstance(value, str), "a string"
        else:
            return True
        if not fits:
            self.wrong(keys, wanted, repr(value))
        return fits

    def entries(self, word: str, raw: Any) -> list[dict[str, Any]]:
        """The `include` or `exclude` entries, without what is wrong in them; none where they are no list."""
        if not isinstance(raw, list | None):
            self.wrong(("matrix", word), "a list of mappings", repr(raw))
            return []
        return [self.entry(word, index, entry) for index, entry in enumerate(raw or [])]

    def entry(self, word: str, index: int, raw: Any) -> dict[str, Any]:
        place: Keys = ("matrix", word, index)
        if not isinstance(raw, dict) or not raw:
            self.wrong(place, "a mapping of axes to values", repr(raw))
            return {}
        found = {}
        for key, value in raw.items():
            is_name = key == "name" and word == "include"
            if (is_name or self.knows(key, (*place, key))) and self.fits(key, value, (*place, key)):
                found[key] = [value] if key == "filters" and isinstance(value, str) else value
        return found

    def add_implied(self) -> None:
        """Adds what the axes that are left out stand for."""
        axes, entries = self.axes, self.sections.entries
        written = {*axes.values, *axes.fallback, *(key for entry in axes.include for key in entry)}
        prefixes = {key.partition(".")[0] for key in (*written, *(self.axes.document.data.get("matrix") or {}))}
        named = any(entries[kind] for kind in ("teacher", "trainer", "filter"))
        axes.trains = named or not prefixes.isdisjoint(_TRAINING)
        implied: dict[str, list[Any]] = {}
        for axis in _IMPLIED if axes.trains else ("student",):
            if axis == "teacher" and not self.some_need_traces():
                continue
            if axis not in (axes.document.data.get("matrix") or {}):
                implied[axis] = list(entries[axis])
                axes.places[axis] = [(SECTIONS[axis], label) for label in entries[axis]]
                self.check_some(axis, implied[axis])
        for axis in ("renderer", "engine"):
            if axis not in written:
                implied[axis] = list(entries[axis])
                axes.places[axis] = [(SECTIONS[axis], label) for label in entries[axis]]
        implied = {axis: labels for axis, labels in implied.items() if labels}
        if axes.include and not axes.values:
            axes.fallback.update(implied)
        else:
            axes.values = {**implied, **axes.values}
        chain = list(entries["filter"])
        for axis, value in (("filters", chain), ("engine", "transformers"), ("seed", 0)):
            if axis not in axes.values and axis not in axes.fallback:
                axes.fallback[axis] = [value]
                axes.places[axis] = [("filters" if axis == "filters" else "matrix",)]
                axes.names_engine &= axis != "engine"

    def some_need_traces(self) -> bool:
        """Whether some trainer that takes part needs traces, or none is named."""
        axes = self.axes
        named = [entry.get("trainer") for entry in axes.include]
        by_default = axes.values.get("trainer") or list(self.sections.entries["trainer"])
        used = [name for name in named if name is not None]
        if axes.values or None in named or not named:
            used += by_default
        return not used or any(name not in axes.traceless for name in used)

    def check_some(self, axis: str, labels: Sequence[str]) -> None:
        if labels or axis in self.sections.broken or any(axis in entry for entry in self.axes.include):
            return
        place = self.axes.document.place(SECTIONS[axis])
        traceless = [name for name in self.sections.entries["trainer"] if name in self.axes.traceless]
        hint = f"of the trainers only {', '.join(traceless)} needs no traces" if axis == "teacher" and traceless else ""
        self.mistakes.append(Mistake(place, f"at least one {axis}, named here or in `matrix.{axis}`", "none", hint))

    def wrong(self, keys: Keys, wanted: str, got: str, hint: str = "") -> None:
        self.mistakes.append(Mistake(self.axes.document.place(*keys), wanted, got, hint))
