"""The `chat-template` renderer, and what every renderer with a chat template shares."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from distillbench.errors import StageError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Renderer
from distillbench.reasoning_formats import THINK, Format, find_format, format_of
from distillbench.records import Message, Prefill
from distillbench_plugins.renderers.base import Reasoning, SegmentRenderer, Start, begun_turn, check_tags_option
from distillbench_plugins.renderers.template import ChatTemplate, Written

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: A conversation that every template takes.
QUESTION = (Message("user", "a"),)
#: A private-use character, which no template knows and which is no white space.
_SENTINEL = "\U000f0000"


@dataclass(frozen=True)
class ChatOptions:
    """Options of every chat renderer.

    Attributes:
        system: A system prompt for every conversation that has none; None leaves it out.
        reasoning: `native` trains on the teacher's reasoning in the student's own thinking block, `text` on the same
            with the tags as plain text, `strip` on the answer alone.
        system_in_user: Puts system text at the head of the first user turn, an empty line after it, for templates that
            take no system message or leave it out (Gemma's, Mistral's).
    """

    system: str | None = None
    reasoning: Reasoning = "native"
    system_in_user: bool = False


ChatOptionsT_co = TypeVar("ChatOptionsT_co", bound=ChatOptions, covariant=True)


class ChatRenderer(SegmentRenderer[ChatOptionsT_co]):
    r"""Prompts from the tokenizer's own chat template, and responses that follow them.

    The prompt is the official one, id for id, but for two things. The text of control tokens in messages stays text.
    And where the template opens reasoning by itself and rows do not (`reasoning: text` or `strip`), the prompt of
    `prefill: auto` ends before that tag, in training as in evaluation.

    What `prefill` puts into the assistant's turn: `auto` what the template puts there and rows begin with; `none`
    nothing; `think` an open reasoning tag. A message of the assistant at the end is continued: it is the beginning of
    an answer, so that no tag is opened before it unless `think` asks for it; an empty pair that the template closed by
    itself stays before it.
    """

    #: Control tokens that the family's templates write; the first ends a turn.
    tokens: ClassVar[tuple[str, ...]]
    #: Others that end the turn where the vocabulary has them.
    other_stops: ClassVar[tuple[str, ...]] = ()
    _template: ChatTemplate
    _opened: re.Pattern[str]

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> Self:
        """A copy that uses this tokenizer and its template.

        Raises:
            StageError: The tokenizer has no template, lacks a token, or the options do not go with it.
        """
        bound = super().bind(tokenizer)
        bound._choose_tags()
        tags = bound.reasoning_tags()
        bound._template = ChatTemplate(
            tokenizer, bound._tokeniser.control_ids, tags, self.template_options(), f"renderer {self.name!r}"
        )
        opening, closing = map(re.escape, tags)
        bound._opened = re.compile(rf"{opening}\s*({closing}\s*)?\Z")
        bound._check()
        return bound

    def template_options(self) -> Mapping[str, Any]:
        """What the template is given."""
        return {}

    def end_token_id(self) -> int:
        """The token that ends an assistant's turn."""
        return self._tokeniser.control_id(self.tokens[0])

    def stop_token_ids(self) -> tuple[int, ...]:
        """The token that ends the turn, and others of the family that the vocabulary has."""
        known = self._tokeniser.control_ids
        return (self.end_token_id(), *(known[token] for token in self.other_stops if token in known))

    def starts(self, conversations: Sequence[Sequence[Message]], prefill: Prefill) -> list[Start]:
        """What stands before the response to each conversation."""
        parts = [self._parts(messages) for messages in conversations]
        written = self._template.write([asked for asked, _ in parts])
        return [self._start(one, begun, prefill) for one, (_, begun) in zip(written, parts, strict=True)]

    def _parts(self, messages: Sequence[Message]) -> tuple[Sequence[Message], str]:
        """What the template is given, and the beginning of the assistant's turn."""
        asked, begun = begun_turn(messages)
        system = self.options.system
        if system is not None and not (asked and asked[0].role == "system"):
            asked = (Message("system", system), *asked)
        return (_folded(asked) if self.options.system_in_user else asked), begun

    def _start(self, written: Written, begun: str, prefill: Prefill) -> Start:
        opened = self._opened.search(written.text)
        head = written.text[: opened.start()] if opened else written.text
        turn = self._turn(opened, bool(begun), prefill)
        segments = self._tokeniser.split(head, written.hidden, begins=True) + self._tokeniser.split(turn)
        is_open = bool(turn) and not turn.rstrip().endswith(self.reasoning_tags()[1])
        return Start([*segments, begun] if begun else segments, turn + begun, is_open)

    def _turn(self, opened: re.Match[str] | None, is_begun: bool, prefill: Prefill) -> str:
        """What stands in the assistant's turn before a begun message, given what the template opened there."""
        is_pair = opened is not None and opened.group(1) is not None
        if prefill == "none":
            return ""
        if prefill == "think":
            opening = self.reasoning_tags()[0] + format_of(self.reasoning_tags()).breaks[0]
            return opened.group() if opened and not is_pair else opening
        is_in_rows = is_pair or (self.options.reasoning == "native" and not is_begun)
        return opened.group() if opened and is_in_rows else ""

    def _choose_tags(self) -> None:
        """Where the tags depend on the tokenizer, decides which they are."""

    def _check(self) -> None:
        """Refuses a tokenizer and options that cannot make rows."""
        for token in self.tokens:
            self._tokeniser.control_id(token)
        self._check_reasoning()

    def _check_reasoning(self) -> None:
        reasoning = self.options.reasoning
        spelled = {tag: self._tokeniser.split(tag) for tag in self.reasoning_tags()}
        missing = [tag for tag, parts in spelled.items() if not any(isinstance(part, int) for part in parts)]
        if reasoning == "native" and missing:
            raise StageError(
                f"renderer {self.name!r}: the student's tokenizer has no token {missing[0]!r}, which "
                f"`reasoning: native` writes\n"
                f"    hint: set `reasoning: text`, which writes the tags as plain text, or `reasoning: strip`"
            )
        [start] = self.starts([QUESTION], "auto")
        if reasoning != "strip" and start.prefill and not start.is_open:
            raise StageError(
                f"renderer {self.name!r}: the chat template closes reasoning before the answer ({start.prefill!r}), "
                f"so that `reasoning: {reasoning}` has no place\n"
                f"    hint: set `reasoning: strip`"
            )


