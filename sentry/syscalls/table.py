"""All system calls: importing this module fills the table of registry.py."""

from __future__ import annotations

import importlib
import pkgutil

import sentry.syscalls as package

for _area in pkgutil.iter_modules(package.__path__):
    if _area.ispkg:
        _name = f"{package.__name__}.{_area.name}"
        for _module in pkgutil.iter_modules(importlib.import_module(_name).__path__):
            importlib.import_module(f"{_name}.{_module.name}")
