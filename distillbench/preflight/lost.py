"""Text that a prompt leaves out: a template may drop a message in silence, and with it the question or the examples.

Templates rightly strip white space, fold system text into the user's turn, and drop the reasoning of earlier turns. So
white space does not count, nor where a text stands, and of an assistant's message only what follows its reasoning has
to be there.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from distillbench.protocols import Renderer
from distillbench.records import Message, Prompt

#: Behind a text that stands in a prompt something else makes other tokens; nobody's question ends with it.
_MORE = " And 7193 more."
_SHOWN = 60


def lost_message(renderer: Renderer, messages: Sequence[Message], prompt: Prompt) -> Message | None:
    """The first message whose text does not stand in its prompt; None where all do.

    A text stands there as often as the messages hold it, because an example may repeat the question.

    Args:
        renderer: Bound to the student's tokenizer.
        messages: What was asked.
        prompt: What the renderer made of it.
    """
    written = _plain(renderer.show(prompt))
    wanted = [_wanted(one, written, renderer.reasoning_tags()) for one in messages]
    for message, text in zip(messages, wanted, strict=True):
        if not text or written.count(text) >= sum(other.count(text) for other in wanted):
            continue
        if _shows_all(renderer, message.content) or not _is_seen(message, messages, renderer, prompt):
            return message
    return None


def told_lost(message: Message) -> str:
    """Which message it was, and what may be the reason."""
    shown = " ".join(message.content.split())
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    told = f"The chat template leaves the {message.role} message {shown!r} out, or a part of it."
    if message.role == "system":
        return f"{told} `system_in_user: true` puts system text at the head of the user's turn."
    return (
        f"{told} Templates of models that also see read a message as a list of parts, and others keep the last turn "
        "alone: give the tokenizer a `chat_template` that writes each message's text."
    )


def _wanted(message: Message, written: str, tags: tuple[str, str] | None) -> str:
    """What of a message has to stand in a prompt."""
    text = _plain(message.content)
    if message.role != "assistant" or tags is None or text in written:
        return text
    return _plain(message.content.rpartition(tags[1])[2])


def _shows_all(renderer: Renderer, text: str) -> bool:
    """Whether the vocabulary gives a text back: one that lacks characters shows it otherwise than it was."""
    ids = renderer.tokenizer(text, add_special_tokens=False)["input_ids"]
    return _plain(text) in _plain(renderer.tokenizer.decode(ids))


def _is_seen(message: Message, messages: Sequence[Message], renderer: Renderer, prompt: Prompt) -> bool:
    """Whether the prompt is another one when the message is empty, and when it is longer."""
    made = [prompt.input_ids.tolist()]
    for content in ("", message.content + _MORE):
        changed = [Message(message.role, content) if one is message else one for one in messages]
        made.append(renderer.prompt(changed).input_ids.tolist())
    return len({tuple(ids) for ids in made}) == len(made)


def _plain(text: str) -> str:
    """A text without white space, in one of the forms that Unicode has for it."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())
