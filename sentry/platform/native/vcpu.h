/* The execution half of the platform: contexts, vCPU threads, and the wait of the kernel thread.
 *
 * Two kinds of thread. The kernel thread (Python) calls everything declared below. A vCPU thread
 * (vcpu.c) does nothing but KVM_RUN: it and the kernel thread meet in `vcpu.phase` only, and
 * whoever the phase says owns `kvm_run` may touch it.
 *
 *            kernel                     vCPU thread
 *   FREE ---------------> RUN           sleeps in FREE, EXIT and OUT; is in KVM_RUN otherwise
 *   RUN  -----------------------> EXIT  an exit; the kernel reads kvm_run, then FREE or RUN
 *   RUN  ---------------> TAKEN         the kernel took a request out of the mailbox
 *   TAKEN --------------> RUN           answered in time: the spinning guest sees it
 *   TAKEN ----------------------> OUT   the guest gave up spinning and rang, or was kicked
 *   OUT  ---------------> RUN           answered
 *   TAKEN --------------> DUE           answered, but the guest is about to ring: one doorbell
 *   DUE  -----------------------> RUN   to swallow
 *
 * The answer in TAKEN may be another context's registers (handoff.c).
 *
 * The program may write S (always so on PVM), so S never says whether a request is outstanding:
 * the phase does. S.word is a hint to look and the guest's signal to go on.
 */
#ifndef SENTRY_VCPU_H
#define SENTRY_VCPU_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "context_common.h"
#include "execution_api.h"
#include "layout.h"
#include "memory.h"
#include "sigframe.h"

#ifndef KVM_EXIT_MEMORY_FAULT /* headers before Linux 6.8, as Debian 12 has them */
#define KVM_EXIT_MEMORY_FAULT 39
#endif

enum phase { P_FREE, P_RUN, P_TAKEN, P_DUE, P_EXIT, P_OUT, P_CLOSED };

/* Values of ExitKind in sentry/platform/interface.py, then what only kvm.py sees. */
enum ctx_state {
    C_KERNEL,  /* the kernel has it: after an exit, or new */
    C_RUNNING, /* on a vCPU */
    C_QUEUED,  /* wants a vCPU */
    C_DEAD,
};

/* Where the program's FPU state is. */
enum fpu_place {
    FPU_IMAGE, /* ctx.fpu only: has to be loaded before the program goes on */
    FPU_LIVE,  /* in the registers of ctx.vcpu */
    FPU_SAVED, /* in the registers and, saved by the entry code, in S */
};

/* Who waits in which of the queues. */
enum class { WOKE, CALLS, COMPUTES, CLASSES };

/* Why a context is held back: it was woken, or its call (that exited) has been answered. */
enum reason { WOKEN, CALLED, REASONS };

#define WOKE_CALLS 9
#define LONGER 3 /* times as long a guest spins for what is waited for in place */
#define LONG_NS 1000000 /* who runs that long without the kernel computes; who sleeps less talks */
#define DEADLINE_KEY (UINT64_MAX - 1) /* epoll data of the inline deadline */

#define XSAVE_BV 512 /* offset of the header in an image, SDM volume 1 section 13.4.2 */
#define XSAVE_HEADER 64
#define XSAVE_MXCSR 24

struct vcpu;

