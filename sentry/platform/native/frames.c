/* The frame allocator: which 4 KiB pieces of RAM are free, and that they are zero when given out.
 *
 * RAM is cut into 2 MiB blocks. A block belongs to data (what the program maps, files in RAM) or
 * to the kernel (page tables, the pages the Sentry itself writes): KVM cannot use a huge host page
 * where a guest page table lies in it, so the two never share a block.
 *
 * A freed frame is flushed by its last user (flush.c) before it comes here. It keeps its host
 * memory and counts as dirty; it is zeroed, or punched out of the file, when it is given out
 * again. Above a watermark, and when the sandbox is idle (ram_trim), dirty blocks are punched.
 *
 * Blocks from ram.store on are of a kind of their own: files whose bytes lie in a file on a disk of
 * the host. That one has room for a block before any frame of it is given out, so a store to a page
 * never meets a full disk; a block that is free gives its room back.
 */
#define _GNU_SOURCE
#include "bitmap.h"
#include "memory_internal.h"
#include "memory_api.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WORDS (BLOCK_FRAMES / 64)
#define DIRTY_WATERMARK (256ull << 20 >> PAGE_SHIFT)

#define TRIM_BLOCKS 64 /* at once, where RAM is full: milliseconds */
#define STORE_KEPT 16 /* free blocks that keep their room on the disk */
#define OWNED_MAX 8192 /* runs of blocks: the host allows a process 65530 mappings */

enum kind { DATA, KERNEL, STORE, KINDS };
enum list { NOWHERE, PARTIAL, WHOLE, CLEAN }; /* CLEAN: all free, no host memory, or room */

struct block {
    uint64_t free[WORDS];
    uint64_t dirty[WORDS]; /* may hold old bytes */
    uint64_t hidden[WORDS]; /* no address space had them since they were given out */
    uint32_t next, prev;   /* in its list; 0 ends it (block 0 is never used) */
    uint16_t n_free;
    uint8_t list;
    uint8_t kind;
    uint8_t owned; /* below ram.frozen, but no part of the file: see own_clean */
};

static struct block *blocks;
static uint32_t n_blocks, fresh; /* blocks from `fresh` on were never used */
static uint32_t n_store, fresh_store; /* the same, from ram.store on */
static uint32_t partial[KINDS], whole[2], clean[2]; /* [1]: of the store */
static unsigned n_whole_store, n_owned;

struct ram_counters ram_counters;

/* ---- lists of blocks ------------------------------------------------------------------------ */

static uint32_t *list_head(const struct block *b)
{
    int store = b->kind == STORE;
    return b->list == WHOLE ? &whole[store] : b->list == CLEAN ? &clean[store] : &partial[b->kind];
}

static void unlist(uint32_t i)
{
    struct block *b = &blocks[i];
    if (b->list == NOWHERE)
        return;
    if (b->prev)
        blocks[b->prev].next = b->next;
    else
        *list_head(b) = b->next;
    if (b->next)
        blocks[b->next].prev = b->prev;
    n_whole_store -= b->kind == STORE && b->list == WHOLE;
    b->list = NOWHERE;
}

static void enlist(uint32_t i, enum list list)
{
    struct block *b = &blocks[i];
    if (b->list == list)
        return;
    unlist(i);
    b->list = (uint8_t)list;
    uint32_t *head = list_head(b);
    b->prev = 0;
    b->next = *head;
    if (*head)
        blocks[*head].prev = i;
    *head = i;
    n_whole_store += b->kind == STORE && list == WHOLE;
}

