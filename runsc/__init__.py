"""The command line, the OCI runtime, the Python API: the host side."""

from __future__ import annotations

__version__ = "0.1.0"
