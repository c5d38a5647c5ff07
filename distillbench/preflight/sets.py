"""What can only be said of all rows together: lengths, system prompts, the answer's format."""

from __future__ import annotations

from collections.abc import Sequence

from distillbench.errors import StageError
from distillbench.findings import Finding
from distillbench.preflight.material import Asked, Lengths, Trained, counted, same_ids
from distillbench.preflight.prompts import PromptMaker
from distillbench.preflight.show import Side, compared, excerpt, first_difference, harmless
from distillbench.records import Message, Prompt

#: The share of training responses that an evaluation's budget should hold, in percent.
_BUDGET_PERCENTILE = 90


def check_sets(maker: PromptMaker, asked: Sequence[Asked], trained: Trained, lengths: Lengths) -> list[Finding]:
    """The findings about all rows together.

    Args:
        maker: Makes prompts.
        asked: The cell's evaluations.
        trained: Its training rows.
        lengths: How long those are that could be rendered.
    """
    found = [cut_answers(trained, lengths)]
    n_with_system = sum(_has_system(trace.problem.messages) for trace in trained.traces)
    for one in asked:
        found += [
            one_sided_system(maker, one, trained, n_with_system),
            short_budget(one, lengths),
            answer_format(one, trained),
        ]
    return [finding for finding in found if finding is not None]


def cut_answers(trained: Trained, lengths: Lengths) -> Finding | None:
    """Rows of which `max_length` would cut off tokens with loss, when they are more than `max_cut` allows."""
    limit = trained.trainer.max_length()
    if limit is None or not lengths.rows:
        return None
    n_cut = sum(length > limit for length in lengths.needed)
    if n_cut / lengths.rows <= trained.max_cut:
        return None
    enough = f"max_length {max(lengths.needed):,} would cut none"
    if trained.max_cut > 0:
        enough += f", {_shortest(lengths, trained.max_cut):,} no more than max_cut allows"
    return Finding(
        "cut_answers",
        f"{counted(n_cut, lengths.rows, trained.unit)} lose the end of their answer at max_length {limit:,}, "
        f"where max_cut allows {trained.max_cut * 100:.3g} %, the first: {lengths.cut}\n"
        f"The longest row has {lengths.longest:,} tokens. {enough}.",
    )


def _shortest(lengths: Lengths, max_cut: float) -> int:
    """The smallest `max_length` that cuts no larger share of the rows than `max_cut`."""
    ordered = sorted(lengths.needed)
    return next(
        length for n, length in enumerate(ordered, 1) if (len(ordered) - n) / lengths.rows <= max_cut
    )  # the last one cuts nothing


def short_budget(asked: Asked, lengths: Lengths) -> Finding | None:
    """A token budget below the 90th percentile of the training responses.

    The percentile is the inverted distribution function: the smallest length that 90 % of the responses do not
    exceed. So there is a finding exactly when more than 10 % of them would not fit.
    """
    import numpy as np

    if not lengths.response or asked.evaluation.output_type != "generate_until":  # nothing is generated, nothing cut
        return None
    budget = asked.evaluation.sampling.max_tokens
    wanted = int(np.percentile(lengths.response, _BUDGET_PERCENTILE, method="inverted_cdf"))
    if budget >= wanted:
        return None
    n_long = sum(length > budget for length in lengths.response)
    return Finding(
        "short_budget",
        f"max_tokens is {budget:,}, and the {_BUDGET_PERCENTILE}th percentile of the training responses "
        f"{wanted:,} tokens (end of turn included): "
        f"{counted(n_long, len(lengths.response), 'responses')} would not fit",
        evaluation=asked.evaluation.name,
    )


def answer_format(asked: Asked, trained: Trained) -> Finding | None:
    """A benchmark whose grader finds an answer in none of the traces that their teacher ended by itself.

    A grader that fails on a trace says neither yes nor no; how often it did stands in the finding.
    """
    n_ended, n_failed, first, failure = 0, 0, None, ""
    for trace in (one for one in trained.traces if one.finish_reason == "stop"):
        first, n_ended = first or trace, n_ended + 1
        try:
            if asked.grader.extract(trace.answer, trace.problem) is not None:
                return None
        except Exception as error:  # as in `outcomes.decide`: a grader may fail in any way, and this is only a warning
            failure, n_failed = failure or f"{trace.source}: {type(error).__name__}: {error}", n_failed + 1
    if first is None:
        return None
    text = (
        f"none of {n_ended:,} {trained.unit} that their teacher ended by itself holds an answer as the grader "
        f"{asked.grader.name!r} looks for it, the first: {first.source}"
    )
    if failure:
        text += f"\nThe grader failed on {n_failed:,} of them, the first: {harmless(failure)}"
    shown = f"its answer ends: {excerpt(first.answer, len(first.answer), 120)}"
    return Finding("answer_format", text, shown, asked.evaluation.name)


def one_sided_system(maker: PromptMaker, asked: Asked, trained: Trained, n_training: int) -> Finding | None:
    """A system prompt that stands on one side only.

    One side is all conversations with a system message of their own, the other all without one, and the renderer
    makes other tokens of it (a message that says what the template says by default makes the same). So a template's
    default that fills in on one side is found too. A renderer with a `system` option gives every conversation one:
    then there is nothing to find, and neither is there where both sides have their own and say different things.

    Args:
        maker: Makes prompts.
        asked: The evaluation.
        trained: The training rows.
        n_training: How many of these have a system message.
    """
    if getattr(maker.renderer.options, "system", None) is not None:
        return None
    evaluation = [problem.messages for problem in asked.problems]
    first, n_rows = next(iter(trained.traces), None), len(trained.traces)
    if first is None or not evaluation:
        return None
    n_evaluation = sum(map(_has_system, evaluation))
    if (n_training, n_evaluation) not in {(n_rows, 0), (0, len(evaluation))}:
        return None
    training = first.problem.messages
    if not _is_seen(maker, training if n_training else evaluation[0]):
        return None
    with_one, without = f"all {n_rows:,} {trained.unit}", f"none of {len(evaluation):,} prompts of the benchmark"
    if not n_training:
        with_one, without = (
            f"all {len(evaluation):,} prompts of the benchmark",
            f"none of {n_rows:,} {trained.unit}",
        )
    text = f"{with_one} bring a system prompt, and {without}; the first row: {first.source}"
    return Finding("one_sided_system", text, _both(maker, training, evaluation[0]), asked.evaluation.name)


def _has_system(messages: Sequence[Message]) -> bool:
    return bool(messages) and messages[0].role == "system"


def _is_seen(maker: PromptMaker, messages: Sequence[Message]) -> bool:
    """Whether a conversation's system message changes its tokens."""
    if len(messages) == 1:
        return True
    whole, without = maker.prompt(messages, "auto"), maker.prompt(messages[1:], "auto")
    if isinstance(whole, StageError) or isinstance(without, StageError):
        return isinstance(without, StageError) and isinstance(whole, Prompt)
    return not same_ids(without, whole.input_ids)


def _both(maker: PromptMaker, training: Sequence[Message], evaluation: Sequence[Message]) -> str:
    """How the first conversation of each side begins."""
    left, right = maker.prompt(training, "auto"), maker.prompt(evaluation, "auto")
    if isinstance(left, StageError) or isinstance(right, StageError):
        return ""
    return compared(
        maker.renderer.tokenizer,
        Side("training", left.input_ids),
        Side("evaluation", right.input_ids),
        first_difference(left.input_ids, right.input_ids),
    )