/* Take an all-free block off its list, or start a new one. 0: none left. */
static uint32_t block_get(enum kind kind)
{
    int store = kind == STORE;
    uint32_t i = whole[store] ? whole[store] : clean[store];
    uint32_t *next = store ? &fresh_store : &fresh, end = store ? n_store : n_blocks;
    if (!i && (*next >= end || chunk_ready(*next * BLOCK_SIZE) < 0))
        return 0;
    if (store && !whole[1] && store_room((i ? i : *next) * BLOCK_SIZE, BLOCK_SIZE) < 0)
        return 0;
    if (i) {
        unlist(i);
    } else {
        i = (*next)++;
        uint64_t ahead = (uint64_t)i * BLOCK_SIZE + CHUNK_SIZE / 2;
        if (ahead < ram.span)
            chunk_expect(ahead);
        memset(blocks[i].free, 0xff, sizeof blocks[i].free);
        blocks[i].n_free = BLOCK_FRAMES;
    }
    blocks[i].kind = (uint8_t)kind;
    return i;
}

/* Take the frames [from, from + n) of block i out of the free ones, zeroed if so wanted. gpa or 0. */
static uint64_t block_take_run(uint32_t i, unsigned from, unsigned n, int zeroed)
{
    struct block *b = &blocks[i];
    uint64_t gpa = i * BLOCK_SIZE + from * PAGE_SIZE;
    unsigned dirty = bits_count(b->dirty, from, n);
    if (dirty && zeroed && frames_make_zero(gpa, n) < 0) {
        if (b->list == NOWHERE)
            enlist(i, WHOLE);
        return 0;
    }
    if (dirty) {
        ram_counters.dirty -= b->kind == STORE ? 0 : dirty;
        bits_change(b->dirty, from, n, 0);
    }
    bits_change(b->free, from, n, 0);
    bits_change(b->hidden, from, n, 0);
    b->n_free -= (uint16_t)n;
    if (b->n_free)
        enlist(i, PARTIAL);
    else
        unlist(i);
    uint32_t *count = &references[frame_index(gpa)];
    for (unsigned k = 0; k < n; k++)
        count[k] = 1;
    return gpa;
}

/* ---- taking and releasing ------------------------------------------------------------------- */

static uint64_t take(enum kind kind, size_t want, size_t *got, int zeroed)
{
    if (want > BLOCK_FRAMES)
        want = BLOCK_FRAMES;
    unsigned start = 0, best = 0, best_start = 0;
    uint32_t best_block = 0, i = partial[kind];
    for (int tries = 0; i && tries < 8 && best < want; i = blocks[i].next, tries++) {
        unsigned run = bits_find_run(blocks[i].free, (unsigned)want, &start);
        if (run > best)
            best = run, best_start = start, best_block = i;
    }
    if (best < want && best < (want == BLOCK_FRAMES ? 64 : 8)) {
        uint32_t other = block_get(kind);
        if (other)
            best_block = other, best_start = 0, best = (unsigned)want;
    }
    if (!best_block)
        return 0;
    *got = best;
    return block_take_run(best_block, best_start, best, zeroed);
}

uint64_t block_take(void)
{
    uint32_t i = block_get(DATA);
    uint64_t gpa = i ? block_take_run(i, 0, BLOCK_FRAMES, 1) : 0;
    if (gpa)
        ram_counters.frames += BLOCK_FRAMES;
    return gpa;
}

static uint64_t *counter(enum kind kind)
{
    return kind == DATA    ? &ram_counters.frames
           : kind == STORE ? &ram_counters.store_frames
                           : &ram_counters.kernel_frames;
}

static uint64_t data_take(enum kind kind, size_t want, size_t *got, int zeroed)
{
    uint64_t gpa = take(kind, want, got, zeroed);
    if (gpa)
        *counter(kind) += *got;
    return gpa;
}

uint64_t run_take(size_t want, size_t *got)
{
    return data_take(DATA, want, got, 1);
}

uint64_t run_take_raw(size_t want, size_t *got)
{
    return data_take(DATA, want, got, 0);
}

/* Frames [gpa, gpa + n) of one block: nothing can translate to them, or something may. */
static void hide(uint64_t gpa, size_t n, int hidden)
{
    bits_change(blocks[gpa / BLOCK_SIZE].hidden, (unsigned)(gpa % BLOCK_SIZE >> PAGE_SHIFT),
                (unsigned)n, hidden);
}

