"""Policies: programs that try to get round them, and what a command line does with them."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import pytest

from runsc import Sandbox
from runsc.api import states
from tests.e2e.bundle import REPOSITORY, RUNSC, Bundle, Result, execute
from tests.e2e.client import Client
from tests.e2e.test_show import compiled

ATTEMPTS = Path(__file__).with_name("policy_attempts.c")
POLICY = Path(__file__).with_name("policy_attempts.py")
FAILED = {"raises", "loops", "allocates", "recurses", "sleeps", "exits"}
"""Their handlers: the call is denied as DENY denies it."""


def _bundle(tmp_path: Path, busybox: Path, program: Path, *args: str) -> Bundle:
    bundle = Bundle(tmp_path / "bundle", busybox).args("/program", *args)
    capabilities = bundle.document["process"]["capabilities"]
    for kind in ("bounding", "effective", "permitted"):
        capabilities[kind] += ["CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_DAC_READ_SEARCH"]
    bundle.document["mounts"] += [
        {"destination": "/program", "source": str(program), "options": ["bind", "ro"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/w", "type": "tmpfs", "source": "tmpfs"},
    ]
    return bundle


def _results(output: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in output.splitlines())


@pytest.mark.root
def test_no_program_gets_round_a_policy(tmp_path: Path, busybox: Path, platform: str) -> None:
    program = compiled(ATTEMPTS.read_text(), tmp_path, "-static", "-pthread")
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    policy = tmp_path / "policy.py"
    policy.write_text(POLICY.read_text().replace("@HASH@", digest))
    bundle = _bundle(tmp_path, busybox, program)

    free = bundle.run(platform)
    assert free.returncode == 0, free.stderr
    had_their_way = _results(free.stdout)
    lost = {name for name, result in had_their_way.items() if result != "0"}
    assert {name for name in lost if not name.startswith("raced_")} == set()
    assert len(had_their_way) >= 50

    bundle.document.setdefault("annotations", {})["dev.runsc.policy"] = str(policy)
    ruled = bundle.run(platform)
    assert ruled.returncode == 0, ruled.stderr
    expected = {name: "1" if name in FAILED else "13" for name in had_their_way}
    expected["is_killed"] = "signal 31"
    assert _results(ruled.stdout) == expected


@pytest.fixture
def client(bundle: Bundle, platform: str) -> Client:
    return Client(bundle, platform)


def _file(tmp_path: Path, text: str, name: str = "policy.py") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


NO_PASSWD = """
from runsc.policy import on, DENY

@on("openat", path="/etc/passwd")
def no_passwd(event):
    return DENY("EACCES")
"""
ASK = """
from runsc.policy import on, DENY, ask

@on("openat", path="/etc/passwd")
async def ask_first(event):
    return await ask("is\\x1b[2J that so?", deadline=600, otherwise=DENY("EIO"))
"""


def test_a_policy_is_loaded_replaced_asked_and_answered(tmp_path: Path, client: Client) -> None:
    client.bundle.args("/bin/sh", "-c", "sleep 1000")
    client.create("one")
    client.ok("start", "one")
    look = ["exec", "one", "/bin/cat", "/etc/passwd"]
    assert client.call(*look).returncode == 0
    assert client.ok("policy", "show", "one") == ""

    client.ok("policy", "load", "one", _file(tmp_path, NO_PASSWD))
    denied = client.call(*look)
    assert "Permission denied" in denied.stderr
    shown = client.ok("policy", "show", "one")
    assert shown == NO_PASSWD + "# no_passwd.deny: 1\n"

    assert "policy.py:1: ImportError" in client.error(
        "policy", "load", "one", _file(tmp_path, "import os\n")
    )
    assert "Permission denied" in client.call(*look).stderr, "the one before is still there"

    client.ok("policy", "load", "one", _file(tmp_path, ASK))
    follower = client.begin("policy", "pending", "--follow", "one")
    waiting = client.begin(*look)
    assert follower.stdout is not None
    assert waiting.stdout is not None
    line = follower.stdout.readline()
    assert line.startswith("1 openat /etc/passwd by /bin/busybox[")
    assert line.endswith(" s left: is?[2J that so?\n")
    assert "no verdict" in client.error("policy", "answer", "one", "1", "perhaps")
    assert "there is no question 2" in client.error("policy", "answer", "one", "2", "allow")
    client.ok("policy", "answer", "one", "1", "allow")
    assert "root" in waiting.stdout.read()
    assert waiting.wait() == 0
    assert client.ok("policy", "pending", "one") == ""

    client.ok("policy", "load", "one")
    assert client.call(*look).returncode == 0
    client.ok("delete", "--force", "one")
    assert follower.wait() == 0
    follower.stdout.close()
    waiting.stdout.close()


def test_rules_mean_what_python_would(tmp_path: Path, bundle: Bundle, platform: str) -> None:
    rules = """
        [[rule]]
        on = "open"
        path = "/etc/passwd"
        verdict = "deny EIO"

        [[rule]]
        on = ["mkdir", "mkdirat"]
        verdict = "deny EROFS"
    """
    bundle.args("/bin/sh", "-c", "cat /etc/passwd; mkdir /x; cat /etc/group")
    done = _with(bundle, _file(tmp_path, rules, "rules.toml"), platform)
    assert "Input/output error" in done.stderr
    assert "Read-only file system" in done.stderr
    assert "root" in done.stdout


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("p.py", "on = 1 +", "p.py:1: invalid syntax"),
        ("p.py", "while True: pass", "p.py: it takes too long to be loaded"),
        ("p.toml", "rule = 1", "Expected `array`, got `int`"),
        ("p.toml", '[[rule]]\non = "open"\nverdict = "no"', "rule 1: no verdict: 'no'"),
        ("p.toml", '[[rule]]\non = "opened"\nverdict = "kill"', "no system call is named 'opened'"),
        ("p.py", "#" * 70000, "a policy has at most 65536 bytes"),
    ],
)
def test_a_policy_that_is_none_starts_nothing(
    tmp_path: Path, client: Client, name: str, text: str, why: str
) -> None:
    path = client.bundle.write()
    policy = _file(tmp_path, text, name)
    assert why in client.error("run", "--policy", policy, f"--bundle={path}", "one")
    assert client.remains() == []


def test_a_handler_that_cannot_be_stopped_ends_the_sandbox(
    tmp_path: Path, client: Client
) -> None:
    policy = """
