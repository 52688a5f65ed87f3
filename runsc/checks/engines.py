"""Which engines there are, and whether they know of this runtime."""

from __future__ import annotations

import os
import shutil

from runsc.checks.findings import Finding, good, note
from runsc.engines.change import read
from runsc.engines.registry import ENGINES
from runsc.engines.settings import Engine, SettingsError


def engines() -> list[Finding]:
    """A finding for each that is there; one if there is none."""
    there = [each for each in ENGINES.values() if any(map(shutil.which, each.programs))]
    found = [known(engine, engine.file()) for engine in there]
    return found or [good("engines", "none; bundles are run with `runsc run`")]


def known(engine: Engine, path: str) -> Finding:
    """What its file says."""
    install = f"`runsc install --engine {engine.name}` tells it"
    try:
        runtimes = engine.runtimes(read(path))
    except SettingsError as error:
        text = str(error) if path in str(error) else f"{path}: {error}"
        return note(engine.name, f"there; {text}", "mend the file, then " + install)
    except OSError as error:
        reason = (error.strerror or "").lower()
        return note(engine.name, f"there; {path} cannot be read: {reason}", "look as root")
    ours = {name: it for name, it in runtimes.items() if "runsc" in os.path.basename(it)}
    if not ours:
        return note(engine.name, f"there; {path} has no runsc", install)
    for name, program in ours.items():
        if not os.access(program, os.X_OK):
            what = f"{path}: runtime {name} is {program}, which cannot be run"
            return note(engine.name, what, f"`runsc install --engine {engine.name}` mends it")
    return good(engine.name, f"knows {', '.join(f'{n} ({p})' for n, p in ours.items())}")

