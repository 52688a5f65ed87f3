/* Page tables as such: made, found, split, unlinked; address spaces from beginning to end. */
#define _GNU_SOURCE
#include "pagetable.h"

#include <errno.h>
#include <stdlib.h>

#define LOOKS_AT_ONCE 1024 /* at directories: of 1 GiB each, or more where there is none */
#define KERNEL_SLOT ((unsigned)(HIGH_BASE >> 39) & (ENTRIES - 1))

struct batch page_batch;
static struct aspace *released; /* ready for aspace_reap; pushed by any thread */

void mark_empty(struct aspace *as, uint64_t table)
{
    const uint64_t *entry = (const uint64_t *)(ram.base + table);
    uint32_t *ref = &references[frame_index(table)];
    if (*ref & REF_EMPTY)
        return;
    for (unsigned i = 0; i < ENTRIES; i++)
        if (entry[i])
            return;
    *ref |= REF_EMPTY;
    as->empty_tables++;
}

uint64_t *entry_make(struct aspace *as, uint64_t va, int level)
{
    int at;
    uint64_t *entry = walk_down(ram.base, as->root, va, level, &at);
    for (; at > level; at--) {
        uint64_t table = load(entry) ? 0 : table_take();
        if (!table)
            return NULL;
        as->tables++;
        mark_used(as, table_of(entry));
        store(entry, table | TABLE_BITS);
        entry = (uint64_t *)(ram.base + table) + slot_of(va, at - 1);
    }
    return entry;
}

void table_unlink(struct aspace *as, uint64_t *entry)
{
    uint64_t table = load(entry) & PTE_ADDR;
    store(entry, 0);
    if (references[frame_index(table)] & REF_EMPTY)
        as->empty_tables--;
    as->tables--;
    table_quarantine(table);
}

/* Unlink the tables below this one, all or those that have no entries; tell whether this one is to
 * go too. */
static int prune(struct aspace *as, uint64_t table, int level, int all)
{
    uint64_t *entry = (uint64_t *)(ram.base + table);
    unsigned used = 0, end = level == 4 ? KERNEL_SLOT : ENTRIES;
    if (level == 1)
        return all || (references[frame_index(table)] & REF_EMPTY);
    for (unsigned i = 0; i < end; i++) {
        uint64_t value = load(&entry[i]);
        if (is_table(value) && prune(as, value & PTE_ADDR, level - 1, all))
            table_unlink(as, &entry[i]);
        else if (value)
            used++;
    }
    return all || !used;
}

static int has_entries(uint64_t table)
{
    const uint64_t *entry = (const uint64_t *)(ram.base + table);
    for (unsigned i = 0; i < ENTRIES; i++)
        if (entry[i])
            return 1;
    return 0;
}

/* Unlink the empty tables of 512 GiB from `gib` of them on, and tell at which a look ends before. */
static unsigned trim_below(struct aspace *as, uint64_t *entry, unsigned gib, unsigned *looks)
{
    uint64_t table = load(entry) & PTE_ADDR, *below = (uint64_t *)(ram.base + table);
    for (; gib < ENTRIES && *looks < LOOKS_AT_ONCE; gib++) {
        uint64_t value = load(&below[gib]);
        if (!is_table(value))
            continue;
        ++*looks;
        if (prune(as, value & PTE_ADDR, 2, 0))
            table_unlink(as, &below[gib]);
    }
    if (gib == ENTRIES && !has_entries(table))
        table_unlink(as, entry);
    return gib;
}

/* Once round, or as far as one look goes: the next one begins there. */
void tables_trim(struct aspace *as)
{
    if (as->empty_tables <= EMPTY_LIMIT)
        return;
    unsigned looks = 0;
    for (unsigned n = 0; n <= KERNEL_SLOT && looks < LOOKS_AT_ONCE; n++) {
        unsigned slot = as->trimmed / ENTRIES, gib = as->trimmed % ENTRIES;
        uint64_t *entry = (uint64_t *)(ram.base + as->root) + slot;
        gib = is_table(load(entry)) ? trim_below(as, entry, gib, &looks) : ENTRIES;
        as->trimmed = (slot * ENTRIES + gib) % (KERNEL_SLOT * ENTRIES);
    }
}

int entry_split(struct aspace *as, uint64_t *entry)
{
    uint64_t value = load(entry), table = table_take();
    if (!table)
        return -ENOMEM;
    uint64_t *leaf = (uint64_t *)(ram.base + table);
    for (unsigned i = 0; i < ENTRIES; i++)
        leaf[i] = (value & ~PTE_PS) + i * PAGE_SIZE;
    as->tables++;
    store(entry, table | TABLE_BITS);
    return 0;
}

