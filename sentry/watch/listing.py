"""docs/points.md: all points as a page. `python -m sentry.watch.listing > docs/points.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sentry.protobuf import fields
from sentry.syscalls import table  # noqa: F401  all declarations
from sentry.syscalls.registry import ABSENT, NUMBERS, TABLE
from sentry.watch import context
from sentry.watch.points import KERNEL, LAST_RAW
from sentry.watch.schemas import SCHEMAS
from sentry.watch.sinks import SINKS

OTHERS: Final = {
    "syscall/vfork/exit": "when the child has let go of the memory, as the call ends for the"
    " program; gVisor's comes before the child runs",
    "syscall/sysno/15/exit (rt_sigreturn)": "with the RAX that is restored, as Linux's tracepoint;"
    " gVisor's is 0",
    "calls that need no kernel": "clock_gettime(2), gettimeofday(2), time(2) and getcpu(2) of the"
    " vDSO are no calls, here as there. getpid(2) and the like are answered in the guest unless"
    " somebody listens to one of them",
    "old_limit of prlimit64, old_value of timerfd_settime, cur_value of timerfd_gettime": "at the"
    " end alone; gVisor tells at the beginning what happens to be in that memory",
    "address of accept, accept4": "who has connected, at the end; gVisor's is what happens to be in"
    " that memory",
    "sentry/execve": "also of programs of `exec`, which gVisor does not tell",
    "sentry/signal_delivered": "what ends a process at once is not delivered: its status in"
    " sentry/task_exit says which signal it was",
    "messages of gVisor after July 2024": "of mmap, listen and ptrace (there are the points, with"
    " the message Syscall), sentry/mmap, and fields that messages have got since: not there",
}
"""What is not as gVisor's documentation says, or where it says nothing."""


def page() -> Iterator[str]:
    """The lines."""
    yield "# Points"
    yield ""
    yield (
        "What a trace session can listen to: [monitoring.md](monitoring.md). Made by `python -m"
        " sentry.watch.listing`; `runsc trace metadata` prints every name."
    )
    yield ""
    yield "Context fields, of every point unless the table says otherwise: " + ", ".join(
        f"`{name}`" for name in context.FIELDS
    ) + ". Sinks: " + ", ".join(f"`{name}`" for name in SINKS) + "."
    yield ""
    yield "## Of the kernel"
    yield ""
    yield "| point | message type | when | optional fields |"
    yield "|---|---|---|---|"
    for point in KERNEL.values():
        less = [name for name in context.FIELDS if name not in point.contexts]
        without = f"; no context field {', '.join(f'`{name}`' for name in less)}" if less else ""
        number = f"{point.type:#x}" if point.type >= 0x8000 else str(int(point.type))
        yield f"| `{point.name}` | {number} | {point.says}{without} | {_listed(point.optional)} |"
    yield ""
    yield "## System calls that have a message of gVisor's"
    yield ""
    yield "`syscall/NAME/enter` and `syscall/NAME/exit`."
    yield ""
    yield "| call | message type | fields | optional fields |"
    yield "|---|---|---|---|"
    numbers = {name: number for number, name in NUMBERS.items()}
    for name in sorted(SCHEMAS, key=numbers.__getitem__):
        schema = SCHEMAS[name]
        known = [each.name for each in fields(schema.kind)[3:] if each.name in schema.sources]
        told = [each for each in known if each not in schema.optional]
        kind = f"{int(schema.type)} {schema.kind.__name__}"
        yield f"| `{name}` | {kind} | {_listed(told)} | {_listed(schema.optional)} |"
    yield ""
    yield "## All other system calls"
    yield ""
    others = sorted(
        each.name.rstrip("_") for each in TABLE
        if each is not None and each.name.rstrip("_") not in SCHEMAS
    )  # fmt: skip
    yield (
        "`syscall/NAME/enter` and `/exit` too, with message type 6 (Syscall): the registers over"
        " gVisor's wire, in JSON also `name`, and `args` by the names of the declarations, paths as"
        f" texts. {len(others)} calls: " + ", ".join(others) + "."
    )
    yield ""
    yield (
        f"`syscall/sysno/N/enter` and `/exit` of every number up to {LAST_RAW}, whether there is"
        f" such a call or not ({len(ABSENT)} of Linux's are not), with the registers alone."
    )
    yield ""
    yield "## Where it is not as with gVisor"
    yield ""
    yield "| what | how |"
    yield "|---|---|"
    for what, how in OTHERS.items():
        yield f"| {what} | {how} |"


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    print("\n".join(page()))
