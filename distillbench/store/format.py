"""How a folder says that it is a store, and of which format."""

from __future__ import annotations

import json
from pathlib import Path

from distillbench.errors import StoreError

FORMAT_FILE = "store.json"
#: 2: manifests are sealed, and hold the digest of every file beside them.
STORE_FORMAT = 3
_WANTED = json.dumps({"format": STORE_FORMAT})


def refuse_other_folder(root: Path) -> None:
    """Refuses a folder that is no store of this format; one that is empty or not there may become one.

    Raises:
        StoreError: It holds other files, or another format.
        OSError: It cannot be read.
    """
    path = root / FORMAT_FILE
    if not path.exists():
        if root.is_dir() and any(root.iterdir()):
            raise StoreError(
                f"{root} is no store of distillbench: it holds other files, and no {FORMAT_FILE}\n"
                f"    wanted: a folder of its own, which is made where it is not there, because `distillbench gc` "
                f"deletes in it\n    hint:   --store DIR, or DISTILLBENCH_STORE; a store that has lost the "
                f"file gets it back with {_WANTED} in it"
            )
        return
    try:
        found = json.loads(path.read_bytes())["format"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreError(
            f"{path} is damaged\n    wanted: {_WANTED}\n    hint:   where this is a store, write that into it: every "
            f"result in it has digests of its own; else --store DIR"
        ) from error
    if found != STORE_FORMAT:
        raise StoreError(
            f"{path}: wanted store format {STORE_FORMAT}, got {found}\n    use another folder: --store DIR; a store of "
            f"another version of distillbench is not read"
        )
