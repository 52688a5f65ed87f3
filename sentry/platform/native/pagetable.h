/* x86-64 page tables in RAM, changed in bulk: what tables.c, change.c, fork.c and residency.c share.
 *
 * A and D are always set, so no processor writes here. Removing or weakening an entry goes through
 * a batch (flush.c). A table that became empty stays linked; when an address space has more than
 * EMPTY_LIMIT of them all that are found in one look are unlinked and go to the quarantine of
 * table_pages.c.
 */
#ifndef SENTRY_PAGETABLE_H
#define SENTRY_PAGETABLE_H

#include "memory_api.h"
#include "memory_internal.h"
#include "pagewalk.h"

#include <sys/mman.h>

#define EMPTY_LIMIT 256
#define TABLE_BITS (PTE_P | PTE_W | PTE_U | PTE_A)

extern struct batch page_batch; /* of the operation that runs: one at a time, on the kernel thread */

static inline uint64_t load(const uint64_t *entry)
{
    return __atomic_load_n(entry, __ATOMIC_RELAXED);
}

static inline void store(uint64_t *entry, uint64_t value)
{
    __atomic_store_n(entry, value, __ATOMIC_RELEASE);
}

static inline uint64_t min64(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Entry bits for PROT_* of mmap(2). */
static inline uint64_t rights(int prot)
{
    if (!(prot & (PROT_READ | PROT_WRITE | PROT_EXEC)))
        return PTE_A | PTE_D;
    return PTE_P | PTE_U | PTE_A | PTE_D | (prot & PROT_WRITE ? PTE_W : 0) |
           (prot & PROT_EXEC ? 0 : PTE_NX);
}

static inline int bad_range(uint64_t va, uint64_t pages)
{
    return (va & (PAGE_SIZE - 1)) || va > TASK_SIZE ||
           pages > (TASK_SIZE - va) >> PAGE_SHIFT;
}

/* All frames of an entry have no other owner. */
static inline int sole_owner(uint64_t value, uint32_t n)
{
    const uint32_t *count = &references[frame_index(value & PTE_ADDR)];
    for (uint32_t k = 0; k < n; k++)
        if (count[k] != 1)
            return 0;
    return 1;
}

/* ---- tables.c ---- */
static inline uint64_t table_of(const uint64_t *entry)
{
    return (uint64_t)((const uint8_t *)entry - ram.base) & ~(PAGE_SIZE - 1);
}

static inline int is_empty_table(uint64_t entry)
{
    return is_table(entry) && (references[frame_index(entry & PTE_ADDR)] & REF_EMPTY);
}

static inline void mark_used(struct aspace *as, uint64_t table)
{
    uint32_t *ref = &references[frame_index(table)];
    if (*ref & REF_EMPTY) {
        *ref &= ~REF_EMPTY;
        as->empty_tables--;
    }
}

/* The entry that says what lies at va, in whichever table that is said. */
static inline uint64_t *entry_for(struct aspace *as, uint64_t va, int *level)
{
    return walk_down(ram.base, as->root, va, 1, level);
}

void mark_empty(struct aspace *as, uint64_t table); /* if it has no entries */
uint64_t *entry_make(struct aspace *as, uint64_t va, int level); /* with the tables down to it; NULL:
                                                     no memory, or a large entry is in the way */
void table_unlink(struct aspace *as, uint64_t *entry);
void tables_trim(struct aspace *as); /* unlink the empty ones if they are many */
int entry_split(struct aspace *as, uint64_t *entry); /* a large one into a table: nothing to flush */

/* ---- walking a range ---- */

/* Called for every entry that is not 0: `n` is how many 4 KiB frames it stands for; 0: a part of a
 * large one, without WALK_SPLIT. */
typedef int (*visit_fn)(void *context, uint64_t *entry, uint64_t va, uint32_t n);

#define WALK_SPLIT 1 /* split 2 MiB entries that are only partly in the range */
#define WALK_CLEARS 2 /* the visit may empty tables: look */

static inline __attribute__((always_inline)) int
walk(struct aspace *as, uint64_t va, uint64_t end, int how, visit_fn visit, void *context)
{
    while (va < end) {
        int level;
        uint64_t *entry = walk_down(ram.base, as->root, va, 2, &level);
        if (level > 2) { /* on to where the missing table's range ends */
            va = (va | ((1ull << (3 + 9 * level)) - 1)) + 1;
            continue;
        }
        uint64_t directory = table_of(entry);
        uint64_t directory_end = min64((va | (CHUNK_SIZE - 1)) + 1, end);
        int cleared_large = 0;
        for (; va < directory_end; va = (va | (BLOCK_SIZE - 1)) + 1, entry++) {
            uint64_t value = load(entry), stop = min64((va | (BLOCK_SIZE - 1)) + 1, end);
            int error, part = stop - va != BLOCK_SIZE;
            if (!value)
                continue;
            if (!is_table(value) && !(part && (how & WALK_SPLIT))) {
                error = visit(context, entry, va, part ? 0 : BLOCK_FRAMES);
                if (error)
                    return error;
                cleared_large |= !load(entry);
                continue;
            }
            if (!is_table(value)) {
                error = entry_split(as, entry);
                if (error)
                    return error;
                value = load(entry);
            }
            uint64_t table = value & PTE_ADDR;
            if (references[frame_index(table)] & REF_EMPTY)
                continue;
            uint64_t *leaf = (uint64_t *)(ram.base + table) + slot_of(va, 1);
            for (uint64_t at = va; at < stop; at += PAGE_SIZE, leaf++) {
                if (!load(leaf))
                    continue;
                error = visit(context, leaf, at, 1);
                if (error)
                    return error;
            }
            if (how & WALK_CLEARS)
                mark_empty(as, table);
        }
        if (cleared_large && (how & WALK_CLEARS))
            mark_empty(as, directory);
    }
    return 0;
}

#endif
