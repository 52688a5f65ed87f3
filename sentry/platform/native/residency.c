/* Which of the mapped pages the host has in memory. */
#define _GNU_SOURCE
#include "pagetable.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static int visit_populate(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    uint64_t value = load(entry);
    (void)context, (void)va;
    if (!(value & PTE_P) || !(value & (PTE_RAM | PTE_FILE)))
        return 0;
    int advice = value & PTE_RAM ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
    return madvise(frame_host(value & PTE_ADDR), (n ? n : BLOCK_FRAMES) * PAGE_SIZE, advice) < 0
               ? -errno
               : 0;
}

/* Have the host give memory for what is mapped (MAP_POPULATE, mlock). 0 or -errno. */
int aspace_populate(struct aspace *as, uint64_t va, uint64_t pages)
{
    if (bad_range(va, pages))
        return -EINVAL;
    return walk(as, va, va + pages * PAGE_SIZE, 0, visit_populate, NULL);
}

/* ---- what is there -------------------------------------------------------------------------- */

struct residency {
    uint8_t *vector;
    struct resident *counts;
    uint64_t start, end;
    uint64_t va, gpa; /* the run that was not asked for yet */
    uint32_t n;
    int file;
};

/* Ask the host about a run of consecutive pages. */
static void residency_run(struct residency *r)
{
    unsigned char resident[BLOCK_FRAMES];
    if (!r->n)
        return;
    if (mincore(frame_host(r->gpa), r->n * PAGE_SIZE, resident) < 0)
        memset(resident, 0, r->n);
    for (uint32_t k = 0; k < r->n; k++) {
        if (!(resident[k] & 1))
            continue;
        if (r->vector) {
            r->vector[((r->va - r->start) >> PAGE_SHIFT) + k] = 1;
        } else {
            int several = !r->file && references[frame_index(r->gpa) + k] > 1;
            ++*(r->file ? &r->counts->windows : &r->counts->ram);
            ++*(several ? &r->counts->several : &r->counts->alone);
        }
    }
    r->n = 0;
}

static int visit_residency(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    struct residency *r = context;
    uint64_t value = load(entry), gpa = value & PTE_ADDR;
    if (!(value & (PTE_RAM | PTE_FILE)))
        return 0;
    if (n == 0) { /* a large entry of which only a part is asked for */
        gpa += slot_of(va, 1) * PAGE_SIZE;
        n = (uint32_t)((min64((va | (BLOCK_SIZE - 1)) + 1, r->end) - va) >> PAGE_SHIFT);
    }
    if (r->n && r->n + n <= BLOCK_FRAMES && r->gpa + r->n * PAGE_SIZE == gpa &&
        r->va + r->n * PAGE_SIZE == va && r->file == !!(value & PTE_FILE)) {
        r->n += n;
        return 0;
    }
    residency_run(r);
    r->va = va;
    r->gpa = gpa;
    r->n = n;
    r->file = !!(value & PTE_FILE);
    return 0;
}

/* One byte for every page: 1 if it is mapped and the host has it in memory. */
int aspace_resident(struct aspace *as, uint64_t va, uint64_t pages, uint8_t *vector)
{
    if (bad_range(va, pages))
        return -EINVAL;
    memset(vector, 0, pages);
    uint64_t end = va + pages * PAGE_SIZE;
    struct residency r = {.vector = vector, .start = va, .end = end};
    int error = walk(as, va, end, 0, visit_residency, &r);
    residency_run(&r);
    return error;
}

/* Frames whose residency is asked for together: those of a process lie near each other, but in
 * another order than its pages. */
struct gathered {
    uint64_t gpa[BLOCK_FRAMES];
    size_t n;
    uint64_t resident;
};

#define GAP_FRAMES 8

static int by_address(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void count_gathered(struct gathered *g)
{
    unsigned char resident[BLOCK_FRAMES];
    qsort(g->gpa, g->n, sizeof g->gpa[0], by_address);
    for (size_t i = 0, j; i < g->n; i = j) {
        uint64_t first = g->gpa[i];
        for (j = i + 1; j < g->n && g->gpa[j] - g->gpa[j - 1] <= GAP_FRAMES * PAGE_SIZE &&
                        g->gpa[j] - first < BLOCK_SIZE; j++)
            ;
        if (mincore(frame_host(first), g->gpa[j - 1] - first + PAGE_SIZE, resident) < 0)
            continue;
        for (size_t k = i; k < j; k++)
            g->resident += resident[(g->gpa[k] - first) >> PAGE_SHIFT] & 1;
    }
    g->n = 0;
}

static int visit_gather(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    struct gathered *g = context;
    uint64_t value = load(entry);
    (void)va;
    if (!(value & PTE_RAM))
        return 0;
    for (uint32_t k = 0; k < n; k++) {
        if (g->n == BLOCK_FRAMES)
            count_gathered(g);
        g->gpa[g->n++] = (value & PTE_ADDR) + k * PAGE_SIZE;
    }
    return 0;
}

/* Pages of the whole address space that are in RAM and that the host has in memory. */
uint64_t aspace_resident_ram(struct aspace *as)
{
    struct gathered g = {.n = 0};
    walk(as, 0, TASK_SIZE, 0, visit_gather, &g);
    count_gathered(&g);
    return g.resident;
}

void aspace_count(struct aspace *as, uint64_t va, uint64_t pages, struct resident *counts)
{
    memset(counts, 0, sizeof *counts);
    if (bad_range(va, pages))
        return;
    uint64_t end = va + pages * PAGE_SIZE;
    struct residency r = {.counts = counts, .start = va, .end = end};
    walk(as, va, end, 0, visit_residency, &r);
    residency_run(&r);
}
