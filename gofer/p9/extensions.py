"""The messages of `9P2000.L.runsc1`: fewer round trips, host attributes, donated descriptors.

Most take a fid and a name: they act on that child of the directory `fid`, or, when the name is
empty, on the fid itself. So a lookup or a change of attributes needs no fid of its own.
"""

from __future__ import annotations

from gofer.p9.codec import Message, message
from gofer.p9.fields import I64, U8, U32, U64, AttrBlock, AttrBlocks, Data, Fids, Names, Str


@message(200)
class Twalkx(Message):
    """Walk, read attributes and open in one message.

    `newfid` may be NOFID: nothing is bound. `flags` are Linux open flags, or NOOPEN. With `donate`
    a regular file's descriptor comes with the reply (if it cannot, the fid is opened instead); with
    DONATE_IF_REGULAR and no `newfid`, what is no regular file is only looked up.
    """

    fid: U32
    newfid: U32
    flags: U32
    donate: U8
    names: Names


@message(201)
class Rwalkx(Message):
    """Attributes of each component walked, or of `fid` when there were no names.

    `error` is the errno that ended the walk or the open early (0: all done, newfid is bound).
    `target` is the text of the symbolic link that the last component is, else empty.
    """

    error: U32
    opened: U8
    target: Str
    blocks: AttrBlocks


@message(202)
class Tcreatex(Message):
    """open(2) with O_CREAT of `name` in the directory `fid`; O_EXCL is honoured.

    The owner is set only if the file was made here.
    """

    fid: U32
    newfid: U32
    name: Str
    flags: U32
    donate: U8
    mode: U32
    uid: U32
    gid: U32


@message(203)
class Rcreatex(Message):
    opened: U8
    created: U8
    block: AttrBlock


@message(204)
class Tmakex(Message):
    """mkdir, mknod (fifo, socket, regular file) or symlink, by the type in `mode`.

    `time_ns`: when it was made, for a record that comes later; 0: now.
    """

    fid: U32
    name: Str
    target: Str
    mode: U32
    uid: U32
    gid: U32
    time_ns: I64


@message(205)
class Rmakex(Message):
    block: AttrBlock


@message(206)
class Treaddirx(Message):
    fid: U32
    offset: U64
    count: U32


@message(207)
class Rreaddirx(Message):
    """`data` is a sequence of attributes[96] offset[8] name[s], without `.` and `..`.

    No links: the host refuses the attributes of this name; known are its type and number.
    """

    data: Data


@message(208)
class Trenamex(Message):
    """renameat2(2) with its flags RENAME_NOREPLACE and RENAME_EXCHANGE."""

    olddirfid: U32
    oldname: Str
    newdirfid: U32
    newname: Str
    flags: U32


@message(209)
class Rrenamex(Message):
    pass


@message(210)
class Tdupx(Message):
    """Duplicate this session, with its fids, onto a new socket, which comes with the reply."""


@message(211)
class Rdupx(Message):
    pass


@message(212)
class Tsetattrx(Message):
    """Tsetattr on a fid or a child, times in nanoseconds, with the new attributes in the reply."""

    fid: U32
    name: Str
    valid: U32
    mode: U32
    uid: U32
    gid: U32
    size: U64
    atime_ns: I64
    mtime_ns: I64


@message(213)
class Rsetattrx(Message):
    block: AttrBlock


@message(214)
class Tgetxattrx(Message):
    """Value of the attribute `attr`, or the list of names (NUL-terminated) if it is empty."""

    fid: U32
    name: Str
    attr: Str


@message(215)
class Rgetxattrx(Message):
    data: Data


@message(216)
class Tsetxattrx(Message):
    """setxattr(2); XATTR_CREATE and XATTR_REPLACE in `flags`."""

    fid: U32
    name: Str
    attr: Str
    flags: U32
    value: Data


@message(217)
class Rsetxattrx(Message):
    pass


@message(218)
class Tremovexattrx(Message):
    fid: U32
    name: Str
    attr: Str


@message(219)
class Rremovexattrx(Message):
    pass


@message(220)
class Tlinkx(Message):
    """link(2): `name` in `fid` becomes also `newname` in `newdirfid`."""

    fid: U32
    name: Str
    newdirfid: U32
    newname: Str


@message(221)
class Rlinkx(Message):
    block: AttrBlock


@message(222)
class Tnotifyx(Message):
    """The queue of what the host changes, an inotify descriptor, which comes with the reply.

    There is one in a server, for the first session that asks.
    """


@message(223)
class Rnotifyx(Message):
    pass


@message(224)
class Twatchx(Message):
    """Watch a file of any kind but a regular one, where others may change it.

    Events: attributes changed; of a directory also names made, removed, moved, and attributes of
    its entries.
    """

    fid: U32
    name: Str


@message(225)
class Rwatchx(Message):
    """The number that events have, and the attributes since it is watched."""

    number: U32
    block: AttrBlock


@message(226)
class Tunwatchx(Message):
    number: U32


@message(227)
class Runwatchx(Message):
    pass


@message(228)
class Tconnectx(Message):
    """A socket of `kind`, connected to the socket `name` in `fid` (empty: the attachment of `fid`
    itself), with the reply.

    As this user, with these groups (32 bits each, little-endian).
    """

    fid: U32
    name: Str
    kind: U32
    uid: U32
    gid: U32
    groups: Data


@message(229)
class Rconnectx(Message):
    pass


@message(230)
class Tfifox(Message):
    """The FIFO that the attachment of `fid` is, opened to read, write or both, with the reply."""

    fid: U32
    access: U32


