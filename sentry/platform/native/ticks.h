/* A signal for the calling thread each time it has used so much CPU time more. */
#ifndef SENTRY_TICKS_H
#define SENTRY_TICKS_H

#include <stdint.h>

int ticks_start(int signal, int64_t interval_ns); /* a timer, or -errno */
void ticks_stop(int timer);

#endif
