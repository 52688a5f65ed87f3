/* A program's state into a vCPU and out of it. Kernel thread only.
 *
 * There are two ways in. Through the tail of the entry code: the registers go into S, and the tail
 * loads them, the bases and the FPU image; nothing else is needed if the vCPU stands there already
 * (vcpu.at_tail). Or by giving KVM the registers, for a program that is single-stepped (the tail
 * itself must not be) and where only the registers change after an exception.
 */
#include "vcpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define RFLAGS_TF 0x100ull
#define RECENT_NS 200000
/* CF PF AF ZF SF TF DF OF NT AC ID: what POPF in ring 3 may change. */
#define RFLAGS_USER 0x244dd5ull

static uint64_t user_flags(uint64_t flags)
{
    return (flags & RFLAGS_USER) | 0x202; /* IF and the bit that is always one */
}

static uint64_t canonical(uint64_t base)
{
    return (uint64_t)((int64_t)(base << 16) >> 16) == base ? base : 0;
}

/* Map this vCPU's three pages into the address space, once. Gives S, or NULL without memory. */
uint8_t *vcpu_pages(struct vcpu *v, struct aspace *as)
{
    uint64_t user = pool.ring3 ? PTE_U : 0, gpa;
    if (!as->execution)
        as->execution = calloc(1, sizeof(struct space_exec));
    struct space_exec *x = as->execution;
    if (!x)
        return NULL;
    if (x->s_gpa[v->index])
        return frame_host(x->s_gpa[v->index]);
    gpa = frame_alloc();
    if (!gpa)
        return NULL;
    if (aspace_map_special(as, v->entry_va, pool.entry_gpa, PTE_P | user) ||
        aspace_map_special(as, v->entry_va + ENTRY_PAGE_S, gpa, PTE_P | PTE_W | PTE_NX | user) ||
        aspace_map_special(as, v->entry_va + ENTRY_PAGE_DOORBELL,
                           DOORBELL_GPA + (uint64_t)v->index * PAGE_SIZE,
                           PTE_P | PTE_W | PTE_NX | user)) {
        frame_put(gpa);
        return NULL;
    }
    x->s_gpa[v->index] = gpa;
    return frame_host(gpa);
}

