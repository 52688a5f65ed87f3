"""`state` without the command line's framework: engines ask for it all the time.

Takes only command lines that are understood beyond doubt, and states without a surprise; all else
goes to runsc/commands/state.py, which prints the same and has the messages.
"""

from __future__ import annotations

import json
import os
import sys

from runsc import quick
from runsc.containers.names import check_id
from runsc.containers.processes import STOPPED, word_for
from runsc.errors import RuntimeFailure


def attempt(args: list[str]) -> int | None:
    """Print the state: 0; None if the command line has to do it, or to report."""
    try:
        words = iter(args)
        root = quick.root_before("state", words)
        container_id = check_id(next(words, ""))
        if next(words, None) is not None or os.stat(root).st_uid not in (os.geteuid(), 0):
            return None
        with open(os.path.join(root, container_id, "state.json"), "rb") as file:
            text = shown(json.load(file))
        sys.stdout.write(text)
        sys.stdout.flush()
    except (quick.Doubt, RuntimeFailure, OSError, ValueError, KeyError, TypeError):
        return None
    return 0


def shown(state: dict[str, object]) -> str:
    """runc's JSON. Raises: KeyError, TypeError."""
    creator = number(state.get("creatorPid", 0)), number(state.get("creatorStart", 0))
    sandbox = number(state.get("pid", 0)), number(state.get("pidStart", 0))
    word = word_for(
        str(state.get("phase", "creating")), creator, sandbox, bool(state.get("paused", False))
    )
    found = {
        "ociVersion": state["ociVersion"],
        "id": state["id"],
        "pid": 0 if word == STOPPED else sandbox[0],
        "status": word,
        "bundle": state["bundle"],
        "rootfs": state.get("rootfs", ""),
        "created": state.get("created", ""),
    }
    if state.get("annotations"):
        found["annotations"] = state["annotations"]
    found["owner"] = ""
    return json.dumps(found, indent=2, ensure_ascii=False)


def number(value: object) -> int:
    """An integer of the state. Raises: TypeError."""
    if not isinstance(value, int):
        raise TypeError(f"{value!r}")
    return value
