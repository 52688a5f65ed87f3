"""The compiled module (ci/build.py), untyped; its users wrap it in typed classes."""

from typing import Any

ffi: Any
lib: Any
