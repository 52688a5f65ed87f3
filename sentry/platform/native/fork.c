/* fork(2): a child's page tables, and copy on write in both. */
#define _GNU_SOURCE
#include "pagetable.h"

#include <errno.h>

#define COW_AROUND 16 /* pages that a fault copies, at most */
#define COW_ALONG 64  /* where stores go on from one to the next */

/* ---- fork ----------------------------------------------------------------------------------- */

struct fork {
    struct aspace *child;
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
    uint64_t *entry = entry_make(child, va, level);
    if (!entry)
        return -ENOMEM;
    mark_used(child, table_of(entry));
    store(entry, value);
    if (value & PTE_RAM)
        child->anonymous += n;
    else if (value & PTE_FILE)
        child->windows += n;
    return 0;
}

/* Copy n frames from one place to consecutive new ones. 0, -ENOMEM, or -EFAULT: no source. */
static int copy_now(uint64_t to, uint64_t from, size_t n)
{
    uint8_t *source = frame_host(from), *target = ram.base + to, probe;
    size_t left = guarded_copy(target, source, n * PAGE_SIZE);
    if (!left)
        return 0;
    return guarded_copy(&probe, source + n * PAGE_SIZE - left, 1) ? -EFAULT : -ENOMEM;
}

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
            batch_add(&page_batch, value, n, 0, 1);
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
    struct fork fork = {.child = child,
                        .shared = shared,
                        .bits = rights(prot),
                        .max = prot & PROT_WRITE ? copy_max : 0};
    int error = walk(parent, va, va + pages * PAGE_SIZE, WALK_SPLIT, visit_fork, &fork);
    batch_finish(&page_batch);
    return error ? error : (int64_t)fork.copied;
}

/* The same for many ranges, copy on write: of each its start, with its rights in the lowest bits,
 * and its end. Pages are copied of those that have no more than `small`. */
int64_t aspace_fork_all(struct aspace *parent, struct aspace *child, const uint64_t *rows,
                        uint64_t count, uint64_t copy_max, uint64_t small)
{
    struct fork fork = {.child = child};
    int error = 0;
    for (uint64_t i = 0; i < count && !error; i++) {
        uint64_t start = rows[2 * i] & ~(PAGE_SIZE - 1), end = rows[2 * i + 1];
        int prot = (int)(rows[2 * i] & (PAGE_SIZE - 1));
        if (end < start || bad_range(start, (end - start) >> PAGE_SHIFT)) {
            error = -EINVAL;
            break;
        }
        fork.bits = rights(prot);
        fork.max = prot & PROT_WRITE && end - start <= small * PAGE_SIZE ? copy_max : 0;
        error = walk(parent, start, end, WALK_SPLIT, visit_fork, &fork);
    }
    batch_finish(&page_batch);
    return error ? error : (int64_t)fork.copied;
}

/* ---- copy on write -------------------------------------------------------------------------- */

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
    int level;
    va &= ~(PAGE_SIZE - 1);
    if (bad_range(va, 1) || !(prot & PROT_WRITE))
        return -EINVAL;
    uint64_t *entry = entry_for(as, va, &level);
    uint64_t value = load(entry), bits = rights(prot);
    if (!(value & PTE_COW))
        return -ENOENT;
    if (level == 2) {
        if (sole_owner(value, BLOCK_FRAMES)) {
            store(entry, (value & (PTE_ADDR | PTE_RAM | PTE_PS)) | bits);
            return 0;
        }
        int error = entry_split(as, entry);
        if (error)
            return error;
        entry = entry_for(as, va, &level);
    }
    as->copied = va == as->copied_to ? min64(2 * as->copied, COW_ALONG) : COW_AROUND;
    uint64_t window = as->copied * PAGE_SIZE, start = va & ~(window - 1);
    uint64_t end = min64(start + window, high);
    as->copied_to = end;
    if (start < low)
        start = low;
    uint64_t *table = entry - slot_of(va, 1);
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
                batch_add(&page_batch, value, (uint32_t)got, 1, 1);
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
    batch_finish(&page_batch);
    return result;
}
