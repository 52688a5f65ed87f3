"""examples/: what they say they do, with programs that do their worst."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import HTTPError

import pytest

from examples import egress_audit, policy_learning
from examples.warm_server import warm_server
from runsc import Limits, Sandbox
from tests.e2e.bundle import REPOSITORY, kvm_is_usable

pytestmark = [
    pytest.mark.full,
    pytest.mark.kvm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]


def _example(name: str) -> ModuleType:
    path = REPOSITORY / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def options(tmp_path: Path, debian: Path) -> Iterator[dict[str, Any]]:
    state = str(tmp_path / "state")
    yield {"root": str(debian), "state": state}
    assert Sandbox.list(state=state) == []


def test_the_agents_tool_runs_each_program_in_a_fork_of_its_own(options: dict[str, Any]) -> None:
    tool_of = _example("agent_tool").CodeTool
    with tool_of(ready=2, seconds=10.0, memory=512 << 20, **options) as tool:
        assert tool("print(6 * 7)") == "42\n"
        assert tool("x = 1; open('/tmp/kept', 'w')") == ""
        assert "NameError" in tool("print(x)")
        assert tool("import os; print(os.path.exists('/tmp/kept'))") == "False\n"
        assert "it ended with" in tool("import os; os.abort()")
        assert "took more than 10 s" in tool("while True: pass")
        assert tool("print('x' * 10**7)").endswith("(there was more)")
        assert "OSError" in tool("import socket; socket.create_connection(('192.0.2.1', 80))")
        assert tool("print('é', decimal.Decimal(2))") == "é 2\n"
        with ThreadPoolExecutor(8) as pool:
            said = list(pool.map(tool, (f"print({n})" for n in range(16))))
        assert said == [f"{n}\n" for n in range(16)]


SUBMISSIONS = {
    "accepted": "print(int(input()) * 2)",
    "wrong answer": "print(input())",
    "runtime error": "raise SystemExit(1)",
    "time limit": "while True: pass",
    "memory limit": "x = bytearray(1 << 28); x[::4096] = x[::4096]",
    "output limit": "while True: print('x' * 100)",
}


def test_the_judge_gives_verdicts_to_fifty_submissions_at_once(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    judge = _example("judge")
    for n in (1, 21):
        (tmp_path / f"{n}.in").write_text(f"{n}\n")
        (tmp_path / f"{n}.out").write_text(f"{2 * n}\n")
    limits = Limits(cpu=5.0, memory=64 << 20, processes=16, written=1 << 20, output=1 << 16)
    words = [*SUBMISSIONS, *["accepted"] * (50 - len(SUBMISSIONS))]
    found = judge.judge_all(
        [SUBMISSIONS[word].encode() for word in words], judge.cases(tmp_path), limits=limits,
        **options,
    )  # fmt: skip
    assert [each.word for each in found] == words
    assert found[0].cpu > 0
    assert found[0].memory > 1 << 20
    cheat = "import os; print(os.popen('cat /submission/* /*/*.out 2>/dev/null').read())"
    [verdict] = judge.judge_all([cheat.encode()], judge.cases(tmp_path), **options)
    assert verdict.word == "wrong answer"


def test_a_notebook_keeps_names_and_survives_its_cells(options: dict[str, Any]) -> None:
    notebook = _example("notebook")
    cells = [
        "import sys; x = 40", "print('out'); print('err', file=sys.stderr); x + 2", "1 / 0",
        "while True: pass", "x", "import os; os._exit(3)", "'x' in globals()",
        "os = __import__('os'); os.write(1, b'forged\\n')", "7",
    ]  # fmt: skip
    document = {"cells": [{"cell_type": "code", "source": source} for source in cells]}
    document["cells"].insert(0, {"cell_type": "markdown", "source": "# text"})
    with notebook.Notebook(seconds=10.0, memory=512 << 20, **options) as made:
        notebook.run_all(document, made)
    outputs = [cell.get("outputs") for cell in document["cells"][1:]]
    assert outputs[0] == []
    assert [each["output_type"] for each in outputs[1]] == [  # type: ignore[union-attr]
        "stream", "stream", "execute_result",
    ]  # fmt: skip
    assert outputs[1][2]["data"] == {"text/plain": "42"}  # type: ignore[index]
    names = [outputs[n][0]["ename"] for n in (2, 3, 5)]  # type: ignore[index]
    assert names == ["ZeroDivisionError", "KeyboardInterrupt", "KernelDied"]
    assert outputs[4][0]["data"] == {"text/plain": "40"}  # type: ignore[index]
    assert outputs[6][0]["data"] == {"text/plain": "False"}  # type: ignore[index]
    assert outputs[7][0]["ename"] == "KernelDied"  # type: ignore[index]
    assert outputs[8][0]["data"] == {"text/plain": "7"}  # type: ignore[index]
    json.dumps(document)


def test_a_ci_step_gives_artifacts_and_exit_codes(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    step = _example("ci_step").step
    sources, into = tmp_path / "sources", tmp_path / "artifacts"
    (sources / "sub").mkdir(parents=True)
    (sources / "build.sh").write_text("mkdir out; echo built >out/app; cat sub/x; echo $CI\n")
    (sources / "sub/x").write_text("from the sources\n")
    said: list[str] = []
    for _ in range(2):  # the second replaces what the first has made
        code = step(sources, ["sh build.sh", "test -f out/app"], artifacts=["out"], into=into,
                    say=said.append, **options)  # fmt: skip
        assert code == 0
    assert (into / "out/app").read_text() == "built\n"
    assert "from the sources\ntrue\n" in "".join(said)
    assert not (sources / "out").exists()
    assert step(sources, ["exit 7", "touch /never"], say=said.append, **options) == 7
    assert step(sources, ["sleep 100"], minutes=0.01, say=said.append, **options) == 124
    bomb = "b() { b | b & b; }; b"
    assert step(sources, [bomb], processes=30, say=said.append, **options) == 125
    with pytest.raises(ValueError, match="artifact"):
        step(sources, ["true"], artifacts=["../x"], say=said.append, **options)


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of the host: its place."""
    (tmp_path / "index.html").write_text("from outside")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


