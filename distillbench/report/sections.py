"""What plugins add to a report. An error in one of them costs its sections, and the report says so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pluggy

from distillbench.manager import ask_each, hook_error, whose
from distillbench.report.results import Results, Section

_HOOK = "distillbench_report_sections"


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
        if answer.error is not None:
            left_out.append(f"sections of {answer.error}")
            continue
        for section in _entries(answer.value):
            if (why := _why_unusable(section)) is not None:
                left_out.append(f"a section of {hook_error(manager, answer.plugin, _HOOK, why)}")
            elif (other := sections.get(section.title)) is not None:
                first, second = whose(manager, other[1]), whose(manager, answer.plugin)
                left_out.append(f"section {section.title!r} of plugin {second}: plugin {first} has one of that name")
            else:
                sections[section.title] = section, answer.plugin
    return replace(results, left_out=tuple(left_out)), [section for section, _ in sections.values()]


def _entries(value: Any) -> Iterator[Any]:
    """What a hook returned, one by one; None stands for nothing."""
    if value is None:
        return
    yield from value if isinstance(value, Iterable) and not isinstance(value, str | bytes) else [value]


def _why_unusable(section: Any) -> str | None:
    texts = (section.title, section.markdown) if isinstance(section, Section) else (None,)
    is_usable = all(isinstance(text, str) for text in texts)
    return None if is_usable else f"wanted sections with a title and a markdown text, got {section!r}"
