"""/proc/sys/vm: what may be promised, and huge pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.limits import INT_MAX
from sentry.abi.mman import OVERCOMMIT_NEVER
from sentry.errors import EINVAL
from sentry.fs.proc.sysctl import computed

if TYPE_CHECKING:
    from sentry.fs.kernel import Kernel

def _commitment(name: str, attribute: str, most: int = INT_MAX, excludes: str = "") -> None:
    """vm.overcommit_*, vm.max_map_count: attributes of the Commitment.

    `excludes`: what becomes 0, because this takes its place.
    """

    def put(kernel: Kernel, value: str) -> None:
        if not value.isdecimal() or int(value) > most:
            raise EINVAL(value)
        of = kernel.platform.ram.commitment
        setattr(of, attribute, int(value))
        if excludes:
            setattr(of, excludes, 0)

    computed(f"vm/{name}", put)(
        lambda kernel: str(getattr(kernel.platform.ram.commitment, attribute))
    )


_commitment("max_map_count", "max_map_count")
_commitment("overcommit_memory", "mode", OVERCOMMIT_NEVER)
_commitment("overcommit_ratio", "ratio", excludes="kbytes")
_commitment("overcommit_kbytes", "kbytes", excludes="ratio")


def _no_huge_pages(kernel: Kernel, value: str) -> None:
    """No memory is found for any."""
    if not value.isdecimal():
        raise EINVAL(value)


for _name in ("nr_hugepages", "nr_hugepages_mempolicy", "nr_overcommit_hugepages"):
    computed(f"vm/{_name}", _no_huge_pages)(lambda _: "0")
