/* What is mapped where: new entries, other rights, other places, none.
 *
 * Entries change first; a weaker one or one less goes into the batch, which flushes and then drops
 * references, before the operation returns. */
#define _GNU_SOURCE
#include "pagetable.h"

#include <errno.h>

/* ---- mapping -------------------------------------------------------------------------------- */

/* Fill a whole 2 MiB entry if its slot is free (or holds an empty table). 1: done. */
static int fill_large(struct aspace *as, uint64_t va, uint64_t bits)
{
    uint64_t *entry = entry_make(as, va, 2), value = entry ? load(entry) : 0;
    if (!entry)
        return -ENOMEM;
    if (value && !is_empty_table(value))
        return !is_table(value);
    uint64_t gpa = block_take();
    if (!gpa)
        return 0;
    if (value)
        table_unlink(as, entry);
    mark_used(as, table_of(entry));
    as->anonymous += BLOCK_FRAMES;
    store(entry, gpa | bits | PTE_RAM | PTE_PS);
    return 1;
}

int aspace_map_anonymous(struct aspace *as, uint64_t va, uint64_t pages, int prot)
{
    if (bad_range(va, pages))
        return -EINVAL;
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
        uint64_t *entry = entry_make(as, va, 1);
        if (!entry) {
            int level;
            if (!load(entry_for(as, va, &level)))
                return -ENOMEM;
            va = stop; /* a large entry: filled already */
            continue;
        }
        mark_used(as, table_of(entry));
        while (va < stop) {
            size_t want = 0, got = 0, room = (stop - va) >> PAGE_SHIFT;
            while (want < room && !load(entry + want))
                want++;
            if (!want) {
                va += PAGE_SIZE;
                entry++;
                continue;
            }
            uint64_t gpa = run_take(want, &got);
            if (!gpa) {
                mark_empty(as, table_of(entry));
                return -ENOMEM;
            }
            for (size_t k = 0; k < got; k++)
                store(entry + k, (gpa + k * PAGE_SIZE) | bits | PTE_RAM);
            as->anonymous += got;
            va += got * PAGE_SIZE;
            entry += got;
        }
    }
    return 0;
}

/* One 4 KiB entry, unless there is one that covers va. */
static int put_entry(struct aspace *as, uint64_t va, uint64_t value)
{
    int level;
    uint64_t *entry = entry_make(as, va, 1);
    if (!entry)
        return load(entry_for(as, va, &level)) ? 0 : -ENOMEM;
    if (load(entry))
        return 0;
    mark_used(as, table_of(entry));
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
        if (error)
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
        if (error)
            return error;
    }
    return 0;
}

/* ---- removing and weakening ----------------------------------------------------------------- */

struct change {
    struct aspace *as;
    uint64_t bits;     /* of the new entries */
    uint64_t distance; /* from an address to the frame that shall be seen there, or to where its
                          entry moves; modulo 2^64 */
};

static inline __attribute__((always_inline)) int change(struct change *change, uint64_t va,
                                                        uint64_t pages, int how, visit_fn visit)
{
    if (bad_range(va, pages))
        return -EINVAL;
    int error = walk(change->as, va, va + pages * PAGE_SIZE, how, visit, change);
    batch_finish(&page_batch);
    tables_trim(change->as);
    return error;
}

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
    batch_add(&page_batch, value, n, 1, 1);
    return 0;
}

int aspace_unmap(struct aspace *as, uint64_t va, uint64_t pages)
{
    struct change to = {.as = as};
    return change(&to, va, pages, WALK_SPLIT | WALK_CLEARS, visit_unmap);
}

struct forget {
    struct change to;
    uint64_t gpa, size;
};

static int visit_forget(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    struct forget *forget = context;
    uint64_t value = load(entry);
    if (!(value & PTE_FILE) || (value & PTE_ADDR) - forget->gpa >= forget->size)
        return 0;
    return visit_unmap(&forget->to, entry, va, n);
}

int aspace_forget_window(struct aspace *as, uint64_t va, uint64_t pages, uint64_t gpa,
                         uint64_t size)
{
    struct forget forget = {.to = {.as = as}, .gpa = gpa, .size = size};
    if (bad_range(va, pages))
        return -EINVAL;
    int error = walk(as, va, va + pages * PAGE_SIZE, WALK_SPLIT | WALK_CLEARS, visit_forget,
                     &forget);
    batch_finish(&page_batch);
    tables_trim(as);
    return error;
}

struct forget_list {
    struct change to;
    uint64_t va;
    const uint64_t *gpas;
};

static int visit_forget_list(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    struct forget_list *forget = context;
    uint64_t value = load(entry), gpa = forget->gpas[(va - forget->va) / PAGE_SIZE];
    if (!gpa || (value & PTE_ADDR) != gpa)
        return 0;
    return visit_unmap(&forget->to, entry, va, n);
}

int aspace_forget_list(struct aspace *as, uint64_t va, const uint64_t *gpas, uint64_t pages)
{
    struct forget_list forget = {.to = {.as = as}, .va = va, .gpas = gpas};
    if (bad_range(va, pages))
        return -EINVAL;
    int error = walk(as, va, va + pages * PAGE_SIZE, WALK_SPLIT | WALK_CLEARS, visit_forget_list,
                     &forget);
    batch_finish(&page_batch);
    tables_trim(as);
    return error;
}

