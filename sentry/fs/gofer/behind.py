"""Names that are made and removed by records of the journal: what each operation writes.

Each function says whether it has: where it has not, because something is not known here, or only
the host can say whether it works, a message has to be sent, as where there is no journal. What the
Sentry knows of the names is told by who calls.

Fids are got first, and `Journal.open` asked then: what that sends has to be answered by then.
"""

from __future__ import annotations

from stat import S_IFREG
from typing import TYPE_CHECKING, Final

from gofer.p9.attributes import NO_XATTRS
from gofer.p9.attributes import Attributes as WireAttributes
from gofer.p9.constants import AT_REMOVEDIR, NOOPEN
from gofer.p9.extensions import Tlinkx, Trenamex, Twalkx
from gofer.p9.messages import Tunlinkat
from sentry.abi.fcntl import RENAME_EXCHANGE
from sentry.fs.gofer.directory_cache import DirectoryCache
from sentry.fs.gofer.inode import GoferInode
from sentry.fs.gofer.layers import copied, may_stay
from sentry.fs.gofer.regular import GoferRegular
from sentry.fs.gofer.told import Told, names_changed
from sentry.fs.gofer.wire import OVERFLOW_ID, from_spare, linked
from sentry.platform.records import NAME, REMOVAL

if TYPE_CHECKING:
    from gofer.p9.codec import Message
    from sentry.fs.gofer.directory import GoferDirectory
    from sentry.fs.gofer.journal import Journal
    from sentry.fs.gofer.spares import Spare
    from sentry.vfs.interface import Attributes, Inode, Owner

LINKS_MAX: Final = 30_000
"""Names or directories beyond which one asks: EMLINK begins at 32,000 (f2fs)."""


def journal_of(directory: GoferDirectory) -> Journal | None:
    """The journal, if something could be recorded of a directory."""
    fs = directory.sb
    journal = fs.journal
    if journal is None or directory.key[0] != journal.dev or not _is_open(directory, journal):
        return None
    return journal


def _is_open(directory: GoferDirectory, journal: Journal) -> bool:
    """The host certainly lets the Gofer change its names. In a user namespace it has no rights over
    what belongs to nobody there, and only the host knows what modes allow."""
    owner = directory.uid, directory.gid
    return OVERFLOW_ID not in owner or journal.accepts(*owner)


def makes_in(directory: GoferDirectory) -> Journal | None:
    """The same if names may be made there: what is made inherits nothing that is not known here."""
    journal = journal_of(directory)
    return journal if journal is not None and not directory.bequeaths() else None


def _is_empty(child: Inode) -> bool:
    """For sure."""
    return isinstance(child, DirectoryCache) and child.listing is not None and not child.listing


def create(
    directory: GoferDirectory, name: bytes, mode: int, owner: Owner
) -> GoferRegular | None:
    """A spare gets owner, mode and name. Not with set-id bits: writes before the record is done
    would not drop them; nor for an owner whom the host may refuse."""
    journal = makes_in(directory) if not mode & 0o6000 else None
    if journal is None:
        return None
    fid = directory.directory_fid()
    spare = journal.spares.take() if journal.open else None
    if spare is None:
        return None
    if not journal.accepts(owner.uid, owner.gid):
        journal.spares.give_back(spare)
        return None
    fs = directory.sb
    now = fs.now_ns()
    named = spare.fid, fid, name, len(name), mode, owner.uid, owner.gid, now
    moment = journal.moment()
    if not journal.put(NAME, named, 1, copied(directory)):
        journal.spares.give_back(spare)
        return None
    made = WireAttributes.unpack(spare.block)
    number = fs.numbering.ino(made.dev, made.ino)
    shown = from_spare(made, number, (S_IFREG | mode, owner.uid, owner.gid), now)
    inode = GoferRegular(fs, (made.dev, made.ino), shown)
    inode.take_lists(made.flags)
    inode.bare = made.flags & NO_XATTRS != 0
    fs.inodes.put_in(inode)
    inode.created(spare.fd)
    inode.recorded(journal)
    before = directory.known_attributes()
    journal.made_of(inode, spare, moment)
    directory.added(name, inode)
    journal.about(directory, inode, new=inode)
    names_changed(journal, directory, before, 0, now)
    journal.named()
    return inode


def unlink(directory: GoferDirectory, name: bytes, child: Inode) -> bool:
    """Of anything but a directory."""
    journal = journal_of(directory)
    if journal is None or not isinstance(child, GoferInode):
        return False
    return _remove(directory, journal, (name, child), 0)


def rmdir(directory: GoferDirectory, name: bytes, child: Inode) -> bool:
    """Of one that is certainly empty."""
    journal = journal_of(directory)
    if journal is None or not isinstance(child, DirectoryCache) or not _is_empty(child):
        return False
    return _remove(directory, journal, (name, child), AT_REMOVEDIR)


