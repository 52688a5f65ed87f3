/* The memory half of the platform: RAM, frames, page tables, user copies.
 *
 * RAM is one shared file mapped at `ram.base`; guest-physical address g of RAM is host address
 * ram.base + g. Two more reserved ranges, the FILES windows, hold mappings of donated host files.
 * Page tables are ordinary x86-64 tables in RAM frames, written here and never by the guest.
 *
 * Everything here belongs to the kernel thread, but for the three functions marked "any thread".
 *
 * The execution half (vcpu.c, events.c) sets the hooks at the end of this file; without them
 * (unit tests, unicorn) they do their work at once and nothing else is needed.
 */
#ifndef SENTRY_MEMORY_H
#define SENTRY_MEMORY_H

#include "memory_map.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BLOCK_FRAMES 512u

/* Of the first blocks, one of data and one of the kernel's, in pages of 4 KiB: who needs little has
 * little. */
#define SMALL_BYTES (3 * BLOCK_SIZE)

struct ram {
    uint8_t *base;        /* host address of guest-physical 0 */
    uint8_t *ro_window;   /* host address of RO_WINDOW_GPA */
    uint8_t *rw_window;   /* host address of RW_WINDOW_GPA */
    int fd;               /* the file behind RAM */
    int store_fd;         /* and behind what lies from `store` on; -1: none */
    int vm_fd;            /* -1 without KVM: unicorn, unit tests */
    uint64_t span;        /* bytes of guest-physical RAM that may ever be used */
    uint64_t store;       /* from here on they are a file on a disk of the host; else `span` */
    uint64_t kernel_pdpt; /* frame that PML4[256] of every address space points to; 0: none yet */
    uint64_t frozen;      /* frames below are a template's: mapped privately, never punched */
    int large_entries;    /* 2 MiB page-table entries may be used: never with shadow paging, where
                             KVM keeps a table of its own for a block whose host memory is in
                             small pages, shared by everybody who maps that block as a whole, and
                             linked at the old address until everything is flushed. The execution
                             half sets it when the probe saw that entries are walked by the
                             processor itself. */
};

extern struct ram ram;

/* Map `fd` (made `span` bytes long, sparse) and reserve the windows. 0 or -errno. */
int ram_open(int fd, int vm_fd, uint64_t span);
void ram_close(void);

/* ---- frames ------------------------------------------------------------------------------- */

uint64_t frame_alloc(void);               /* gpa of a zeroed frame, reference count 1; 0: none */
uint64_t frames_alloc_contiguous(size_t n); /* the same for n consecutive frames */
void frame_get(uint64_t gpa);             /* one more reference */
void frame_put(uint64_t gpa);             /* one less; the last one flushes and frees the frame */
uint32_t frame_references(uint64_t gpa);
void frame_pin(uint64_t gpa);             /* I/O off the kernel thread uses it: a reference more */
void frame_unpin(uint64_t gpa);

/* Host address of any guest-physical address of RAM or a window. */
static inline uint8_t *frame_host(uint64_t gpa)
{
    if (gpa < RAM_SPAN)
        return ram.base + gpa;
    if (gpa < RW_WINDOW_GPA)
        return ram.ro_window + (gpa - RO_WINDOW_GPA);
    return ram.rw_window + (gpa - RW_WINDOW_GPA);
}

/* ---- address spaces ----------------------------------------------------------------------- */

struct aspace {
    uint64_t root;         /* gpa of the PML4: CR3 */
    uint64_t tables;       /* page-table pages in use, the root and empty ones included */
    uint64_t empty_tables; /* of these: empty but still linked */
    uint64_t anonymous;    /* 4 KiB entries (and parts of large ones) that own a RAM frame */
    uint64_t windows;      /* entries into a FILES window */
    uint64_t copied_to;    /* where the last copy on write ended, */
    uint64_t copied;       /* and how many pages around a store it took */
    unsigned trimmed;      /* the GiB at which the next look for empty tables begins */
    int inside;            /* the execution half's: vCPUs that run it or may run it */
    int dying;             /* aspace_destroy was called */
    void *execution;       /* the execution half's own */
    struct aspace *next;   /* list of the dying */
};

struct aspace *aspace_new(void); /* NULL: no memory */

/* Map one page with exactly these entry bits (the entry, S and doorbell pages). The entry owns no
 * reference; the frame's owner outlives the mapping. A and D are added. 0 or -ENOMEM. */
int aspace_map_special(struct aspace *as, uint64_t va, uint64_t gpa, uint64_t pte_flags);
void aspace_unmap_special(struct aspace *as, uint64_t va);

/* The entry that translates va (a large one as it stands in its table), 0 if there is none. */
uint64_t aspace_entry(struct aspace *as, uint64_t va);
uint64_t aspace_next(struct aspace *as, uint64_t va, uint64_t pages);

/* Give everything back once no vCPU is inside. `as` must not be used afterwards. */
void aspace_destroy(struct aspace *as);

/* ---- what the execution half provides ------------------------------------------------------ */

/* Add the memory slot `slot` (KVM_SET_USER_MEMORY_REGION): size bytes at gpa. Returns at once or
 * after the work; ram_slot_ready(slot) tells that the slot is there. */
extern void (*platform_add_slot)(unsigned slot, uint64_t gpa, uint64_t size, void *host,
                                 int readonly);
/* Drop every translation of every vCPU (dummy slot). Asynchronous or at once; then
 * ram_flushed_all(ticket). Only one is outstanding at a time. */
extern void (*platform_flush_all)(uint64_t ticket);
/* Call aspace_released(as) as soon as no vCPU has as->root loaded or can come back to it. */
extern void (*platform_release_when_out)(struct aspace *as);

/* Any thread: the answers. An error of add_slot makes the chunk unusable for ever. */
void ram_slot_ready(unsigned slot, int error);
void ram_flushed_all(uint64_t ticket);
void aspace_released(struct aspace *as);

#endif
