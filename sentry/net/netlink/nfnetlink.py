"""NETLINK_NETFILTER: who asks netfilter, and batches of changes. net/netfilter/nfnetlink.c.

A batch is answered as a whole: each of its messages that was wrong, or wants to hear that it was
not. Others run beside a long one, and see nothing of it before its end.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

from sentry.abi import ipset
from sentry.abi import netlink as abi
from sentry.abi import nftables as nft
from sentry.abi.capability import CAP_NET_ADMIN
from sentry.errors import EINVAL, EMSGSIZE, EOPNOTSUPP, EPERM, EPROTONOSUPPORT, ERESTART, Errno
from sentry.net.netfilter.ip_sets import MOST_IN_STEP
from sentry.net.netfilter.machine import Attributes, number
from sentry.net.netfilter.transaction import Transaction
from sentry.net.netlink.message import HEADER, Reply, Request, message, u32
from sentry.net.netlink.nft_messages import generation_body
from sentry.net.netlink.nft_notices import Notices, listeners, tell
from sentry.net.netlink.socket import NetlinkSocket

if TYPE_CHECKING:
    from sentry.net.message import Received
    from sentry.net.netfilter.hooks import Netfilter
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller, Dest
    from sentry.vfs.location import Location
    from sentry.wait.lock import Lock
    from sentry.wait.steps import Steps

MAX_BATCH: Final = 1 << 19
"""Bytes of a batch."""
MAX_MESSAGES: Final = 4096
LONG: Final = 1 << 14
"""Bytes of a batch that is not one step."""
TABLES: Final = nft.NFNL_SUBSYS_NFTABLES << 8
CONNECTIONS: Final = (
    nft.NFNLGRP_CONNTRACK_NEW, nft.NFNLGRP_CONNTRACK_UPDATE, nft.NFNLGRP_CONNTRACK_DESTROY,
)  # fmt: skip
"""Groups that hear of followed connections."""
Get = Callable[["Asked"], Iterable[Reply]]
Change = Callable[["Asked", Transaction], None]
Wrong = tuple[bytes, int, int]
"""A message, its errno, or 0, and where in it something is wrong, or 0."""
GETS: Final[dict[int, dict[int, Get]]] = {
    nft.NFNL_SUBSYS_NFTABLES: {}, nft.NFNL_SUBSYS_NFT_COMPAT: {}, nft.NFNL_SUBSYS_CTNETLINK: {},
    nft.NFNL_SUBSYS_IPSET: {},
}  # fmt: skip
"""By subsystem and type of message: what is told, or done at once."""
CHANGES: Final[dict[int, dict[int, Change]]] = {nft.NFNL_SUBSYS_NFTABLES: {}}
"""And what is changed, in batches alone."""
Do = Callable[["Asked"], bool | None]
"""True: it has answered."""
DOES: Final[dict[int, dict[int, Do]]] = {
    nft.NFNL_SUBSYS_CTNETLINK: {}, nft.NFNL_SUBSYS_IPSET: {},
}  # fmt: skip
"""By subsystem and type: what is changed at once, whatever flags look like those of a dump."""
DUMPS: Final = frozenset(
    nft.NFNL_SUBSYS_IPSET << 8 | each for each in (ipset.IPSET_CMD_LIST, ipset.IPSET_CMD_SAVE)
)
"""What is told piece by piece, whatever flags say."""


class Asked:
    """A message about netfilter, with its struct nfgenmsg read."""

    __slots__ = ("attributes", "bad", "family", "flags", "kind", "netfilter", "request")

    def __init__(self, request: Request, netfilter: Netfilter) -> None:
        """Raises: EINVAL."""
        head = nft.NFGENMSG.unpack(request.fixed(nft.NFGENMSG.size))
        self.request = request
        self.kind = request.kind
        self.flags = request.flags
        self.family = head.nfgen_family
        self.attributes: Attributes = request.attributes(nft.NFGENMSG.size)
        self.netfilter = netfilter
        self.bad = 0
        """Where in the message the attribute stands with which something is wrong; 0: with none."""

    @contextmanager
    def about(self, kind: int, index: int = -1) -> Iterator[None]:
        """An error in here is about this attribute, or about an element of its list, unless it is
        about another one already: NL_SET_BAD_ATTR()."""
        try:
            yield
        except Errno:
            self.bad = self.bad or self._place_of(kind, index)
            raise

    def _place_of(self, kind: int, index: int) -> int:
        """Of an attribute, from the beginning of the message; 0: it is not there."""
        body, found, end = self.request.body, 0, 0
        for at, size, each in attribute_places(body, nft.NFGENMSG.size, len(body)):
            if each == kind:
                found, end = at, at + size
        if not found or index < 0:
            return found and HEADER + found
        inside = islice(attribute_places(body, found + 4, end), index, None)
        return next((HEADER + at for at, _, _ in inside), 0)

    @property
    def is_dump(self) -> bool:
        """All there are."""
        return bool(self.flags & abi.NLM_F_DUMP)

    def reply(self, kind: int, family: int, body: bytes) -> Reply:
        """A message of nftables, with the generation that it is of."""
        return TABLES | kind, self.head(family) + body

    def head(self, family: int) -> bytes:
        """struct nfgenmsg."""
        generation = self.netfilter.ruleset.generation & 0xFFFF
        return bytes([family, 0]) + generation.to_bytes(2)


def attribute_places(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Where attributes stand, their sizes, their types."""
    while at + 4 <= end:
        size, kind = struct.unpack_from("<HH", data, at)
        if size < 4 or at + size > end:
            return
        yield at, size, kind & abi.NLA_TYPE_MASK
        at += size + 3 & ~3


