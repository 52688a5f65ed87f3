/* The kernel thread looks at what the vCPU threads left for it: requests in mailboxes, exits, and
 * vCPUs that have come out of KVM_RUN. */
#define _GNU_SOURCE
#include "vcpu.h"

#include <sched.h>

#define LATE_NS 20000 /* from an exit to the kernel thread, if they can do without each other */

void running_add(struct vcpu *v)
{
    if (!v->counted) {
        v->counted = 1;
        pool.running++;
    }
}

void running_remove(struct vcpu *v)
{
    if (v->counted) {
        v->counted = 0;
        pool.running--;
    }
}

void space_vcpu_out(struct vcpu *v)
{
    if (v->inside) {
        v->inside = 0;
        v->loaded->inside--;
    }
}

/* The thread is outside KVM_RUN, in FREE or OUT. */
void vcpu_is_out(struct vcpu *v)
{
    struct ctx *c = v->ctx;
    if (!has_arrived(v))
        stay_out(v);
    space_vcpu_out(v);
    running_remove(v);
    v->clock_tsc = 0;
    pool.active[v->index / 64] &= ~(1ull << v->index % 64);
    atomic_store(&v->tell_out, 0);
    if (v->draining) {
        v->draining = 0;
        v->at_tail = 0;
        atomic_store(&v->phase, P_FREE);
        spaces_release();
        return;
    }
    if (!c)
        return;
    if (c->stopping) {
        c->stopping = 0;
        post_event(c, EVENT_STOPPED);
    }
    if (c->forward && c->kicked) {
        c->forward = c->kicked = 0;
        c->state = C_KERNEL;
        post_event(c, EXIT_INTERRUPTED);
    } else if (c->forward) {
        vcpu_launch(v, c);
    }
}

/* A taken request whose guest has rung, or was kicked while it spun: it stands before the tail, of
 * the address space that it was in. If it was to leave that one it stands nowhere, also when it is
 * looked at once more, as its context goes on. */
void came_out(struct vcpu *v)
{
    if (v->inside && !v->draining && !v->at_tail && !v->leaving) {
        v->at_tail = 1;
        if (!v->exit_door) {
            v->run->s.regs.regs.rip = v->entry_va + pool.at.tail;
            v->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
            vcpu_forget_events(v);
        }
    }
    vcpu_is_out(v);
}

static void take_request(struct vcpu *v)
{
    struct ctx *c = v->ctx;
    uint32_t phase = P_RUN;
    if (!atomic_compare_exchange_strong(&v->phase, &phase, P_TAKEN))
        return; /* an exit came first and says what it is */
    running_remove(v);
    v->taken_tsc = tsc_now();
    came_from_program(v, v->taken_tsc, 0);
    regs_from_s(v, c);
    c->place = FPU_SAVED;
    c->reloading = 0;
    c->state = C_KERNEL;
    c->kicked = 0;
    c->sequence = ++pool.sequence;
    pool.stat_mailbox++;
    post_event(c, EXIT_SYSCALL);
    if (c->stopping) {
        atomic_store(&v->tell_out, 1);
        vcpu_kick(v);
    }
}

/* After a triple fault KVM has reset the vCPU, MSRs and all: it is not used again. No program can
 * cause one by what the tables here allow; if one finds a way, it wears out its own sandbox. */
void vcpu_retire(struct vcpu *v)
{
    if (v->ctx)
        vcpu_evict(v);
    v->dead = 1;
    if (v == pool.inline_vcpu)
        pool.inlines = 0;
    else
        pool.live--;
}

/* Where the host's CPUs are busy, its scheduler likes to wake the kernel thread on the core of the
 * vCPU's thread. There each keeps the other from running while it looks for what that one will do,
 * call after call: 200 us each, where the mailbox takes 2 if both have a core half of the time. */
static void leave_core_of(struct vcpu *v)
{
    cpu_set_t allowed, others;
    if (pool.running + 2 > pool.cpus || v->exit_cpu != sched_getcpu() ||
        tsc_now() - v->exit_tsc < (uint64_t)(LATE_NS * pool.tsc_per_ns))
        return;
    if (sched_getaffinity(0, sizeof allowed, &allowed))
        return;
    others = allowed;
    CPU_CLR((size_t)v->exit_cpu, &others);
    if (CPU_COUNT(&others) && !sched_setaffinity(0, sizeof others, &others))
        (void)!sched_setaffinity(0, sizeof allowed, &allowed);
}

static void take_exit(struct vcpu *v)
{
    struct ctx *c = v->ctx;
    if (v->draining) {
        vcpu_is_out(v);
        if (v->exit_reason == KVM_EXIT_SHUTDOWN)
            vcpu_retire(v);
        return;
    }
    enum exit_kind kind = exit_decode(v, c);
    if (kind == EXIT_NONE) {
        atomic_store(&v->phase, P_RUN);
        vcpu_go(v);
        return;
    }
    atomic_store(&v->phase, P_FREE);
    pool.exit_tsc = v->exit_tsc;
    pool.stat_exits++;
    pool.stat_doorbell += v->exit_door;
    c->sequence = ++pool.sequence;
    c->state = C_KERNEL;
    int silent = kind == EXIT_INTERRUPTED && v->sliced && !c->kicked && !c->stopping;
    c->kicked = 0;
    v->sliced = 0;
    came_from_program(v, v->exit_tsc, silent);
    vcpu_is_out(v);
    leave_core_of(v);
    if (v->exit_reason == KVM_EXIT_SHUTDOWN)
        vcpu_retire(v);
    if (!silent) {
        post_event(c, kind);
    } else if (queued()) {
        vcpu_evict(v);
        queue_push(c);
    } else {
        v->turn_tsc = tsc_now();
        vcpu_launch(v, c);
    }
}

void sweep(void)
{
    for (unsigned group = 0; group < MAX_VCPUS / 64; group++) {
        for (uint64_t bits = pool.active[group]; bits; bits &= bits - 1) {
            struct vcpu *v = &pool.vcpu[group * 64 + (unsigned)__builtin_ctzll(bits)];
            uint32_t phase = atomic_load_explicit(&v->phase, memory_order_acquire);
            if (phase == P_EXIT)
                take_exit(v);
            else if (phase == P_OUT)
                came_out(v);
            else if (phase == P_RUN && !v->draining &&
                     *(volatile uint32_t *)(v->s + S_WORD) == WORD_REQUEST && has_arrived(v))
                take_request(v);
        }
    }
}
