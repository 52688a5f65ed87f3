"""/sys: what programs look for to learn of CPUs, memory and interfaces. See `filesystem.py`.

`mount_sysfs` is what mount(2) calls; every mount is an instance of its own.
"""

from sentry.fs.sysfs.filesystem import SysFs, mount_sysfs

__all__ = ["SysFs", "mount_sysfs"]
