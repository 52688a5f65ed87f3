"""siginfo in strace's notation: `SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=NULL}`."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from sentry.abi import signal as abi
from sentry.abi.signal import (
    SIGBUS,
    SIGCHLD,
    SIGFPE,
    SIGILL,
    SIGIO,
    SIGSEGV,
    SIGSYS,
    SIGTRAP,
)
from sentry.syscalls.types import SIGNALS

if TYPE_CHECKING:
    from sentry.kernel.signals import SigInfo

_SIGNAL_NAMES = {v: n for n, v in SIGNALS.items()}
_CODES: dict[int, tuple[str, ...]] = {
    SIGSEGV: ("SEGV_MAPERR", "SEGV_ACCERR", "SEGV_BNDERR", "SEGV_PKUERR"),
    SIGBUS: ("BUS_ADRALN", "BUS_ADRERR", "BUS_OBJERR", "BUS_MCEERR_AR", "BUS_MCEERR_AO"),
    SIGILL: ("ILL_ILLOPC", "ILL_ILLOPN", "ILL_ILLADR", "ILL_ILLTRP", "ILL_PRVOPC", "ILL_PRVREG"),
    SIGFPE: ("FPE_INTDIV", "FPE_INTOVF", "FPE_FLTDIV", "FPE_FLTOVF", "FPE_FLTUND", "FPE_FLTRES",
             "FPE_FLTINV", "FPE_FLTSUB"),
    SIGTRAP: ("TRAP_BRKPT", "TRAP_TRACE", "TRAP_BRANCH", "TRAP_HWBKPT"),
    SIGCHLD: ("CLD_EXITED", "CLD_KILLED", "CLD_DUMPED", "CLD_TRAPPED", "CLD_STOPPED",
              "CLD_CONTINUED"),
    SIGIO: ("POLL_IN", "POLL_OUT", "POLL_MSG", "POLL_ERR", "POLL_PRI", "POLL_HUP"),
    SIGSYS: ("SYS_SECCOMP", "SYS_USER_DISPATCH"),
}  # fmt: skip
"""si_code from 1 on, by signal."""
_GENERAL = {
    0: "SI_USER", -1: "SI_QUEUE", -2: "SI_TIMER", -3: "SI_MESGQ", -4: "SI_ASYNCIO",
    -5: "SI_SIGIO", -6: "SI_TKILL", -7: "SI_DETHREAD", -60: "SI_ASYNCNL", 128: "SI_KERNEL",
}  # fmt: skip
_FAULTS = (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP)


def signal_name(signo: int) -> str:
    """SIGKILL, SIGRT_3."""
    return _SIGNAL_NAMES.get(signo, str(signo))


def code_name(signo: int, code: int) -> str:
    """si_code by its name."""
    if code in _GENERAL:
        return _GENERAL[code]
    names = _CODES.get(signo, ())
    if 0 < code <= len(names):
        return names[code - 1]
    return f"{code:#x}" if code >= 0 else str(code)


def show(info: SigInfo) -> str:
    """The signal's name and what is known of it."""
    signo, code = info.signo, info.code
    body = bytes(info.body).ljust(112, b"\0")
    fields = [f"si_signo={signal_name(signo)}", f"si_code={code_name(signo, code)}"]
    if 0 < code < 0x80 and signo in _FAULTS:
        (addr,) = struct.unpack_from("<Q", body)
        fields.append(f"si_addr={addr:#x}" if addr else "si_addr=NULL")
    elif 0 < code < 0x80 and signo == SIGCHLD:
        pid, uid, status = struct.unpack_from("<iIi", body)
        user, system = struct.unpack_from("<qq", body, 16)
        by_signal = code != abi.CLD_EXITED
        fields += [
            f"si_pid={pid}", f"si_uid={uid}",
            f"si_status={signal_name(status) if by_signal else status}",
            f"si_utime={user}", f"si_stime={system}",
        ]  # fmt: skip
    elif code == abi.SI_TIMER:
        timer, overrun, value = struct.unpack_from("<iiQ", body)
        fields += [f"si_timerid={timer:#x}", f"si_overrun={overrun}", _value(value)]
    elif code <= 0:
        pid, uid, value = struct.unpack_from("<iIQ", body)
        fields += [f"si_pid={pid}", f"si_uid={uid}"]
        if value:
            fields.append(_value(value))
    return f"{signal_name(signo)} {{{', '.join(fields)}}}"


def _value(value: int) -> str:
    return f"si_int={(value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000}, si_ptr={value:#x}"
