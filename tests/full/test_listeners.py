"""Listeners that are not ours, from Debian's packages: Falco's library, which loads the plug-in,
and a program of gVisor's own Go packages on the other end of its wire.
"""

from __future__ import annotations

import json
import re
import select
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from sentry.watch.points import every
from sentry.watch.schemas import SCHEMAS
from tests.conftest import rootfs_of
from tests.e2e.bundle import Bundle, execute
from tests.e2e.client import Client
from tests.e2e.test_show import compiled
from tests.e2e.test_trace import WATCHED
from tests.full.browser import APART
from tests.full.falco import SOURCE
from tests.full.test_trace_beside_gvisor import GVISORS, OURS

pytestmark = [pytest.mark.full, pytest.mark.root, pytest.mark.timeout(900)]
PROGRAMS = Path(__file__).parent / "listeners"
MAKE = """
set -e
cd /mnt
make -s -C plugin
g++ -std=c++17 -I/usr/include/falcosecurity -I/usr/include/jsoncpp -o falco falco.cpp \\
    -lsinsp -lscap -ljsoncpp
GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=/tmp/cache go build -o gvisor gvisor.go
"""


class There:
    """Their root file system, with a folder of the test at /mnt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rootfs = rootfs_of("listeners")

    def command(self, *words: str) -> list[str]:
        return ["unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", "bash",
                "-c", APART, str(self._rootfs), str(self.folder), *words]  # fmt: skip

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return execute(self.command(*words))

    @contextmanager
    def listening(self, name: str, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A program that makes the socket of that name, from when there is one."""
        path = self.folder / name
        with subprocess.Popen(
            self.command(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            try:
                while not path.exists():
                    assert process.poll() is None, process.communicate()
                yield process
            finally:
                process.kill()
                path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> There:
    folder = tmp_path_factory.mktemp("listeners")
    (folder / "plugin").mkdir()
    for path in SOURCE.iterdir():
        (folder / "plugin" / path.name).write_bytes(path.read_bytes())
    for path in PROGRAMS.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    made = There(folder)
    done = subprocess.run(
        made.command("bash", "-c", MAKE), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return made


def test_falco_loads_the_plug_in_and_filters_by_its_fields(there: There) -> None:
    lines = [
        {"point": "syscall/openat/exit", "record": {"pathname": "/etc/shadow", "flags": 0,
         "exit": {"errorno": 13}, "context_data": {"process_name": "cat", "thread_id": 7}}},
        {"point": "syscall/connect/exit", "record": {"peer": "192.0.2.1:443", "exit": {}}},
        {"point": "sentry/execve", "record": {"argv": ["nc", "-l"], "context_data": {
         "ancestry": ["3 make", "1 init"], "process_name": "nc"}}},
    ]  # fmt: skip
    (there.folder / "lines").write_text("".join(json.dumps(line) + "\n" for line in lines))
    watch = ("/mnt/falco", "watch", "/mnt/plugin/librunsc.so", "/mnt/lines")
    for condition, shape, expected in (
        ("evt.res = EACCES and fd.name startswith /etc", "%proc.name %fd.directory %evt.failed",
         "cat /etc true"),
        ("fd.sip = 192.0.2.1 and fd.sport in (443, 80)", "%fd.name %evt.type %evt.pluginname",
         "192.0.2.1:443 connect runsc"),
        ("proc.aname[2] = init and not proc.pname = sh", "%proc.cmdline %proc.pvpid", "nc -l 3"),
        ("evt.arg[flags] exists", "%sandbox.point", "syscall/openat/exit"),
    ):  # fmt: skip
        done = there.run(*watch, shape, condition)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{expected}\n", "")
    assert "fd.nonsense" in there.run(*watch, "x", "fd.nonsense = 1").stderr


def test_falco_takes_the_conditions_of_our_rules(there: There) -> None:
    conditions = _conditions((SOURCE / "rules.yaml").read_text())
    assert len(conditions) > 5
    check = ("/mnt/falco", "check", "/mnt/plugin/librunsc.so")
    done = there.run(*check, *conditions)
    assert (done.returncode, done.stderr) == (0, "")


def test_falco_hears_a_sandbox_from_its_start(there: There, tmp_path: Path, bundle: Bundle) -> None:
    config = json.loads((SOURCE / "session.json").read_text())
    [sink] = config["trace_session"]["sinks"]
    sink["config"]["path"] = f"unix:{there.folder / 'sock'}"
    session = tmp_path / "session.json"
    session.write_text(json.dumps(config))
    bundle.args("/bin/sh", "-c", "cat /etc/shadow; exit 3")
    watch = ("/mnt/falco", "watch", "/mnt/plugin/librunsc.so", "unix:/mnt/sock")
    shape = "%container.id %proc.pname %proc.name %fd.name %evt.res"
    condition = "evt.type in (open, openat) and evt.failed = true and fd.name = /etc/shadow"
    with there.listening("sock", *watch, shape, condition) as falco:
        bundle.run("kvm", flags=[f"--pod-init-config={session}"])
        assert falco.stdout is not None
        assert select.select([falco.stdout], [], [], 60)[0]
        assert falco.stdout.readline() == "test sh cat /etc/shadow ENOENT\n"


def test_the_session_that_falcos_gvisor_engine_makes_is_taken(
    there: There, tmp_path: Path, client: Client
) -> None:
    """Its library writes the document; Debian's has no engine that listens."""
    done = there.run("/mnt/falco", "config", str(tmp_path / "sock"))
    made = json.loads(done.stdout)
    with there.listening("sock", "/mnt/gvisor", "/mnt/sock") as listener:
        made["trace_session"]["sinks"][0]["config"]["endpoint"] = str(there.folder / "sock")
        document = tmp_path / "falco.json"
        document.write_text(json.dumps(made))
        client.bundle.args("/bin/sh", "-c", "cat /etc/shadow; exit 3")
        done = client.bundle.run("kvm", flags=[f"--pod-init-config={document}"])
        told, problem = listener.communicate()
    assert problem == ""
    assert "MESSAGE_CONTAINER_START" in told
    assert '"pathname":"/etc/shadow"' in told


def test_gvisors_own_packages_read_every_message(
    there: There, tmp_path: Path, bundle: Bundle
) -> None:
    """Those of its release know each field that is told, and there is a message of each type."""
    program = compiled(WATCHED.read_text(), tmp_path, "-static")
    bundle.args("/program").document["mounts"] += [
        {"destination": "/program", "source": str(program), "options": ["bind", "ro"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
    ]
    points = [
        {"name": point.name, "optional_fields": point.optional,
         "context_fields": [name for name in point.contexts if name not in OURS]}
        for point in every()
        if point.name in GVISORS or point.name.split("/")[1] in {*SCHEMAS, "sysno"}
    ]  # fmt: skip
    session = tmp_path / "session.json"
    endpoint = str(there.folder / "sock")
    session.write_text(json.dumps({"trace_session": {
        "name": "Default", "points": points,
        "sinks": [{"name": "remote", "config": {"endpoint": endpoint}}],
    }}))  # fmt: skip
    with there.listening("sock", "/mnt/gvisor", "/mnt/sock") as listener:
        done = bundle.run("kvm", flags=[f"--pod-init-config={session}"])
        assert (done.returncode, done.stderr) == (0, "")
        told, problem = listener.communicate()
    assert problem == ""
    kinds = {line.partition(" ")[0] for line in told.splitlines()}
    known = set(re.findall(r"MessageType_(MESSAGE_\w+):", (PROGRAMS / "gvisor.go").read_text()))
    assert kinds == known


@pytest.fixture
def client(bundle: Bundle) -> Client:
    return Client(bundle)


def _conditions(rules: str) -> Sequence[str]:
    """Of rules, with their macros and lists in them."""
    lists = dict(re.findall(r"- list: (\w+)\n +items: \[(.*?)\]", rules, re.S))
    head = r"- (macro|rule): ([^\n]+)\n(?:  desc: [^\n]*\n)?"
    found = re.findall(head + r"  condition: (.*?)(?=\n  \w+:|\n\n|\Z)", rules, re.S)
    macros = {name: text for kind, name, text in found if kind == "macro"}

    def whole(text: str) -> str:
        words = r"\b(" + "|".join([*macros, *lists]) + r")\b"
        while re.search(words, text):
            text = re.sub(words, lambda m: macros.get(m[0]) or lists[m[0]], text)
        return " ".join(text.removeprefix(">").split())

    return [whole(text) for kind, _, text in found if kind == "rule"]