ASKS = """
import socket, sys, urllib.request
print(urllib.request.urlopen("http://api.example.org/index.html").read().decode())
for name in ("evil.example", "evil.example", "api.example.org"):
    try:
        socket.create_connection((name, 81), 5)
    except OSError as error:
        print(type(error).__name__)
"""


def test_the_audit_relays_what_is_allowed_and_tells_the_rest(
    options: dict[str, Any], outside: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["python3", "-c", ASKS]
    report = egress_audit.audit(command, {"api.example.org:80": outside}, **options)
    assert capsys.readouterr().out == "from outside\ngaierror\ngaierror\nOSError\n"
    assert report.exit_code == 0
    [place] = report.out
    assert place[0] == "api.example.org:80" and "/python3" in place[1]
    assert report.out[place] > 50 and report.into[place] > 100
    assert {what for what, _ in report.refused} == {
        "dns evil.example", "connect 192.0.2.1:81"
    }  # fmt: skip
    report.refused["connect 192.0.2.1:1", "\x1b[2J\nx"] += 1
    assert "connect 192.0.2.1:1 refused to ?[2J?x" in report.lines()
    wrong = egress_audit.audit([*command[:2], "raise SystemExit(3)"], {}, **options)
    assert (wrong.exit_code, wrong.lines()) == (3, [])


LIAR = r"""
import os
BAD = {
    "/status": '{"status": "200", "headers": [], "body": ""}',
    "/header": '{"status": "200 OK", "headers": [["A", "b\\r\\nC: d"]], "body": ""}',
    "/deep": "[" * 100_000,
    "/long": "x" * (2 << 20),
    "/number": "5",
}
def application(environ, start_response):
    files = '/proc/self/fd'
    answers = max(int(fd) for fd in os.listdir(files) if os.path.exists(f'{files}/{fd}'))
    if environ["PATH_INFO"] in BAD:
        text = BAD[environ["PATH_INFO"]].encode()
        while text:
            text = text[os.write(answers, text):]
        os._exit(0)
    if environ["PATH_INFO"] == "/hang":
        while True: pass
    start_response("201 Created", [("X-Mine", environ["HTTP_X_YOURS"]), ("Connection", "close")])
    return [environ["wsgi.input"].read().upper()]
"""


def test_the_server_believes_no_application(options: dict[str, Any]) -> None:
    with (
        warm_server.Warm(LIAR, seconds=5.0, memory=512 << 20, **options) as warm,
        warm_server.Server(0, warm) as server,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"

        def ask(path: str, data: bytes | None = None) -> tuple[int, bytes, Any]:
            request = urllib.request.Request(url + path, data, {"X-Yours": "y", "User-Agent": "t"})
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return answer.status, answer.read(), answer.headers
            except HTTPError as error:
                with error:
                    return error.code, error.read(), error.headers

        for path in ("/status", "/header", "/deep", "/long", "/number", "/hang"):
            assert ask(path)[0] == 502, path
        for size in (b"2000000", b"9" * 5000, b"-1", b"x"):
            with socket.create_connection(("127.0.0.1", server.server_port), 60) as visitor:
                visitor.sendall(b"POST / HTTP/1.0\r\nContent-Length: " + size + b"\r\n\r\n")
                assert b" 413 " in visitor.recv(100)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda n: ask("/", b"body %d" % n), range(16)))
        assert [body for _, body, _ in found] == [b"BODY %d" % n for n in range(16)]
        assert {status for status, _, _ in found} == {201}
        assert found[0][2]["X-Mine"] == "y"
        server.shutdown()


def test_a_learnt_policy_is_enough_and_no_more(tmp_path: Path, options: dict[str, Any]) -> None:
    policy = tmp_path / "policy.toml"
    policy_learning.learn(b"a,1+1\n", policy, options["root"])
    assert policy_learning.report(b"a,40\nb,2\n", policy, **options) == ("42", 0)
    for cell in ('open("/etc/passwd").read()', '__import__("os").system("id")',
                 '__import__("socket").socket()', '__import__("os").mkdir("/tmp/x")'):
        said, denied = policy_learning.report(f"a,{cell}\n".encode(), policy, **options)
        assert denied >= 1, (cell, said)


def test_each_says_how_it_is_used() -> None:
    for path in sorted((REPOSITORY / "examples").rglob("*.py")):
        if "--root" not in path.read_text():
            continue
        done = subprocess.run(
            [sys.executable, path, "--help"],
            capture_output=True, text=True, check=True,
            env={"PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
        assert "--root" in done.stdout
