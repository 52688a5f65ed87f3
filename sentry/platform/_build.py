"""Description of the native module `sentry.platform._native` (see ci/build.py).

Every C file of native/ goes into it; what Python sees of them stands in `_native.cdef.h`, which
ci/generate_border.py writes.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

NATIVE = Path(__file__).resolve().parent / "native"
LAYOUT = NATIVE.parent.parent.parent / "guest_stubs"
"""Where layout.h is, which the guest's entry code shares with the host."""
WIRE = LAYOUT.parent / "gofer" / "p9"
"""Where crc32.h is, which is between Sentry and Gofer."""

HEADERS = [
    "memory_api.h", "vcpu.h", "sigframe.h", "hostio.h", "sockets.h", "barrier.h", "heap.h",
    "filter.h", "ticks.h", "uplink.h", "sender.h", "lz4.h", "records.h", "dirents.h",
    "exchange.h",
]  # fmt: skip
"""What the declarations are about; these include what they need."""

ffibuilder = FFI()
ffibuilder.cdef((NATIVE.parent / "_native.cdef.h").read_text())
ffibuilder.set_source(
    "sentry.platform._native",
    "\n".join(f'#include "{name}"' for name in [*HEADERS, "generated_below.h"]),
    sources=[str(source) for source in sorted(NATIVE.glob("*.c"))],
    include_dirs=[str(NATIVE), str(LAYOUT), str(WIRE)],
    extra_compile_args=["-O2", "-std=gnu11", "-fvisibility=hidden"],
)
