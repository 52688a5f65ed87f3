/* What a snapshot asks of memory: which frames lie behind addresses, and which of them hold bytes. */
#define _GNU_SOURCE
#include "pagetable.h"

#include <errno.h>
#include <string.h>

struct listing {
    uint64_t *gpas;
    uint64_t start;
};

static int visit_list(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    struct listing *list = context;
    uint64_t value = load(entry), gpa = value & PTE_ADDR;
    if (!(value & PTE_RAM))
        return 0;
    uint64_t *at = list->gpas + ((va - list->start) >> PAGE_SHIFT);
    for (uint32_t k = 0; k < n; k++)
        at[k] = gpa + k * PAGE_SIZE;
    return 0;
}

/* The frame of each page of a range, 0 where an entry owns none. 0 or -errno. */
int aspace_list(struct aspace *as, uint64_t va, uint64_t pages, uint64_t *gpas)
{
    if (bad_range(va, pages))
        return -EINVAL;
    memset(gpas, 0, pages * sizeof *gpas);
    struct listing list = {.gpas = gpas, .start = va};
    return walk(as, va, va + pages * PAGE_SIZE, WALK_SPLIT, visit_list, &list);
}

static int is_zero(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, PAGE_SIZE - 1) == 0;
}

/* One byte for each frame: 1 if it holds anything but zeros. A frame that the host has not populated
 * is not touched, for that would populate it. */
void frames_hold(const uint64_t *gpas, uint64_t n, uint8_t *holds)
{
    for (uint64_t i = 0; i < n;) {
        uint64_t gpa = gpas[i], run = 1;
        size_t same = 1;
        if (!gpa || gpa >= ram.span) {
            holds[i++] = 0;
            continue;
        }
        while (i + run < n && run < BLOCK_FRAMES && gpas[i + run] == gpa + run * PAGE_SIZE)
            run++;
        int populated = populated_run(gpa, run, &same);
        for (uint64_t k = 0; k < run && k < same; k++, i++)
            holds[i] = populated && !is_zero(ram.base + gpa + k * PAGE_SIZE);
    }
}

/* ---- XXH64 of a page: what tells one that has changed from one that has not ------------------ */

#define P1 0x9E3779B185EBCA87ull
#define P2 0xC2B2AE3D27D4EB4Full
#define P3 0x165667B19E3779F9ull
#define P4 0x85EBCA77C2B2AE63ull

static inline uint64_t turn(uint64_t value, int bits)
{
    return value << bits | value >> (64 - bits);
}

static inline uint64_t lane(uint64_t sum, uint64_t word)
{
    return turn(sum + word * P2, 31) * P1;
}

/* With seed 0; a page has no rest behind its stripes of 32 bytes. */
static uint64_t page_hash(const uint8_t *page)
{
    uint64_t sum[4] = {P1 + P2, P2, 0, -P1}, hash;
    for (size_t at = 0; at < PAGE_SIZE; at += sizeof sum) {
        uint64_t word[4];
        memcpy(word, page + at, sizeof word);
        for (int k = 0; k < 4; k++)
            sum[k] = lane(sum[k], word[k]);
    }
    hash = turn(sum[0], 1) + turn(sum[1], 7) + turn(sum[2], 12) + turn(sum[3], 18);
    for (int k = 0; k < 4; k++)
        hash = (hash ^ lane(0, sum[k])) * P1 + P4;
    hash += PAGE_SIZE;
    hash = (hash ^ hash >> 33) * P2;
    hash = (hash ^ hash >> 29) * P3;
    return hash ^ hash >> 32;
}

void pages_hash(const uint8_t *at, uint64_t n, uint64_t *hashes)
{
    for (uint64_t i = 0; i < n; i++)
        hashes[i] = page_hash(at + i * PAGE_SIZE);
}

/* Of frames that hold bytes. */
void frames_hash(const uint64_t *gpas, uint64_t n, uint64_t *hashes)
{
    for (uint64_t i = 0; i < n; i++)
        hashes[i] = page_hash(ram.base + gpas[i]);
}
