"""Reads what a matrix file names: its header, its sections of entries, its defaults and its launcher."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Interval

from distillbench.errors import Mistake, Place, nearest
from distillbench.findings import KINDS
from distillbench.fingerprint import is_folder
from distillbench.matrix.read import Document
from distillbench.options import Given, resolve_options

#: The section of each kind of entry.
SECTIONS: Mapping[str, str] = {
    "teacher": "teachers",
    "student": "students",
    "renderer": "renderers",
    "filter": "filters",
    "trainer": "trainers",
    "engine": "engines",
    "evaluation": "evaluations",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NAME_WANTED = "at most 100 letters, digits, `.`, `_` and `-`, a letter or digit first"


@dataclass(frozen=True, slots=True)
class Header:
    """The plain values at the top of a matrix file.

    Attributes:
        name: The matrix's name.
        task_paths: Folders of task YAML.
        data_root: Where copies of the benchmarks' data lie; None for where the environment says.
        keep: The big checkpoints that stay after they were evaluated.
        accept: Names of preflight findings that do not stop a run; the report marks the cells that have them.
        max_cut: Share of training rows whose answer `max_length` may cut.
    """

    name: str = ""
    task_paths: tuple[Path, ...] = ()
    data_root: Path | None = None
    keep: tuple[Literal["full", "merged"], ...] = ()
    accept: tuple[str, ...] = ()
    max_cut: Annotated[float, Interval(ge=0, le=1)] = 0.0


_TOP_LEVEL = (*(entry.name for entry in fields(Header)), "launcher", "defaults", *SECTIONS.values(), "matrix")


@dataclass(frozen=True, slots=True)
class Entry:
    """A named entry of a section.

    Attributes:
        label: The user's name for it.
        component: What it says to `use`; its label where it does not say; None where a mistake hides it.
        options: What it gives.
        place: Where it stands.
        use_place: Where its component's name stands.
        sampling: What a student's entry says of how it is sampled.
    """

    label: str
    component: str | None
    options: Mapping[str, Given]
    place: Place
    use_place: Place
    sampling: Mapping[str, Given] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sections:
    """What a matrix file names.

    Attributes:
        header: None when something is wrong with it.
        entries: By kind and label, in file order.
        defaults: By kind and option.
        launcher: Where stages run.
    """

    header: Header | None
    entries: Mapping[str, Mapping[str, Entry]]
    defaults: Mapping[str, Mapping[str, Given]]
    launcher: Entry
    broken: frozenset[str] = field(default_factory=frozenset)


def read_sections(document: Document, mistakes: list[Mistake]) -> Sections:
    """Reads everything but `matrix:`.

    Args:
        document: The file.
        mistakes: Gets what is wrong.
    """
    for key in document.data:
        if key not in _TOP_LEVEL:
            wanted = "a key of a matrix file"
            mistakes.append(Mistake(document.place(key), wanted, repr(key), nearest(key, _TOP_LEVEL)))
    reader = _Reader(document, mistakes)
    entries = {kind: reader.entries(kind, section) for kind, section in SECTIONS.items()}
    launcher = document.data.get("launcher")
    return Sections(
        header=reader.header(),
        entries=entries,
        defaults=reader.defaults(),
        launcher=reader.entry(("launcher",), "local", {} if launcher is None else launcher, has_use=True),
        broken=frozenset(reader.broken),
    )


def is_safe_name(name: str) -> bool:
    """Whether a name can be a folder and a part of a cell's name."""
    return bool(_NAME.fullmatch(name))


