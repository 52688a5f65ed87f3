"""The CPU as /proc/cpuinfo and /sys show it, from the CPUID entries that the program sees.

arch/x86/kernel/cpu/proc.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.layout import Record
from sentry.written import ranges, runs

if TYPE_CHECKING:
    from sentry.fs.kernel import Kernel
Leaf = tuple[int, int]


class Registers(Record):
    """What CPUID answers."""

    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0


def names(text: str) -> tuple[str, ...]:
    """Bit names from bit 0 on; `-` has none."""
    return tuple(text.split())


FLAGS: Final[tuple[tuple[Leaf, str, tuple[str, ...]], ...]] = (
    ((1, 0), "edx", names(
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - "
        "dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe")),
    ((0x80000001, 0), "edx", names(
        "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp "
        "- lm 3dnowext 3dnow")),
    ((0x80000007, 0), "edx", names("- - - - - - - - constant_tsc")),
    ((0, 0), "eax", names("rep_good nopl")),
    ((0x80000007, 0), "edx", names("- - - - - - - - nonstop_tsc")),
    ((0, 0), "eax", names("cpuid")),
    ((1, 0), "ecx", names(
        "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - "
        "pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave - avx f16c "
        "rdrand hypervisor")),
    ((0x80000001, 0), "ecx", names(
        "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs "
        "xop skinit wdt - lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext "
        "ptsc perfctr_llc mwaitx")),
    ((7, 0), "ebx", names(
        "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a "
        "avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er "
        "avx512cd sha_ni avx512bw avx512vl")),
    ((0xD, 1), "eax", names("xsaveopt xsavec xgetbv1 xsaves")),
    ((7, 1), "eax", names("- - - - avx_vnni avx512_bf16")),
    ((0x80000008, 0), "ebx", names("clzero irperf xsaveerptr - - - - - - wbnoinvd")),
    ((7, 0), "ecx", names(
        "- avx512vbmi umip pku ospke waitpkg avx512_vbmi2 - gfni vaes vpclmulqdq avx512_vnni "
        "avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect cldemote - "
        "movdiri movdir64b enqcmd")),
    ((7, 0), "edx", names(
        "- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect - md_clear - - - serialize "
        "- tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 - - flush_l1d "
        "arch_capabilities")),
)  # fmt: skip
"""Where a flag's bit is, in the order in which Linux prints them."""
ALWAYS: Final = frozenset({"rep_good", "nopl", "cpuid"})
"""Flags that Linux makes up for every CPU of this kind."""


