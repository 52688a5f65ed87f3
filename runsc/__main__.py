"""python -m runsc."""

from __future__ import annotations

from runsc.cli import main

main()
