/* x86-64 page tables in RAM, changed in bulk.
 *
 * Layout: SDM volume 3, section 4.5. Levels count down: 4 is the PML4, 1 the table of 4 KiB
 * entries; a 2 MiB entry stands in level 2 and has PTE_PS, present or not. Entries with PTE_P
 * clear keep their frame (PROT_NONE). A and D are always set, so no processor writes here.
 *
 * Removing or weakening an entry goes through a batch (flush.c). A table that became empty stays
 * linked; when an address space has more than EMPTY_LIMIT of them all are unlinked and go to the
 * quarantine of frames.c.
 */
#define _GNU_SOURCE
#include "memory_internal.h"
#include "memory_api.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define EMPTY_LIMIT 256
#define ENTRIES 512
#define TABLE_BITS (PTE_P | PTE_W | PTE_U | PTE_A)
#define KERNEL_SLOT 256
#define COW_AROUND 16

static struct aspace *released; /* ready for aspace_reap; pushed by any thread */

static uint64_t load(const uint64_t *entry) { return __atomic_load_n(entry, __ATOMIC_RELAXED); }
static void store(uint64_t *entry, uint64_t value)
{
    __atomic_store_n(entry, value, __ATOMIC_RELEASE);
}

static uint64_t *table_at(uint64_t entry) { return (uint64_t *)(ram.base + (entry & PTE_ADDR)); }
static unsigned slot_of(uint64_t va, int level) { return va >> (3 + 9 * level) & (ENTRIES - 1); }
static int is_table(uint64_t entry) { return (entry & (PTE_P | PTE_PS)) == PTE_P; }
static uint64_t min64(uint64_t a, uint64_t b) { return a < b ? a : b; }

static uint64_t rights(int prot)
{
    if (!(prot & (PROT_READ | PROT_WRITE | PROT_EXEC)))
        return PTE_A | PTE_D;
    return PTE_P | PTE_U | PTE_A | PTE_D | (prot & PROT_WRITE ? PTE_W : 0) |
           (prot & PROT_EXEC ? 0 : PTE_NX);
}

static int bad_range(uint64_t va, uint64_t pages)
{
    return (va & (PAGE_SIZE - 1)) || va > TASK_SIZE ||
           pages > (TASK_SIZE - va) >> PAGE_SHIFT;
}

/* ---- tables --------------------------------------------------------------------------------- */

static void mark_used(struct aspace *as, uint64_t gpa)
{
    uint32_t *ref = &references[frame_index(gpa)];
    if (*ref & REF_EMPTY) {
        *ref &= ~REF_EMPTY;
        as->empty_tables--;
    }
}

static void mark_empty(struct aspace *as, uint64_t gpa)
{
    const uint64_t *table = (const uint64_t *)(ram.base + gpa);
    uint32_t *ref = &references[frame_index(gpa)];
    if (*ref & REF_EMPTY)
        return;
    for (unsigned i = 0; i < ENTRIES; i++)
        if (table[i])
            return;
    *ref |= REF_EMPTY;
    as->empty_tables++;
}

/* The table of `level` (1 or 2) that covers va, made if `make`. NULL: none, or no memory. */
static uint64_t *table_for(struct aspace *as, uint64_t va, int level, int make)
{
    uint64_t at = as->root;
    for (int l = 4; l > level; l--) {
        uint64_t *entry = (uint64_t *)(ram.base + at) + slot_of(va, l);
        uint64_t value = load(entry);
        if (!value) {
            if (!make)
                return NULL;
            uint64_t gpa = table_take();
            if (!gpa)
                return NULL;
            as->tables++;
            mark_used(as, at);
            value = gpa | TABLE_BITS;
            store(entry, value);
        } else if (!is_table(value)) {
            return NULL;
        }
        at = value & PTE_ADDR;
    }
    return (uint64_t *)(ram.base + at);
}

static uint64_t gpa_of(const uint64_t *table) { return (uint64_t)((uint8_t *)table - ram.base); }

static void unlink_table(struct aspace *as, uint64_t *entry)
{
    uint64_t gpa = load(entry) & PTE_ADDR;
    store(entry, 0);
    if (references[frame_index(gpa)] & REF_EMPTY)
        as->empty_tables--;
    as->tables--;
    table_quarantine(gpa);
}

