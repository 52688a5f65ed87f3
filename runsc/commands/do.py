"""runsc do: run a command over the host's files, or an image, under an overlay in memory."""

from __future__ import annotations

import os
from typing import Any

import click
import msgspec

from runsc.commands import do_flags, do_values
from runsc.commands.spec import standard_mounts
from runsc.containers import console
from runsc.errors import RuntimeFailure
from runsc.launch import bundle, isolation, launch
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


CALLER = ("HOME", "USER", "LOGNAME")
"""Variables that say who called: not for another user, who has the HOME of /etc/passwd then."""
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Of an image that names none, as engines have it."""
HELP = """Run a program over your own files, in a sandbox.

It sees the files of the host. What it writes stays in memory and is gone afterwards, but for what
it writes to a --volume. It has no network but itself, unless --network says so. At a terminal it
has one of its own, of which Ctrl-C and the like work as usual; runsc ends with its exit code.
Flags of `docker run` mean the same.

\b
Examples:
  runsc do bash                           a shell to try things in
  runsc do -w /src make test              in another directory
  runsc do -v ./out:/out make install     where /out is ./out, and kept
  runsc do --python script.py             a Python script
  runsc do -p 8080:80 -e DEBUG=1 ./serve  port 8080 leads to 80 inside
  runsc do --network host curl https://example.org
  runsc do --root ./rootfs /bin/sh        over another tree
  runsc do --image alpine.tar sh          over an image: docs/images.md
"""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What was said behind `do`."""

    root: str | None
    image: str | None
    cwd: str | None
    python: bool
    volume: tuple[str, ...]
    publish: tuple[str, ...]
    env: tuple[str, ...]
    env_file: tuple[str, ...]
    user: str | None
    network: str | None
    memory: str | None
    cpus: str | None
    read_only: bool
    hostname: str | None
    policy: str | None
    quiet: bool
    args: tuple[str, ...]


@click.command(
    cls=do_flags.Command,
    help=HELP,
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
)
@do_flags.flags
@click.argument("args", nargs=-1, metavar="COMMAND [ARG]...")
@click.pass_obj
def command(flags: Globals, /, **given: Any) -> None:
    """Make a bundle in memory and run it."""
    asked = Asked(**given)
    if asked.image is not None and asked.root is not None:
        raise click.UsageError("--root and --image: only one of them")
    flags = _with_own(flags, asked)
    if asked.quiet:
        flags.log.be_quiet()
    terminal = console.is_ours()
    volumes = [do_values.volume(each) for each in asked.volume]
    if asked.image is not None:
        made = _over_image(asked.image, asked, terminal=terminal)
    else:
        root = "/" if asked.root is None else asked.root
        made = _over_tree(root, asked, volumes, terminal=terminal)
    _complete(made, asked, volumes)
    if flags.network == "sandbox":
        _plug(made, flags)
    if not terminal and os.isatty(0) and not console.is_foreground(0):
        _read_nothing()
    container = bundle.as_told(flags, convert.container("/", made, "memory", flags.log.warning))
    name = f"runsc-do-{os.getpid()}"
    assert made.root is not None
    identity = launch.Identity(
        name, made.root.path, container.exports[0].path, made.oci_version, {}
    )
    if asked.policy is not None:
        from runsc.launch.policy import mark  # noqa: PLC0415  few have one

        mark(identity.annotations, asked.policy)
    raise click.exceptions.Exit(_run(flags, identity, container, asked.publish))


def _with_own(flags: Globals, asked: Asked) -> Globals:
    """With what is said behind `do` of things that can be said before it, too."""
    if asked.network is not None:
        _check_once("network", flags.network, asked.network)
        flags = flags.changed(network=asked.network)
    if asked.memory is not None:
        memory = convert.memory_size(asked.memory)
        _check_once("memory", flags.memory, memory)
        flags = flags.changed(memory=memory)
    return flags


def _check_once(name: str, before: object, behind: object) -> None:
    if before is not None and before != behind:
        raise click.UsageError(f"--{name} is there twice, before `do` and behind it: which one?")


