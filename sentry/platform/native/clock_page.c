/* Keeps the vDSO's clock page (guest_stubs/clock_page.h). Kernel thread only.
 *
 * The line through two readings of (TSC, CLOCK_MONOTONIC) some seconds apart is followed until a
 * horizon that grows with their distance, so that a reading's error of some 40 ns is not much
 * magnified, and that is short enough for the host's slewing (at most 500 ppm) to stay invisible.
 * Nothing renews the page while nobody asks: past the horizon the vDSO makes the system call.
 */
#define _GNU_SOURCE
#include "clock_page.h"
#include "vcpu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define HORIZON_NS 100000000ull
#define HORIZON_PER_AGE 4
#define ANCHOR_NS 4000000000ull
#define SAME_OFFSET_NS 2000 /* two readings of an offset between clocks that did not change */

struct reading {
    uint64_t tsc;
    uint64_t ns;
};

static struct {
    struct clock_page *page;
    struct reading anchor, middle;
    int64_t realtime_offset, boottime_offset;
    bool shaped; /* time inside is a line of its own: sentry/clock.py */
    uint64_t host_ns, inside_ns;
    uint32_t speed, per; /* speed / per seconds go by in one of the host's */
    int step_fd;
} clk = {.step_fd = -1};

static uint64_t fenced_tsc(void)
{
    __builtin_ia32_lfence();
    uint64_t tsc = tsc_now();
    __builtin_ia32_lfence();
    return tsc;
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* The tightest of a few: an interruption in between would spoil it. */
static struct reading read_pair(clockid_t clock)
{
    struct reading best = {0, 0};
    uint64_t width = UINT64_MAX;
    for (int i = 0; i < 4; i++) {
        uint64_t before = fenced_tsc(), ns = clock_ns(clock), after = fenced_tsc();
        if (after - before < width) {
            width = after - before;
            best = (struct reading){before + width / 2, ns};
        }
    }
    return best;
}

static uint64_t along(uint64_t base_ns, uint64_t base_tsc, uint64_t mult, uint64_t tsc)
{
    return base_ns + (uint64_t)((unsigned __int128)(tsc - base_tsc) * mult >> 32);
}

/* The difference of a clock to CLOCK_MONOTONIC; kept as it was when only the reading differs. */
static int64_t offset_of(clockid_t clock, struct reading now, uint64_t mult, int64_t known)
{
    struct reading other = read_pair(clock);
    int64_t offset = (int64_t)(other.ns - along(now.ns, now.tsc, mult, other.tsc));
    int64_t change = offset - known;
    return change > -SAME_OFFSET_NS && change < SAME_OFFSET_NS ? known : offset;
}

/* CLOCK_MONOTONIC as programs see it. */
static uint64_t inside(uint64_t ns)
{
    if (!clk.shaped || ns < clk.host_ns)
        return clk.shaped ? clk.inside_ns : ns;
    return clk.inside_ns + (uint64_t)((unsigned __int128)(ns - clk.host_ns) * clk.speed / clk.per);
}

void clock_page_refresh(void)
{
    volatile struct clock_page *page = clk.page;
    if (!page)
        return;
    struct reading now = read_pair(CLOCK_MONOTONIC);
    if (now.ns - clk.middle.ns > ANCHOR_NS) {
        clk.anchor = clk.middle;
        clk.middle = now;
    }
    uint64_t age_ns = now.ns - clk.anchor.ns, age_tsc = now.tsc - clk.anchor.tsc;
    if (!age_tsc || !age_ns)
        return;
    uint64_t mult = (uint64_t)(((unsigned __int128)age_ns << 32) / age_tsc);
    uint64_t horizon_ns = age_ns * HORIZON_PER_AGE;
    if (horizon_ns > HORIZON_NS)
        horizon_ns = HORIZON_NS;
    uint64_t horizon_tsc = (uint64_t)(((unsigned __int128)horizon_ns << 32) / mult);
    int64_t realtime = clk.realtime_offset, boottime = clk.boottime_offset;
    uint64_t base = inside(now.ns);
    if (clk.shaped) {
        mult = (uint64_t)((unsigned __int128)mult * clk.speed / clk.per);
    } else {
        realtime = offset_of(CLOCK_REALTIME, now, mult, realtime);
        boottime = offset_of(CLOCK_BOOTTIME, now, mult, boottime);
    }
    if (page->horizon_tsc) {
        /* Time must not go back: what programs may have seen is the least we begin with, and the
         * line is made flatter to meet the host's at the horizon. */
        uint64_t last = now.tsc < page->horizon_tsc ? now.tsc : page->horizon_tsc;
        uint64_t seen = along(page->monotonic, page->base_tsc, page->mult, last);
        if (seen > base) {
            uint64_t less = (uint64_t)(((unsigned __int128)(seen - base) << 32) / horizon_tsc);
            mult -= less < mult / 2 ? less : mult / 2;
            base = seen;
        }
    }
    clk.realtime_offset = realtime;
    clk.boottime_offset = boottime;
    page->sequence++;
    atomic_thread_fence(memory_order_seq_cst);
    page->base_tsc = now.tsc;
    page->horizon_tsc = now.tsc + horizon_tsc;
    page->mult = mult;
    page->monotonic = base;
    page->realtime = base + (uint64_t)realtime;
    page->boottime = base + (uint64_t)boottime;
    atomic_thread_fence(memory_order_seq_cst);
    page->sequence++;
}

/* The page says nothing until it is refreshed. What CLOCK_MONOTONIC may have been read from it. */
uint64_t clock_page_hold(void)
{
    volatile struct clock_page *page = clk.page;
    if (!page || !page->horizon_tsc)
        return 0;
    page->sequence++;
    atomic_thread_fence(memory_order_seq_cst);
    uint64_t tsc = fenced_tsc(), horizon = page->horizon_tsc;
    page->horizon_tsc = 0;
    atomic_thread_fence(memory_order_seq_cst);
    page->sequence++;
    return along(page->monotonic, page->base_tsc, page->mult, tsc < horizon ? tsc : horizon);
}

/* Programs see sentry.clock's time from now on. Offsets: of the two clocks to CLOCK_MONOTONIC. */
void clock_page_shape(uint64_t host_ns, uint64_t inside_ns, uint32_t speed, uint32_t per,
                      int64_t realtime_offset, int64_t boottime_offset)
{
    clk.shaped = true;
    clk.host_ns = host_ns;
    clk.inside_ns = inside_ns;
    clk.speed = speed;
    clk.per = per;
    clk.realtime_offset = realtime_offset;
    clk.boottime_offset = boottime_offset;
    clock_page_refresh();
}

/* What a program would read now from the page, so that calls and reads agree; -1: ask the host. */
int64_t clock_page_now(int clock)
{
    const volatile struct clock_page *page = clk.page;
    uint64_t tsc = tsc_now(), base;
    if (!page || tsc >= page->horizon_tsc || tsc < page->base_tsc)
        return -1;
    if (clock == CLOCK_MONOTONIC)
        base = page->monotonic;
    else if (clock == CLOCK_REALTIME)
        base = page->realtime;
    else if (clock == CLOCK_BOOTTIME)
        base = page->boottime;
    else
        return -1;
    return (int64_t)along(base, page->base_tsc, page->mult, tsc);
}

static int step_timer(void)
{
    struct itimerspec never = {.it_value = {.tv_sec = INT32_MAX}};
    int fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    if (fd >= 0)
        timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL);
    return fd;
}

