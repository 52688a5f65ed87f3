"""What is right for a field of config.json: the hint for who had another value there.

What is wrong is said where it is seen (runsc/oci, runsc/cgroups). docs/config-json.md has all
fields. Imported where there is something wrong, and not before.
"""

from __future__ import annotations

import re
from typing import Final

ANY: Final = "docs/config-json.md says what becomes of each field"
WHOLE: Final = "`runsc spec` writes a config.json with all that is needed"
_INSIDE: Final = "a path inside the container, which begins with /"
_ELSEWHERE: Final = "leave it out: docs/config-json.md says what is there instead"
_CAPABILITIES: Final = 'lists of names such as "CAP_NET_BIND_SERVICE"'
_MAPS: Final = 'such as {"containerID": 0, "hostID": 100000, "size": 65536}'
RIGHT: Final = {
    "annotations": "names and values, all of them strings",
    "domainname": "at most 64 bytes, and no NUL character",
    "hooks": 'lists of programs of the host, such as {"path": "/bin/true", "timeout": 10}',
    "hostname": "at most 64 bytes, and no NUL character",
    "linux.cgroupsPath": "below /sys/fs/cgroup; with --systemd-cgroup: SLICE:PREFIX:NAME",
    "linux.devices": "type c, b or p, and a path; of devices there are /dev/null, zero, full,"
    " random, urandom, tty, net/tun and fuse",
    "linux.gidMappings": _MAPS,
    "linux.intelRdt": _ELSEWHERE,
    "linux.maskedPaths": _INSIDE,
    "linux.memoryPolicy": "leave it out; linux.resources.cpu.mems names nodes of the host",
    "linux.namespaces": "each once, of the types pid, network, mount, ipc, uts, user, cgroup, time",
    "linux.namespaces[].path": "left out, the namespace is the container's own",
    "linux.netDevices": _ELSEWHERE,
    "linux.personality": '{"domain": "LINUX"} or LINUX32, without flags',
    "linux.readonlyPaths": _INSIDE,
    "linux.resources.cpu": "quota and period in microseconds; cpus and mems as 0-2,7",
    "linux.resources.hugepageLimits": "a size is such as 2MB",
    "linux.resources.memory": "numbers of bytes, -1 for no limit",
    "linux.resources.pids": '{"limit": 100}, of tasks; -1 for no limit',
    "linux.resources.unified": "names of files of a cgroup, such as memory.high",
    "linux.rootfsPropagation": "private, slave, shared or unbindable, or these with an r before",
    "linux.seccomp": "as runc's: docs/config-json.md; it judges the program's own system calls",
    "linux.seccomp.architectures": "SCMP_ARCH_X86_64, and others that seccomp(2) knows",
    "linux.seccomp.defaultAction": "SCMP_ACT_ALLOW, ERRNO, KILL_PROCESS, KILL_THREAD, TRAP, TRACE"
    " or LOG",
    "linux.seccomp.syscalls[].action": "SCMP_ACT_ALLOW, ERRNO, KILL_PROCESS, KILL_THREAD, TRAP,"
    " TRACE or LOG",
    "linux.seccomp.syscalls[].args": '{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}; or NE, LT, LE,'
    " GT, GE, MASKED_EQ",
    "linux.seccomp.syscalls[].names": 'system calls, such as ["ptrace", "bpf"]',
    "linux.sysctl": 'names and strings, such as "net.core.somaxconn": "512"',
    "linux.timeOffsets": "leave it out; `runsc clock` sets the time that programs see",
    "linux.uidMappings": _MAPS,
    "mounts": 'such as {"destination": "/data", "type": "bind", "source": "/srv/data", "options":'
    ' ["rbind", "ro"]}',
    "mounts[].options": 'a list such as ["rbind", "ro"]',
    "mounts[].source": "of a bind mount: a path of the host, from the bundle on if it has no / in"
    " front",
    "mounts[].type": 'tmpfs, proc and others; for files of the host put "bind" among the options',
    "ociVersion": "version 1.0.0 to 1.2 of the specification, such as 1.2.0",
    "process": "args, cwd and user at least; `runsc spec` writes an example",
    "process.args": 'the program and its arguments, such as ["/bin/sh", "-c", "date"]',
    "process.capabilities": _CAPABILITIES,
    "process.consoleSize": '{"height": 24, "width": 80}',
    "process.cwd": _INSIDE,
    "process.env": 'NAME=VALUE each, such as ["PATH=/usr/bin:/bin", "TERM=xterm"]',
    "process.execCPUAffinity": _ELSEWHERE,
    "process.ioPriority": '{"class": "IOPRIO_CLASS_BE", "priority": 4}; or RT, IDLE; 0 to 7',
    "process.oomScoreAdj": "from -1000 to 1000",
    "process.rlimits": '{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}, each type once',
    "process.scheduler": '{"policy": "SCHED_OTHER", "nice": 0}; or BATCH, IDLE, FIFO, RR, DEADLINE',
    "process.terminal": "true or false",
    "process.user": "numbers, such as 0 and 0: /etc/passwd of the container is not looked into",
    "root": '{"path": "rootfs", "readonly": true}',
    "root.path": "what the program sees as /: a directory, or an image; see docs/images.md",
}
"""Where, without the places in lists → what is right there, and in what lies below."""
_PLACE: Final = re.compile(r"\[[^]]*\]")


def right(path: str) -> str:
    """By the JSON path of a value, of config.json or of a process alone (`exec --process`)."""
    where = _PLACE.sub("[]", path).removeprefix("$").lstrip(".")
    if not where:
        return WHOLE
    for above, names in ((0, where.split(".")), (1, ["process", *where.split(".")])):
        for end in range(len(names), above, -1):
            name = ".".join(names[:end])
            found = RIGHT.get(name) or RIGHT.get(name.removesuffix("[]"))
            if found is not None:
                return found
    return ANY