def _folded(messages: Sequence[Message]) -> Sequence[Message]:
    """A conversation whose system message is the head of the first user turn."""
    if not messages or messages[0].role != "system":
        return messages
    head, rest = messages[0].content, messages[1:]
    if rest and rest[0].role == "user":
        return (Message("user", f"{head}\n\n{rest[0].content}"), *rest[1:])
    return (Message("user", head), *rest)


@dataclass(frozen=True)
class ChatTemplateOptions(ChatOptions):
    """Options of the `chat-template` renderer.

    Attributes:
        template_options: Values that the template is given, such as `enable_thinking` or `date_string`.
        reasoning_tags: What opens and what closes reasoning. Left out, the format is the one that the chat template
            or the added tokens show, and `<think>` where they show none; `check` says which.
    """

    template_options: Mapping[str, Any] = field(default_factory=dict)
    reasoning_tags: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        """Checks options against each other."""
        check_tags_option(self.reasoning_tags)
        if taken := sorted({"messages", "add_generation_prompt", "chat_template"} & set(self.template_options)):
            raise ValueError(f"template_options {', '.join(taken)}: the renderer sets that itself")


class ChatTemplateRenderer(ChatRenderer[ChatTemplateOptions]):
    """Whatever chat template the tokenizer carries, for families without a renderer of their own.

    The token that ends a turn is the one that the template writes after an assistant's message, or else the
    tokenizer's end-of-sequence token. A template that writes today's date has to be given one, or else rows, prompts
    and results would change overnight.
    """

    name = "chat-template"
    version = 2
    tokens = ()
    _end: int
    _found: Format | None = None

    def reasoning_tags(self) -> tuple[str, str]:
        """The tags of the options, or those that the tokenizer shows."""
        given = self.options.reasoning_tags
        return given or (self._found or THINK).tags

    def reasoning_told(self) -> str:
        """The tags, and how they were found."""
        told = super().reasoning_told()
        if self.options.reasoning_tags:
            return told
        return f"{told} ({'shown by the tokenizer' if self._found else 'assumed: the tokenizer shows no format'})"

    def _choose_tags(self) -> None:
        self._found = find_format(str(self.tokenizer.chat_template or ""), self._tokeniser.control_ids)

    def template_options(self) -> Mapping[str, Any]:
        """Those of the options."""
        options: Mapping[str, Any] = self.options.template_options
        return options

    def end_token_id(self) -> int:
        """The token that ends an assistant's turn."""
        return self._end

    def stop_token_ids(self) -> tuple[int, ...]:
        """The token that ends the turn, and the tokenizer's end-of-sequence token."""
        eos = self.tokenizer.eos_token_id
        return tuple(dict.fromkeys(token for token in (self._end, eos) if token is not None))

    def _check(self) -> None:
        self._refuse_todays_date()
        self._end = self._found_end()
        super()._check()

    def _refuse_todays_date(self) -> None:
        source = self._template.source
        if "strftime_now" not in source:
            return
        if "date_string" not in source:
            raise StageError(
                f"renderer {self.name!r}: the chat template writes today's date and cannot be given another, so that "
                f"rows would change overnight\n"
                f"    hint: set a `chat_template` without `strftime_now` on the tokenizer"
            )
        if "date_string" not in self.template_options():
            raise StageError(
                f"renderer {self.name!r}: the chat template writes today's date, so that rows would change overnight\n"
                f"    hint: pin it with `template_options: {{date_string: 26 Jul 2024}}`"
            )

    def _found_end(self) -> int:
        """The control token that follows an assistant's message, or the end-of-sequence token."""
        [written] = self._template.write([(*QUESTION, Message("assistant", _SENTINEL))], is_asked=False)
        after = self._tokeniser.split(written.text.rpartition(_SENTINEL)[2].lstrip())
        if after and isinstance(after[0], int):
            return after[0]
        if (eos := self.tokenizer.eos_token_id) is None:
            raise StageError(
                f"renderer {self.name!r}: neither the chat template nor the tokenizer says which token ends a turn\n"
                f"    hint: set the tokenizer's `eos_token`"
            )
        return int(eos)


@hookimpl
def distillbench_renderers() -> Iterable[type[Renderer]]:
    """The tokenizer's own chat template."""
    return [ChatTemplateRenderer]
