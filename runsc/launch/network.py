"""The network process: it makes sockets for the Sentry, which may not.

It is in the network namespace that the bundle asks for: the caller's, one with a path, or a new
one with nothing but a loopback interface. It makes TCP, UDP and ping sockets, binds them to
privileged ports if the container may, lists interfaces, and says when they have changed; where the
Sentry has a stack of its own it gives it packet sockets, and connections of others in the
namespace. It sees no data. It ends with the Sentry: when the other end of its socket closes.
"""

from __future__ import annotations

import array
import errno
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import msgspec

from runsc import filters, host
from runsc.launch import isolation, landlock, loopback
from runsc.launch.boot import Terms
from runsc.launch.frozen import freeze_imports
from runsc.launch.isolation import NAMESPACES
from runsc.launch.local_ports import FAMILIES, LocalPorts, at, open_to_all
from runsc.launch.title import set_title
from runsc.oci.convert import Container
from sentry.abi import netlink as abi
from sentry.abi.capability import CAP_NET_BIND_SERVICE
from sentry.abi.sched import CLONE_NEWNET
from sentry.net.host import protocol
from sentry.net.interfaces import LOOPBACK_INDEX

if TYPE_CHECKING:
    from runsc.launch.packet_sockets import Pool

OPEN_FILES = 4096
"""It has some ten. But so many may be on their way to somebody, of all processes of its user: the
network processes and Gofers of other sandboxes are such (unix(7), ETOOMANYREFS)."""
DUMPS = {
    abi.RTM_GETLINK: abi.IFINFOMSG.size,
    abi.RTM_GETADDR: abi.IFADDRMSG.size,
    abi.RTM_GETROUTE: abi.RTMSG.size,
}
"""What is listed, and the size of a request without wishes."""
NEIGHBOURS = {abi.RTM_GETNEIGH: abi.NDMSG.size}
"""Also for who has the interfaces' packets: neighbours that an administrator has set."""
GROUPS = (
    abi.RTNLGRP_LINK, abi.RTNLGRP_IPV4_IFADDR, abi.RTNLGRP_IPV6_IFADDR, abi.RTNLGRP_IPV4_ROUTE,
    abi.RTNLGRP_IPV6_ROUTE,
)  # fmt: skip


class Network(msgspec.Struct, frozen=True):
    """What the process is given."""

    container_id: str
    namespace_fd: int = -1
    """A network namespace to join."""
    own_namespace: bool = False
    """A new one, with a loopback interface."""
    privileged_ports: bool = False
    """The container may have CAP_NET_BIND_SERVICE."""
    log_fd: int = 2
    uplinks: bool = False
    """The Sentry has a stack of its own there: it gets frames, and the host's stack is silenced."""
    names_only: bool = False
    """It has one elsewhere: nameservers are asked here, and nothing else."""