def asks(*kinds: int, subsystem: int = nft.NFNL_SUBSYS_NFTABLES) -> Callable[[Get], Get]:
    """Register who answers messages of these types."""

    def register(handler: Get) -> Get:
        GETS[subsystem].update((kind, handler) for kind in kinds)
        return handler

    return register


def does(kind: int) -> Callable[[Do], Do]:
    """Register who does at once what messages of a type say, subsystem and all."""

    def register(handler: Do) -> Do:
        DOES[kind >> 8][kind & 0xFF] = handler
        return handler

    return register


def changes(*kinds: int) -> Callable[[Change], Change]:
    """Register who does what messages of nftables of these types say."""

    def register(handler: Change) -> Change:
        CHANGES[nft.NFNL_SUBSYS_NFTABLES].update((kind, handler) for kind in kinds)
        return handler

    return register


def netfilter_of(stack: Stack) -> Netfilter:
    """That of a namespace, made when somebody first asks."""
    if stack.netfilter is None:
        from sentry.net.netfilter import hooks  # noqa: PLC0415  few programs ask

        stack.netfilter = hooks.Netfilter(stack)
    return cast("Netfilter", stack.netfilter)


class NetfilterSocket(NetlinkSocket):
    """An open socket of this protocol."""

    __slots__ = ()

    def set_groups(self, groups: set[int]) -> None:
        """Whose notices it gets. Raises: ENOMEM."""
        self.check_members(groups)
        is_member = not groups.isdisjoint(CONNECTIONS)
        was_member = self.stack.netfilter is not None and not self.groups.isdisjoint(CONNECTIONS)
        if is_member or was_member:
            from sentry.net.netlink.ctnetlink import Members  # noqa: PLC0415  which needs this

            table = netfilter_of(self.stack).conntrack
            Members.changed(table, self, is_member=is_member)
        super().set_groups(groups)

    def lock(self) -> Lock:
        """See `Netfilter.lock`."""
        return netfilter_of(self.stack).lock

    def _until_done(self, asked: Steps[None], sent: int) -> Steps[int]:
        try:
            return (yield from super()._until_done(asked, sent))
        finally:
            netfilter = netfilter_of(self.stack)
            while netfilter.gone:
                netfilter.drop_tables_of(netfilter.gone.pop())

    def try_receive(self, dest: Dest, flags: int) -> Received:
        """recvmsg(2): what goes on to be told is so."""
        if self._dump is not None:
            self.lock().check()
        return super().try_receive(dest, flags)

    def try_send(
        self, caller: Caller, source: Any, target: Any, flags: int, ancillary: Any
    ) -> int:
        """sendmsg(2). Raises: EMSGSIZE for more than fits into a step."""
        if source.count > MAX_BATCH:
            raise EMSGSIZE(f"{source.count} bytes")
        return super().try_send(caller, source, target, flags, ancillary)

    def _requests(self, caller: Caller, data: bytes) -> Steps[None]:
        """nfnetlink_rcv(): a batch is one piece."""
        if len(data) < HEADER:
            return
        head = abi.NLMSGHDR.unpack(data, 0)
        if head.nlmsg_len < HEADER or len(data) < head.nlmsg_len:
            return
        if not caller.creds.has_in(self.stack.owner, CAP_NET_ADMIN):
            self._acknowledge(data[: head.nlmsg_len], EPERM.number)
        elif head.nlmsg_type == nft.NFNL_MSG_BATCH_BEGIN:
            yield from self._batch(caller, data)
        else:
            netfilter_of(self.stack).ruleset.ip_sets.left = MOST_IN_STEP
            yield from super()._requests(caller, data)

    def _answer(self, request: Request) -> bool:
        """nfnetlink_rcv_msg(): one by itself."""
        if len(request.body) < nft.NFGENMSG.size:
            return False
        known = GETS.get(request.kind >> 8)
        if known is None:
            raise EOPNOTSUPP("subsystem")
        asked = Asked(request, netfilter_of(self.stack))
        doer = DOES.get(request.kind >> 8, {}).get(request.kind & 0xFF)
        if doer is not None:
            return bool(doer(asked))
        handler = known.get(request.kind & 0xFF)
        if handler is None:
            raise EINVAL("no such type, or not in a batch")
        if asked.is_dump or request.kind in DUMPS:
            return self._dump_or_busy(request, lambda: handler(asked))
        for kind, body in handler(asked):
            self.deliver(message(kind, 0, request.sequence, self.port, body), 0, 0)
        return False

    def dump_state(self, kind: int) -> int:
        """The generation of the rules."""
        if kind >> 8 != nft.NFNL_SUBSYS_NFTABLES:
            return 0
        return netfilter_of(self.stack).ruleset.generation

    # --- batches

    def _batch(self, caller: Caller, data: bytes) -> Steps[None]:
        """nfnetlink_rcv_batch()."""
        first = abi.NLMSGHDR.unpack(data, 0)
        begin = data[: first.nlmsg_len]
        body = begin[HEADER:]
        if len(body) < nft.NFGENMSG.size:
            self._acknowledge(begin, EINVAL.number)
            return
        if int.from_bytes(body[2:4]) != nft.NFNL_SUBSYS_NFTABLES:
            self._acknowledge(begin, EOPNOTSUPP.number)
            return
        netfilter = netfilter_of(self.stack)
        now_ns = self.stack.kernel.loop.now_ns()
        is_long = len(data) > LONG
        batch = Transaction(netfilter.ruleset, now_ns, self.port, is_long=is_long)
        batch.is_heard = bool(listeners(self.stack, nft.NFNLGRP_NFTABLES))
        wrong: list[Wrong] = []
        try:
            self._check_generation(self._request(caller, begin), netfilter)
        except Errno as error:
            self._acknowledge(begin, error.number)
            return
        if first.nlmsg_flags & abi.NLM_F_ACK:
            wrong.append((begin, 0, 0))
        try:
            ended = yield from self._run(caller, data, batch, wrong)
        except BaseException:  # its program is killed
            batch.abort()
            raise
        if ended and not any(number for _, number, _ in wrong):
            try:
                batch.commit()
            except Errno as error:
                batch.abort()
                wrong.append((begin, error.number, 0))
            else:
                netfilter.apply()
                at = first.nlmsg_len + 3 & ~3
                self._tell(batch, self._request(caller, data[at : at + HEADER]))
        else:
            batch.abort()
        for each in wrong:
            self._tell_of(*each)

    def _check_generation(self, request: Request, netfilter: Netfilter) -> None:
        wanted = number(request.attributes(nft.NFGENMSG.size), nft.NFNL_BATCH_GENID, 0)
        if wanted and wanted != netfilter.ruleset.generation:
            raise ERESTART("the tables have changed")

    def _tell_of(self, whole: bytes, number_of_error: int, bad: int) -> None:
        """An answer, with the place of the attribute that is wrong: netlink_ack()."""
        if not bad or abi.NETLINK_EXT_ACK not in self.flags_set:
            self._acknowledge(whole, number_of_error)
            return
        is_short = abi.NETLINK_CAP_ACK in self.flags_set
        quoted = whole[:HEADER] if is_short else whole + bytes(-len(whole) % 4)
        body = struct.pack("<i", -number_of_error) + quoted
        body += u32(abi.NLMSGERR_ATTR_OFFS, bad)
        flags = abi.NLM_F_ACK_TLVS | (abi.NLM_F_CAPPED if is_short else 0)
        sequence = abi.NLMSGHDR.unpack(whole, 0).nlmsg_seq
        self.deliver(message(abi.NLMSG_ERROR, flags, sequence, self.port, body), 0, 0)

    def _run(
        self, caller: Caller, data: bytes, batch: Transaction, wrong: list[Wrong]
    ) -> Steps[bool]:
        """Each message up to the end. False: there is no end, so nothing counts; of too many the
        sender hears."""
        at = (abi.NLMSGHDR.unpack(data, 0).nlmsg_len + 3) & ~3
        for _ in range(MAX_MESSAGES):
            if len(data) - at < HEADER:
                return False
            head = abi.NLMSGHDR.unpack(data, at)
            if head.nlmsg_len < HEADER or at + head.nlmsg_len > len(data):
                return False
            whole = data[at : at + head.nlmsg_len]
            at += (head.nlmsg_len + 3) & ~3
            if head.nlmsg_type == nft.NFNL_MSG_BATCH_END:
                return True
            found, bad = self._change(caller, whole, batch)
            if found or head.nlmsg_flags & abi.NLM_F_ACK:
                wrong.append((whole, found, bad))
            if batch.is_long:
                yield
        wrong.append((data[: abi.NLMSGHDR.unpack(data, 0).nlmsg_len], EMSGSIZE.number, 0))
        return False

    def _request(self, caller: Caller, whole: bytes) -> Request:
        head = abi.NLMSGHDR.unpack(whole, 0)
        return Request(
            head.nlmsg_type, head.nlmsg_flags, head.nlmsg_seq, whole[HEADER:], caller, self.stack,
            self,
        )  # fmt: skip

    def _change(self, caller: Caller, whole: bytes, batch: Transaction) -> tuple[int, int]:
        """One message: its errno, or 0, and where in it something is wrong."""
        request = self._request(caller, whole)
        if not request.flags & abi.NLM_F_REQUEST or request.kind < abi.NLMSG_MIN_TYPE:
            return EINVAL.number, 0
        handler = CHANGES.get(request.kind >> 8, {}).get(request.kind & 0xFF)
        if handler is None or len(request.body) < nft.NFGENMSG.size:
            return EINVAL.number, 0
        asked = Asked(request, netfilter_of(self.stack))
        batch.asked = request.sequence, request.flags
        try:
            handler(asked, batch)
        except Errno as error:
            return error.number, asked.bad
        return 0, 0

    def _tell(self, batch: Transaction, first: Request) -> None:
        """nft_commit_notify(), nf_tables_gen_notify(): what has changed, and that there is another
        generation. Who hears an echo hears of its own changes once, and of that if the first
        message wants one."""
        notices = Notices(batch)
        echoes = any(each.flags & abi.NLM_F_ECHO for each in batch.changes)
        if echoes:
            tell([self], 0, notices.pieces(is_echo=True))
        heard = listeners(self.stack, nft.NFNLGRP_NFTABLES)
        others = [sock for sock in heard if sock is not self or not echoes]
        tell(others, nft.NFNLGRP_NFTABLES, notices.pieces(is_echo=False))
        generation = batch.ruleset.generation
        body = bytes([0, 0]) + (generation & 0xFFFF).to_bytes(2)
        body += generation_body(generation, first.caller)
        whole = message(TABLES | nft.NFT_MSG_NEWGEN, 0, first.sequence, self.port, body)
        if first.flags & abi.NLM_F_ECHO:
            tell([self], 0, [whole])
            heard = [sock for sock in heard if sock is not self]
        tell(heard, nft.NFNLGRP_NFTABLES, [whole])

    def release(self) -> None:
        """The last descriptor is closed: tables that belong to it go."""
        self.set_groups(set())
        if self.stack.netfilter is not None and self.port:
            netfilter = netfilter_of(self.stack)
            if netfilter.lock.holder is None:
                netfilter.drop_tables_of(self.port)
            else:
                netfilter.gone.append(self.port)
        super().release()


def make(location: Location, kind: int, stack: Stack) -> NetfilterSocket:
    """socket(2). Raises: EPROTONOSUPPORT where packets leave by sockets of the host."""
    if stack.has_host_sockets:
        raise EPROTONOSUPPORT("netfilter, with sockets of the host")
    from sentry.net.netlink import (  # noqa: F401, PLC0415  they register what is answered
        ctnetlink_changes,
        ipset_told,
        nft_elements,
        nft_objects,
        nft_rules,
    )

    return NetfilterSocket(location, kind, abi.NETLINK_NETFILTER, stack)

