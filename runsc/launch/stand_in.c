/* The process that stands for a container on the host: it is in the namespaces that config.json asks
 * for, and ends as the container's first process does. The rest of it was done before it was
 * executed (runsc/launch/stand_in.py); it has no C library.
 *
 * Descriptor 3 is a socket to the Sentry: a byte to it says that all is ready, its wait status comes
 * back. At its end without one the container was killed. A negative status says to wait for that
 * end, too: the other side is also held by who has still to do something (oom_victim.c).
 *
 * Where it leads the session of the container's terminal on the host, it hears of a new window size,
 * and says so by a byte; strict mode lets a handler write and return.
 *
 * As pid 1 of a PID namespace it can raise no signal at itself. But what seccomp's strict mode does
 * to who makes another call looks like SIGKILL to the parent, whoever it is: do_exit(SIGKILL).
 */
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#include "freestanding.h"

#define LIFE 3
#ifndef SA_RESTORER
#define SA_RESTORER 0x04000000 /* asm/signal.h */
#endif

/* struct sigaction of the kernel. */
struct action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

static void resized(int number)
{
    (void)number;
    call(SYS_write, LIFE, (long)"", 1, 0);
}

/* Where a handler returns to. */
void restore(void);
__asm__("restore: mov $15, %eax\n\tsyscall");
_Static_assert(SYS_rt_sigreturn == 15, "restore");

/* For SIGKILL this call is one too many. */
static void end(int status)
{
    int number = status & 0x7F;
    if (number != SIGKILL)
        call(SYS_exit, number ? 128 + number : status >> 8 & 0xFF, 0, 0, 0);
    call(SYS_getpid, 0, 0, 0, 0);
}

/* `title`: what ps shows; the first words of it are the process's name. */
__attribute__((noreturn, used)) static void stand_in(const char *title)
{
    struct action ignored = {.handler = SIG_IGN};
    struct action told = {resized, SA_RESTORER | SA_RESTART, restore, ~0ull};
    uint64_t most = ~(1ull << (SIGWINCH - 1));
    int status = SIGKILL;
    call(SYS_prctl, PR_SET_NAME, (long)title, 0, 0);
    /* orphans of its PID namespace, such as nsenter(1) leaves, are nobody's zombies */
    call(SYS_rt_sigaction, SIGCHLD, (long)&ignored, 0, sizeof ignored.mask);
    call(SYS_rt_sigaction, SIGWINCH, (long)&told, 0, sizeof told.mask);
    call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&most, 0, sizeof most);
    if (call(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0) == 0
        && call(SYS_write, LIFE, (long)"", 1, 0) == 1
        && call(SYS_read, LIFE, (long)&status, sizeof status, 0) == sizeof status) {
        int more = status;
        while (more < 0 && call(SYS_read, LIFE, (long)&more, sizeof more, 0) > 0)
            more = status;
    } else {
        status = SIGKILL;
    }
    end(status);
    call(SYS_exit, 1, 0, 0, 0); /* there is no strict mode */
    __builtin_unreachable();
}

BEGINS_WITH(stand_in);