struct ctx {
    uint64_t regs[NUM_REGS];
    /* Details of the last exit. */
    uint64_t kind, fault_addr, error_code, vector;
    struct aspace *space;
    struct vcpu *vcpu; /* bound: its registers or its S hold our state */
    uint8_t *fpu;      /* image, 64-byte aligned */
    enum ctx_state state;
    enum fpu_place place;
    uint32_t index;
    uint32_t sequence;  /* of the exit, for the choice of a victim */
    uint8_t kicked;     /* the next resume gives INTERRUPTED */
    uint8_t stopping;   /* EVENT_STOPPED is owed */
    uint8_t forward;    /* to be resumed as soon as the vCPU is out of KVM_RUN */
    uint8_t reloading;  /* the tail was asked to load ctx.fpu */
    uint32_t delivered; /* pool.turn in which its last exit was reported, */
    uint64_t told_tsc;  /* and when */
    uint64_t hold_tsc;  /* in pool.held: until when, */
    uint64_t window_tsc; /* how long it hopes for one that runs, */
    enum reason reason; /* and why */
    struct fast_answers fast;
    struct account own;
    struct account *account; /* its process's, or NULL */
    struct ctx *next;   /* in one of pool.queue, or in pool.held */
    uint8_t woken;      /* it waits in pool.queue[WOKE] */
    uint8_t woke;       /* it slept, and may make so many calls before it is one that calls; more
                         * than one after a sleep of LONG_NS */
    uint8_t long_runs;  /* in a row, up to COMPUTES: without the kernel */
};

struct ctx_list {
    struct ctx *head, *tail;
    uint32_t n;
};

/* Whether holding contexts back pays: see handoff.c. */
struct trust {
    uint32_t hopes;   /* how often yet, whatever comes of it; 0: not now */
    uint32_t wait;    /* chances to let pass before the next trial */
    uint32_t backoff; /* how many those were the last time */
};

struct space_exec { /* aspace.execution */
    uint64_t s_gpa[MAX_VCPUS];
    struct trust trust[REASONS];
};

struct vcpu {
    /* Shared by the two threads. */
    _Atomic uint32_t phase;
    _Atomic uint32_t kick;       /* the next return from KVM_RUN counts, whatever it is */
    _Atomic uint32_t tell_out;   /* the kernel wants to hear of OUT */
    _Atomic uint32_t sleeping;   /* the thread waits (or is about to) for phase to change */
    _Atomic uint64_t patience;   /* TSC ticks to look at phase before it sleeps */
    int exit_errno;              /* of KVM_RUN, 0 if it succeeded; with the rest while EXIT or OUT */
    uint32_t exit_reason;
    uint8_t exit_door; /* it was this vCPU's doorbell */
    uint8_t violation; /* something else than doorbell or kick while a request was taken */
    uint8_t was_due;   /* the exit came where a doorbell was due */
    uint64_t exit_tsc; /* when, */
    int exit_cpu;      /* and on which CPU */
    /* Fixed. */
    int fd;
    uint32_t index;
    struct kvm_run *run;
    struct kvm_sregs user; /* in ring 3 of an empty address space */
    uint8_t *stack;        /* exception stack */
    uint64_t entry_va;
    pthread_t thread;
    _Atomic pid_t tid;
    /* The kernel thread's. */
    struct ctx *ctx;
    struct aspace *loaded; /* CR3 */
    struct aspace *leaving; /* CR3 may be this one's yet: see handoff.c */
    struct aspace *fpu_space; /* whose data is in the FPU registers; NULL: nobody's that lives */
    uint8_t *s;            /* S of (loaded, this vCPU) */
    uint64_t offered_budget, offered_yield; /* what S says, as far as we wrote it */
    uint8_t offered_more; /* S_MORE may not be 0 */
    uint64_t started_tsc;
    uint64_t busy_tsc; /* since when at the latest it runs the program */
    uint64_t taken_tsc;
    uint64_t turn_tsc; /* when its turn began: see schedule.c */
    uint64_t taken_cpu_ns;  /* see vcpu_take_cpu_ns: so far, */
    uint64_t taken_cpu_tsc; /* until when, */
    uint64_t clock_tsc;     /* and when by the clock the last time; 0: it has left KVM_RUN since */
    clockid_t clock;
    uint8_t at_tail;  /* stands in the entry code with the right CR3: KVM_RUN goes to the tail */
    uint8_t dead;     /* not to be used again */
    uint8_t draining; /* nobody's: only has to come out */
    uint8_t inside;   /* counted in loaded->inside */
    uint8_t counted;  /* counted in pool.running */
    uint8_t sliced;   /* kicked for the end of its slice */
    uint64_t seen_cpu_ns; /* see vcpu_ran_ns */
};

