"""The container's own cgroup, as programs inside read it: see README.md."""

from sentry.fs.cgroup.filesystem import mount_cgroup

__all__ = ["mount_cgroup"]
