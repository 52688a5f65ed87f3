/* Which context runs on which vCPU. Kernel thread only.
 *
 * A context keeps its vCPU until somebody else needs one; then the context that has been in the
 * kernel longest loses its own. Who waits is of one of three classes: who woke goes before who calls,
 * who calls before who computes (had LONG_NS of a core twice in a row without a call). Of those that
 * compute at most as many as there are CPUs run at a time, each for a slice, then it is kicked and
 * goes to the end of its queue; one that woke does not wait for that, for its first calls.
 *
 * Where programs leave no core to the kernel thread each of their calls is an exit, ten times what
 * one in the mailbox costs. So programs that call all the time take turns: whoever is to go on
 * waits in the queue as long as the others leave no core besides and call every TALK_NS, but for
 * their TURN_NS at most. One that computes keeps nobody waiting, and one that woke from a sleep of
 * LONG_NS does not wait for its first calls: of two that wake each other all the time each would else
 * have a core, and all their calls were exits.
 */
#include "vcpu.h"

#include <stdlib.h>

#define PASSED 4
#define WOKEN 4
#define LONG_RUNS 2 /* a single one is known to have been too long for all that came before, too */

void post_event(struct ctx *c, enum exit_kind kind)
{
    if (kind < EVENT_STOPPED)
        c->kind = kind;
    if (pool.n_events < pool.events_size) /* room for all that contexts can owe, see ctx_new */
        pool.events[pool.n_events++] = (struct event){c->index, kind};
}

int has_event(const struct ctx *c)
{
    for (uint32_t i = 0; i < pool.n_events; i++)
        if (pool.events[i].index == c->index)
            return 1;
    return 0;
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

static enum class class_of(const struct ctx *c)
{
    return c->long_runs == LONG_RUNS ? COMPUTES : c->woke ? WOKE : CALLS;
}

uint32_t queued(void)
{
    return pool.queue[WOKE].n + pool.queue[CALLS].n + pool.queue[COMPUTES].n;
}

/* Of a crowd of one process that woke together few go before others at a time. */
void queue_push(struct ctx *c)
{
    if (class_of(c) == WOKE && c->account) {
        if (c->account->woken == WOKEN)
            c->woke = 0;
        else
            c->account->woken += c->woken = 1;
    }
    list_push(&pool.queue[class_of(c)], c);
}

void queue_remove(struct ctx *c)
{
    if (c->woken) {
        c->woken = 0;
        c->account->woken--;
    }
    for (enum class class = 0; class < CLASSES; class++)
        if (list_remove(&pool.queue[class], c))
            return;
    list_remove(&pool.held, c);
}

/* Its context has called, or was `sliced` for others. A run may be long because the host ran others
 * meanwhile: then what it has had of a core says whether it computes. */
void came_from_program(struct vcpu *v, uint64_t when_tsc, int sliced)
{
    struct ctx *c = v->ctx;
    int is_long = (int64_t)(when_tsc - v->started_tsc - pool.long_tsc) > 0;
    if (is_long && vcpu_ran_ns(v) >= LONG_NS / 4) {
        if (c->long_runs < LONG_RUNS)
            c->long_runs++;
    } else if (!sliced) { /* else it goes on as it was */
        c->long_runs = 0;
    }
    if (c->woke && !sliced)
        c->woke--;
}

/* It has slept. Two that talk to each other sleep in turns, for less than LONG_NS. */
void woke(struct ctx *c)
{
    if ((int64_t)(tsc_now() - c->told_tsc - pool.long_tsc) > 0)
        c->woke = WOKE_CALLS;
    else if (!c->woke)
        c->woke = 1;
}

static int computes(struct vcpu *v, uint64_t now_tsc)
{
    return class_of(v->ctx) == COMPUTES ||
           (int64_t)(now_tsc - v->started_tsc - pool.long_tsc) > 0;
}

/* Whether those that compute, and those that have just woken, are as many as there are CPUs. */
static int is_full(void)
{
    uint64_t now;
    int n = 0;
    if (pool.running < pool.cpus)
        return 0;
    now = tsc_now();
    for (uint32_t i = 0; i < pool.threads; i++) {
        struct vcpu *v = &pool.vcpu[i];
        if (v->counted && v->ctx)
            n += computes(v, now) || (v->ctx->woke && pool.passed < PASSED);
    }
    return n >= pool.cpus;
}

/* Who may go on next. A class goes before a later one, but for PASSED times in a row at most. */
struct ctx *queue_first(void)
{
    struct ctx *first = NULL;
    for (enum class class = 0; class < CLASSES; class++) {
        struct ctx *c = pool.queue[class].head;
        if (c && (!first || pool.passed >= PASSED) && (class < COMPUTES || !is_full()))
            first = c;
    }
    return first;
}

static void passes(struct ctx *c)
{
    for (enum class class = class_of(c) + 1; class < CLASSES; class++)
        if (pool.queue[class].n) {
            pool.passed++;
            return;
        }
    pool.passed = 0;
}

static void kick_for_others(struct vcpu *v)
{
    v->sliced = 1;
    vcpu_kick(v);
}

/* For one that woke, where more compute than there are CPUs: the one that has run longest goes. */
static void make_room(void)
{
    struct vcpu *longest = NULL;
    uint64_t now = tsc_now();
    for (uint32_t i = 0; i < pool.threads; i++) {
        struct vcpu *v = &pool.vcpu[i];
        if (v->counted && v->ctx && !v->sliced &&
            (int64_t)(now - v->turn_tsc - pool.long_tsc) > 0 &&
            (!longest || (int64_t)(v->turn_tsc - longest->turn_tsc) < 0))
            longest = v;
    }
    if (longest)
        kick_for_others(longest);
}

/* It is launched now, after a sleep or from a queue. */
void goes_on(struct ctx *c)
{
    if (!queued())
        return;
    passes(c);
    if (class_of(c) == WOKE && pool.queue[COMPUTES].n && is_full())
        make_room();
}

static int is_talking(struct vcpu *v, uint64_t now_tsc)
{
    return (int64_t)(now_tsc - v->busy_tsc - pool.talk_tsc) < 0;
}

/* Those that run, or may be answered next, talk and leave no core besides. */
static int others_talk(struct ctx *c, uint64_t now_tsc)
{
    int busy = 0, talking = 0;
    if (!pool.turn_tsc)
        return 0;
    for (uint32_t i = 0; i < pool.threads; i++) {
        struct vcpu *v = &pool.vcpu[i];
        if (!(pool.active[i / 64] >> i % 64 & 1) || !v->ctx || v->ctx == c)
            continue;
        int called = v->ctx->state == C_KERNEL && v->ctx->delivered == pool.turn;
        if (!called && v->ctx->state != C_RUNNING)
            continue;
        busy++;
        talking |= called || is_talking(v, now_tsc);
    }
    return talking && busy + 2 > pool.cpus;
}

static int waits_for_others(struct ctx *c, uint64_t now_tsc)
{
    int slept_long = class_of(c) == WOKE && c->woke > 1;
    int is_urgent = slept_long && pool.passed < PASSED;
    return !is_urgent && others_talk(c, now_tsc);
}

static int turn_is_over(struct vcpu *v, uint64_t now_tsc)
{
    return (int64_t)(now_tsc - v->turn_tsc - pool.turn_tsc) >= 0;
}

/* Whether a context that is to go on has to go to the queue. */
int waits_for_turn(struct ctx *c)
{
    uint64_t now = tsc_now();
    if (c->vcpu && c->delivered != pool.turn)
        c->vcpu->turn_tsc = now; /* it slept */
    else if (pool.turn_tsc && c->vcpu && turn_is_over(c->vcpu, now) && queue_first())
        return 1;
    return (class_of(c) == COMPUTES && is_full()) || waits_for_others(c, now);
}

/* A vCPU for the context: a free one, one that knows its address space first; else a victim's, at
 * last one of those that wait in the queue themselves. */
static struct vcpu *choose(struct ctx *c)
{
    struct vcpu *empty = NULL, *victim = NULL, *queued = NULL;
    for (uint32_t i = 0; i < pool.threads; i++) {
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
        } else if (v->ctx->state == C_QUEUED && v->ctx != c) {
            if (!queued || (int32_t)(v->ctx->sequence - queued->ctx->sequence) > 0)
                queued = v; /* it waits, too, and behind this one */
        }
    }
    return empty ? empty : victim ? victim : queued;
}