struct pool {
    struct vcpu vcpu[MAX_VCPUS];
    uint32_t vcpus;
    int cpus;
    int vm_fd;
    int ring3; /* SYSCALL stays in ring 3 */
    uint64_t tiles; /* TAIL_TILES where the program can use AMX: in ring 3 with the host's XCR0 */
    int kick_signal;
    pid_t pid; /* ours: a kick costs one call of the host */
    struct entry_labels at;
    uint64_t entry_gpa;
    uint32_t xsave_size;
    uint64_t xfeatures;
    uint32_t xsave_ends[64]; /* of each component in an image */
    double tsc_per_ns;
    _Atomic uint32_t asleep; /* the kernel thread sleeps or is about to: write to wake_fd */
    _Atomic uint32_t closing;
    int wake_fd, epoll_fd;
    struct ctx_list queue[CLASSES]; /* wait for a vCPU, or for the kernel thread to run them */
    uint32_t passed;       /* how often in a row a later class was not asked */
    struct ctx_list held;  /* wait for a vCPU of their address space: see handoff.c */
    uint64_t hold_tsc;     /* for how long after the answer to the one who may wait next */
    uint64_t enter_tsc;    /* and how much longer if that was no answer in the mailbox */
    uint32_t turn;         /* counts waits of the kernel thread */
    uint32_t sequence;
    struct aspace *dying; /* address spaces that some vCPU is not out of, linked by next */
    int running;         /* vCPUs that run a program now (not: spin for an answer) */
    uint64_t slice_tsc, long_tsc;
    uint64_t talk_tsc, turn_tsc; /* see schedule.c; 0: no turns */
    uint64_t spin_tsc;   /* how long the next wait spins; adapts */
    uint64_t last_poll_tsc;
    uint64_t exit_tsc; /* of the last exit that was taken */
    uint32_t budget;     /* spin turns offered to guests, */
    uint64_t longest_spin_tsc; /* which take no longer, if they have a core */
    struct vcpu *inline_vcpu; /* the kernel thread's own, the last of vcpu[]; or NULL */
    uint32_t live;       /* of them not dead */
    uint32_t threads;    /* vCPUs with a thread: the first ones */
    int inlines;         /* the kernel thread runs the only program itself */
    int mailbox;         /* 0: never spin, every call exits */
    uint64_t active[MAX_VCPUS / 64]; /* vCPUs the kernel thread has to look at */
    struct ctx **ctxs;
    uint32_t ctxs_size;
    uint32_t ctxs_full; /* no place below this is free */
    struct event *events; /* that are to be told, */
    struct event *told;   /* and those that platform_wait has told last */
    uint64_t told_tsc;    /* when, */
    uint32_t n_told;      /* how many, */
    uint32_t told_first;  /* and how many in a row before their turn, because they woke */
    uint32_t n_events, events_size;
    struct ready ready[64];
    uint32_t n_ready;
    int interrupted; /* the last host wait ended by a signal */
    uint64_t stat_mailbox, stat_doorbell, stat_exits, stat_kicks, stat_switches, stat_sleeps;
    uint64_t stat_inline, stat_handoffs, stat_crossings;
};


