/* Setting the machine up: the supervisor's pages, the vCPUs' registers, the threads. */
#define _GNU_SOURCE
#include "vcpu.h"

#include <cpuid.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#define SLICE_NS 5000000
#define HOLD_NS 25000 /* less than it takes to wake a thread and enter the guest on it */
#define TALK_NS 60000
#define TURN_NS 2000000
#define TURNS_EXIT_NS 10000 /* exits that cost less are no reason to take turns */
#define WAKE_NS 20000 /* a thread that sleeps */
#define SPIN_LEAST_NS 10000 /* a short call of Python, and a change of threads */

static uint64_t high_pt; /* page table of the first 2 MiB from HIGH_BASE */

static void on_kick(int signal)
{
    (void)signal; /* never runs: every thread that gets it blocks it outside KVM_RUN */
}

static uint8_t *high_page(uint64_t offset, uint64_t bits)
{
    uint64_t gpa = frame_alloc();
    if (!gpa)
        return NULL;
    ((uint64_t *)frame_host(high_pt))[offset / PAGE_SIZE] = gpa | PTE_P | PTE_A | PTE_D | bits;
    return frame_host(gpa);
}

static double measure_tsc(void)
{
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    uint64_t start = tsc_now(), end, ns;
    do {
        clock_gettime(CLOCK_MONOTONIC, &b);
        end = tsc_now();
        ns = (uint64_t)(b.tv_sec - a.tv_sec) * 1000000000ull + (uint64_t)(b.tv_nsec - a.tv_nsec);
    } while (ns < 200000);
    return (double)(end - start) / (double)ns;
}

void native_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t registers[4])
{
    __cpuid_count(leaf, subleaf, registers[0], registers[1], registers[2], registers[3]);
}

/* Before ram_open, which may use the hooks. 0 or -errno. */
int pool_open(int vm_fd, uint32_t xsave_size, uint64_t xfeatures)
{
    cpu_set_t set;
    memset(&pool, 0, sizeof pool);
    pool.vm_fd = vm_fd;
    pool.xsave_size = xsave_size;
    pool.xfeatures = xfeatures;
    for (uint32_t n = 2; n < 64; n++) {
        uint32_t leaf[4];
        if (!(xfeatures >> n & 1))
            continue;
        native_cpuid(0xd, n, leaf); /* EAX size, EBX offset */
        uint32_t end = leaf[0] + leaf[1];
        pool.xsave_ends[n] = end <= xsave_size ? end : xsave_size;
    }
    pool.kick_signal = SIGRTMIN + 2;
    pool.pid = getpid();
    pool.tsc_per_ns = measure_tsc();
    pool.slice_tsc = (uint64_t)(SLICE_NS * pool.tsc_per_ns);
    pool.long_tsc = (uint64_t)(LONG_NS * pool.tsc_per_ns);
    pool.turn = 1;
    pool.cpus = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    if (xsave_size > S_XSAVE_MAX)
        return -E2BIG;
    signal(pool.kick_signal, on_kick);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    int error = events_open();
    if (!error)
        error = helper_open();
    return error;
}

/* SDM volume 1, 13.3: OSXSAVE, then both bits of AMX in XCR0. */
static int amx_is_on(void)
{
    uint32_t leaf[4], low, high;
    native_cpuid(1, 0, leaf);
    if (!(leaf[2] >> 27 & 1))
        return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & 0x60000) == 0x60000;
}

