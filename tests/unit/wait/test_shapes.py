"""The kernel waits in three shapes, and this knows no others: sentry/wait/README.md.

A plain operation that raises NotNow; a `Sleep`; a coroutine, for what is listed below and why.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[3]
SEQUENCES: Final = {
    "boot/first_process.py": "the first program is found, loaded and started",
    "boot/further.py": "a container is made beside what runs",
    "boot/gofers.py": "a Gofer is asked for what is mounted next",
    "boot/networks.py": "a link is plugged in, or interfaces are listed and followed",
    "boot/restoring.py": "what a snapshot has is made, one after the other",
    "boot/tmpcopyup.py": "a tree is copied",
    "boot/tree.py": "the mounts of a container are made one after the other",
    "boot/uplinks.py": "the first interface brings links; resolv.conf is opened, then read",
    "control/checkpointing.py": "all stand, then records are made, then pages written",
    "control/execution.py": "a program of `exec` is found and loaded",
    "control/files.py": "a file is opened, then read and written from or to a pipe",
    "control/forwarding.py": "a connection is made, then bytes go both ways",
    "control/reading.py": "a file is opened, then read and written to a pipe",
    "control/serving.py": "a server is asked what it has, then that gets a place",
    "control/syncing.py": "file systems of a container, one after the other",
    "control/trees.py": "a tree is walked, name by name",
    "control/watching.py": "a directory is opened, then each event told",
    "fs/devpts/console.py": "what is printed goes to the host's terminal, as much as it takes",
    "fs/devpts/files.py": "VTIME: a new deadline after every byte",
    "fs/erofs/file.py": "pages of a mapping are read one after the other",
    "fs/erofs/filesystem.py": "an image is opened, then its superblock and its root are read",
    "fs/erofs/image.py": "a block is read, in as many reads as the file takes",
    "fs/erofs/inode.py": "a directory is read block by block",
    "fs/erofs/unpacked.py": "an extent is fetched, then unpacked in steps, one at a time",
    "fs/fanotify.py": "an event is waited for, then its file is opened",
    "fs/fuse/connection.py": "a request: its answer, or a signal, which the server is told of",
    "fs/fuse/file.py": "stores of mappings go to a server before FLUSH and RELEASE",
    "fs/fuse/pages.py": "pages are asked for, or one is sent",
    "fs/gofer/arrival.py": "a new Gofer: its version, its roots, its queue",
    "fs/gofer/file.py": "stores of mappings go to a server before a file is closed",
    "fs/gofer/handles.py": "a read by a thread, piece by piece",
    "fs/gofer/hearing.py": "a new Gofer: a session that hears of others",
    "fs/gofer/host_fifo.py": "the other end of a FIFO of the host is waited for",
    "fs/gofer/pages.py": "pages are asked for piece by piece, or one is sent so",
    "fs/gofer/regular.py": "who waits while stores of mappings go keeps the file open",
    "fs/gofer/session.py": "a request: a free place, the sending, the reply",
    "fs/host/file.py": "descriptors of the host: ready, then the call, which may not be ready",
    "fs/layers/above.py": "a change of an upper layer, below the locks of its directories",
    "fs/layers/copyup.py": "copy-up: directories above, the bytes, the attributes, the name",
    "fs/layers/directory.py": "a change of a name: what layers have, copies, marks, the change",
    "fs/layers/filesystem.py": "an overlay is mounted: its layers are found, and looked at",
    "fs/layers/listing.py": "the names of one layer after the other",
    "fs/layers/search.py": "a name is looked for in one layer after the other",
    "fs/layers/work.py": "a work directory is emptied, made, and tried",
    "fs/overlay/copyup.py": "copy-up: parents, a twin, its data, its attributes, its name",
    "fs/overlay/differences.py": "what has changed is told, name by name",
    "fs/page_cache.py": "a page is asked for; what was stored is sent, page by page",
    "fs/pipe/file.py": "what an open of a FIFO waits for, and gives back if a signal comes",
    "fs/proc/process_memory.py": "a page of another process is read",
    "fs/pseudo/files.py": "a text is made, in steps where it is long",
    "fs/served/device.py": "a server is asked, then waited for, then asked again",
    "fs/served/filesystem.py": "a new server: its version, its root; its end",
    "fs/served/proc.py": "a new server: its version, its root",
    "inject/calls.py": "a call that comes late",
    "kernel/accounting.py": "a record is written after a look at the room",
    "kernel/accounting_file.py": "the record, then another look",
    "kernel/core_dump.py": "the threads stop, then the file is written in steps",
    "kernel/job.py": "the end of all its processes",
    "kernel/kernel.py": "memory is made free, then it is looked again",
    "kernel/ptrace/tracee.py": "stops in the middle of a call, which goes on then",
    "kernel/seccomp.py": "the supervisor answers, then the call is made",
    "kernel/seccomp_listener.py": "asked, received, answered: another sleep after each",
    "kernel/standing.py": "all tasks of a container are waited for",
    "kernel/sysv_ipc.py": "SEM_UNDO of an exit: kernel/sysv_undo.py",
    "kernel/sysv_undo.py": "semaphores are given back set by set, under the lock of each",
    "kernel/task.py": "what a tracer does with a task: kernel/ptrace/tracee.py",
    "kernel/task_clone.py": "clone: memory, stores, a tracer's stop, vfork's end, another stop",
    "kernel/task_exit.py": "exit: memory and descriptors go, in steps",
    "kernel/user_dispatch.py": "a page is fetched, with the registers as before the call",
    "loader/digest.py": "a program is read and hashed, piece by piece",
    "loader/execve.py": "execve: the other threads end, the image is loaded",
    "loader/load.py": "an image is loaded: headers, interpreter, segments",
    "loader/privileges.py": "attributes of the program's file are asked for",
    "loader/segments.py": "segments are mapped, their ends cleared",
    "net/host/nameservers.py": "a socket is asked for, then a question sent",
    "net/host/socket.py": "a socket is made by another process, then asked what it is",
    "net/host/view.py": "the host's interfaces are listed, then shown in steps",
    "net/inet/broker_stream.py": "bytes of one side are taken, then the other one gets them",
    "net/inet/brokers.py": "a dialer is asked for one connection after the other",
    "net/inet/entrances.py": "sockets are opened and closed by another process, one by one",
    "net/inet/tcp.py": "MSG_FASTOPEN: connect, then send",
    "net/link/follow.py": "packet sockets are made by another process, routes taken in in steps",
    "net/namespace.py": "the host's interfaces are listed and followed",
    "net/packet_socket.py": "frames of a ring are sent, each once those before have gone",
    "net/packets.py": "what a view of the host's interfaces is to do",
    "net/unix_host.py": "a service of the host: bytes that have come, then who takes them",
    "platform/host_io.py": "a call by a thread: a free place, then the answer",
    "policy/engine.py": "a handler runs, and waits for answers from outside",
    "policy/judge.py": "a program is hashed, then judged",
    "policy/layer.py": "the rest of a call that is judged: execve",
    "policy/outside.py": "somebody outside is asked until a deadline",
    "state/filling.py": "pages are read, a piece at a time",
    "state/growing.py": "files of a tree, one after the other",
    "state/layering.py": "layers come first, then what lies over them",
    "state/layers.py": "file after file of an overlay",
    "state/loader.py": "a path of a snapshot, name by name",
    "state/loading.py": "processes of a snapshot, one after the other",
    "state/mounts.py": "records of mounts, one after the other",
    "state/open_files.py": "names of a directory that is being read, in steps",
    "state/opening.py": "open files of a snapshot, one after the other",
    "state/others.py": "file after file of the other containers",
    "state/pages.py": "pages are written, a piece at a time",
    "state/remembering.py": "mappings, one after the other",
    "state/remounting.py": "mounts of a snapshot, each behind the one that it is on",
    "state/saver.py": "records of open files that were found, one after the other",
    "state/saving.py": "processes and mappings become records, in steps",
    "state/sockets.py": "a socket is made as open files are",
    "state/sysv.py": "object after object is taken off again",
    "state/trees.py": "file after file of a tree",
    "syscalls/files/aio.py": "requests are carried out one by one",
    "syscalls/files/copy.py": "bytes go from one file to another, piece by piece",
    "syscalls/files/open.py": "close_range: descriptors in steps, then what they leave to do",
    "syscalls/memory/mapping.py": "msync: every file in turn; mincore: much, in steps",
    "syscalls/memory/stores.py": "mappings go, then what was stored by them is sent",
    "syscalls/processes/process.py": "clone and execve, see there",
    "syscalls/sockets/messages.py": "sendmmsg and recvmmsg: many messages",
    "syscalls/system/info.py": "getrandom: much, in steps, with others in between",
    "syscalls/system/memory.py": "process_vm_readv: much, in steps, with others in between",
    "syscalls/system/privileged.py": "acct: an open, then a look at the room",
    "vfs/exec.py": "a program's first bytes are read",
    "vfs/leases.py": "what an open waits for: the holders, or their time",
    "vfs/leftovers.py": "what a close leaves to do, in steps",
    "vfs/mounts.py": "the mounts of a namespace that ends go, in steps",
    "vfs/pieces.py": "a long read or write, piece by piece, with others in between",
    "vfs/regular.py": "a write of many pieces, under the lock of the file; a long read",
    "watch/calls.py": "the rest of a call that somebody listens to, then its end is told",
    "watch/events.py": "a program is hashed, if somebody asks for it",
}
"""The modules with coroutines, and the sequence that each is."""
LEAVES: Final = {
    "fs/fuse/connection.py", "fs/gofer/session.py", "kernel/kernel.py",
    "kernel/seccomp_listener.py",
    "platform/host_io.py", "syscalls/files/aio.py", "syscalls/files/copy.py",
    "syscalls/system/info.py", "syscalls/system/memory.py",
}  # fmt: skip
"""Who may put the fiber itself to sleep: what is woken by neither a queue nor an object's state,
and long work that lets others run."""
TWINS: Final = ("_now", "_io", "_later")
MIXED: Final = ("Awaitable", "Coroutine")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, ast.Module]:
    """The trees of sentry/, without those of sentry/wait."""
    base = ROOT / "sentry"
    names = {path.relative_to(base).as_posix(): path for path in sorted(base.rglob("*.py"))}
    return {
        name: ast.parse(path.read_text())
        for name, path in names.items()
        if not name.startswith("wait/")
    }


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def called(tree: ast.AST) -> set[str]:
    """The plain names that are called."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {func.id for func in calls if isinstance(func, ast.Name)}


