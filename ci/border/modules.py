"""Which cffi modules there are, and what Python sees of the C code of each."""

from __future__ import annotations

from typing import NamedTuple

LAYOUT_NAMES = """
ENTRY_STRIDE ENTRY_PAGE_DOORBELL MAX_VCPUS NUM_REGS XFEATURES
SEL_KERNEL_CS SEL_USER32_CS SEL_USER_CS SEL_USER_DS
"""
"""Of guest_stubs/layout.h, most of which is between C and the guest's assembly."""

IOVEC = "struct iovec { void *iov_base; size_t iov_len; };"

KVM_STRUCTS = """
struct kvm_regs {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp;
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags; };
struct kvm_segment {
    uint64_t base; uint32_t limit; uint16_t selector;
    uint8_t type, present, dpl, db, s, l, g, avl; };
struct kvm_dtable { uint64_t base; uint16_t limit; };
struct kvm_sregs {
    struct kvm_segment cs, ds, es, fs, gs, ss, tr, ldt; struct kvm_dtable gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base; };
struct kvm_cpuid_entry2 { uint32_t function, index, flags, eax, ebx, ecx, edx; };
struct kvm_cpuid2 { uint32_t nent; struct kvm_cpuid_entry2 entries[]; };
struct kvm_msr_entry { uint32_t index; uint64_t data; };
struct kvm_msrs { uint32_t nmsrs; struct kvm_msr_entry entries[]; };
struct kvm_xcr { uint32_t xcr; uint64_t value; };
struct kvm_xcrs { uint32_t nr_xcrs; struct kvm_xcr xcrs[KVM_MAX_XCRS]; };
struct kvm_userspace_memory_region {
    uint32_t slot, flags; uint64_t guest_phys_addr, memory_size, userspace_addr; };
struct kvm_device_attr { uint32_t flags, group; uint64_t attr, addr; };
"""

GOFER_NAMES = """
CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_SETFCAP CAP_SETGID
CAP_SETUID
CLONE_VM CLONE_FS CLONE_FILES CLONE_SIGHAND CLONE_THREAD CLONE_SYSVSEM CLONE_SETTLS
CLONE_PARENT_SETTID CLONE_CHILD_CLEARTID
F_GETFD F_GETFL F_DUPFD_CLOEXEC AT_EMPTY_PATH AT_HANDLE_FID AF_UNIX SOCK_STREAM SOCK_CLOEXEC
RENAME_NOREPLACE RENAME_EXCHANGE FS_IOC_FSGETXATTR
FAN_CREATE FAN_DELETE FAN_MOVED_FROM FAN_MOVED_TO FAN_CLOSE_WRITE FAN_Q_OVERFLOW
FAN_MARK_ADD FAN_MARK_ONLYDIR FAN_MARK_FLUSH
HOT_EVENTS DRAIN_SPARES DRAIN_GIVE_BACK
"""

