"""The vDSO and its clock page, in frames that every address space maps.

The clock page comes first ([vvar]), the ELF file (AT_SYSINFO_EHDR) behind it ([vdso]). The kernel
calls `refresh` where a program asks for the time by system call, which the vDSO makes when the
clock page is too old, and `host_clock_was_set` when `step_fd` is readable. See
guest_stubs/clock_page.h and native/clock_page.c.
"""

from __future__ import annotations

import guest_stubs
from sentry.platform._native import lib

_SOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
_WITHOUT_TSC = {"hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit"}


def _clock_source() -> str:
    try:
        with open(_SOURCE) as file:
            return file.read().strip()
    except OSError:
        return ""


_HOST_CLOCK_SOURCE = _clock_source()
"""Read at import: the sandbox has no /sys."""


def tsc_is_usable(power_features: int) -> bool:
    """Whether all CPUs' counters run at one constant rate.

    CPUID 0x80000007 EDX bit 8 says so, and the host's kernel has not found otherwise: then it would
    have taken another clock source.
    """
    return bool(power_features >> 8 & 1) and _HOST_CLOCK_SOURCE not in _WITHOUT_TSC


class Vdso:
    """One per platform whose programs read the host's counter. Raises: MemoryError."""

    def __init__(self, usable: bool) -> None:
        image = guest_stubs.vdso()
        self.gpa = lib.clock_page_open(image, len(image), usable)
        if not self.gpa:
            raise MemoryError("no frames for the vDSO")
        self.step_fd = lib.clock_page_step_fd()
        """Readable when the host's clock was set; -1 if there is nothing to watch."""
        self.refresh()

    def now_ns(self, clock: int) -> int:
        """What programs read from the page now; negative if it is not there or too old."""
        now: int = lib.clock_page_now(clock)
        return now

    def refresh(self) -> None:
        """Read the host's clocks anew, if the page is in use."""
        lib.clock_page_refresh()

    def again(self) -> None:
        """In a forked process: `step_fd` is its own."""
        lib.clock_page_again()

    def hold(self) -> int:
        """The page says nothing until it is shaped. What programs may have seen of it, or 0."""
        seen_ns: int = lib.clock_page_hold()
        return seen_ns

    def shape(self, line: tuple[int, int, int, int], offsets: tuple[int, int]) -> None:
        """From now on the page shows sentry.clock's: a point (of the host, inside), the speed as a
        fraction; what CLOCK_REALTIME and CLOCK_BOOTTIME show beyond CLOCK_MONOTONIC. In ns."""
        lib.clock_page_shape(*line, *offsets)

    def host_clock_was_set(self) -> None:
        """`step_fd` is readable."""
        lib.clock_page_stepped()

    def close(self) -> None:
        """The frames go with the RAM."""
        lib.clock_page_close()