/* Unlink every table below this one that has no entries; tell whether this one has none left. */
static int prune(struct aspace *as, uint64_t gpa, int level)
{
    uint64_t *table = (uint64_t *)(ram.base + gpa);
    unsigned used = 0, end = level == 4 ? KERNEL_SLOT : ENTRIES;
    if (level == 1)
        return !!(references[frame_index(gpa)] & REF_EMPTY);
    for (unsigned i = 0; i < end; i++) {
        uint64_t value = load(&table[i]);
        if (value && is_table(value) && prune(as, value & PTE_ADDR, level - 1))
            unlink_table(as, &table[i]);
        else if (value)
            used++;
    }
    return !used;
}

/* Replace a 2 MiB entry by a table of 4 KiB entries that says the same: nothing to flush. */
static int split(struct aspace *as, uint64_t *entry)
{
    uint64_t value = load(entry), gpa = table_take();
    if (!gpa)
        return -ENOMEM;
    uint64_t *table = (uint64_t *)(ram.base + gpa);
    for (unsigned i = 0; i < ENTRIES; i++)
        table[i] = (value & ~PTE_PS) + i * PAGE_SIZE;
    as->tables++;
    store(entry, gpa | TABLE_BITS);
    return 0;
}

/* ---- walking a range ------------------------------------------------------------------------ */

/* Called for every entry that is not 0: `n` is how many 4 KiB frames it stands for. */
typedef int (*visit_fn)(void *context, uint64_t *entry, uint64_t va, uint32_t n);

#define WALK_SPLIT 1 /* split 2 MiB entries that are only partly in the range */
#define WALK_CLEARS 2 /* the visit may empty tables: look */

static inline __attribute__((always_inline)) int
walk(struct aspace *as, uint64_t va, uint64_t end, int how, visit_fn visit, void *context)
{
    while (va < end) {
        uint64_t *pd = table_for(as, va, 2, 0);
        if (!pd) {
            /* Skip to where the missing table's range ends: 1 GiB or 512 GiB further. */
            uint64_t top = load((uint64_t *)(ram.base + as->root) + slot_of(va, 4));
            uint64_t span = top ? CHUNK_SIZE : 512 * CHUNK_SIZE;
            va = (va | (span - 1)) + 1;
            continue;
        }
        uint64_t pd_end = min64((va | (CHUNK_SIZE - 1)) + 1, end);
        int cleared_large = 0;
        for (; va < pd_end; va = (va | (BLOCK_SIZE - 1)) + 1) {
            uint64_t *entry = pd + slot_of(va, 2), value = load(entry);
            uint64_t stop = min64((va | (BLOCK_SIZE - 1)) + 1, end);
            if (!value)
                continue;
            if (!is_table(value)) {
                if (!(va & (BLOCK_SIZE - 1)) && stop - va == BLOCK_SIZE) {
                    int error = visit(context, entry, va, BLOCK_FRAMES);
                    if (error)
                        return error;
                    cleared_large |= !load(entry);
                    continue;
                }
                if (!(how & WALK_SPLIT)) {
                    int error = visit(context, entry, va, 0);
                    if (error)
                        return error;
                    continue;
                }
                int error = split(as, entry);
                if (error)
                    return error;
                value = load(entry);
            }
            uint64_t gpa = value & PTE_ADDR;
            if (references[frame_index(gpa)] & REF_EMPTY)
                continue;
            uint64_t *table = table_at(value);
            for (uint64_t at = va; at < stop; at += PAGE_SIZE) {
                uint64_t *leaf = table + slot_of(at, 1);
                if (!load(leaf))
                    continue;
                int error = visit(context, leaf, at, 1);
                if (error)
                    return error;
            }
            if (how & WALK_CLEARS)
                mark_empty(as, gpa);
        }
        if (cleared_large && (how & WALK_CLEARS))
            mark_empty(as, gpa_of(pd));
    }
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
    (void)va;
    if (!(value & PTE_RAM))
        return 0;
    uint64_t gpa = value & PTE_ADDR;
    for (uint32_t k = 0; k < n; k++, gpa += PAGE_SIZE)
        batch_add(context, gpa | PTE_RAM | PTE_P, 1, 1, references[frame_index(gpa)] == 1);
    return 0;
}

