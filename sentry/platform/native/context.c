/* Contexts: what the kernel does with one task's registers. Kernel thread only. */
#include "vcpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define RFLAGS_TF 0x100ull
#define MXCSR_BITS 0xffffu

static void init_image(uint8_t *image)
{
    uint16_t fcw = 0x37f;
    uint32_t mxcsr = 0x1f80;
    memset(image, 0, pool.xsave_size);
    memcpy(image, &fcw, sizeof fcw);
    memcpy(image + XSAVE_MXCSR, &mxcsr, sizeof mxcsr);
}

/* What XRSTOR would refuse is cleared: the image may come from the program. */
static void clean_image(uint8_t *image)
{
    uint64_t bv;
    uint32_t mxcsr;
    memcpy(&bv, image + XSAVE_BV, sizeof bv);
    bv &= pool.xfeatures;
    memset(image + XSAVE_BV, 0, XSAVE_HEADER);
    memcpy(image + XSAVE_BV, &bv, sizeof bv);
    memcpy(&mxcsr, image + XSAVE_MXCSR, sizeof mxcsr);
    mxcsr &= MXCSR_BITS;
    memcpy(image + XSAVE_MXCSR, &mxcsr, sizeof mxcsr);
}

/* Bytes of an image that mean something: components in their initial state have none. */
static size_t image_used(const uint8_t *image)
{
    uint64_t bv;
    size_t used = XSAVE_BV + XSAVE_HEADER;
    memcpy(&bv, image + XSAVE_BV, sizeof bv);
    for (bv &= pool.xfeatures & ~3ull; bv; bv &= bv - 1) {
        size_t end = pool.xsave_ends[__builtin_ctzll(bv)];
        used = end > used ? end : used;
    }
    return used;
}

/* A clean copy of an image that may be hostile and change meanwhile; what lies behind the returned
 * size stays as it was. A thread that leaves AVX alone has 600 bytes, not 2,400, and they come from
 * another CPU's cache. */
size_t image_copy(uint8_t *to, const uint8_t *from)
{
    memcpy(to, from, XSAVE_BV + XSAVE_HEADER);
    clean_image(to);
    size_t used = image_used(to);
    memcpy(to + XSAVE_BV + XSAVE_HEADER, from + XSAVE_BV + XSAVE_HEADER,
           used - XSAVE_BV - XSAVE_HEADER);
    return used;
}

static int reserve(uint32_t contexts)
{
    if (contexts <= pool.ctxs_size)
        return 0;
    uint32_t size = pool.ctxs_size ? pool.ctxs_size * 2 : 64;
    struct ctx **ctxs = realloc(pool.ctxs, size * sizeof *ctxs);
    if (!ctxs)
        return -1;
    memset(ctxs + pool.ctxs_size, 0, (size - pool.ctxs_size) * sizeof *ctxs);
    pool.ctxs = ctxs;
    /* A context owes at most an exit and a stop; the lists never run over. */
    struct event *events = realloc(pool.events, 2 * size * sizeof *events);
    if (!events)
        return -1;
    pool.events = events;
    events = realloc(pool.told, 2 * size * sizeof *events);
    if (!events)
        return -1;
    pool.told = events;
    pool.events_size = 2 * size;
    pool.ctxs_size = size;
    return 0;
}

struct ctx *ctx_new(struct aspace *space)
{
    uint32_t index = pool.ctxs_full;
    while (index < pool.ctxs_size && pool.ctxs[index])
        index++;
    pool.ctxs_full = index;
    if (reserve(index + 1))
        return NULL;
    struct ctx *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->fpu = aligned_alloc(64, (pool.xsave_size + 63) & ~63ull);
    if (!c->fpu) {
        free(c);
        return NULL;
    }
    init_image(c->fpu);
    c->space = space;
    c->index = index;
    c->regs[R_CS] = SEL_USER_CS;
    c->regs[R_SS] = SEL_USER_DS;
    c->regs[R_RFLAGS] = 0x202;
    pool.ctxs[index] = c;
    return c;
}

