/* The unicorn platform's C half: contexts that take turns on one emulated CPU.
 *
 * Everything belongs to the kernel thread, which also emulates, in machine_wait; only the watcher
 * thread (watcher.c) runs beside it and does nothing but stop the emulation in time.
 *
 *   library.c    libunicorn's functions
 *   machine.c    opening: the CPU in ring 3, its memory, the hooks
 *   translate.c  our page tables as the CPU's TLB sees them; pages without host memory
 *   operand.c    the address of a page fault
 *   registers.c  struct user_regs_struct and the XSAVE image to and from the CPU
 *   run.c        one stretch of emulation and why it ended
 *   schedule.c   contexts, the queue, the wait of the kernel thread
 */
#ifndef UNICORN_MACHINE_H
#define UNICORN_MACHINE_H

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "context_common.h"
#include "layout.h" /* the order of registers; selectors */
#include "machine_api.h"
#include "unicorn_api.h"

#define OWN_GPA DOORBELL_GPA /* the CPU's own pages: descriptors, start-up code, its stack */
#define XSAVE_SIZE 576

enum state { S_KERNEL, S_QUEUED };

struct uctx {
    uint64_t regs[NUM_REGS];
    uint64_t kind, fault_addr, error_code, vector;
    uint64_t root;  /* top page table */
    uint64_t space; /* names the address space: roots are reused */
    uint64_t cpu_ns, *account_ns; /* its own time, and where it counts, too, or NULL */
    struct fast_answers fast;
    uint8_t fpu[XSAVE_SIZE];
    uint8_t live; /* the CPU's FPU state is newer than `fpu` */
    uint8_t kicked;
    uint8_t announced; /* in machine.events */
    enum state state;
    uint32_t index;
    struct uctx *next;
};

/* What the TLB and the translator have of a frame. */
struct page_use {
    uint32_t hash;         /* of the bytes that code was translated from; 0: none was */
    uint32_t epoch;        /* the two below belong to this filling of the TLB */
    uint32_t fetched_page; /* low bits of the virtual page numbers: where it was fetched from, */
    uint32_t stored_page;  /* and where it can be stored to; 0: nowhere */
};

struct machine {
    uc_engine *uc;
    uc_context *pristine; /* in ring 3, no exception in flight */
    uint8_t *ram, *ro_window, *rw_window, *own;
    uint64_t span;
    const volatile uint64_t *changes[2]; /* counters: a translation or code has changed */
    uint64_t seen_changes;
    struct page_use *uses; /* one for every frame of RAM and the windows */
    uint32_t epoch;        /* number of the TLB's present filling */
    struct uctx *loaded; /* whose FPU state is in the CPU */
    uint64_t space;      /* whose translations are in the TLB */
    struct uctx *current; /* being emulated */
    /* What the hooks found in the present stretch. */
    int found;             /* exit_kind */
    uint64_t fault_addr, error_code, vector;
    uint8_t starting;      /* still in ring 0 */
    uint8_t capturing;     /* CPUID answers for itself */
    _Atomic uint32_t wanted; /* the emulation is to stop at the next basic block */
    volatile sig_atomic_t lost; /* 1 + the number of pages that vanished while in use */
    struct cpuid *cpuid;
    uint32_t cpuid_entries;
    struct uctx **contexts;
    uint32_t contexts_size;
    struct uctx *queue_head, *queue_tail;
    uint32_t *events; /* indexes of contexts with an exit */
    uint32_t n_events;
    struct uready ready[64];
    uint32_t n_ready;
    int epoll_fd;
    uint64_t idle_turns;
    uint64_t stat_runs, stat_flushes, stat_translated;
};


/* ---- translate.c ---- */
int translate_open(void);
void translate_close(void);
bool on_tlb_fill(uc_engine *uc, uint64_t va, int type, struct uc_tlb_entry *entry, void *data);
void translate_prepare(struct uctx *c);
void translate_restore_lost(void);
uint8_t *user_byte(struct uctx *c, uint64_t va, int write);

/* ---- operand.c ---- */
uint64_t operand_in_page(struct uctx *c, uint64_t page, int write);

/* ---- registers.c ---- */
void registers_load(struct uctx *c);
void registers_store(struct uctx *c);
void fpu_init(struct uctx *c);
void fpu_load(struct uctx *c);
void fpu_store(struct uctx *c);

/* ---- run.c ---- */
void on_block(uc_engine *uc, uint64_t address, uint32_t size, void *data);
void on_syscall(uc_engine *uc, void *data);
void on_sysenter(uc_engine *uc, void *data);
uint32_t on_in(uc_engine *uc, uint32_t port, int size, void *data);
void on_out(uc_engine *uc, uint32_t port, int size, uint32_t value, void *data);
void on_interrupt(uc_engine *uc, uint32_t vector, void *data);
bool on_invalid(uc_engine *uc, void *data);
enum exit_kind run(struct uctx *c);

/* ---- watcher.c ---- */
int watcher_open(void);
void watcher_close(void);
void watcher_run_begins(int64_t deadline_ns);
void watcher_run_ends(void);
int watcher_saw_ready(void);
void watcher_ready_taken(void);
int64_t monotonic_ns(void);

#endif