def mixes(annotation: ast.expr) -> bool:
    """Whether a type is a coroutine or something else."""
    parts = ast.unparse(annotation)
    return isinstance(annotation, ast.BinOp) and any(name in parts for name in MIXED)


def loops_on(tree: ast.AST) -> Iterator[int]:
    """Lines of loops that go on after EAGAIN."""
    for loop in ast.walk(tree):
        if not isinstance(loop, ast.While):
            continue
        for handler in ast.walk(loop):
            if isinstance(handler, ast.ExceptHandler) and handler.type is not None:
                ends = isinstance(handler.body[-1], ast.Break | ast.Return | ast.Raise)
                if "EAGAIN" in ast.unparse(handler.type) and not ends:
                    yield loop.lineno


def twins(tree: ast.AST) -> Iterator[str]:
    """Methods that stand beside one of the same name."""
    for owner in ast.walk(tree):
        if isinstance(owner, ast.ClassDef):
            names = {node.name for node in owner.body if isinstance(node, Function)}
            both = {name + end for name in names for end in TWINS} & names
            yield from (f"{owner.name}.{name}" for name in sorted(both))


def test_coroutines_are_listed_with_their_sequence() -> None:
    found = {
        name
        for name, tree in modules().items()
        if any(isinstance(node, ast.AsyncFunctionDef) for node in functions(tree))
    }
    assert found == set(SEQUENCES)


