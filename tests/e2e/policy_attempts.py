"""Policies that programs try to get round: policy_attempts.c. Loaded into a sandbox, not imported.

The process that makes the files has another name than those that try; so names decide.
"""

from runsc.policy import ALLOW, CHANGE, DENY, KILL, RESULT, Event, ask, log, on


def tries(event: Event) -> bool:
    return event.comm == "attempts"


def secret(*names: str):
    """A rule of its own for each folder."""

    def decorate(handler):
        for name in names:
            on("openat", path=f"/w/{name}/**")(handler)
        return handler

    return decorate


@secret(
    "dots", "directory", "relative", "symbolic", "symbolic_folder", "hard", "renamed",
    "renamed_folder", "renamed_over", "exchanged", "bound", "bound_above", "attached", "overlay",
    "new_root", "namespaced", "by_thread_root", "in_root", "by_handle", "creates", "dangling",
    "truncates", "nameless", "raced_path", "raced_link", "by_vfork",
)  # fmt: skip
def no_file(event: Event):
    return DENY("EACCES") if tries(event) else None


@secret("by_descriptor", "mapped")
def read_only(event: Event):
    return DENY("EACCES") if tries(event) and event.writes else None


@on("truncate", path="/w/truncates_path/*")
def no_truncation(event: Event):
    return DENY("EACCES")


@on.execve(path="/w/exec_*/program")
def no_program(event: Event):
    if "/exec_arguments/" in event.path:
        return DENY("EACCES") if "--evil" in event.argv else None
    return DENY("EACCES")


@on.execve(hash="@HASH@", path=("/tmp/**", "memfd:*"))
def no_such_contents(event: Event):
    return DENY("EACCES")


@on.connect(address=("127.0.0.1", "::1"), port=("7", 8))
def no_address(event: Event):
    return DENY("EACCES")


@on.connect(port=9)
def another_port(event: Event):
    return CHANGE(port=70)


@on.connect(path="/w/*")
def no_unix_socket(event: Event):
    return DENY("EACCES")


@on.call("ptrace")
def no_tracing(event: Event):
    return DENY("EACCES")


@on.call("getppid")
def other_parent(event: Event):
    return RESULT(4242)


@on.call("unshare", "clone", "clone3")
def no_user_namespaces(event: Event):
    flags = event.args.get("flags", 0)
    return DENY("EACCES") if event.call == "clone3" or flags & 0x10000000 else ALLOW


@secret("is_killed")
def kill(event: Event):
    return KILL if tries(event) else None


@secret("raises")
def raises(event: Event):
    return {}[event.path] if tries(event) else None


@secret("loops")
def loops(event: Event):
    while tries(event):
        pass


@secret("allocates")
def allocates(event: Event):
    found = []
    while tries(event):
        found.append(bytes(1 << 12))


@secret("recurses")
def recurses(event: Event):
    return recurses(event) if tries(event) else None


@secret("sleeps")
def sleeps(event: Event):
    if tries(event):
        import time  # noqa: PLC0415  it cannot

        time.sleep(1)


@secret("exits")
def exits(event: Event):
    if tries(event):
        raise SystemExit(0)


@secret("asks")
async def asks(event: Event):
    if tries(event):
        log("nobody answers")
        return await ask(str(event), deadline=0.01, otherwise=DENY("EACCES"))