static int is_hidden(uint64_t gpa)
{
    unsigned bit = (unsigned)(gpa % BLOCK_SIZE >> PAGE_SHIFT);
    return blocks[gpa / BLOCK_SIZE].hidden[bit >> 6] >> (bit & 63) & 1;
}

/* Frames of a file, which no address space has yet. */
static uint64_t hidden_take(size_t want, size_t *got, int zeroed, int store)
{
    uint64_t gpa = data_take(store ? STORE : DATA, want, got, zeroed);
    if (gpa)
        hide(gpa, *got, 1);
    return gpa;
}

uint64_t hidden_take_raw(size_t want, size_t *got, int store)
{
    return hidden_take(want, got, 0, store);
}

uint64_t data_alloc(int store)
{
    size_t got;
    return hidden_take(1, &got, 1, store);
}

int64_t data_fill(uint64_t *gpas, uint64_t n, int store)
{
    int64_t filled = 0;
    for (uint64_t i = 0; i < n;) {
        size_t want = 0, got = 0;
        while (i + want < n && !gpas[i + want])
            want++;
        uint64_t gpa = want ? hidden_take(want, &got, 1, store) : 0;
        if (want && !gpa)
            return store ? -ENOSPC : -ENOMEM;
        for (size_t k = 0; k < got; k++)
            gpas[i + k] = gpa + k * PAGE_SIZE;
        filled += (int64_t)got;
        i += want ? got : 1;
    }
    return filled;
}

int64_t data_put_list(uint64_t *gpas, uint64_t n)
{
    static struct batch batch;
    int64_t dropped = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t gpa = gpas[i];
        gpas[i] = 0;
        if (!gpa || gpa >= ram.span)
            continue;
        dropped++;
        int flush = references[frame_index(gpa)] == 1 && !is_hidden(gpa);
        batch_add(&batch, gpa | PTE_RAM | PTE_P, 1, 1, flush);
    }
    batch_finish(&batch);
    return dropped;
}

/* A free block of the store gives its room on the disk back; it reads as zero then. */
static void store_empty(uint32_t i)
{
    if (store_punch(i * BLOCK_SIZE, BLOCK_SIZE) < 0)
        return;
    memset(blocks[i].dirty, 0, sizeof blocks[i].dirty);
    enlist(i, CLEAN);
}

/* Frames that nobody refers to any more, and whose translations are flushed, become free. */
static void give_back(uint64_t gpa, unsigned n)
{
    uint32_t i = (uint32_t)(gpa / BLOCK_SIZE);
    struct block *b = &blocks[i];
    unsigned from = (unsigned)(gpa % BLOCK_SIZE >> PAGE_SHIFT);
    bits_change(b->free, from, n, 1);
    bits_change(b->dirty, from, n, 1);
    b->n_free += (uint16_t)n;
    ram_counters.dirty += b->kind == STORE ? 0 : n;
    enlist(i, b->n_free == BLOCK_FRAMES ? WHOLE : PARTIAL);
    if (b->list == WHOLE && n_whole_store > STORE_KEPT)
        store_empty(i);
}

void run_reference(uint64_t gpa, size_t n)
{
    uint32_t *count = &references[frame_index(gpa)];
    for (size_t k = 0; k < n; k++)
        count[k]++;
    hide(gpa, n, 0);
}

void run_release(uint64_t gpa, size_t n)
{
    while (n) {
        size_t left = (BLOCK_SIZE - gpa % BLOCK_SIZE) >> PAGE_SHIFT;
        size_t some = n < left ? n : left;
        uint32_t *count = &references[frame_index(gpa)];
        unsigned freed = 0, kind = blocks[gpa / BLOCK_SIZE].kind;
        for (size_t k = 0; k <= some; k++) {
            if (k < some && --count[k] == 0) {
                freed++;
            } else if (freed) {
                give_back(gpa + (k - freed) * PAGE_SIZE, freed);
                *counter(kind) -= freed;
                freed = 0;
            }
        }
        gpa += some * PAGE_SIZE;
        n -= some;
    }
    if (ram_counters.dirty > DIRTY_WATERMARK)
        ram_trim(DIRTY_WATERMARK << PAGE_SHIFT, 8);
}

