/* Inline: the kernel thread runs a vCPU itself, so that an exit costs no change of threads.
 *
 * It does so when only one context wants to run, where exits are cheap (ordinary KVM) or there is
 * but one CPU. One vCPU is kept for this: KVM does not like a vCPU to change threads. While the
 * kernel thread is inside, a watcher thread looks after what the kernel thread waits for otherwise,
 * and kicks it out: host descriptors, the deadline (a timerfd) and other vCPUs (wake_fd) are all in
 * one epoll set, which the watcher sees through a second one, edge-triggered.
 */
#define _GNU_SOURCE
#include "vcpu.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

static struct {
    _Atomic uint32_t inside;  /* the kernel thread is in KVM_RUN, or about to be */
    _Atomic uint32_t changed; /* something in the epoll set became ready since it was looked at */
    int outer_fd, stop_fd, deadline_fd;
    int64_t armed_ns; /* deadline_fd, -1: not armed */
    pid_t kernel_tid;
    pthread_t watcher;
    sigset_t mask; /* the kernel thread's, before the kick was blocked */
    int running;
} in;

static void *watch_main(void *unused)
{
    (void)unused;
    for (;;) {
        struct epoll_event e;
        int n = epoll_pwait2(in.outer_fd, &e, 1, NULL, NULL);
        if (atomic_load(&pool.closing))
            return NULL;
        if (n <= 0)
            continue;
        atomic_store(&in.changed, 1);
        if (atomic_load(&in.inside))
            syscall(SYS_tgkill, pool.pid, in.kernel_tid, pool.kick_signal);
    }
}

/* Of a vCPU in pool.vcpu that has no thread. Signals of the kernel thread end KVM_RUN too. */
static int set_signal_mask(struct vcpu *v)
{
    uint32_t mask[3] = {8};
    sigset_t kick, now;
    uint64_t bits;
    sigemptyset(&kick);
    sigaddset(&kick, pool.kick_signal);
    pthread_sigmask(SIG_BLOCK, &kick, &in.mask);
    now = in.mask;
    sigdelset(&now, pool.kick_signal);
    memcpy(&bits, &now, sizeof bits); /* the first word: signals 1 to 64 */
    memcpy(&mask[1], &bits, sizeof bits);
    return ioctl(v->fd, KVM_SET_SIGNAL_MASK, mask) < 0 ? -errno : 0;
}

/* Called by the kernel thread, after events_open and with the vCPU added. 0 or -errno. */
int inline_open(void)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLET};
    struct epoll_event deadline = {.events = EPOLLIN, .data.u64 = DEADLINE_KEY};
    sigset_t all, before;
    memset(&in, 0, sizeof in);
    in.kernel_tid = (pid_t)syscall(SYS_gettid);
    in.armed_ns = -1;
    in.outer_fd = epoll_create1(EPOLL_CLOEXEC);
    in.stop_fd = eventfd(0, EFD_CLOEXEC);
    in.deadline_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (in.outer_fd < 0 || in.stop_fd < 0 || in.deadline_fd < 0 ||
        epoll_ctl(in.outer_fd, EPOLL_CTL_ADD, pool.epoll_fd, &e) < 0 ||
        epoll_ctl(in.outer_fd, EPOLL_CTL_ADD, in.stop_fd, &e) < 0 ||
        epoll_ctl(pool.epoll_fd, EPOLL_CTL_ADD, in.deadline_fd, &deadline) < 0)
        return -errno;
    int error = set_signal_mask(pool.inline_vcpu);
    if (error)
        return error;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&in.watcher, NULL, watch_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    in.running = !error;
    return -error;
}

static void close_all(void)
{
    close(in.outer_fd);
    close(in.stop_fd);
    close(in.deadline_fd);
}

/* In a forked process, where the watcher is not. */
void inline_forget(void)
{
    if (!in.running)
        return;
    close_all();
    pthread_sigmask(SIG_SETMASK, &in.mask, NULL);
    memset(&in, 0, sizeof in);
}

void inline_close(void)
{
    uint64_t one = 1;
    if (!in.running)
        return;
    (void)!write(in.stop_fd, &one, sizeof one);
    pthread_join(in.watcher, NULL);
    consume_kick();
    pthread_sigmask(SIG_SETMASK, &in.mask, NULL);
    close_all();
    memset(&in, 0, sizeof in);
}

