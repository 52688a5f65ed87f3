/* RAM, its memory slots, and the FILES windows. */
#define _GNU_SOURCE
#include "memory_internal.h"
#include "memory_api.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct ram ram = {.fd = -1, .vm_fd = -1, .store_fd = -1};
uint32_t *references;

void (*platform_add_slot)(unsigned, uint64_t, uint64_t, void *, int);
void (*platform_flush_all)(uint64_t);
void (*platform_release_when_out)(struct aspace *);

#define CHUNKS ((unsigned)(DOORBELL_GPA / CHUNK_SIZE))

enum { CHUNK_NONE, CHUNK_ASKED, CHUNK_READY, CHUNK_FAILED };
static uint8_t chunk_state[CHUNKS];
static pthread_mutex_t chunk_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t chunk_changed = PTHREAD_COND_INITIALIZER;

/* An address range of `size` bytes that nothing else uses, aligned to a chunk so that host huge
 * pages and guest-physical ones coincide. */
static uint8_t *reserve(uint64_t size)
{
    uint8_t *raw = mmap(NULL, size + CHUNK_SIZE, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED)
        return NULL;
    uint64_t skip = -(uintptr_t)raw & (CHUNK_SIZE - 1);
    if (skip)
        munmap(raw, skip);
    munmap(raw + skip + size, CHUNK_SIZE - skip);
    return raw + skip;
}

int ram_open(int fd, int vm_fd, uint64_t span)
{
    span = (span + CHUNK_SIZE - 1) & ~(CHUNK_SIZE - 1);
    if (ram.base || span == 0 || span > RAM_SPAN)
        return -EINVAL;
    if (ftruncate(fd, (off_t)span) < 0)
        return -errno;
    ram.base = reserve(span);
    ram.ro_window = reserve(WINDOW_SPAN);
    ram.rw_window = reserve(WINDOW_SPAN);
    references = mmap(NULL, span >> PAGE_SHIFT << 2, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ram.fd = fd;
    ram.vm_fd = vm_fd;
    ram.span = ram.store = span;
    ram.store_fd = -1;
    ram.large_entries = vm_fd < 0;
    if (!ram.base || !ram.ro_window || !ram.rw_window || references == MAP_FAILED ||
        mmap(ram.base, span, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd,
             0) == MAP_FAILED ||
        frames_init() < 0 || guard_install() < 0) {
        ram_close();
        return -ENOMEM;
    }
    madvise(ram.base, span, MADV_DONTDUMP);
    madvise(ram.base, SMALL_BYTES, MADV_NOHUGEPAGE);
    chunk_expect(0);
    return 0;
}

void ram_close(void)
{
    changes_close();
    frames_close();
    if (ram.base)
        munmap(ram.base, ram.span);
    if (ram.ro_window)
        munmap(ram.ro_window, WINDOW_SPAN);
    if (ram.rw_window)
        munmap(ram.rw_window, WINDOW_SPAN);
    if (references && references != MAP_FAILED)
        munmap(references, ram.span >> PAGE_SHIFT << 2);
    references = NULL;
    memset(&ram, 0, sizeof ram);
    ram.fd = ram.vm_fd = ram.store_fd = -1;
    memset(chunk_state, 0, sizeof chunk_state);
    platform_add_slot = NULL;
    platform_flush_all = NULL;
    platform_release_when_out = NULL;
}

/* ---- slots ---------------------------------------------------------------------------------- */

void ram_slot_ready(unsigned slot, int error)
{
    if (slot >= CHUNKS)
        return;
    pthread_mutex_lock(&chunk_lock);
    chunk_state[slot] = error ? CHUNK_FAILED : CHUNK_READY;
    pthread_cond_broadcast(&chunk_changed);
    pthread_mutex_unlock(&chunk_lock);
}

void chunk_expect(uint64_t gpa)
{
    unsigned slot = (unsigned)(gpa / CHUNK_SIZE);
    if (slot >= CHUNKS || __atomic_load_n(&chunk_state[slot], __ATOMIC_ACQUIRE) != CHUNK_NONE)
        return;
    if (!platform_add_slot) {
        chunk_state[slot] = CHUNK_READY;
        return;
    }
    chunk_state[slot] = CHUNK_ASKED;
    uint64_t start = slot * CHUNK_SIZE;
    platform_add_slot(slot, start, CHUNK_SIZE, frame_host(start),
                      start >= RO_WINDOW_GPA && start < RW_WINDOW_GPA);
}

int chunk_ready(uint64_t gpa)
{
    unsigned slot = (unsigned)(gpa / CHUNK_SIZE);
    if (slot >= CHUNKS)
        return -ENOMEM;
    if (__atomic_load_n(&chunk_state[slot], __ATOMIC_ACQUIRE) == CHUNK_READY)
        return 0;
    chunk_expect(gpa);
    pthread_mutex_lock(&chunk_lock);
    while (chunk_state[slot] == CHUNK_ASKED)
        pthread_cond_wait(&chunk_changed, &chunk_lock);
    int state = chunk_state[slot];
    pthread_mutex_unlock(&chunk_lock);
    return state == CHUNK_READY ? 0 : -ENOMEM;
}

/* A forked sandbox has a new VM without slots: ask again for every one that was in use. */
int chunks_restart(void)
{
    for (unsigned slot = 0; slot < CHUNKS; slot++) {
        if (chunk_state[slot] == CHUNK_NONE)
            continue;
        chunk_state[slot] = CHUNK_NONE;
        int error = chunk_ready(slot * CHUNK_SIZE);
        if (error)
            return error;
    }
    return 0;
}

/* ---- windows -------------------------------------------------------------------------------- */

static int window_contains(uint64_t gpa, uint64_t size)
{
    return ((gpa | size) & (PAGE_SIZE - 1)) == 0 && size != 0 && gpa >= RO_WINDOW_GPA &&
           gpa < DOORBELL_GPA && size <= WINDOW_SPAN &&
           (gpa & (WINDOW_SPAN - 1)) + size <= WINDOW_SPAN;
}

/* Nothing else may come to lie in the windows: what is mapped there later would take its place, and
 * programs see it. Replacing a mapping tells KVM (mmu notifier), which drops every translation into
 * it. */
static int window_reserve(uint64_t gpa, uint64_t size)
{
    void *at = mmap(frame_host(gpa), size, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return at == MAP_FAILED ? -errno : 0;
}

int window_map(uint64_t gpa, uint64_t size, int fd, uint64_t offset)
{
    if (!window_contains(gpa, size) || (offset & (PAGE_SIZE - 1)))
        return -EINVAL;
    for (uint64_t chunk = gpa & ~(CHUNK_SIZE - 1); chunk < gpa + size; chunk += CHUNK_SIZE) {
        int error = chunk_ready(chunk);
        if (error)
            return error;
    }
    int prot = gpa >= RW_WINDOW_GPA ? PROT_READ | PROT_WRITE : PROT_READ;
    void *at = mmap(frame_host(gpa), size, prot, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd,
                    (off_t)offset);
    if (at != MAP_FAILED)
        return 0;
    int error = -errno;
    /* A file is asked last, when what was there is gone: those of /sys, for example, refuse. */
    if (madvise(frame_host(gpa), size, MADV_DONTNEED) < 0 && window_reserve(gpa, size) < 0)
        abort();
    return error;
}

int window_unmap(uint64_t gpa, uint64_t size)
{
    if (!window_contains(gpa, size))
        return -EINVAL;
    return window_reserve(gpa, size);
}
