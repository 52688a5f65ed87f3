/* What an exit means: from kvm_run to a context's registers and exit kind. Kernel thread only,
 * while the vCPU thread is outside KVM_RUN. */
#include "vcpu.h"

#include <errno.h>
#include <string.h>

#define RFLAGS_RF 0x10000ull
#define PF_USER 4

enum { VECTOR_BP = 3, VECTOR_OF = 4 };

static uint64_t s_reg(struct vcpu *v, int index)
{
    return ((volatile uint64_t *)(v->s + S_REGS))[index];
}

static void fixed_regs(struct ctx *c)
{
    c->regs[R_CS] = SEL_USER_CS;
    c->regs[R_SS] = SEL_USER_DS;
    c->regs[R_DS] = c->regs[R_ES] = c->regs[R_FS] = c->regs[R_GS] = 0;
}

/* The registers are those of a SYSCALL that has just been executed. */
static void as_syscall(struct ctx *c)
{
    fixed_regs(c);
    c->regs[R_RFLAGS] = (c->regs[R_RFLAGS] & ~RFLAGS_RF) | 0x202;
    c->regs[R_RAX] = (uint64_t)-ENOSYS;
}

/* SAFETY: S may change under us; each word is copied once and only the copy is used. */
void regs_from_s(struct vcpu *v, struct ctx *c)
{
    memcpy(c->regs, v->s + S_REGS, (R_GS_BASE + 1) * sizeof c->regs[0]);
    as_syscall(c);
}

static void regs_from_sync(struct vcpu *v, struct ctx *c)
{
    const struct kvm_regs *k = &v->run->s.regs.regs;
    uint64_t *r = c->regs;
    r[R_R15] = k->r15, r[R_R14] = k->r14, r[R_R13] = k->r13, r[R_R12] = k->r12;
    r[R_RBP] = k->rbp, r[R_RBX] = k->rbx, r[R_R11] = k->r11, r[R_R10] = k->r10;
    r[R_R9] = k->r9, r[R_R8] = k->r8, r[R_RAX] = k->rax, r[R_RCX] = k->rcx;
    r[R_RDX] = k->rdx, r[R_RSI] = k->rsi, r[R_RDI] = k->rdi, r[R_RSP] = k->rsp;
    r[R_RIP] = k->rip;
    r[R_RFLAGS] = k->rflags & ~RFLAGS_RF;
    r[R_FS_BASE] = v->run->s.regs.sregs.fs.base;
    r[R_GS_BASE] = v->run->s.regs.sregs.gs.base;
    r[R_ORIG_RAX] = UINT64_MAX; /* not in a system call */
    fixed_regs(c);
}

/* A system call whose registers are still live but for RIP. */
static enum exit_kind live_syscall(struct ctx *c, uint64_t rip)
{
    c->regs[R_RIP] = c->regs[R_RCX] = rip;
    c->regs[R_RFLAGS] = c->regs[R_R11];
    c->regs[R_ORIG_RAX] = c->regs[R_RAX];
    as_syscall(c);
    return EXIT_SYSCALL;
}

/* The vCPU was interrupted at `rip` in its entry page: the ranges of guest_stubs/entry.S. */
static enum exit_kind interrupted_in_entry(struct vcpu *v, struct ctx *c, uint64_t rip)
{
    const struct entry_labels *at = &pool.at;
    struct kvm_regs *k = &v->run->s.regs.regs;
    int answered = v->was_due || rip >= at->tail;
    if (rip >= at->spin && rip < at->rang)
        answered |= *(volatile uint32_t *)(v->s + S_WORD) == WORD_IDLE;
    if (rip == at->rang)
        answered |= k->rcx == 0;
    if (rip >= at->saved) {
        k->rip = v->entry_va + at->tail;
        v->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
        v->at_tail = 1;
        if (!answered) {
            regs_from_s(v, c);
            return EXIT_SYSCALL;
        }
        if (c->reloading)
            c->place = FPU_IMAGE;
        return EXIT_INTERRUPTED; /* c->regs are still what the kernel gave */
    }
    regs_from_sync(v, c);
    if (rip < at->rcx)
        return live_syscall(c, k->rcx);
    uint64_t next = s_reg(v, R_RIP);
    int ready = rip >= at->fret && rip < at->slow;
    if (rip >= at->fast && rip < at->fret)
        ready = (rip - at->fast) % 16 != 0;
    if (!ready)
        return live_syscall(c, next);
    c->regs[R_RIP] = c->regs[R_RCX] = next;
    c->regs[R_RFLAGS] = (c->regs[R_R11] & ~RFLAGS_RF) | 0x202;
    return EXIT_INTERRUPTED;
}

static int has_error_code(unsigned vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 ||
           vector == 29 || vector == 30;
}

