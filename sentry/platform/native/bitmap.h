/* Runs of bits in a map of the frames of one block. */
#ifndef SENTRY_BITMAP_H
#define SENTRY_BITMAP_H

#include "memory.h"

static inline void bits_change(uint64_t *map, unsigned from, unsigned n, int set)
{
    while (n) {
        unsigned bit = from & 63, some = 64 - bit < n ? 64 - bit : n;
        uint64_t mask = (some == 64 ? ~0ull : (1ull << some) - 1) << bit;
        if (set)
            map[from >> 6] |= mask;
        else
            map[from >> 6] &= ~mask;
        from += some;
        n -= some;
    }
}

static inline unsigned bits_count(const uint64_t *map, unsigned from, unsigned n)
{
    unsigned count = 0;
    while (n) {
        unsigned bit = from & 63, some = 64 - bit < n ? 64 - bit : n;
        uint64_t mask = (some == 64 ? ~0ull : (1ull << some) - 1) << bit;
        count += (unsigned)__builtin_popcountll(map[from >> 6] & mask);
        from += some;
        n -= some;
    }
    return count;
}

/* The first run of set bits that is at least `want` long, else the longest one. */
static inline unsigned bits_find_run(const uint64_t *map, unsigned want, unsigned *start)
{
    unsigned best = 0, at = 0;
    while (at < BLOCK_FRAMES) {
        uint64_t word = map[at >> 6] >> (at & 63);
        if (!word) {
            at = (at | 63) + 1;
            continue;
        }
        at += (unsigned)__builtin_ctzll(word);
        unsigned end = at;
        while (end < BLOCK_FRAMES) {
            uint64_t gap = ~(map[end >> 6] >> (end & 63));
            unsigned ones = gap ? (unsigned)__builtin_ctzll(gap) : 64;
            unsigned left = 64 - (end & 63);
            end += ones < left ? ones : left;
            if (ones < left)
                break;
        }
        if (end - at > best) {
            best = end - at;
            *start = at;
        }
        if (best >= want)
            return want;
        at = end;
    }
    return best;
}

#endif
