"""README.md of an exported checkpoint: a model card made from its results. No text of a model is put in."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillbench.records import Cell, Choice
from distillbench.report.evaluated import Evaluated, build_rows
from distillbench.report.results import Results
from distillbench.report.words import NOTHING, difference_text, number, quality, settings_text
from distillbench.report.writers.markdown import escape, table

_DIGITS = 3
#: The adapter ranks that vLLM can be told to make room for.
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True, slots=True)
class Exported:
    """What a card is about.

    Attributes:
        cell: The cell.
        step: The checkpoint's step.
        form: `adapter`, `merged` (an adapter merged into the base), or `full`.
        base: What the base model is loaded by: a Hub id or a folder.
        is_public: Whether others can load the base by that name.
        dtype: The number format it is evaluated in.
        rank: The adapter's; None for a full model.
        versions: Of the packages that it was trained with.
    """

    cell: Cell
    step: int
    form: str
    base: str
    is_public: bool
    dtype: str
    rank: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


def render_card(about: Exported, results: Results) -> str:
    """The card, in the markdown that model hubs read.

    Args:
        about: The checkpoint.
        results: Those of its cell and of the untouched student.

    Raises:
        ResultsError: Samples contradict one another.
    """
    title = f"# {escape(about.cell.name)}, step {about.step}"
    parts = [_front(about), title, _what(about), _results(about, results), _recipe(about), _versions(about)]
    return "\n\n".join([*(part for part in parts if part), _loading(about)]) + "\n"


def _front(about: Exported) -> str:
    base = [f"base_model: {json.dumps(about.base)}"] if about.is_public else []
    library = "peft" if about.form == "adapter" else "transformers"
    return "\n".join(["---", *base, f"library_name: {library}", "tags:", "- distillbench", "---"])


def _what(about: Exported) -> str:
    base = f"`{about.base}`" if about.is_public else f"the student {escape(about.cell.student.label)}"
    what = {
        "adapter": f"A LoRA adapter of {base}",
        "merged": f"{base}, with a LoRA adapter merged into its weights",
        "full": f"All weights of {base}, trained further",
    }[about.form]
    teacher = f", distilled from {escape(about.cell.teacher.label)}" if about.cell.teacher else ""
    return f"{what[0].upper()}{what[1:]}{teacher}."


def _results(about: Exported, results: Results) -> str:
    rows = [
        row
        for row in build_rows(results)
        if row.result.is_baseline or (row.result.cell, row.result.step) == (about.cell.name, about.step)
    ]
    if not any(not row.result.is_baseline for row in rows):
        return "## Results\n\nNo results of this checkpoint were in the store."
    headers = ["evaluation", "model", "n", "accuracy or mean score", "completion rate", "against the untouched model"]
    settings = dict.fromkeys(f"- {escape(row.result.evaluation)}: {escape(settings_text(row.result))}" for row in rows)
    merged = "\nThey were measured with the adapter beside its base, not with the merged weights.\n"
    return "\n".join(
        [
            "## Results",
            "",
            "Brackets hold 95 % intervals; accuracy counts every sample that was scored, also those without an answer.",
            *([merged] if about.form == "merged" else []),
            "",
            table(headers, [_row(row) for row in rows]),
            "",
            *settings,
        ]
    )


def _row(row: Evaluated) -> list[str]:
    return [
        escape(row.result.evaluation),
        "untouched" if row.result.is_baseline else "this one",
        str(row.summary.n),
        quality(row.summary, _DIGITS),
        number(row.summary.completion_rate, _DIGITS),
        NOTHING if row.result.is_baseline else difference_text(row.difference, _DIGITS),
    ]


def _recipe(about: Exported) -> str:
    cell = about.cell
    chosen = [("teacher", cell.teacher), ("student", cell.student), ("renderer", cell.renderer)]
    chosen += [("filter", choice) for choice in cell.filters]
    chosen += [("trainer", cell.trainer)]
    body = [line for role, choice in chosen if choice is not None for line in _choice(role, choice)]
    seed = [["seed", str(cell.seed)]] if cell.teacher else []
    return f"## Recipe\n\n{table(['what', 'value'], [*body, *seed])}"


def _choice(role: str, choice: Choice) -> Iterator[list[str]]:
    yield [role, escape(f"{choice.label} ({choice.component})")]
    for entry in dataclasses.fields(choice.options):
        value = getattr(choice.options, entry.name)
        if value is not None and value != ():
            yield [f"{role}.{entry.name}", escape(_text(value))]


def _text(value: Any) -> str:
    """An option's value; of a path its last part, because the rest is about somebody's machine."""
    if isinstance(value, Path):
        return value.name
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_text(entry) for entry in value)
    return str(value)


def _versions(about: Exported) -> str:
    if not about.versions:
        return ""
    listed = ", ".join(f"{name} {version}" for name, version in about.versions.items())
    return f"## Versions\n\n{escape(listed)}"


def _loading(about: Exported) -> str:
    base = about.base if about.is_public else "THE_BASE_MODEL"
    if about.form != "adapter":
        python = [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER", dtype="{about.dtype}")',
            'tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")',
        ]
        shell = f"vllm serve THIS_FOLDER --dtype {about.dtype}"
    else:
        python = [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'base = AutoModelForCausalLM.from_pretrained("{base}", dtype="{about.dtype}")',
            'model = PeftModel.from_pretrained(base, "THIS_FOLDER")',
            f'tokenizer = AutoTokenizer.from_pretrained("{base}")',
        ]
        room = next((rank for rank in _VLLM_RANKS if rank >= (about.rank or 0)), about.rank)
        shell = (
            f"vllm serve {base} --dtype {about.dtype} --enable-lora --max-lora-rank {room} "
            f"--lora-modules {about.cell.name}=THIS_FOLDER"
        )
    how = [*("```python", *python, "```"), "", *("```bash", shell, "```")]
    renderer = f"Prompts were written by the renderer {escape(about.cell.renderer.component)}."
    return "\n".join(["## How to load it", "", renderer, "", *how])
