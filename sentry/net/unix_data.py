"""How bytes and messages move between AF_UNIX sockets. net/unix/af_unix.c.

A stream is a queue of segments per direction; a datagram is one segment. Descriptors and
credentials travel with the segment they were sent with.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.poll import EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDNORM, EPOLLWRNORM
from sentry.abi.socket import (
    MSG_OOB,
    MSG_PEEK,
    MSG_TRUNC,
    SO_OOBINLINE,
    SO_PASSCRED,
    SO_PASSPIDFD,
    SO_PEEK_OFF,
    SOCK_DGRAM,
    SOCK_SEQPACKET,
    SOCK_STREAM,
)
from sentry.bpf import filter as filters
from sentry.errors import (
    EAGAIN,
    ECONNREFUSED,
    EFAULT,
    EINVAL,
    EMSGSIZE,
    ENOTCONN,
    EOPNOTSUPP,
    EPERM,
    EPIPE,
)
from sentry.net.message import Ancillary, Received
from sentry.net.socket_options import STAMPS
from sentry.net.stamps import stamps
from sentry.net.unix_address import format_address
from sentry.net.unix_flights import drop_files, flights
from sentry.net.unix_segment import OVERFLOW_ID, Segment, Ucred
from sentry.wait.again import NotNow

if TYPE_CHECKING:
    from sentry.net.unix import UnixSocket
    from sentry.vfs.file import Caller, Dest, Source

MAX_SEGMENT: Final = 65536
TELLING: Final = frozenset({SO_PASSCRED, SO_PASSPIDFD})
NOBODY: Final[Ucred] = (0, OVERFLOW_ID, OVERFLOW_ID)


def send(
    sock: UnixSocket,
    caller: Caller,
    source: Source,
    target: Any,
    flags: int,
    ancillary: Ancillary | None,
) -> int:
    """sendmsg(2) as one attempt."""
    if sock.kind == SOCK_SEQPACKET:
        sock.take_error()
        if not sock.connected:
            raise ENOTCONN("not connected")
    if flags & MSG_OOB and sock.kind != SOCK_STREAM:
        raise EOPNOTSUPP("out-of-band data")
    peer = target if target is not None else sock.peer
    if peer is None and sock.kind != SOCK_DGRAM and not sock.connected:
        raise ENOTCONN("not connected")
    if sock.write_shut:
        raise EPIPE("shut down")
    if peer is None:
        raise ENOTCONN("no destination")
    if sock.kind == SOCK_STREAM:
        return _send_stream(sock, caller, peer, source, flags, ancillary)
    return _send_packet(sock, caller, peer, source, ancillary)


def _creds(
    sock: UnixSocket, peer: UnixSocket, caller: Caller, ancillary: Ancillary | None
) -> Ucred | None:
    """unix_maybe_add_creds(): given, or those of the sender where an end wants them."""
    if ancillary is not None and ancillary.creds is not None:
        return ancillary.creds
    quiet = TELLING.isdisjoint(sock.options) and TELLING.isdisjoint(peer.options)
    if not quiet or peer.refs == 0:
        task: Any = caller
        return (task.group.tgid, caller.creds.uid, caller.creds.gid)
    return None


def _send_stream(
    sock: UnixSocket,
    caller: Caller,
    peer: UnixSocket,
    source: Source,
    flags: int,
    ancillary: Ancillary | None,
) -> int:
    creds = _creds(sock, peer, caller, ancillary)
    done = 0
    while source.count:
        if sock.sent_charge >= sock.sndbuf:
            if done:
                return done
            raise EAGAIN("buffer is full")
        size = min(source.count, sock.sndbuf // 2 - 64, MAX_SEGMENT)
        if flags & MSG_OOB and size == source.count and size > 1:
            size -= 1
        try:
            data = source.get(size)
        except (EFAULT, NotNow):  # from its start the call would send the others again
            if done:
                return done
            raise
        segment = Segment(data, sock, creds, ancillary if not done else None)
        segment.urgent = bool(flags & MSG_OOB) and not source.count
        _deliver(sock, peer, segment)
        done += size
    return done


def _send_packet(
    sock: UnixSocket,
    caller: Caller,
    peer: UnixSocket,
    source: Source,
    ancillary: Ancillary | None,
) -> int:
    size = source.count
    if size > sock.sndbuf - 32:
        raise EMSGSIZE(f"{size} bytes")
    sock.take_error()
    if peer.gone:
        if sock.kind == SOCK_DGRAM and peer is sock.peer:
            sock.turn_to(None)
        raise ECONNREFUSED("the other end is closed")
    elsewhere = peer.peer is not None and peer.peer is not sock
    if sock.kind == SOCK_DGRAM and elsewhere and not sock.is_outside:
        raise EPERM("it is connected elsewhere")
    if peer.read_shut:
        raise EPIPE("the other end does not read")
    full = sock.sent_charge >= sock.sndbuf
    crowded = (
        sock.kind == SOCK_DGRAM and peer.peer is not sock and peer is not sock and peer.is_full
    )
    if full or crowded:
        if crowded and peer is sock.peer:
            sock.hear_of_place(peer)
        raise EAGAIN("queue is full")
    if sock.options & TELLING and sock.name is None:
        sock.autobind()
    creds = _creds(sock, peer, caller, ancillary)
    data = source.get(size)
    if peer.filter is not None:
        data = data[: peer.filter.run(filters.Packet(bytes(data)))]
        if not data:
            raise EPERM("filtered") if sock.kind == SOCK_DGRAM else EAGAIN("filtered")
    segment = Segment(data, sock, creds, ancillary)
    if peer.options & STAMPS:
        segment.stamp_ns = time.time_ns()
    _deliver(sock, peer, segment)
    return size


def _deliver(sock: UnixSocket, peer: UnixSocket, segment: Segment) -> None:
    sock.sent_charge += segment.charge
    peer.segments.append(segment)
    peer.queued += len(segment.data)
    if segment.ancillary is not None:
        segment.ancillary.sent = True
        if segment.files:
            flights(sock.stack).begin(segment.files)
    if segment.urgent:
        peer.urgent = segment
        peer.urge()
        peer.queue.notify(EPOLLPRI | EPOLLIN | EPOLLRDNORM)
        return
    peer.queue.notify(EPOLLIN | EPOLLRDNORM)


# --- receiving


def receive(sock: UnixSocket, dest: Dest, flags: int) -> Received:
    """recvmsg(2) as one attempt."""
    if sock.kind == SOCK_SEQPACKET and not sock.connected:
        raise ENOTCONN("no peer")
    if flags & MSG_OOB:
        return _receive_urgent(sock, dest, flags)
    if sock.kind == SOCK_STREAM and not sock.connected:
        raise EINVAL("not connected")
    if sock.kind == SOCK_STREAM:
        return _receive_stream(sock, dest, flags)
    return _receive_packet(sock, dest, flags)


def _nothing(sock: UnixSocket) -> Received:
    if sock.so_error:
        sock.take_error()
    if sock.read_shut and sock.kind != SOCK_DGRAM:
        return Received(0)
    raise EAGAIN("nothing there")


def _receive_urgent(sock: UnixSocket, dest: Dest, flags: int) -> Received:
    """unix_stream_recv_urg()."""
    if sock.kind != SOCK_STREAM:
        raise EOPNOTSUPP("out-of-band data")
    segment = sock.urgent
    if SO_OOBINLINE in sock.options or segment is None:
        raise EINVAL("no urgent data")
    if dest.count:
        dest.put(segment.data)
    if not flags & MSG_PEEK:
        sock.urgent = None
        if segment in sock.segments:
            sock.segments.remove(segment)
            _consumed(sock, segment)
    return Received(1, flags=MSG_OOB)


def _receive_packet(sock: UnixSocket, dest: Dest, flags: int) -> Received:
    sock.take_error()
    peek = bool(flags & MSG_PEEK)
    skip = max(sock.numbers[SO_PEEK_OFF], 0) if peek else 0
    segment = None
    for candidate in sock.segments:
        if skip < len(candidate.data) or not skip:
            segment = candidate
            break
        skip -= len(candidate.data)
    if segment is None:
        return _nothing(sock)
    data = segment.data[skip:] if skip else segment.data
    taken = min(len(data), dest.count)
    try:
        dest.put(data[:taken])
    except EFAULT:
        if not peek:  # it is lost, as in Linux
            discard(sock, segment)
        raise
    out = MSG_TRUNC if taken < len(data) else 0
    carried = _carried(sock, segment)
    if sock.options & STAMPS:
        carried = carried or Ancillary()
        carried.records = stamps(sock, segment.stamp_ns or time.time_ns())
    result = Received(len(data) if flags & MSG_TRUNC else taken, address_of(segment), out, carried)
    if peek:
        result.ancillary = _shared(sock, result.ancillary)
        if sock.numbers[SO_PEEK_OFF] >= 0:
            sock.numbers[SO_PEEK_OFF] += taken
        return result
    sock.segments.popleft()
    _forget_files(sock, segment)
    _consumed(sock, segment)
    if sock.numbers[SO_PEEK_OFF] > 0:
        sock.numbers[SO_PEEK_OFF] = max(0, sock.numbers[SO_PEEK_OFF] - len(data))
    return result


def _receive_stream(sock: UnixSocket, dest: Dest, flags: int) -> Received:
    segments = sock.segments
    if not segments:
        return _nothing(sock)
    if _is_plain(sock, segments[0], dest, flags):
        return _receive_plain(sock, segments[0], dest)
    peek = bool(flags & MSG_PEEK)
    skip = max(sock.numbers[SO_PEEK_OFF], 0) if peek else 0
    telling = bool(sock.options & TELLING)
    result, creds = Received(0), None
    for segment in list(segments):
        if segment.urgent and segment is sock.urgent and SO_OOBINLINE not in sock.options:
            if result.count:
                break  # a read stops at the mark
            if not peek:  # nobody asked for the byte in time
                sock.urgent = None
                sock.segments.remove(segment)
                _consumed(sock, segment)
            continue
        if segment.urgent and result.count:
            break
        if skip >= len(segment.data):
            skip -= len(segment.data)
            continue
        if telling and result.count and segment.creds != creds:
            break
        part = segment.data[skip : skip + dest.count]
        skip = 0
        try:
            dest.put(part)
        except (EFAULT, NotNow):
            if result.count:
                break
            raise
        result.count += len(part)
        if not result.address:
            result.address = address_of(segment)
        creds = segment.creds
        if telling or segment.files:
            found = _carried(sock, segment)
            if found is not None and (result.ancillary is None or found.files):
                result.ancillary = found
        if not peek:
            _take(sock, segment, len(part))
        if not dest.count or (result.ancillary is not None and result.ancillary.files):
            break
    if not result.count and (dest.count or not segments):
        return _nothing(sock)
    if peek:
        result.ancillary = _shared(sock, result.ancillary)
        if sock.numbers[SO_PEEK_OFF] >= 0:
            sock.numbers[SO_PEEK_OFF] += result.count
    elif sock.numbers[SO_PEEK_OFF] > 0:
        sock.numbers[SO_PEEK_OFF] = max(0, sock.numbers[SO_PEEK_OFF] - result.count)
    return result


def _is_plain(sock: UnixSocket, segment: Segment, dest: Dest, flags: int) -> bool:
    """The first segment is all that this receive takes, and nothing is told beside its bytes."""
    return (
        not flags & MSG_PEEK
        and not segment.urgent
        and segment.ancillary is None
        and (len(sock.segments) == 1 or len(segment.data) >= dest.count)
        and dest.count > 0
        and TELLING.isdisjoint(sock.options)
        and sock.numbers[SO_PEEK_OFF] <= 0
    )


def _receive_plain(sock: UnixSocket, segment: Segment, dest: Dest) -> Received:
    data = segment.data
    if len(data) > dest.count:
        data = data[: dest.count]
        dest.put(data)
        _take(sock, segment, len(data))
    else:
        dest.put(data)
        sock.segments.popleft()
        _consumed(sock, segment)
    return Received(len(data), address_of(segment))


def _take(sock: UnixSocket, segment: Segment, size: int) -> None:
    """Bytes of the first segments are read; its descriptors went with the first of them."""
    _forget_files(sock, segment)
    if size < len(segment.data):
        segment.data = segment.data[size:]
        sock.queued -= size
        return
    if segment is sock.urgent:
        sock.urgent = None
    sock.segments.remove(segment)
    _consumed(sock, segment)


def _carried(sock: UnixSocket, segment: Segment) -> Ancillary | None:
    """What the receiver is told: descriptors, and credentials if it asked for them."""
    files = list(segment.files)
    creds = (segment.creds or NOBODY) if SO_PASSCRED in sock.options else None
    pid = (segment.creds or NOBODY)[0] if SO_PASSPIDFD in sock.options else None
    if not files and creds is None and pid is None:
        return None
    return Ancillary(files, creds, pid=pid)


def _shared(sock: UnixSocket, ancillary: Ancillary | None) -> Ancillary | None:
    """A peek gives the receiver its own uses of the descriptors."""
    if ancillary is not None and ancillary.files:
        for file in ancillary.files:
            file.incref()
        flights(sock.stack).touch(ancillary.files)
    return ancillary


def address_of(segment: Segment) -> bytes:
    """The sender's name, or nothing."""
    return format_address(segment.sender.name) if segment.sender.name is not None else b""


def _forget_files(sock: UnixSocket, segment: Segment) -> None:
    """The receiver has the descriptors now."""
    if segment.ancillary is not None:
        if segment.files:
            flights(sock.stack).end(segment.files)
        segment.ancillary = None


def _consumed(sock: UnixSocket, segment: Segment) -> None:
    sock.queued -= len(segment.data)
    sender = segment.sender
    sender.sent_charge -= segment.charge
    sender.queue.notify(EPOLLOUT | EPOLLWRNORM)
    if sock.kind == SOCK_DGRAM and not sock.is_full:
        sock.room.notify(EPOLLOUT)


def discard(sock: UnixSocket, segment: Segment) -> None:
    """Throw a segment away, with the descriptors that nobody received."""
    sock.segments.remove(segment)
    if segment.files:
        flights(sock.stack).end(segment.files)
    _consumed(sock, segment)
    drop_files(sock.stack, segment.ancillary)
