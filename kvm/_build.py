"""Description of the native module `kvm._kvm` (see ci/build.py).

Struct layouts, ioctl numbers and capabilities come from <linux/kvm.h> when the module is compiled:
cffi fills in every `...` of `_kvm.cdef.h`, which ci/generate_border.py writes.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent

ffibuilder = FFI()
ffibuilder.cdef((HERE / "_kvm.cdef.h").read_text())
ffibuilder.set_source(
    "kvm._kvm",
    (HERE / "native.c").read_text() + '#include "generated_below.h"\n',
    extra_compile_args=["-O2", "-fvisibility=hidden"],
)
