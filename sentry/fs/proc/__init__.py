"""/proc. See README.md; `ProcFs(kernel)` is an instance, `mount_proc` what mount(2) calls."""

from sentry.fs.proc.filesystem import ProcFs, mount_proc

__all__ = ["ProcFs", "mount_proc"]