/* On its vCPU, on one of a sibling that blocks, when others have had their turn, or when the kernel
 * thread waits next, on the kernel thread's. */
static void go_on(struct ctx *c)
{
    int wait = inline_wanted();
    int slept = c->delivered != pool.turn;
    if (slept)
        woke(c);
    if (hold(c))
        return;
    int turns = waits_for_turn(c);
    if (c->vcpu && c->vcpu != pool.inline_vcpu && !wait && !turns) {
        if (slept)
            goes_on(c);
        vcpu_launch(c->vcpu, c);
        return;
    }
    queue_push(c);
    if (!wait)
        schedule(1);
}

/* The vCPU is out although its request was taken in the mailbox. 1: its program can go on. */
static int take_back(struct vcpu *v, struct ctx *c)
{
    int violation = v->violation && !v->leaving; /* else not this program's */
    c->state = C_KERNEL;
    came_out(v);
    if (violation) { /* the program forged a request while it ran on: it is of no use any more */
        post_event(c, EXIT_BROKEN);
        return 0;
    }
    if (c->reloading) /* what was asked of the tail in S is asked once more */
        c->place = FPU_IMAGE;
    return 1;
}

/* The context has spun since its request was taken. If that is longer than it can spin, its thread
 * had no core for most of it: what it did not use must not be taken from its CPU time. */
void count_spin(struct vcpu *v, struct ctx *c, uint64_t now_tsc)
{
    uint64_t spun = now_tsc - v->taken_tsc;
    if (spun < pool.longest_spin_tsc * (v->offered_more ? LONGER : 1))
        ctx_ran(c, &(struct account){.spin_tsc = spun});
}

/* The guest waits in its mailbox, in the page `s`, or is about to ring: let it go on. 1: its vCPU has
 * come out; it goes on when it is launched. */
int release_taken(struct vcpu *v, struct ctx *c, uint8_t *s)
{
    uint32_t request = WORD_REQUEST, phase = P_TAKEN;
    uint64_t now = tsc_now();
    c->state = C_RUNNING;
    count_spin(v, c, now);
    v->started_tsc = now;
    v->busy_tsc = now;
    running_add(v);
    offer_all();
    /* The phase first: as soon as the word says so the guest may go on and make an exit, which
     * must not look like one during a request. */
    if (!atomic_compare_exchange_strong(&v->phase, &phase, P_RUN))
        return take_back(v, c);
    if (atomic_compare_exchange_strong((_Atomic uint32_t *)(s + S_WORD), &request, WORD_IDLE))
        return 0;
    /* Too late: it rings, or has rung, for the request that has just been answered. */
    phase = P_RUN;
    if (atomic_compare_exchange_strong(&v->phase, &phase, P_DUE))
        return 0;
    if (v->exit_door) {
        atomic_store(&v->phase, P_OUT);
        return take_back(v, c);
    }
    v->was_due = 1; /* kicked on its way to the doorbell: the sweep sees an interruption */
    return 0;
}

void ctx_resume(struct ctx *c)
{
    struct vcpu *v = c->vcpu;
    if (c->state != C_KERNEL)
        return;
    if (c->kicked) {
        c->kicked = 0;
        post_event(c, EXIT_INTERRUPTED);
        return;
    }
    if (c->regs[R_RIP] >= TASK_SIZE) { /* nothing there is the program's, or even canonical */
        c->fault_addr = c->regs[R_RIP];
        c->error_code = 0x14; /* user, instruction fetch */
        c->vector = 14;
        post_event(c, EXIT_FAULT);
        return;
    }
    if (!v) {
        go_on(c);
        return;
    }
    uint32_t phase = atomic_load(&v->phase);
    if (phase == P_TAKEN && pool.ring3 && (c->regs[R_RFLAGS] & RFLAGS_TF)) {
        c->state = C_RUNNING;
        c->forward = 1;
        atomic_store(&v->tell_out, 1);
        vcpu_kick(v);
        return;
    }
    if (phase == P_TAKEN) {
        fill_s(v, c);
        if (release_taken(v, c, v->s))
            go_on(c);
        return;
    }
    if (phase != P_OUT || take_back(v, c))
        go_on(c);
}

