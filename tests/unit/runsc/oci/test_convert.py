from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runsc.commands.spec import example
from runsc.errors import RuntimeFailure, SpecError
from runsc.oci import convert, spec
from sentry import config
from sentry.abi import mount as abi

Change = Callable[[dict[str, Any]], object]


def _convert(
    bundle: Path, change: Change = lambda document: None, warnings: list[str] | None = None,
    overlay: str = "memory",
) -> convert.Container:  # fmt: skip
    document = msgspec.to_builtins(example())
    (bundle / "rootfs").mkdir(exist_ok=True)
    change(document)
    decoded = spec.decode(msgspec.json.encode(document), spec.Spec)
    said = [] if warnings is None else warnings
    return convert.container(str(bundle), decoded, overlay, said.append)


def test_container_of_the_example_is_understood(tmp_path: Path) -> None:
    made = _convert(tmp_path)

    assert made.process.args == (b"sh",)
    assert made.process.umask == 0o022
    assert made.process.no_new_privileges
    assert made.process.capabilities.bounding == 1 << 29 | 1 << 5 | 1 << 10
    assert made.process.capabilities.inheritable == 0
    assert made.process.rlimits == (config.Rlimit(7, 1024, 1024),)
    assert made.root == config.RootConfig(readonly=True, overlay="memory")
    assert made.exports == (convert.Export(str(tmp_path / "rootfs"), False),)
    pts = next(m for m in made.mounts if m.destination == b"/dev/pts")
    assert pts.flags == abi.MS_NOSUID | abi.MS_NOEXEC
    assert pts.data == "newinstance,ptmxmode=0666,mode=0620,gid=5"


def test_variable_that_is_named_twice_has_its_last_value(tmp_path: Path) -> None:
    made = _convert(tmp_path, lambda d: d["process"].update(env=["A=1", "B=", "A=2=3"]))

    assert made.process.env == (b"A=2=3", b"B=")


