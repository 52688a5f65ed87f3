"""runsc do: run a command over the host's files, or an image, under an overlay in memory."""

from __future__ import annotations

import os

import click

from runsc.commands.spec import standard_mounts
from runsc.containers import console
from runsc.errors import RuntimeFailure
from runsc.launch import isolation, launch
from runsc.launch.configure import Wishes
from runsc.oci import convert, spec
from runsc.options import Globals


def document(
    root: str, cwd: str, args: tuple[str, ...], capabilities: list[str], *, terminal: bool = False
) -> spec.Spec:
    """The container that such a command is."""
    return spec.Spec(
        oci_version="1.2.0",
        process=spec.Process(
            terminal=terminal,
            user=spec.User(0, 0),
            args=list(args),
            env=[f"{name}={value}" for name, value in os.environ.items()],
            cwd=cwd,
            capabilities=spec.CapabilitySets(
                bounding=capabilities, effective=capabilities, permitted=capabilities
            ),
        ),
        root=spec.Root(root),
        hostname=os.uname().nodename,
        mounts=standard_mounts(),
    )


PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Of an image that names none, as engines have it."""
HELP = """Run a program over your own files, in a sandbox.

It sees the files of the host. What it writes stays in memory and is gone afterwards. It has no
network but itself, unless `--network=host` stands before `do`, or, for an ordinary user and with
passt(1), `--network=sandbox`. At a terminal it has one of its own, of which Ctrl-C and the like
work as usual; runsc ends with its exit code.

\b
Examples:
  runsc do bash                            a shell to try things in
  runsc do --cwd /src make test            in another directory
  runsc do --root ./rootfs /bin/sh         over another tree
  runsc do --image alpine.tar sh           over an image: docs/images.md
  runsc --network=host do python3 get.py   with the host's network
"""


@click.command(
    help=HELP,
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
)
@click.option(
    "--root",
    metavar="DIR",
    help="The tree that it sees as /. Default: all of the host's.",
)
@click.option(
    "--image",
    metavar="IMAGE",
    help="An image instead: an archive of docker save or skopeo, a tar of a root, a file of EROFS,"
    " or a name that podman or Docker knows. It says what runs, unless COMMAND does.",
)
@click.option("--cwd", metavar="DIR", help="Where it starts. Default: here, or as the image says.")
@click.option(
    "--policy",
    metavar="FILE",
    help="Who decides on its system calls: a Python module, or rules as TOML: docs/policies.md.",
)
@click.option("--quiet", "-q", is_flag=True, help="No warnings of runsc.")
@click.argument("args", nargs=-1, metavar="COMMAND [ARG]...")
@click.pass_obj
def command(
    flags: Globals,
    root: str | None,
    image: str | None,
    cwd: str | None,
    policy: str | None,
    quiet: bool,
    args: tuple[str, ...],
) -> None:
    """Make a bundle in memory and run it."""
    if image is not None and root is not None:
        raise click.UsageError("--root and --image: only one of them")
    terminal = console.is_ours()
    if image is not None:
        made = _over_image(image, cwd, args, terminal=terminal)
    else:
        made = _over_tree(root or "/", cwd, args, terminal=terminal)
    assert made.root is not None
    if flags.network == "sandbox":
        made.linux = _plugged(flags)
    if not terminal and os.isatty(0) and not console.is_foreground(0):
        _read_nothing()
    container = convert.container("/", made, "memory", _nothing if quiet else flags.log.warning)
    name = f"runsc-do-{os.getpid()}"
    identity = launch.Identity(
        name, made.root.path, container.exports[0].path, made.oci_version,
        {},
    )
    if policy is not None:
        from runsc.launch.policy import mark  # noqa: PLC0415  few have one

        mark(identity.annotations, policy)
    raise click.exceptions.Exit(launch.run(flags, identity, container, Wishes(as_program=True)))


def _over_tree(root: str, cwd: str | None, args: tuple[str, ...], *, terminal: bool) -> spec.Spec:
    if not args:
        raise click.UsageError("Missing argument 'COMMAND [ARG]...'.")
    if not os.path.isdir(root):
        raise RuntimeFailure(f"--root {root}: no such directory")
    where = cwd or os.getcwd()
    if not os.path.isdir(os.path.join(root, where.lstrip("/"))):
        if cwd is not None:
            raise RuntimeFailure(f"--cwd {cwd}: no such directory in {root}")
        where = "/"
    return document(root, where, args, sorted(convert.CAPABILITIES), terminal=terminal)


def _over_image(
    image: str, cwd: str | None, args: tuple[str, ...], *, terminal: bool
) -> spec.Spec:
    """As engines run one: what is given stands for its Cmd, behind its Entrypoint."""
    from runsc.images import root_of  # noqa: PLC0415  few ask for one

    found = root_of(image)
    config, ids = found.config, found.ids()
    words = config.entrypoint + (args or config.cmd)
    if not words:
        raise RuntimeFailure(f"image {image} names no program: say which one")
    where = os.path.join("/", cwd or config.working_dir)
    capabilities = sorted(convert.CAPABILITIES)
    made = document(str(found.path), where, words, capabilities, terminal=terminal)
    process = made.process
    assert process is not None
    process.user = spec.User(ids.uid, ids.gid, additional_gids=list(ids.groups))
    if ids.uid:
        process.capabilities = spec.CapabilitySets(bounding=capabilities)
    said = {variable.partition("=")[0] for variable in config.env}
    others = [PATH]
    if terminal and "TERM" in os.environ:
        others.append(f"TERM={os.environ['TERM']}")
    process.env = [variable for variable in config.env if variable.find("=") > 0]
    process.env += [each for each in others if each.partition("=")[0] not in said]
    return made


def _plugged(flags: Globals) -> spec.Linux:
    """What is asked for is plugged into a network namespace."""
    if isolation.is_privileged():
        flags.log.warning("--network=sandbox: nobody plugs anything into the network of `do`")
    return spec.Linux(namespaces=[spec.Namespace("network")])


def _read_nothing() -> None:
    """In a shell's background: what is typed is the shell's, as after `&` in a script."""
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _nothing(message: str) -> None:
    """Messages that --quiet drops."""