KVM_NAMES = """
KVM_GET_API_VERSION KVM_CREATE_VM KVM_CHECK_EXTENSION KVM_GET_VCPU_MMAP_SIZE
KVM_GET_SUPPORTED_CPUID KVM_GET_MSR_INDEX_LIST
KVM_CREATE_VCPU KVM_SET_USER_MEMORY_REGION KVM_SET_TSS_ADDR KVM_SET_IDENTITY_MAP_ADDR
KVM_RUN KVM_GET_REGS KVM_SET_REGS KVM_GET_SREGS KVM_SET_SREGS KVM_GET_MSRS KVM_SET_MSRS
KVM_SET_CPUID2 KVM_GET_XCRS KVM_SET_XCRS KVM_GET_XSAVE KVM_SET_XSAVE KVM_GET_VCPU_EVENTS
KVM_SET_DEVICE_ATTR KVM_HAS_DEVICE_ATTR KVM_SET_SIGNAL_MASK KVM_GET_TSC_KHZ KVM_SET_TSC_KHZ
KVM_CAP_USER_MEMORY KVM_CAP_SYNC_REGS KVM_CAP_IMMEDIATE_EXIT KVM_CAP_NR_VCPUS KVM_CAP_MAX_VCPUS
KVM_CAP_NR_MEMSLOTS KVM_CAP_READONLY_MEM KVM_CAP_XSAVE KVM_CAP_XSAVE2 KVM_CAP_XCRS
KVM_CAP_SET_TSS_ADDR KVM_CAP_EXT_CPUID KVM_CAP_TSC_CONTROL KVM_CAP_VCPU_ATTRIBUTES
KVM_CAP_X86_DISABLE_EXITS KVM_CAP_CHECK_EXTENSION_VM
KVM_EXIT_UNKNOWN KVM_EXIT_EXCEPTION KVM_EXIT_IO KVM_EXIT_HYPERCALL KVM_EXIT_DEBUG KVM_EXIT_HLT
KVM_EXIT_MMIO KVM_EXIT_IRQ_WINDOW_OPEN KVM_EXIT_SHUTDOWN KVM_EXIT_FAIL_ENTRY KVM_EXIT_INTR
KVM_EXIT_INTERNAL_ERROR KVM_EXIT_SYSTEM_EVENT
KVM_API_VERSION KVM_MEM_READONLY KVM_MEM_LOG_DIRTY_PAGES KVM_SYNC_X86_REGS KVM_SYNC_X86_SREGS
KVM_VCPU_TSC_CTRL KVM_VCPU_TSC_OFFSET
KVM_SYNC_X86_EVENTS KVM_EXIT_IO_IN KVM_EXIT_IO_OUT KVM_CPUID_FLAG_SIGNIFCANT_INDEX
"""


class Module(NamedTuple):
    """A module: where it lies, and the files (patterns) that say what is in it."""

    path: str
    """Of the compiled module, without a suffix: beside it lie `.pyi` and `.cdef.h`."""
    visible: tuple[str, ...]
    """Every function, variable, struct, enum and number that these define is for Python."""
    structs: tuple[str, ...] = ()
    """Of these only the structs that the visible ones mention."""
    borrowed: str = ""
    """Structs of the system's headers, with the fields that are wanted of them."""
    names: str = ""
    """Constants of other headers."""


MODULES = (
    Module(
        "sentry/platform/_native",
        (
            "guest_stubs/memory_map.h",
            "sentry/platform/native/context_common.h",
            "sentry/platform/native/memory.h",
            "sentry/platform/native/memory_api.h",
            "sentry/platform/native/execution_api.h",
            "sentry/platform/native/sigframe.h",
            "sentry/platform/native/hostio.h",
            "sentry/platform/native/sockets.h",
            "sentry/platform/native/uplink.h",
            "sentry/platform/native/sender.h",
            "sentry/platform/native/barrier.h",
            "sentry/platform/native/heap.h",
            "sentry/platform/native/filter.h",
            "sentry/platform/native/ticks.h",
            "sentry/platform/native/lz4.h",
            "sentry/platform/native/records.h",
            "sentry/platform/native/exchange.h",
            "sentry/platform/native/dirents.h",
        ),
        ("sentry/platform/native/vcpu.h",),
        borrowed=IOVEC,
        names=LAYOUT_NAMES,
    ),
    Module(
        "sentry/platform/_unicorn",
        (
            "sentry/platform/native/context_common.h",
            "sentry/platform/unicorn_native/machine_api.h",
        ),
        ("sentry/platform/unicorn_native/machine.h",),
    ),
    Module("kvm/_kvm", ("kvm/native.c",), borrowed=KVM_STRUCTS, names=KVM_NAMES),
    Module(
        "gofer/_native",
        ("gofer/native.c", "gofer/hot.c", "gofer/drain.c"),
        ("gofer/native.c", "gofer/hot.c", "gofer/drain.c"),
        names=GOFER_NAMES,
    ),
    Module("runsc/_native", ("runsc/native.c", "runsc/uncounted.h")),
)
