"""Description of the native module `kvm._kvm` (see ci/build.py).

Struct layouts, ioctl numbers and capabilities come from <linux/kvm.h> when the module is compiled:
cffi fills in every `...`. The ioctl wrappers have fixed signatures, because a call of the variadic
ioctl(2) through cffi costs ten times as much.
"""

from __future__ import annotations

from cffi import FFI

IOCTLS = """
KVM_GET_API_VERSION KVM_CREATE_VM KVM_CHECK_EXTENSION KVM_GET_VCPU_MMAP_SIZE
KVM_GET_SUPPORTED_CPUID KVM_GET_MSR_INDEX_LIST
KVM_CREATE_VCPU KVM_SET_USER_MEMORY_REGION KVM_SET_TSS_ADDR KVM_SET_IDENTITY_MAP_ADDR
KVM_RUN KVM_GET_REGS KVM_SET_REGS KVM_GET_SREGS KVM_SET_SREGS KVM_GET_MSRS KVM_SET_MSRS
KVM_SET_CPUID2 KVM_GET_XCRS KVM_SET_XCRS KVM_GET_XSAVE KVM_SET_XSAVE KVM_GET_VCPU_EVENTS
KVM_SET_DEVICE_ATTR KVM_HAS_DEVICE_ATTR KVM_SET_SIGNAL_MASK KVM_GET_TSC_KHZ KVM_SET_TSC_KHZ
"""

CAPABILITIES = """
KVM_CAP_USER_MEMORY KVM_CAP_SYNC_REGS KVM_CAP_IMMEDIATE_EXIT KVM_CAP_NR_VCPUS KVM_CAP_MAX_VCPUS
KVM_CAP_NR_MEMSLOTS KVM_CAP_READONLY_MEM KVM_CAP_XSAVE KVM_CAP_XSAVE2 KVM_CAP_XCRS
KVM_CAP_SET_TSS_ADDR KVM_CAP_EXT_CPUID KVM_CAP_TSC_CONTROL KVM_CAP_VCPU_ATTRIBUTES
KVM_CAP_X86_DISABLE_EXITS KVM_CAP_CHECK_EXTENSION_VM
"""

EXITS = """
KVM_EXIT_UNKNOWN KVM_EXIT_EXCEPTION KVM_EXIT_IO KVM_EXIT_HYPERCALL KVM_EXIT_DEBUG KVM_EXIT_HLT
KVM_EXIT_MMIO KVM_EXIT_IRQ_WINDOW_OPEN KVM_EXIT_SHUTDOWN KVM_EXIT_FAIL_ENTRY KVM_EXIT_INTR
KVM_EXIT_INTERNAL_ERROR KVM_EXIT_SYSTEM_EVENT
"""

FLAGS = """
KVM_API_VERSION KVM_MEM_READONLY KVM_MEM_LOG_DIRTY_PAGES KVM_SYNC_X86_REGS KVM_SYNC_X86_SREGS
KVM_VCPU_TSC_CTRL KVM_VCPU_TSC_OFFSET
KVM_SYNC_X86_EVENTS KVM_EXIT_IO_IN KVM_EXIT_IO_OUT KVM_CPUID_FLAG_SIGNIFCANT_INDEX
"""

STRUCTS = """
struct kvm_regs {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp;
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags; ...; };
struct kvm_segment {
    uint64_t base; uint32_t limit; uint16_t selector; uint8_t type, present, dpl, db, s, l, g, avl;
    ...; };
struct kvm_dtable { uint64_t base; uint16_t limit; ...; };
struct kvm_sregs {
    struct kvm_segment cs, ds, es, fs, gs, ss, tr, ldt; struct kvm_dtable gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base; ...; };
struct kvm_cpuid_entry2 { uint32_t function, index, flags, eax, ebx, ecx, edx; ...; };
struct kvm_cpuid2 { uint32_t nent; struct kvm_cpuid_entry2 entries[]; ...; };
struct kvm_msr_entry { uint32_t index; uint64_t data; ...; };
struct kvm_msrs { uint32_t nmsrs; struct kvm_msr_entry entries[]; ...; };
struct kvm_msr_list { uint32_t nmsrs; uint32_t indices[]; ...; };
struct kvm_xcr { uint32_t xcr; uint64_t value; ...; };
struct kvm_xcrs { uint32_t nr_xcrs, flags; struct kvm_xcr xcrs[...]; ...; };
struct kvm_xsave { uint32_t region[1024]; ...; };
struct kvm_userspace_memory_region {
    uint32_t slot, flags; uint64_t guest_phys_addr, memory_size, userspace_addr; ...; };
struct kvm_device_attr { uint32_t flags, group; uint64_t attr, addr; ...; };
struct kvm_sync_regs { struct kvm_regs regs; struct kvm_sregs sregs; ...; };
"""

