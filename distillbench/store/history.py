"""How long the stages of a store took, for estimates of others."""

from __future__ import annotations

from distillbench.plan.estimate import Past
from distillbench.store.store import Store

#: So many of the latest stages of a kind are looked at.
_MOST = 200


def history(store: Store, kind: str) -> list[Past]:
    """The latest stages of a kind that did something."""
    found = [Past(manifest["did"][0], manifest["did"][1], manifest["pace"]) for manifest in store.latest(kind, _MOST)]
    return [one for one in found if one.work > 0]
