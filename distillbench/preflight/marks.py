"""Beginning of text, end of turn, padding: tokens whose place decides what is learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from distillbench.preflight.material import RenderedRow, Tallies
from distillbench.preflight.show import Side, around
from distillbench.protocols import Renderer, Trainer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Bos:
    """The beginning-of-text token of a tokenizer that has one.

    Attributes:
        tokenizer: Whose it is.
        token_id: Its id.
        is_wanted: Whether the tokenizer or its chat template puts it in front.
        ends: Whether it also ends texts, so that it may stand anywhere.
    """

    tokenizer: PreTrainedTokenizerBase
    token_id: int
    is_wanted: bool
    ends: bool

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Bos | None:
        """The token; None for a tokenizer without one, such as Qwen's."""
        token_id = tokenizer.bos_token_id
        if token_id is None:
            return None
        wanted = tokenizer("a").input_ids[:1] == [token_id] or _template_has_bos(tokenizer)
        return cls(tokenizer, token_id, wanted, token_id == tokenizer.eos_token_id)

    def check(
        self, input_ids: NDArray[np.int32], start: int, tallies: Tallies, source: str, evaluation: str = ""
    ) -> None:
        """Looks at a row or a prompt; one that begins with two, or with one more where its response begins, is wrong.

        Args:
            input_ids: int32[T].
            start: Where the response begins; T for a prompt.
            tallies: Where to count what is found.
            source: Where it comes from.
            evaluation: Whose prompt it is; empty for a row.
        """
        ids = input_ids[:2].tolist()
        if ids == [self.token_id, self.token_id]:
            show = partial(around, self.tokenizer, Side("tokens", input_ids), 0)
            tallies.add("double_bos", f"begin with {self._name} twice", source, show, evaluation)
        elif not self.ends and 0 < start < len(input_ids) and input_ids[start] == self.token_id:
            show = partial(around, self.tokenizer, Side("training", input_ids, start, "loss begins"), start)
            tallies.add("double_bos", f"have a second {self._name} where the response begins", source, show)
        if self.is_wanted and ids[:1] != [self.token_id]:
            show = partial(around, self.tokenizer, Side("tokens", input_ids), 0)
            tallies.add("missing_bos", f"do not begin with {self._name}", source, show, evaluation)

    @property
    def _name(self) -> str:
        return str(self.tokenizer.bos_token)


def _template_has_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a chat template writes the token, by its variable or by its text."""
    template = tokenizer.chat_template or ""
    texts = list(template.values()) if isinstance(template, Mapping) else [template]
    return any("bos_token" in text or str(tokenizer.bos_token) in text for text in texts)


@dataclass(frozen=True, slots=True)
class End:
    """What ends the rows of a renderer.

    Attributes:
        tokenizer: The student's.
        stops: The tokens that end an assistant's turn.
        hidden: The token that the trainer leaves out of the loss; None where it leaves out none.
    """

    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int]
    hidden: int | None

    @classmethod
    def of(cls, renderer: Renderer, trainer: Trainer) -> End:
        """What ends rows, and what this trainer does not train.

        Without a pad token trainers pad with the end-of-text token, so that this is the one they leave out.
        """
        tokenizer = renderer.tokenizer
        pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return cls(tokenizer, frozenset(renderer.stop_token_ids()), pad if trainer.masks_pad_token else None)

    def check(self, row: RenderedRow, tallies: Tallies) -> None:
        """Looks at the last token of a row with loss, unless its teacher was cut off."""
        if not row.is_complete:
            return
        last, source = int(row.input_ids[-1]), row.trace.source
        show = partial(self._shown, row)
        if last not in self.stops:
            tallies.add("end_without_loss", "do not end with a token that ends the turn", source, show)
        elif not row.loss_mask[-1]:
            tallies.add("end_without_loss", "end with a token that carries no loss", source, show)
        elif last == self.hidden:
            what = "end with the token that also pads, so that the trainer leaves it out of the loss"
            tallies.add("end_is_pad", what, source, show)

    def _shown(self, row: RenderedRow) -> str:
        """The row's end; the bar stands where loss ends."""
        last = len(row.input_ids) - int(row.loss_mask[::-1].argmax())
        side = Side("training", row.input_ids, last, "loss ends")
        return around(self.tokenizer, side, len(row.input_ids) - 1)
