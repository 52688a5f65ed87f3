"""Description of the native module `sentry.platform._unicorn` (see ci/build.py).

It needs nothing of unicorn to be built: the library is loaded when the platform is made.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
NATIVE = HERE / "unicorn_native"
SHARED = (HERE / "native", HERE.parent.parent / "guest_stubs")
"""Where context_common.h and layout.h are."""

ffibuilder = FFI()
ffibuilder.cdef((NATIVE.parent / "_unicorn.cdef.h").read_text())
ffibuilder.set_source(
    "sentry.platform._unicorn",
    '#include "machine.h"\n#include "generated_below.h"',
    sources=[str(source) for source in sorted(NATIVE.glob("*.c"))],
    include_dirs=[str(NATIVE), *map(str, SHARED)],
    extra_compile_args=["-O2", "-std=gnu11", "-fvisibility=hidden"],
    py_limited_api=True,
)