/* Launch those in the queue, with `turns` only those whose turn it is. */
void schedule(int turns)
{
    for (struct ctx *c; (c = queue_first());) {
        if (turns && waits_for_others(c, tsc_now()))
            return;
        if (take_over_waiting(c))
            continue;
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
        goes_on(c);
        c->state = C_KERNEL;
        v->turn_tsc = tsc_now();
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
    uint64_t again = 0, slice = pool.queue[WOKE].n ? pool.long_tsc : pool.slice_tsc;
    if (!queued())
        return 0;
    struct ctx *first = queue_first();
    for (uint32_t i = 0; i < pool.threads; i++) {
        struct vcpu *v = &pool.vcpu[i];
        if (!v->ctx)
            continue;
        /* Who calls is not in the way of those that compute. */
        int in_the_way = first || computes(v, now_tsc);
        uint64_t end = (in_the_way ? v->turn_tsc : v->started_tsc) + slice;
        uint64_t turn = v->turn_tsc + pool.turn_tsc;
        int talks = pool.turn_tsc && in_the_way && is_talking(v, now_tsc);
        /* Who calls without a pause may be seen in its mailbox each time. */
        int calls = v->ctx->state == C_KERNEL && atomic_load(&v->phase) == P_TAKEN;
        if (v->ctx->state != C_RUNNING && !(talks && calls))
            continue;
        if (talks && (int64_t)(turn - end) < 0)
            end = turn;
        if ((int64_t)(now_tsc - end) >= 0) {
            if (v->sliced)
                continue;
            kick_for_others(v);
        } else if (!again || end < again) {
            again = end;
        }
    }
    return again;
}
