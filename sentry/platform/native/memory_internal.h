/* What the files of the memory half share among themselves. */
#ifndef SENTRY_MEMORY_INTERNAL_H
#define SENTRY_MEMORY_INTERNAL_H

#include "memory.h"

/* In `references`: what a frame is, when it is not plain data. */
#define REF_TABLE 0x80000000u /* a page-table page */
#define REF_EMPTY 0x40000000u /* with it: has no entries, still linked */

extern uint32_t *references; /* one count per RAM frame, index gpa >> 12 */

static inline size_t frame_index(uint64_t gpa) { return gpa >> PAGE_SHIFT; }

/* memory.c */
int chunk_ready(uint64_t gpa);   /* the slot that covers gpa exists; waits for it. 0 or -errno */
void chunk_expect(uint64_t gpa); /* ask for it, do not wait */
int chunks_restart(void);

/* frames.c */
int frames_init(void);
void frames_close(void);
uint64_t block_take(void);                         /* 512 zeroed frames, aligned; 0: none */
uint64_t run_take(size_t want, size_t *got);       /* 1..want consecutive zeroed frames */
uint64_t run_take_raw(size_t want, size_t *got);   /* whoever used them: all to be overwritten */
uint64_t hidden_take_raw(size_t want, size_t *got, int store); /* the same for a file */
void run_release(uint64_t gpa, size_t n);          /* drop a reference of each; already flushed */
void run_reference(uint64_t gpa, size_t n);
uint64_t kernel_run(size_t want, size_t *got);     /* of the kernel's: zeroed and populated */

/* populated.c */
int ram_punch(uint64_t gpa, uint64_t bytes);
int store_room(uint64_t gpa, uint64_t bytes);      /* have room on the disk; 0 or -1 */
int store_punch(uint64_t gpa, uint64_t bytes);     /* give it back */
int frames_populated(uint64_t gpa, size_t n);      /* any of them has bytes of its own */
int populated_run(uint64_t gpa, size_t look, size_t *same);
int frames_make_zero(uint64_t gpa, unsigned n);

/* changes.c */
void changes_punched(uint64_t gpa, uint64_t bytes);

/* table_pages.c */
uint64_t table_take(void);                         /* zeroed and populated; 0: no memory */
void table_quarantine(uint64_t gpa);
void quarantine_poll(void);                        /* take back what a finished flush released */
void table_pages_close(void);

/* flush.c: translations of old data pages, in batches */
#define BATCH_RUNS 256
#define FLUSH_PUNCH 2 /* as `flush`: the contents go too */
struct batch_run {
    uint64_t gpa;
    uint32_t frames;
    uint8_t release; /* an owned reference goes with it */
    uint8_t flush;
};
struct batch {
    size_t n;
    struct batch_run run[BATCH_RUNS];
};
void batch_add(struct batch *b, uint64_t entry, uint32_t frames, int release, int flush);
void batch_finish(struct batch *b); /* flush all runs, then release */
void flush_range(uint64_t gpa, uint64_t frames);

/* guard.c: accesses that survive SIGBUS and SIGSEGV; they return the bytes not done, or not 0 */
int guard_install(void);
size_t guarded_copy(void *to, const void *from, size_t n);
size_t guarded_zero(void *to, size_t n);
size_t guarded_load32(const void *at, uint32_t *value);
size_t guarded_cmpxchg32(void *at, uint32_t *expected, uint32_t desired);

#endif
