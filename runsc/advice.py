"""What to do about a program that does not start: hints by the message that the sandbox gives.

The messages are the Sentry's (sentry/boot) and the stand-in's; many are runc's, for clients look
for its words. Imported where something fails.
"""

from __future__ import annotations

import re
from typing import Final

_HINTS: Final = (
    (
        r'exec: ".*": executable file not found in \$PATH',
        "it is looked for in the PATH and the files of the container; a path, as ./NAME, is not",
    ),
    (
        r'exec: ".*": stat .*: no such file or directory',
        "it is a path in the files of the container, which may be others than those of the host",
    ),
    (
        r'exec: ".*": permission denied',
        "the user of the container may not execute it: see its mode (`chmod +x`) and its folders",
    ),
    (
        r'exec: ".*": is a directory',
        "name a program that is in it",
    ),
    (
        r"exec .*: exec format error",
        "it is no program for x86-64, nor a script that begins with #! and a program's path",
    ),
    (
        r"exec .*: no such file or directory",
        "it is there; what it names as its interpreter (a script's #! line, a program's ld.so) is"
        " not",
    ),
    (
        r"mount .* to .*: no such device",
        "a sandbox has no disks; /proc/filesystems inside lists its file systems, and `bind` shows"
        " files of the host",
    ),
    (
        r"mount .* to .*: invalid argument",
        "one of its options is unknown, or has a value that is none",
    ),
    (
        r"mount .* to .*: not a directory",
        "what is mounted over a file has to be a file, over a directory a directory",
    ),
    (
        r"mount .* to .*: read-only file system",
        "the folder that it is to be mounted on is not there, and cannot be made in what is"
        " read-only",
    ),
    (
        r"/dev/kvm .*",
        "`runsc check` says what this machine needs",
    ),
    (
        r"mount overlay .*",
        "it needs lowerdir=, and perhaps upperdir=, workdir=: folders of the host; and root's"
        " rights",
    ),
    (
        r"mount .*: (no space left on device|cannot allocate memory)",
        "its limit of memory is too low: what a container has itself takes some MiB",
    ),
    (
        r".*: (no space left on device|disk quota exceeded)( \(.*\))?",
        "`df -h` and `df -i` show which file system is full",
    ),
    (
        r"chdir to cwd .*",
        "the working directory is one in the files of the container",
    ),
    (
        r"sysctl .*: .*",
        "/proc/sys inside shows the settings that the kernel of a sandbox has, and their values",
    ),
    (
        r"(\w+) namespace .*: invalid argument",
        "the path has to be that of such a namespace, as /proc/PID/ns has them",
    ),
    (
        r"the sandbox was not started with --forkable",
        "a flag of its start, as in `runsc run --forkable NAME`",
    ),
    (
        r"(.* )?needs passt\(1\).*",
        "it is a package of most systems: `apt-get install passt`; `runsc check` says what else",
    ),
    (
        r"--publish: port \d+ of .*: address already in use",
        "a program of this host listens there (`ss -ltnp`): name another port before the colon",
    ),
    (
        r"--publish: port \d+ of .*: permission denied",
        "ports below 1024 are root's: name another one before the colon",
    ),
    (
        r"another command is changing the container .*",
        "wait until it has ended: `ps ax | grep runsc` shows it",
    ),
    (
        r"compression zstd needs .*",
        "`pip install 'runsc[images]'` has it; --compression=none needs nothing",
    ),
    (
        r".* has a snapshot already, or other files",
        "name a folder that is empty or not there yet",
    ),
    (
        r"cannot checkpoint: .*",
        "docs/snapshots.md has what a snapshot cannot have, and how to do without it",
    ),
    (
        r".* is no snapshot: it has no .*",
        "`runsc checkpoint --image-path DIR NAME` writes one",
    ),
    (
        r".*\.toml: .*unknown field `\w+`( - at .*)?",
        "docs/egress.md and docs/policies.md have the fields of such documents",
    ),
    (
        r"it was started without --egress: .*",
        "a flag before the command, as in `runsc --egress=FILE run NAME`: docs/egress.md",
    ),
    (
        r"the (sandbox|gofer) process was killed by signal 9(: .*)?",
        "somebody has killed it, or the kernel for want of memory (`dmesg` says so, --memory sets"
        " how much it has)",
    ),
    (
        r"the (sandbox|gofer) process (was killed by signal|exited with) .*",
        "this is a fault of runsc: what it wrote before is where --debug-log or --log says, else"
        " above",
    ),
)
"""How a message ends, the first that fits → what to do."""


def hint(message: str) -> str:
    """Empty where there is nothing to say that the message does not."""
    for pattern, text in _HINTS:
        if re.search(f"(?:^|: ){pattern}$", message, re.DOTALL):
            return text
    return ""