/* Another entry for the same frames. */
static void change_rights(uint64_t *entry, uint64_t new, uint32_t n)
{
    uint64_t old = load(entry);
    if (new == old)
        return;
    store(entry, new);
    int weaker = (old & PTE_P) && (!(new & PTE_P) || ((old & PTE_W) && !(new & PTE_W)) ||
                                   (!(old & PTE_NX) && (new & PTE_NX)));
    if (weaker)
        batch_add(&page_batch, old, n, 0, 1);
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
    change_rights(entry, (old & keep) | bits, n);
    return 0;
}

static int visit_map_over(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    struct change *change = context;
    uint64_t value = load(entry);
    if (!(value & PTE_FILE) || (value & PTE_ADDR) != va + change->distance)
        return visit_unmap(context, entry, va, n);
    change_rights(entry, (value & PTE_ADDR) | change->bits, n);
    return 0;
}

/* Map a part of a window privately, instead of what is there. Where that is the same part (ld.so
 * maps a library as a whole, then its segments over it) translations may stay, and a flush would
 * take them from every process. */
int aspace_map_over(struct aspace *as, uint64_t va, uint64_t gpa, uint64_t pages, int prot)
{
    if (gpa < RAM_SPAN)
        return -EINVAL;
    struct change to = {.as = as, .bits = mapped_bits(gpa, prot, 1), .distance = gpa - va};
    int error = change(&to, va, pages, WALK_SPLIT | WALK_CLEARS, visit_map_over);
    return error ? error : aspace_map_frames(as, va, gpa, pages, prot, 1);
}

int aspace_protect(struct aspace *as, uint64_t va, uint64_t pages, int prot)
{
    struct change to = {.as = as, .bits = rights(prot)};
    return change(&to, va, pages, WALK_SPLIT, visit_protect);
}

/* ---- moving --------------------------------------------------------------------------------- */

static int visit_move(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    struct change *change = context;
    uint64_t value = load(entry);
    uint64_t *target = entry_make(change->as, va + change->distance, n == 1 ? 1 : 2);
    if (!target)
        return -ENOMEM;
    if (n > 1 && is_empty_table(load(target)))
        table_unlink(change->as, target);
    else if (load(target))
        return -EEXIST;
    mark_used(change->as, table_of(target));
    store(entry, 0);
    batch_add(&page_batch, value, n, 0, 1);
    store(target, value);
    return 0;
}

static int visit_prepare(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    struct change *change = context;
    (void)entry;
    return entry_make(change->as, va + change->distance, n == 1 ? 1 : 2) ? 0 : -ENOMEM;
}

/* Make the tables first, so that the move itself, or its pieces, cannot fail half-way. */
int aspace_prepare_move(struct aspace *as, uint64_t from, uint64_t to, uint64_t pages)
{
    if (bad_range(from, pages) || bad_range(to, pages) ||
        (from < to + pages * PAGE_SIZE && to < from + pages * PAGE_SIZE))
        return -EINVAL;
    struct change move = {.as = as, .distance = to - from};
    uint64_t end = from + pages * PAGE_SIZE;
    if (move.distance & (BLOCK_SIZE - 1)) {
        /* Large entries cannot keep their size: split them, 4 KiB short of a block at a time. */
        for (uint64_t va = from; va < end; va = (va | (BLOCK_SIZE - 1)) + 1) {
            int error = walk(as, va, va + PAGE_SIZE, WALK_SPLIT, visit_prepare, &move);
            if (error)
                return error;
        }
    }
    return walk(as, from, end, WALK_SPLIT, visit_prepare, &move);
}

int aspace_move(struct aspace *as, uint64_t from, uint64_t to, uint64_t pages)
{
    struct change move = {.as = as, .distance = to - from};
    int error = aspace_prepare_move(as, from, to, pages);
    return error ? error : change(&move, from, pages, WALK_SPLIT | WALK_CLEARS, visit_move);
}

/* ---- throwing away ---- */

/* Throw the contents away (MADV_DONTNEED on private memory): frames of our own become holes of
 * the file and stay mapped; anything shared is unmapped. */
static int visit_discard(void *context, uint64_t *entry, uint64_t va, uint32_t n)
{
    struct change *change = context;
    uint64_t value = load(entry);
    (void)va;
    if ((value & PTE_RAM) && !(value & PTE_COW) && sole_owner(value, n) &&
        (value & PTE_ADDR) >= ram.frozen) {
        batch_add(&page_batch, value | PTE_P, n, 0, FLUSH_PUNCH);
        return 0;
    }
    store(entry, 0);
    count_gone(change->as, value, n);
    batch_add(&page_batch, value, n, 1, 1);
    return 0;
}

int aspace_discard(struct aspace *as, uint64_t va, uint64_t pages)
{
    struct change to = {.as = as};
    return change(&to, va, pages, WALK_SPLIT | WALK_CLEARS, visit_discard);
}
