/* What a snapshot asks of memory: which frames lie behind addresses, and what they hold.
 *
 * All that is done for each page of a snapshot is here. Of a frame that is known to have the bytes
 * of the snapshot before nothing is read. */
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

/* ---- pages by frames ------------------------------------------------------------------------- */

/* Where a frame is in a list of `split` frames of RAM and then those of a disk; `room`: nowhere. */
static uint64_t slot(uint64_t gpa, uint64_t split, uint64_t room)
{
    uint64_t at = gpa < ram.store ? frame_index(gpa) : frame_index(gpa - ram.store) + split;
    return gpa < ram.store && at >= split ? room : at < room ? at : room;
}

/* Its number in the snapshot before, if its bytes are those of then; else 0. */
static uint32_t number_before(const struct numbering *it, uint64_t gpa)
{
    uint64_t at = frame_index(gpa);
    return it->before && gpa < ram.store && at < it->before_split && it->same[at] ? it->before[at]
                                                                                 : 0;
}

/* The numbers of these frames, new ones for those that have none, as runs of pages: triples of
 * (index of the first page, its number, how many), number 0 for frames of zeros, which are left out
 * unless `zeros`. A frame that the host has not populated is not touched, for that would populate it.
 * `runs` has room for n of them. How many; -EINVAL: no frames of ours. */
int64_t numbers_of(struct numbering *it, const uint64_t *gpas, uint64_t n, int zeros,
                   uint64_t *runs)
{
    uint64_t count = 0, known_from = 0, known_to = 0, *last = NULL;
    int populated = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t gpa = gpas[i], at;
        if (!gpa)
            continue;
        if ((at = slot(gpa, it->split, it->room)) == it->room)
            return -EINVAL;
        uint32_t number = it->numbers[at];
        if (!number) {
            uint32_t old = number_before(it, gpa);
            if (!old && (gpa < known_from || gpa >= known_to)) {
                size_t run = 1, alike = 1;
                while (i + run < n && run < BLOCK_FRAMES && gpas[i + run] == gpa + run * PAGE_SIZE)
                    run++;
                populated = populated_run(gpa, run, &alike);
                known_from = gpa;
                known_to = gpa + alike * PAGE_SIZE;
            }
            if (old == NUMBER_ZEROS || (!old && (!populated || is_zero(ram.base + gpa)))) {
                number = NUMBER_ZEROS;
            } else {
                it->frames[it->pages] = gpa;
                number = (uint32_t)++it->pages;
            }
            it->numbers[at] = number;
        }
        if (number == NUMBER_ZEROS) {
            if (!zeros)
                continue;
            number = 0;
        }
        if (last && last[0] + last[2] == i && number == (last[1] ? last[1] + last[2] : 0)) {
            last[2]++;
            continue;
        }
        last = runs + 3 * count++;
        last[0] = i, last[1] = number, last[2] = 1;
    }
    return (int64_t)count;
}

/* Frames that have pages already: `numbers` of n of them, the first of which has number 1. */
void numbers_put(uint32_t *numbers, uint64_t split, uint64_t room, const uint64_t *gpas, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        uint64_t at = gpas[i] ? slot(gpas[i], split, room) : room;
        if (at < room)
            numbers[at] = (uint32_t)i + 1;
    }
}

/* The hashes of n pages from index `first` on, and where they are: where the one before has those
 * with the same hashes, the others one after the other from `place` on. `own` gets the indices of
 * these, as many as it says. Without before_places all are such, and none is hashed. */
uint64_t numbers_place(const struct numbering *it, uint64_t first, uint64_t n,
                       const uint64_t *before_places, uint64_t place, uint64_t *hashes,
                       uint64_t *places, uint64_t *own)
{
    uint64_t count = 0;
    for (uint64_t i = first; i < first + n; i++) {
        if (!before_places) {
            places[i] = place + count;
            own[count++] = i;
            continue;
        }
        uint64_t gpa = it->frames[i], at;
        uint32_t old = number_before(it, gpa);
        hashes[i] = old ? it->before_hashes[old - 1] : page_hash(ram.base + gpa);
        if (!old) {
            at = slot(gpa, it->before_split, it->before_room);
            old = at < it->before_room ? it->before[at] : 0;
        }
        if (old && old != NUMBER_ZEROS && it->before_hashes[old - 1] == hashes[i]) {
            places[i] = before_places[old - 1];
        } else {
            places[i] = place + count;
            own[count++] = i;
        }
    }
    return count;
}

/* Runs of places, from *next on, which becomes the first that is in none: pairs of (the first one,
 * how many). `runs` has room for so many. How many. */
uint64_t places_runs(const uint64_t *places, uint64_t n, uint64_t *next, uint64_t *runs,
                     uint64_t room)
{
    uint64_t count = 0, i = *next;
    while (i < n && count < room) {
        uint64_t first = i++;
        while (i < n && places[i] == places[i - 1] + 1)
            i++;
        runs[2 * count] = places[first];
        runs[2 * count++ + 1] = i - first;
    }
    *next = i;
    return count;
}
