"""The native module (unicorn_native/machine.cdef.h) is untyped here; unicorn.py wraps it."""

from typing import Any

ffi: Any
lib: Any
