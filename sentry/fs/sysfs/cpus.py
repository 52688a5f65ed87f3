"""/sys/devices/system/cpu: one socket, one thread a core, caches as CPUID has them."""

from __future__ import annotations

from typing import Any, Final

from sentry.fs.pseudo.cpu import Cpu, cpu_list, cpu_mask

VULNERABILITIES: Final = (
    "gather_data_sampling", "ghostwrite", "indirect_target_selection", "itlb_multihit", "l1tf",
    "mds", "meltdown", "mmio_stale_data", "reg_file_data_sampling", "retbleed",
    "spec_rstack_overflow", "spec_store_bypass", "spectre_v1", "spectre_v2", "srbds",
    "tsx_async_abort",
)  # fmt: skip
"""The host's kernel deals with them: to the program none is there."""
CACHE_TYPES: Final = {1: "Data", 2: "Instruction", 3: "Unified"}


def cpu_files(cpu: Cpu) -> dict[str, str]:
    """Path below /sys to text."""
    base, count = "devices/system/cpu", cpu.cpus
    everyone = cpu_list(count)
    files = {
        f"{base}/{name}": everyone for name in ("online", "possible", "present")
    } | {f"{base}/offline": "", f"{base}/isolated": "", f"{base}/kernel_max": "8191"}
    for name in VULNERABILITIES:
        files[f"{base}/vulnerabilities/{name}"] = "Not affected"
    files[f"{base}/smt/active"] = "0"
    files[f"{base}/smt/control"] = "notsupported"
    for number in range(count):
        one = f"{base}/cpu{number}"
        if number:
            files[f"{one}/online"] = "1"
        files |= {f"{one}/topology/{name}": text for name, text in topology(number, count).items()}
        for index, cache in enumerate(caches(cpu)):
            mine = cache["level"] != "3"
            shared = (str(number), cpu_bit(number)) if mine else (everyone, cpu_mask(count))
            rows = cache | {"shared_cpu_list": shared[0], "shared_cpu_map": shared[1]}
            rows["id"] = str(number if mine else 0)
            files |= {f"{one}/cache/index{index}/{name}": text for name, text in rows.items()}
    return files


def cpu_bit(number: int) -> str:
    """The mask of one CPU."""
    words = ["00000000"] * (number // 32)
    return ",".join([f"{1 << number % 32:x}", *words])


def topology(number: int, count: int) -> dict[str, str]:
    """One core of the only package."""
    everyone, everyone_mask = cpu_list(count), cpu_mask(count)
    rows = {
        "core_id": str(number), "physical_package_id": "0", "die_id": "0",
        "cluster_id": str(number),
    }  # fmt: skip
    for name in ("thread_siblings", "core_cpus", "cluster_cpus"):
        rows |= {name: cpu_bit(number), f"{name}_list": str(number)}
    for name in ("core_siblings", "package_cpus", "die_cpus"):
        rows |= {name: everyone_mask, f"{name}_list": everyone}
    return rows


def caches(cpu: Cpu) -> list[dict[str, str]]:
    """CPUID leaf 4 (Intel) or 0x8000001d (AMD); of a CPU with neither, the usual sizes."""
    leaf = 0x8000001D if cpu.vendor in ("AuthenticAMD", "HygonGenuine") else 4
    found = []
    for index in range(8):
        answer: Any = cpu.leaf(leaf, index)
        kind = answer.eax & 31
        if kind not in CACHE_TYPES:
            break
        line = (answer.ebx & 0xFFF) + 1
        parts, ways = (answer.ebx >> 12 & 0x3FF) + 1, (answer.ebx >> 22) + 1
        found.append(cache(answer.eax >> 5 & 7, kind, ways, line, answer.ecx + 1, parts))
    if found:
        return found
    return [
        cache(1, 1, 8, 64, 64, 1), cache(1, 2, 8, 64, 64, 1), cache(2, 3, 8, 64, 1024, 1),
        cache(3, 3, 16, 64, 16384, 1),
    ]  # fmt: skip


def cache(level: int, kind: int, ways: int, line: int, sets: int, parts: int) -> dict[str, str]:
    """The files of one cache."""
    return {
        "level": str(level), "type": CACHE_TYPES[kind],
        "size": f"{ways * parts * line * sets // 1024}K", "coherency_line_size": str(line),
        "number_of_sets": str(sets), "ways_of_associativity": str(ways),
        "physical_line_partition": str(parts),
    }  # fmt: skip