void ctx_answer(struct ctx *c, int64_t value)
{
    struct vcpu *v = c->vcpu;
    c->regs[R_RAX] = (uint64_t)value;
    if (!v || c->state != C_KERNEL || c->kicked || c->place != FPU_SAVED ||
        (c->regs[R_RFLAGS] & RFLAGS_TF) || atomic_load(&v->phase) != P_TAKEN) {
        ctx_resume(c);
        return;
    }
    memcpy(v->s + S_REGS + 8 * R_RAX, &value, sizeof value); /* the tail left S_TAIL 0 */
    c->place = FPU_LIVE;
    if (release_taken(v, c, v->s))
        go_on(c);
}

void ctx_kick(struct ctx *c)
{
    if (c->state == C_QUEUED) {
        queue_remove(c);
        c->state = C_KERNEL;
        post_event(c, EXIT_INTERRUPTED);
        return;
    }
    c->kicked = 1;
    if (c->state == C_RUNNING && !c->forward)
        vcpu_kick(c->vcpu);
}

/* 1: the vCPU is outside KVM_RUN already, or there is none; 0: EVENT_STOPPED follows, after an exit
 * that has not been told yet. */
int ctx_stop(struct ctx *c)
{
    struct vcpu *v = c->vcpu;
    if (c->state == C_QUEUED) {
        ctx_kick(c);
        return 1;
    }
    if (c->state == C_KERNEL && has_event(c)) {
        post_event(c, EVENT_STOPPED);
        return 0;
    }
    if (!v)
        return 1;
    uint32_t phase = atomic_load(&v->phase);
    if (c->state == C_KERNEL && (phase == P_FREE || phase == P_OUT)) {
        if (phase == P_OUT)
            came_out(v);
        return 1;
    }
    c->stopping = 1;
    if (c->state == C_RUNNING)
        c->kicked = 1;
    atomic_store(&v->tell_out, 1);
    vcpu_kick(v);
    return 0;
}

/* Part from the vCPU whatever it does; the context's registers and image are its state. */
static void detach(struct ctx *c)
{
    struct vcpu *v = c->vcpu;
    if (!v)
        return;
    uint32_t phase = atomic_load(&v->phase);
    if (phase == P_OUT)
        came_out(v);
    if (phase == P_FREE || phase == P_OUT) {
        vcpu_evict(v);
        return;
    }
    if (c->place == FPU_SAVED) {
        image_copy(c->fpu, v->s + S_XSAVE);
        c->place = FPU_IMAGE;
    }
    ctx_ran(c, &(struct account){.cpu_ns = vcpu_take_cpu_ns(v)});
    c->vcpu = NULL;
    c->forward = 0;
    v->ctx = NULL;
    v->draining = 1;
    atomic_store(&v->tell_out, 1);
    if (phase != P_TAKEN) /* it spins for an answer: a sibling may have it, else it will ring */
        vcpu_kick(v);
}

/* Another address space (exec). Preconditions: after an exit. */
void ctx_bind(struct ctx *c, struct aspace *space)
{
    detach(c);
    c->space = space;
    spaces_release();
}

/* Preconditions: after an exit. 0 or -errno. */
int ctx_get_fpu(struct ctx *c, uint8_t *image)
{
    size_t used;
    if (c->place == FPU_SAVED) {
        used = image_copy(image, c->vcpu->s + S_XSAVE);
    } else if (c->place == FPU_LIVE) {
        struct kvm_xsave state;
        if (!c->vcpu || ioctl(c->vcpu->fd, KVM_GET_XSAVE, &state))
            return -EIO;
        used = image_copy(image, (const uint8_t *)&state);
    } else {
        used = image_copy(image, c->fpu);
    }
    memset(image + used, 0, pool.xsave_size - used);
    return 0;
}

void ctx_set_fpu(struct ctx *c, const uint8_t *image)
{
    image_copy(c->fpu, image);
    c->place = FPU_IMAGE;
}

