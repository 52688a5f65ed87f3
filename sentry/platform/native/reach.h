/* From user addresses to host memory: what usercopy.c and framecopy.c share. */
#ifndef SENTRY_REACH_H
#define SENTRY_REACH_H

#include "memory_api.h"
#include "memory_internal.h"
#include "pagewalk.h"

/* Host address of va, and in *room how many bytes from it the same entry covers. NULL: fault. */
static inline uint8_t *reach(struct aspace *as, uint64_t va, int write, uint64_t *room)
{
    const uint64_t need = PTE_P | PTE_U | (write ? PTE_W : 0);
    if (va >= TASK_SIZE)
        return NULL;
    int level;
    uint64_t entry = *walk_down(ram.base, as->root, va, 1, &level);
    if ((entry & need) != need || !(entry & (PTE_RAM | PTE_FILE)))
        return NULL;
    if (write && !(entry & PTE_NX))
        ram_counters.code_changes++;
    uint64_t size = level == 2 ? BLOCK_SIZE : PAGE_SIZE, inside = va & (size - 1);
    *room = size - inside;
    return frame_host(entry & PTE_ADDR & ~(size - 1)) + inside;
}

static inline void set_fault(struct fault *fault, uint64_t addr, int write, int gone)
{
    fault->addr = addr;
    fault->write = write;
    fault->gone = gone;
}

/* The next piece of a copy: at most `left` bytes. NULL after setting the fault. */
static inline uint8_t *piece(struct aspace *as, uint64_t va, uint64_t left, int write, uint64_t *some,
                      struct fault *fault)
{
    uint8_t *at = reach(as, va, write, some);
    if (!at)
        set_fault(fault, va, write, 0);
    else if (*some > left)
        *some = left;
    return at;
}

#endif