/* Put a clock page into a frame and the image behind it; the first frame, or 0. `usable`: the TSC
 * runs at one rate on all CPUs, else the page says nothing for ever. */
uint64_t clock_page_open(const uint8_t *image, size_t size, int usable)
{
    if (size > PAGE_SIZE)
        return 0;
    uint64_t gpa = frames_alloc_contiguous(2);
    if (!gpa)
        return 0;
    memcpy(frame_host(gpa + CLOCK_PAGE_SIZE), image, size);
    if (!usable)
        return gpa;
    clk.page = (struct clock_page *)frame_host(gpa);
    clk.anchor = clk.middle = read_pair(CLOCK_MONOTONIC);
    clk.step_fd = step_timer();
    return gpa;
}

/* In a forked process: the timer is its own. */
void clock_page_again(void)
{
    int fd = step_timer();
    if (fd >= 0 && clk.step_fd >= 0)
        dup3(fd, clk.step_fd, O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    clock_page_refresh();
}

/* Readable when somebody sets the host's clock: then clock_page_stepped. -1: no clock page. */
int clock_page_step_fd(void)
{
    return clk.step_fd;
}

void clock_page_stepped(void)
{
    uint64_t expired;
    (void)!read(clk.step_fd, &expired, sizeof expired); /* ECANCELED; it stays armed */
    clock_page_refresh();
}

void clock_page_close(void)
{
    if (clk.step_fd >= 0)
        close(clk.step_fd);
    memset(&clk, 0, sizeof clk);
    clk.step_fd = -1;
}
