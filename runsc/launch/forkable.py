"""Whether a sandbox may be forked while it runs: it has to be said when it is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from runsc.errors import RuntimeFailure

if TYPE_CHECKING:
    from sentry.config import SandboxConfig

ANNOTATION: Final = "dev.runsc.forkable"
"""In config.json, or by --forkable: "true"."""


def with_forks(config: SandboxConfig, annotations: dict[str, str]) -> SandboxConfig:
    """Raises: RuntimeFailure that names what cannot be copied."""
    word = annotations.get(ANNOTATION, "false")
    if word not in ("true", "false"):
        raise RuntimeFailure(f'annotation {ANNOTATION}: "true" or "false", not {word!r}')
    if word == "false":
        return config
    why = _why_not(config)
    if why:
        raise RuntimeFailure(f"--forkable: {why}")
    return msgspec.structs.replace(config, forkable=True)


def _why_not(config: SandboxConfig) -> str:
    if config.platform != "kvm":
        return f"--platform={config.platform} cannot be forked"
    if config.root.overlay == "none" and not config.root.readonly:
        return (
            "what is written to the root is written to the host, and two sandboxes cannot own one"
            " tree: it needs --overlay2=root:memory"
        )
    if config.disk_fd >= 0:
        return "what is written is in a file of the host: it needs --overlay2=root:memory"
    if any(each.exclusive and not each.reads_only for each in config.mounts):
        return "a mounted folder is the container's own (exclusive), and two cannot own it"
    if config.services:
        return "sockets of the host that are mounted cannot be copied"
    if config.egress is not None:
        return "an egress policy does not judge the networks of copies"
    if config.process.terminal:
        return "a terminal cannot be copied"
    return ""
