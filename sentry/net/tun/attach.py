"""TUNSETIFF, TUNSETQUEUE: how an open device and an interface come together, and who may.

drivers/net/tun.c: tun_set_iff(), tun_attach(), tun_set_queue().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.capability import CAP_NET_ADMIN
from sentry.abi.tun import (
    IFF_ATTACH_QUEUE,
    IFF_DETACH_QUEUE,
    IFF_MULTI_QUEUE,
    IFF_NAPI,
    IFF_NAPI_FRAGS,
    IFF_NO_CARRIER,
    IFF_TAP,
    IFF_TUN,
    IFF_TUN_EXCL,
    TUN_TYPE_MASK,
)
from sentry.errors import E2BIG, EBUSY, EEXIST, EINVAL, EPERM
from sentry.net.made import free_index
from sentry.net.netlink.notices import free_name
from sentry.net.tun.interface import FEATURES, MAX_QUEUES, NOBODY, Tun, new_interface

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.net.stack import Stack
    from sentry.net.tun.device import TunDevice
    from sentry.vfs.file import Caller

EVERY_FLAG: Final = 0xFFFFFFFF


def set_interface(device: TunDevice, caller: Caller, name: bytes, flags: int) -> str:
    """Attach to an interface, a new one if there is none of this name; its name.

    Raises: EINVAL, EPERM, EBUSY, EEXIST, ENFILE, ENOBUFS, E2BIG.
    """
    if flags & IFF_NAPI_FRAGS:
        if not caller.creds.has_in(None, CAP_NET_ADMIN):
            raise EPERM("CAP_NET_ADMIN")
        if not flags & IFF_NAPI or flags & TUN_TYPE_MASK != IFF_TAP:
            raise EINVAL("IFF_NAPI_FRAGS")
    stack = device.stack
    text = name.decode(errors="replace")
    known = next((each for each in stack.interfaces if each.name == text), None)
    if known is None:
        tun = _make(device, caller, name, flags)
    else:
        if flags & IFF_TUN_EXCL:
            raise EBUSY(text)
        driver = known.driver
        if not isinstance(driver, Tun) or not flags & (IFF_TAP if driver.is_tap else IFF_TUN):
            raise EINVAL("an interface of another kind")
        tun = driver
        _attach_known(device, caller, tun, flags)
    tun.set_carrier(not flags & IFF_NO_CARRIER)
    return tun.interface.name


def _make(device: TunDevice, caller: Caller, name: bytes, flags: int) -> Tun:
    stack = device.stack
    stack.check_admin(caller)
    if not flags & (IFF_TUN | IFF_TAP):
        raise EINVAL("neither IFF_TUN nor IFF_TAP")
    kind = IFF_TUN if flags & IFF_TUN else IFF_TAP
    name = name or (b"tun%d" if kind == IFF_TUN else b"tap%d")
    free = free_name(name, {each.name for each in stack.interfaces})
    interface = new_interface(_index(stack, device.index), free, kind)
    tun = Tun(stack, interface, kind | flags & FEATURES)
    _attach(device, tun)
    tun.tell(change=EVERY_FLAG)
    return tun


def _index(stack: Stack, wanted: int) -> int:
    if not wanted:
        return free_index(stack)
    if stack.interfaces.get(wanted) is not None:
        raise EBUSY(f"interface {wanted}")
    return wanted


def _attach_known(device: TunDevice, caller: Caller, tun: Tun, flags: int) -> None:
    if bool(flags & IFF_MULTI_QUEUE) != bool(tun.flags & IFF_MULTI_QUEUE):
        raise EINVAL("IFF_MULTI_QUEUE")
    if not _may_attach(tun, caller.creds):
        raise EPERM("somebody else's interface")
    _attach(device, tun)
    if not (tun.flags & IFF_MULTI_QUEUE and len(tun.queues) + len(tun.disabled) > 1):
        tun.flags = tun.flags & ~FEATURES | flags & FEATURES
    tun.tell()


def _may_attach(tun: Tun, creds: Credentials) -> bool:
    """tun_not_capable(): an interface without an owner and a group is anybody's."""
    if creds.has_in(tun.stack.owner, CAP_NET_ADMIN):
        return True
    if tun.owner not in (NOBODY, creds.euid):
        return False
    return tun.group in (NOBODY, creds.egid) or tun.group in creds.groups


def _attach(device: TunDevice, tun: Tun) -> None:
    """Raises: EINVAL, EBUSY, E2BIG."""
    if device.tun is not None and not device.is_disabled:
        raise EINVAL("attached already")
    if not tun.flags & IFF_MULTI_QUEUE and tun.queues:
        raise EBUSY("somebody else has it")
    if device.tun is None and len(tun.queues) + len(tun.disabled) >= MAX_QUEUES:
        raise E2BIG("every queue is taken")
    tun.disabled.pop(device, None)
    device.tun, device.is_disabled = tun, False
    tun.queues.append(device)
    device.queue.notify()


def set_queue(device: TunDevice, flags: int) -> None:
    """TUNSETQUEUE: read or do not for now. Raises: EINVAL, EBUSY."""
    tun = device.tun
    if flags & IFF_ATTACH_QUEUE:
        if tun is None or not device.is_disabled:
            raise EINVAL("it is not detached")
        _attach(device, tun)
    elif flags & IFF_DETACH_QUEUE:
        if tun is None or device.is_disabled or not tun.flags & IFF_MULTI_QUEUE:
            raise EINVAL("nothing to detach from")
        tun.queues.remove(device)
        tun.disabled[device] = None
        device.is_disabled = True
        device.clear()
    else:
        raise EINVAL("neither attach nor detach")
    tun.tell()


def check_free(device: TunDevice) -> None:
    """Raises: EEXIST."""
    if device.tun is not None:
        raise EEXIST("attached already")
