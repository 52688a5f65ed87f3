/* A signal for the calling thread each time it has used so much CPU time more. */
#ifndef SENTRY_TICKS_H
#define SENTRY_TICKS_H

#include <stdint.h>

int ticks_start(int signal, int64_t interval_ns); /* a timer, or -errno */
void ticks_stop(int timer);

/* Code that is bounded: the signals that it has left, 0 while there is none. With the last one the
   process ends, wherever it is; `fd` is told. After ticks_start and its handler. */
int64_t *ticks_left(void);
void ticks_bound(int signal, int fd);

#endif
