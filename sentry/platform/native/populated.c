/* What the host holds of RAM: a frame that it has not populated reads as zero. */
#define _GNU_SOURCE
#include "memory_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int ram_punch(uint64_t gpa, uint64_t bytes)
{
    changes_punched(gpa, bytes);
    return fallocate(ram.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)gpa,
                     (off_t)bytes);
}

int store_room(uint64_t gpa, uint64_t bytes)
{
    static const char zeros[1 << 16];
    off_t at = (off_t)(gpa - ram.store);
    if (fallocate(ram.store_fd, 0, at, (off_t)bytes) == 0)
        return 0;
    if (errno != EOPNOTSUPP)
        return -1;
    for (uint64_t done = 0; done < bytes;) { /* a file system that cannot promise it */
        ssize_t n = pwrite(ram.store_fd, zeros, sizeof zeros, at + (off_t)done);
        if (n <= 0)
            return -1;
        done += (uint64_t)n;
    }
    return 0;
}

int store_punch(uint64_t gpa, uint64_t bytes)
{
    return fallocate(ram.store_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                     (off_t)(gpa - ram.store), (off_t)bytes);
}

/* First byte at or after gpa that the file holds; swapped pages count, which mincore misses. */
static uint64_t first_data(uint64_t gpa, uint64_t end)
{
    off_t at = lseek(ram.fd, (off_t)gpa, SEEK_DATA);
    return at < 0 || (uint64_t)at >= end ? end : (uint64_t)at & ~(PAGE_SIZE - 1);
}

int frames_populated(uint64_t gpa, size_t n)
{
    if (gpa < ram.frozen || gpa >= ram.store)
        return 1;
    unsigned char resident = 0;
    if (n == 1 && mincore(ram.base + gpa, PAGE_SIZE, &resident) == 0 && (resident & 1))
        return 1;
    return first_data(gpa, gpa + n * PAGE_SIZE) < gpa + n * PAGE_SIZE;
}

/* Whether the frame at gpa has bytes of its own, and how many frames from it on (inside its
 * block) are the same; `look` at so many for that, each costs 44 ns. */
int populated_run(uint64_t gpa, size_t look, size_t *same)
{
    unsigned char resident[BLOCK_FRAMES];
    uint64_t end = (gpa | (BLOCK_SIZE - 1)) + 1;
    size_t n = (end - gpa) >> PAGE_SHIFT, k = 0;
    *same = n;
    if (gpa < ram.frozen || gpa >= ram.store)
        return 1;
    if (n > look)
        n = look;
    if (mincore(ram.base + gpa, n * PAGE_SIZE, resident) == 0)
        while (k < n && (resident[k] & 1))
            k++;
    uint64_t data = k ? gpa : first_data(gpa, end);
    *same = k ? k : data > gpa ? (data - gpa) >> PAGE_SHIFT : 1;
    return data == gpa; /* not resident, but data: in swap */
}

/* Make a run of dirty free frames read as zero. 0 or -1. */
int frames_make_zero(uint64_t gpa, unsigned n)
{
    unsigned char resident[BLOCK_FRAMES];
    uint64_t end = gpa + n * PAGE_SIZE;
    if (gpa >= ram.store || gpa < ram.frozen)
        return guarded_zero(ram.base + gpa, n * PAGE_SIZE) ? -1 : 0;
    if (n > 4)
        gpa = first_data(gpa, end);
    if (gpa >= end)
        return 0;
    n = (unsigned)((end - gpa) >> PAGE_SHIFT);
    if (mincore(ram.base + gpa, n * PAGE_SIZE, resident) < 0)
        return -1;
    for (unsigned i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && (resident[j] & 1) == (resident[i] & 1); j++)
            ;
        uint64_t at = gpa + i * PAGE_SIZE, bytes = (j - i) * PAGE_SIZE;
        if ((resident[i] & 1) && guarded_zero(ram.base + at, bytes) == 0)
            continue;
        if (ram_punch(at, bytes) < 0)
            return -1;
    }
    return 0;
}
