/* One stretch of emulation, and why it ended. */
#include "machine.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

enum { V_BREAKPOINT = 3, V_OVERFLOW = 4, V_UNDEFINED = 6, V_STACK = 12, V_PROTECTION = 13 };
#define RFLAGS_TF 0x100u

/* ---- hooks ---------------------------------------------------------------------------------- */

/* The first that ends a stretch counts: code behind it may still run to the end of its block. */
static int ends(enum exit_kind kind)
{
    if (machine.found != EXIT_NONE)
        return 0;
    machine.found = kind;
    api.emu_stop(machine.uc);
    return 1;
}

/* Stopping at any moment, uc_emu_stop leaves instructions half executed that access memory and
 * executes them again from the start. Only here, between two of them, is it exact. */
void on_block(uc_engine *uc, uint64_t address, uint32_t size, void *data)
{
    (void)address, (void)size, (void)data;
    if (__builtin_expect(atomic_load_explicit(&machine.wanted, memory_order_relaxed), 0))
        api.emu_stop(uc);
}

/* The calls that the entry code answers on kvm (guest_stubs/entry.S). 1: answered. */
static int fast_answer(struct uctx *c)
{
    static int answer_ids[3] = {UC_X86_REG_RAX, UC_X86_REG_RCX, UC_X86_REG_R11};
    uint64_t number = 0, rip = 0, flags = 0, value;
    if (!c->fast.on)
        return 0;
    api.reg_read(machine.uc, UC_X86_REG_RAX, &number);
    switch (number) {
    case SYS_getpid:
        value = c->fast.pid;
        break;
    case SYS_gettid:
        value = c->fast.tid;
        break;
    case SYS_getuid:
        value = c->fast.uid;
        break;
    case SYS_geteuid:
        value = c->fast.euid;
        break;
    case SYS_getgid:
        value = c->fast.gid;
        break;
    case SYS_getegid:
        value = c->fast.egid;
        break;
    default:
        return 0;
    }
    api.reg_read(machine.uc, UC_X86_REG_RIP, &rip);
    api.reg_read(machine.uc, UC_X86_REG_EFLAGS, &flags);
    if (flags & RFLAGS_TF)
        return 0;
    rip += 2; /* the length of SYSCALL */
    void *at[3] = {&value, &rip, &flags};
    api.reg_write_batch(machine.uc, answer_ids, at, 3);
    return 1;
}

void on_syscall(uc_engine *uc, void *data)
{
    (void)uc, (void)data;
    if (!fast_answer(machine.current))
        ends(EXIT_SYSCALL);
}

/* An instruction that unicorn executes and ring 3 may not. The registers are those before it; it
 * cannot be undone that the rest of the block is executed in memory. */
static void forbidden(uint64_t vector)
{
    if (!ends(EXIT_EXCEPTION))
        return;
    machine.vector = vector;
    machine.error_code = 0;
    registers_store(machine.current);
    fpu_store(machine.current);
    machine.current->live = 0;
}

void on_sysenter(uc_engine *uc, void *data)
{
    (void)uc, (void)data;
    forbidden(V_UNDEFINED);
}

uint32_t on_in(uc_engine *uc, uint32_t port, int size, void *data)
{
    (void)uc, (void)port, (void)size, (void)data;
    forbidden(V_PROTECTION);
    return 0;
}

void on_out(uc_engine *uc, uint32_t port, int size, uint32_t value, void *data)
{
    (void)uc, (void)port, (void)size, (void)value, (void)data;
    forbidden(V_PROTECTION);
}

void on_interrupt(uc_engine *uc, uint32_t vector, void *data)
{
    (void)uc, (void)data;
    if (ends(EXIT_EXCEPTION)) {
        machine.vector = vector;
        machine.error_code = 0;
    }
}

bool on_invalid(uc_engine *uc, void *data)
{
    on_interrupt(uc, V_UNDEFINED, data);
    return false;
}

/* ---- one stretch ---------------------------------------------------------------------------- */

