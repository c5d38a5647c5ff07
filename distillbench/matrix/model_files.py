"""What a model's small files say of it, read without transformers, which takes seconds."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillbench.errors import DistillbenchError
from distillbench.fingerprint import expanded
from distillbench.reasoning_formats import FORMATS, THINK, find_format

#: A token that other text of a tag may follow.
_CONTROL = re.compile(r"<\|[^<>]*>")
DTYPES = ("bfloat16", "float16", "float32")
CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model, as its files describe it.

    Attributes:
        name: Its folder, or its Hub id.
        dtype: The number format that its configuration names; `float32` where it names none.
        template: Its tokenizer's chat template; None where there is none.
        has_think_tokens: Whether its vocabulary has reasoning tags.
    """

    name: str
    dtype: str
    template: str | None
    has_think_tokens: bool

    @property
    def template_digest(self) -> str:
        """The name by which renderers know the chat template."""
        return hashlib.sha256((self.template or "").strip().encode()).hexdigest()[:16]


def read_model(model: str, revision: str | None = None) -> ModelFiles:
    """Looks at a folder, or at a Hub id's files in the cache or on the Hub.

    Args:
        model: The folder or the id.
        revision: A commit, tag or branch on the Hub.

    Raises:
        DistillbenchError: There is no model.
    """
    folder = expanded(model)
    files = _Files(folder.resolve() if folder.is_dir() else None, model, revision)
    config = files.json(CONFIG)
    if config is None:
        raise DistillbenchError(_not_a_model(model, folder, files.why))
    template, vocabulary = _template(files), files.text("tokenizer.json") or ""
    return ModelFiles(str(files.folder or model), _dtype(config), template, _has_tags(template or "", vocabulary))


def _has_tags(template: str, vocabulary: str) -> bool:
    """Whether what opens reasoning, in the format that the files show, is a token or begins with one."""
    known = {tag for one in FORMATS for tag in one.tags if f'"{tag}"' in vocabulary}
    opening = (find_format(template, known) or THINK).opening
    first = _CONTROL.match(opening)
    return opening in known or (first is not None and f'"{first[0]}"' in vocabulary)


def _dtype(config: Mapping[str, Any]) -> str:
    """The number format of the weights; a model of several parts names it in the part that writes text."""
    text = config.get("text_config")
    for part in (config, text if isinstance(text, Mapping) else {}):
        named = str(part.get("dtype") or part.get("torch_dtype") or "").removeprefix("torch.")
        if named in DTYPES:
            return named
    return "float32"


def _template(files: _Files) -> str | None:
    """The chat template, wherever a version of transformers has put it."""
    if (text := files.text("chat_template.jinja")) is not None:
        return text
    for name in ("tokenizer_config.json", "chat_template.json"):
        found = (files.json(name) or {}).get("chat_template")
        if isinstance(found, list):  # several, by name
            found = next((one.get("template") for one in found if one.get("name") == "default"), None)
        if isinstance(found, str):
            return found
    return None


class _Files:
    """The files of a folder, or of a repository on the Hub; `why` is what the Hub said of the last one it lacks."""

    def __init__(self, folder: Path | None, model: str, revision: str | None) -> None:
        self.folder = folder
        self.model = model
        self.revision = revision
        self.why = ""

    def json(self, name: str) -> dict[str, Any] | None:
        text = self.text(name)
        try:
            found = None if text is None else json.loads(text)
        except ValueError as error:
            raise DistillbenchError(f"--model {self.model}: its {name} is spoiled: {error}") from error
        return found if isinstance(found, dict) else None

    def text(self, name: str) -> str | None:
        path = self.folder / name if self.folder else self._from_hub(name)
        return path.read_text(encoding="utf-8") if path and path.is_file() else None

    def _from_hub(self, name: str) -> Path | None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

        try:
            return Path(hf_hub_download(self.model, name, revision=self.revision))
        except EntryNotFoundError as error:  # a file that is not there; one that cannot be had is another matter
            self.why = str(error)
            return None
        except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
            raise DistillbenchError(_not_a_model(self.model, Path(self.model), str(error))) from error


def _not_a_model(model: str, folder: Path, why: str) -> str:
    wanted = f"    wanted: a folder with {CONFIG}, weights and tokenizer, or the id of a model on the Hub\n"
    if not folder.is_dir():
        got = f"    got:    no such folder, and of that id on the Hub: {' '.join(why.split())}\n"
        return f"--model {model}\n{wanted}{got}    hint:   `hf download {model}` shows whether it can be had"
    adapter = folder / ADAPTER_CONFIG
    if not adapter.is_file():
        return f"--model {model}\n{wanted}    got:    a folder without {CONFIG}"
    return f"--model {model}\n{wanted}    got:    an adapter\n    hint:   {_how_to_give(adapter, model)}"


def _how_to_give(adapter: Path, model: str) -> str:
    return f"--model {_base_of(adapter) or 'ITS_BASE_MODEL'} --adapters {model}"


def _base_of(config: Path) -> str:
    """The model that an adapter was trained on, by its own account; empty where it gives none."""
    try:
        return str(json.loads(config.read_bytes())["base_model_name_or_path"] or "")
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def other_bases(model: str, folders: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """The adapters that name another model than the one they are to be evaluated on.

    Names are compared by their last part, because folders move. Such an adapter may be of Base where Instruct is asked,
    which has the same shapes, so that nothing else would notice.

    Args:
        model: A folder or a Hub id.
        folders: Each an adapter, or several in its subfolders.

    Yields:
        The adapter's folder, and the model that it names.
    """
    own = expanded(model).resolve().name if expanded(model).is_dir() else Path(model).name
    for folder in folders:
        for config in sorted({*folder.glob(ADAPTER_CONFIG), *folder.glob(f"*/{ADAPTER_CONFIG}")}):
            base = _base_of(config)
            if base and Path(base).name.lower() != own.lower():
                yield config.parent, base
