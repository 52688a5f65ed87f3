/* What the contexts of every platform have in common. */
#ifndef SENTRY_CONTEXT_COMMON_H
#define SENTRY_CONTEXT_COMMON_H

#include <stdint.h>

enum exit_kind { /* why a context came back: ExitKind of sentry/platform/interface.py */
    EXIT_NONE,
    EXIT_SYSCALL,
    EXIT_FAULT,
    EXIT_EXCEPTION,
    EXIT_INTERRUPTED,
    EXIT_FILE_GONE,
    EXIT_NO_MEMORY,
    EXIT_BROKEN,
    EVENT_STOPPED = 100, /* no exit: the vCPU of this context is outside KVM_RUN */
};

/* What getpid, gettid and get[e]uid, get[e]gid answer without the kernel; from `pid` on in the order
 * of S_PID to S_EGID (layout.h). */
struct fast_answers {
    uint64_t on; /* 0: these calls come to the kernel like all others */
    uint64_t pid, tid, uid, euid, gid, egid;
};

#endif
