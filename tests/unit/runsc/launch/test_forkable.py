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
        ({"services": True}, "that are mounted"),
        ({"process": ProcessConfig((b"sh",), terminal=True)}, "terminal"),
    ],
)
def test_what_cannot_be_copied_is_named(given: dict[str, Any], why: str) -> None:
    with pytest.raises(RuntimeFailure, match=f"--forkable: .*{why}"):
        _asked(**given)


def test_a_stack_of_its_own_is_left_for_another_network_that_no_policy_judges() -> None:
    assert _asked(network="sandbox").forkable
    with pytest.raises(RuntimeFailure, match="egress policy"):
        _asked(network="sandbox", egress=EgressConfig(""))


def test_another_word_is_refused() -> None:
    with pytest.raises(RuntimeFailure, match=r"dev\.runsc\.forkable"):
        with_forks(CONFIG, {ANNOTATION: "yes"})
