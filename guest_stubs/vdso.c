/* The vDSO: clocks without a system call. See vdso(7) and clock_page.h.
 *
 * Freestanding and position independent, without data of its own; the clock page lies before it.
 * Clocks that are not in the page, and every question past its horizon, become the system call.
 */
#include "clock_page.h"

#define CLOCK_REALTIME 0
#define CLOCK_MONOTONIC 1
#define CLOCK_BOOTTIME 7
#define NS 1000000000ull

#define SYS_gettimeofday 96
#define SYS_time 201
#define SYS_clock_gettime 228
#define SYS_clock_getres 229
#define SYS_getcpu 309

struct timespec {
    int64_t seconds, nanoseconds;
};

struct timeval {
    int64_t seconds, microseconds;
};

extern const volatile struct clock_page clock_page __attribute__((visibility("hidden")));

static inline long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}

/* LFENCE keeps the counter from being read before what precedes it, SDM volume 2 "RDTSC". */
static inline uint64_t read_tsc(void)
{
    uint32_t low, high;
    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high)::"memory");
    return (uint64_t)high << 32 | low;
}

/* 0: the page cannot tell. */
static inline uint64_t now(int64_t clock)
{
    const volatile struct clock_page *page = &clock_page;
    for (;;) {
        uint32_t sequence = page->sequence;
        __asm__ volatile("" ::: "memory");
        if (sequence & 1) {
            __builtin_ia32_pause();
            continue;
        }
        uint64_t base = clock == CLOCK_MONOTONIC  ? page->monotonic
                        : clock == CLOCK_REALTIME ? page->realtime
                                                  : page->boottime;
        uint64_t base_tsc = page->base_tsc, horizon = page->horizon_tsc, mult = page->mult;
        uint64_t tsc = read_tsc();
        __asm__ volatile("" ::: "memory");
        if (page->sequence != sequence)
            continue;
        if (tsc < base_tsc || tsc >= horizon)
            return 0;
        return base + (uint64_t)((unsigned __int128)(tsc - base_tsc) * mult >> 32);
    }
}

int __vdso_clock_gettime(int clock, struct timespec *result)
{
    if (clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME) {
        uint64_t ns = now(clock);
        if (ns) {
            result->seconds = (int64_t)(ns / NS);
            result->nanoseconds = (int64_t)(ns % NS);
            return 0;
        }
    }
    return (int)call(SYS_clock_gettime, clock, (long)result, 0);
}

int __vdso_gettimeofday(struct timeval *result, void *zone)
{
    uint64_t ns = !zone && result ? now(CLOCK_REALTIME) : 0;
    if (!ns)
        return (int)call(SYS_gettimeofday, (long)result, (long)zone, 0);
    result->seconds = (int64_t)(ns / NS);
    result->microseconds = (int64_t)(ns % NS / 1000);
    return 0;
}

int64_t __vdso_time(int64_t *result)
{
    uint64_t ns = now(CLOCK_REALTIME);
    if (!ns)
        return call(SYS_time, (long)result, 0, 0);
    if (result)
        *result = (int64_t)(ns / NS);
    return (int64_t)(ns / NS);
}

int __vdso_clock_getres(int clock, struct timespec *result)
{
    if (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC && clock != CLOCK_BOOTTIME)
        return (int)call(SYS_clock_getres, clock, (long)result, 0);
    if (result) {
        result->seconds = 0;
        result->nanoseconds = 1;
    }
    return 0;
}

int __vdso_getcpu(unsigned *cpu, unsigned *node, void *cache)
{
    return (int)call(SYS_getcpu, (long)cpu, (long)node, (long)cache);
}

#define ALIAS(name) __typeof__(__vdso_##name) name __attribute__((weak, alias("__vdso_" #name)))
ALIAS(clock_gettime);
ALIAS(gettimeofday);
ALIAS(time);
ALIAS(clock_getres);
ALIAS(getcpu);