@pytest.mark.parametrize(("readonly", "overlay"), [(False, "none"), (True, "memory")])
def test_root_that_is_kept_is_written_unless_it_is_read_only(
    tmp_path: Path, readonly: bool, overlay: str
) -> None:
    """For what is mounted in a read-only one there are places in memory."""
    made = _convert(tmp_path, lambda d: d["root"].update(readonly=readonly), overlay="none")
    assert made.root == config.RootConfig(readonly, overlay)
    assert made.exports[0].writable is not readonly


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        (lambda d: d.pop("root"), "$.root", "root must be specified"),
        (
            lambda d: d["root"].update(path="none"),
            "$.root.path",
            "invalid rootfs: stat .*/none: no",
        ),
        (lambda d: d.pop("process"), "$.process", "process property must not be empty"),
        (lambda d: d.update(ociVersion="3.0.0"), "$.ociVersion", "unsupported"),
        (lambda d: d.update(ociVersion="abc"), "$.ociVersion", "unsupported"),
        (lambda d: d["process"].update(args=[]), "$.process.args", "args must not be empty"),
        (lambda d: d["process"].update(cwd="x"), "$.process.cwd", "Cwd must be an absolute path"),
        (lambda d: d["process"].update(env=["A=1", "B"]), "$.process.env[1]", "missing '='"),
        (lambda d: d["process"].update(args=["a\0b"]), "$.process.args[0]", "NUL"),
        (
            lambda d: d["process"]["rlimits"][0].update(type="RLIMIT_FOO"),
            "$.process.rlimits[0].type",
            "wrong rlimit value: RLIMIT_FOO",
        ),
        (
            lambda d: d["process"]["rlimits"][0].update(soft=2000),
            "$.process.rlimits[0].soft",
            "above the hard one",
        ),
        (
            lambda d: d["process"]["rlimits"].append(d["process"]["rlimits"][0]),
            "$.process.rlimits[1].type",
            "duplicate",
        ),
        (
            lambda d: d["process"]["capabilities"].update(permitted=["CAP_KILL"]),
            "$.process.capabilities.effective",
            "unable to apply caps: operation not permitted: not permitted: "
            "CAP_AUDIT_WRITE CAP_NET_BIND_SERVICE",
        ),
        (
            lambda d: d["process"]["capabilities"].update(inheritable=["CAP_KILL", "CAP_CHOWN"]),
            "$.process.capabilities.inheritable",
            "not bounding: CAP_CHOWN",
        ),
        (
            lambda d: d["process"].update(execCPUAffinity={"initial": "0"}),
            "$.process.execCPUAffinity",
            "not supported",
        ),
        (
            lambda d: d["mounts"].append({"destination": "/x", "type": "bind", "source": "/none"}),
            "$.mounts[7].source",
            "no such file",
        ),
        (
            lambda d: d["mounts"].append({"destination": "/x", "source": "y"}),
            "$.mounts[7].type",
            "needs a type",
        ),
        (
            lambda d: d["linux"]["namespaces"].append({"type": "foo"}),
            "$.linux.namespaces[5].type",
            'namespace {"foo" ""} does not exist',
        ),
        (
            lambda d: d["linux"]["namespaces"].append({"type": "pid"}),
            "$.linux.namespaces[5].type",
            "duplicated",
        ),
        (
            lambda d: d["linux"].update(uidMappings=[{"containerID": 0, "hostID": 0, "size": 1}]),
            "$.linux.uidMappings",
            "USER namespace isn't enabled",
        ),
        (
            lambda d: d["linux"].update(memoryPolicy={"mode": "MPOL_BIND", "nodes": "0"}),
            "$.linux.memoryPolicy",
            "not supported",
        ),
        (
            lambda d: d["linux"].update(devices=[{"type": "x", "path": "/dev/x"}]),
            "$.linux.devices[0].type",
            'invalid device type "x"',
        ),
        (lambda d: d["linux"].update(maskedPaths=["x"]), "$.linux.maskedPaths[0]", "absolute"),
        (lambda d: d["linux"].update(sysctl={"x": "1"}), "$.linux.sysctl.x", "not a name"),
        (
            lambda d: d["process"]["user"].update(uid=(1 << 32) - 1),
            "$.process.user.uid",
            "4294967294",
        ),
        (lambda d: d.update(hostname="h" * 65), "$.hostname", "64"),
        (lambda d: d.update(domainname="h" * 65), "$.domainname", "64"),
        (lambda d: d["process"].update(oomScoreAdj=1001), "$.process.oomScoreAdj", "1001"),
        (lambda d: d["process"].update(oomScoreAdj=-(10**30)), "$.process.oomScoreAdj", "range"),
        (
            lambda d: d["process"].update(consoleSize={"height": 1 << 16, "width": 80}),
            "$.process.consoleSize",
            "at most 65535",
        ),
        (lambda d: d["root"].update(path="a\0b"), "$.root.path", "NUL"),
        (lambda d: d["mounts"][0].update(source="a\0b"), "$.mounts[0].source", "NUL"),
        (lambda d: d["linux"].update(sysctl={"net.a": "\0"}), "$.linux.sysctl.net.a", "NUL"),
    ],
)
def test_container_with_something_wrong_is_refused_with_its_json_path(
    tmp_path: Path, change: Change, path: str, message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        _convert(tmp_path, change)

    assert caught.value.path == path
    pattern = message.replace("{", r"\{").replace("}", r"\}")
    assert caught.match(pattern)


def test_size_of_a_terminal_that_there_is_not_does_not_count(tmp_path: Path) -> None:
    size = {"height": 1 << 16, "width": 80}
    change: Change = lambda d: d["process"].update(terminal=False, consoleSize=size)  # noqa: E731

    assert _convert(tmp_path, change).process.console_size is None


def test_unknown_capability_is_left_out_with_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []

    made = _convert(
        tmp_path,
        lambda d: d["process"]["capabilities"].update(bounding=["CAP_FOO", "CAP_KILL"]),
        warnings,
    )

    assert made.process.capabilities.bounding == 1 << 5
    assert warnings == ["ignoring unknown or unavailable capabilities: [CAP_FOO]"]


def test_bind_mounts_become_exports_of_the_gofer(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "file").write_text("x")

    def change(document: dict[str, Any]) -> None:
        document["mounts"] = [
            {"destination": "/data", "source": "data", "options": ["rbind", "rw", "rprivate"]},
            {"destination": "/f", "type": "bind", "source": "file", "options": ["ro"]},
        ]

    made = _convert(tmp_path, change)

    assert made.exports[1:] == (
        convert.Export(str(tmp_path / "data"), True, False),
        convert.Export(str(tmp_path / "file"), False, True, recursive=False),
    )
    assert [(m.type, m.attachment, m.is_file) for m in made.mounts] == [
        ("bind", 1, False),
        ("bind", 2, True),
    ]
    assert made.mounts[0].propagation == abi.MS_PRIVATE | abi.MS_REC


def test_devices_get_kind_and_mode(tmp_path: Path) -> None:
    made = _convert(
        tmp_path,
        lambda d: d["linux"].update(
            devices=[
                {"type": "c", "path": "/dev/a", "major": 1, "minor": 3, "fileMode": 0o640},
                {"type": "p", "path": "/dev/b"},
            ]
        ),
    )

    assert [(d.path, d.mode, d.major, d.minor) for d in made.devices] == [
        (b"/dev/a", stat.S_IFCHR | 0o640, 1, 3),
        (b"/dev/b", stat.S_IFIFO | 0o666, 0, 0),
    ]


def test_memory_limit_of_the_bundle_is_taken(tmp_path: Path) -> None:
    def with_limit(limit: int) -> Change:
        return lambda d: d["linux"].update(resources={"memory": {"limit": limit}})

    limited = _convert(tmp_path, with_limit(1 << 28)).resources
    unlimited = _convert(tmp_path, with_limit(-1)).resources
    assert limited is not None and limited.memory_limit == 1 << 28
    assert unlimited is not None and unlimited.memory_limit is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64M", 64 << 20),
        ("2g", 2 << 30),
        ("104857600", 104857600),
        ("1.5G", 3 << 29),
        ("96mb", 96 << 20),
        ("1GiB", 1 << 30),
    ],
)
def test_memory_size_is_read_with_its_suffix(text: str, size: int) -> None:
    assert convert.memory_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1M", "1.5.1G", "1M", "12Q", "M", "1e9", "0x4000000"])
def test_memory_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RuntimeFailure):
        convert.memory_size(text)
