/* The page with which the vDSO answers the clocks. Written by the host, read by every program.
 *
 * time = base_ns + ((tsc - base_tsc) * mult >> 32), valid for base_tsc <= tsc < horizon_tsc. Past
 * the horizon, or with horizon 0, the vDSO makes the system call, and the host renews the page.
 */
#ifndef GUEST_CLOCK_PAGE_H
#define GUEST_CLOCK_PAGE_H

#include <stdint.h>

struct clock_page {
    uint32_t sequence; /* odd while it is being written */
    uint32_t unused;
    uint64_t base_tsc, horizon_tsc;
    uint64_t mult;        /* nanoseconds per TSC tick, times 2^32 */
    uint64_t monotonic;   /* nanoseconds at base_tsc */
    uint64_t realtime;
    uint64_t boottime;
};

#define CLOCK_PAGE_SIZE 0x1000 /* so far behind it lies the ELF header of the vDSO */

#endif
