/* The first process of a pod that has no container of its own (runsc/shim/sandbox.py). It waits, is
 * the parent of orphans where others share its PID namespace, and ends when it is told to. It runs
 * in the sandbox; it has no C library.
 */
#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#include "freestanding.h"

#define WNOHANG 1

__attribute__((noreturn, used)) static void wait_for_ever(const char *title)
{
    uint64_t every = ~0ull;
    (void)title;
    call(SYS_rt_sigprocmask, SIG_BLOCK, (long)&every, 0, sizeof every);
    for (;;) {
        long number = call(SYS_rt_sigtimedwait, (long)&every, 0, 0, sizeof every);
        if (number == SIGTERM || number == SIGINT)
            call(SYS_exit_group, 0, 0, 0, 0);
        while (call(SYS_wait4, -1, 0, WNOHANG, 0) > 0)
            continue;
    }
}

BEGINS_WITH(wait_for_ever);
