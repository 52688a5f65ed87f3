/* The wait of the kernel thread: vCPUs, host descriptors, a deadline.
 *
 * It spins for a while as long as programs run and a core is left over, because a guest that is
 * answered while it spins in its mailbox costs a twentieth of an exit. Before it sleeps it takes
 * the guests' spin budgets away, so that their next call rings, and looks once more.
 */
#define _GNU_SOURCE
#include "vcpu.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define WAKE_KEY UINT64_MAX
#define SPIN_MIN_NS 4000
#define SPIN_MAX_NS 120000
#define LONG_STEP_NS 200000
#define TOLD_FIRST 8
#define TOLD_AT_ONCE 16
#define POLL_EVERY_NS 100000 /* host descriptors, while vCPUs keep the kernel busy */

static const struct timespec ZERO;

static uint64_t ticks(uint64_t ns)
{
    return (uint64_t)((double)ns * pool.tsc_per_ns);
}

static int64_t monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int events_open(void)
{
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = WAKE_KEY};
    pool.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pool.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (pool.wake_fd < 0 || pool.epoll_fd < 0 ||
        epoll_ctl(pool.epoll_fd, EPOLL_CTL_ADD, pool.wake_fd, &e) < 0)
        return -errno;
    pool.spin_tsc = ticks(SPIN_MAX_NS / 2);
    return 0;
}

void events_close(void)
{
    close(pool.epoll_fd);
    close(pool.wake_fd);
}

/* Report `events` of fd, level-triggered, until called again with 0. 0 or -errno. */
int events_watch(int fd, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.u64 = (uint64_t)(uint32_t)fd};
    if (!events)
        return epoll_ctl(pool.epoll_fd, EPOLL_CTL_DEL, fd, NULL) < 0 ? -errno : 0;
    if (epoll_ctl(pool.epoll_fd, EPOLL_CTL_MOD, fd, &e) == 0)
        return 0;
    if (errno == ENOENT && epoll_ctl(pool.epoll_fd, EPOLL_CTL_ADD, fd, &e) == 0)
        return 0;
    return -errno;
}

/* Wait in the kernel for at most `timeout` (NULL: for ever). */
static void poll_host(const struct timespec *timeout)
{
    inline_looked();
    struct epoll_event e[sizeof pool.ready / sizeof pool.ready[0]];
    int n = epoll_pwait2(pool.epoll_fd, e, sizeof e / sizeof e[0], timeout, NULL);
    pool.last_poll_tsc = tsc_now();
    pool.n_ready = 0;
    pool.interrupted = n < 0;
    for (int i = 0; i < n; i++) {
        if (e[i].data.u64 == WAKE_KEY) {
            uint64_t count;
            (void)!read(pool.wake_fd, &count, sizeof count);
            continue;
        }
        if (e[i].data.u64 == DEADLINE_KEY) {
            inline_deadline_passed();
            continue;
        }
        pool.ready[pool.n_ready++] = (struct ready){(int32_t)e[i].data.u64, e[i].events};
    }
    if (pool.n_ready)
        inline_look_again();
}

/* An event came this long after the wait began: the next spin should not miss such a one. If it
 * had to sleep for it, an exit is in that time, and a longer spin will find the guest in its mailbox
 * instead. */
static void came_after(uint64_t elapsed_tsc)
{
    uint64_t want = 2 * elapsed_tsc + ticks(SPIN_MIN_NS);
    if (elapsed_tsc < ticks(SPIN_MAX_NS) && want > pool.spin_tsc)
        pool.spin_tsc = want < ticks(SPIN_MAX_NS) ? want : ticks(SPIN_MAX_NS);
}

/* 1: something came. */
static int spin(int64_t deadline_ns)
{
    uint64_t start = tsc_now(), end = start + pool.spin_tsc;
    if (pool.held.n && pool.spin_tsc < 4 * pool.hold_tsc + pool.enter_tsc)
        end = start + 4 * pool.hold_tsc + pool.enter_tsc;
    if (deadline_ns >= 0) {
        int64_t left = deadline_ns - monotonic_ns();
        if (left <= 0)
            return 0;
        if (start + ticks((uint64_t)left) < end)
            end = start + ticks((uint64_t)left);
    }
    schedule_slice(start);
    uint64_t now = start;
    while (now < end && pool.running && pool.running < pool.cpus) {
        sweep();
        now = tsc_now();
        if (pool.n_events) {
            came_after(now - start);
            return 1;
        }
        if (pool.held.n)
            hand_over_held(now, 1);
        if (queued())
            schedule(1);
        __builtin_ia32_pause();
    }
    if (now >= end && pool.spin_tsc > ticks(SPIN_MIN_NS))
        pool.spin_tsc -= pool.spin_tsc / 4;
    return 0;
}

