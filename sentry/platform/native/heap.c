#define _GNU_SOURCE
#include "heap.h"

#include <link.h>
#include <malloc.h>
#include <sys/mman.h>

enum { KEPT_AT_ITS_END = 4 << 20, LARGEST_IN_IT = 2 << 20, PAGE = 4096 };

/* A write of a megabyte is a megabyte of memory that is free again when it was read. malloc(3) would
 * map it anew each time, or give back the end of the heap, and the host makes each page anew. */
void heap_keep(void)
{
    mallopt(M_TRIM_THRESHOLD, KEPT_AT_ITS_END);
    mallopt(M_MMAP_THRESHOLD, LARGEST_IN_IT);
}

/* Those pages of a program or library that are as in its file. */
static int forget(struct dl_phdr_info *object, size_t size, void *unused)
{
    (void)size, (void)unused;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || (segment->p_flags & PF_W))
            continue;
        uintptr_t start = object->dlpi_addr + segment->p_vaddr;
        uintptr_t first = start & ~(uintptr_t)(PAGE - 1);
        madvise((void *)first, start + segment->p_memsz - first, MADV_DONTNEED);
    }
    return 0;
}

/* free(3) gives back only the end of the heap; this, every page that is free. And code that has run:
 * most of what is compiled ahead runs when its module begins, and never after. What is needed again is
 * mapped again, 16 pages at a fault, so that is done ever more seldom. */
void heap_trim(void)
{
    static unsigned times;
    malloc_trim(0);
    times++;
    if ((times & (times - 1)) == 0)
        dl_iterate_phdr(forget, NULL);
}
