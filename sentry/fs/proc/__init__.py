"""/proc. See README.md; `ProcFs(kernel)` is an instance, `mount_proc` what mount(2) calls."""

from sentry.fs.proc.filesystem import ProcFs, mount_proc
from sentry.fs.proc.sysctl import set_sysctl

__all__ = ["ProcFs", "mount_proc", "set_sysctl"]