void frame_get(uint64_t gpa) { run_reference(gpa, 1); }

void frame_put(uint64_t gpa)
{
    if (references[frame_index(gpa)] == 1)
        flush_range(gpa, 1);
    run_release(gpa, 1);
}

uint32_t frame_references(uint64_t gpa) { return references[frame_index(gpa)]; }

void frame_pin(uint64_t gpa)
{
    ram_counters.pins++;
    frame_get(gpa);
}

void frame_unpin(uint64_t gpa)
{
    ram_counters.pins--;
    frame_put(gpa);
}

static int is_frozen(uint32_t block)
{
    return block * BLOCK_SIZE < ram.frozen && !blocks[block].owned;
}

/* Part of a block that is not frozen: the host has its memory back, and it reads as zero. */
static int empty(uint32_t block, uint64_t at, uint64_t bytes)
{
    uint64_t gpa = block * BLOCK_SIZE + at;
    if (blocks[block].owned)
        return madvise(ram.base + gpa, bytes, MADV_DONTNEED);
    return ram_punch(gpa, bytes);
}

uint64_t ram_trim(uint64_t keep_bytes, unsigned max_blocks)
{
    uint64_t punched = 0;
    for (uint32_t i = whole[1], next; i; i = next) {
        next = blocks[i].next;
        store_empty(i);
    }
    for (uint32_t i = whole[0], next; i && max_blocks; i = next, max_blocks--) {
        struct block *b = &blocks[i];
        next = b->next;
        if (is_frozen(i))
            continue;
        if (ram_counters.dirty <= keep_bytes >> PAGE_SHIFT ||
            empty(i, 0, BLOCK_SIZE) < 0)
            break;
        unsigned dirty = bits_count(b->dirty, 0, BLOCK_FRAMES);
        memset(b->dirty, 0, sizeof b->dirty);
        ram_counters.dirty -= dirty;
        punched += dirty * PAGE_SIZE;
        enlist(i, CLEAN);
    }
    for (uint32_t i = partial[DATA]; i && max_blocks; i = blocks[i].next, max_blocks--) {
        struct block *b = &blocks[i];
        if (ram_counters.dirty <= keep_bytes >> PAGE_SHIFT)
            break;
        if (is_frozen(i) || !bits_count(b->dirty, 0, BLOCK_FRAMES))
            continue;
        for (unsigned at = 0, end; at < BLOCK_FRAMES; at = end) {
            for (end = at; end < BLOCK_FRAMES && (b->dirty[end >> 6] >> (end & 63) & 1); end++)
                ;
            if (end == at) {
                end++;
                continue;
            }
            if (empty(i, at * PAGE_SIZE, (end - at) * PAGE_SIZE) < 0)
                return punched;
            bits_change(b->dirty, at, end - at, 0);
            ram_counters.dirty -= end - at;
            punched += (end - at) * PAGE_SIZE;
        }
    }
    return punched;
}

/* ---- frames that the Sentry writes through ram.base: populated, so that no store can fail ---- */

/* Where the host has no more for RAM it gets back what free frames hold, once. 0 or -1. */
static int populate(uint64_t gpa, size_t n)
{
    if (madvise(ram.base + gpa, n * PAGE_SIZE, MADV_POPULATE_WRITE) == 0)
        return 0;
    if (!ram_trim(0, TRIM_BLOCKS))
        return -1;
    return madvise(ram.base + gpa, n * PAGE_SIZE, MADV_POPULATE_WRITE);
}

