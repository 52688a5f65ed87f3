"""sentry.fs.pseudo.cpu: /proc/cpuinfo from CPUID."""

from __future__ import annotations

from types import SimpleNamespace

from sentry.fs.pseudo.cpu import Cpu, cpu_list, cpu_mask


def entry(function: int, eax: int = 0, ebx: int = 0, ecx: int = 0, edx: int = 0) -> SimpleNamespace:
    return SimpleNamespace(function=function, index=0, eax=eax, ebx=ebx, ecx=ecx, edx=edx)


def words(text: bytes) -> tuple[int, int, int, int]:
    a, b, c, d = (int.from_bytes(text[i : i + 4], "little") for i in range(0, 16, 4))
    return a, b, c, d


ENTRIES = [
    entry(0, 16, 0x68747541, 0x444D4163, 0x69746E65),
    entry(1, 0x00A10F11, 0, 1 << 0 | 1 << 28, 1 << 0 | 1 << 26),
    entry(0x80000001, edx=1 << 29),
    entry(0x80000002, *words(b"AMD   EPYC  9000")),
    entry(0x80000003, *words(b" Processor\0     ")),
]


def test_names_of_the_cpu() -> None:
    cpu = Cpu(ENTRIES, 2)
    assert cpu.vendor == "AuthenticAMD"
    assert cpu.signature == (25, 17, 1)
    assert cpu.model_name == "AMD EPYC 9000 Processor"


def test_flags_are_those_of_the_bits_in_linux_order() -> None:
    flags = list(Cpu(ENTRIES, 1).flags())
    assert flags == ["fpu", "sse2", "lm", "rep_good", "nopl", "cpuid", "pni", "avx"]


def test_a_block_for_each_cpu_with_an_empty_line_after_it() -> None:
    text = Cpu(ENTRIES, 3).text()
    blocks = text.split("\n\n")
    assert [b.split("\n")[0] for b in blocks if b] == [f"processor\t: {n}" for n in range(3)]
    assert text.endswith("\n\n")
    assert "\nflags\t\t: fpu sse2 lm" in text


def test_cpu_without_cpuid_is_unknown_but_complete() -> None:
    text = Cpu((), 1).text()
    assert "model name\t: unknown\n" in text and "\nflags\t\t: " in text


def test_lists_and_masks() -> None:
    assert (cpu_list(1), cpu_list(4)) == ("0", "0-3")
    assert (cpu_mask(1), cpu_mask(4), cpu_mask(33)) == ("1", "f", "1,ffffffff")
