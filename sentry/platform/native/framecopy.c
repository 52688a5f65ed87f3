/* Bytes of frames, which files in RAM have in an array: copied from and to the Sentry's memory, and
 * from and to user memory. A 0 in the array is a page of zeros that has no frame. */
#define _GNU_SOURCE
#include "reach.h"

#include <string.h>

/* ---- bytes of frames --------------------------------------------------------------------------- */

enum frame_access { READ_FRAMES, WRITE_FRAMES, ZERO_FRAMES };

static uint64_t frames_access(const uint64_t *gpas, uint64_t offset, uint8_t *bytes, uint64_t n,
                              enum frame_access what)
{
    while (n) {
        uint64_t gpa = gpas[offset >> PAGE_SHIFT], inside = offset & (PAGE_SIZE - 1);
        uint64_t some = PAGE_SIZE - inside < n ? PAGE_SIZE - inside : n, left = 0;
        if (gpa >= ram.span)
            return n;
        if (!gpa && what == READ_FRAMES)
            memset(bytes, 0, some);
        else if (!gpa)
            left = what == ZERO_FRAMES ? 0 : some;
        else if (what == READ_FRAMES)
            left = guarded_copy(bytes, ram.base + gpa + inside, some);
        else if (what == WRITE_FRAMES)
            left = guarded_copy(ram.base + gpa + inside, bytes, some);
        else
            left = guarded_zero(ram.base + gpa + inside, some);
        if (what != READ_FRAMES && gpa && references[frame_index(gpa)] > 1)
            ram_counters.code_changes++; /* somebody has it mapped */
        if (left)
            return n - (some - left);
        offset += some;
        n -= some;
        if (bytes)
            bytes += some;
    }
    return 0;
}

uint64_t frames_read(const uint64_t *gpas, uint64_t offset, void *to, uint64_t n)
{
    return frames_access(gpas, offset, to, n, READ_FRAMES);
}

uint64_t frames_write(const uint64_t *gpas, uint64_t offset, const void *from, uint64_t n)
{
    return frames_access(gpas, offset, (uint8_t *)from, n, WRITE_FRAMES);
}

uint64_t frames_zero(const uint64_t *gpas, uint64_t offset, uint64_t n)
{
    return frames_access(gpas, offset, NULL, n, ZERO_FRAMES);
}

/* ---- between frames and user memory: read and write of files in RAM ---------------------------- */

/* Bytes of frames into user memory; a zero is a page of zeros. */
int64_t user_from_frames(struct aspace *as, uint64_t va, const uint64_t *gpas, uint64_t offset,
                         uint64_t n, struct fault *fault)
{
    uint64_t done = 0, some;
    while (done < n) {
        uint8_t *at = piece(as, va + done, n - done, 1, &some, fault);
        uint64_t gpa = gpas[(offset + done) >> PAGE_SHIFT];
        uint64_t inside = (offset + done) & (PAGE_SIZE - 1);
        if (!at)
            break;
        if (some > PAGE_SIZE - inside)
            some = PAGE_SIZE - inside;
        uint64_t left = gpa >= ram.span ? some
                        : gpa           ? guarded_copy(at, ram.base + gpa + inside, some)
                                        : guarded_zero(at, some);
        done += some - left;
        if (left) {
            set_fault(fault, va + done, 1, 1);
            break;
        }
    }
    return (int64_t)done;
}

/* The same for many ranges, pairs of an address and a length. */
int64_t ranges_from_frames(struct aspace *as, const uint64_t *ranges, int count,
                           const uint64_t *gpas, uint64_t offset, uint64_t n, struct fault *fault)
{
    uint64_t done = 0;
    for (int i = 0; i < count && done < n; i++) {
        uint64_t some = ranges[2 * i + 1] < n - done ? ranges[2 * i + 1] : n - done;
        int64_t got = user_from_frames(as, ranges[2 * i], gpas, offset + done, some, fault);
        done += (uint64_t)got;
        if ((uint64_t)got < some)
            break;
    }
    return (int64_t)done;
}

/* New frames for the holes at gpas[0..want), in a row and as their last users left them: all from
 * byte `head` of the first on is to be stored to. How many; 0: no memory. */
static size_t fill_holes(uint64_t *gpas, size_t want, size_t head, int store)
{
    size_t holes = 1, got = 0;
    while (holes < want && !gpas[holes])
        holes++;
    uint64_t gpa = hidden_take_raw(holes, &got, store);
    if (gpa && guarded_zero(ram.base + gpa, head)) {
        run_release(gpa, got);
        return 0;
    }
    for (size_t k = 0; gpa && k < got; k++)
        gpas[k] = gpa + k * PAGE_SIZE;
    return gpa ? got : 0;
}

/* Of new frames, bytes up to `end` are stored: zero the rest of that frame, and give back those
 * after it. How many. */
static size_t trim_new(uint64_t *gpas, uint64_t end, const uint64_t *stop)
{
    uint64_t inside = end & (PAGE_SIZE - 1), *at = gpas + (end >> PAGE_SHIFT);
    size_t given = 0;
    if (inside && at < stop)
        guarded_zero(ram.base + *at++ + inside, PAGE_SIZE - inside);
    for (; at < stop; at++, given++) {
        run_release(*at, 1);
        *at = 0;
    }
    return given;
}

/* User memory into frames; zeros become frames, *filled says how many. fault.addr is 0 and
 * fault.gone is set if there was none left. */
int64_t user_to_frames(struct aspace *as, uint64_t va, uint64_t *gpas, uint64_t offset, uint64_t n,
                       int store, uint64_t *filled, struct fault *fault)
{
    uint64_t done = 0, some, *stop = gpas + ((offset + n + PAGE_SIZE - 1) >> PAGE_SHIFT);
    uint64_t *new_stop = NULL;
    *filled = 0;
    while (done < n) {
        uint8_t *at = piece(as, va + done, n - done, 0, &some, fault);
        uint64_t *gpa = gpas + ((offset + done) >> PAGE_SHIFT);
        uint64_t inside = (offset + done) & (PAGE_SIZE - 1);
        if (!at)
            break;
        if (!*gpa) {
            size_t got = fill_holes(gpa, (size_t)(stop - gpa), inside, store);
            if (!got) {
                set_fault(fault, 0, 0, 1);
                break;
            }
            *filled += got;
            new_stop = gpa + got;
        }
        if (some > PAGE_SIZE - inside)
            some = PAGE_SIZE - inside;
        if (*gpa < ram.span && references[frame_index(*gpa)] > 1)
            ram_counters.code_changes++; /* somebody has it mapped */
        uint64_t left =
            *gpa >= ram.span ? some : guarded_copy(ram.base + *gpa + inside, at, some);
        done += some - left;
        if (left) { /* of the user's page, or of the frame, which then cannot be had */
            uint8_t probe;
            set_fault(fault, guarded_copy(&probe, at + some - left, 1) ? va + done : 0, 0, 1);
            break;
        }
    }
    if (new_stop)
        *filled -= trim_new(gpas, offset + done, new_stop);
    return (int64_t)done;
}
