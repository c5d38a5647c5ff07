"""What an evaluation may not ask for, in the words that a user is told."""

from __future__ import annotations

from distillbench.errors import Mistake
from distillbench.matrix.choices import Layers
from distillbench.matrix.evaluation_options import DO_SAMPLE, SAMPLING, EvaluationOptions, last_given
from distillbench.matrix.sections import Entry
from distillbench.options import Given
from distillbench.tasks.identity import TaskSpec

#: What means something only where a completion is drawn.
_DRAWN = {*SAMPLING, "max_tokens", "stop", "seed", "until"}
#: The one grader that reads log-likelihoods.
_SCORING_GRADER = "lm_eval"


def budget_mistake(options: EvaluationOptions, spec: TaskSpec, layers: Layers) -> Mistake | None:
    """What is wrong with the budgets at which completions are cut."""
    given, most = last_given(layers, "budgets"), last_given(layers, "max_tokens")
    if given is None or not options.budgets:
        return None
    got = repr(list(options.budgets))
    if spec.output_type != "generate_until":
        return Mistake(given.place, "no `budgets` where nothing is generated", f"{got} with {spec.output_type!r}")
    if list(options.budgets) != sorted(set(options.budgets)):
        hint = f"write {sorted(set(options.budgets))}"
        return Mistake(given.place, "each budget once, the smallest first", got, hint)
    if options.budgets[-1] >= options.max_tokens:
        where = f" ({most.place})" if most else " (the default)"
        hint = "max_tokens is the budget of the generation itself and is always reported; name smaller ones"
        return Mistake(given.place, f"budgets below max_tokens {options.max_tokens}{where}", got, hint)
    return None


def scoring_mistake(options: EvaluationOptions, spec: TaskSpec, layers: Layers, entry: Entry) -> Mistake | None:
    """What an evaluation asks for in vain, because its task has given continuations scored and nothing generated.

    What only the defaults or the student say of sampling is meant for other evaluations, and passed over.
    """
    if spec.output_type == "generate_until":
        return None
    task = f"task {spec.name!r} ({spec.output_type})"
    repeats, grader = last_given(layers, "repeats"), last_given(layers, "grader")
    if repeats is not None and options.repeats > 1:
        hint = "log-likelihoods of given continuations are the same each time; write `repeats: 1` in this evaluation"
        return Mistake(repeats.place, f"one repeat of {task}", repr(options.repeats), hint)
    if grader is not None and options.grader != _SCORING_GRADER:
        hint = "leave `grader` out; other graders read text, and here are only log-likelihoods"
        return Mistake(grader.place, f"`grader: {_SCORING_GRADER}` for {task}", repr(options.grader), hint)
    for name in sorted(entry.options.keys() & _DRAWN):
        given, hint = entry.options[name], "leave it out: nothing is drawn, and no text is made"
        return Mistake(given.place, f"no `{name}` for {task}", repr(given.value), hint)
    return None


def do_sample_mistake(given: Given, temperature: Given | None) -> Mistake:
    """`do_sample` in a matrix: greedy or not is for the temperature to say, in one place."""
    wanted = "`temperature`, which alone says whether to sample"
    got = f"{DO_SAMPLE}: {str(given.value).lower() if isinstance(given.value, bool) else repr(given.value)}"
    warm = temperature.value if temperature and temperature.value else None
    if given.value is not False:
        return Mistake(given.place, wanted, got, "leave it out; `temperature: 0` is greedy, any above 0 samples")
    if warm is None or temperature is None:
        return Mistake(given.place, wanted, got, "leave it out; `temperature: 0` is greedy")
    got += f" with temperature {warm} ({temperature.place})"
    return Mistake(given.place, wanted, got, f"`temperature: 0` is greedy; leave do_sample out to sample at {warm}")
