"""The wheel's native parts: hatchling calls this hook, which calls ci/build.py.

The modules are compiled into a temporary folder, so a build leaves nothing in the source tree, and
put into the wheel at their places. The wheel fits any CPython from 3.11 on, on Linux on x86-64.

With RUNSC_AHEAD=1 in the environment it has the modules that are compiled ahead as well (ci/ahead),
and is for the CPython that builds it alone. Not always, as that is two minutes and 20 MB, and needs
mypy, for a wheel that most build where they have no use for it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from importlib.metadata import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

AHEAD = os.environ.get("RUNSC_AHEAD") == "1"


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds what ci/build.py makes to the wheel."""

    def dependencies(self) -> list[str]:
        """What else has to be there, of a build in an environment of its own."""
        return ["mypy>=2.4", "msgspec>=0.18", "dnspython>=2.7"] if AHEAD else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before the wheel is packed. An editable install builds in place."""
        build = self._build_module()
        build_data["pure_python"] = False
        own = "cp{0}{1}-cp{0}{1}".format(*sys.version_info)
        build_data["tag"] = f"{own if AHEAD else 'cp311-abi3'}-linux_x86_64"
        if version == "editable":
            build.run(Path(self.root), True)
            return
        self._folder = tempfile.mkdtemp(prefix="runsc-build-")
        for file in build.run(Path(self._folder)):
            place = str(Path(file).relative_to(self._folder))
            build_data["force_include"][str(file)] = place
        if AHEAD:
            build.compile_ahead(Path(self._folder))
            for file in Path(self._folder).glob("sentry/_ahead.*"):
                build_data["force_include"][str(file)] = f"sentry/{file.name}"
            for path in files("mypy") or []:
                if path.match("licenses/LICENSE"):  # that of its runtime, which is in the library
                    build_data["force_include"][str(path.locate())] = "sentry/_ahead.LICENSE"

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