/* Whether a context that is resumed now should wait for the kernel thread to run it. */
int inline_wanted(void)
{
    return pool.inlines && !pool.running && !queued() && !pool.held.n;
}

/* One context waits, and nobody else runs or is held back: it would wait for this one's exit. */
int inline_ready(void)
{
    return pool.inlines && queued() == 1 && !pool.running && !pool.held.n;
}

/* The epoll set is about to be looked at. Level-triggered descriptors that stay ready make no new
 * edge, so whoever finds some has to say so with inline_look_again. */
void inline_looked(void)
{
    atomic_store(&in.changed, 0);
}

void inline_look_again(void)
{
    atomic_store(&in.changed, 1);
}

int inline_has_to_look(void)
{
    return atomic_load(&in.changed) != 0;
}

void inline_deadline_passed(void)
{
    uint64_t count;
    (void)!read(in.deadline_fd, &count, sizeof count);
    in.armed_ns = -1;
}

static void arm(int64_t deadline_ns)
{
    /* An armed deadline that is too early only costs a look. */
    if (deadline_ns < 0 || (in.armed_ns >= 0 && in.armed_ns <= deadline_ns))
        return;
    struct itimerspec when = {.it_value = {.tv_sec = deadline_ns / 1000000000,
                                           .tv_nsec = deadline_ns % 1000000000}};
    if (!deadline_ns)
        when.it_value.tv_nsec = 1;
    timerfd_settime(in.deadline_fd, TFD_TIMER_ABSTIME, &when, NULL);
    in.armed_ns = deadline_ns;
}

/* Bind the only waiting context to the inline vCPU. NULL: no memory, an event says so. */
static struct vcpu *take_context(struct ctx *c)
{
    struct vcpu *v = pool.inline_vcpu;
    if (c->vcpu != v) {
        if (c->vcpu)
            vcpu_evict(c->vcpu);
        if (v->ctx)
            vcpu_evict(v);
        if (vcpu_load(v, c)) {
            post_event(c, EXIT_NO_MEMORY);
            return NULL;
        }
    }
    return v;
}

/* Run the waiting context until it has an exit, or the kernel thread has to look at something
 * else: then it waits again, with its registers. Returns 0 if it had to look before. */
int inline_run(int64_t deadline_ns)
{
    struct ctx *c = queue_first();
    struct vcpu *v;
    enum exit_kind kind;
    arm(deadline_ns);
    atomic_store(&pool.asleep, 1); /* vCPU threads and helpers write to wake_fd */
    atomic_store(&in.inside, 1);
    sweep();
    if (atomic_load(&in.changed) || pool.n_events || !inline_ready()) {
        atomic_store(&in.inside, 0);
        atomic_store(&pool.asleep, 0);
        return 0;
    }
    queue_remove(c);
    c->state = C_KERNEL;
    v = take_context(c);
    if (v) {
        vcpu_prepare(v, c);
        v->at_tail = 0;
        v->inside = 1;
        v->loaded->inside++;
        vcpu_offer(v);
        c->state = C_RUNNING;
        uint64_t start = tsc_now();
        do {
            int result = ioctl(v->fd, KVM_RUN, 0);
            vcpu_collect(v, result < 0 ? errno : 0);
            v->was_due = 0;
            kind = v->exit_errno == EAGAIN ? EXIT_NONE : exit_decode(v, c);
            if (v->exit_errno == EINTR && !consume_kick())
                pool.interrupted = 1; /* another signal: Python may have a handler */
        } while (kind == EXIT_NONE);
        ctx_ran(c, &(struct account){.inline_tsc = tsc_now() - start});
        c->woke = 0;
        space_vcpu_out(v);
        if (v->exit_reason == KVM_EXIT_SHUTDOWN)
            vcpu_retire(v);
        c->state = C_KERNEL;
        c->sequence = ++pool.sequence;
        pool.stat_exits++;
        pool.stat_inline++;
        if (kind == EXIT_INTERRUPTED)
            queue_push(c);
        else
            post_event(c, kind);
    }
    atomic_store(&in.inside, 0);
    atomic_store(&pool.asleep, 0);
    return 1;
}
