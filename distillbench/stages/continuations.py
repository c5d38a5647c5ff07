"""Requests for the log-likelihoods of given continuations, tokenised as lm-eval does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distillbench.errors import StageError
from distillbench.protocols import Renderer
from distillbench.records import Evaluation, Problem, Prompt, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase


def scoring_request(problem: Problem, evaluation: Evaluation, renderer: Renderer) -> Request:
    """Asks for the log-likelihood of each of a problem's continuations.

    White space at the end of the context counts as the beginning of every continuation, because that is where a
    tokenizer puts it.

    Args:
        problem: Its `metadata` holds the continuations.
        evaluation: What is asked.
        renderer: Makes the context; a plain one takes the text of the only message as it is.

    Raises:
        StageError: There are no tokens, or they cannot be told apart.
    """
    if not renderer.needs_tokenizer:
        raise StageError(
            f"task {evaluation.task!r} scores given continuations ({evaluation.output_type}), for which their tokens "
            f"are needed; with renderer {renderer.name!r} the server makes the tokens and does not tell them\n"
            f"    hint: evaluate this student on tasks with `output_type: generate_until`"
        )
    continuations: Sequence[str] = problem.metadata["continuations"]
    if renderer.is_plain:
        (message,) = problem.messages
        context, scored = _after_text(renderer.tokenizer, message.content, continuations)
        prefill = ""
    else:
        prompt = renderer.prompt(problem.messages, evaluation.prefill)
        context, scored = _after_prompt(renderer, prompt, continuations)
        prefill = prompt.prefill
    return Request(
        sample_id=f"{problem.problem_id}#0",
        prompt=_prompt(context, prefill),
        sampling=evaluation.sampling,
        stop_token_ids=renderer.stop_token_ids(),
        seed=0,
        messages=problem.messages,
        continuations=tuple(tuple(ids) for ids in scored),
    )


def _after_text(
    tokenizer: PreTrainedTokenizerBase, text: str, continuations: Sequence[str]
) -> tuple[list[int], list[list[int]]]:
    """Token ids of a bare text and of what is scored after it; without a text, after the token that begins one."""
    if text.strip():
        begins_itself = bool(tokenizer.bos_token) and text.startswith(str(tokenizer.bos_token))
        return _split(tokenizer, text, continuations, add_special_tokens=not begins_itself)
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    scored = [tokenizer.encode(text + one, add_special_tokens=False) for one in continuations]
    return [begin], [ids[1:] if ids[:1] == [begin] else ids for ids in scored]


def _after_prompt(
    renderer: Renderer, prompt: Prompt, continuations: Sequence[str]
) -> tuple[list[int], list[list[int]]]:
    """Token ids of a conversation and of what is scored after it.

    Only what follows the last control token is tokenised again, together with each continuation: across a control
    token no tokenizer joins anything, and before it stand the task's own words, in which nothing is a control token.

    Raises:
        StageError: It does not tokenise to the same again.
    """
    tokenizer, ids = renderer.tokenizer, prompt.input_ids.tolist()
    control = {number for text, number in tokenizer.get_added_vocab().items() if text.strip()}
    n = max((place + 1 for place, token in enumerate(ids) if token in control), default=0)
    head, last = ids[:n], ids[n:]
    tail = tokenizer.decode(last, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if tokenizer.encode(tail, add_special_tokens=False) != last:
        raise StageError(
            f"renderer {renderer.name!r}: the end of its prompt, {tail!r}, does not tokenise to the same tokens again, "
            f"so that what is scored after it would not be what a text of both is\n"
            f"    hint: evaluate with `renderer: plain`, which scores after the bare text, or with `prefill: none`"
        )
    context, scored = _split(tokenizer, tail, continuations, add_special_tokens=False)
    return [*head, *context], scored


def _split(
    tokenizer: PreTrainedTokenizerBase, text: str, continuations: Sequence[str], add_special_tokens: bool
) -> tuple[list[int], list[list[int]]]:
    """Tokenises a text alone, and with each continuation, whose tokens are those beyond the text's.

    Source: lm-eval 0.4.13, `TemplateLM._encode_pair`.
    """
    context = tokenizer.encode(text.rstrip(), add_special_tokens=add_special_tokens)
    whole = (tokenizer.encode(text + one, add_special_tokens=add_special_tokens) for one in continuations)
    return context, [ids[len(context) :] for ids in whole]


def _prompt(ids: Sequence[int], prefill: str) -> Prompt:
    import numpy as np

    return Prompt(np.array(ids, dtype=np.int32), prefill)
