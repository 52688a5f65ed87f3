/* Page-table pages: a pool of them, and the quarantine of those that were linked once.
 *
 * With shadow paging the processor may go on translating through a page that was unlinked, until
 * everything is flushed: so long nobody may get it, or a program would see another one's memory. */
#define _GNU_SOURCE
#include "memory_api.h"
#include "memory_internal.h"

#include <stdlib.h>
#include <string.h>

#define TABLE_BATCH 16
#define FLUSH_ALL_AFTER 256 /* quarantined tables */

struct frame_stack {
    uint64_t *gpa;
    size_t n, room;
};

static struct frame_stack table_pool, quarantine, flushing;
static uint64_t flush_ticket, flush_done;

static int stack_push(struct frame_stack *s, uint64_t gpa)
{
    if (s->n == s->room) {
        size_t room = s->room ? 2 * s->room : 1024;
        uint64_t *grown = realloc(s->gpa, room * sizeof *grown);
        if (!grown)
            return -1;
        s->gpa = grown;
        s->room = room;
    }
    s->gpa[s->n++] = gpa;
    return 0;
}

static void flush_all_start(void);

uint64_t table_take(void)
{
    quarantine_poll();
    if (!table_pool.n) {
        size_t got = 0;
        uint64_t gpa = kernel_run(TABLE_BATCH, &got);
        for (size_t k = 0; gpa && k < got; k++)
            stack_push(&table_pool, gpa + (got - 1 - k) * PAGE_SIZE);
    }
    if (!table_pool.n && quarantine.n && !flushing.n) {
        flush_all_start();
        quarantine_poll();
    }
    if (!table_pool.n)
        return 0;
    uint64_t gpa = table_pool.gpa[--table_pool.n];
    memset(ram.base + gpa, 0, PAGE_SIZE);
    references[frame_index(gpa)] = REF_TABLE;
    ram_counters.tables++;
    ram_counters.pooled = table_pool.n;
    return gpa;
}

/* A page-table page that was linked once. With shadow paging the processor may go on translating
 * through it until everything is flushed, so until then nobody may get it. */
void table_quarantine(uint64_t gpa)
{
    ram_counters.tables--;
    if (stack_push(&quarantine, gpa) < 0)
        return; /* without memory for the list it is lost: safe, and cannot be worse */
    ram_counters.quarantined++;
    quarantine_poll();
}

static void flush_all_start(void)
{
    struct frame_stack empty = flushing;
    flushing = quarantine;
    quarantine = empty;
    quarantine.n = 0;
    ram_counters.flush_alls++;
    uint64_t ticket = ++flush_ticket;
    if (platform_flush_all)
        platform_flush_all(ticket);
    else
        ram_flushed_all(ticket);
}

void quarantine_poll(void)
{
    if (flushing.n && __atomic_load_n(&flush_done, __ATOMIC_ACQUIRE) == flush_ticket) {
        ram_counters.quarantined -= flushing.n;
        while (flushing.n)
            stack_push(&table_pool, flushing.gpa[--flushing.n]);
        ram_counters.pooled = table_pool.n;
    }
    if (!flushing.n && quarantine.n >= FLUSH_ALL_AFTER)
        flush_all_start();
}

void ram_flushed_all(uint64_t ticket)
{
    __atomic_store_n(&flush_done, ticket, __ATOMIC_RELEASE);
}

void table_pages_close(void)
{
    table_pool.n = quarantine.n = flushing.n = 0;
    flush_ticket = flush_done = 0;
}
