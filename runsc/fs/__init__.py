"""Files of a sandbox that a program of its owner's serves: see docs/objects.md.

    class Greetings(FileSystem):
        def stat(self, path): ...
        def list(self, path): ...
        def read(self, path, offset, size): ...

    sandbox.mount("/greetings", Greetings())
"""

from __future__ import annotations

from runsc.fs.device import Device as Device
from runsc.fs.device import OpenDevice as OpenDevice
from runsc.fs.filesystem import FileSystem as FileSystem
from runsc.fs.filesystem import Stat as Stat
from runsc.fs.filesystem import folder as folder
from runsc.fs.filesystem import link as link
from runsc.fs.filesystem import regular as regular
from runsc.fs.memory import MemoryFileSystem as MemoryFileSystem
from runsc.fs.procfile import ProcFile as ProcFile
