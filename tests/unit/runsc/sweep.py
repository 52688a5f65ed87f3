"""Makes system calls under a filter, each in a process of its own that does nothing else.

    python -I sweep.py < PROGRAM

Reads the program, as seccomp(2) takes it, after its length and the number of calls, and those as
(number, six arguments). Writes a wait status for each; a call that came back ends in exit code 7,
or 8 if it gave an error, which follows. Small, so that a fork costs little.
"""

import ctypes
import mmap
import os
import struct
import sys

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 1, 38, 22
EXIT_GROUP, ALARM = 231, 37
RETURNED = 7
libc = ctypes.CDLL(None, use_errno=True)
syscall = libc.syscall
syscall.restype = ctypes.c_long


def attempt(program: ctypes.Array, count: int, call: tuple[int, ...], results: ctypes.Array) -> int:
    """The wait status of who makes the call; its result is in `results`."""
    words = [ctypes.c_long(word - (1 << 64) if word >> 63 else word) for word in call]
    code = ctypes.c_long(RETURNED)
    number = ctypes.c_long(EXIT_GROUP)
    filter_ = struct.pack("HxxxxxxQ", count, ctypes.addressof(program))
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    libc.alarm(5)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_SECCOMP, 2, filter_)
    results[0] = syscall(*words)
    results[1] = ctypes.get_errno()
    syscall(number, code)
    raise AssertionError


def main() -> None:
    data = sys.stdin.buffer.read()
    size, calls = struct.unpack_from("II", data)
    program = ctypes.create_string_buffer(data[8 : 8 + size], size)
    results = (ctypes.c_long * 2).from_buffer(mmap.mmap(-1, 4096))
    for index in range(calls):
        call = struct.unpack_from("7Q", data, 8 + size + 56 * index)
        results[0] = results[1] = 0
        status = attempt(program, size // 8, call, results)
        print(status, results[1] if results[0] == -1 else 0)


main()
