"""HumanEval+ and MBPP+: rows of EvalPlus' release files as documents."""

from __future__ import annotations

import json

from distillbench_tasks.data import Doc, Row


def adapt(row: Row) -> Doc:
    """One document. The inputs stay EvalPlus' own JSON, as text: their types differ from row to row."""
    return {
        "id": row["task_id"],
        "prompt": row["prompt"],
        "entry_point": row["entry_point"],
        "canonical_solution": row["canonical_solution"],
        "atol": float(row["atol"]),
        "base_input": json.dumps(row["base_input"]),
        "plus_input": json.dumps(row["plus_input"]),
    }