/* GDT, IDT and exception stubs, shared by all vCPUs; the entry page's frame. After ram_open. */
int pool_set_stubs(int ring3, const uint8_t *entry, size_t entry_size, const uint8_t *stubs,
                   size_t stubs_size, const struct entry_labels *at)
{
    uint64_t pdpt = frame_alloc(), pd = frame_alloc();
    pool.ring3 = ring3;
    pool.tiles = ring3 && amx_is_on() ? TAIL_TILES : 0;
    high_pt = frame_alloc();
    pool.entry_gpa = frame_alloc();
    if (!pdpt || !pd || !high_pt || !pool.entry_gpa)
        return -ENOMEM;
    if (entry_size > PAGE_SIZE || stubs_size > PAGE_SIZE)
        return -E2BIG;
    *(uint64_t *)frame_host(pdpt) = pd | PTE_P | PTE_W | PTE_A;
    *(uint64_t *)frame_host(pd) = high_pt | PTE_P | PTE_W | PTE_A;
    ram.kernel_pdpt = pdpt;
    memcpy(frame_host(pool.entry_gpa), entry, entry_size);
    pool.at = *at;

    uint64_t *gdt = (uint64_t *)high_page(HIGH_GDT, PTE_W | PTE_NX);
    uint64_t *idt = (uint64_t *)high_page(HIGH_IDT, PTE_W | PTE_NX);
    uint8_t *code = high_page(HIGH_STUBS, 0);
    if (!gdt || !idt || !code)
        return -ENOMEM;
    gdt[SEL_KERNEL_CS / 8] = 0x00af9b000000ffff;
    gdt[SEL_KERNEL_DS / 8] = 0x00cf93000000ffff;
    gdt[SEL_USER32_CS / 8] = 0x00cffb000000ffff;
    gdt[SEL_USER_DS / 8] = 0x00cff3000000ffff;
    gdt[SEL_USER_CS / 8] = 0x00affb000000ffff;
    memcpy(code, stubs, stubs_size);
    for (uint64_t n = 0; n < 256; n++) {
        uint64_t offset = n == 6 ? at->trap_ud : n * STUB_STRIDE;
        uint64_t handler = HIGH_BASE + HIGH_STUBS + offset;
        uint64_t dpl = n == 3 || n == 4 ? 3 : 0; /* INT3 and INTO; INT 0x80 is not for us */
        idt[2 * n] = (handler & 0xffff) | SEL_KERNEL_CS << 16 | 1ull << 32 /* IST1 */ |
                     (0x8e | dpl << 5) << 40 | (handler >> 16 & 0xffff) << 48;
        idt[2 * n + 1] = handler >> 32;
    }
    return 0;
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, uint8_t dpl, uint8_t l)
{
    return (struct kvm_segment){.limit = 0xffffffff, .selector = selector, .type = type,
                                .present = 1, .dpl = dpl, .db = !l, .s = 1, .l = l, .g = 1};
}

/* SAFETY: `run` is the mapping of fd's kvm_run and outlives pool_close. */
int pool_add_vcpu(int fd, void *run, uint64_t cr4)
{
    if (pool.vcpus == MAX_VCPUS)
        return -ENOSPC;
    struct vcpu *v = &pool.vcpu[pool.vcpus];
    uint64_t offset = HIGH_VCPU + (uint64_t)pool.vcpus * HIGH_VCPU_STRIDE;
    uint8_t *tss = high_page(offset, PTE_W | PTE_NX);
    v->stack = high_page(offset + PAGE_SIZE, PTE_W | PTE_NX);
    if (!tss || !v->stack)
        return -ENOMEM;
    v->fd = fd;
    v->run = run;
    v->index = pool.vcpus;
    v->entry_va = ENTRY_BASE + (uint64_t)v->index * ENTRY_STRIDE;
    uint64_t tss_va = HIGH_BASE + offset, top = tss_va + 2 * PAGE_SIZE;
    memcpy(tss + 0x04, &top, 8); /* RSP0 and IST1, SDM volume 3 section 8.7 */
    memcpy(tss + 0x24, &top, 8);
    uint16_t no_io_map = 0x68;
    memcpy(tss + 0x66, &no_io_map, 2);
    const uint64_t frame[] = {v->entry_va + pool.at.tail, pool.ring3 ? SEL_USER_CS : SEL_KERNEL_CS,
                              pool.ring3 ? 0x202 : 0x2, 0,
                              pool.ring3 ? SEL_USER_DS : SEL_KERNEL_DS};
    memcpy(v->stack + SWITCH_FRAME, frame, sizeof frame);

    struct kvm_sregs *s = &v->user;
    if (ioctl(fd, KVM_GET_SREGS, s) < 0)
        return -errno;
    s->cs = segment(SEL_USER_CS, 11, 3, 1);
    s->ss = s->ds = s->es = s->fs = s->gs = segment(SEL_USER_DS, 3, 3, 0);
    s->tr = (struct kvm_segment){.base = tss_va, .limit = 0x67, .selector = SEL_TSS, .type = 11,
                                 .present = 1};
    s->gdt = (struct kvm_dtable){.base = HIGH_BASE + HIGH_GDT, .limit = 0x4f};
    s->idt = (struct kvm_dtable){.base = HIGH_BASE + HIGH_IDT, .limit = PAGE_SIZE - 1};
    s->cr0 = 0x80050033; /* PG AM WP NE ET MP PE */
    s->cr2 = s->cr3 = s->cr8 = 0;
    s->cr4 = cr4;
    s->efer = 0xd01; /* NXE LMA LME SCE */
    v->run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
    pool.vcpus++;
    return 0;
}