static void sleep_until(int64_t deadline_ns)
{
    struct timespec t = {0, 0}, *timeout = NULL;
    uint64_t now_tsc = tsc_now(), look = schedule_slice(now_tsc), due = vacant_due(now_tsc);
    if (due && (!look || due < look))
        look = due;
    int64_t left = -1;
    if (deadline_ns >= 0) {
        left = deadline_ns - monotonic_ns();
        if (left < 0)
            left = 0;
    }
    if (look) {
        int64_t until = look > now_tsc ? (int64_t)((double)(look - now_tsc) / pool.tsc_per_ns) : 0;
        if (left < 0 || until < left)
            left = until;
    }
    if (left >= 0) {
        t.tv_sec = left / 1000000000;
        t.tv_nsec = left % 1000000000;
        timeout = &t;
    }
    pool.stat_sleeps++;
    poll_host(timeout);
}

/* What a kernel thread that does not get to sleep would miss. */
static void look_now_and_then(void)
{
    uint64_t now = tsc_now();
    if (now - pool.last_poll_tsc <= ticks(POLL_EVERY_NS))
        return;
    poll_host(&ZERO);
    schedule_slice(now);
    vacant_due(now);
}

static struct account *account_of(const struct event *event)
{
    struct ctx *c = pool.ctxs[event->index];
    return c->account ? c->account : &c->own;
}

/* Which event is next where not all are told: of the process of which none has been told for
 * longest, and there of a thread that woke; but not always. */
static uint32_t first_event(void)
{
    uint32_t best = 0;
    uint64_t best_rank = UINT64_MAX;
    for (uint32_t i = 0; i < pool.n_events && pool.told_first < TOLD_FIRST; i++) {
        uint64_t rank = account_of(&pool.events[i])->told << 1;
        rank |= !pool.ctxs[pool.events[i].index]->woke;
        if (rank < best_rank) {
            best_rank = rank;
            best = i;
        }
    }
    pool.told_first = best ? pool.told_first + 1 : 0;
    return best;
}

/* The events go to the kernel, which has come back at `start_tsc`. If it took long for the last
 * ones, one at a time, so that who wakes up meanwhile need not wait for all, and never many. */
static void tell(uint64_t start_tsc)
{
    uint32_t n = pool.n_events, last = pool.n_told ? pool.n_told : 1;
    if (n > 1 && start_tsc - pool.told_tsc > last * ticks(LONG_STEP_NS))
        n = 1;
    if (n > TOLD_AT_ONCE)
        n = TOLD_AT_ONCE;
    if (n < pool.n_events) {
        uint32_t first = first_event();
        struct event event = pool.events[first];
        memmove(pool.events + 1, pool.events, first * sizeof event);
        pool.events[0] = event;
    }
    if (n) {
        memcpy(pool.told, pool.events, n * sizeof *pool.told);
        pool.n_events -= n;
        memmove(pool.events, pool.events + n, pool.n_events * sizeof *pool.events);
    }
    pool.told_tsc = tsc_now();
    for (uint32_t i = 0; i < n; i++) {
        struct ctx *c = pool.ctxs[pool.told[i].index];
        c->delivered = pool.turn;
        c->told_tsc = pool.told_tsc;
        account_of(&pool.told[i])->told = pool.turn;
    }
    pool.n_told = n;
}

int platform_wait(int64_t deadline_ns)
{
    uint64_t start = tsc_now();
    pool.n_ready = 0;
    pool.interrupted = 0;
    pool.turn++;
    for (;;) {
        if (pool.held.n)
            hand_over_held(tsc_now(), deadline_ns < 0 || monotonic_ns() < deadline_ns);
        if (!pool.n_events && inline_ready()) {
            if (inline_has_to_look())
                poll_host(&ZERO);
            if (pool.n_ready || (deadline_ns >= 0 && monotonic_ns() >= deadline_ns))
                break;
            if (inline_run(deadline_ns)) {
                if (pool.n_events || pool.interrupted)
                    break;
                continue;
            }
            if (pool.n_events)
                break;
            if (inline_ready())
                continue; /* there is something to look at */
        }
        schedule(1);
        sweep();
        if (pool.n_events) {
            look_now_and_then();
            break;
        }
        if (deadline_ns >= 0 && monotonic_ns() >= deadline_ns) {
            /* Only a look: the guests may go on to spin, the kernel thread is about to come back. */
            look_now_and_then();
            break;
        }
        if (pool.running && pool.running < pool.cpus && spin(deadline_ns))
            break;
        let_go_of_held();
        schedule(0);
        atomic_store(&pool.asleep, 1);
        offer_all();
        sweep();
        schedule(0); /* on a vCPU that has come out since */
        if (!pool.n_events)
            sleep_until(deadline_ns);
        atomic_store(&pool.asleep, 0);
        sweep();
        schedule(1);
        offer_all();
        if (pool.n_events) /* on a busy machine the wake-up takes longer than all the rest */
            came_after((pool.exit_tsc > start ? pool.exit_tsc : tsc_now()) - start);
        if (pool.n_events || pool.n_ready || pool.interrupted)
            break; /* interrupted: Python may want to run a signal handler */
        if (deadline_ns >= 0 && monotonic_ns() >= deadline_ns)
            break;
    }
    tell(start);
    int n = (int)pool.n_told;
    if (n == 1 && !pool.n_ready && pool.told[0].kind == EXIT_SYSCALL)
        return (int)pool.told[0].index;
    return -1 - (n | (int)(pool.n_ready << 20));
}
