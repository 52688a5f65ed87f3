"""What a journal has made and removed again by the time that it is carried out: it is never made.

Names are compared, whatever the directory: fids of one directory may be several, and a name that
is used twice in one batch is the exception. What is taken back by the fid (Trevertx) is left
out in any case: the fid is used again.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence

from gofer.p9.codec import Message
from gofer.p9.constants import AT_REMOVEDIR
from gofer.p9.extensions import Tlinkx, Tmakex, Tnamex, Trevertx, Twalkx
from gofer.p9.messages import Tclunk, Tunlinkat

Batch = Sequence[tuple[int, Message]]
_NAMES = ("name", "newname", "oldname")


def without_vanished(batch: Batch) -> Batch:
    """The same without each link or making whose name is removed again, nothing of that name being
    mentioned between, and without the removal."""
    made: dict[bytes, tuple[int, int, int]] = {}
    """Name → the fid of its directory, where it is made, and the flags that its removal has."""
    gone = _reverted(batch)
    unused: dict[int, Tclunk] = {}
    """In place of a Tnamex: what is never named is given back all the same."""
    for at, (_, request) in enumerate(batch):
        if at in gone:
            continue
        if isinstance(request, Tunlinkat):
            begun = made.pop(request.name, None)
            if begun is not None and (begun[0], begun[2]) == (request.dirfd, request.flags):
                gone.update((begun[1], at))
                beginning = batch[begun[1]][1]
                if isinstance(beginning, Tnamex):
                    unused[begun[1]] = Tclunk(beginning.fid)
            continue
        for name in _mentioned(request):
            made.pop(name, None)
        if isinstance(request, Tlinkx | Tnamex):
            made[request.newname] = request.newdirfid, at, 0
        elif isinstance(request, Tmakex):
            is_directory = stat.S_ISDIR(request.mode)
            made[request.name] = request.fid, at, AT_REMOVEDIR if is_directory else 0
        elif isinstance(request, Tclunk | Twalkx):
            other = request.fid if isinstance(request, Tclunk) else request.newfid
            for name in [name for name, (fid, *_) in made.items() if fid == other]:
                del made[name]
    if not gone:
        return batch
    return [
        (each[0], unused[at]) if at in unused else each
        for at, each in enumerate(batch) if at in unused or at not in gone
    ]  # fmt: skip


def _reverted(batch: Batch) -> set[int]:
    """Each Trevertx, and the Tnamex that it is about."""
    gone: set[int] = set()
    named: dict[int, int] = {}
    for at, (_, request) in enumerate(batch):
        if isinstance(request, Tnamex):
            named[request.fid] = at
        elif isinstance(request, Trevertx):
            gone.add(at)
            if request.fid in named:
                gone.add(named.pop(request.fid))
    return gone


def _mentioned(request: Message) -> Iterable[bytes]:
    if isinstance(request, Twalkx):
        return request.names
    return [getattr(request, name) for name in _NAMES if name in request.fields]
