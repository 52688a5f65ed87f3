/* Where things lie: in the program's addresses, in guest-physical ones, in a page-table entry. Read
 * by the assembler, by all C of the platform, and by Python (sentry/platform/constants.py). */
#ifndef GUEST_MEMORY_MAP_H
#define GUEST_MEMORY_MAP_H

#ifdef __ASSEMBLER__
#define U64(value) value
#else
#define U64(value) value##ull
#endif

#define PAGE_SHIFT 12
#define PAGE_SIZE U64(4096)
#define BLOCK_SIZE U64(0x200000)   /* a large page-table entry */
#define CHUNK_SIZE U64(0x40000000) /* one memory slot; slot number = gpa / CHUNK_SIZE */

/* ---- virtual ---- */
#define TASK_SIZE U64(0x7fffffe00000) /* the first address that is not the program's */
#define ENTRY_BASE TASK_SIZE          /* the entry pages of the vCPUs, see layout.h */
#define HIGH_BASE U64(0xffff800000000000) /* the supervisor's pages, see layout.h */

/* ---- guest-physical, docs/design.md ---- */
#define RAM_SPAN U64(0x2000000000)
#define RO_WINDOW_GPA U64(0x2000000000)
#define RW_WINDOW_GPA U64(0x4000000000)
#define WINDOW_SPAN U64(0x2000000000)
#define DOORBELL_GPA U64(0x6000000000) /* no memory slot from here on */

/* ---- page-table entry, SDM volume 3 section 4.5; 9 to 11 are ours (docs/design.md) ---- */
#define PTE_P U64(0x001)
#define PTE_W U64(0x002)
#define PTE_U U64(0x004)
#define PTE_A U64(0x020)
#define PTE_D U64(0x040)
#define PTE_PS U64(0x080)
#define PTE_COW U64(0x200)  /* write-protected because the frame may be shared: copy on write */
#define PTE_RAM U64(0x400)  /* the entry owns a reference of a RAM frame, present or not */
#define PTE_FILE U64(0x800) /* the entry points into a FILES window */
#define PTE_NX U64(0x8000000000000000)
#define PTE_ADDR U64(0x000ffffffffff000)

#endif
