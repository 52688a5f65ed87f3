"""The engines that there are."""

from __future__ import annotations

from typing import Final

from runsc.engines import containerd, docker, podman
from runsc.engines.settings import Engine

ENGINES: Final = {
    engine.name: engine
    for engine in (
        Engine(
            "docker", ("dockerd", "docker"), lambda: "/etc/docker/daemon.json",
            docker.runtimes, docker.add, docker.remove,
            "`systemctl reload docker`, then `docker run --runtime={name} ...`",
        ),
        Engine(
            "containerd", ("containerd",), lambda: "/etc/containerd/config.toml",
            containerd.runtimes, containerd.add, containerd.remove,
            '`systemctl restart containerd`, then a RuntimeClass with `handler: {name}`',
        ),
        Engine(
            "podman", ("podman",), podman.file,
            podman.runtimes, podman.add, podman.remove,
            "`podman --runtime={name} run ...`",
        ),
    )
}  # fmt: skip
