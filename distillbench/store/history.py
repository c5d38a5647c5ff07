"""How long the stages of a store took, for estimates of others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from distillbench.plan.estimate import Past, whose
from distillbench.store.store import Store

#: So many of the latest stages of a kind are looked at.
_MOST = 200


def history(store: Store, kind: str) -> list[Past]:
    """The latest stages of a kind whose speed is known."""
    found = [_past(manifest, store) for manifest in store.latest(kind, _MOST)]
    return [one for one in found if one is not None and one.work > 0]


def _past(manifest: Mapping[str, Any], store: Store) -> Past | None:
    kind, facts = manifest["kind"], manifest["facts"]
    own = whose(kind, manifest["roles"])
    if kind == "train":
        steps = [one["step"] for one in facts["checkpoints"]]
        return Past(manifest["seconds"], max(steps, default=0), own)
    if kind == "sample":
        asked = json.loads(manifest["params"]["evaluation"])
        work = facts["generated"] * asked["sampling"]["max_tokens"]
        return Past(facts["seconds"], work, own, _is_cut(asked))
    if kind == "grade":
        sample = store.usable("sample", manifest["needs"]["sample"])
        if sample is None:
            return None
        is_cut = _is_cut(json.loads(sample["params"]["evaluation"]))
        return Past(manifest["seconds"], sum(facts["outcomes"].values()), own, is_cut)
    return Past(manifest["seconds"], 1, own)


def _is_cut(asked: Mapping[str, Any]) -> bool:
    """Whether a part of a benchmark was asked; `problems` is left out where none were named."""
    return asked["limit"] is not None or asked.get("problems") is not None
