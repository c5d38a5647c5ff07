"""lm-eval's own command line with one more model: `scripted`, which answers from a file, prompt by prompt.

Run as `python scripted_lm_eval.py COMPLETIONS.json --model scripted ...`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model


@register_model("scripted")
class Scripted(LM):
    """Answers each prompt with the completion that the file has for it."""

    completions: dict[str, str]

    def __init__(self, **options: Any) -> None:
        super().__init__()

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        return [self.completions[request.args[0]] for request in requests]

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
        raise NotImplementedError


if __name__ == "__main__":
    Scripted.completions = json.loads(Path(sys.argv.pop(1)).read_text(encoding="utf-8"))
    cli_evaluate()
