r"""How models mark their reasoning: every format that is known, as data, in this one place.

A renderer writes one of them into its rows and prompts; the parser knows them all, so that a text which opens any of
them is never graded as if it held no reasoning. Where a server sends reasoning apart from the answer, `join_apart` puts
both into one text, and `split_apart` takes them out again unchanged, whatever tags they name.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    r"""One way to mark reasoning.

    Attributes:
        name: What it is called here.
        opening: What opens reasoning, as rows and prompts write it.
        closing: What closes it, as rows write it; the answer follows.
        breaks: What rows have after the opening tag, before the closing tag, and after the closing tag.
        opens: A pattern of all that opens it; empty for the opening tag itself, attributes and case left open where it
            looks like an XML tag.
        closes: The same of what closes it.
        ends: A pattern of what closes it too, but is text where this format has not been opened.
        tail: A pattern of what may still stand at the end of the answer.
    """

    name: str
    opening: str
    closing: str
    breaks: tuple[str, str, str] = ("\n", "\n", "\n\n")
    opens: str = ""
    closes: str = ""
    ends: str = ""
    tail: str = ""

    @property
    def tags(self) -> tuple[str, str]:
        """What opens and what closes reasoning."""
        return self.opening, self.closing

    @property
    def opening_pattern(self) -> str:
        """Matches everything that opens it."""
        if self.opens:
            return self.opens
        xml = _XML.fullmatch(self.opening)
        return rf"(?i:<{re.escape(xml[1])}{_ATTRIBUTES}\s*+>)" if xml else re.escape(self.opening)

    @property
    def closing_pattern(self) -> str:
        """Matches everything that closes it, wherever it stands."""
        if self.closes:
            return self.closes
        xml = _XML.fullmatch(self.opening)
        is_pair = xml is not None and self.closing == f"</{xml[1]}>"
        return rf"(?i:</\s*+{re.escape(xml[1])}\s*+>)" if xml and is_pair else re.escape(self.closing)


_XML = re.compile(r"<([A-Za-z][\w:|]*)>")
#: Only `name=value`: `<think about it>` is prose.
_ATTRIBUTES = r"""(?:\s++[\w:-]++\s*+=\s*+(?:"[^"\n]*+"|'[^'\n]*+'|[^\s<>"'=]++))*+"""
_NO_BREAKS = ("", "", "")
_HEADER = r"(?:<\|start\|>assistant\s*+)?+<\|channel\|>\s*+"
_REST_OF_HEADER = r"[^<\n]*+(?:<\|constrain\|>[^<\n]*+)?+<\|message\|>"


def _xml(*names: str) -> tuple[Format, ...]:
    return tuple(Format(name, f"<{name}>", f"</{name}>") for name in names)


#: Most models: DeepSeek, Qwen, GLM, MiniMax, OLMo, Phi, Nemotron, Hunyuan, ERNIE, Granite 3.3.
THINK = Format("think", "<think>", "</think>")

#: Source: the chat templates of the models, and the reasoning parsers of vLLM and SGLang.
FORMATS: tuple[Format, ...] = (
    THINK,
    *_xml("thinking", "thought", "thoughts", "reasoning", "reflection", "scratchpad", "antThinking"),
    *_xml("seed:think", "mm:think", "longcat_think", "ifm|think", "think_fast", "think_faster"),
    *_xml("analysis", "cot", "chain_of_thought", "inner_monologue"),
    Format(
        "harmony",  # gpt-oss; whatever is not the final channel is no answer
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        _NO_BREAKS,
        opens=rf"{_HEADER}(?!final\b)[a-z]++{_REST_OF_HEADER}",
        closes=rf"(?:<\|end\|>\s*+)?+{_HEADER}final\b{_REST_OF_HEADER}",
        ends=r"<\|(?:end|return|call)\|>",
        tail=r"(?:<\|(?:end|return|call)\|>|<\|start\|>[^<]*+(?:<\|channel[^<]*+|<\|?+[a-z]*+)?+)",
    ),
    Format("mistral", "[THINK]", "[/THINK]", _NO_BREAKS),
    Format(
        "gemma4",
        "<|channel>thought\n",
        "<channel|>",
        ("", "\n", ""),
        opens=r"<\|channel>(?:thought\b\n?+)?+",
        tail=r"<turn\|>",
    ),
    Format("medgemma", "<unused94>thought\n", "<unused95>", _NO_BREAKS, opens=r"<unused94>(?:thought\b\n?+)?+"),
    Format(
        "cohere",
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        _NO_BREAKS,
        closes=r"<\|END_THINKING\|>\s*+(?:<\|START_(?:RESPONSE|TEXT)\|>)?+|<\|START_RESPONSE\|>",
        tail=r"<\|END_(?:RESPONSE|TEXT)\|>",
    ),
    Format(
        "sky-t1",
        "<|begin_of_thought|>",
        "<|end_of_thought|>",
        closes=r"<\|end_of_thought\|>\s*+(?:<\|begin_of_solution\|>)?+|<\|begin_of_solution\|>",
        tail=r"<\|end_of_solution\|>",
    ),
    Format("kimi", "\u25c1think\u25b7", "\u25c1/think\u25b7"),
    Format(
        "kimi-k3",
        "<|open|>think<|sep|>",
        "<|close|>think<|sep|>",
        _NO_BREAKS,
        closes=r"<\|close\|>think<\|sep\|>\s*+(?:<\|open\|>response<\|sep\|>)?+",
        tail=r"<\|close\|>response<\|sep\|>",
    ),
    Format(
        "solar",
        "<|think|>",
        "<|end|><|begin|>assistant<|content|>",
        _NO_BREAKS,
        closes=r"(?:<\|end\|>\s*+)?+(?:<\|begin\|>assistant\s*+)?+<\|content\|>",
        ends=r"<\|end\|>",
        tail=r"<\|end\|>",
    ),
    Format("apertus", "<|inner_prefix|>", "<|inner_suffix|>", _NO_BREAKS),
    Format("pangu", "[unused16]", "[unused17]", _NO_BREAKS),
    Format("plamo", "<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
)

#: Whose tags are sentences that anybody may write: where a renderer does not ask for it, both have to be there.
PROSE: tuple[Format, ...] = (
    Format(
        "granite 3.2",
        "Here is my thought process:",
        "Here is my response:",
        opens=r"^Here(?:'s|[ ]is)[ ]my[ ]thought[ ]process:",
        closes=r"(?!)",
        ends=r"Here(?:'s|[ ]is)[ ]my[ ]response:",
    ),
)

#: What servers leave of formats whose tags are special tokens, where they take these out.
REMAINS: tuple[Format, ...] = (
    Format(
        "harmony as text",
        "analysis",
        "assistantfinal",
        _NO_BREAKS,
        opens=r"""\Aanalysis(?=[^\sa-z.,:;)'"-])""",
        closes=r"(?!)",
        ends=r"assistantfinal",
    ),
)


def format_of(tags: tuple[str, str]) -> Format:
    """The known format with these tags, or one of these tags alone."""
    return next((one for one in (*FORMATS, *PROSE) if one.tags == tags), Format("", *tags))


def find_format(template: str, tokens: Collection[str]) -> Format | None:
    """The format of a model, as its chat template and its added tokens show it.

    The template says more than the tokens, which families share with models that do not reason; what closes reasoning
    says more than what opens it, because templates look for it in earlier turns.

    Args:
        template: Its text; empty where there is none.
        tokens: The texts of added tokens.
    """
    for is_shown in (
        lambda one: one.closing in template,
        lambda one: one.opening.strip() in template,
        lambda one: all(tag in tokens for tag in one.tags),
    ):
        if found := next(filter(is_shown, (*FORMATS, *PROSE)), None):
            return found
    return None


#: How reasoning that came apart stands before the answer; the number is one that the reasoning does not name.
_APART = '<think apart="{0}">\n', '\n</think apart="{0}">\n\n'
_APART_OPENED = re.compile(r'\s*<think apart="(\d+)">\n')


def join_apart(reasoning: str, answer: str) -> str:
    r"""One text of what a server sent apart; reasoning stays open where no answer follows.

    Args:
        reasoning: Not empty.
        answer: May be empty, or blank, which is none.
    """
    number = next(n for n in range(len(reasoning) + 2) if _APART[1].format(n).strip() not in reasoning)
    begun = f"{_APART[0].format(number)}{reasoning}"
    return f"{begun}{_APART[1].format(number)}{answer}" if answer.strip() else begun


def split_apart(text: str) -> tuple[str, str | None] | None:
    """What `join_apart` put together; the answer is None while reasoning is open, all of it where nothing is apart."""
    opened = _APART_OPENED.match(text)
    if opened is None:
        return None
    reasoning, closed, answer = text[opened.end() :].partition(_APART[1].format(opened[1]).strip())
    return reasoning.strip(), answer.strip() if closed else None
