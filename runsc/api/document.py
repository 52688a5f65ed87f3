"""The config.json of a sandbox of the Python API: whatever the root is, its first process waits.

So a sandbox needs no program of its own to be there, and lives until it is ended: what runs in it
comes by `exec`. The program is that of pods without a container (`runsc/launch/pause.c`), which is
mounted and so need not be in the root.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from runsc.api.order import ANNOTATION, ORDER, Now
from runsc.api.policies import NOTHING
from runsc.commands.spec import standard_mounts
from runsc.errors import RuntimeFailure
from runsc.launch import isolation
from runsc.launch.forkable import ANNOTATION as FORKABLE
from runsc.launch.policy import ANNOTATION as POLICY
from runsc.launch.policy import LEARN
from runsc.oci import convert, spec
from runsc.progress import silent

if TYPE_CHECKING:
    from runsc.api.order import Order
    from runsc.progress import Tell

PROGRAM: Final = Path(__file__).parent.parent / "launch" / "built" / "pause"
RESOLVER: Final = Path(__file__).parent / "resolv.conf"
"""For a network without a way out: the sandbox's own resolver, by an address of its own."""
INIT: Final = "/dev/init"
"""Where it is inside; /dev is in memory in all containers."""

ENV: Final = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)


def document(order: Order, tell: Tell = silent) -> tuple[str, spec.Spec]:
    """The folder from which paths are meant, and what config.json would say. `tell` hears how far
    an image is.

    Raises: RuntimeFailure.
    """
    if order.bundle:
        folder, made = os.path.realpath(order.bundle), _of_bundle(order.bundle)
    elif order.image:
        folder, made = "/", _of_image(order, tell)
    else:
        folder, made = "/", _over(os.path.realpath(order.root or "/"))
    assert made.process is not None and made.root is not None
    made.process.args = [INIT]
    made.process.terminal = False
    made.process.console_size = None
    env = (*(made.process.env or ()), *order.env)
    made.process.env = list({each.partition("=")[0]: each for each in env}.values())
    made.root.readonly |= order.readonly
    made.hooks = None
    mounts = [*(made.mounts or ()), *(_bound(*each) for each in order.mounts)]
    made.mounts = [*mounts, spec.Mount(INIT, "bind", str(PROGRAM), ["bind", "ro", "nosuid"])]
    kept = "detached" if order.detach else "attached"
    again = msgspec.structs.replace(
        order, snapshot="", expires_ns=0, detach=False, tells=False, now=Now()
    )
    made.annotations = {
        **(made.annotations or {}), ANNOTATION: kept, ORDER: msgspec.json.encode(again).decode()
    }  # fmt: skip
    if order.forkable:
        made.annotations[FORKABLE] = "true"
    policy = order.policy if order.now.policy is None else order.now.policy
    if order.now.policy == "":
        made.annotations.pop(POLICY, None)
    elif policy is not None:
        made.annotations[POLICY] = policy if policy == LEARN else _in_memory(policy)
    _connect(made, order.network)
    return folder, made


def _of_bundle(bundle: str) -> spec.Spec:
    made = spec.load(bundle)
    if made.root is None:
        raise RuntimeFailure(f"{bundle}: config.json names no root")
    if made.process is None:
        made.process = spec.Process(spec.User(0, 0), "/", env=list(ENV))
    return made


def _of_image(order: Order, tell: Tell) -> spec.Spec:
    """As it says, but for the program."""
    from runsc.images import root_of  # noqa: PLC0415  few are made of one

    os.chdir(order.folder)
    try:
        found = root_of(Path(order.image) if order.image_is_path else order.image, tell=tell)
    finally:
        os.chdir("/")
    config, ids = found.config, found.ids()
    made = _over(str(found.path))
    process = made.process
    assert process is not None
    process.user = spec.User(ids.uid, ids.gid, additional_gids=list(ids.groups))
    process.cwd = os.path.join("/", config.working_dir)
    process.env = [*ENV, *(variable for variable in config.env if variable.find("=") > 0)]
    return made


def _over(root: str) -> spec.Spec:
    """Any tree, as `do` has it, but without the caller's environment."""
    every = sorted(convert.CAPABILITIES)
    return spec.Spec(
        oci_version="1.2.0",
        process=spec.Process(
            user=spec.User(0, 0),
            cwd="/",
            env=list(ENV),
            capabilities=spec.CapabilitySets(bounding=every, effective=every, permitted=every),
        ),
        root=spec.Root(root),
        hostname=os.uname().nodename,
        mounts=standard_mounts(),
    )


def _bound(target: str, source: str, readonly: bool) -> spec.Mount:
    """Raises: RuntimeFailure."""
    if not target.startswith("/"):
        raise RuntimeFailure(f"mounts: {target} does not begin with /")
    options = ["rbind", "rro" if readonly else "rw"]
    return spec.Mount(target, "bind", os.path.realpath(source), options)


def _connect(made: spec.Spec, network: str) -> None:
    """What --network wants to find: a namespace, for a stack of the sandbox's own.

    Raises: RuntimeFailure.
    """
    if network == "sandbox" and isolation.is_privileged():
        text = "the path of the network namespace in which the stack is to be"
        raise RuntimeFailure(f'network="sandbox": root has to name {text}')
    if network == "private":
        made.mounts = [*(made.mounts or ()), spec.Mount(
            "/etc/resolv.conf", "bind", str(RESOLVER), ["bind", "ro"]
        )]  # fmt: skip
    if network not in ("none", "host"):
        linux = made.linux = made.linux or spec.Linux()
        others = [each for each in linux.namespaces or () if each.type != "network"]
        path = network if network.startswith("/") else ""
        linux.namespaces = [*others, spec.Namespace("network", path)]
    elif network == "host" and made.linux is not None:
        others = [each for each in made.linux.namespaces or () if each.type != "network"]
        made.linux.namespaces = others


def flags(order: Order) -> list[str]:
    """The global flags that it is made with."""
    own = order.network if order.network in ("none", "host") else "sandbox"
    words = [
        f"--root={order.state}",
        f"--platform={order.platform}",
        f"--network={own}",
        "--overlay2=root:memory",
    ]
    if order.memory:
        words.append(f"--memory={order.memory}")
    egress = order.egress
    if egress is None and order.network == "private":
        egress = NOTHING
    if egress is not None:
        words.append(f"--egress={_in_memory(egress)}")
    words += order.flags
    if order.now.egress is not None:
        words.append(f"--egress={_in_memory(order.now.egress)}")
    return words


def _in_memory(text: str) -> str:
    """A file with this text, by a name that is good while this process lives."""
    fd = os.memfd_create("runsc-policy")
    data = text.encode()
    while data:
        data = data[os.write(fd, data) :]
    return f"/proc/self/fd/{fd}"
