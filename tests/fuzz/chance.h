/* Chance that a seed decides, for the fuzzers that are programs: xorshift64 (Marsaglia 2003). */
#ifndef FUZZ_CHANCE_H
#define FUZZ_CHANCE_H

#include <stdint.h>

/* One step of a generator of one's own; never 0. */
static uint64_t step(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    return *x ^= *x << 17;
}

/* That of the process. 0: it has not begun. */
static uint64_t state;

static uint64_t any(void) { return step(&state) >> 3; }

static unsigned chance(unsigned n) { return (unsigned)(any() % n); }

static void begin(uint64_t seed)
{
    state = seed * 0x9e3779b97f4a7c15u + 0x1234567;
    for (int i = 0; i < 8; i++)
        any();
}

#endif
