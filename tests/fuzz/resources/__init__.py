"""Everything of which a program can have many: `RESOURCES`, by area."""

from __future__ import annotations

from tests.fuzz.resources import files, fuse, net, netfilter, tasks
from tests.fuzz.scaling import Resource

RESOURCES: tuple[Resource, ...] = (
    *files.RESOURCES, *fuse.RESOURCES, *net.RESOURCES, *netfilter.RESOURCES, *tasks.RESOURCES,
)  # fmt: skip