static void quarantine_tree(struct aspace *as, uint64_t gpa, int level)
{
    uint64_t *table = (uint64_t *)(ram.base + gpa);
    unsigned end = level == 4 ? KERNEL_SLOT : ENTRIES;
    for (unsigned i = 0; level > 1 && i < end; i++)
        if (table[i] && is_table(table[i]))
            quarantine_tree(as, table[i] & PTE_ADDR, level - 1);
    table_quarantine(gpa);
}

void aspace_reap(void)
{
    struct aspace *list = __atomic_exchange_n(&released, NULL, __ATOMIC_ACQUIRE), *next;
    for (; list; list = next) {
        static struct batch batch;
        next = list->next;
        walk(list, 0, TASK_SIZE, 0, visit_reap, &batch);
        batch_finish(&batch);
        quarantine_tree(list, list->root, 4);
        free(list);
        ram_counters.spaces--;
    }
    quarantine_poll();
}

int aspace_map_special(struct aspace *as, uint64_t va, uint64_t gpa, uint64_t pte_flags)
{
    uint64_t *table = table_for(as, va, 1, 1);
    if (!table)
        return -ENOMEM;
    mark_used(as, gpa_of(table));
    store(table + slot_of(va, 1), gpa | pte_flags | PTE_A | PTE_D);
    return 0;
}

void aspace_unmap_special(struct aspace *as, uint64_t va)
{
    uint64_t *table = table_for(as, va, 1, 0);
    if (!table)
        return;
    uint64_t old = load(table + slot_of(va, 1));
    store(table + slot_of(va, 1), 0);
    if ((old & PTE_P) && (old & PTE_ADDR) < ram.span)
        flush_range(old & PTE_ADDR, 1);
    mark_empty(as, gpa_of(table));
}

static uint64_t *entry_for(struct aspace *as, uint64_t va, int *large)
{
    *large = 0;
    uint64_t *pd = table_for(as, va, 2, 0);
    if (!pd)
        return NULL;
    uint64_t *entry = pd + slot_of(va, 2), value = load(entry);
    if (!value)
        return NULL;
    if (!is_table(value)) {
        *large = 1;
        return entry;
    }
    return table_at(value) + slot_of(va, 1);
}

uint64_t aspace_entry(struct aspace *as, uint64_t va)
{
    int large;
    uint64_t *entry = va >> 47 ? NULL : entry_for(as, va, &large);
    return entry ? load(entry) : 0;
}

uint64_t aspace_translate(struct aspace *as, uint64_t va)
{
    int large;
    uint64_t *entry = va >> 47 ? NULL : entry_for(as, va, &large);
    uint64_t value = entry ? load(entry) : 0;
    if (!(value & PTE_P))
        return 0;
    return large ? (value & PTE_ADDR & ~(BLOCK_SIZE - 1)) | (va & (BLOCK_SIZE - 1))
                 : (value & PTE_ADDR) | (va & (PAGE_SIZE - 1));
}

/* ---- mapping -------------------------------------------------------------------------------- */

/* Fill a whole 2 MiB entry if its slot is free (or holds an empty table). 1: done. */
static int fill_large(struct aspace *as, uint64_t va, uint64_t bits)
{
    uint64_t *pd = table_for(as, va, 2, 1);
    if (!pd)
        return -ENOMEM;
    uint64_t *entry = pd + slot_of(va, 2), value = load(entry);
    if (value && !(is_table(value) &&
                   (references[frame_index(value & PTE_ADDR)] & REF_EMPTY)))
        return !is_table(value);
    uint64_t gpa = block_take();
    if (!gpa)
        return 0;
    if (value)
        unlink_table(as, entry);
    mark_used(as, gpa_of(pd));
    as->anonymous += BLOCK_FRAMES;
    store(entry, gpa | bits | PTE_RAM | PTE_PS);
    return 1;
}