class Cpu:
    """The one model that all CPUs of the sandbox are."""

    def __init__(self, entries: Any, cpus: int) -> None:
        self._leaves: Mapping[Leaf, Registers] = {
            (e.function, e.index): Registers(e.eax, e.ebx, e.ecx, e.edx) for e in entries
        }
        self.cpus = cpus

    def leaf(self, function: int, index: int = 0) -> Registers:
        """All zero where there is none."""
        return self._leaves.get((function, index), Registers())

    @property
    def vendor(self) -> str:
        """GenuineIntel, AuthenticAMD."""
        a = self.leaf(0)
        text = struct.pack("<3I", a.ebx, a.edx, a.ecx).decode("latin-1").strip("\0")
        return text or "unknown"

    @property
    def signature(self) -> tuple[int, int, int]:
        """Family, model, stepping: x86_family(), x86_model()."""
        eax = self.leaf(1).eax
        family, model = eax >> 8 & 15, eax >> 4 & 15
        if family >= 6:
            model += (eax >> 16 & 15) << 4
        if family == 15:
            family += eax >> 20 & 255
        return family, model, eax & 15

    @property
    def model_name(self) -> str:
        """The brand string."""
        raw = b"".join(struct.pack("<4I", *self.leaf(0x80000002 + i)) for i in range(3))
        text = raw.split(b"\0", 1)[0].decode("latin-1").strip()
        return " ".join(text.split()) or "unknown"

    @property
    def mhz(self) -> float:
        """From leaf 0x16, or the brand string; else what most are."""
        base = self.leaf(0x16).eax & 0xFFFF
        if base:
            return float(base)
        words = self.model_name.split()
        if words and words[-1].endswith("GHz"):
            try:
                return float(words[-1][:-3]) * 1000
            except ValueError:
                return 2000.0
        return 2000.0

    def flags(self) -> Iterator[str]:
        """All names whose bit is set."""
        for (function, index), register, bits in FLAGS:
            value = getattr(self.leaf(function, index), register)
            for bit, name in enumerate(bits):
                if name != "-" and (name in ALWAYS or value >> bit & 1):
                    yield name

    @property
    def cache_kib(self) -> int:
        """The cache that cpuinfo names: L2 on AMD, the last level on Intel."""
        if self.vendor == "AuthenticAMD":
            return self.leaf(0x80000006).ecx >> 16
        sizes = []
        for i in range(8):
            c = self.leaf(4, i)
            if not c.eax & 31:
                break
            ways, parts, line = (c.ebx >> 22) + 1, (c.ebx >> 12 & 1023) + 1, (c.ebx & 4095) + 1
            sizes.append(ways * parts * line * (c.ecx + 1) // 1024)
        return max(sizes, default=self.leaf(0x80000006).ecx >> 16)

    def text(self) -> str:
        """/proc/cpuinfo."""
        family, model, stepping = self.signature
        address = self.leaf(0x80000008).eax
        power = "" if self.vendor == "GenuineIntel" else self._power()
        blocks = []
        for cpu in range(self.cpus):
            rows = [
                ("processor\t", cpu), ("vendor_id\t", self.vendor), ("cpu family\t", family),
                ("model\t\t", model), ("model name\t", self.model_name), ("stepping\t", stepping),
                ("microcode\t", "0xffffffff"), ("cpu MHz\t\t", f"{self.mhz:.3f}"),
                ("cache size\t", f"{self.cache_kib} KB"), ("physical id\t", 0),
                ("siblings\t", self.cpus), ("core id\t\t", cpu), ("cpu cores\t", self.cpus),
                ("apicid\t\t", cpu), ("initial apicid\t", cpu), ("fpu\t\t", "yes"),
                ("fpu_exception\t", "yes"), ("cpuid level\t", self.leaf(0).eax), ("wp\t\t", "yes"),
                ("flags\t\t", " ".join(self.flags())), ("bugs\t\t", ""),
                ("bogomips\t", f"{self.mhz * 2:.2f}"),
                *([("TLB size\t", "1024 4K pages")] if self.vendor == "AuthenticAMD" else []),
                ("clflush size\t", (self.leaf(1).ebx >> 8 & 255) * 8 or 64),
                ("cache_alignment\t", 64),
                ("address sizes\t",
                 f"{address & 255 or 40} bits physical, {address >> 8 & 255 or 48} bits virtual"),
                ("power management", power),
            ]  # fmt: skip
            blocks.append("".join(f"{name}: {value}\n" for name, value in rows))
        return "\n".join(blocks) + "\n"

    def _power(self) -> str:
        return "constant_tsc" if self.leaf(0x80000007).edx >> 8 & 1 else ""


def cpu_of(kernel: Kernel) -> Cpu:
    """The sandbox's CPU, made when first asked for."""
    services = kernel.services
    if services.cpu is None:
        services.cpu = Cpu(kernel.platform.cpuid, kernel.cpus)
    return services.cpu


def cpu_list(cpus: int) -> str:
    """0-3."""
    return "0" if cpus == 1 else f"0-{cpus - 1}"


def set_list(mask: int) -> str:
    """0-3,5: bitmap_list_string()."""
    return ranges(runs(bytes(map(int, f"{mask:b}"[::-1]))))


def cpu_mask(cpus: int) -> str:
    """Of the first CPUs, as `set_mask`."""
    return set_mask((1 << cpus) - 1)


def set_mask(mask: int) -> str:
    """Hexadecimal, in groups of 32 bits."""
    words = []
    while True:
        words.append(mask & 0xFFFFFFFF)
        mask >>= 32
        if not mask:
            break
    return ",".join([f"{words[-1]:x}", *(f"{w:08x}" for w in reversed(words[:-1]))])