/* What this vCPU's thread has run; the inline one has none (account.inline_tsc counts for it). */
uint64_t vcpu_cpu_ns(struct vcpu *v)
{
    struct timespec t;
    if (v == pool.inline_vcpu)
        return 0;
    clock_gettime(v->clock, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* What its thread has run since this was asked the last time. A reading of its clock is a system
 * call. Soon after one, time itself will do for a thread that has not left KVM_RUN, as it has its
 * core there; should it have lost it for a moment, the next reading makes up for that. */
uint64_t vcpu_take_cpu_ns(struct vcpu *v)
{
    uint64_t now = tsc_now(), ns = 0;
    int inside = atomic_load(&v->phase) == P_TAKEN;
    if (inside && v->clock_tsc && now - v->clock_tsc < (uint64_t)(RECENT_NS * pool.tsc_per_ns)) {
        ns = (uint64_t)((double)(now - v->taken_cpu_tsc) / pool.tsc_per_ns);
    } else {
        uint64_t cpu_ns = vcpu_cpu_ns(v);
        ns = cpu_ns > v->taken_cpu_ns ? cpu_ns - v->taken_cpu_ns : 0;
        v->clock_tsc = inside ? now : 0;
    }
    v->taken_cpu_ns += ns;
    v->taken_cpu_tsc = now;
    return ns;
}

/* CPU time of the vCPU since this was last asked, or it got its context. */
uint64_t vcpu_ran_ns(struct vcpu *v)
{
    uint64_t now = vcpu_cpu_ns(v);
    uint64_t since = v->seen_cpu_ns > v->taken_cpu_ns ? v->seen_cpu_ns : v->taken_cpu_ns;
    v->seen_cpu_ns = now;
    return now > since ? now - since : 0;
}

/* The context is this vCPU's from now on. Preconditions: its address space is loaded. */
void vcpu_bind(struct vcpu *v, struct ctx *c)
{
    v->ctx = c;
    c->vcpu = v;
    memcpy(v->s + S_FAST, &c->fast.on, 8);
    memcpy(v->s + S_PID, &c->fast.pid, 6 * 8);
}

/* Make the context this vCPU's. 0 or -ENOMEM. */
int vcpu_load(struct vcpu *v, struct ctx *c)
{
    uint8_t *s = vcpu_pages(v, c->space);
    if (!s)
        return -ENOMEM;
    if (v->loaded != c->space)
        v->at_tail = 0;
    v->loaded = c->space;
    v->s = s;
    v->offered_budget = v->offered_yield = UINT64_MAX; /* another S: unknown */
    memset(s + S_TAIL, 0, 8); /* what stay_out left */
    memset(s + S_MORE, 0, 8);
    v->offered_more = 0;
    (void)vcpu_take_cpu_ns(v); /* nobody's */
    vcpu_bind(v, c);
    return 0;
}

/* What the guest may do by itself: spin for answers, and answer sched_yield. S is written only
 * when that changes, because the guest reads the same cache line. */
void vcpu_offer(struct vcpu *v)
{
    /* The kernel thread, this one and the others that run must all have a core. */
    int spare = pool.running - v->counted + 2 <= pool.cpus;
    int listens = pool.mailbox && spare && !atomic_load(&pool.asleep);
    uint64_t budget = listens ? pool.budget : 0;
    uint64_t yield = spare && !queued();
    if (v->offered_budget != budget)
        ((volatile uint64_t *)(v->s + S_BUDGET))[0] = v->offered_budget = budget;
    if (v->offered_yield != yield)
        ((volatile uint64_t *)(v->s + S_YIELD))[0] = v->offered_yield = yield;
    if (v->offered_more)
        ((volatile uint64_t *)(v->s + S_MORE))[0] = v->offered_more = 0;
}

void offer_more(void)
{
    for (unsigned group = 0; group < MAX_VCPUS / 64; group++)
        for (uint64_t bits = pool.active[group]; bits; bits &= bits - 1) {
            struct vcpu *v = &pool.vcpu[group * 64 + (unsigned)__builtin_ctzll(bits)];
            if (!v->s || !v->offered_budget || v->offered_more || atomic_load(&v->phase) != P_TAKEN)
                continue;
            ((volatile uint64_t *)(v->s + S_MORE))[0] = (LONGER - 1) * pool.budget;
            v->offered_more = 1;
        }
}

/* After pool.running or pool.asleep changed: a guest that spins while the core is needed stops. */
void offer_all(void)
{
    for (unsigned group = 0; group < MAX_VCPUS / 64; group++)
        for (uint64_t bits = pool.active[group]; bits; bits &= bits - 1) {
            struct vcpu *v = &pool.vcpu[group * 64 + (unsigned)__builtin_ctzll(bits)];
            if (v->s)
                vcpu_offer(v);
        }
}

/* Registers, and the image if it is not in the vCPU, into S. */
void fill_s(struct vcpu *v, struct ctx *c)
{
    uint64_t *r = (uint64_t *)(v->s + S_REGS), tail = TAIL_FLAGS | TAIL_BASES;
    memcpy(r, c->regs, (R_GS_BASE + 1) * sizeof *r);
    r[R_CS] = SEL_USER_CS;
    r[R_SS] = SEL_USER_DS;
    r[R_RFLAGS] = user_flags(c->regs[R_RFLAGS]);
    r[R_FS_BASE] = canonical(c->regs[R_FS_BASE]);
    r[R_GS_BASE] = canonical(c->regs[R_GS_BASE]);
    if (c->place == FPU_IMAGE) {
        image_copy(v->s + S_XSAVE, c->fpu);
        tail |= TAIL_FPU | pool.tiles;
        c->reloading = 1;
    }
    c->place = FPU_LIVE;
    memcpy(v->s + S_TAIL, &tail, sizeof tail);
}

static void regs_to_sync(struct vcpu *v, struct ctx *c)
{
    struct kvm_regs *k = &v->run->s.regs.regs;
    const uint64_t *r = c->regs;
    k->r15 = r[R_R15], k->r14 = r[R_R14], k->r13 = r[R_R13], k->r12 = r[R_R12];
    k->rbp = r[R_RBP], k->rbx = r[R_RBX], k->r11 = r[R_R11], k->r10 = r[R_R10];
    k->r9 = r[R_R9], k->r8 = r[R_R8], k->rax = r[R_RAX], k->rcx = r[R_RCX];
    k->rdx = r[R_RDX], k->rsi = r[R_RSI], k->rdi = r[R_RDI], k->rsp = r[R_RSP];
    k->rip = r[R_RIP];
    k->rflags = user_flags(r[R_RFLAGS]);
}

void set_word_idle(struct vcpu *v)
{
    atomic_store((_Atomic uint32_t *)(v->s + S_WORD), WORD_IDLE);
}

/* Without the guest's help, 8 us on PVM. */
static void load_image(struct vcpu *v, struct ctx *c)
{
    struct kvm_xsave image;
    memset(&image, 0, sizeof image);
    memcpy(&image, c->fpu, pool.xsave_size);
    if (ioctl(v->fd, KVM_SET_XSAVE, &image) < 0)
        abort(); /* clean_image let something through; another program's registers are in there */
    c->place = FPU_LIVE;
}

/* An exception that KVM has not delivered yet belongs to the registers that are replaced. */
void vcpu_forget_events(struct vcpu *v)
{
    memset(&v->run->s.regs.events, 0, sizeof v->run->s.regs.events);
    v->run->kvm_dirty_regs |= KVM_SYNC_X86_EVENTS;
}

/* The thread is out of KVM_RUN: set the vCPU up to go on with the context's registers. */
void vcpu_prepare(struct vcpu *v, struct ctx *c)
{
    struct kvm_run *run = v->run;
    int step = pool.ring3 && (c->regs[R_RFLAGS] & RFLAGS_TF);
    set_word_idle(v);
    /* A sibling of this program may write to S and keep the tail from loading the image: then what
     * is in the registers must at least be of the same process. */
    if (pool.ring3 && c->place == FPU_IMAGE && v->fpu_space != c->space) {
        load_image(v, c);
        c->place = FPU_IMAGE; /* the tail clears what KVM has left: PKRU, AMX */
    }
    v->fpu_space = c->space;
    if (v->at_tail && !step) {
        fill_s(v, c);
        return;
    }
    vcpu_forget_events(v);
    struct kvm_sregs *sregs = &run->s.regs.sregs;
    *sregs = v->user;
    sregs->cr3 = v->loaded->root;
    sregs->fs.base = canonical(c->regs[R_FS_BASE]);
    sregs->gs.base = canonical(c->regs[R_GS_BASE]);
    if (c->place == FPU_IMAGE && !step) {
        fill_s(v, c);
        run->s.regs.regs.rip = v->entry_va + pool.at.tail;
        run->s.regs.regs.rflags = 0x2;
        run->s.regs.regs.rsp = 0;
        if (pool.ring3) {
            run->s.regs.regs.rflags = 0x202;
        } else {
            sregs->cs.selector = SEL_KERNEL_CS;
            sregs->cs.dpl = sregs->ss.dpl = 0;
            sregs->ss.selector = SEL_KERNEL_DS;
        }
    } else {
        if (c->place == FPU_IMAGE)
            load_image(v, c);
        regs_to_sync(v, c);
    }
    run->kvm_dirty_regs |= KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
}

/* For how long its thread looks for work after the next exit. Others that look now need not use
 * the core that is wanted. */
static void give_patience(struct vcpu *v)
{
    atomic_store(&v->patience, pool.running < pool.cpus ? pool.spin_tsc : 0);
    for (uint32_t i = 0; pool.running + 1 >= pool.cpus && i < pool.threads; i++)
        if (!pool.vcpu[i].counted)
            atomic_store(&pool.vcpu[i].patience, 0);
}

/* Go on with all of the context's registers; the phase is FREE or OUT. */
void vcpu_launch(struct vcpu *v, struct ctx *c)
{
    vcpu_prepare(v, c);
    v->at_tail = 0;
    v->sliced = 0;
    v->draining = 0;
    v->started_tsc = tsc_now();
    v->busy_tsc = v->started_tsc + pool.enter_tsc;
    c->state = C_RUNNING;
    c->forward = 0;
    if (!v->inside) {
        v->inside = 1;
        v->loaded->inside++;
    }
    running_add(v);
    vcpu_offer(v);
    offer_all();
    atomic_store(&v->tell_out, 0);
    atomic_store(&v->kick, 0); /* it came while the last run ended by itself */
    give_patience(v);
    pool.active[v->index / 64] |= 1ull << v->index % 64;
    atomic_store(&v->phase, P_RUN);
    vcpu_go(v);
}

/* Take the program's state out of a vCPU that is outside the program. */
void vcpu_part(struct vcpu *v)
{
    struct ctx *c = v->ctx;
    if (c->place == FPU_SAVED) {
        /* SAFETY: the bytes are hostile; XRSTOR would refuse what is cleared. */
        image_copy(c->fpu, v->s + S_XSAVE);
    } else if (c->place == FPU_LIVE) {
        struct kvm_xsave image;
        if (!ioctl(v->fd, KVM_GET_XSAVE, &image))
            image_copy(c->fpu, (const uint8_t *)&image);
    }
    c->place = FPU_IMAGE;
    ctx_ran(c, &(struct account){.cpu_ns = vcpu_take_cpu_ns(v)});
    c->vcpu = NULL;
    v->ctx = NULL;
    pool.stat_switches++;
}

/* The same for one that is FREE or OUT, and is to be FREE. */
void vcpu_evict(struct vcpu *v)
{
    vcpu_part(v);
    v->at_tail = 0;
    atomic_store(&v->phase, P_FREE);
}
