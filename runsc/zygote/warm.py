"""What a zygote does before it forks: everything is imported, and stays as it is.

What both write to is copied (`runsc.launch.uncounted`), so references to what is there are not
counted. What a sandbox would import late is imported here: shared, it costs nothing.
"""

from __future__ import annotations

import gc
import importlib
import pkgutil
import sys
from array import array
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import repeat

import msgspec

from gofer.p9 import codec
from runsc import filters, host
from runsc.launch import early, isolation, programs
from runsc.launch.programs import Body
from runsc.launch.uncounted import count_no_more
from sentry.platform.memory import trim_heap
from sentry.syscalls import registry

ROOMS = ("runsc", "gofer", "sentry")
LEFT_OUT = programs.NEVER_LATE | {
    f"runsc.{name}"
    for name in (
        "api", "checks", "commands", "engines", "foreign", "providers", "pytest_plugin", "report"
    )
}  # fmt: skip
"""What no start needs, but for `ALSO`."""
ALSO = (
    "runsc.__main__",
    *(f"runsc.commands.{name}" for name in ("create", "do", "restore", "run")),
    *(f"runsc.api.{name}" for name in ("keeper", "document", "order")),
)
"""What a fork begins with; of the commands those that make a sandbox, of the API the process that
does."""
STEP, LARGEST, POOL, HEAD = 16, 512, 1 << 14, 48
"""Bytes: sizes of what CPython allocates in pools, such a pool, and what is at the head of one."""
MAX_TRIES = 16
PAGE, HUGE = 1 << 12, 1 << 21
MOST = 256
"""Of 512 pages."""
LARGEST_AREA = 1 << 30
"""Bytes: what is larger is no heap but reserved, as terabytes are by a sanitizer."""
EMPTY = sys.getsizeof(b"")
MAKERS: dict[int, Callable[[], object]] = {16: object, 32: float}
"""What takes so much; of larger ones bytes do."""


def prepared() -> Body:
    """The body of every Sentry. Preconditions: one thread; no module was changed meanwhile."""
    from sentry.boot.sandbox import preload  # noqa: PLC0415  only there

    preload(early.PLATFORM)
    for room in ROOMS:
        _import_below(room)
    for name in ALSO:
        importlib.import_module(name)
    body = programs.sentry(early.PLATFORM)  # when there is nothing left that it would map
    _know_structs(msgspec.Struct)
    _know_calls()
    codec.compile_all()
    for network in ("none", "host", "sandbox"):
        filters.sentry_program(early.PLATFORM, network)
    filters.gofer_program()
    for known in (False, True):
        filters.network_program(uplinks=known, listens=known)
        filters.forkable_program(is_sealed=known)
    gc.collect()
    trim_heap()
    held = _filled()
    host.fill_heap()
    count_no_more()
    del held
    isolation.freeze_heap()
    _collapse()
    return body


def _know_structs(of: type[msgspec.Struct]) -> None:
    """What msgspec finds out of a struct's annotations when it reads the first one: of those of a
    snapshot in 10 ms."""
    for each in of.__subclasses__():
        with suppress(TypeError, NameError, ValueError):  # nobody reads it
            msgspec.json.Decoder(each)
        _know_structs(each)


def _know_calls() -> None:
    """As after the first call of each."""
    for declaration in filter(None, registry.TABLE):
        registry.CALLS[declaration.number] = declaration.call


def _filled() -> list[object]:
    """Objects in all holes between others: what forks allocate has pages of its own then, and
    copies none of those. They stay, for they are immortal, too.

    A pool of Objects/obmalloc.c is begun only where no other one of that size has room, and filled
    upwards. With another allocator (PYTHONMALLOC) there is nothing to see.
    """
    held: list[object] = []
    for size in range(STEP, LARGEST + 1, STEP):
        make = MAKERS.get(size, partial(bytes, size - EMPTY))
        for _ in range(MAX_TRIES):
            made = [make() for _ in repeat(None, 2 * POOL // size)]
            held += made
            if _begins_pool([id(each) for each in made], size):
                break
    return held


def _begins_pool(places: list[int], size: int) -> bool:
    return any(
        place % POOL == HEAD and places[at + 1 : at + 3] == [place + size, place + 2 * size]
        for at, place in enumerate(places)
    )


def _collapse() -> None:
    """Huge pages, where most of one is there: fork(2) copies an entry for each page, and five forks
    make a container."""
    with open("/proc/self/maps", encoding="ascii", errors="replace") as file:
        lines = [line.split(maxsplit=5) for line in file]
    for place, rights, _, _, inode, *name in lines:
        if rights != "rw-p" or inode != "0" or (name and not name[0].startswith("[heap")):
            continue
        start, end = (int(each, 16) for each in place.split("-"))
        if end - start > LARGEST_AREA:
            continue
        for at in range(-(-start // HUGE) * HUGE, end - HUGE + 1, HUGE):
            if _present(at) >= MOST:
                with suppress(OSError):  # an older kernel, or no huge page to be had
                    host.collapse(at, HUGE)


def _present(start: int) -> int:
    """How many pages of a huge one are there: /proc/self/pagemap, bit 63."""
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        file.seek(start // PAGE * 8)
        return sum(entry >> 63 for entry in array("Q", file.read(HUGE // PAGE * 8)))


def _import_below(package: str) -> None:
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        name = found.name
        if name in LEFT_OUT or name.rpartition(".")[2].startswith(("_build", "__main__")):
            continue
        try:
            importlib.import_module(name)
        except ImportError:  # an extra that is not there
            continue
        if found.ispkg:
            _import_below(name)
