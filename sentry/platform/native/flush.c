/* Translations of old data pages.
 *
 * After an entry was removed or lost a right, MADV_DONTNEED on the host mapping of the page it
 * pointed to makes KVM drop its translations in every vCPU (mmu notifier), with shadow and with
 * nested paging. The bytes stay: the mapping is shared. Where it is private (a forked sandbox's
 * template), DONTNEED would lose them, and a pair of mprotect calls does the same at more cost.
 *
 * The order is the whole point: entries change first, then the flush, and only then are the
 * references dropped, so a frame is never free while something still translates to it.
 */
#define _GNU_SOURCE
#include "memory_internal.h"
#include "memory_api.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

void (*flush_observer)(uint64_t gpa, uint64_t frames);

static void flush_private(uint8_t *at, uint64_t bytes)
{
    if (mprotect(at, bytes, PROT_NONE) < 0 || mprotect(at, bytes, PROT_READ | PROT_WRITE) < 0)
        abort(); /* going on would leave a program with another one's memory */
}

void flush_range(uint64_t gpa, uint64_t frames)
{
    uint64_t bytes = frames * PAGE_SIZE;
    if (!bytes || gpa >= DOORBELL_GPA)
        return;
    ram_counters.flush_calls++;
    ram_counters.flushed_frames += frames;
    if (flush_observer)
        flush_observer(gpa, frames);
    if (gpa < ram.frozen) {
        uint64_t some = ram.frozen - gpa < bytes ? ram.frozen - gpa : bytes;
        flush_private(ram.base + gpa, some);
        gpa += some;
        bytes -= some;
    }
    if (bytes && madvise(frame_host(gpa), bytes, MADV_DONTNEED) < 0)
        abort();
}

/* Make `last` longer by a run that follows it. 0: it does not, or is of another kind. */
static int append(struct batch_run *last, const struct batch_run *next)
{
    if (last->gpa + last->frames * PAGE_SIZE != next->gpa || last->release != next->release ||
        last->flush != next->flush || last->frames + next->frames >= 1u << 30 ||
        !(next->gpa & (WINDOW_SPAN - 1)))
        return 0;
    last->frames += next->frames;
    return 1;
}

void batch_add(struct batch *b, uint64_t entry, uint32_t frames, int release, int flush)
{
    uint64_t gpa = entry & PTE_ADDR;
    release = release && (entry & PTE_RAM);
    if (!(entry & PTE_P) && !release)
        flush = 0; /* it had no translation */
    if (!flush && !release)
        return;
    struct batch_run run = {gpa, frames, (uint8_t)release, (uint8_t)flush};
    if (b->n && append(&b->run[b->n - 1], &run))
        return;
    if (b->n == BATCH_RUNS)
        batch_finish(b);
    b->run[b->n++] = run;
}

static int by_place(const void *a, const void *b)
{
    const struct batch_run *x = a, *y = b;
    return (x->gpa > y->gpa) - (x->gpa < y->gpa);
}

/* Frames next to each other may belong to pages that are not: a flush costs 2 us and 0.2 a page. */
static void join_neighbours(struct batch *b)
{
    size_t last = 0;
    qsort(b->run, b->n, sizeof b->run[0], by_place);
    for (size_t i = 1; i < b->n; i++)
        if (!append(&b->run[last], &b->run[i]))
            b->run[++last] = b->run[i];
    b->n = last + 1;
}

/* Punching the file unmaps the pages everywhere, which is a flush too. */
static void punch_range(uint64_t gpa, uint64_t frames)
{
    ram_counters.code_changes++;
    if (gpa < ram.store && ram_punch(gpa, frames * PAGE_SIZE) == 0)
        return;
    guarded_zero(ram.base + gpa, frames * PAGE_SIZE);
}

void batch_finish(struct batch *b)
{
    if (b->n > 1)
        join_neighbours(b);
    for (size_t i = 0; i < b->n; i++) {
        if (b->run[i].flush == FLUSH_PUNCH)
            punch_range(b->run[i].gpa, b->run[i].frames);
        else if (b->run[i].flush)
            flush_range(b->run[i].gpa, b->run[i].frames);
    }
    for (size_t i = 0; i < b->n; i++)
        if (b->run[i].release)
            run_release(b->run[i].gpa, b->run[i].frames);
    b->n = 0;
}
