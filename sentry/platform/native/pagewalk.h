/* The way down through x86-64 page tables: SDM volume 3, section 4.5. Levels count down: 4 is the
 * PML4, 1 the table of 4 KiB entries; a 2 MiB entry stands in level 2 and has PTE_PS, present or
 * not. Entries that are not present keep their frame (PROT_NONE). */
#ifndef SENTRY_PAGEWALK_H
#define SENTRY_PAGEWALK_H

#include "memory_map.h"

#include <stdint.h>

#define ENTRIES 512u

static inline unsigned slot_of(uint64_t va, int level)
{
    return (unsigned)(va >> (3 + 9 * level)) & (ENTRIES - 1);
}

static inline int is_table(uint64_t entry) { return (entry & (PTE_P | PTE_PS)) == PTE_P; }

/* The entry that says what lies at va: the first one on the way down from the table at `root` that
 * is none of a table, and that of level `lowest` at the latest. *level says where it stands.
 * `memory` is the host address of guest-physical 0. */
static inline __attribute__((always_inline)) uint64_t *
walk_down(uint8_t *memory, uint64_t root, uint64_t va, int lowest, int *level)
{
    uint64_t at = root;
    for (int l = 4;; l--) {
        uint64_t *entry = (uint64_t *)(memory + at) + slot_of(va, l);
        uint64_t value = __atomic_load_n(entry, __ATOMIC_ACQUIRE);
        if (l == lowest || !is_table(value)) {
            *level = l;
            return entry;
        }
        at = value & PTE_ADDR;
    }
}

#endif
