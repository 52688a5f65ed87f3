"""The network process of `--network=host`: it makes sockets for the Sentry, which may not.

It is in the network namespace that the bundle asks for: the caller's, one with a path, or a new
one with nothing but a loopback interface. It makes TCP, UDP and ping sockets, binds them to
privileged ports if the container may, and lists interfaces; it sees no data. It ends with the
Sentry: when the other end of its socket closes.
"""

from __future__ import annotations

import array
import errno
import os
import signal
import socket
from contextlib import suppress

import msgspec

from runsc import filters, host
from runsc.launch import isolation, landlock
from runsc.launch.boot import Terms
from runsc.launch.frozen import freeze_imports
from runsc.launch.isolation import NAMESPACES
from runsc.oci.convert import Container
from sentry.abi import netlink as abi
from sentry.abi.capability import CAP_NET_BIND_SERVICE
from sentry.abi.sched import CLONE_NEWNET
from sentry.net.host import protocol

FAMILIES = (socket.AF_INET, socket.AF_INET6)
OPEN_FILES = 16
"""Its two sockets, the log, and what comes with a request and its answer."""
DUMPS = {
    abi.RTM_GETLINK: abi.IFINFOMSG.size,
    abi.RTM_GETADDR: abi.IFADDRMSG.size,
    abi.RTM_GETROUTE: abi.RTMSG.size,
}
"""What may be listed, and the size of a request without wishes."""


class Network(msgspec.Struct, frozen=True):
    """What the process is given."""

    namespace_fd: int = -1
    """A network namespace to join."""
    own_namespace: bool = False
    """A new one, with a loopback interface."""
    privileged_ports: bool = False
    """The container may have CAP_NET_BIND_SERVICE."""
    log_fd: int = 2


def prepare(container: Container, log_fd: int, stand_in_pid: int) -> Network:
    """Where config.json names a network namespace, that of the container's stand-in.

    An ordinary user's is in a user namespace of its own, as that of the network process: it gets
    another one, for nobody can plug anything into either.
    """
    asked, own, fd = "network" in dict(container.namespaces), False, -1
    if asked and isolation.is_privileged():
        fd = os.open(f"/proc/{stand_in_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    else:
        own = asked
    bounding = container.process.capabilities.bounding
    return Network(fd, own, bool(bounding >> CAP_NET_BIND_SERVICE & 1), log_fd)


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
    os.dup2(network.log_fd, 2)
    if network.namespace_fd >= 0:
        host.setns(network.namespace_fd, CLONE_NEWNET)
        os.close(network.namespace_fd)
    if network.own_namespace:
        isolation.bring_up_loopback()
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
    sentry = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=sock)
    program = filters.network_program(switches.trap)
    isolation.leave_root()
    kept = frozenset({CAP_NET_BIND_SERVICE}) if network.privileged_ports else frozenset()
    uid = 0 if kept else isolation.NOBODY
    isolation.drop_rights(isolation.Rights(uid, kept, OPEN_FILES), tie)
    isolation.limit_tasks(0)
    landlock.restrict_network()
    freeze_imports()
    filters.install(program, switches, network.log_fd)
    try:
        serve(sentry, netlink)
    finally:
        sentry.detach()  # dropped open, they would be printed, and printing asks for their peers
        netlink.detach()
    return 0


def serve(sentry: socket.socket, netlink: socket.socket) -> None:
    """Answer until the other end has closed. The Sentry is not trusted: whatever it sends is
    answered, and nothing of it stays."""
    while True:
        try:
            data, given, _, _ = socket.recv_fds(sentry, 4096, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return
        made = -1
        body = b""
        number = 0
        try:
            if data:
                made, body = _answer(data, given, netlink)
        except OSError as error:
            number = error.errno or errno.EIO
        except (ValueError, OverflowError):  # an address that is none
            number = errno.EINVAL
        for fd in given:
            os.close(fd)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made]))]
        with suppress(OSError):
            reply = protocol.REPLY.pack(number) + body
            sentry.sendmsg([reply], rights if made >= 0 else [], socket.MSG_NOSIGNAL)
        if made >= 0:
            os.close(made)
        if not data:
            return


def _answer(data: bytes, given: list[int], netlink: socket.socket) -> tuple[int, bytes]:
    """(a new socket or -1, what to say). Raises: OSError."""
    if len(data) < protocol.HEADER.size:
        raise OSError(errno.EINVAL, "short request")
    operation, a, b, c = protocol.HEADER.unpack_from(data)
    if operation == protocol.SOCKET and a in FAMILIES:
        flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        if b not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            raise OSError(errno.ESOCKTNOSUPPORT, "type")
        return socket.socket(a, b | flags, c).detach(), b""
    if operation == protocol.BIND and len(given) == 1:
        _bind(given[0], data[protocol.HEADER.size :])
        return -1, b""
    if operation == protocol.DUMP and a in DUMPS:
        return -1, _dump(netlink, a)
    raise OSError(errno.EINVAL, "request")


def _bind(fd: int, address: bytes) -> None:
    family = int.from_bytes(address[:2], "little")
    port = int.from_bytes(address[2:4], "big")
    sock = socket.socket(fileno=fd)
    try:
        if sock.family != family or family not in FAMILIES:
            raise OSError(errno.EAFNOSUPPORT, "family")
        if family == socket.AF_INET:
            sock.bind((socket.inet_ntop(family, address[4:8]), port))
            return
        flow, scope = int.from_bytes(address[4:8], "big"), int.from_bytes(address[24:28], "little")
        sock.bind((socket.inet_ntop(family, address[8:24]), port, flow, scope))
    finally:
        sock.detach()


def _dump(netlink: socket.socket, kind: int) -> bytes:
    """All messages of one answer, as many as a packet holds."""
    size = abi.NLMSGHDR.size + DUMPS[kind]
    flags = abi.NLM_F_REQUEST | abi.NLM_F_DUMP
    netlink.sendto(abi.NLMSGHDR.pack(size, kind, flags, 1, 0) + bytes(DUMPS[kind]), (0, 0))
    found = b""
    while True:
        part = netlink.recv(1 << 16)
        at = 0
        while at + abi.NLMSGHDR.size <= len(part):
            header = abi.NLMSGHDR.unpack(part[at : at + abi.NLMSGHDR.size])
            if header.nlmsg_type in (abi.NLMSG_DONE, abi.NLMSG_ERROR):
                return found
            whole = part[at : at + header.nlmsg_len]
            if len(found) + len(whole) < protocol.MAX_PACKET - 16:
                found += whole
            at += (header.nlmsg_len + 3) & ~3
