"""The cgroup of a container's sandbox: see README.md. Start at `cgroup.for_container`."""
