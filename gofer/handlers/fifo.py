"""FIFOs of the host: those alone are opened that are an attachment themselves."""

from __future__ import annotations

import errno
import os
import stat

from gofer._native import lib
from gofer.connection import Connection
from gofer.native import check, error
from gofer.p9.extensions import Rfifox, Tfifox
from gofer.replies import Donation, handles


@handles(Tfifox)
def open_fifo(conn: Connection, msg: Tfifox) -> Donation:
    """open(2) with O_NONBLOCK. The name was fixed before this process was confined.

    A reader need not have a writer, fifo(7); who wants to wait for one asks what is donated.
    Raises: ENXIO, to write what nobody reads; EOPNOTSUPP for what is no such attachment.
    """
    node = conn.fids.get(msg.fid).node
    name = node.attachment.opens
    if not name or node.parent is not None or not conn.donates:
        raise error(errno.EOPNOTSUPP)
    if msg.access not in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        raise error(errno.EINVAL)
    fd = check(lib.gofer_open_fifo(name, msg.access))
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        raise error(errno.ESTALE)
    return Donation(Rfifox(), (fd,))
