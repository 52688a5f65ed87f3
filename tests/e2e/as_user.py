"""`python as_user.py UID ARGUMENT...`: runsc as an ordinary user who may open /dev/kvm.

Everything is imported before the change of identity, for the interpreter may lie in a folder that
the user cannot read.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from runsc import host
from runsc.cli import COMMANDS, main
from sentry.abi import prctl

HASH = "_sha2" if sys.version_info >= (3, 12) else "_sha256"


def become(uid: int) -> None:
    """Change to a user without privileges, in the group of /dev/kvm."""
    groups = [os.stat("/dev/kvm").st_gid] if os.path.exists("/dev/kvm") else []
    os.setgroups(groups)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    host.prctl(prctl.PR_SET_DUMPABLE, 1)  # as after an exec: a change of identity clears it
    os.environ["HOME"] = "/"
    os.environ.pop("XDG_RUNTIME_DIR", None)


if __name__ == "__main__":
    for name in COMMANDS:
        importlib.import_module(f"runsc.commands.{name.replace('-', '_')}")
    lazy = (
        "_blake2", HASH, "encodings.ascii", "runsc.cgroups.cgroup", "runsc.cgroups.guest",
        "runsc.images", "runsc.launch.egress", "runsc.launch.forkable", "runsc.launch.forking",
        "runsc.launch.neighbours", "sentry.fork.parent",
        "runsc.launch.network", "runsc.launch.passt", "runsc.oci.hooks",
        "sentry.net.inet.egress", "sentry.net.inet.resolver",
    )  # fmt: skip
    for module in ("sentry.boot.sandbox", "sentry.platform.kvm", "gofer.main", *lazy):
        importlib.import_module(module)
    os.umask(0o022)
    become(int(sys.argv[1]))
    main(sys.argv[2:])