static int emulate(uint64_t rip)
{
    machine.found = EXIT_NONE;
    machine.fault_addr = 0;
    machine.stat_runs++;
    return api.emu_start(machine.uc, rip, 0, 0, 0);
}

static enum exit_kind fault(struct uctx *c)
{
    uint64_t page = machine.fault_addr, rip;
    registers_store(c);
    rip = c->regs[R_RIP];
    c->vector = 14;
    c->error_code = machine.error_code;
    if (c->error_code & 16) /* a fetch: of the instruction's start, or its rest in the next page */
        c->fault_addr = (rip & ~(PAGE_SIZE - 1)) == page ? rip : page;
    else
        c->fault_addr = operand_in_page(c, page, (c->error_code & 2) != 0);
    return EXIT_FAULT;
}

/* INT n: unicorn takes any n and leaves RIP behind it, where real descriptors say #GP. */
static void software_interrupt(struct uctx *c)
{
    uint64_t vector = c->vector;
    if (vector == V_BREAKPOINT || vector == V_OVERFLOW)
        return;
    const uint8_t *opcode = user_byte(c, c->regs[R_RIP] - 2, 0);
    const uint8_t *number = user_byte(c, c->regs[R_RIP] - 1, 0);
    int is_int = opcode && number && *opcode == 0xcd && *number == vector;
    if (vector < 32 && !is_int)
        return;
    c->regs[R_RIP] -= 2;
    c->vector = V_PROTECTION;
    c->error_code = vector * 8 + 2;
}

/* An address that is not canonical: #SS if it was reached through the stack pointer. */
static void not_canonical(struct uctx *c)
{
    if (machine.fault_addr - (c->regs[R_RSP] & ~(PAGE_SIZE - 1)) + PAGE_SIZE <= 2 * PAGE_SIZE)
        c->vector = V_STACK;
}

static enum exit_kind exception(struct uctx *c, int stored)
{
    c->vector = machine.vector;
    c->error_code = machine.error_code;
    if (!stored) {
        registers_store(c);
        fpu_store(c);
        c->live = 0;
        if (machine.fault_addr)
            not_canonical(c);
        else
            software_interrupt(c);
    }
    /* unicorn delivers no exception, so for it this one would stay in flight and the next one be
     * a double fault. */
    api.context_restore(machine.uc, machine.pristine);
    machine.loaded = NULL;
    return EXIT_EXCEPTION;
}

static enum exit_kind system_call(struct uctx *c)
{
    registers_store(c);
    c->regs[R_RCX] = c->regs[R_RIP];
    c->regs[R_R11] = c->regs[R_RFLAGS];
    c->regs[R_ORIG_RAX] = c->regs[R_RAX];
    c->regs[R_RAX] = (uint64_t)-ENOSYS;
    return EXIT_SYSCALL;
}

static void fpu_into_cpu(struct uctx *c)
{
    struct uctx *other = machine.loaded;
    if (other == c && c->live)
        return;
    if (other && other != c && other->live) {
        fpu_store(other);
        other->live = 0;
    }
    fpu_load(c);
    machine.loaded = c;
    c->live = 1;
}

enum exit_kind run(struct uctx *c)
{
    translate_prepare(c);
    fpu_into_cpu(c);
    registers_load(c);
    machine.current = c;
    int error = emulate(c->regs[R_RIP]);
    int lost = machine.lost, found = machine.found;
    enum exit_kind kind;
    if (found == EXIT_SYSCALL) {
        kind = system_call(c);
    } else if (found == EXIT_FAULT) {
        kind = fault(c);
    } else if (found == EXIT_EXCEPTION) {
        kind = exception(c, !c->live);
    } else {
        registers_store(c);
        c->vector = (uint64_t)error;
        c->fault_addr = machine.fault_addr;
        kind = found != EXIT_NONE ? (enum exit_kind)found
               : lost             ? EXIT_FILE_GONE
               : error            ? EXIT_BROKEN
                                  : EXIT_INTERRUPTED;
    }
    machine.current = NULL;
    if (machine.lost) {
        translate_restore_lost();
        machine.space = 0;
    }
    return kind;
}
