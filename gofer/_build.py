"""The cffi module `gofer._native`: the file calls that Python's os module lacks.

openat2 with RESOLVE_BENEATH, statx packed straight into a wire block, directory listings packed
straight into 9P entries. Every function gives -errno instead of setting errno, so that a missing
file costs no exception.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
NUMBERS = ("linux/capability.h", "sched.h", "stdio.h", "sys/ioctl.h", "sys/socket.h")
"""Headers of constants that only Python uses."""

ffibuilder = FFI()
ffibuilder.cdef((HERE / "_native.cdef.h").read_text())
ffibuilder.set_source(
    "gofer._native",
    "".join(
        (
            (HERE / "native.c").read_text(),
            (HERE / "hot.c").read_text(),
            (HERE / "drain.c").read_text(),
            *(f"#include <{name}>\n" for name in NUMBERS),
            '#include "generated_below.h"\n',
        )
    ),
    include_dirs=[str(HERE)],
    extra_compile_args=["-O2"],
    py_limited_api=True,
)
