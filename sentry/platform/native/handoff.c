/* A vCPU that waits in its mailbox goes on with another context.
 *
 * A switch between two threads of a program then costs an answer: no exit, no other host thread.
 * The guest spins for the answer to one context's call; it gets another one's registers, bases and
 * FPU image through the tail of the entry code. All of that lies in S, which belongs to this
 * address space alone, so nothing of another process can come along.
 *
 * For a context of another address space the answer sends the vCPU to the trap in exceptions.S,
 * which loads the root that the host has written to the exception stack, and goes on in the tail
 * there. `vcpu.leaving` is the old address space as long as the vCPU may still be in it: until the
 * trap has taken that root away. Whatever happens before, the new context has not run, and a program
 * that keeps its vCPU from the trap only loses it (vacant_due).
 *
 * A context that is woken is held back for a moment if a sibling is in the kernel or has just come
 * from there: whoever wakes another one often waits next. If it computes instead, the held context
 * gets a vCPU of its own when the time is up, and after some vain attempts the address space is
 * trusted no more, but for a trial now and then. Kernel thread only.
 */
#include "vcpu.h"

#include <string.h>

#define HOPES_NEW 4
#define HOPES_MAX 8
#define BACKOFF_MIN 8
#define BACKOFF_MAX 512

#define RFLAGS_TF 0x100ull

/* The next of the vCPUs after `v` (NULL: the first) that are in KVM_RUN with this address space. */
static struct vcpu *next_inside(struct vcpu *v, struct aspace *space)
{
    for (uint32_t i = v ? v->index + 1 : 0; i < pool.threads; i++)
        if (pool.active[i / 64] >> i % 64 & 1 && pool.vcpu[i].loaded == space)
            return &pool.vcpu[i];
    return NULL;
}

/* Spins for an answer, which nobody is about to give. */
static int is_waiting(struct vcpu *v)
{
    if (atomic_load(&v->phase) != P_TAKEN || !has_arrived(v) ||
        *(volatile uint32_t *)(v->s + S_WORD) != WORD_REQUEST)
        return 0;
    return v->ctx ? v->ctx->state == C_KERNEL && !v->ctx->stopping : v->draining;
}

/* Running, for no longer than `window_tsc` since its last answer, or already about to call. */
static int may_wait_soon(struct vcpu *v, uint64_t now_tsc, uint64_t window_tsc)
{
    if (atomic_load(&v->phase) == P_TAKEN)
        return !v->ctx || v->ctx->state == C_KERNEL;
    return v->ctx && v->ctx->state == C_RUNNING &&
           ((int64_t)(now_tsc - v->busy_tsc - window_tsc) < 0 ||
            *(volatile uint32_t *)(v->s + S_WORD) != WORD_IDLE);
}

static int any_may_wait(struct ctx *c, uint64_t now_tsc)
{
    for (struct vcpu *v = NULL; (v = next_inside(v, c->space));)
        if (may_wait_soon(v, now_tsc, c->window_tsc))
            return 1;
    return 0;
}

static int trusted(struct trust *t)
{
    if (t->hopes)
        return 1;
    if (t->wait) {
        t->wait--;
        return 0;
    }
    t->hopes = t->backoff ? 1 : HOPES_NEW; /* a trial; or the first time */
    return 1;
}

static void approved(struct trust *t)
{
    t->hopes = t->hopes < HOPES_NEW ? HOPES_NEW : t->hopes < HOPES_MAX ? t->hopes + 1 : t->hopes;
    t->backoff = BACKOFF_MIN;
}

static void disappointed(struct trust *t)
{
    if (!t->hopes || --t->hopes)
        return;
    t->backoff = !t->backoff ? BACKOFF_MIN : t->backoff < BACKOFF_MAX ? t->backoff * 2 : t->backoff;
    t->wait = t->backoff;
}

/* Instead of a vCPU of its own. 1: it waits in pool.held. */
int hold(struct ctx *c)
{
    uint64_t now = tsc_now();
    struct space_exec *x = c->space->execution;
    if (!x || !pool.mailbox || (pool.ring3 && (c->regs[R_RFLAGS] & RFLAGS_TF)))
        return 0;
    c->reason = c->delivered == pool.turn ? CALLED : WOKEN;
    if (c->reason == CALLED && !(c->kind == EXIT_SYSCALL && c->vcpu && c->vcpu->exit_door))
        return 0;
    struct trust *t = &x->trust[c->reason];
    c->window_tsc = t->hopes == HOPES_MAX ? 4 * pool.hold_tsc : pool.hold_tsc;
    c->hold_tsc = now + c->window_tsc + pool.enter_tsc;
    if (!any_may_wait(c, now) || !trusted(t))
        return 0;
    list_push(&pool.held, c);
    return 1;
}

/* Neither the vCPU nor the context belongs to another one any more. */
static void part_both(struct vcpu *v, struct ctx *c)
{
    uint64_t now = tsc_now();
    if (c->vcpu)
        vcpu_evict(c->vcpu);
    if (v->ctx) {
        count_spin(v, v->ctx, now);
        vcpu_part(v);
    }
    v->taken_tsc = now;
    v->draining = 0;
    v->sliced = 0;
    atomic_store(&v->tell_out, 0);
    c->state = C_KERNEL;
}