int ctx_copy(struct ctx *to, struct ctx *from)
{
    detach(to);
    int error = ctx_get_fpu(from, to->fpu);
    if (error)
        return error;
    memcpy(to->regs, from->regs, sizeof to->regs);
    to->place = FPU_IMAGE;
    return 0;
}

/* More than the largest frame: 440 bytes, two gaps of less than 64, an image of a page at most. */
static _Alignas(64) uint8_t scratch[2 * PAGE_SIZE];

/* Write the frame of a handler that begins (sigframe.h), and go on there with the initial FPU state.
 * 0: the memory is not there, or cannot be written; registers and FPU state have not changed.
 * Preconditions: after an exit; fp_at - at is at least 440. 1, 0 or -errno. */
int ctx_push_frame(struct ctx *c, const struct sigframe *frame, struct fault *fault)
{
    uint64_t total = frame->fp_at - frame->at + pool.xsave_size + 4;
    uint8_t *image = scratch + (frame->fp_at - frame->at);
    if (total > sizeof scratch || ctx_get_fpu(c, image))
        return -EIO;
    sigframe_make(scratch, frame, c->regs, image, pool.xsave_size);
    if (user_write(c->space, frame->at, scratch, total, fault) != (int64_t)total)
        return 0;
    sigframe_enter(c->regs, frame);
    init_image(c->fpu);
    c->place = FPU_IMAGE;
    return 1;
}

/* Take registers and FPU state from an ordinary frame: sigframe_read(). */
int ctx_pop_frame(struct ctx *c, uint64_t at, uint64_t taken_flags, struct sigframe_rest *rest,
                  struct fault *fault)
{
    if (!sigframe_read(c->space, at, c->regs, taken_flags, scratch, pool.xsave_size,
                       pool.xfeatures, rest, fault))
        return 0;
    ctx_set_fpu(c, scratch);
    return 1;
}

void ctx_set_fast(struct ctx *c, const struct fast_answers *answers)
{
    c->fast = *answers;
    if (c->vcpu) {
        memcpy(c->vcpu->s + S_PID, &c->fast.pid, 6 * 8);
        memcpy(c->vcpu->s + S_FAST, &c->fast.on, 8);
    }
}

static void add(struct account *a, const struct account *more)
{
    a->cpu_ns += more->cpu_ns;
    a->spin_tsc += more->spin_tsc;
    a->inline_tsc += more->inline_tsc;
}

void ctx_ran(struct ctx *c, const struct account *more)
{
    add(&c->own, more);
    if (c->account)
        add(c->account, more);
}

void ctx_charge(struct ctx *c, struct account *to)
{
    c->account = to;
}

/* What a bound vCPU has run that is not in the account yet. */
static uint64_t running_ns(struct vcpu *v)
{
    uint64_t now_ns = vcpu_cpu_ns(v), taken_ns = v->taken_cpu_ns;
    return now_ns > taken_ns ? now_ns - taken_ns : 0;
}

static uint64_t less_spin(const struct account *a, uint64_t running)
{
    uint64_t total = a->cpu_ns + running, spin;
    total += (uint64_t)((double)a->inline_tsc / pool.tsc_per_ns);
    spin = (uint64_t)((double)a->spin_tsc / pool.tsc_per_ns);
    return total > spin ? total - spin : 0;
}

uint64_t ctx_cpu_ns(struct ctx *c)
{
    return less_spin(&c->own, c->vcpu ? running_ns(c->vcpu) : 0);
}

uint64_t account_cpu_ns(const struct account *a)
{
    uint64_t running = 0;
    for (uint32_t i = 0; i < pool.vcpus; i++) {
        struct vcpu *v = &pool.vcpu[i];
        if (v->ctx && v->ctx->account == a)
            running += running_ns(v);
    }
    return less_spin(a, running);
}

void ctx_destroy(struct ctx *c)
{
    if (c->state == C_QUEUED)
        queue_remove(c);
    drop_events(c);
    detach(c);
    pool.ctxs[c->index] = NULL;
    if (c->index < pool.ctxs_full)
        pool.ctxs_full = c->index;
    free(c->fpu);
    free(c);
    spaces_release();
}
