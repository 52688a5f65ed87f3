"""The native module (native/*.cdef.h) is untyped here; its users wrap it in typed classes."""

from typing import Any

ffi: Any
lib: Any