def prepare(
    container: Container,
    container_id: str,
    log_fd: int,
    stand_in_pid: int,
    *,
    uplinks: bool = False,
    names_only: bool = False,
) -> Network:
    """Where config.json names a network namespace, that of the container's stand-in; `names_only`:
    the caller's.

    An ordinary user's is in a user namespace of its own, as that of the network process: it gets
    another one, for nobody can plug anything into either.
    """
    if names_only:
        return Network(container_id, log_fd=log_fd, names_only=True)
    asked, own, fd = "network" in dict(container.namespaces), False, -1
    if asked and isolation.is_privileged():
        fd = os.open(f"/proc/{stand_in_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    else:
        own = asked
    return Network(container_id, fd, own, container.has_low_ports, log_fd, uplinks)


def spawn(network: Network, sock: int, switches: filters.Switches, terms: Terms) -> int:
    """Make the process; its pid. Raises: OSError."""
    kept = NAMESPACES if network.own_namespace else NAMESPACES & ~CLONE_NEWNET
    return isolation.spawn(lambda: network_main(network, sock, switches, terms), kept)


def network_main(network: Network, sock: int, switches: filters.Switches, terms: Terms) -> int:
    """The body of the process; gives its exit code."""
    tie = 0 if terms.outlives else signal.SIGKILL
    inherited = {sock, network.log_fd, network.namespace_fd, *terms.joins}
    isolation.enter(inherited - {-1}, tie)
    if terms.joins:
        from runsc.cgroups.cgroup import join  # noqa: PLC0415  who opened them has imported it

        join(terms.joins)
    set_title("runsc-network", network.container_id)
    os.dup2(network.log_fd, 2)
    if network.namespace_fd >= 0:
        host.setns(network.namespace_fd, CLONE_NEWNET)
        os.close(network.namespace_fd)
    if network.own_namespace:
        loopback.bring_up()
    uplinks, silencer, closers = [], None, None
    asks = network.uplinks or network.names_only
    if network.uplinks:
        from runsc.launch import packet_sockets, silence  # noqa: PLC0415  few need them
        from runsc.launch.closing import Closers  # noqa: PLC0415

        open_to_all()
        silence.keep_ports()
        silencer, uplinks = silence.silence(), packet_sockets.make()
    sentry = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=sock)
    program = filters.network_program(switches.trap, uplinks=asks, listens=network.uplinks)
    put_on = terms.label.prepare()
    isolation.leave_root(more=terms.label.mount_option)
    low_ports = network.privileged_ports and not network.uplinks  # there they are free for all
    kept = frozenset({CAP_NET_BIND_SERVICE}) if low_ports else frozenset()
    uid = 0 if kept else isolation.NOBODY
    isolation.drop_rights(isolation.Rights(uid, kept, OPEN_FILES), tie, put_on)
    netlink, watch = open_netlink(), Watch()  # they have the label of who made them
    landlock.restrict_network(protocol.NAMESERVER_PORT if asks else 0)
    if network.uplinks:
        closers = Closers(len(uplinks))
    isolation.limit_tasks(0)
    freeze_imports()
    filters.install(program, switches, network.log_fd)
    try:
        serve(sentry, netlink, watch, uplinks, names_only=network.names_only)
    finally:  # dropped open, they would be printed, and printing asks for their peers
        for each in (sentry, netlink, watch.sock):
            each.detach()
        slow = [each.detach() for each in (*uplinks, *filter(None, (silencer,)))]
    if closers is not None:
        closers.close(slow)
    return 0


def open_netlink() -> socket.socket:
    """To the network namespace that this process is in."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC)


class Watch:
    """Counts what changes in the namespace: rtnetlink(7) tells more, the lists say it anyway."""

    def __init__(self) -> None:
        self.sock = open_netlink()
        self.sock.bind((0, sum(1 << (group - 1) for group in GROUPS)))
        self.changes = 0
        self.is_told = True
        """The Sentry knows that its list is no longer true, or has none yet."""

    def look(self) -> None:
        """Take all notices; if some were lost, it was too many for the queue."""
        while True:
            try:
                self.sock.recv(1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            self.changes = (self.changes + 1) & protocol.CHANGES_MASK

    def tell(self, sentry: socket.socket) -> None:
        """Once after each list."""
        if not self.is_told:
            self.is_told = True
            send(sentry, protocol.CHANGED)


def serve(
    sentry: socket.socket, netlink: socket.socket, watch: Watch, uplinks: list[socket.socket],
    *, names_only: bool = False,
) -> None:  # fmt: skip
    """Answer until the other end has closed. The Sentry is not trusted: whatever it sends is
    answered, and nothing of it stays."""
    pool = _pool(uplinks)
    with ExitStack() as held:
        poll = select.poll()
        poll.register(sentry, select.POLLIN)
        poll.register(watch.sock, select.POLLIN)
        ports = LocalPorts(poll)
        held.callback(ports.close)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            for number, made in ports.accepted(ready):
                send(sentry, protocol.CAME, more=number, changes=watch.changes, fd=made)
                os.close(made)
            if watch.sock.fileno() in ready:
                watch.look()
                watch.tell(sentry)
            if sentry.fileno() not in ready:
                continue
            try:
                data, given, _, _ = socket.recv_fds(sentry, 4096, 1, socket.MSG_CMSG_CLOEXEC)
            except OSError:
                return
            made, number = -1, 0
            try:
                if names_only:
                    made = _nameserver(data)
                    if made < 0 and data:
                        raise OSError(errno.EACCES, "request")
                elif _is_list(data):
                    wanted = DUMPS | NEIGHBOURS if pool is not None else DUMPS
                    _list(sentry, netlink, watch, protocol.HEADER.unpack_from(data)[1], wanted)
                elif data and not (pool is not None and ports.asked(data)):
                    made = _nameserver(data) if pool is not None else -1
                    if made < 0:
                        made = _answer(data, given, pool)
            except OSError as error:
                number = error.errno or errno.EIO
            except (ValueError, OverflowError):  # an address that is none
                number = errno.EINVAL
            for fd in given:
                os.close(fd)
            send(sentry, number, changes=watch.changes, fd=made)
            if made >= 0 and not (pool is not None and pool.has(made)):
                os.close(made)
            if not data:
                return


def _pool(uplinks: list[socket.socket]) -> Pool | None:
    if not uplinks:
        return None
    from runsc.launch import packet_sockets  # noqa: PLC0415  who made them has imported it

    return packet_sockets.Pool(uplinks)


def send(
    sentry: socket.socket, number: int, body: bytes = b"", more: int = 0, changes: int = 0,
    fd: int = -1,
) -> None:  # fmt: skip
    """An answer; who has gone gets none, and a descriptor that cannot go now is ENFILE."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
    try:
        reply = protocol.REPLY.pack(number, more, changes) + body
        sentry.sendmsg([reply], rights, socket.MSG_NOSIGNAL)
    except OSError as error:
        if error.errno == errno.ETOOMANYREFS and rights and number != protocol.CAME:
            send(sentry, errno.ENFILE, changes=changes)