static inline uint64_t tsc_now(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

/* ---- spaces.c ---- */
void spaces_release(void);
void spaces_close(void);
void space_release_when_out(struct aspace *as);

/* ---- helper.c: memory slots, on a thread of their own ---- */
int helper_open(void);
int helper_start(void);
int helper_is_busy(void);
void helper_forget(void);
void helper_close(void);

/* ---- vcpu.c ---- */
int vcpu_thread_start(struct vcpu *v);
int vcpu_thread_await(struct vcpu *v);
void vcpu_go(struct vcpu *v); /* phase is RUN now: wake the thread */
void vcpu_kick(struct vcpu *v);
void vcpu_collect(struct vcpu *v, int error); /* what KVM_RUN left, into v->exit_* */
int consume_kick(void); /* how many were pending */

/* ---- launch.c: the program's state into a vCPU and out of it ---- */
uint64_t vcpu_cpu_ns(struct vcpu *v);
uint64_t vcpu_take_cpu_ns(struct vcpu *v);
uint64_t vcpu_ran_ns(struct vcpu *v);
uint8_t *vcpu_pages(struct vcpu *v, struct aspace *as);
int vcpu_load(struct vcpu *v, struct ctx *c);
void vcpu_retire(struct vcpu *v);
void vcpu_forget_events(struct vcpu *v);
void vcpu_prepare(struct vcpu *v, struct ctx *c);
void vcpu_launch(struct vcpu *v, struct ctx *c);
void vcpu_bind(struct vcpu *v, struct ctx *c);
void vcpu_part(struct vcpu *v);
void vcpu_evict(struct vcpu *v);
void vcpu_offer(struct vcpu *v);
void offer_all(void);
/* The answer that is being worked on takes somewhat longer, and comes: who spins for it may go on. */
void offer_more(void);
void fill_s(struct vcpu *v, struct ctx *c);
void set_word_idle(struct vcpu *v);

/* ---- exits.c ---- */
void regs_from_s(struct vcpu *v, struct ctx *c);
enum exit_kind exit_decode(struct vcpu *v, struct ctx *c);

/* ---- sweep.c: what the vCPU threads left for the kernel thread ---- */
void sweep(void);
void vcpu_is_out(struct vcpu *v); /* has left KVM_RUN: phase FREE or OUT */
void space_vcpu_out(struct vcpu *v);
void came_out(struct vcpu *v);    /* the same for phase OUT, not noticed before */
void running_add(struct vcpu *v);
void running_remove(struct vcpu *v);

/* ---- inline.c: the kernel thread runs a vCPU itself ---- */
int inline_open(void);
void inline_close(void);
void inline_forget(void);
int inline_wanted(void);
int inline_ready(void);
int inline_run(int64_t deadline_ns);
void inline_looked(void);
void inline_look_again(void);
int inline_has_to_look(void);
void inline_deadline_passed(void);

/* ---- handoff.c: a vCPU that waits in its mailbox goes on with another context ---- */
int hold(struct ctx *c);
void hand_over_held(uint64_t now_tsc, int switching);
void let_go_of_held(void);
uint64_t vacant_due(uint64_t now_tsc); /* TSC at which to look again, 0: no need */
int has_arrived(struct vcpu *v);
void stay_out(struct vcpu *v);
int take_over_waiting(struct ctx *c);

/* ---- schedule.c ---- */
void list_push(struct ctx_list *list, struct ctx *c);
int list_remove(struct ctx_list *list, struct ctx *c);
uint32_t queued(void);
struct ctx *queue_first(void);
void queue_push(struct ctx *c);
void queue_remove(struct ctx *c); /* or from pool.held */
void came_from_program(struct vcpu *v, uint64_t when_tsc, int sliced);
void schedule(int turns);
int waits_for_turn(struct ctx *c);
void goes_on(struct ctx *c);
void woke(struct ctx *c);
uint64_t schedule_slice(uint64_t now_tsc); /* TSC at which to look again, 0: no need */
void post_event(struct ctx *c, enum exit_kind kind);
int has_event(const struct ctx *c);
void drop_events(struct ctx *c);

/* ---- context.c ---- */
size_t image_copy(uint8_t *to, const uint8_t *from);
void count_spin(struct vcpu *v, struct ctx *c, uint64_t now_tsc);
void ctx_ran(struct ctx *c, const struct account *more);
int release_taken(struct vcpu *v, struct ctx *c, uint8_t *s);

/* ---- events.c ---- */
int events_open(void);
void events_close(void);
#endif
