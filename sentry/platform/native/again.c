/* The machine in a process that fork(2) has made of this one: see sentry/fork.
 *
 * A virtual machine belongs to the process that made it, and only the thread that called fork(2)
 * is in the child. So before it every context's state is taken out of the vCPUs (pool_park), and in
 * the child machine, vCPUs, threads and what the loop waits on are made anew; contexts, address
 * spaces and RAM are there as they were. What the threads may have held is made anew, too: the
 * vCPUs' hold nothing while they sleep, the helper's lock nobody else looks at.
 */
#define _GNU_SOURCE
#include "vcpu.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* 1: every vCPU is out and nobody's, and no work is under way; 0: look again soon.
 * Preconditions: no context is told to go on meanwhile. */
int pool_park(void)
{
    int busy = 0;
    let_go_of_held();
    sweep();
    if (pool.n_events || queued() || helper_is_busy())
        return 0;
    for (uint32_t i = 0; i < pool.vcpus; i++) {
        struct vcpu *v = &pool.vcpu[i];
        uint32_t phase = atomic_load(&v->phase);
        if (phase == P_FREE || phase == P_OUT)
            continue;
        busy = 1;
        atomic_store(&v->tell_out, 1);
        vcpu_kick(v);
    }
    if (busy)
        return 0;
    for (uint32_t i = 0; i < pool.vcpus; i++) {
        struct vcpu *v = &pool.vcpu[i];
        if (atomic_load(&v->phase) == P_OUT)
            came_out(v);
        if (v->ctx)
            vcpu_evict(v);
        atomic_store(&v->phase, P_FREE);
        v->loaded = NULL;
        v->s = NULL;
        v->fpu_space = NULL;
        v->at_tail = 0;
    }
    spaces_release();
    return 1;
}

/* fork(2): glibc's, which sees to its own locks. Preconditions: pool_park gave 1. */
int pool_fork(void)
{
    pid_t pid = fork();
    return pid < 0 ? -errno : (int)pid;
}

/* In the child: what the kernel thread waits on, and no thread but that. `vm_fd`: the new machine's;
 * `vcpus`: so many of the old ones are wanted. 0 or -errno. */
int pool_again(int vm_fd, uint32_t vcpus)
{
    pool.vm_fd = vm_fd;
    pool.pid = getpid();
    if (vcpus < pool.vcpus)
        pool.vcpus = vcpus;
    inline_forget();
    helper_forget();
    events_close();
    return events_open();
}

/* SAFETY: as pool_add_vcpu. */
void pool_renew_vcpu(uint32_t index, int fd, void *run)
{
    struct vcpu *v = &pool.vcpu[index], before = *v;
    memset(v, 0, sizeof *v);
    v->index = index;
    v->fd = fd;
    v->run = run;
    v->user = before.user;
    v->stack = before.stack;
    v->entry_va = before.entry_va;
    v->run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
}