def _is_list(data: bytes) -> bool:
    size = protocol.HEADER.size
    return len(data) >= size and protocol.HEADER.unpack_from(data)[0] == protocol.LIST


def _list(
    sentry: socket.socket, netlink: socket.socket, watch: Watch, known: int, dumps: dict[int, int]
) -> None:
    """All but the last packet of the answer. Raises: OSError."""
    watch.look()
    changes, watch.is_told = watch.changes, False
    for kind, size in dumps.items():
        if kind == abi.RTM_GETLINK or known != changes:
            for part in dump(netlink, kind, size):
                send(sentry, 0, part, 1, changes)


def _answer(data: bytes, given: list[int], pool: Pool | None) -> int:
    """A socket or -1. Raises: OSError."""
    if len(data) < protocol.HEADER.size:
        raise OSError(errno.EINVAL, "short request")
    operation, a, b, c = protocol.HEADER.unpack_from(data)
    if operation == protocol.SOCKET and a in FAMILIES:
        flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        if (a, b, c) not in protocol.SOCKETS:
            raise OSError(errno.EPROTONOSUPPORT, "type or protocol")
        return socket.socket(a, b | flags, c).detach()
    if operation == protocol.BIND and len(given) == 1:
        _bind(given[0], data[protocol.HEADER.size :])
        return -1
    if operation == protocol.UPLINK and a > LOOPBACK_INDEX and pool is not None:
        return pool.lend(a)
    if operation == protocol.GIVE_BACK and pool is not None:
        pool.give_back(a)
        return -1
    raise OSError(errno.EINVAL, "request")


def _nameserver(data: bytes) -> int:
    """A socket to one, or -1 if that is not asked for. Raises: OSError."""
    if len(data) < protocol.HEADER.size:
        return -1
    operation, family, kind, _ = protocol.HEADER.unpack_from(data)
    if operation != protocol.NAMESERVER:
        return -1
    address = data[protocol.HEADER.size :]
    if family not in FAMILIES or kind not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        raise OSError(errno.EPROTONOSUPPORT, "family or type")
    if address[2:4] != protocol.NAMESERVER_PORT.to_bytes(2):
        raise OSError(errno.EACCES, "port")
    flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    sock = socket.socket(family, kind | flags)
    try:
        with suppress(BlockingIOError):
            at(address, family, sock.connect)
        return sock.detach()
    finally:
        sock.close()


def _bind(fd: int, address: bytes) -> None:
    family = int.from_bytes(address[:2], "little")
    sock = socket.socket(fileno=fd)
    try:
        if sock.family != family or family not in FAMILIES:
            raise OSError(errno.EAFNOSUPPORT, "family")
        at(address, family, sock.bind)
    finally:
        sock.detach()


def dump(netlink: socket.socket, kind: int, request_size: int) -> Iterator[bytes]:
    """All messages of a list, as they come: whole ones in each part."""
    size = abi.NLMSGHDR.size + request_size
    flags = abi.NLM_F_REQUEST | abi.NLM_F_DUMP
    netlink.sendto(abi.NLMSGHDR.pack(size, kind, flags, 1, 0) + bytes(request_size), (0, 0))
    while True:
        part = netlink.recv(1 << 16)
        yield part
        at = 0
        while at + abi.NLMSGHDR.size <= len(part):
            header = abi.NLMSGHDR.unpack(part[at : at + abi.NLMSGHDR.size])
            if header.nlmsg_type in (abi.NLMSG_DONE, abi.NLMSG_ERROR):
                return
            at += (max(header.nlmsg_len, abi.NLMSGHDR.size) + 3) & ~3
