/* What sentry/platform/memory.py calls, besides memory.h. Addresses and lengths that come from
 * the program are checked by the functions themselves. */
#ifndef SENTRY_MEMORY_API_H
#define SENTRY_MEMORY_API_H

#include "memory.h"

#include <sys/uio.h>

/* ---- frames: data of programs and of files in RAM, not populated yet ---- */
/* `store`: in the file of ram_store_open, where -ENOSPC says that its file system is full. */
uint64_t data_alloc(int store);
int64_t data_fill(uint64_t *gpas, uint64_t n, int store); /* frames for the zeros; how many */
int64_t data_put_list(uint64_t *gpas, uint64_t n); /* drop all and zero the list; how many */
uint64_t ram_trim(uint64_t keep_bytes, unsigned max_blocks); /* punch free memory; bytes */
int ram_store_open(int fd); /* the upper half of RAM lies in this file, empty; 0 or -errno */
int ram_freeze(void);                 /* everything so far becomes a template's */
int64_t ram_adopt(int fd, uint64_t pages); /* new frames show a file of pages, privately */
int ram_thaw(int fd, int vm_fd);      /* in a forked sandbox: new frames come from fd */

struct ram_counters {
    uint64_t frames;      /* data frames in use */
    uint64_t store_frames; /* those on a disk, which are not among them */
    uint64_t kernel_frames; /* frames of frame_alloc in use */
    uint64_t tables;      /* page-table pages in use */
    uint64_t quarantined; /* page-table pages that wait for a flush of everything */
    uint64_t pooled;      /* page-table pages ready for use */
    uint64_t dirty;       /* free frames that may still hold host memory */
    uint64_t pins;
    uint64_t flush_calls;
    uint64_t flushed_frames;
    uint64_t flush_alls;
    uint64_t spaces;      /* address spaces, dying ones included */
    uint64_t code_changes; /* the host may have written where programs execute: for a platform
                              that keeps translated code */
};
extern struct ram_counters ram_counters;
/* Tests: sees every flush of data pages before it happens. */
extern void (*flush_observer)(uint64_t gpa, uint64_t frames);

/* ---- windows ---- */
int window_map(uint64_t gpa, uint64_t size, int fd, uint64_t offset);
int window_unmap(uint64_t gpa, uint64_t size);

/* ---- page tables: va and pages describe [va, va + pages * PAGE_SIZE), below TASK_SIZE ---- */
void aspace_reap(void); /* finish the address spaces that nobody is inside any more */
int aspace_map_anonymous(struct aspace *as, uint64_t va, uint64_t pages, int prot);
int aspace_map_frames(struct aspace *as, uint64_t va, uint64_t gpa, uint64_t pages, int prot,
                      int cow);
int aspace_map_over(struct aspace *as, uint64_t va, uint64_t gpa, uint64_t pages, int prot);
int aspace_map_list(struct aspace *as, uint64_t va, const uint64_t *gpas, uint64_t pages,
                    int prot, int cow);
int aspace_protect(struct aspace *as, uint64_t va, uint64_t pages, int prot);
int aspace_unmap(struct aspace *as, uint64_t va, uint64_t pages);
/* Only the entries that point into [gpa, gpa + size) of a FILES window. */
int aspace_forget_window(struct aspace *as, uint64_t va, uint64_t pages, uint64_t gpa,
                         uint64_t size);
/* Only those that show gpas[i] at page i; 0 is none. */
int aspace_forget_list(struct aspace *as, uint64_t va, const uint64_t *gpas, uint64_t pages);
int aspace_prepare_move(struct aspace *as, uint64_t from, uint64_t to, uint64_t pages);
int aspace_move(struct aspace *as, uint64_t from, uint64_t to, uint64_t pages);
int64_t aspace_fork(struct aspace *parent, struct aspace *child, uint64_t va, uint64_t pages,
                    int shared, int prot, uint64_t copy_max);
int64_t aspace_fork_all(struct aspace *parent, struct aspace *child, const uint64_t *rows,
                        uint64_t count, uint64_t copy_max, uint64_t small);
int aspace_break_cow(struct aspace *as, uint64_t va, uint64_t low, uint64_t high, int prot);
int aspace_discard(struct aspace *as, uint64_t va, uint64_t pages);
int aspace_populate(struct aspace *as, uint64_t va, uint64_t pages);
uint64_t aspace_translate(struct aspace *as, uint64_t va);
int aspace_resident(struct aspace *as, uint64_t va, uint64_t pages, uint8_t *vector);
struct resident {
    uint64_t ram, windows;   /* pages by what is behind them; */
    uint64_t alone, several; /* the same pages, by the number of owners of their frame */
};
void aspace_count(struct aspace *as, uint64_t va, uint64_t pages, struct resident *counts);
uint64_t aspace_resident_ram(struct aspace *as);