/* ---- address spaces ------------------------------------------------------------------------- */

struct aspace *aspace_new(void)
{
    aspace_reap();
    struct aspace *as = calloc(1, sizeof *as);
    if (!as)
        return NULL;
    as->root = table_take();
    if (!as->root) {
        free(as);
        return NULL;
    }
    as->tables = 1;
    ram_counters.spaces++;
    if (ram.kernel_pdpt)
        ((uint64_t *)(ram.base + as->root))[KERNEL_SLOT] =
            ram.kernel_pdpt | PTE_P | PTE_W | PTE_A;
    return as;
}

void aspace_destroy(struct aspace *as)
{
    as->dying = 1;
    if (platform_release_when_out)
        platform_release_when_out(as);
    else
        aspace_released(as);
    aspace_reap();
}

void aspace_released(struct aspace *as)
{
    as->next = __atomic_load_n(&released, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&released, &as->next, as, 1, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED))
        ;
}

/* Nobody can translate through these tables any more. A frame that others still hold needs no
 * flush: what could reach it is this tree, and that stays out of use until a flush of all. */
static int visit_reap(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    uint64_t value = load(entry);
    (void)context, (void)va;
    if (!(value & PTE_RAM))
        return 0;
    uint64_t gpa = value & PTE_ADDR;
    for (uint32_t k = 0; k < n; k++, gpa += PAGE_SIZE)
        batch_add(&page_batch, gpa | PTE_RAM | PTE_P, 1, 1, references[frame_index(gpa)] == 1);
    return 0;
}

void aspace_reap(void)
{
    struct aspace *list = NULL, *next;
    if (__atomic_load_n(&released, __ATOMIC_RELAXED))
        list = __atomic_exchange_n(&released, NULL, __ATOMIC_ACQUIRE);
    for (; list; list = next) {
        next = list->next;
        walk(list, 0, TASK_SIZE, 0, visit_reap, NULL);
        batch_finish(&page_batch);
        prune(list, list->root, 4, 1);
        table_quarantine(list->root);
        free(list);
        ram_counters.spaces--;
    }
    quarantine_poll();
}

int aspace_map_special(struct aspace *as, uint64_t va, uint64_t gpa, uint64_t pte_flags)
{
    uint64_t *entry = entry_make(as, va, 1);
    if (!entry)
        return -ENOMEM;
    mark_used(as, table_of(entry));
    store(entry, gpa | pte_flags | PTE_A | PTE_D);
    return 0;
}

void aspace_unmap_special(struct aspace *as, uint64_t va)
{
    int level;
    uint64_t *entry = entry_for(as, va, &level), old = load(entry);
    if (level > 1)
        return;
    store(entry, 0);
    if ((old & PTE_P) && (old & PTE_ADDR) < ram.span)
        flush_range(old & PTE_ADDR, 1);
    mark_empty(as, table_of(entry));
}

/* Where the first 2 MiB of a range begin in which something is mapped; the range's end if nothing
 * is. Many directories that are empty are looked at in several calls: then nothing may be there. */
uint64_t aspace_next(struct aspace *as, uint64_t va, uint64_t pages)
{
    if (bad_range(va, pages))
        return va;
    uint64_t end = va + pages * PAGE_SIZE;
    for (unsigned looks = 0; va < end && looks < LOOKS_AT_ONCE; looks++) {
        int level;
        uint64_t *entry = walk_down(ram.base, as->root, va, 2, &level);
        uint64_t next = (va | ((1ull << (3 + 9 * (level > 3 ? level : 3))) - 1)) + 1;
        for (; level == 2 && va < min64(next, end); va = (va | (BLOCK_SIZE - 1)) + 1, entry++)
            if (load(entry) && !is_empty_table(load(entry)))
                return va;
        va = next;
    }
    return min64(va, end);
}

uint64_t aspace_entry(struct aspace *as, uint64_t va)
{
    int level;
    return va >> 47 ? 0 : load(entry_for(as, va, &level));
}

uint64_t aspace_translate(struct aspace *as, uint64_t va)
{
    int level;
    uint64_t value = va >> 47 ? 0 : load(entry_for(as, va, &level));
    if (!(value & PTE_P))
        return 0;
    uint64_t inside = (level == 2 ? BLOCK_SIZE : PAGE_SIZE) - 1;
    return (value & PTE_ADDR & ~inside) | (va & inside);
}
