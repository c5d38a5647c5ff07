"""What plugins add to a report. An error in one of them costs its sections, and the report says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from reprlib import Repr
from typing import Any

import pluggy

from distillbench.manager import ask_each, hook_error, whose
from distillbench.report.results import Results, Section

_HOOK = "distillbench_report_sections"
_SHOWN = Repr()
_SHOWN.maxother = _SHOWN.maxstring = 120


def with_sections(results: Results, manager: pluggy.PluginManager) -> tuple[Results, list[Section]]:
    """Asks every plugin for its sections.

    Args:
        results: What they are asked about.
        manager: The plugins.

    Returns:
        The results, with what is left out, and the sections.
    """
    sections: dict[str, tuple[Section, str]] = {}
    left_out: list[str] = []
    for answer in ask_each(manager, _HOOK, results=results):
        given, error = _listed(answer.value)
        if answer.error is not None or error is not None:
            left_out.append(f"sections of {answer.error or hook_error(manager, answer.plugin, _HOOK, error or '')}")
        unusable = []
        for section in given:
            if (why := _why_unusable(section)) is not None:
                unusable.append(why)
            elif (other := sections.get(section.title)) is not None:
                first, second = whose(manager, other[1]), whose(manager, answer.plugin)
                left_out.append(f"section {section.title!r} of plugin {second}: plugin {first} has one of that name")
            else:
                sections[section.title] = section, answer.plugin
        if unusable:
            told = hook_error(manager, answer.plugin, _HOOK, unusable[0])
            left_out.append(f"{'a section' if len(unusable) == 1 else f'{len(unusable)} sections'} of {told}")
    return replace(results, left_out=tuple(left_out)), [section for section, _ in sections.values()]


def _listed(value: Any) -> tuple[list[Any], Exception | None]:
    """What a hook returned, as a list, and what going through it raised; None stands for nothing."""
    if value is None:
        return [], None
    if not isinstance(value, Iterable) or isinstance(value, str | bytes):
        return [value], None
    found: list[Any] = []
    try:
        found.extend(value)
    except Exception as error:  # a plugin's own sequence may raise anything
        return found, error
    return found, None


def _why_unusable(section: Any) -> str | None:
    texts = (section.title, section.markdown) if isinstance(section, Section) else (None,)
    is_usable = all(isinstance(text, str) for text in texts)
    return None if is_usable else f"wanted sections with a title and a markdown text, got {_SHOWN.repr(section)}"
