"""The C module `runsc._native`: the system calls that Python 3.11 has no function for.

Mechanism only, each returns -errno; runsc/host.py gives them types and exceptions.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent

ffibuilder = FFI()
ffibuilder.cdef((HERE / "_native.cdef.h").read_text())
ffibuilder.set_source(
    "runsc._native",
    "".join(
        (
            (HERE / "uncounted.c").read_text(),
            (HERE / "native.c").read_text(),
            '#include "generated_below.h"\n',
        )
    ),
    include_dirs=[str(HERE)],
    extra_compile_args=["-O2"],
    py_limited_api=True,
)