int aspace_map_anonymous(struct aspace *as, uint64_t va, uint64_t pages, int prot)
{
    if (bad_range(va, pages))
        return -EINVAL;
    if (__atomic_load_n(&released, __ATOMIC_RELAXED))
        aspace_reap();
    uint64_t end = va + pages * PAGE_SIZE, bits = rights(prot);
    while (va < end) {
        uint64_t stop = min64((va | (BLOCK_SIZE - 1)) + 1, end);
        if (ram.large_entries && stop - va == BLOCK_SIZE) {
            int done = fill_large(as, va, bits);
            if (done < 0)
                return done;
            if (done) {
                va = stop;
                continue;
            }
        }
        uint64_t *table = table_for(as, va, 1, 1);
        if (!table) {
            int large;
            if (entry_for(as, va, &large) && large) { /* filled already */
                va = stop;
                continue;
            }
            return -ENOMEM;
        }
        mark_used(as, gpa_of(table));
        while (va < stop) {
            uint64_t *entry = table + slot_of(va, 1);
            size_t want = 0, got = 0, room = (stop - va) >> PAGE_SHIFT;
            while (want < room && !load(entry + want))
                want++;
            if (!want) {
                va += PAGE_SIZE;
                continue;
            }
            uint64_t gpa = run_take(want, &got);
            if (!gpa) {
                mark_empty(as, gpa_of(table));
                return -ENOMEM;
            }
            for (size_t k = 0; k < got; k++)
                store(entry + k, (gpa + k * PAGE_SIZE) | bits | PTE_RAM);
            as->anonymous += got;
            va += got * PAGE_SIZE;
        }
    }
    return 0;
}

/* One 4 KiB entry in a slot that must be free. */
static int put_entry(struct aspace *as, uint64_t va, uint64_t value)
{
    uint64_t *table = table_for(as, va, 1, 1);
    if (!table)
        return -ENOMEM;
    uint64_t *entry = table + slot_of(va, 1);
    if (load(entry))
        return -EEXIST;
    mark_used(as, gpa_of(table));
    if (value & PTE_RAM) {
        run_reference(value & PTE_ADDR, 1);
        as->anonymous++;
    } else {
        as->windows++;
    }
    store(entry, value);
    return 0;
}

static uint64_t mapped_bits(uint64_t gpa, int prot, int cow)
{
    uint64_t bits = rights(prot) | (gpa < RAM_SPAN ? PTE_RAM : PTE_FILE);
    if (cow)
        bits = (bits | PTE_COW) & ~PTE_W;
    if (gpa >= RO_WINDOW_GPA && gpa < RW_WINDOW_GPA)
        bits &= ~PTE_W; /* a store through it would leave as MMIO */
    return bits;
}

int aspace_map_frames(struct aspace *as, uint64_t va, uint64_t gpa, uint64_t pages, int prot,
                      int cow)
{
    uint64_t limit = gpa < RAM_SPAN ? ram.span : DOORBELL_GPA;
    if (bad_range(va, pages) || gpa >= limit || pages > (limit - gpa) >> PAGE_SHIFT)
        return -EINVAL;
    uint64_t bits = mapped_bits(gpa, prot, cow);
    for (uint64_t i = 0; i < pages; i++) {
        int error = put_entry(as, va + i * PAGE_SIZE, (gpa + i * PAGE_SIZE) | bits);
        if (error && error != -EEXIST)
            return error;
    }
    return 0;
}

int aspace_map_list(struct aspace *as, uint64_t va, const uint64_t *gpas, uint64_t pages,
                    int prot, int cow)
{
    if (bad_range(va, pages))
        return -EINVAL;
    for (uint64_t i = 0; i < pages; i++) {
        if (!gpas[i])
            continue;
        if (gpas[i] >= ram.span)
            return -EINVAL;
        int error = put_entry(as, va + i * PAGE_SIZE, gpas[i] | mapped_bits(gpas[i], prot, cow));
        if (error && error != -EEXIST)
            return error;
    }
    return 0;
}

/* ---- removing and weakening ----------------------------------------------------------------- */

struct change {
    struct aspace *as;
    struct batch *batch;
    uint64_t bits;
    uint64_t distance; /* from an address to the frame that shall be seen there */
};

static struct batch shared_batch; /* one operation at a time, all on the kernel thread */

static void count_gone(struct aspace *as, uint64_t value, uint32_t n)
{
    if (value & PTE_RAM)
        as->anonymous -= n;
    else if (value & PTE_FILE)
        as->windows -= n;
}

