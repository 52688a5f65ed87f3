"""The host's own stack in a container's network namespace, silenced: ours has its addresses.

Tables of nftables that drop what comes in by any interface but the loopback, before anything would
answer; packet sockets have seen it by then. They belong to a netlink socket (NFT_TABLE_F_OWNER,
Linux 5.12) and go with it, however its process ends. What still gets through: answers of
neighbours, and advertisements of routers, of which the host makes addresses and routes, which are
followed; and the ports from `FIRST_OF_HOST` on, from where resolvers of engines ask.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable
from typing import Final

from sentry.abi import netlink as abi
from sentry.abi import nftables as nft
from sentry.abi.socket import IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP
from sentry.net.host.protocol import FIRST_OF_HOST

PORTS: Final = "/proc/sys/net/ipv4/ip_local_port_range"
LAST_PORT: Final = 65535
CHAIN: Final = b"in\0"
PRIORITY: Final = -500
"""Before fragments are put together for connection tracking (-400)."""
NESTED: Final = 0x8000
LOOPBACK: Final = struct.pack("=I", 1)
ROUTER_ADVERTISEMENT, NEIGHBOUR_ADVERTISEMENT = b"\x86", b"\x88"
ARP_OPERATION_AT: Final = 6
ARP_REPLY: Final = b"\0\x02"


def why_not() -> str:
    """What keeps this process from doing so: empty, or a reason. Nothing is changed.

    It asks in the network namespace that it is in, which may be another's than the one to come.
    """
    kind = nft.NFNL_SUBSYS_NFTABLES << 8 | nft.NFT_MSG_GETGEN
    try:
        with _open() as sock:
            sock.send(_message(kind, abi.NLM_F_ACK, 0, 0))
            _await_answers(sock, 1)
    except OSError as error:
        return f"nftables of the host: {os.strerror(error.errno or errno.EIO).lower()}"
    return "" if os.access(PORTS, os.W_OK) else f"{PORTS} cannot be written to"


def keep_ports() -> None:
    """Sockets of the host in this namespace get the ports that are theirs. Raises: OSError."""
    fd = os.open(PORTS, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d %d" % (FIRST_OF_HOST, LAST_PORT))
    finally:
        os.close(fd)


def silence() -> socket.socket:
    """Drop what comes into this network namespace, until this socket is closed.

    Raises: OSError, where the host has no nftables.
    """
    sock = _open()
    try:
        _make(sock, nft.NFPROTO_INET, nft.NF_INET_PRE_ROUTING, list(_rules()))
        try:
            _make(sock, nft.NFPROTO_ARP, nft.NF_ARP_IN, [_arp_replies()])
        except OSError as error:  # the host answers as well, which does no harm
            if error.errno not in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.ENOENT):
                raise
    except BaseException:
        sock.close()
        raise
    return sock


def _open() -> socket.socket:
    flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    return socket.socket(socket.AF_NETLINK, flags, abi.NETLINK_NETFILTER)


def _rules() -> Iterable[bytes]:
    yield _meta(nft.NFT_META_IIF) + _equals(LOOPBACK) + _accept()
    for kind in (ROUTER_ADVERTISEMENT, NEIGHBOUR_ADVERTISEMENT):
        yield _protocol(IPPROTO_ICMPV6) + _transport(0, 1) + _equals(kind) + _accept()
    for protocol in (IPPROTO_TCP, IPPROTO_UDP):
        yield _protocol(protocol) + _transport(2, 2) + _from(FIRST_OF_HOST) + _accept()


def _arp_replies() -> bytes:
    base = nft.NFT_PAYLOAD_NETWORK_HEADER
    return _payload(base, ARP_OPERATION_AT, len(ARP_REPLY)) + _equals(ARP_REPLY) + _accept()


def _own_name() -> bytes:
    """Of a table: another may be going just now, with who made it."""
    return b"runsc-" + os.urandom(4).hex().encode() + b"\0"


def _make(sock: socket.socket, family: int, hook: int, rules: list[bytes]) -> None:
    """A table with one chain. Raises: OSError."""
    name = _own_name()
    place = _nested(
        nft.NFTA_CHAIN_HOOK,
        _number(nft.NFTA_HOOK_HOOKNUM, hook) + _number(nft.NFTA_HOOK_PRIORITY, PRIORITY),
    )
    table = _attribute(nft.NFTA_TABLE_NAME, name)
    table += _number(nft.NFTA_TABLE_FLAGS, nft.NFT_TABLE_F_OWNER)
    chain = _attribute(nft.NFTA_CHAIN_TABLE, name) + _attribute(nft.NFTA_CHAIN_NAME, CHAIN) + place
    chain += _number(nft.NFTA_CHAIN_POLICY, nft.NF_DROP)
    chain += _attribute(nft.NFTA_CHAIN_TYPE, b"filter\0")
    where = _attribute(nft.NFTA_RULE_TABLE, name) + _attribute(nft.NFTA_RULE_CHAIN, CHAIN)
    bodies = [(nft.NFT_MSG_NEWTABLE, abi.NLM_F_EXCL, table), (nft.NFT_MSG_NEWCHAIN, 0, chain)]
    bodies += [
        (nft.NFT_MSG_NEWRULE, abi.NLM_F_APPEND, where + _nested(nft.NFTA_RULE_EXPRESSIONS, rule))
        for rule in rules
    ]
    batch = _message(nft.NFNL_MSG_BATCH_BEGIN, 0, 0, nft.NFNL_SUBSYS_NFTABLES)
    for kind, flags, body in bodies:
        number = nft.NFNL_SUBSYS_NFTABLES << 8 | kind
        batch += _message(number, flags | abi.NLM_F_CREATE | abi.NLM_F_ACK, family, 0, body)
    batch += _message(nft.NFNL_MSG_BATCH_END, 0, 0, nft.NFNL_SUBSYS_NFTABLES)
    sock.send(batch)
    _await_answers(sock, len(bodies))


def _await_answers(sock: socket.socket, count: int) -> None:
    while count > 0:
        data, at = sock.recv(1 << 16), 0
        while at + abi.NLMSGHDR.size <= len(data):
            header = abi.NLMSGHDR.unpack(data[at : at + abi.NLMSGHDR.size])
            if header.nlmsg_type == abi.NLMSG_ERROR:
                number = -int.from_bytes(data[at + abi.NLMSGHDR.size :][:4], "little", signed=True)
                if number:
                    raise OSError(number, f"nftables: {os.strerror(number)}")
                count -= 1
            at += (max(header.nlmsg_len, abi.NLMSGHDR.size) + 3) & ~3


def _message(kind: int, flags: int, family: int, subsystem: int, body: bytes = b"") -> bytes:
    payload = struct.pack("<BB", family, 0) + struct.pack(">H", subsystem) + body
    flags |= abi.NLM_F_REQUEST
    return abi.NLMSGHDR.pack(abi.NLMSGHDR.size + len(payload), kind, flags, 0, 0) + payload


def _attribute(kind: int, body: bytes) -> bytes:
    return struct.pack("<HH", 4 + len(body), kind) + body + bytes(-len(body) % 4)


def _nested(kind: int, body: bytes) -> bytes:
    return _attribute(kind | NESTED, body)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack(">i", value))


def _expression(name: bytes, data: bytes) -> bytes:
    body = _attribute(nft.NFTA_EXPR_NAME, name + b"\0") + _nested(nft.NFTA_EXPR_DATA, data)
    return _nested(nft.NFTA_LIST_ELEM, body)


def _meta(key: int) -> bytes:
    register = _number(nft.NFTA_META_DREG, nft.NFT_REG_1)
    return _expression(b"meta", register + _number(nft.NFTA_META_KEY, key))


def _payload(base: int, offset: int, size: int) -> bytes:
    return _expression(
        b"payload",
        _number(nft.NFTA_PAYLOAD_DREG, nft.NFT_REG_1)
        + _number(nft.NFTA_PAYLOAD_BASE, base)
        + _number(nft.NFTA_PAYLOAD_OFFSET, offset)
        + _number(nft.NFTA_PAYLOAD_LEN, size),
    )


def _equals(value: bytes) -> bytes:
    return _expression(
        b"cmp",
        _number(nft.NFTA_CMP_SREG, nft.NFT_REG_1)
        + _number(nft.NFTA_CMP_OP, nft.NFT_CMP_EQ)
        + _nested(nft.NFTA_CMP_DATA, _attribute(nft.NFTA_DATA_VALUE, value)),
    )


def _from(port: int) -> bytes:
    return _expression(
        b"range",
        _number(nft.NFTA_RANGE_SREG, nft.NFT_REG_1)
        + _number(nft.NFTA_RANGE_OP, nft.NFT_RANGE_EQ)
        + _nested(
            nft.NFTA_RANGE_FROM_DATA, _attribute(nft.NFTA_DATA_VALUE, struct.pack(">H", port))
        )
        + _nested(
            nft.NFTA_RANGE_TO_DATA, _attribute(nft.NFTA_DATA_VALUE, struct.pack(">H", LAST_PORT))
        ),
    )


def _protocol(number: int) -> bytes:
    return _meta(nft.NFT_META_L4PROTO) + _equals(bytes([number]))


def _transport(offset: int, size: int) -> bytes:
    return _payload(nft.NFT_PAYLOAD_TRANSPORT_HEADER, offset, size)


def _accept() -> bytes:
    verdict = _nested(nft.NFTA_DATA_VERDICT, _number(nft.NFTA_VERDICT_CODE, nft.NF_ACCEPT))
    register = _number(nft.NFTA_IMMEDIATE_DREG, nft.NFT_REG_VERDICT)
    return _expression(b"immediate", register + _nested(nft.NFTA_IMMEDIATE_DATA, verdict))
