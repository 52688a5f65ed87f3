/* Which context runs on which vCPU. Kernel thread only.
 *
 * A context keeps its vCPU until somebody else needs one; then the context that has been in the
 * kernel longest loses its own. When all vCPUs run, the longest running one is kicked after a
 * slice and its context goes to the end of the queue.
 */
#include "vcpu.h"

#include <stdlib.h>

void post_event(struct ctx *c, enum exit_kind kind)
{
    if (kind < EVENT_STOPPED)
        c->kind = kind;
    if (pool.n_events < pool.events_size) /* room for all that contexts can owe, see ctx_new */
        pool.events[pool.n_events++] = (struct event){c->index, kind};
}

void drop_events(struct ctx *c)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < pool.n_events; i++)
        if (pool.events[i].index != c->index)
            pool.events[kept++] = pool.events[i];
    pool.n_events = kept;
}

void list_push(struct ctx_list *list, struct ctx *c)
{
    c->state = C_QUEUED; /* its vCPU, if it still has one, is FREE or OUT */
    c->next = NULL;
    if (list->tail)
        list->tail->next = c;
    else
        list->head = c;
    list->tail = c;
    list->n++;
}

/* 1: it was there. */
int list_remove(struct ctx_list *list, struct ctx *c)
{
    struct ctx **link = &list->head, *before = NULL;
    while (*link && *link != c) {
        before = *link;
        link = &(*link)->next;
    }
    if (!*link)
        return 0;
    *link = c->next;
    if (list->tail == c)
        list->tail = before;
    c->next = NULL;
    list->n--;
    return 1;
}

void queue_push(struct ctx *c)
{
    list_push(&pool.queue, c);
}

void queue_remove(struct ctx *c)
{
    if (!list_remove(&pool.queue, c))
        list_remove(&pool.held, c);
}

/* A vCPU for the context: a free one, one that knows its address space first; else a victim. */
static struct vcpu *choose(struct ctx *c)
{
    struct vcpu *empty = NULL, *victim = NULL;
    for (int i = 0; i < pool.threads; i++) {
        struct vcpu *v = &pool.vcpu[i];
        uint32_t phase = atomic_load(&v->phase);
        if (v->draining || v->dead)
            continue;
        if (!v->ctx) {
            if (phase == P_FREE && (!empty || v->loaded == c->space))
                empty = v;
        } else if (v->ctx->state == C_KERNEL) {
            if (phase == P_TAKEN) {
                atomic_store(&v->tell_out, 1); /* it will ring soon; then it can be a victim */
                phase = atomic_load(&v->phase);
            }
            if ((phase == P_FREE || phase == P_OUT) &&
                (!victim || (int32_t)(v->ctx->sequence - victim->ctx->sequence) < 0))
                victim = v;
        }
    }
    return empty ? empty : victim;
}

void schedule(void)
{
    while (pool.queue.head) {
        struct ctx *c = pool.queue.head;
        struct vcpu *v = c->vcpu && c->vcpu != pool.inline_vcpu ? c->vcpu : choose(c);
        if (!v && pool.live)
            return;
        if (!v) {
            queue_remove(c);
            c->state = C_KERNEL;
            post_event(c, EXIT_BROKEN);
            continue;
        }
        queue_remove(c);
        c->state = C_KERNEL;
        if (c->vcpu == v) {
            vcpu_launch(v, c);
            continue;
        }
        if (c->vcpu)
            vcpu_evict(c->vcpu);
        if (v->ctx) {
            if (atomic_load(&v->phase) == P_OUT)
                came_out(v);
            vcpu_evict(v);
        }
        if (vcpu_load(v, c))
            post_event(c, EXIT_NO_MEMORY);
        else
            vcpu_launch(v, c);
    }
}

/* Kick those whose slice is over while others wait. The TSC at which to look again, 0: never. */
uint64_t schedule_slice(uint64_t now_tsc)
{
    uint64_t again = 0;
    if (!pool.queue.n)
        return 0;
    for (int i = 0; i < pool.threads; i++) {
        struct vcpu *v = &pool.vcpu[i];
        if (!v->ctx || v->ctx->state != C_RUNNING)
            continue;
        uint64_t end = v->started_tsc + pool.slice_tsc;
        if ((int64_t)(now_tsc - end) >= 0) {
            if (v->sliced)
                continue;
            v->sliced = 1;
            vcpu_kick(v);
        } else if (!again || end < again) {
            again = end;
        }
    }
    return again;
}