static int visit_unmap(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    struct change *change = context;
    uint64_t value = load(entry);
    (void)va;
    store(entry, 0);
    count_gone(change->as, value, n);
    batch_add(change->batch, value, n, 1, 1);
    return 0;
}

int aspace_unmap(struct aspace *as, uint64_t va, uint64_t pages)
{
    if (bad_range(va, pages))
        return -EINVAL;
    struct change change = {.as = as, .batch = &shared_batch};
    int error = walk(as, va, va + pages * PAGE_SIZE, WALK_SPLIT | WALK_CLEARS, visit_unmap,
                     &change);
    batch_finish(change.batch);
    if (as->empty_tables > EMPTY_LIMIT)
        prune(as, as->root, 4);
    return error;
}

/* All frames of an entry have no other owner. */
static int sole_owner(uint64_t value, uint32_t n)
{
    const uint32_t *count = &references[frame_index(value & PTE_ADDR)];
    for (uint32_t k = 0; k < n; k++)
        if (count[k] != 1)
            return 0;
    return 1;
}

/* Another entry for the same frames. */
static void change_rights(struct change *change, uint64_t *entry, uint64_t new, uint32_t n)
{
    uint64_t old = load(entry);
    if (new == old)
        return;
    store(entry, new);
    int weaker = (old & PTE_P) && (!(new & PTE_P) || ((old & PTE_W) && !(new & PTE_W)) ||
                                   (!(old & PTE_NX) && (new & PTE_NX)));
    if (weaker)
        batch_add(change->batch, old, n, 0, 1);
}

static int visit_protect(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    struct change *change = context;
    uint64_t old = load(entry), keep = PTE_ADDR | PTE_RAM | PTE_FILE | PTE_COW | PTE_PS;
    uint64_t bits = change->bits, gpa = old & PTE_ADDR;
    (void)va;
    if ((old & PTE_COW) && (bits & PTE_W)) {
        if ((old & PTE_RAM) && sole_owner(old, n))
            keep &= ~PTE_COW;
        else
            bits &= ~PTE_W;
    }
    if (gpa >= RO_WINDOW_GPA && gpa < RW_WINDOW_GPA)
        bits &= ~PTE_W;
    change_rights(change, entry, (old & keep) | bits, n);
    return 0;
}

static int visit_map_over(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    struct change *change = context;
    uint64_t value = load(entry);
    if (!(value & PTE_FILE) || (value & PTE_ADDR) != va + change->distance)
        return visit_unmap(context, entry, va, n);
    change_rights(change, entry, (value & PTE_ADDR) | change->bits, n);
    return 0;
}

/* Map a part of a window privately, instead of what is there. Where that is the same part (ld.so
 * maps a library as a whole, then its segments over it) translations may stay, and a flush would
 * take them from every process. */
int aspace_map_over(struct aspace *as, uint64_t va, uint64_t gpa, uint64_t pages, int prot)
{
    if (bad_range(va, pages) || gpa < RAM_SPAN)
        return -EINVAL;
    struct change change = {.as = as,
                            .batch = &shared_batch,
                            .bits = mapped_bits(gpa, prot, 1),
                            .distance = gpa - va};
    int error = walk(as, va, va + pages * PAGE_SIZE, WALK_SPLIT | WALK_CLEARS, visit_map_over,
                     &change);
    batch_finish(change.batch);
    return error ? error : aspace_map_frames(as, va, gpa, pages, prot, 1);
}

int aspace_protect(struct aspace *as, uint64_t va, uint64_t pages, int prot)
{
    if (bad_range(va, pages))
        return -EINVAL;
    struct change change = {.as = as, .batch = &shared_batch, .bits = rights(prot)};
    int error =
        walk(as, va, va + pages * PAGE_SIZE, WALK_SPLIT, visit_protect, &change);
    batch_finish(change.batch);
    return error;
}

/* ---- moving --------------------------------------------------------------------------------- */

struct move {
    struct aspace *as;
    struct batch *batch;
    uint64_t distance; /* to - from, modulo 2^64 */
};

