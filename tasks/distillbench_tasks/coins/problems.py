"""Word problems about coins: a start, a few daily changes, how many are left? All numbers are 0 to 9."""

from __future__ import annotations

import random
from typing import Any

from distillbench_tasks.splits import Doc, datasets_of

NAMES = ("Tom", "Ana", "Ben", "Eva", "Sam", "Mia", "Leo", "Zoe")
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
N_TRAIN, N_TEST = 2000, 200
SIGN = {"add": "+", "take": "-"}


def draw(rng: random.Random) -> Doc:
    """Draws one problem: `{question, answer, start, steps: [{day, op, n}]}`."""
    name, start = rng.choice(NAMES), rng.randint(0, 9)
    total, steps = start, []
    for day in DAYS[: rng.randint(1, len(DAYS))]:
        op = "add" if total == 0 or (total < 9 and rng.random() < 0.5) else "take"
        n = rng.randint(1, 9 - total if op == "add" else total)
        steps.append({"day": day, "op": op, "n": n})
        total += n if op == "add" else -n
    changes = ", ".join(f"{step['day']} {step['op']} {step['n']}" for step in steps)
    question = f"{name} has {start} coins. {changes}. How many?"
    return {"question": question, "answer": str(total), "start": start, "steps": steps}


def sums(doc: Doc) -> list[tuple[str, str, int]]:
    """The solution's steps, such as `("Mon", "6-3=3", 3)`."""
    total, found = doc["start"], []
    for step in doc["steps"]:
        after = total + step["n"] if step["op"] == "add" else total - step["n"]
        found.append((step["day"], f"{total}{SIGN[step['op']]}{step['n']}={after}", after))
        total = after
    return found


def load(**metadata: Any) -> dict[str, Any]:
    """Both splits, for lm-eval's `custom_dataset`."""
    return datasets_of(draw, "coins", N_TRAIN, N_TEST)