uint64_t kernel_run(size_t want, size_t *got)
{
    uint64_t gpa = take(KERNEL, want, got, 1);
    if (!gpa)
        return 0;
    if (populate(gpa, *got) < 0) {
        for (size_t k = 0; k < *got; k++)
            references[frame_index(gpa) + k] = 0;
        give_back(gpa, (unsigned)*got);
        return 0;
    }
    return gpa;
}

uint64_t frames_alloc_contiguous(size_t n)
{
    size_t got = 0;
    if (n == 0 || n > BLOCK_FRAMES)
        return 0;
    uint64_t gpa = kernel_run(n, &got);
    if (gpa && got < n) { /* only short runs were left: start a block */
        ram_counters.kernel_frames += got;
        run_release(gpa, got);
        uint32_t i = block_get(KERNEL);
        gpa = i ? block_take_run(i, 0, (unsigned)n, 1) : 0;
        if (gpa && populate(gpa, n) < 0) {
            ram_counters.kernel_frames += n;
            run_release(gpa, n);
            return 0;
        }
    }
    if (gpa)
        ram_counters.kernel_frames += n;
    return gpa;
}

uint64_t frame_alloc(void) { return frames_alloc_contiguous(1); }

/* ---- start and end -------------------------------------------------------------------------- */

int frames_init(void)
{
    n_blocks = (uint32_t)(ram.span / BLOCK_SIZE);
    blocks = mmap(NULL, n_blocks * sizeof *blocks, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (blocks == MAP_FAILED) {
        blocks = NULL;
        return -1;
    }
    fresh = 1;
    return 0;
}

void frames_close(void)
{
    if (blocks)
        munmap(blocks, ram.span / BLOCK_SIZE * sizeof *blocks);
    blocks = NULL;
    n_blocks = fresh = n_store = fresh_store = n_whole_store = n_owned = 0;
    memset(partial, 0, sizeof partial);
    memset(whole, 0, sizeof whole);
    memset(clean, 0, sizeof clean);
    table_pages_close();
    memset(&ram_counters, 0, sizeof ram_counters);
}

/* The upper half of RAM is the file `fd` on a disk. Errors: EBUSY where that is in use already. */
int ram_store_open(int fd)
{
    uint64_t start = ram.span / 2 & ~(BLOCK_SIZE - 1);
    if (ram.store != ram.span || fresh * BLOCK_SIZE > start)
        return -EBUSY;
    if (mmap(ram.base + start, ram.span - start, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0) == MAP_FAILED)
        return -errno;
    madvise(ram.base + start, ram.span - start, MADV_DONTDUMP);
    ram.store = start;
    ram.store_fd = fd;
    n_store = n_blocks;
    n_blocks = (uint32_t)(start / BLOCK_SIZE);
    fresh_store = n_blocks + 1; /* runs of frames do not join those of RAM */
    return 0;
}

/* Blocks of the last part to be frozen that are free and have no host memory become memory of this
 * process alone: a copy of a hole of the file would fill the file, too. What would take too many
 * mappings is given up. */
static void own_clean(uint32_t from, uint32_t end)
{
    for (uint32_t i = from, to; i < end; i = to) {
        for (to = i; to < end && blocks[to].list == CLEAN; to++)
            ;
        if (to == i) {
            to++;
            continue;
        }
        uint8_t *at = ram.base + i * BLOCK_SIZE;
        uint64_t bytes = (to - i) * BLOCK_SIZE;
        if (n_owned < OWNED_MAX && mmap(at, bytes, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
                                        -1, 0) != MAP_FAILED) {
            n_owned++;
            madvise(at, bytes, MADV_DONTDUMP);
            madvise(at, bytes, MADV_NOHUGEPAGE);
            *(volatile uint8_t *)at = 0; /* as in ram_freeze */
            for (uint32_t k = i; k < to; k++)
                blocks[k].owned = 1;
        } else {
            for (uint32_t k = i; k < to; k++)
                unlist(k);
        }
    }
}

uint64_t ram_used(void) { return (uint64_t)fresh * BLOCK_FRAMES; }

uint64_t store_used(void)
{
    return ram.store < ram.span ? fresh_store * (uint64_t)BLOCK_FRAMES - (ram.store >> PAGE_SHIFT)
                                : 0;
}

/* From now on what lies below `frozen` stays as it is in the file, for the sandboxes forked from this
 * one: nothing of it is punched. Who goes on with it, this process too, has a private mapping of
 * that part: its stores make copies, also those that zero a frame which is given out again. What
 * was frozen before is mapped so already, with the copies that were made since. */
int ram_freeze(void)
{
    uint64_t before = ram.frozen, now = (uint64_t)fresh * BLOCK_SIZE;
    if (ram.store != ram.span)
        return -EBUSY;
    changes_close();
    if (now > before && mmap(ram.base + before, now - before, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, ram.fd,
                             (off_t)before) == MAP_FAILED)
        return -errno;
    if (now > before) {
        volatile uint8_t *first = ram.base + before + PAGE_SIZE;
        madvise(ram.base + before, now - before, MADV_DONTDUMP);
        *first = *first; /* a copy: parts of a mapping that had none before they were apart stay so */
    }
    ram.frozen = now;
    own_clean(before ? (uint32_t)(before / BLOCK_SIZE) : 1, fresh);
    return 0;
}

/* Whole blocks of new frames, a reference of each the caller's, that show the first `pages` of a file
 * privately: what it has is read when it is touched first, and a store makes a copy. All that was
 * there before is frozen with them, for a part of RAM is private from its beginning to
 * `frozen`. The first frame; 0: `pages` are less than a block; or -errno. */
int64_t ram_adopt(int fd, uint64_t pages)
{
    uint64_t count = pages / BLOCK_FRAMES, bytes = count * BLOCK_SIZE;
    if (!count)
        return 0;
    if (count > n_blocks - fresh)
        return -ENOMEM;
    int error = ram_freeze();
    if (error)
        return error;
    uint64_t start = (uint64_t)fresh * BLOCK_SIZE;
    for (uint64_t at = start; at < start + bytes; at += CHUNK_SIZE)
        if ((error = chunk_ready(at)) < 0)
            return error;
    if ((error = chunk_ready(start + bytes - 1)) < 0)
        return error;
    if (mmap(ram.base + start, bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, 0) == MAP_FAILED)
        return -errno;
    madvise(ram.base + start, bytes, MADV_DONTDUMP);
    madvise(ram.base + start, bytes, MADV_WILLNEED); /* the host reads ahead, and nobody waits */
    *(volatile uint8_t *)(ram.base + start) = ram.base[start]; /* as in ram_freeze */
    for (uint64_t i = fresh; i < fresh + count; i++) {
        blocks[i] = (struct block){.kind = DATA, .list = NOWHERE};
        for (unsigned k = 0; k < BLOCK_FRAMES; k++)
            references[i * BLOCK_FRAMES + k] = 1;
    }
    fresh += (uint32_t)count;
    ram.frozen = (uint64_t)fresh * BLOCK_SIZE;
    ram_counters.frames += count * BLOCK_FRAMES;
    return (int64_t)start;
}

int ram_thaw(int fd, int vm_fd)
{
    if (!ram.frozen || ram.frozen > ram.span)
        return -EINVAL;
    if (ftruncate(fd, (off_t)ram.span) < 0)
        return -errno;
    if (ram.frozen < ram.span &&
        mmap(ram.base + ram.frozen, ram.span - ram.frozen, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, (off_t)ram.frozen) == MAP_FAILED)
        return -errno;
    if (ram.span - ram.frozen >= SMALL_BYTES)
        madvise(ram.base + ram.frozen, SMALL_BYTES, MADV_NOHUGEPAGE);
    ram.fd = fd;
    ram.vm_fd = vm_fd;
    return chunks_restart();
}