ACCESSORS_C = r"""
#include <errno.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

static long kvm_ioctl(int fd, unsigned long request, uintptr_t argument)
{
    long result = ioctl(fd, request, argument);
    return result < 0 ? -(long)errno : result;
}

static long kvm_ioctl_ptr(int fd, unsigned long request, void *argument)
{
    return kvm_ioctl(fd, request, (uintptr_t)argument);
}

static struct kvm_run *run_map(int fd, size_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}
static int run_unmap(struct kvm_run *run, size_t size) { return munmap(run, size); }
static uintptr_t run_address(struct kvm_run *run) { return (uintptr_t)run; }
static uint32_t run_reason(struct kvm_run *r) { return r->exit_reason; }
static void run_immediate_exit(struct kvm_run *r, int on) { r->immediate_exit = (uint8_t)on; }
static void run_sync(struct kvm_run *r, uint64_t valid) { r->kvm_valid_regs = valid; }
static void run_dirty(struct kvm_run *r, uint64_t dirty) { r->kvm_dirty_regs |= dirty; }
static struct kvm_regs *run_regs(struct kvm_run *r) { return &r->s.regs.regs; }
static struct kvm_sregs *run_sregs(struct kvm_run *r) { return &r->s.regs.sregs; }
static uint64_t run_mmio_address(struct kvm_run *r) { return r->mmio.phys_addr; }
static uint32_t run_mmio_length(struct kvm_run *r)
{
    return r->mmio.len <= sizeof r->mmio.data ? r->mmio.len : sizeof r->mmio.data;
}
static int run_mmio_is_write(struct kvm_run *r) { return r->mmio.is_write; }
static uint8_t *run_mmio_data(struct kvm_run *r) { return r->mmio.data; }
static int run_io_is_out(struct kvm_run *r) { return r->io.direction == KVM_EXIT_IO_OUT; }
static uint32_t run_io_port(struct kvm_run *r) { return r->io.port; }
static uint32_t run_io_size(struct kvm_run *r) { return r->io.size; }
static uint32_t run_io_count(struct kvm_run *r) { return r->io.count; }
static uint8_t *run_io_data(struct kvm_run *r, size_t mapped)
{
    uint64_t need = (uint64_t)r->io.size * r->io.count;
    if (r->io.data_offset > mapped || need > mapped - r->io.data_offset)
        return NULL;
    return (uint8_t *)r + r->io.data_offset;
}
static uint64_t run_fail_reason(struct kvm_run *r)
{
    return r->fail_entry.hardware_entry_failure_reason;
}
static uint32_t run_suberror(struct kvm_run *r) { return r->internal.suberror; }
static uint32_t run_internal_count(struct kvm_run *r)
{
    return r->internal.ndata <= 16 ? r->internal.ndata : 16;
}
static uint64_t run_internal_data(struct kvm_run *r, uint32_t i)
{
    return r->internal.data[i & 15];
}
static uint32_t run_system_event(struct kvm_run *r) { return r->system_event.type; }
#include "generated_below.h"
"""

ACCESSORS = """
struct kvm_run;
long kvm_ioctl(int fd, unsigned long request, uintptr_t argument);
long kvm_ioctl_ptr(int fd, unsigned long request, void *argument);
struct kvm_run *run_map(int fd, size_t size);
int run_unmap(struct kvm_run *run, size_t size);
uintptr_t run_address(struct kvm_run *run);
uint32_t run_reason(struct kvm_run *r);
void run_immediate_exit(struct kvm_run *r, int on);
void run_sync(struct kvm_run *r, uint64_t valid);
void run_dirty(struct kvm_run *r, uint64_t dirty);
struct kvm_regs *run_regs(struct kvm_run *r);
struct kvm_sregs *run_sregs(struct kvm_run *r);
uint64_t run_mmio_address(struct kvm_run *r);
uint32_t run_mmio_length(struct kvm_run *r);
int run_mmio_is_write(struct kvm_run *r);
uint8_t *run_mmio_data(struct kvm_run *r);
int run_io_is_out(struct kvm_run *r);
uint32_t run_io_port(struct kvm_run *r);
uint32_t run_io_size(struct kvm_run *r);
uint32_t run_io_count(struct kvm_run *r);
uint8_t *run_io_data(struct kvm_run *r, size_t mapped);
uint64_t run_fail_reason(struct kvm_run *r);
uint32_t run_suberror(struct kvm_run *r);
uint32_t run_internal_count(struct kvm_run *r);
uint64_t run_internal_data(struct kvm_run *r, uint32_t i);
uint32_t run_system_event(struct kvm_run *r);
"""

ffibuilder = FFI()
ffibuilder.cdef(STRUCTS)
NAMES = (IOCTLS + CAPABILITIES + EXITS + FLAGS).split()
ffibuilder.cdef("\n".join(f"#define {name} ..." for name in NAMES))
ffibuilder.cdef(ACCESSORS)
ffibuilder.set_source("kvm._kvm", ACCESSORS_C, extra_compile_args=["-O2"])
