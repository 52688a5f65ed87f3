"""The argument types of the declarations. mypy sees the plain type, the decoder the mark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from sentry.abi import fcntl, signal
from sentry.abi.time import (
    ITIMERSPEC,
    ITIMERVAL,
    TIMESPEC,
    TIMEVAL,
    Itimerval,
    Timespec,
    Timeval,
)
from sentry.syscalls import args, show
from sentry.syscalls.args import StructOut as _StructOut
from sentry.syscalls.args import UserIn as _UserIn
from sentry.syscalls.args import UserOut as _UserOut
from sentry.syscalls.args import UserPath as _UserPath

if TYPE_CHECKING:
    from sentry.vfs.file import FileDescription
else:
    FileDescription = Any

_ALIASES = ("SIGIOT", "SIGPOLL", "SIGRTMIN", "SIGSTKSZ", "SIGUNUSED")
SIGNALS = {
    n: v for n, v in vars(signal).items() if n[:3] == "SIG" and "_" not in n and n not in _ALIASES
} | {f"SIGRT_{n - 32}" if n > 32 else "SIGRTMIN": n for n in range(32, 65)}
"""Names of signals, as strace has them."""

Int = Annotated[int, args.signed(32)]
"""C int."""
UInt = Annotated[int, args.unsigned(32)]
"""C unsigned int."""
Long = Annotated[int, args.signed(64)]
"""C long."""
Size = Annotated[int, args.unsigned(64)]
"""size_t, unsigned long."""
Offset = Annotated[int, args.signed(64)]
"""loff_t."""
Addr = Annotated[int, args.unsigned(64, args.show_hex)]
"""An address that the handler uses as a number."""
Pid = Annotated[int, args.signed(32)]
"""pid_t."""
Uid = Annotated[int, args.unsigned(32, args.show_id)]
"""uid_t or gid_t."""
Mode = Annotated[int, args.unsigned(16, args.show_mode)]
"""umode_t."""
Signal = Annotated[int, args.signed(32, args.show_choice(SIGNALS))]
"""A signal number, unchecked."""

Fd = Annotated[int, args.signed(32)]
"""A descriptor number, unchecked."""
DirFd = Annotated[int, args.signed(32, args.show_dirfd)]
"""A directory descriptor or AT_FDCWD, unchecked: the path walk looks it up."""
File = Annotated[FileDescription, args.file("get")]
"""An open file that is no O_PATH one; EBADF."""
RawFile = Annotated[FileDescription, args.file("get_raw")]
"""An open file, O_PATH too; EBADF."""
Readable = Annotated[FileDescription, args.file("readable")]
"""An open file opened for reading; EBADF."""
Writable = Annotated[FileDescription, args.file("writable")]
"""An open file opened for writing; EBADF."""

Path = Annotated[bytes, args.path()]
"""A path name; EFAULT, ENAMETOOLONG. An empty one is the walk's ENOENT."""
PathAddr = Annotated[_UserPath, args.path_later()]
"""A path name that the handler reads itself, after other checks."""
UserOut = Annotated[_UserOut, args.out()]
UserIn = Annotated[_UserIn, args.in_()]
OutAddr = Annotated[int, args.out_addr()]
"""`UserOut` as a number, for calls where the object would show in a benchmark."""

TimespecIn = Annotated[Timespec, args.struct_in(TIMESPEC)]
TimespecInOrNull = Annotated[Timespec | None, args.struct_in(TIMESPEC, null=True)]
TimespecOut = Annotated[_StructOut, args.struct_out(TIMESPEC)]
TimevalInOrNull = Annotated[Timeval | None, args.struct_in(TIMEVAL, null=True)]
TimevalOut = Annotated[_StructOut, args.struct_out(TIMEVAL)]
ItimerspecOut = Annotated[_StructOut, args.struct_out(ITIMERSPEC)]
ItimervalInOrNull = Annotated[Itimerval | None, args.struct_in(ITIMERVAL, null=True)]
ItimervalOut = Annotated[_StructOut, args.struct_out(ITIMERVAL)]

_OPEN = {n: v for n, v in vars(fcntl).items() if n.startswith("O_") and n != "O_NDELAY"}
OpenFlags = Annotated[int, args.unsigned(32, show.show_open_flags(_OPEN))]
"""O_*, unchecked."""
