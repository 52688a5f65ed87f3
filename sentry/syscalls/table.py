"""All system calls: importing this module fills the table of registry.py."""

from __future__ import annotations

import importlib
import pkgutil

import sentry.syscalls as package

HELPERS = frozenset({"args", "compat", "index", "late", "registry", "show", "table", "types"})
"""Modules of the room that declare no calls."""

for _module in pkgutil.iter_modules(package.__path__):
    if _module.name not in HELPERS:
        importlib.import_module(f"{package.__name__}.{_module.name}")
