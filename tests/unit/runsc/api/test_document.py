"""The config.json of a sandbox that is made by a Python program."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from runsc.api.document import INIT, PROGRAM, document, flags
from runsc.api.order import ANNOTATION, ORDER, Now, Order
from runsc.errors import RuntimeFailure
from runsc.launch import isolation
from runsc.launch.policy import ANNOTATION as POLICY
from runsc.launch.policy import LEARN
from runsc.oci import convert, spec


def made(**others: object) -> spec.Spec:
    order = Order(sandbox_id="s", state="/state", **others)  # type: ignore[arg-type]
    return document(order)[1]


def test_first_process_waits_whatever_the_root_is(tmp_path: Path) -> None:
    found = made(root=str(tmp_path), env=("A=b", "PATH=/x"))

    assert found.process is not None and found.root is not None and found.mounts is not None
    assert found.process.args == [INIT]
    assert found.process.env == ["PATH=/x", "A=b"]
    assert found.root.path == str(tmp_path)
    assert (found.mounts[-1].destination, found.mounts[-1].source) == (INIT, str(PROGRAM))
    assert found.annotations is not None
    again = msgspec.json.decode(found.annotations.pop(ORDER), type=Order)
    assert (again.root, again.env) == (str(tmp_path), ("A=b", "PATH=/x"))
    assert found.annotations == {ANNOTATION: "attached"}
    assert made().root == spec.Root("/")
    assert "SHELL" not in str(made().process)


def test_what_has_been_changed_since_counts_and_is_not_how_it_was_made() -> None:
    found = made(policy="old", now=Now("new egress", policy="new")).annotations
    assert found is not None
    again = msgspec.json.decode(found[ORDER], type=Order)
    assert (again.policy, again.now) == ("old", Now())
    assert Path(found[POLICY]).read_text() == "new"
    assert POLICY not in (made(policy="old", now=Now(policy="")).annotations or {})
    assert (made(now=Now(policy=LEARN)).annotations or {})[POLICY] == LEARN
    order = Order(sandbox_id="s", state="/", flags=("--egress=/its",), now=Now("new egress"))
    words = [word for word in flags(order) if word.startswith("--egress=")]
    assert words[0] == "--egress=/its"
    assert Path(words[-1].removeprefix("--egress=")).read_text() == "new egress"


def test_bundle_says_what_it_does_not_run(tmp_path: Path) -> None:
    config = {
        "ociVersion": "1.2.0",
        "process": {"user": {"uid": 5, "gid": 6}, "cwd": "/srv", "args": ["program"],
                    "env": ["A=1"], "terminal": True},
        "root": {"path": "tree", "readonly": True},
        "hooks": {"prestart": [{"path": "/bin/false"}]},
        "annotations": {"own": "1"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    order = Order(sandbox_id="s", state="/", bundle=str(tmp_path), env=("A=2",), detach=True)
    folder, found = document(order)

    assert folder == os.path.realpath(tmp_path)
    assert found.process is not None and found.root is not None
    assert (found.process.args, found.process.env) == ([INIT], ["A=2"])
    assert not found.process.terminal
    assert (found.process.user.uid, found.process.cwd) == (5, "/srv")
    assert found.root.readonly and found.hooks is None
    assert found.annotations is not None
    again = msgspec.json.decode(found.annotations.pop(ORDER), type=Order)
    assert again == replace(order, detach=False)
    assert found.annotations == {"own": "1", ANNOTATION: "detached"}


def test_mounts_are_read_only_unless_said(tmp_path: Path) -> None:
    found = made(mounts=(("/a", str(tmp_path), True), ("/b", str(tmp_path), False)))

    assert found.mounts is not None
    first, second, _ = found.mounts[-3:]
    assert (first.options, second.options) == (["rbind", "rro"], ["rbind", "rw"])
    with pytest.raises(RuntimeFailure, match="does not begin"):
        made(mounts=(("a", "/", True),))


@pytest.mark.parametrize("is_root", [False, True])
def test_networks_are_asked_for_as_on_the_command_line(
    is_root: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "is_privileged", lambda: is_root)

    def namespaces(network: str) -> list[tuple[str, str]]:
        linux = made(network=network).linux
        return [] if linux is None else [(n.type, n.path) for n in linux.namespaces or ()]

    assert namespaces("none") == namespaces("host") == []
    if is_root:
        with pytest.raises(RuntimeFailure, match="has to name"):
            namespaces("sandbox")
    else:
        assert namespaces("sandbox") == [("network", "")]
    assert namespaces("/run/netns/x") == [("network", "/run/netns/x")]
    words = flags(Order(sandbox_id="s", state="/s", network="/run/netns/x", memory=1 << 30))
    assert {"--network=sandbox", "--memory=1073741824", "--root=/s"} <= set(words)

    assert flags(Order(sandbox_id="s", state="/s", flags=("--strace",)))[-1] == "--strace"


def test_a_policy_is_a_file_that_can_be_read() -> None:
    words = flags(Order(sandbox_id="s", state="/s", egress='default = "deny"'))
    (path,) = [word.partition("=")[2] for word in words if word.startswith("--egress=")]

    assert Path(path).read_text() == 'default = "deny"'
    os.close(int(path.rpartition("/")[2]))


def test_it_is_understood(tmp_path: Path) -> None:
    if not PROGRAM.exists():
        pytest.skip("ci/build.py has not been run")
    found = convert.container("/", made(root=str(tmp_path)), "memory", lambda text: None)

    assert found.process.args == (INIT.encode(),)
    assert found.exports[-1].is_file and not found.exports[-1].writable
