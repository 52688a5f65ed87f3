"""Huge pages and the one memory node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.errors import EINVAL
from sentry.fs.pseudo.cpu import cpu_list, cpu_mask
from sentry.fs.pseudo.memory import memory_of

if TYPE_CHECKING:
    from sentry.fs.kernel import Kernel
HUGE_SIZES: Final = ("2048kB", "1048576kB")


def memory_files(cpus: int) -> dict[str, str]:
    """Path below /sys to text."""
    thp = "kernel/mm/transparent_hugepage"
    node = "devices/system/node"
    files = {
        f"{thp}/enabled": "always [madvise] never",
        f"{thp}/defrag": "always defer defer+madvise [madvise] never",
        f"{thp}/shmem_enabled": "always within_size advise [never] deny force",
        f"{thp}/hpage_pmd_size": "2097152",
        f"{thp}/use_zero_page": "1",
        f"{thp}/khugepaged/defrag": "1",
        f"{node}/online": "0",
        f"{node}/possible": "0",
        f"{node}/has_cpu": "0",
        f"{node}/has_memory": "0",
        f"{node}/has_normal_memory": "0",
        f"{node}/node0/cpulist": cpu_list(cpus),
        f"{node}/node0/cpumap": cpu_mask(cpus),
        f"{node}/node0/distance": "10",
        f"{node}/node0/numastat": "numa_hit 0\nnuma_miss 0\nnuma_foreign 0\ninterleave_hit 0\n"
        "local_node 0\nother_node 0",
    }
    for size in HUGE_SIZES:
        for name in ("free_hugepages", "resv_hugepages", "surplus_hugepages"):
            files[f"kernel/mm/hugepages/hugepages-{size}/{name}"] = "0"
    return files


def huge_page_wishes() -> list[str]:
    """Paths of files where a number of huge pages is asked for; there never is one."""
    return [
        f"kernel/mm/hugepages/hugepages-{size}/{name}"
        for size in HUGE_SIZES
        for name in ("nr_hugepages", "nr_hugepages_mempolicy", "nr_overcommit_hugepages")
    ]


def no_huge_pages(caller: Any, data: bytes) -> None:
    """A store to one of them: no memory is found for any. Raises: EINVAL."""
    if not data.strip().isdigit():
        raise EINVAL(f"{data[:40]!r}")


def node_meminfo(kernel: Kernel) -> str:
    """/sys/devices/system/node/node0/meminfo."""
    memory = memory_of(kernel)
    total, free = memory.total // 1024, memory.free // 1024
    rows = (
        ("MemTotal", total), ("MemFree", free), ("MemUsed", total - free),
        ("Shmem", memory.shared // 1024), ("PageTables", memory.tables // 1024),
    )  # fmt: skip
    huge = ("HugePages_Total", "HugePages_Free", "HugePages_Surp")
    return "".join(f"Node 0 {name + ':':<15}{kib:8} kB\n" for name, kib in rows) + "".join(
        f"Node 0 {name + ':':<16}{0:5}\n" for name in huge
    )
