/* The vCPU threads: KVM_RUN and nothing else. See vcpu.h for the phases. */
#define _GNU_SOURCE
#include "vcpu.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

struct pool pool;

/* Any thread. The kernel thread says that it sleeps before it looks a last time, and we look
 * whether it sleeps after we changed the phase, both in one total order: no wake-up is lost. */
void pool_wake(void)
{
    if (atomic_load(&pool.asleep) && atomic_exchange(&pool.asleep, 0)) {
        uint64_t one = 1;
        (void)!write(pool.wake_fd, &one, sizeof one);
    }
}

void vcpu_go(struct vcpu *v)
{
    if (atomic_load(&v->sleeping))
        syscall(SYS_futex, &v->phase, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void vcpu_kick(struct vcpu *v)
{
    pool.stat_kicks++;
    atomic_store(&v->kick, 1);
    syscall(SYS_tgkill, pool.pid, v->tid, pool.kick_signal);
}

/* The kick signal is blocked outside KVM_RUN and stays pending when it ended KVM_RUN. */
int consume_kick(void)
{
    int taken = 0;
    sigset_t set;
    struct timespec zero = {0, 0};
    sigemptyset(&set);
    sigaddset(&set, pool.kick_signal);
    while (sigtimedwait(&set, NULL, &zero) > 0)
        taken++;
    return taken;
}

static int is_doorbell(struct vcpu *v)
{
    struct kvm_run *run = v->run;
    uint64_t rip = run->s.regs.regs.rip - v->entry_va;
    if (run->exit_reason == KVM_EXIT_MMIO)
        return run->mmio.is_write && run->mmio.len == 4 && rip == pool.at.after &&
               run->mmio.phys_addr == DOORBELL_GPA + (uint64_t)v->index * PAGE_SIZE;
    if (run->exit_reason == KVM_EXIT_IO) /* KVM may advance RIP only when it is entered again */
        return run->io.port == DOORBELL_PORT && (rip == pool.at.door || rip == pool.at.after);
    return 0;
}

/* What KVM_RUN left, on the thread that called it. */
void vcpu_collect(struct vcpu *v, int error)
{
    v->exit_errno = error;
    v->exit_reason = error ? KVM_EXIT_UNKNOWN : v->run->exit_reason;
    if (error == EFAULT && v->run->exit_reason == KVM_EXIT_MEMORY_FAULT)
        v->exit_reason = KVM_EXIT_MEMORY_FAULT;
    v->exit_door = !error && is_doorbell(v);
    v->exit_tsc = tsc_now();
    v->exit_cpu = sched_getcpu();
    if (v->exit_reason == KVM_EXIT_MMIO && !v->run->mmio.is_write) {
        /* KVM wants to finish the load before it takes other registers. */
        v->run->immediate_exit = 1;
        (void)!ioctl(v->fd, KVM_RUN, 0);
        v->run->immediate_exit = 0;
    }
}

/* One exit that the kernel thread has to know about. As soon as the phase says so, the next run may
 * have begun, and a kick may be meant for that one. */
static void run_until_exit(struct vcpu *v)
{
    for (;;) {
        int result = ioctl(v->fd, KVM_RUN, 0);
        int error = result < 0 ? errno : 0;
        if (error == EINTR) {
            consume_kick();
            if (!atomic_exchange(&v->kick, 0) && !atomic_load(&pool.closing))
                continue; /* a kick meant for an exit that came by itself */
        } else if (error == EAGAIN) {
            continue;
        }
        vcpu_collect(v, error);
        v->violation = 0;
        v->was_due = 0;
        uint32_t phase = atomic_load(&v->phase);
        for (;;) {
            if (phase == P_RUN) {
                if (atomic_compare_exchange_strong(&v->phase, &phase, P_EXIT))
                    return;
            } else if (phase == P_TAKEN) {
                v->violation = !v->exit_door && error != EINTR;
                if (atomic_compare_exchange_strong(&v->phase, &phase, P_OUT))
                    return;
            } else if (phase == P_DUE) {
                v->was_due = 1;
                if (atomic_compare_exchange_strong(&v->phase, &phase, P_RUN)) {
                    if (v->exit_door)
                        break;
                    phase = P_RUN;
                }
            } else {
                return;
            }
        }
    }
}

static void wait_for_work(struct vcpu *v)
{
    uint64_t start = tsc_now();
    while (tsc_now() - start < atomic_load(&v->patience)) {
        if (atomic_load(&v->phase) == P_RUN)
            return;
        __builtin_ia32_pause();
    }
    atomic_store(&v->sleeping, 1);
    for (;;) {
        uint32_t phase = atomic_load(&v->phase);
        if (phase == P_RUN || phase == P_CLOSED || atomic_load(&pool.closing))
            break;
        syscall(SYS_futex, &v->phase, FUTEX_WAIT_PRIVATE, phase, NULL, NULL, 0);
    }
    atomic_store(&v->sleeping, 0);
}

static void *vcpu_main(void *argument)
{
    struct vcpu *v = argument;
    /* struct kvm_signal_mask: a u32 length, then the set without a gap. */
    uint32_t mask[3] = {8};
    uint64_t set = ~(1ull << (pool.kick_signal - 1));
    memcpy(&mask[1], &set, sizeof set);
    int failed = ioctl(v->fd, KVM_SET_SIGNAL_MASK, mask) < 0;
    v->exit_errno = failed ? errno : 0;
    atomic_store(&v->tid, (pid_t)syscall(SYS_gettid));
    syscall(SYS_futex, &v->tid, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    for (;;) {
        wait_for_work(v);
        if (atomic_load(&pool.closing)) /* whatever the phase */
            return NULL; /* a return: pthread_exit would load libgcc_s */
        run_until_exit(v);
        if (atomic_load(&v->phase) == P_EXIT || atomic_load(&v->tell_out))
            pool_wake();
    }
}

int vcpu_thread_start(struct vcpu *v)
{
    pthread_attr_t attr;
    sigset_t all, before;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 128 << 10);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&v->thread, &attr, vcpu_main, v);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return -error;
}

/* Until it is ready for work. 0 or -errno. */
int vcpu_thread_await(struct vcpu *v)
{
    while (!atomic_load(&v->tid))
        syscall(SYS_futex, &v->tid, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    if (v->exit_errno)
        return -v->exit_errno;
    return -pthread_getcpuclockid(v->thread, &v->clock);
}
