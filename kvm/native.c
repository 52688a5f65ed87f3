/* ioctls of /dev/kvm and the fields of struct kvm_run: what Python sees of <linux/kvm.h>.
 *
 * The wrappers of ioctl(2) have fixed signatures, because a call of the variadic function through
 * cffi costs ten times as much. They give -errno instead of setting errno. */
#include <errno.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

long kvm_ioctl(int fd, unsigned long request, uintptr_t argument)
{
    long result = ioctl(fd, request, argument);
    return result < 0 ? -(long)errno : result;
}

long kvm_ioctl_ptr(int fd, unsigned long request, void *argument)
{
    return kvm_ioctl(fd, request, (uintptr_t)argument);
}

struct kvm_run *run_map(int fd, size_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}
int run_unmap(struct kvm_run *run, size_t size) { return munmap(run, size); }
uintptr_t run_address(struct kvm_run *run) { return (uintptr_t)run; }
uint32_t run_reason(struct kvm_run *r) { return r->exit_reason; }
void run_immediate_exit(struct kvm_run *r, int on) { r->immediate_exit = (uint8_t)on; }
void run_sync(struct kvm_run *r, uint64_t valid) { r->kvm_valid_regs = valid; }
void run_dirty(struct kvm_run *r, uint64_t dirty) { r->kvm_dirty_regs |= dirty; }
struct kvm_regs *run_regs(struct kvm_run *r) { return &r->s.regs.regs; }
struct kvm_sregs *run_sregs(struct kvm_run *r) { return &r->s.regs.sregs; }
uint64_t run_mmio_address(struct kvm_run *r) { return r->mmio.phys_addr; }
uint32_t run_mmio_length(struct kvm_run *r)
{
    return r->mmio.len <= sizeof r->mmio.data ? r->mmio.len : sizeof r->mmio.data;
}
int run_mmio_is_write(struct kvm_run *r) { return r->mmio.is_write; }
uint8_t *run_mmio_data(struct kvm_run *r) { return r->mmio.data; }
int run_io_is_out(struct kvm_run *r) { return r->io.direction == KVM_EXIT_IO_OUT; }
uint32_t run_io_port(struct kvm_run *r) { return r->io.port; }
uint32_t run_io_size(struct kvm_run *r) { return r->io.size; }
uint32_t run_io_count(struct kvm_run *r) { return r->io.count; }
uint8_t *run_io_data(struct kvm_run *r, size_t mapped)
{
    uint64_t need = (uint64_t)r->io.size * r->io.count;
    if (r->io.data_offset > mapped || need > mapped - r->io.data_offset)
        return NULL;
    return (uint8_t *)r + r->io.data_offset;
}
uint64_t run_fail_reason(struct kvm_run *r)
{
    return r->fail_entry.hardware_entry_failure_reason;
}
uint32_t run_suberror(struct kvm_run *r) { return r->internal.suberror; }
uint32_t run_internal_count(struct kvm_run *r)
{
    return r->internal.ndata <= 16 ? r->internal.ndata : 16;
}
uint64_t run_internal_data(struct kvm_run *r, uint32_t i)
{
    return r->internal.data[i & 15];
}
uint32_t run_system_event(struct kvm_run *r) { return r->system_event.type; }