static int visit_move(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    struct move *move = context;
    uint64_t value = load(entry), to = va + move->distance;
    uint64_t *table = table_for(move->as, to, n == 1 ? 1 : 2, 1);
    if (!table)
        return -ENOMEM;
    uint64_t *target = table + slot_of(to, n == 1 ? 1 : 2), there = load(target);
    if (there && n > 1 && is_table(there) &&
        (references[frame_index(there & PTE_ADDR)] & REF_EMPTY))
        unlink_table(move->as, target);
    else if (there)
        return -EEXIST;
    mark_used(move->as, gpa_of(table));
    store(entry, 0);
    batch_add(move->batch, value, n, 0, 1);
    store(target, value);
    return 0;
}

/* Make the tables first, so that the move itself cannot fail half-way. */
static int visit_prepare(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    struct move *move = context;
    (void)entry;
    return table_for(move->as, va + move->distance, n == 1 ? 1 : 2, 1) ? 0 : -ENOMEM;
}

int aspace_move(struct aspace *as, uint64_t from, uint64_t to, uint64_t pages)
{
    if (bad_range(from, pages) || bad_range(to, pages) ||
        (from < to + pages * PAGE_SIZE && to < from + pages * PAGE_SIZE))
        return -EINVAL;
    struct move move = {.as = as, .batch = &shared_batch, .distance = to - from};
    uint64_t end = from + pages * PAGE_SIZE;
    if ((to - from) & (BLOCK_SIZE - 1)) {
        /* Large entries cannot keep their size: split them, 4 KiB short of a block at a time. */
        for (uint64_t va = from; va < end; va = (va | (BLOCK_SIZE - 1)) + 1) {
            int error = walk(as, va, va + PAGE_SIZE, WALK_SPLIT, visit_prepare, &move);
            if (error)
                return error;
        }
    }
    int error = walk(as, from, end, WALK_SPLIT, visit_prepare, &move);
    if (error)
        return error;
    error = walk(as, from, end, WALK_SPLIT | WALK_CLEARS, visit_move, &move);
    batch_finish(move.batch);
    if (as->empty_tables > EMPTY_LIMIT)
        prune(as, as->root, 4);
    return error;
}

/* ---- fork ----------------------------------------------------------------------------------- */

struct fork {
    struct aspace *parent, *child;
    struct batch *batch;
    int shared;
    uint64_t bits;        /* the rights of the mapping */
    uint64_t copied, max; /* frames copied at once instead of shared */
    uint64_t known, known_end; /* frames of which it is known whether they are populated */
    size_t look; /* at so many more; grows while pages and frames have the same order */
    int populated;
};

#define HOLE_FRAMES 64

/* A frame that the host has not populated holds zeros. */
static int fork_populated(struct fork *fork, uint64_t gpa)
{
    if (gpa < fork->known || gpa >= fork->known_end) {
        size_t same;
        fork->look = gpa != fork->known_end ? 4 : fork->look < BLOCK_FRAMES ? 2 * fork->look
                                                                           : BLOCK_FRAMES;
        fork->populated = populated_run(gpa, fork->look, &same);
        fork->known = gpa;
        fork->known_end = gpa + same * PAGE_SIZE;
    }
    return fork->populated;
}

/* Put `value` for n frames into the child; the frames' references are the caller's business. */
static int child_entry(struct aspace *child, uint64_t va, uint64_t value, uint32_t n)
{
    int level = n == 1 ? 1 : 2;
    uint64_t *table = table_for(child, va, level, 1);
    if (!table)
        return -ENOMEM;
    mark_used(child, gpa_of(table));
    store(table + slot_of(va, level), value);
    if (value & PTE_RAM)
        child->anonymous += n;
    else if (value & PTE_FILE)
        child->windows += n;
    return 0;
}

static int copy_now(uint64_t to, uint64_t from, size_t n);

/* Copy now instead of on a store: for the few pages that every program stores to at once, a copy
 * costs less than two faults. 1: done. */
static int fork_copy(struct fork *fork, uint64_t *entry, uint64_t va)
{
    uint64_t value = load(entry);
    size_t got = 1;
    if (fork->copied >= fork->max || !(value & PTE_P) || !sole_owner(value, 1))
        return 0;
    int populated = fork_populated(fork, value & PTE_ADDR);
    uint64_t own = populated ? run_take_raw(1, &got) : run_take(1, &got);
    if (!own)
        return 0;
    if ((populated && copy_now(own, value & PTE_ADDR, 1)) ||
        child_entry(fork->child, va, own | fork->bits | PTE_RAM, 1)) {
        run_release(own, 1);
        return 0;
    }
    fork->copied++;
    if (value & PTE_COW)
        store(entry, (value & PTE_ADDR) | fork->bits | PTE_RAM);
    return 1;
}

