"""The wheel's native parts: hatchling calls this hook, which calls ci/build.py.

The modules are compiled into a temporary folder, so a build leaves nothing in the source tree, and
put into the wheel at their places. The wheel fits any CPython from 3.11 on, on Linux on x86-64.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds what ci/build.py makes to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before the wheel is packed. An editable install builds in place."""
        build = self._build_module()
        build_data["pure_python"] = False
        build_data["tag"] = "cp311-abi3-linux_x86_64"
        if version == "editable":
            build.run(Path(self.root), True)
            return
        self._folder = tempfile.mkdtemp(prefix="runsc-build-")
        for file in build.run(Path(self._folder)):
            place = str(Path(file).relative_to(self._folder))
            build_data["force_include"][str(file)] = place

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """After it."""
        if version != "editable":
            shutil.rmtree(self._folder, ignore_errors=True)

    def _build_module(self) -> Any:
        spec = importlib.util.spec_from_file_location("build", Path(self.root) / "ci" / "build.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
