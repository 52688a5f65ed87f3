/* Why a context came back: ExitKind of sentry/platform/interface.py, for every platform. */
#ifndef SENTRY_EXIT_KIND_H
#define SENTRY_EXIT_KIND_H

enum exit_kind {
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

#endif