/* A guest spins about as long as its exit would take, so that it never loses more than twice the
 * better of the two. */
static uint64_t spin_ns(uint64_t exit_ns)
{
    uint64_t ns = exit_ns + exit_ns / 4;
    if (ns < SPIN_LEAST_NS)
        return SPIN_LEAST_NS;
    return ns < 4 * SPIN_LEAST_NS ? ns : 4 * SPIN_LEAST_NS;
}

static uint32_t spin_turns(uint64_t ns)
{
    uint64_t start = tsc_now(), turns = 2000;
    for (uint64_t i = 0; i < turns; i++)
        __builtin_ia32_pause();
    double turn_ns = (double)(tsc_now() - start) / pool.tsc_per_ns / (double)turns;
    double wanted = (double)ns / (turn_ns + 1);
    return wanted < 20000 ? (uint32_t)wanted : 20000;
}

/* The threads, by the one that will wait; with inline, the last vCPU is its own. Afterwards no thread is made and nothing is mapped executable. */
int pool_start(int mailbox, int inlines, uint64_t exit_ns)
{
    pool.budget = spin_turns(spin_ns(exit_ns));
    pool.longest_spin_tsc = (uint64_t)((double)spin_ns(exit_ns) * pool.tsc_per_ns);
    pool.hold_tsc = (uint64_t)(HOLD_NS * pool.tsc_per_ns);
    pool.enter_tsc = (uint64_t)((double)(exit_ns + WAKE_NS) * pool.tsc_per_ns);
    pool.talk_tsc = (uint64_t)(TALK_NS * pool.tsc_per_ns);
    if (exit_ns >= TURNS_EXIT_NS && mailbox && pool.cpus > 1)
        pool.turn_tsc = (uint64_t)(TURN_NS * pool.tsc_per_ns);
    pool.mailbox = mailbox && pool.cpus > 1;
    pool.inlines = inlines;
    return pool_start_threads();
}

/* As pool_start has it, also in a forked process. */
int pool_start_threads(void)
{
    pool.threads = pool.vcpus - (pool.inlines ? 1 : 0);
    pool.live = pool.threads;
    pool.inline_vcpu = pool.inlines ? &pool.vcpu[pool.threads] : NULL;
    for (uint32_t i = 0; i < pool.threads; i++) {
        int error = vcpu_thread_start(&pool.vcpu[i]);
        if (error)
            return error;
    }
    for (uint32_t i = 0; i < pool.threads; i++) {
        int error = vcpu_thread_await(&pool.vcpu[i]);
        if (error)
            return error;
    }
    int error = helper_start();
    if (!error && pool.inline_vcpu)
        error = inline_open();
    return error;
}

void pool_close(void)
{
    atomic_store(&pool.closing, 1);
    for (uint32_t i = 0; i < pool.vcpus; i++) {
        struct vcpu *v = &pool.vcpu[i];
        if (!atomic_load(&v->tid))
            continue;
        vcpu_kick(v);
        uint32_t phase = atomic_load(&v->phase);
        if (phase == P_FREE || phase == P_EXIT || phase == P_OUT)
            atomic_store(&v->phase, P_CLOSED); /* the futex it may be about to wait on */
        vcpu_go(v);
        pthread_join(v->thread, NULL);
    }
    inline_close();
    helper_close();
    events_close();
    spaces_close();
    for (uint32_t i = 0; i < pool.ctxs_size; i++)
        if (pool.ctxs[i]) {
            free(pool.ctxs[i]->fpu);
            free(pool.ctxs[i]);
        }
    free(pool.ctxs);
    free(pool.events);
    free(pool.told);
    signal(pool.kick_signal, SIG_DFL);
    memset(&pool, 0, sizeof pool);
}
