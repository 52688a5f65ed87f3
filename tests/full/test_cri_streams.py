"""Streams of the CRI: exec, attach, port-forward, and what is logged."""

from __future__ import annotations

import pytest

from tests.full import cri
from tests.full.containerd import until
from tests.full.pods import NEEDS, Pods, logged
from tests.full.streaming import STDERR, STDIN, STDOUT, V5, NotServed, Stream

pytestmark = NEEDS


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_exec_sync_has_streams_and_an_exit_code(pods: Pods) -> None:
    container = pods.start(pods.run())

    execed = pods.client.exec(container, "sh", "-c", "echo in; echo err >&2; exit 4")

    assert (execed.stdout, execed.stderr, execed.exit_code) == (b"in\n", b"err\n", 4)


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_exec_sync_timeout_ends_the_process(pods: Pods) -> None:
    import grpc  # noqa: PLC0415  an environment may be without it

    container = pods.start(pods.run())

    with pytest.raises(grpc.RpcError) as told:
        request = cri.ExecSync(container, ["sleep", "4321"], 1)
        pods.client.call("ExecSync", request, cri.Execed)

    assert told.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "sleep 4321" not in pods.shell(container, "ps -o args")


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_exec_sync_is_refused_after_the_end(pods: Pods) -> None:
    import grpc  # noqa: PLC0415  an environment may be without it

    pod = pods.run()
    container = pods.start(pod, "true")
    pods.ended(container)

    with pytest.raises(grpc.RpcError, match="CONTAINER_EXITED"):
        pods.client.exec(container, "true")


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_exec_streams_go_both_ways(pods: Pods) -> None:
    container = pods.start(pods.run())
    which = {"stdin": True, "stdout": True, "stderr": True}

    stream = pods.exec_stream(
        container, "sh", "-c", "read x; echo got $x; echo err >&2; read x; exit 5", **which
    )
    stream.send(STDIN, b"word\n")
    stream.hear(STDOUT, b"got word\n")
    stream.hear(STDERR, b"err\n")
    stream.send(STDIN, b"\n")

    assert stream.finish() == 5


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_exec_whose_input_ends_over_version_5(pods: Pods) -> None:
    container = pods.start(pods.run())
    request = cri.Exec(container, ["sh", "-c", "cat; exit 5"], stdin=True, stdout=True)
    url = pods.client.call("Exec", request, cri.Url).url
    try:
        stream = Stream(url, V5)
    except NotServed as said:
        pytest.skip(f"this containerd has no version 5: {said}")

    stream.send(STDIN, b"all\n")
    stream.end(STDIN)

    assert stream.finish() == 5
    assert stream.heard[STDOUT] == b"all\n"


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_exec_at_a_terminal_that_is_resized(pods: Pods) -> None:
    container = pods.start(pods.run())

    stream = pods.exec_stream(container, "sh", stdin=True, stdout=True, tty=True)
    stream.send(STDIN, b"tty\n")
    stream.hear(STDOUT, b"/dev/pts/0")
    stream.send(STDIN, b"trap 'stty size' WINCH; echo re''ady\n")
    stream.hear(STDOUT, b"ready")
    stream.resize(123, 45)
    stream.send(STDIN, b"while [ \"$(stty size)\" != '45 123' ]; do :; done; exit 6\n")

    assert stream.finish() == 6


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_attach_to_a_container_that_reads(pods: Pods) -> None:
    pod = pods.run()
    script = "while read x; do echo got $x; [ $x = end ] && exit 7; done"
    container = pods.start(pod, "sh", "-c", script, stdin=True)
    request = cri.Attach(container, stdin=True, stdout=True, stderr=True)

    stream = Stream(pods.client.call("Attach", request, cri.Url).url)
    stream.send(STDIN, b"one\n")
    stream.hear(STDOUT, b"got one\n")
    stream.send(STDIN, b"end\n")

    assert pods.ended(container).exit_code == 7
    assert logged(pods.log) == "got one\ngot end\n"
    stream.close()


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_attach_to_a_terminal(pods: Pods) -> None:
    pod = pods.run()
    container = pods.start(pod, "sh", stdin=True, tty=True)
    request = cri.Attach(container, stdin=True, stdout=True, tty=True)

    stream = Stream(pods.client.call("Attach", request, cri.Url).url)
    stream.send(STDIN, b"tty; exit 8\n")
    stream.hear(STDOUT, b"/dev/pts/0")

    assert pods.ended(container).exit_code == 8
    stream.close()


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_stdin_once_ends_with_the_first_attach(pods: Pods) -> None:
    pod = pods.run()
    container = pods.start(pod, "cat", stdin=True, stdin_once=True)
    request = cri.Attach(container, stdin=True, stdout=True, stderr=True)

    stream = Stream(pods.client.call("Attach", request, cri.Url).url)
    stream.send(STDIN, b"all\n")
    stream.hear(STDOUT, b"all\n")
    stream.close()

    assert pods.ended(container).exit_code == 0


@pytest.mark.row("exec, attach, port-forward, with and without a terminal")
def test_port_forward_reaches_a_port_of_the_pod(pods: Pods) -> None:
    pod = pods.run()
    pods.serving(pod, "cat")

    url = pods.client.call("PortForward", cri.PortForward(pod, [8080]), cri.Url).url
    stream = Stream(f"{url}?port=8080")
    stream.send(0, b"to and fro\n")
    stream.hear(0, b"to and fro\n")

    stream.close()


@pytest.mark.row("logs, and their rotation")
def test_log_has_both_streams_and_long_lines(pods: Pods) -> None:
    pod = pods.run()
    script = "echo out; echo err >&2; head -c 50000 /dev/zero | tr '\\0' x; echo; printf last"

    container = pods.start(pod, "sh", "-c", script)

    assert pods.ended(container).exit_code == 0
    until(lambda: logged(pods.log).endswith("last"))
    assert logged(pods.log).split("\n") == ["out", "x" * 50000, "last"]
    assert logged(pods.log, "stderr") == "err\n"


@pytest.mark.row("logs, and their rotation")
def test_reopen_container_log_goes_on_in_a_new_file(pods: Pods) -> None:
    pod = pods.run()
    container = pods.start(pod, "sh", "-c", "echo one; exec sleep 1000")
    log = pods.log
    until(lambda: "one" in logged(log))

    log.rename(log.with_suffix(".old"))
    pods.client.call("ReopenContainerLog", cri.Id(container), cri.Empty)

    pods.shell(container, "echo more >/proc/1/fd/1")
    until(lambda: "more" in logged(log))
    assert "one" in logged(log.with_suffix(".old"))