static int visit_fork(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    struct fork *fork = context;
    uint64_t value = load(entry), gpa = value & PTE_ADDR;
    if (!(value & PTE_RAM) || fork->shared) {
        int error = child_entry(fork->child, va, value, n);
        if (!error && (value & PTE_RAM))
            run_reference(gpa, n);
        return error;
    }
    /* A frame without bytes of its own is zero: the child gets another one, nobody copies. Of
     * many together it gets none before it touches them. */
    if (!(value & PTE_COW) && sole_owner(value, n) &&
        !(n == 1 ? fork_populated(fork, gpa) : frames_populated(gpa, n))) {
        size_t got = 1;
        if (n > 1 || fork->known_end - fork->known >= HOLE_FRAMES * PAGE_SIZE)
            return 0;
        uint64_t own = run_take(1, &got);
        if (own) {
            int error = child_entry(fork->child, va, (value & ~PTE_ADDR) | own, n);
            if (error)
                run_release(own, n);
            return error;
        }
    }
    if (n == 1 && fork_copy(fork, entry, va))
        return 0;
    uint64_t both = (value | PTE_COW) & ~PTE_W;
    int error = child_entry(fork->child, va, both, n);
    if (error)
        return error;
    run_reference(gpa, n);
    if (both != value) {
        store(entry, both);
        if (value & PTE_W)
            batch_add(fork->batch, value, n, 0, 1);
    }
    return 0;
}

/* Give the child what the parent has in a range: shared, or copy on write with up to `copy_max`
 * pages copied at once (`prot`: the rights of the mapping). Pages copied, or -errno. */
int64_t aspace_fork(struct aspace *parent, struct aspace *child, uint64_t va, uint64_t pages,
                    int shared, int prot, uint64_t copy_max)
{
    if (bad_range(va, pages))
        return -EINVAL;
    struct fork fork = {.parent = parent,
                        .child = child,
                        .batch = &shared_batch,
                        .shared = shared,
                        .bits = rights(prot),
                        .max = prot & PROT_WRITE ? copy_max : 0};
    int error =
        walk(parent, va, va + pages * PAGE_SIZE, WALK_SPLIT, visit_fork, &fork);
    batch_finish(fork.batch);
    return error ? error : (int64_t)fork.copied;
}

/* ---- copy on write -------------------------------------------------------------------------- */

/* Copy n frames from one place to consecutive new ones. 0, -ENOMEM, or -EFAULT: no source. */
static int copy_now(uint64_t to, uint64_t from, size_t n)
{
    uint8_t *source = frame_host(from), *target = ram.base + to, probe;
    size_t left = guarded_copy(target, source, n * PAGE_SIZE);
    if (!left)
        return 0;
    return guarded_copy(&probe, source + n * PAGE_SIZE - left, 1) ? -EFAULT : -ENOMEM;
}

/* At most n new frames with what is in those at `from`. 0; else as copy_now, and none is taken. */
static int take_copy(uint64_t from, size_t n, uint64_t *gpa, size_t *got)
{
    int error = 0, zero = from < RAM_SPAN && !frames_populated(from, n);
    *gpa = zero ? run_take(n, got) : run_take_raw(n, got);
    if (!*gpa)
        return -ENOMEM;
    if (!zero && (error = copy_now(*gpa, from, *got)))
        run_release(*gpa, *got);
    return error;
}

/* Give this address space frames of its own for copy-on-write entries around va, inside
 * [low, high). 0; -EFAULT: the file behind the page ended; -ENOMEM; -ENOENT: nothing to break. */
