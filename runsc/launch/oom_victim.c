/* The process that the host's out-of-memory killer ends where the Sentry's has ended a program of the
 * container: engines look at the events of the container's cgroup (runsc/launch/oom_victim.py).
 *
 * It does nothing until the Sentry is gone. If the Sentry has said a word before, it lowers the
 * cgroup's limit and takes more than that. Whoever else is in the cgroup by then has nothing to do
 * any more: the stand-in, which is smaller, waits for it, and the Gofer, if it is still there, ends.
 */
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
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

static volatile char room[MORE] __attribute__((aligned(PAGE)));

static void touch(size_t from, size_t to)
{
    for (size_t at = from; at < to; at += PAGE)
        room[at] = 1;
}

__attribute__((noreturn, used)) static void victim(const char *title)
{
    uint64_t every = ~0ull;
    long said = 0;
    char byte;
    call(SYS_prctl, PR_SET_NAME, (long)title, 0, 0);
    call(SYS_rt_sigprocmask, 0 /* SIG_BLOCK */, (long)&every, 0, sizeof every);
    /* thousands of faults would use up RLIMIT_CPU on a slow machine */
    call(SYS_madvise, (long)room, MORE, MADV_HUGEPAGE, 0);
    if (call(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0) == 0)
        while (call(SYS_read, SENTRY, (long)&byte, 1, 0) > 0)
            said = 1;
    if (said) {
        touch(0, BEFORE);
        call(SYS_write, SWAP, (long)"0", 1, 0);
        /* version 1 refuses as long as more is used, such as what the Sentry gives back yet;
         * RLIMIT_CPU ends that */
        while (call(SYS_write, LIMIT, (long)LOWERED, sizeof LOWERED - 1, 0) == -16 /* EBUSY */)
            ;
        touch(BEFORE, MORE);
    }
    call(SYS_exit, 0, 0, 0, 0);
    __builtin_unreachable();
}

BEGINS_WITH(victim);
