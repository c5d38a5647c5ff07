"""A tokenizer's own chat template: what it writes is told apart from what the messages hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from distillbench.errors import StageError
from distillbench.records import Message
from distillbench_plugins.renderers.tokenise import any_of, restored

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Private-use characters: what stands for control tokens' text while a template is applied.
_PLACEHOLDERS = range(0xF0000, 0xFFFFE)


_SYSTEM_HINT = "\n    hint: `system_in_user: true` puts system text at the head of the user's turn"


@dataclass(frozen=True, slots=True)
class Written:
    """What a template made of a conversation.

    Attributes:
        text: Every control token's and reasoning tag's text in it comes from the template.
        hidden: Placeholder characters in it, and the text of the messages that they stand for.
    """

    text: str
    hidden: Mapping[str, str] = field(default_factory=dict)


class ChatTemplate:
    """Applies a tokenizer's template, so that the official text wins by construction."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        control_tokens: Iterable[str],
        tags: tuple[str, str],
        options: Mapping[str, Any],
        owner: str,
    ) -> None:
        """Binds a template.

        Args:
            tokenizer: Whose template it is.
            control_tokens: The texts that messages may hold and that only the template may mean.
            tags: What opens and what closes reasoning.
            options: Values that the template is given.
            owner: Who applies it, for the messages: `renderer 'qwen3'`.

        Raises:
            StageError: There is no template.
        """
        try:
            self.source: str = tokenizer.get_chat_template()
        except ValueError as error:
            raise StageError(
                f"{owner}: wanted a chat template, but the student's tokenizer has none\n"
                f"    hint: use `renderer: plain` for a student without a chat format"
            ) from error
        self._tokenizer, self._tags = tokenizer, tags
        self._marked = any_of({*control_tokens, *tags})
        self._options, self._owner = options, owner

    def write(self, conversations: Sequence[Sequence[Message]], is_asked: bool = True) -> list[Written]:
        """Applies the template to conversations.

        Args:
            conversations: Messages of each.
            is_asked: Whether the assistant's turn is begun (`add_generation_prompt`).

        Raises:
            StageError: The template refuses a conversation, or reads control tokens in it.
        """
        find = self._marked.search
        texts = self._applied([[_fields(one) for one in messages] for messages in conversations], is_asked)
        return [
            self._told_apart(messages, text, is_asked)
            if any(find(message.content) for message in messages)
            else Written(text)
            for messages, text in zip(conversations, texts, strict=True)
        ]

    def _applied(self, chats: list[list[dict[str, str]]], is_asked: bool) -> list[str]:
        from jinja2 import TemplateError

        try:
            texts: list[str] = self._tokenizer.apply_chat_template(
                chats, tokenize=False, add_generation_prompt=is_asked, **self._options
            )
        except TemplateError as error:
            hint = _SYSTEM_HINT if any(one["role"] == "system" for chat in chats for one in chat) else ""
            raise StageError(f"{self._owner}: the chat template refuses these messages: {error}{hint}") from error
        return texts

    def _told_apart(self, messages: Sequence[Message], official: str, is_asked: bool) -> Written:
        """Applies the template to messages whose control tokens' text is hidden, and sees that the result is the same.

        Templates drop earlier reasoning, for which they have to see its tags: then these are shown to it, with a mark
        before each that tells those that stay in the text from the template's own. Others write earlier reasoning anew,
        between tags of their own: they take it apart from the answer too, as `reasoning_content`.
        """
        hidden, mark = self._placeholders(messages)
        meant = {char: text for text, char in hidden.items()}
        for chat in (
            [_fields(self._hide(one, hidden, (), mark)) for one in messages],
            [_fields(self._hide(one, hidden, self._tags, mark)) for one in messages],
            [self._apart(one, hidden, mark) for one in messages],
        ):
            text = self._applied([chat], is_asked)[0]
            for tag in set(self._tags) & set(hidden):
                text = text.replace(mark + tag, hidden[tag])
            written = Written(text.replace(mark, ""), meant)
            if restored(written.text, meant) == official:
                return written
        raise StageError(
            f"{self._owner}: the chat template reads the text of control tokens in the messages, so that data cannot "
            f"be told from what the template wrote\n"
            f"    got:  {official[:300]!r}\n"
            f"    hint: take {', '.join(map(repr, hidden))} out of the messages"
        )

    def _placeholders(self, messages: Sequence[Message]) -> tuple[dict[str, str], str]:
        """A character that no message holds for each control token's text in them, and one more."""
        found = (self._marked.findall(message.content) for message in messages)
        tokens = list(dict.fromkeys(chain.from_iterable(found)))
        taken = set().union(*(message.content for message in messages))
        free: Iterator[str] = (char for char in map(chr, _PLACEHOLDERS) if char not in taken)
        return {token: next(free) for token in tokens}, next(free)

    def _apart(self, message: Message, hidden: Mapping[str, str], mark: str) -> dict[str, str]:
        """A message whose reasoning stands in a field of its own, as templates find it in the text."""
        opening, closing = self._tags
        if message.role != "assistant" or closing not in message.content:
            return _fields(self._hide(message, hidden, (), mark))
        reasoning = message.content.split(closing)[0].split(opening)[-1].strip("\n")
        answer = message.content.split(closing)[-1].lstrip("\n")
        parts = [self._hide(Message("assistant", text), hidden, (), mark).content for text in (answer, reasoning)]
        return {"role": message.role, "content": parts[0], "reasoning_content": parts[1]}

    def _hide(self, message: Message, hidden: Mapping[str, str], shown: tuple[str, ...], mark: str) -> Message:
        """A message whose control tokens' text is hidden; tags that are shown in an assistant's message get a mark."""
        shown = shown if message.role == "assistant" else ()

        def replaced(match: re.Match[str]) -> str:
            token = match.group()
            return mark + token if token in shown else hidden[token]

        return Message(message.role, self._marked.sub(replaced, message.content))


def _fields(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}
