/* The process that the host's out-of-memory killer ends where the Sentry's has ended a program of the
 * container: engines look at the events of the container's cgroup (runsc/launch/oom_victim.py).
 *
 * It does nothing until the Sentry is gone. If the Sentry has said a word before, a child of it lowers
 * the cgroup's limit and takes more than that. Whoever else is in the cgroup by then has nothing to do
 * any more: the stand-in and this process, which are smaller, wait for it, and the Gofer, if it is
 * still there, ends.
 *
 * Then the stand-in ends, and engines may hear of that sooner than of the kill. As this process stays,
 * the cgroup is not empty: systemd would take an empty one away, before they have read the events.
 */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#include "freestanding.h"

enum {
    SENTRY, /* a byte, if a program was killed, and the end */
    LIFE, /* the Sentry's connection to the stand-in: nobody closes it before us */
    LIMIT, /* memory.max, or memory.limit_in_bytes */
    SWAP, /* memory.swap.max, or memory.swappiness; perhaps closed */
};

#define LOWERED "33554432"
#define PAGE 4096
#define BEFORE (2 << 20) /* more than the stand-in has */
#define MORE (96 << 20) /* three times the limit */
#define STAYS_S 30 /* unless `delete` ends it, for an engine that does not */

static volatile char room[MORE] __attribute__((aligned(PAGE)));

#define ALLOWED(name) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), \
        BPF_STMT(BPF_RET, SECCOMP_RET_ALLOW)

/* Strict mode, and what this process needs besides. */
static struct sock_filter rules[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
    BPF_STMT(BPF_RET, SECCOMP_RET_KILL_PROCESS),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    ALLOWED(read),
    ALLOWED(write),
    ALLOWED(exit),
    ALLOWED(fork),
    ALLOWED(wait4),
    ALLOWED(close),
    ALLOWED(nanosleep),
    BPF_STMT(BPF_RET, SECCOMP_RET_KILL_PROCESS),
};

static long confine(void)
{
    struct sock_fprog program = {sizeof rules / sizeof rules[0], rules};
    return call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0)
           || call(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, (long)&program, 0);
}

static void touch(size_t from, size_t to)
{
    for (size_t at = from; at < to; at += PAGE)
        room[at] = 1;
}

static void eat(void)
{
    touch(0, BEFORE);
    call(SYS_write, SWAP, (long)"0", 1, 0);
    /* version 1 refuses as long as more is used, such as what the Sentry gives back yet;
     * RLIMIT_CPU ends that */
    while (call(SYS_write, LIMIT, (long)LOWERED, sizeof LOWERED - 1, 0) == -16 /* EBUSY */)
        ;
    touch(BEFORE, MORE);
}

__attribute__((noreturn, used)) static void victim(const char *title)
{
    uint64_t every = ~0ull;
    long stays[2] = {STAYS_S, 0}; /* struct timespec */
    long said = 0;
    char byte;
    call(SYS_prctl, PR_SET_NAME, (long)title, 0, 0);
    call(SYS_rt_sigprocmask, 0 /* SIG_BLOCK */, (long)&every, 0, sizeof every);
    /* thousands of faults would use up RLIMIT_CPU on a slow machine */
    call(SYS_madvise, (long)room, MORE, MADV_HUGEPAGE, 0);
    if (confine() == 0)
        while (call(SYS_read, SENTRY, (long)&byte, 1, 0) > 0)
            said = 1;
    if (said) {
        long child = call(SYS_fork, 0, 0, 0, 0);
        if (child <= 0)
            eat();
        else {
            call(SYS_wait4, child, 0, 0, 0);
            call(SYS_close, LIFE, 0, 0, 0);
            call(SYS_nanosleep, (long)stays, 0, 0, 0);
        }
    }
    call(SYS_exit, 0, 0, 0, 0);
    __builtin_unreachable();
}

BEGINS_WITH(victim);
