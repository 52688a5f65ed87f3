"""What the files of a cgroup say, and what is done when one is written: cgroup-v2.rst.

The cgroups themselves are `sentry.kernel.cgroup`; a file gets the one that it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from sentry import written
from sentry.abi.limits import INT_MAX
from sentry.auth.permissions import MAY_WRITE, may_access
from sentry.errors import EACCES, EINVAL, ENOENT, EOPNOTSUPP, ERANGE, ESRCH
from sentry.fs.cgroup.container import CONTAINER, TOP_CONTROLLERS
from sentry.fs.pseudo.files import Pieces, Text

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.wait.steps import Steps

Cgroup = Any
"""sentry.kernel.cgroup.Cgroup"""
PIDS_MAX: Final = 4194304
"""PID_MAX_LIMIT: more is the same as no limit, and refused."""
MAX: Final = "max\n"
CONTROLLERS: Final = ("cpuset", "cpu", "memory", "pids", "io", "hugetlb", "rdma", "misc", "dmem")
"""Names that Linux knows."""


class View(Struct, frozen=True):
    """A file that is read or written: of which cgroup, by whom."""

    cgroup: Cgroup
    opener: Any
    """The task that opened it."""
    creds: Credentials | None = None
    """What the opener's rights were then."""
    writer: Any = None


class File(Struct, frozen=True):
    """One of the files."""

    show: Callable[[View], Text] | None
    store: Callable[[View, str], Steps[None] | None] | None = None
    controller: str = ""
    """It is there where this controller was given."""
    delegated: bool = False
    """It may be written at the root of a namespace, from inside."""
    changes: str = ""
    """The field of the cgroup that counts changes."""

    @property
    def mode(self) -> int:
        """rw-r--r--, as far as it can be."""
        return (0o444 if self.show is not None else 0) | (0o200 if self.store is not None else 0)


# --- numbers


def integer(text: str) -> int:
    """kstrtoint(text, 0). Raises: EINVAL, ERANGE."""
    value = _number(text)
    if not -INT_MAX - 1 <= value <= INT_MAX:
        raise ERANGE(f"{text[:40]!r}")
    return value


def _number(text: str) -> int:
    """kstrtoll(text, 0). Raises: EINVAL."""
    try:
        return written.integer(text)
    except ValueError:
        raise EINVAL(f"{text[:40]!r}") from None


def bounded(text: str) -> int | None:
    """A number, or "max". Raises: EINVAL, ERANGE."""
    if text == "max":
        return None
    value = integer(text)
    if value < 0:
        raise ERANGE(f"{value}")
    return value


def shown(value: int | None) -> str:
    """A number, or "max"."""
    return MAX if value is None else f"{value}\n"


# --- processes


def procs(view: View) -> Pieces:
    """The processes that live, as the reader's PID namespace numbers them."""
    return _numbers(view, lambda group: (group.tgid,))


def threads(view: View) -> Pieces:
    """Their threads."""
    return _numbers(view, lambda group: [task.tid for task in group.tasks])


def _numbers(view: View, of: Callable[[Any], Iterable[int]]) -> Pieces:
    numbers: list[int] = []
    for group in list(view.cgroup.members):
        numbers += map(view.opener.pids.of, of(group))
        yield ""
    for number in sorted(numbers):
        yield f"{number}\n"


def check_attach(creds: Credentials, root: Cgroup, old: Cgroup, new: Cgroup) -> None:
    """cgroup_attach_permissions(): the move of a process, asked for in a namespace with this root.

    The file of the nearest cgroup that both are below must be writable. Raises: EACCES, EBUSY,
    ENODEV, ENOENT for what the namespace does not show.
    """
    if not new.is_below(root) or not old.is_below(root):
        raise ENOENT("outside of the namespace")
    common = next(at for at in new.up() if old.is_below(at))
    look = common.look.get(b"cgroup.procs")
    mode, uid, gid = (look.mode, look.uid, look.gid) if look is not None else (0o644, 0, 0)
    if not may_access(creds, mode, uid, gid, MAY_WRITE):
        raise EACCES("cgroup.procs of the common ancestor")
    new.check_new_members()


def move(view: View, text: str) -> None:
    """cgroup.procs: a process, or 0 for the writer's. Raises: EINVAL, ESRCH, EACCES, EBUSY."""
    group = found(view, text).group
    assert view.creds is not None
    check_attach(view.creds, view.opener.ns.cgroup.root, group.cgroup, view.cgroup)
    view.cgroup.take(group)


def move_thread(view: View, text: str) -> None:
    """cgroup.threads: between cgroups that are not threaded there is nothing to move."""
    task = found(view, text)
    assert view.creds is not None
    check_attach(view.creds, view.opener.ns.cgroup.root, task.group.cgroup, view.cgroup)
    if task.group.cgroup is not view.cgroup:
        raise EOPNOTSUPP("threads of a process are in one cgroup")


def found(view: View, text: str) -> Any:
    """The task that a text names. Raises: EINVAL, ESRCH."""
    try:
        number = integer(text)
    except ERANGE:
        raise EINVAL(text) from None
    if number < 0:
        raise EINVAL(text)
    task = view.writer.pids.task(number) if number else view.writer
    if task is None:
        group = view.writer.pids.group(number)
        task = group.leader if group is not None else None
    if task is None:
        raise ESRCH(text)
    return task


