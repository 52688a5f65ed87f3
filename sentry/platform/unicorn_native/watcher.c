/* The watcher thread: stops the emulation when the kernel thread is wanted.
 *
 * While something is emulated it waits on the kernel thread's own epoll descriptor (readiness
 * only; it takes nothing out), no longer than a slice or until the deadline. While nothing is, it
 * sleeps on a futex. It touches neither contexts nor the CPU: uc_emu_stop is made to be called
 * from another thread.
 */
#define _GNU_SOURCE
#include "machine.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SLICE_NS 2000000
#define AGAIN_NS 50000 /* a stop can come before the emulation has begun, and is lost then */

static struct {
    pthread_t thread;
    _Atomic uint32_t running; /* number of the stretch; 0: nothing is emulated */
    _Atomic uint32_t seen;    /* a descriptor is ready and the kernel thread has not looked yet */
    _Atomic uint32_t asleep;  /* the watcher waits on one of these two words */
    _Atomic uint32_t closing;
    _Atomic int64_t deadline_ns; /* of the present stretch, INT64_MAX: none */
    _Atomic int64_t until_ns;    /* when the watcher looks next */
    int started, epoll_fd, poke_fd;
    uint32_t stretches;
} w;

int64_t monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store(&w.asleep, 1);
    if (atomic_load(word) == value && !atomic_load(&w.closing))
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
    atomic_store(&w.asleep, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    if (atomic_load(&w.asleep))
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static int wait_ready(int64_t until_ns)
{
    struct epoll_event e;
    int64_t left = until_ns - monotonic_ns();
    if (left < 0)
        left = 0;
    struct timespec t = {left / 1000000000, left % 1000000000};
    int n = epoll_pwait2(w.epoll_fd, &e, 1, &t, NULL);
    if (n == 1 && e.data.fd == w.poke_fd) {
        uint64_t count;
        (void)!read(w.poke_fd, &count, sizeof count);
        return 0;
    }
    return n == 1;
}

static void stop(uint32_t stretch)
{
    const struct timespec again = {0, AGAIN_NS};
    while (atomic_load(&w.running) == stretch && !atomic_load(&w.closing)) {
        atomic_store(&machine.wanted, 1);
        nanosleep(&again, NULL);
    }
}

static void *watch(void *argument)
{
    uint32_t before = 0;
    int64_t began = 0;
    (void)argument;
    while (!atomic_load(&w.closing)) {
        uint32_t stretch = atomic_load(&w.running);
        if (!stretch) {
            futex_wait(&w.running, 0);
            continue;
        }
        if (atomic_load(&w.seen)) {
            stop(stretch);
            futex_wait(&w.seen, 1);
            continue;
        }
        if (stretch != before) {
            before = stretch;
            began = monotonic_ns();
        }
        int64_t end = began + SLICE_NS, deadline = atomic_load(&w.deadline_ns);
        if (deadline < end)
            end = deadline;
        atomic_store(&w.until_ns, end);
        if (wait_ready(end))
            atomic_store(&w.seen, 1);
        else if (monotonic_ns() >= end)
            stop(stretch);
    }
    return NULL; /* a return: pthread_exit would load libgcc_s */
}

/* Kernel thread. */
void watcher_run_begins(int64_t deadline_ns)
{
    int64_t deadline = deadline_ns < 0 ? INT64_MAX : deadline_ns;
    if (++w.stretches == 0)
        w.stretches = 1;
    atomic_store(&w.deadline_ns, deadline);
    atomic_store(&w.running, w.stretches);
    if (atomic_load(&w.asleep))
        futex_wake(&w.running);
    else if (deadline < atomic_load(&w.until_ns)) { /* it would look too late */
        uint64_t one = 1;
        (void)!write(w.poke_fd, &one, sizeof one);
    }
}

void watcher_run_ends(void)
{
    atomic_store(&w.running, 0);
    atomic_store(&machine.wanted, 0);
}

int watcher_saw_ready(void)
{
    return (int)atomic_load(&w.seen);
}

void watcher_ready_taken(void)
{
    if (atomic_exchange(&w.seen, 0))
        futex_wake(&w.seen);
}

int watcher_open(void)
{
    struct epoll_event inner = {.events = EPOLLIN}, poke = {.events = EPOLLIN};
    pthread_attr_t attr;
    sigset_t all, old;
    memset(&w, 0, sizeof w);
    machine.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    w.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    w.poke_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    inner.data.fd = machine.epoll_fd;
    poke.data.fd = w.poke_fd;
    if (machine.epoll_fd < 0 || w.epoll_fd < 0 || w.poke_fd < 0 ||
        epoll_ctl(w.epoll_fd, EPOLL_CTL_ADD, machine.epoll_fd, &inner) < 0 ||
        epoll_ctl(w.epoll_fd, EPOLL_CTL_ADD, w.poke_fd, &poke) < 0)
        return -errno;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 128 << 10);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&w.thread, &attr, watch, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    w.started = !error;
    return -error;
}

void watcher_close(void)
{
    if (!w.started)
        return;
    uint64_t one = 1;
    atomic_store(&w.closing, 1);
    (void)!write(w.poke_fd, &one, sizeof one);
    /* Both words change, so that a wait which is about to begin does not. */
    atomic_store(&w.running, UINT32_MAX);
    atomic_store(&w.seen, 0);
    syscall(SYS_futex, &w.running, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    syscall(SYS_futex, &w.seen, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    pthread_join(w.thread, NULL);
    close(w.epoll_fd);
    close(w.poke_fd);
    close(machine.epoll_fd);
    w.started = 0;
}