def _remove(
    directory: GoferDirectory, journal: Journal, what: tuple[bytes, GoferInode], flags: int
) -> bool:
    name, child = what
    fid = directory.directory_fid()
    if not journal.open:
        return False
    before = directory.known_attributes()
    known = child.attributes if _has_one_name(journal, child) else child.known_attributes()
    spare = _reverted(journal, child, known)
    lost = fid, name, child
    if spare is None and not _lose(journal, lost, known is not None, flags, copied(directory)):
        return False
    directory.removed(name)
    child.lost_name()
    journal.about(directory, child)
    now = directory.sb.now_ns()
    names_changed(journal, directory, before, -child.is_dir, now)
    if known is not None and (child.open_count or child.is_dir or not child.gone):
        child.recorded(journal)
        child.take(linked(known, child.attributes.nlink, known.mtime_ns, now))
    return True


def _has_one_name(journal: Journal, child: GoferInode) -> bool:
    """All that its removal has to know, as nobody has it open and it is no spare again: fstat(2)
    would tell more."""
    if not isinstance(child, GoferRegular) or child.open_count or child.in_use or child.apart:
        return False
    written = child.write_handle is not None and child.watches is None
    return written and child.attributes.nlink == 1 and not journal.is_fresh(child)


def _reverted(
    journal: Journal, child: GoferInode, known: Attributes | None
) -> Spare | None:
    """What a file was made of that vanishes before the Gofer has heard of it."""
    if known is None or not isinstance(child, GoferRegular) or not journal.is_fresh(child):
        return None
    if not child.is_idle(known):
        return None
    spare = journal.reverts(child)
    if spare is not None:
        journal.comes_back(spare, child.emptied())
    return spare


def rename(
    directory: GoferDirectory, names: tuple[bytes, bytes], new_dir: GoferDirectory,
    inodes: tuple[GoferInode, GoferInode | None], flags: int,
) -> bool:  # fmt: skip
    """Onto no name or one that is known, a directory only if it is certainly empty."""
    journal = journal_of(directory)
    (name, new_name), (child, other) = names, inodes
    if journal is None or other is child or journal_of(new_dir) is None:
        return False
    if new_dir is not directory and new_dir.bequeaths():  # perhaps EXDEV
        return False
    if not (new_dir.sb.inodes.on_own_device(child) and new_dir.knows(new_name)):
        return False
    exchanged = flags == RENAME_EXCHANGE
    if other is None:
        if exchanged:
            return False
    elif other.is_dir and not exchanged and not _is_empty(other):
        return False
    if child.is_dir and new_dir.attributes.nlink >= LINKS_MAX:
        return False
    if may_stay(child) or (exchanged and may_stay(other)):
        return False
    fid, to = directory.directory_fid(), new_dir.directory_fid()
    if not journal.open:
        return False
    request = Trenamex(fid, name, to, new_name, flags)
    room = copied(directory, new_dir, child, other if exchanged else None)
    lost = to, new_name, None if exchanged else other
    told = Told(journal, directory, new_dir, child, other)
    if not _lose(journal, lost, other is not None and told.knows(other), request, room):
        return False
    directory.renamed(names, new_dir, inodes, flags)
    more, less = int(child.is_dir), int(other is not None and other.is_dir)
    links: dict[GoferInode, int] = {directory: 0, new_dir: 0}
    links[directory] += (less if exchanged else 0) - more
    links[new_dir] += more - less
    told.stays(links)
    return True


def link(directory: GoferDirectory, name: bytes, target: GoferInode) -> bool:
    """Of something whose attributes are known."""
    journal = makes_in(directory)
    if journal is None or target.gone or not directory.sb.inodes.on_own_device(target):
        return False
    known = target.known_attributes()
    if known is None or known.nlink >= LINKS_MAX:
        return False
    to = directory.directory_fid()
    fid, old = target.reach()
    room = copied(directory, target)
    if not journal.open or not journal.record(Tlinkx(fid, old, to, name), copied=room):
        return False
    told = Told(journal, directory, target)
    target.take(known._replace(nlink=known.nlink + 1))
    target.changed()
    directory.added(name, target)
    told.stays({directory: 0})
    return True


def _lose(
    journal: Journal, what: tuple[int, bytes, GoferInode | None], is_known: bool,
    change: Message | int, room: int,
) -> bool:  # fmt: skip
    """Record what takes a name from a file, which keeps a fid if it is open. Of a directory nobody
    knows who is in it. `change`: the request, or the flags of a Tunlinkat."""
    fid, name, child = what
    if child is None:
        assert not isinstance(change, int)
        return journal.record(change, copied=room)
    if not child.is_dir and not is_known:  # is it its last one?
        return False
    if child.fid >= 0 or not (child.is_dir or (isinstance(child, GoferRegular) and child.in_use)):
        if isinstance(change, int):
            return journal.put(REMOVAL, (fid, name, len(name), change), 0, room)
        done = journal.record(change, copied=room)
    else:
        request = Tunlinkat(fid, name, change) if isinstance(change, int) else change
        session = child.sb.session
        bound = session.new_fid()
        done = journal.record(Twalkx(fid, bound, NOOPEN, 0, [name]), request, copied=room)
        if done:
            child.fid = bound
        else:
            session.free_fid(bound)
    return done
