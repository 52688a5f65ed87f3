"""`Collector`: when Python looks for garbage, such that no look takes long.

Nearly all that the kernel makes goes with its last reference; what is left are cycles, and to find
those all objects have to be looked at, in one step. So the young ones are looked at in small lots,
and all of them only as long as they are few. Where a program has made many (a million files take
half a second), what is old is looked at when memory runs out (`own_memory.py`) and not before.
"""

from __future__ import annotations

import gc
import sys
from typing import Any, Final

FEW_BLOCKS: Final = 80_000
"""Of the allocator, more than at the start: about 40,000 objects, and 5 ms."""
LOTS: Final = (5_000, 1)
"""gc.set_threshold: new objects of a look, and looks until they are looked at together."""
FULL: Final = 30
"""So many of these, and all objects are looked at, also if the programs never rest."""
NEVER: Final = 1 << 30


class Collector:
    """From the start of the programs on; what is there by then is out of its sight."""

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()
        self._most = sys.getallocatedblocks() + FEW_BLOCKS
        self._adjust()
        gc.callbacks.append(self._looked)

    def stop(self) -> None:
        """Leave it to Python."""
        gc.callbacks.remove(self._looked)

    def rest(self) -> None:
        """Nothing runs: look at what is new, or at all if that is not much."""
        gc.collect(2 if self._adjust() else 1)

    def _adjust(self) -> bool:
        """Whether there are few objects."""
        few = sys.getallocatedblocks() < self._most
        gc.set_threshold(*LOTS, FULL if few else NEVER)
        return few

    def _looked(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "stop" and info["generation"] == 1:
            self._adjust()
