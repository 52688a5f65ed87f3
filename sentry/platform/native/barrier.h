/* The host's membarrier(2): a memory barrier on every vCPU thread that runs. */
#ifndef SENTRY_BARRIER_H
#define SENTRY_BARRIER_H

int host_membarrier(int command); /* 0 and up, or -errno */

#endif