def test_only_result_is_a_value_or_the_rest_of_a_call() -> None:
    found = {
        f"{name}:{node.name}"
        for name, tree in modules().items()
        for node in functions(tree)
        if node.returns is not None and mixes(node.returns)
    }
    aliases = {
        f"{name}:{ast.unparse(node.targets[0])}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and mixes(node.value)
    }
    assert not found
    assert aliases == {"vfs/file.py:Result", "net/family.py:Made"}


def circles(tree: ast.AST) -> Iterator[str]:
    """Functions that raise a NotNow which a variable of theirs keeps: its traceback has them, and
    what the call has kept (inodes, files) stays until garbage is collected."""
    for function in functions(tree):
        made, raised, gone = set[str](), set[str](), set[str]()
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and "NotNow" in called(node.value):
                made |= {ast.unparse(target) for target in node.targets}
            elif isinstance(node, ast.Raise) and node.exc is not None:
                raised.add(ast.unparse(node.exc))
            elif isinstance(node, ast.Delete):
                gone |= {ast.unparse(target) for target in node.targets}
        if made & raised - gone:
            yield function.name


def test_fibers_are_parked_in_few_places() -> None:
    found = {name for name, tree in modules().items() if called(tree) & {"park", "this_fiber"}}
    assert found == LEAVES


@pytest.mark.parametrize("search", [loops_on, twins, circles])
def test_nobody_waits_in_another_shape(search: object) -> None:
    assert callable(search)
    assert not [f"{name}: {what}" for name, tree in modules().items() for what in search(tree)]


@pytest.mark.parametrize(
    ("code", "search", "found"),
    [
        ("while 1:\n try: f()\n except EAGAIN: pass", loops_on, 1),
        ("while 1:\n try: f()\n except EAGAIN: break", loops_on, 0),
        ("class A:\n def x(self): 0\n def x_now(self): 0", twins, 1),
        ("class A:\n def lookup(self): 0\n def lookup_cached(self): 0", twins, 0),
        ("def f():\n need = NotNow(w)\n raise need", circles, 1),
        ("def f():\n need = NotNow(w)\n try: raise need\n finally: del need", circles, 0),
        ("def f():\n need = NotNow(w)\n return need", circles, 0),
    ],
)
def test_search_finds_what_it_looks_for(code: str, search: object, found: int) -> None:
    assert callable(search)
    assert len([*search(ast.parse(code))]) == found
