from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runsc.errors import RuntimeFailure
from runsc.launch.forkable import ANNOTATION, with_forks
from sentry.config import EgressConfig, MountConfig, ProcessConfig, RootConfig, SandboxConfig

CONFIG = SandboxConfig("c", ProcessConfig((b"true",)))


def _asked(**given: Any) -> SandboxConfig:
    return with_forks(msgspec.structs.replace(CONFIG, **given), {ANNOTATION: "true"})


def test_a_sandbox_is_forkable_where_that_is_asked_for() -> None:
    assert _asked().forkable
    assert not with_forks(CONFIG, {}).forkable
    assert not with_forks(CONFIG, {ANNOTATION: "false"}).forkable
    assert _asked(root=RootConfig(overlay="none", readonly=True)).forkable


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"platform": "unicorn"}, "platform=unicorn"),
        ({"root": RootConfig(overlay="none")}, "overlay2=root:memory"),
        ({"disk_fd": 5}, "overlay2=root:memory"),
        ({"mounts": (MountConfig(b"/m", "bind", exclusive=True),)}, "exclusive"),
        ({"network": "host"}, "network=none"),
        ({"network": "sandbox"}, "network=none"),
        ({"services": True}, "network=none"),
        ({"process": ProcessConfig((b"sh",), terminal=True)}, "terminal"),
    ],
)
def test_what_cannot_be_copied_is_named(given: dict[str, Any], why: str) -> None:
    with pytest.raises(RuntimeFailure, match=f"--forkable: .*{why}"):
        _asked(**given)


def test_of_networks_only_passts_is_left_for_a_copys_own() -> None:
    config = msgspec.structs.replace(CONFIG, network="sandbox")
    asked = {ANNOTATION: "true"}
    assert with_forks(config, asked, by_passt=True).forkable
    judged = msgspec.structs.replace(config, egress=EgressConfig(""))
    with pytest.raises(RuntimeFailure, match="egress policy"):
        with_forks(judged, asked, by_passt=True)


def test_another_word_is_refused() -> None:
    with pytest.raises(RuntimeFailure, match=r"dev\.runsc\.forkable"):
        with_forks(CONFIG, {ANNOTATION: "yes"})