int aspace_break_cow(struct aspace *as, uint64_t va, uint64_t low, uint64_t high, int prot)
{
    int large;
    va &= ~(PAGE_SIZE - 1);
    if (bad_range(va, 1) || !(prot & PROT_WRITE))
        return -EINVAL;
    uint64_t *entry = entry_for(as, va, &large);
    uint64_t value = entry ? load(entry) : 0, bits = rights(prot);
    if (!(value & PTE_COW))
        return -ENOENT;
    if (large) {
        if (sole_owner(value, BLOCK_FRAMES)) {
            store(entry, (value & (PTE_ADDR | PTE_RAM | PTE_PS)) | bits);
            return 0;
        }
        int error = split(as, entry);
        if (error)
            return error;
        entry = entry_for(as, va, &large);
    }
    uint64_t window = COW_AROUND * PAGE_SIZE, start = va & ~(window - 1);
    uint64_t end = min64(start + window, high);
    if (start < low)
        start = low;
    uint64_t *table = entry - slot_of(va, 1);
    struct batch *batch = &shared_batch;
    int result = -ENOENT;
    for (uint64_t at = va;;) {
        /* The longest run of shared entries over consecutive frames, from `at`. */
        uint64_t *first = table + slot_of(at, 1);
        value = load(first);
        size_t n = 0, got = 0;
        if (value & PTE_COW) {
            if ((value & PTE_RAM) && sole_owner(value, 1)) {
                store(first, (value & (PTE_ADDR | PTE_RAM)) | bits);
                n = 1;
            } else {
                uint64_t room = ((at < va ? va : end) - at) >> PAGE_SHIFT;
                for (n = 1; n < room; n++) {
                    uint64_t next = load(first + n);
                    if (next != value + n * PAGE_SIZE ||
                        ((next & PTE_RAM) && sole_owner(next, 1)))
                        break;
                }
                uint64_t gpa;
                int error = take_copy(value & PTE_ADDR, n, &gpa, &got);
                if (gpa && error && got > 1 && at == va) /* a neighbour failed: only the page itself */
                    error = take_copy(value & PTE_ADDR, 1, &gpa, &got);
                if (error) {
                    if (at == va)
                        result = error;
                    break;
                }
                for (size_t k = 0; k < got; k++)
                    store(first + k, (gpa + k * PAGE_SIZE) | bits | PTE_RAM);
                if (value & PTE_FILE) {
                    as->windows -= got;
                    as->anonymous += got;
                }
                batch_add(batch, value, (uint32_t)got, 1, 1);
                n = got;
            }
            if (at == va)
                result = 0;
        } else {
            n = 1;
        }
        at += n * PAGE_SIZE;
        if (at == va)
            break; /* came round from the start of the window */
        if (at >= end) {
            if (start >= va)
                break;
            at = start;
            end = va;
        }
    }
    batch_finish(batch);
    return result;
}

/* Throw the contents away (MADV_DONTNEED on private memory): frames of our own become holes of
 * the file and stay mapped; anything shared is unmapped. */
static int visit_discard(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    struct change *change = context;
    uint64_t value = load(entry);
    (void)va;
    if ((value & PTE_RAM) && !(value & PTE_COW) && sole_owner(value, n) &&
        (value & PTE_ADDR) >= ram.frozen) {
        batch_add(change->batch, value | PTE_P, n, 0, FLUSH_PUNCH);
        return 0;
    }
    store(entry, 0);
    count_gone(change->as, value, n);
    batch_add(change->batch, value, n, 1, 1);
    return 0;
}

int aspace_discard(struct aspace *as, uint64_t va, uint64_t pages)
{
    if (bad_range(va, pages))
        return -EINVAL;
    struct change change = {.as = as, .batch = &shared_batch};
    int error = walk(as, va, va + pages * PAGE_SIZE, WALK_SPLIT | WALK_CLEARS, visit_discard,
                     &change);
    batch_finish(change.batch);
    if (as->empty_tables > EMPTY_LIMIT)
        prune(as, as->root, 4);
    return error;
}

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
    uint64_t *counts;
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
            r->counts[r->file]++;
            r->counts[2 + several]++;
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

/* Resident pages: counts[0] in RAM, [1] of windows, [2] with one owner, [3] with several. */
void aspace_count(struct aspace *as, uint64_t va, uint64_t pages, uint64_t counts[4])
{
    memset(counts, 0, 4 * sizeof *counts);
    if (bad_range(va, pages))
        return;
    uint64_t end = va + pages * PAGE_SIZE;
    struct residency r = {.counts = counts, .start = va, .end = end};
    walk(as, va, end, 0, visit_residency, &r);
    residency_run(&r);
}