def _run(
    flags: Globals, identity: launch.Identity, container: convert.Container, ports: tuple[str, ...]
) -> int:
    if not ports:
        return launch.run(flags, identity, container, Wishes(as_program=True))
    from runsc.launch import published  # noqa: PLC0415  few publish ports

    with published.serving(flags.store(), ports, outlives=False) as when_there:
        wishes = Wishes(as_program=True, when_there=when_there)
        return launch.run(flags, identity, container, wishes)


def _over_tree(root: str, asked: Asked, volumes: list[spec.Mount], *, terminal: bool) -> spec.Spec:
    args, environment = asked.args, _variables(asked)
    is_host = os.path.realpath(root) == "/"
    if asked.python:
        python = do_values.interpreter(os.environ | environment) if is_host else "python3"
        args = (python, *args)
    if not args:
        raise click.UsageError("Missing argument 'COMMAND [ARG]...'.")
    if not os.path.isdir(root):
        raise RuntimeFailure(f"--root {root}: no such directory")
    root = os.path.abspath(root)
    where = os.path.join(os.getcwd() if is_host else "/", asked.cwd or os.getcwd())
    if not do_values.is_folder(root, where, volumes):
        if asked.cwd is not None:
            raise RuntimeFailure(f"--cwd {asked.cwd}: no such directory in {root}")
        where = "/"
    made = document(root, where, args, sorted(convert.CAPABILITIES), terminal=terminal)
    assert made.process is not None
    if asked.user is not None:
        do_values.become(made.process, do_values.user(asked.user, root))
        do_values.drop_variables(made.process, CALLER)
    do_values.set_variables(made.process, environment)
    return made


def _over_image(image: str, asked: Asked, *, terminal: bool) -> spec.Spec:
    """As engines run one: what is given stands for its Cmd, behind its Entrypoint."""
    from runsc import progress  # noqa: PLC0415  few ask for one
    from runsc.images import root_of  # noqa: PLC0415

    with progress.shown() as tell:
        found = root_of(image, tell=progress.silent if asked.quiet else tell)
    config = found.config
    if asked.user is not None and found.digest is None and os.path.isdir(found.path):
        ids = do_values.user(asked.user, str(found.path))
    else:
        ids = found.ids(asked.user)
    words = config.entrypoint + (asked.args or config.cmd)
    if asked.python:
        words = ("python3", *asked.args)
    if not words:
        raise RuntimeFailure(f"image {image} names no program: say which one")
    where = os.path.join("/", asked.cwd or config.working_dir)
    capabilities = sorted(convert.CAPABILITIES)
    made = document(str(found.path), where, words, capabilities, terminal=terminal)
    process = made.process
    assert process is not None
    do_values.become(process, ids)
    said = {variable.partition("=")[0] for variable in config.env}
    others = [PATH]
    if terminal and "TERM" in os.environ:
        others.append(f"TERM={os.environ['TERM']}")
    process.env = [variable for variable in config.env if variable.find("=") > 0]
    process.env += [each for each in others if each.partition("=")[0] not in said]
    do_values.set_variables(process, _variables(asked))
    return made


def _variables(asked: Asked) -> dict[str, str]:
    return do_values.variables(asked.env_file, asked.env)


def _complete(made: spec.Spec, asked: Asked, volumes: list[spec.Mount]) -> None:
    """What does not depend on the root."""
    assert made.root is not None
    made.root.readonly = asked.read_only
    made.mounts = [*(made.mounts or ()), *volumes]
    made.linux = spec.Linux(namespaces=[])
    if asked.hostname is not None:
        made.hostname = do_values.host_name(asked.hostname)
        made.linux.namespaces = [spec.Namespace("uts")]
    if asked.cpus is not None:
        made.linux.resources = do_values.cpu_quota(asked.cpus)


def _plug(made: spec.Spec, flags: Globals) -> None:
    """What is asked for is plugged into a network namespace."""
    if isolation.is_privileged():
        flags.log.warning(
            "--network=sandbox: nobody plugs anything into the network of root's `do`, so it"
            " reaches itself alone; --network=host reaches what this machine does"
        )
    assert made.linux is not None
    made.linux.namespaces = [*(made.linux.namespaces or ()), spec.Namespace("network")]


def _read_nothing() -> None:
    """In a shell's background: what is typed is the shell's, as after `&` in a script."""
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