@message(231)
class Rfifox(Message):
    pass


@message(232)
class Tjournalx(Message):
    """The journal of this session (`gofer.p9.journal`), whose memory comes with the reply.

    There is one in a server, for the first session that asks. Records in it are carried out before
    any message that is sent later, but for Tsparex, and all of them when the session ends, however
    it ends. They are requests of these kinds: Tmakex, Tlinkx, Trenamex, Tunlinkat, Tsetattrx,
    Tsetxattrx, Tremovexattrx, Tclunk, and Twalkx that binds a fid and opens nothing. Replies there
    are none.
    """


@message(233)
class Rjournalx(Message):
    """The size of its ring in bytes."""

    capacity: U64


@message(234)
class Tdrainx(Message):
    """Carry out what the journal holds. `fid`: whose file system's room is to be told."""

    fid: U32


@message(235)
class Rdrainx(Message):
    """`position` has been reached. Since the last one: `failures`, position[8] errno[4] of records
    that were refused, and `lost`, how many more there were; `made`, position[8] st_dev[8] st_ino[8]
    of what Tmakex records made. `room`: for so many changes there certainly is some
    (`gofer.p9.room`)."""

    position: U64
    failures: Data
    lost: U32
    made: Data
    room: U64


@message(236)
class Tsparex(Message):
    """New regular files without a name (O_TMPFILE) on the file system of the directory `fid`.

    Each of `newfids` is bound to one, and their descriptors, to read and write, come with the
    reply. What a journal holds is not done before, so they may not be fids that records in it end.
    Tnamex of such a fid gives it its name. EOPNOTSUPP: the host has none, or could not name
    it later.
    """

    fid: U32
    newfids: Fids


@message(237)
class Rsparex(Message):
    """Of the first of the fids; the others are not bound if there are fewer: what was wrong says
    another question. `room` as in Rdrainx. `together`: so many there may be, those that records
    have given a name being among them until these are done."""

    blocks: AttrBlocks
    room: U64
    together: U32


@message(238)
class Tsyncx(Message):
    """syncfs(2) of the file system that `fid` lies on, a regular file or a directory."""

    fid: U32


@message(239)
class Rsyncx(Message):
    pass


@message(240)
class Tbindx(Message):
    """A socket of `kind` with the new name `name` in the directory `fid`, with the reply.

    It has this mode and owner. `newfid` stands for both until it is clunked: Tlistenx.
    """

    fid: U32
    newfid: U32
    name: Str
    kind: U32
    mode: U32
    uid: U32
    gid: U32


@message(241)
class Rbindx(Message):
    block: AttrBlock


@message(242)
class Tlistenx(Message):
    """listen(2) of a socket of Tbindx, as this user with these groups (as of Tconnectx)."""

    fid: U32
    backlog: U32
    uid: U32
    gid: U32
    groups: Data


@message(243)
class Rlistenx(Message):
    pass


@message(244)
class Tinheritx(Message):
    """What is made in the directory `fid` inherits something that it would not in the root of its
    attachment."""

    fid: U32


@message(245)
class Rinheritx(Message):
    """`differs` unless it is the same project, and neither has a default ACL."""

    differs: U8


@message(246)
class Tnamex(Message):
    """Give the file of `fid`, one of Tsparex, an owner, a mode and a name in the directory
    `newdirfid`, and those of its times that are older than `time_ns` that one. All of it or no
    name; what has the name already, and is no directory, loses it. The fid is clunked, whether or
    not that works, but EINVAL: it is none of Tsparex."""

    fid: U32
    newdirfid: U32
    newname: Str
    mode: U32
    uid: U32
    gid: U32
    time_ns: I64


@message(247)
class Rnamex(Message):
    pass


@message(248)
class Trevertx(Message):
    """A Tnamex of this fid that was recorded before, and has not been carried out, is not to be. In
    a journal alone."""

    fid: U32


@message(250)
class Thearx(Message):
    """What others have changed below the root of an exclusive attachment, `fid`.

    The first one of a session is answered at once: from then on each directory that a Twalkx binds
    a fid to is heard of. Those that follow are answered when there is something to tell. One
    session of a server hears, one request at a time (else EBUSY); EOPNOTSUPP: the host does not
    tell.
    """

    fid: U32


@message(251)
class Rhearx(Message):
    """`heard`: st_dev[8] st_ino[8] what[1] name[s] of directories, and what has changed there: the
    name (HEARD_NAME), or attributes or contents of the file (HEARD_FILE; "." is the directory).
    `lost`: anything may have changed."""

    lost: U8
    heard: Data


@message(252)
class Tioctlx(Message):
    """ioctl(2) of an open device. `data` is what the request's number says that is read; of a
    number that says nothing `argument` is all there is. Only devices that a client's owner serves
    (runsc/fs) know it."""

    fid: U32
    request: U32
    argument: U64
    data: Data


@message(253)
class Rioctlx(Message):
    """`data`: what is written where the argument points to, no more than the request's number
    says."""

    result: U32
    data: Data


@message(254)
class Tpollx(Message):
    """What poll(2) says of an open device, POLL* bits: answered when it is something else than
    `known`."""

    fid: U32
    known: U32


@message(255)
class Rpollx(Message):
    events: U32


@message(198)
class Tnearx(Message):
    """The client waits for the replies of this session on this CPU (as sched_getcpu(3) tells it);
    NOCPU: it goes on meanwhile.

    The server may run there: no other CPU has to be woken.
    """

    cpu: U32


@message(199)
class Rnearx(Message):
    """It is known."""