class _Reader:
    def __init__(self, document: Document, mistakes: list[Mistake]) -> None:
        self.document = document
        self.mistakes = mistakes
        self.folder = document.path.parent.resolve()
        self.broken: set[str] = set()

    def header(self) -> Header | None:
        keys = tuple(entry.name for entry in fields(Header))
        layer = {key: self.given(key) for key in keys if self.document.data.get(key) is not None}
        resolved = resolve_options(Header, [layer], self.document.place(), "a matrix file")
        self.mistakes.extend(resolved.mistakes)
        header: Header | None = resolved.options
        if header is None:
            return None
        name = header.name or self.document.path.stem
        if not is_safe_name(name):
            hint = "" if header.name else "the default is the file's name; give another with `name:`"
            self.wrong(("name",), _NAME_WANTED, repr(name), hint)
        for index, path in enumerate(header.task_paths):
            if not is_folder(path):
                self.wrong(("task_paths", index), "a folder of task YAML", f"{path}, which is no folder")
        if header.data_root and not is_folder(header.data_root):
            self.wrong(("data_root",), "a folder that holds copies of data", f"{header.data_root}, which is no folder")
        for index, finding in enumerate(header.accept):
            if finding not in KINDS:
                self.wrong(("accept", index), "the name of a preflight finding", repr(finding), nearest(finding, KINDS))
        return replace(header, name=name)

    def entries(self, kind: str, section: str) -> dict[str, Entry]:
        content = self.document.data.get(section)
        if content is None:
            return {}
        if not isinstance(content, dict):
            self.broken.add(kind)
            self.wrong((section,), "a mapping of names to options", repr(content))
            return {}
        for label in content:
            if not is_safe_name(label):
                self.wrong((section, label), _NAME_WANTED, repr(label))
        has_use = kind != "evaluation"
        entries = {label: self.entry((section, label), label, body, has_use) for label, body in content.items()}
        return (
            {label: self.sampled(section, entry) for label, entry in entries.items()} if kind == "student" else entries
        )

    def sampled(self, section: str, entry: Entry) -> Entry:
        """A student's entry with what it says of sampling apart from its component's options."""
        given = entry.options.get("sampling")
        if given is None:
            return entry
        options = {name: option for name, option in entry.options.items() if name != "sampling"}
        if not isinstance(given.value, dict):
            hint = "such as {temperature: 0.6, top_p: 0.95}"
            self.wrong((section, entry.label, "sampling"), "a mapping of sampling options", repr(given.value), hint)
            return replace(entry, options=options)
        sampling = {name: self.given(section, entry.label, "sampling", name) for name in given.value}
        return replace(entry, options=options, sampling=sampling)

    def entry(self, keys: tuple[str, ...], label: str, body: Any, has_use: bool) -> Entry:
        """One entry; an evaluation has no `use`, its benchmark is an option."""
        place = self.document.place(*keys)
        if not isinstance(body, dict | None):
            hint = f"write {{use: {body}}}" if has_use and isinstance(body, str) else ""
            self.wrong(keys, "a mapping of options", repr(body), hint)
            return Entry(label, None, {}, place, place)
        options = {name: self.given(*keys, name) for name in body or {}}
        use = options.pop("use", None) if has_use else None
        if use is not None and not isinstance(use.value, str):
            self.mistakes.append(Mistake(use.place, "the name of a component", repr(use.value)))
            return Entry(label, None, options, place, use.place)
        return Entry(label, use.value if use else label, options, place, use.place if use else place)

    def defaults(self) -> dict[str, dict[str, Given]]:
        content = self.document.data.get("defaults")
        found: dict[str, dict[str, Given]] = {kind: {} for kind in SECTIONS}
        if not isinstance(content, dict | None):
            self.wrong(("defaults",), "a mapping of kinds to options", repr(content))
            content = None
        for kind, options in (content or {}).items():
            if kind not in SECTIONS:
                self.wrong(("defaults", kind), "a kind of component", repr(kind), nearest(kind, SECTIONS))
            elif not isinstance(options, dict | None):
                self.wrong(("defaults", kind), "a mapping of options", repr(options))
            else:
                found[kind] = {name: self.given("defaults", kind, name) for name in options or {}}
        return found

    def given(self, *keys: str) -> Given:
        value: Any = self.document.data
        for key in keys:
            value = value[key]
        return Given(value, self.document.place(*keys), folder=self.folder)

    def wrong(self, keys: tuple[str | int, ...], wanted: str, got: str, hint: str = "") -> None:
        self.mistakes.append(Mistake(self.document.place(*keys), wanted, got, hint))