/* ---- for snapshots ---- */
int aspace_list(struct aspace *as, uint64_t va, uint64_t pages, uint64_t *gpas);
void pages_hash(const uint8_t *at, uint64_t n, uint64_t *hashes);
void frames_hash(const uint64_t *gpas, uint64_t n, uint64_t *hashes);
uint64_t ram_used(void); /* frames below the highest one that was ever used; not of a disk */
uint64_t store_used(void); /* the same of a disk */

#define CHANGES_FRAMES 4096u /* that are looked at together */
int changes_open(int fd);
int changes_since(uint64_t first, uint64_t n, uint8_t *same);
void changes_close(void);

#define NUMBER_ZEROS 0xffffffffu /* of a frame that is all zeros */
/* Pages of a snapshot, and of the one before it, by frames: those of RAM, then those of a disk. */
struct numbering {
    uint32_t *numbers; /* by frame: that of its page, from 1 on; 0: none yet */
    uint64_t split;    /* so many frames of RAM, */
    uint64_t room;     /* and so many in all */
    uint64_t *frames;  /* by page, the first is 1 */
    uint64_t pages;
    const uint32_t *before; /* `numbers` of the one before; NULL: there is none */
    uint64_t before_split, before_room;
    const uint8_t *same; /* by frame of RAM, before_split of them: it has the bytes of then */
    const uint64_t *before_hashes;
};
int64_t numbers_of(struct numbering *it, const uint64_t *gpas, uint64_t n, int zeros,
                   uint64_t *runs);
void numbers_put(uint32_t *numbers, uint64_t split, uint64_t room, const uint64_t *gpas,
                 uint64_t n);
uint64_t numbers_place(const struct numbering *it, uint64_t first, uint64_t n,
                       const uint64_t *before_places, uint64_t place, uint64_t *hashes,
                       uint64_t *places, uint64_t *own);
uint64_t places_runs(const uint64_t *places, uint64_t n, uint64_t *next, uint64_t *runs,
                     uint64_t room);

/* ---- user memory ---- */
struct fault {
    uint64_t addr;
    int write;
    int gone; /* mapped, but the host has no page behind it: truncated file, or no memory */
};
int64_t user_read(struct aspace *as, uint64_t va, void *to, uint64_t n, struct fault *fault);
int64_t user_write(struct aspace *as, uint64_t va, const void *from, uint64_t n,
                   struct fault *fault);
int64_t user_zero(struct aspace *as, uint64_t va, uint64_t n, struct fault *fault);
int64_t user_string(struct aspace *as, uint64_t va, void *to, uint64_t limit,
                    struct fault *fault);
int64_t user_check(struct aspace *as, uint64_t va, uint64_t n, int write, struct fault *fault);
int64_t user_preadv(struct aspace *as, int fd, int64_t offset, uint64_t va, uint64_t n, int flags,
                    struct fault *fault);
int64_t user_pwritev(struct aspace *as, int fd, int64_t offset, uint64_t va, uint64_t n,
                     int flags, struct fault *fault);
int64_t ranges_preadv(struct aspace *as, int fd, int64_t offset, const uint64_t *ranges, int count,
                      int flags, struct fault *fault);
int64_t ranges_pwritev(struct aspace *as, int fd, int64_t offset, const uint64_t *ranges,
                       int count, int flags, struct fault *fault);
int ranges_read(struct aspace *as, uint64_t va, int count, uint64_t room, int write,
                uint64_t *ranges, struct fault *fault);
int user_pin(struct aspace *as, uint64_t va, uint64_t n, int write, struct iovec *iov, int max,
             uint64_t *covered, struct fault *fault);
void user_unpin(const struct iovec *iov, int count);
int user_load32(struct aspace *as, uint64_t va, uint32_t *value, struct fault *fault);
int user_cmpxchg32(struct aspace *as, uint64_t va, uint32_t *expected, uint32_t desired,
                   struct fault *fault);
int user_futex_op(struct aspace *as, uint64_t va, int op, uint32_t operand, uint32_t *old,
                  struct fault *fault);

/* ---- bytes of frames, for files in RAM: the bytes not done ---- */
int64_t user_from_frames(struct aspace *as, uint64_t va, const uint64_t *gpas, uint64_t offset,
                         uint64_t n, struct fault *fault);
int64_t ranges_from_frames(struct aspace *as, const uint64_t *ranges, int count,
                           const uint64_t *gpas, uint64_t offset, uint64_t n, struct fault *fault);
int64_t user_to_frames(struct aspace *as, uint64_t va, uint64_t *gpas, uint64_t offset, uint64_t n,
                       int store, uint64_t *filled, struct fault *fault);
uint64_t frames_read(const uint64_t *gpas, uint64_t offset, void *to, uint64_t n);
uint64_t frames_write(const uint64_t *gpas, uint64_t offset, const void *from, uint64_t n);
uint64_t frames_zero(const uint64_t *gpas, uint64_t offset, uint64_t n);

#endif