static enum exit_kind exception(struct vcpu *v, struct ctx *c)
{
    uint64_t stub = v->run->s.regs.regs.rip - 1 - (HIGH_BASE + HIGH_STUBS);
    uint64_t stack = HIGH_BASE + HIGH_VCPU + v->index * HIGH_VCPU_STRIDE + PAGE_SIZE;
    uint64_t offset = v->run->s.regs.regs.rsp - stack;
    unsigned vector = (unsigned)(stub / STUB_STRIDE);
    uint64_t frame[6], *f = frame, size = has_error_code(vector) ? 6 * 8 : 5 * 8;
    if (stub % STUB_STRIDE || stub / STUB_STRIDE > 255 || offset > PAGE_SIZE - size) {
        c->vector = KVM_EXIT_HLT;
        c->error_code = stub;
        return EXIT_BROKEN;
    }
    memcpy(frame, v->stack + offset, size);
    c->error_code = has_error_code(vector) ? *f++ : 0;
    c->vector = vector;
    regs_from_sync(v, c);
    c->regs[R_RIP] = f[0];
    c->regs[R_RFLAGS] = f[2] & ~RFLAGS_RF;
    c->regs[R_RSP] = f[3];
    /* A SYSCALL that stayed in ring 3 was single-stepped: the trap comes before or after the first
     * instruction of the entry code, which changes no register. */
    if (vector == 1 && pool.ring3 && f[0] - v->entry_va <= pool.at.rcx)
        return live_syscall(c, c->regs[R_RCX]);
    if (vector == 14) {
        c->fault_addr = v->run->s.regs.sregs.cr2;
        return EXIT_FAULT;
    }
    return EXIT_EXCEPTION;
}

/* On the way from another address space it did not get as far as this program. */
static int never_started(struct vcpu *v)
{
    uint64_t stub = v->run->s.regs.regs.rip - (HIGH_BASE + HIGH_STUBS);
    return !has_arrived(v) || (stub >= pool.at.trap_switch && stub < pool.at.trap_end);
}

/* KVM still has to deliver an exception (it had to map the IDT or the stack first, or it was about
 * to): the registers are those before it. Of #BP and #OF it only tells the vector
 * (KVM_GET_VCPU_EVENTS, kvm_exception_is_soft), but PVM's RIP is past the instruction already. That
 * vector is not one of before: every exception ends in an exit, and the launch after it forgets. */
static int is_undelivered(const struct kvm_vcpu_events *events)
{
    unsigned vector = events->exception.nr;
    return events->exception.injected || events->exception.pending || vector == VECTOR_BP ||
           vector == VECTOR_OF;
}

/* memory_fault.gpa, behind its flags, which headers before Linux 6.8 do not name. */
static uint64_t refused_gpa(const struct kvm_run *run)
{
    uint64_t gpa;
    memcpy(&gpa, run->padding + sizeof(uint64_t), sizeof gpa);
    return gpa;
}

/* Fill in c->regs and the details; the kind of exit. */
enum exit_kind exit_decode(struct vcpu *v, struct ctx *c)
{
    struct kvm_run *run = v->run;
    enum exit_kind kind;
    if (never_started(v)) {
        stay_out(v);
        c->place = FPU_IMAGE;
        c->reloading = 0;
        return EXIT_INTERRUPTED; /* whatever the other one did */
    }
    v->at_tail = 0;
    c->place = FPU_LIVE;
    if (v->exit_door) {
        v->at_tail = 1;
        regs_from_s(v, c);
        c->place = FPU_SAVED;
        c->reloading = 0;
        return EXIT_SYSCALL;
    }
    if (v->exit_errno == EINTR) {
        if (is_undelivered(&run->s.regs.events))
            return EXIT_NONE; /* on to its stub, it comes out there */
        uint64_t offset = run->s.regs.regs.rip - v->entry_va;
        if (offset < pool.at.end) {
            kind = interrupted_in_entry(v, c, offset);
        } else if (run->s.regs.regs.rip >= HIGH_BASE) {
            return EXIT_NONE; /* on the way through an exception stub: on to its HLT */
        } else {
            regs_from_sync(v, c);
            kind = EXIT_INTERRUPTED;
        }
        c->reloading = 0;
        return kind;
    }
    c->reloading = 0;
    if (v->exit_reason == KVM_EXIT_HLT)
        return exception(v, c);
    regs_from_sync(v, c);
    if (v->exit_errno == EFAULT) {
        /* Newer kernels name the address. Without it a process that maps donated files has to look
         * at them first; if none is too short, memory is what was refused. */
        if (v->exit_reason == KVM_EXIT_MEMORY_FAULT)
            return refused_gpa(run) < RAM_SPAN ? EXIT_NO_MEMORY : EXIT_FILE_GONE;
        return c->space->windows ? EXIT_FILE_GONE : EXIT_NO_MEMORY;
    }
    if (v->exit_reason == KVM_EXIT_MMIO) { /* the program touched a doorbell page itself */
        c->fault_addr = ENTRY_BASE + ENTRY_PAGE_DOORBELL +
                        (run->mmio.phys_addr - DOORBELL_GPA) / PAGE_SIZE * ENTRY_STRIDE;
        c->error_code = PF_USER | 1 | (run->mmio.is_write ? 2 : 0);
        c->vector = 14;
        return EXIT_FAULT;
    }
    c->vector = v->exit_reason;
    c->error_code = v->exit_reason == KVM_EXIT_INTERNAL_ERROR ? run->internal.suberror
                                                              : (uint64_t)v->exit_errno;
    return EXIT_BROKEN;
}
