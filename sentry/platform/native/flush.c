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
#include <fcntl.h>
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
    uint64_t bytes = frames * FRAME_SIZE;
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

void batch_add(struct batch *b, uint64_t entry, uint32_t frames, int release, int flush)
{
    uint64_t gpa = entry & PTE_ADDR;
    release = release && (entry & PTE_RAM);
    if (!(entry & PTE_P) && !release)
        flush = 0; /* it had no translation */
    if (!flush && !release)
        return;
    if (b->n) {
        typeof(&b->run[0]) last = &b->run[b->n - 1];
        if (last->gpa + last->frames * FRAME_SIZE == gpa && last->release == release &&
            last->flush == flush && last->frames + frames < 1u << 30 &&
            (gpa & (WINDOW_SPAN - 1))) {
            last->frames += frames;
            return;
        }
    }
    if (b->n == BATCH_RUNS)
        batch_finish(b);
    b->run[b->n].gpa = gpa;
    b->run[b->n].frames = frames;
    b->run[b->n].release = (uint8_t)release;
    b->run[b->n].flush = (uint8_t)flush;
    b->n++;
}

/* Punching the file unmaps the pages everywhere, which is a flush too. */
static void punch_range(uint64_t gpa, uint64_t frames)
{
    ram_counters.code_changes++;
    if (fallocate(ram.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)gpa,
                  (off_t)(frames * FRAME_SIZE)) == 0)
        return;
    guarded_zero(ram.base + gpa, frames * FRAME_SIZE);
}

void batch_finish(struct batch *b)
{
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