# --- the tree


def controllers(view: View) -> str:
    """At the top those of the container, whose limits the host enforces."""
    top = view.cgroup.parent is None
    return " ".join(TOP_CONTROLLERS if top else view.cgroup.controllers) + "\n"


def control(view: View, text: str) -> None:
    """cgroup.subtree_control: "+pids", "-pids". Raises: EINVAL, ENOENT, EBUSY."""
    give: set[str] = set()
    take: set[str] = set()
    for word in text.split(" "):
        if not word:
            continue
        if word[0] not in "+-" or word[1:] not in CONTROLLERS:
            raise EINVAL(word)
        (give if word[0] == "+" else take).add(word[1:])
        (take if word[0] == "+" else give).discard(word[1:])
    view.cgroup.control(give, take)


def set_type(view: View, text: str) -> None:
    """cgroup.type: there are no threaded cgroups. Raises: EINVAL, EOPNOTSUPP."""
    if text != "threaded":
        raise EINVAL(text)
    raise EOPNOTSUPP("threaded cgroups")


def set_max_depth(view: View, text: str) -> None:
    """How deep it may go below."""
    view.cgroup.max_depth = bounded(text)


def set_max_descendants(view: View, text: str) -> None:
    """How many there may be below."""
    view.cgroup.max_descendants = bounded(text)


def stat(view: View) -> str:
    """One that was removed is gone at once."""
    return f"nr_descendants {view.cgroup.descendants}\nnr_dying_descendants 0\n"


def events(view: View) -> str:
    """Told to poll(2) and inotify(7) when one of them changes."""
    return f"populated {int(view.cgroup.populated)}\nfrozen {int(view.cgroup.frozen)}\n"


def set_freeze(view: View, text: str) -> Steps[None]:
    """cgroup.freeze. Raises: EINVAL, ERANGE."""
    value = integer(text)
    if value not in (0, 1):
        raise ERANGE(text)
    return view.cgroup.set_freeze(bool(value))  # type: ignore[no-any-return]


def kill(view: View, text: str) -> Steps[None]:
    """cgroup.kill. Raises: EINVAL, ERANGE."""
    if integer(text) != 1:
        raise ERANGE(text)
    return view.cgroup.kill(view.writer)  # type: ignore[no-any-return]


# --- use


def cpu_stat(view: View) -> Pieces:
    """CPU time, whether there is a controller or not."""
    user, system = yield from view.cgroup.cpu_ns()
    rows = {
        "usage_usec": (user + system) // 1000,
        "user_usec": user // 1000,
        "system_usec": system // 1000,
    }
    yield "".join(f"{name} {value}\n" for name, value in rows.items())


def set_pids_max(view: View, text: str) -> None:
    """pids_max_write(). Raises: EINVAL."""
    if text == "max":
        view.cgroup.pids_max = None
        return
    value = _number(text)
    if not 0 <= value <= PIDS_MAX:
        raise EINVAL(text[:40])
    view.cgroup.pids_max = value


FILES: Final[dict[str, File]] = {
    "cgroup.controllers": File(controllers),
    "cgroup.events": File(events, changes="events"),
    "cgroup.freeze": File(lambda view: f"{int(view.cgroup.freeze)}\n", set_freeze),
    "cgroup.kill": File(None, kill),
    "cgroup.max.depth": File(lambda view: shown(view.cgroup.max_depth), set_max_depth),
    "cgroup.max.descendants": File(
        lambda view: shown(view.cgroup.max_descendants), set_max_descendants
    ),
    "cgroup.procs": File(procs, move, delegated=True),
    "cgroup.stat": File(stat),
    "cgroup.subtree_control": File(
        lambda view: "".join(f"{name}\n" for name in view.cgroup.enabled), control, delegated=True
    ),
    "cgroup.threads": File(threads, move_thread, delegated=True),
    "cgroup.type": File(lambda _: "domain\n", set_type),
    "cpu.stat": File(cpu_stat),
    "pids.current": File(lambda view: f"{view.cgroup.charged}\n", controller="pids"),
    "pids.events": File(
        lambda view: f"max {view.cgroup.pids_hits}\n", controller="pids", changes="pids_events"
    ),
    "pids.events.local": File(
        lambda view: f"max {view.cgroup.pids_hits_here}\n", controller="pids"
    ),
    "pids.max": File(lambda view: shown(view.cgroup.pids_max), set_pids_max, controller="pids"),
    "pids.peak": File(lambda view: f"{view.cgroup.peak}\n", controller="pids"),
}
"""Of every cgroup; the container's own has those of `container.py`, too, and instead."""


def files_of(cgroup: Cgroup) -> dict[str, File]:
    """Those that are there now."""
    if cgroup.parent is None:
        top = {
            name: File(
                lambda view, show=show: show(view.opener.kernel, view.cgroup.container)  # type: ignore[misc]
            )
            for name, show in CONTAINER.items()
        }
        return {**FILES, **top}
    given = cgroup.parent.enabled
    return {n: f for n, f in FILES.items() if not f.controller or f.controller in given}
