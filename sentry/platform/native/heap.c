#include "heap.h"

#include <malloc.h>

enum { KEPT_AT_ITS_END = 4 << 20, LARGEST_IN_IT = 2 << 20 };

/* A write of a megabyte is a megabyte of memory that is free again when it was read. malloc(3) would
 * map it anew each time, or give back the end of the heap, and the host makes each page anew. */
void heap_keep(void)
{
    mallopt(M_TRIM_THRESHOLD, KEPT_AT_ITS_END);
    mallopt(M_MMAP_THRESHOLD, LARGEST_IN_IT);
}

/* free(3) gives back only the end of the heap; this, every page that is free. */
void heap_trim(void)
{
    malloc_trim(0);
}
