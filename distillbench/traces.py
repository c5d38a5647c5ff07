"""What makes a trace unusable, whatever the student and the renderer."""

from __future__ import annotations

import re

from distillbench.records import Trace

#: C0 and C1 controls but tab, line feed and carriage return; the characters that UTF-8 cannot write.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


def why_unusable(trace: Trace) -> str | None:
    """Why a trace cannot be trained on: nothing in it, or characters that no text holds; None for a usable one.

    Returns:
        `category: detail`; the category is what rejected traces are counted by.
    """
    if not trace.answer.strip() and not (trace.reasoning or "").strip():
        return "empty: neither reasoning nor answer"
    parts = {f"{message.role} message": message.content for message in trace.problem.messages}
    parts |= {"reasoning": trace.reasoning or "", "answer": trace.answer}
    for part, text in parts.items():
        if found := _FORBIDDEN.search(text):
            return f"control character: U+{ord(found.group()):04X} at place {found.start()} of the {part}"
    return None