static void hand_over(struct vcpu *v, struct ctx *c)
{
    part_both(v, c);
    vcpu_bind(v, c);
    fill_s(v, c);
    pool.stat_handoffs++;
    if (release_taken(v, c, v->s))
        queue_push(c); /* not held back once more: the kernel thread may be about to sleep */
}

static volatile uint64_t *switch_root(struct vcpu *v)
{
    return (volatile uint64_t *)(v->stack + SWITCH_ROOT);
}

/* Whether the vCPU is in the address space that it was given. */
int has_arrived(struct vcpu *v)
{
    if (!v->leaving)
        return 1;
    if (*switch_root(v))
        return 0;
    v->leaving = NULL;
    v->fpu_space = v->loaded;
    spaces_release();
    return 1;
}

/* It has come out before it arrived, or before the tail; the next launch takes it there. */
void stay_out(struct vcpu *v)
{
    *switch_root(v) = 0;
    v->leaving = NULL;
    v->fpu_space = NULL;
    v->at_tail = 0;
    spaces_release();
}

/* Instead of the program's, which is kept in its context. */
static void clear_image(uint8_t *image)
{
    uint32_t mxcsr = 0x1f80;
    memset(image + XSAVE_BV, 0, XSAVE_HEADER);
    memcpy(image + XSAVE_MXCSR, &mxcsr, sizeof mxcsr);
}

/* Preconditions: this vCPU's pages are mapped in the context's address space. */
static void cross_over(struct vcpu *v, struct ctx *c)
{
    uint64_t tail = TAIL_LEAVE | pool.tiles;
    struct aspace *from = v->loaded;
    uint8_t *left = v->s;
    part_both(v, c);
    clear_image(left + S_XSAVE);
    memcpy(left + S_TAIL, &tail, sizeof tail);
    from->inside--;
    c->space->inside++;
    (void)vcpu_load(v, c);
    v->turn_tsc = v->taken_tsc;
    set_word_idle(v);
    fill_s(v, c);
    v->leaving = from;
    v->fpu_space = NULL;
    *switch_root(v) = c->space->root;
    pool.stat_crossings++;
    if (release_taken(v, c, left))
        queue_push(c);
}

/* Instead of a vCPU that is out, where no core is left for that one: whoever waits in its mailbox
 * has to give up its core anyway. 1: it goes on. */
int take_over_waiting(struct ctx *c)
{
    struct vcpu *v = NULL;
    int busy = pool.running;
    if (!pool.mailbox || (pool.ring3 && (c->regs[R_RFLAGS] & RFLAGS_TF)) ||
        (c->vcpu && c->place == FPU_LIVE))
        return 0;
    for (uint32_t i = 0; i < pool.threads; i++) {
        struct vcpu *w = &pool.vcpu[i];
        if (!(pool.active[i / 64] >> i % 64 & 1) || !is_waiting(w) ||
            (w->ctx && w->ctx->delivered == pool.turn))
            continue;
        busy++;
        if (!v || w->loaded == c->space)
            v = w;
    }
    if (!v || busy + 2 <= pool.cpus || !vcpu_pages(v, c->space))
        return 0;
    queue_remove(c);
    if (v->loaded == c->space)
        hand_over(v, c);
    else
        cross_over(v, c);
    return 1;
}

/* With `switching` 0 only those whose time is up get on: the kernel is about to answer somebody, and
 * has not said whom. */
void hand_over_held(uint64_t now_tsc, int switching)
{
    for (struct ctx *c = pool.held.head, *next; c; c = next) {
        struct space_exec *x = c->space->execution;
        struct vcpu *v = NULL;
        next = c->next;
        while (switching && (v = next_inside(v, c->space)) && !is_waiting(v))
            ;
        if (v) {
            list_remove(&pool.held, c);
            approved(&x->trust[c->reason]);
            hand_over(v, c);
        } else if ((int64_t)(now_tsc - c->hold_tsc) >= 0 || !any_may_wait(c, now_tsc)) {
            list_remove(&pool.held, c);
            if (next_inside(NULL, c->space)) /* it computes */
                disappointed(&x->trust[c->reason]);
            queue_push(c);
        }
    }
}

/* The kernel thread is about to sleep. */
void let_go_of_held(void)
{
    for (struct ctx *c; (c = pool.held.head);) {
        list_remove(&pool.held, c);
        queue_push(c);
    }
}

/* A vCPU that nobody has any more rings by itself, and one that was sent to another address space
 * gets there, unless their program has meddled with S. */
uint64_t vacant_due(uint64_t now_tsc)
{
    uint64_t again = 0;
    for (uint32_t i = 0; i < pool.threads; i++) {
        struct vcpu *v = &pool.vcpu[i];
        int late = !has_arrived(v) || (v->draining && atomic_load(&v->phase) == P_TAKEN);
        if (!late || atomic_load(&v->kick))
            continue;
        uint64_t due = v->taken_tsc + pool.slice_tsc;
        if ((int64_t)(now_tsc - due) >= 0)
            vcpu_kick(v);
        else if (!again || due < again)
            again = due;
    }
    return again;
}
