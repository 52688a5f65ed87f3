/* What sentry/platform/kvm.py and vdso.py call of the execution half, on the kernel thread. */
#ifndef SENTRY_EXECUTION_API_H
#define SENTRY_EXECUTION_API_H

#include <stddef.h>
#include <stdint.h>

struct aspace;
struct ctx;
struct fast_answers;
struct fault;
struct sigframe;
struct sigframe_rest;

struct entry_labels { /* offsets in the entry page and in that of the stubs, from guest_stubs */
    uint32_t entry, rcx, fast, fret, slow, saved, spin, rang, door, after, tail, end;
    uint32_t trap_ud, trap_switch, trap_end;
};

struct event {
    uint32_t index, kind;
};

struct ready {
    int32_t fd;
    uint32_t events;
};

extern struct pool pool;

/* ---- machine.c: setting up and closing ---- */
void native_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t registers[4]);
int pool_open(int vm_fd, uint32_t xsave_size, uint64_t xfeatures);
int pool_set_stubs(int ring3, const uint8_t *entry, size_t entry_size, const uint8_t *stubs,
                   size_t stubs_size, const struct entry_labels *at);
int pool_add_vcpu(int fd, void *run, uint64_t cr4);
int pool_start(int mailbox, int inlines, uint64_t exit_ns);
int pool_start_threads(void);
void pool_close(void);

/* ---- again.c: in a forked process; contexts, address spaces and RAM are as they were ---- */
int pool_park(void);
int pool_fork(void);
int pool_again(int vm_fd, uint32_t vcpus);
void pool_renew_vcpu(uint32_t index, int fd, void *run);

/* ---- context.c ---- */
struct ctx *ctx_new(struct aspace *space);
void ctx_answer(struct ctx *c, int64_t value);
void ctx_resume(struct ctx *c);
void ctx_kick(struct ctx *c);
int ctx_stop(struct ctx *c); /* 1: is outside already */
void ctx_bind(struct ctx *c, struct aspace *space);
int ctx_get_fpu(struct ctx *c, uint8_t *image);
void ctx_set_fpu(struct ctx *c, const uint8_t *image);
int ctx_copy(struct ctx *to, struct ctx *from);
int ctx_push_frame(struct ctx *c, const struct sigframe *frame, struct fault *fault);
int ctx_pop_frame(struct ctx *c, uint64_t at, uint64_t taken_flags, struct sigframe_rest *rest,
                  struct fault *fault);
void ctx_set_fast(struct ctx *c, const struct fast_answers *answers);
uint64_t ctx_cpu_ns(struct ctx *c);
/* What the contexts of a process have run, those too that are gone. It outlives them. */
struct account {
    uint64_t cpu_ns;     /* on vCPUs that they were bound to before, */
    uint64_t spin_tsc;   /* of which the mailboxes spun; */
    uint64_t inline_tsc; /* by the kernel thread */
    uint32_t woken;      /* how many wait for a vCPU as ones that woke */
    uint64_t told;       /* the turn in which the kernel heard of an exit last */
};
void ctx_charge(struct ctx *c, struct account *to); /* from now on */
uint64_t account_cpu_ns(const struct account *a);
void ctx_destroy(struct ctx *c);

/* ---- vcpu.c, events.c ---- */
void pool_wake(void); /* any thread: end the kernel thread's wait */
int events_watch(int fd, uint32_t events);
/* Wait until something happened. The index of the one context that made a system call, when there
 * is nothing else to tell; else -1 - (events | ready descriptors << 20), see pool.told and
 * pool.ready. */
int platform_wait(int64_t deadline_ns);

/* ---- clock_page.c: the vDSO's page ---- */
uint64_t clock_page_open(const uint8_t *image, size_t size, int usable);
void clock_page_refresh(void);
uint64_t clock_page_hold(void);
void clock_page_shape(uint64_t host_ns, uint64_t inside_ns, uint32_t speed, uint32_t per,
                      int64_t realtime_offset, int64_t boottime_offset);
int64_t clock_page_now(int clock);
int clock_page_step_fd(void);
void clock_page_stepped(void);
void clock_page_again(void);
void clock_page_close(void);

#endif