from runsc.policy import on

@on("openat", path="/etc/passwd")
def forever(event):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
"""
    client.bundle.args("/bin/sh", "-c", "cat /etc/passwd; echo not me")
    path = client.bundle.write()
    client.flags.append(f"--debug-log={tmp_path / 'messages'}")
    done = client.call(
        "run", "--policy", _file(tmp_path, policy), f"--bundle={path}", "one"
    )
    assert done.returncode != 0
    assert done.stdout == ""
    assert "a handler cannot be stopped, so the sandbox ends" in (tmp_path / "messages").read_text()
    assert client.remains() == []


def _with(bundle: Bundle, policy: str, platform: str) -> Result:
    bundle.document.setdefault("annotations", {})["dev.runsc.policy"] = policy
    return bundle.run(platform)


def test_the_python_of_the_manual_prints_what_it_says(
    tmp_path: Path, platform: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if platform != "kvm":
        pytest.skip("its sandbox has the default platform")
    monkeypatch.setattr(states, "default_root", lambda: str(tmp_path / "state"))
    page = (REPOSITORY / "docs" / "policies.md").read_text()
    block = re.findall(r"```python\n(from runsc import.*?)```", page, re.S)[0]
    expected = re.findall(r"^\s*print\(.*\)  # (.*)$", block, re.M)
    exec(compile(block, "policies.md", "exec"), {"__name__": "example"})
    printed = capsys.readouterr().out.splitlines()
    assert len(expected) == 4
    for line in expected:
        assert any(line in found for found in printed), (line, printed)


def test_an_agent_is_asked_before_each_connection(tmp_path: Path, platform: str) -> None:
    if platform != "kvm":
        pytest.skip("its sandbox has the default platform")
    agent = REPOSITORY / "examples" / "ask_before_connect" / "agent.py"
    program = "import socket\nfor port in 81, 82: socket.socket().connect_ex(('127.0.0.1', port))"
    words = [str(agent), "--network", "none", "--yes", "81", "python3", "-c", program]
    (tmp_path / "sitecustomize.py").write_text(  # where others look for a zygote none begins
        "from runsc.api import states\n"
        f"states.default_root = lambda: {str(tmp_path / 'state')!r}\n"
    )
    command = ["env", f"PYTHONPATH={REPOSITORY}:{tmp_path}", sys.executable, *words]
    done = execute(command)
    assert "connect 127.0.0.1:81: allow" in done.stderr
    assert "connect 127.0.0.1:82: deny EACCES" in done.stderr


def test_a_fork_is_ruled_and_its_handlers_are_bounded(tmp_path: Path, platform: str) -> None:
    if platform != "kvm":
        pytest.skip("forks are of kvm")
    policy = """
from runsc.policy import on, DENY

@on("openat", path="/etc/hostname")
def loops(event):
    while True:
        pass
"""
    with Sandbox.create(policy=policy, forkable=True, state=tmp_path / "state") as sandbox:
        [fork] = sandbox.fork()
        with fork:
            done = fork.commands.run("cat /etc/hostname")
            assert "Operation not permitted" in done.stderr
            assert fork.policy.counts() == {"loops.deny": 1, "loops.failed": 1}
        assert sandbox.policy.counts() == {}


@pytest.mark.kvm
def test_what_is_learnt_from_runs_with_all_flags_before_it(tmp_path: Path, busybox: Path) -> None:
    learnt = tmp_path / "learnt.toml"
    words = [*RUNSC, f"--root={tmp_path}/state", "--memory=96m", "--host-uds", "none"]
    learn = ["policy", "learn", "-o", learnt, "--root", busybox, "grep", "MemTotal"]

    done = execute([*words, *learn, "/proc/meminfo"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[1] == str(96 << 10)
    listened = execute([*words, f"--pod-init-config={learnt}", *learn, "/proc/meminfo"])
    assert "--pod-init-config is what `learn` itself listens with" in listened.stderr
