/* Registers, signal frames and pages of the kernel that nobody means.
 *
 *     frames SEED SECONDS [CHILD]
 *
 * Children return from signals by frames full of odd values (selectors, flags, addresses that are
 * none, FPU images with headers and control words of no sense), set the registers of tracees so, or
 * write into the pages above TASK_SIZE, where the entry code has its own, while they make calls.
 * Whatever becomes of a child is right. Between them this program looks whether its own registers,
 * FPU state and calls are what they were. CHILD: only this one. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "chance.h"

#define ENTRY 0x7fffffe00000ull /* entry page, S, doorbell; then those of the next vCPU */
#define STRIDE 0x4000
#define TURNS 200
#define XSTATE_MAX 4096

static char *page;

static uint64_t odd(void)
{
    static const uint64_t values[] = {
        0, 1, 3, 0x10, 0x18, 0x23, 0x2b, 0x33, 0x40, 0x43, 0xffff, 0x202, 0x3000, 0x4200, 0x10202,
        0x20202, 0x100, 0x400, 0x40000, 0x200000, 0xffffffff, 0x7fffffdff000, 0x7fffffdffffe,
        ENTRY, ENTRY + 0x1000, ENTRY + 0x1080, ENTRY + 0x2000, ENTRY + STRIDE, 0x7fffffffffff,
        0x800000000000, 0xffff800000000000, 0xffff7fffffffffff, 0xffffffffff600000, -1ull, -4096ull,
        1ull << 63, 0x1f80, 0xffff1f80, 0x37f,
    };
    switch (chance(5)) {
    case 0: return (uint64_t)page + chance(4096);
    case 1: return any() | any() << 40;
    case 2: return 1ull << chance(64);
    default: return values[chance(sizeof values / sizeof *values)];
    }
}

static void scribble(void *at, size_t size, unsigned times)
{
    for (char *to = at; times; times--) {
        uint64_t value = odd();
        size_t where = chance((unsigned)size), width = 1u << chance(4);
        if (chance(2))
            where &= ~7ul;
        if (where + width <= size)
            memcpy(to + where, &value, width);
    }
}

/* --- rt_sigreturn(2) */

static void spoil_frame(int signo, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    char *fp = (char *)uc->uc_mcontext.fpregs;
    uint32_t size = 512;
    (void)info;
    if (!state || (signo != SIGUSR1 && !chance(3))) /* it may be the odd registers that bring us */
        _exit(0);
    if (fp)
        memcpy(&size, fp + 464 + 16, 4); /* struct _fpx_sw_bytes: xstate_size */
    if (size > XSTATE_MAX)
        size = 512;
    for (unsigned times = 1 + chance(3); times; times--)
        switch (chance(8)) {
        case 0: scribble(uc->uc_mcontext.gregs, sizeof uc->uc_mcontext.gregs, 1 + chance(3)); break;
        case 1: uc->uc_mcontext.gregs[REG_RIP] = (greg_t)odd(); break;
        case 2: uc->uc_mcontext.gregs[REG_EFL] ^= (greg_t)(1ull << chance(64)); break;
        case 3: uc->uc_mcontext.gregs[REG_CSGSFS] = (greg_t)(odd() & 0xffff) | (greg_t)(odd() << 48); break;
        case 4: scribble(uc, 48, 1); break;                /* flags, the alternate stack */
        case 5: if (fp) scribble(fp, 64, 1 + chance(2)); break; /* control words, MXCSR */
        case 6: if (fp) scribble(fp + 464, 48, 1); break;  /* what the software says of it */
        default: if (fp && size > 576) scribble(fp + 512, chance(2) ? 64 : size - 508, 1 + chance(3));
        }
    if (chance(10) == 0)
        uc->uc_mcontext.fpregs = (void *)odd();
}

static void return_oddly(void)
{
    static char stack[65536];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_sigaction = spoil_frame, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    struct itimerval soon = {{0, 1000}, {0, 1000}};
    sigaltstack(&alternate, NULL);
    for (int signo = 1; signo < 32; signo++)
        sigaction(signo, &action, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    for (int i = 0; i < TURNS; i++) {
        syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1);
        getppid();
    }
}

/* --- ptrace(2) */

static void set_registers(void)
{
    union { struct user_regs_struct regs; struct user_fpregs_struct fp; char bytes[XSTATE_MAX]; } image;
    static const int sets[] = {NT_PRSTATUS, NT_PRFPREG, NT_X86_XSTATE, 0x200, 0};
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        for (;;) {
            kill(getpid(), SIGSTOP);
            getppid();
        }
    }
    int status;
    for (int i = 0; i < TURNS && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status); i++) {
        for (unsigned times = 1 + chance(2); times; times--) {
            int set = sets[chance(5)];
            struct iovec iov = {&image, sizeof image};
            switch (chance(5)) {
            case 0:
                ptrace(PTRACE_GETREGS, pid, 0, &image);
                scribble(&image, sizeof image.regs, 1 + chance(3));
                ptrace(PTRACE_SETREGS, pid, 0, &image);
                break;
            case 1:
                ptrace(PTRACE_GETFPREGS, pid, 0, &image);
                scribble(&image, sizeof image.fp, 1 + chance(3));
                ptrace(PTRACE_SETFPREGS, pid, 0, &image);
                break;
            case 2: /* its debug registers too */
                ptrace(PTRACE_POKEUSER, pid, chance(3) ? chance(912) & ~7u : odd(), odd());
                break;
            default:
                ptrace(PTRACE_GETREGSET, pid, set, &iov);
                scribble(&image, chance(2) ? 600 : iov.iov_len, 1 + chance(3));
                if (chance(8) == 0)
                    iov.iov_len = odd() % (sizeof image + 1);
                ptrace(PTRACE_SETREGSET, pid, set, &iov);
            }
        }
        static const int ways[] = {PTRACE_CONT, PTRACE_SYSCALL, PTRACE_SINGLESTEP, PTRACE_CONT};
        ptrace(ways[chance(4)], pid, 0, chance(4) ? 0 : chance(32));
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, __WALL);
}

/* --- the pages of the entry code */

static volatile int over;

static void *write_pages(void *seed)
{
    uint64_t x = (uint64_t)seed | 1;
    while (!over) {
        step(&x);
        /* S of a vCPU: its words, the registers, the FPU image behind them */
        char *at = (char *)ENTRY + 0x1000 + (x >> 8 & 3) * STRIDE;
        size_t where = x >> 16 & 3 ? (x >> 20 & 0x1ff) : (x >> 20 & 0xfff);
        uint64_t value = x >> 40 & 1 ? x : (x >> 41 & 3);
        memcpy(at + (where & ~7ul), &value, 8);
    }
    return NULL;
}

static void survive(int signo) { (void)signo; }

static void write_own_pages(void)
{
    struct itimerval soon = {{0, 20000}, {0, 0}};
    signal(SIGALRM, survive);
    pthread_t thread;
    int alone = chance(2);
    if (!alone)
        pthread_create(&thread, NULL, write_pages, (void *)any());
    setitimer(ITIMER_REAL, &soon, NULL);
    char *mine = (char *)ENTRY + (chance(8) ? 0x1000 : chance(4) * 0x1000) + chance(3) * STRIDE;
    for (int i = 0; i < TURNS; i++) {
        uint64_t value = odd();
        if (alone && chance(3) == 0)
            memcpy(mine + (chance(chance(4) ? 0x200 : 0x1000) & ~7u), &value, 8);
        switch (chance(5)) {
        case 0: getppid(); break;
        case 1: (void)!write(-1, page, 1); break;
        case 2: syscall(SYS_gettid); break;
        case 3: sched_yield(); break;
        default: munmap(mmap(NULL, 8192, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0), 8192);
        }
        if (chance(20) == 0) /* what it jumps to in there */
            if (fork() == 0) {
                ((void (*)(void))(ENTRY + chance(0x300) + chance(2) * 0x1000 * chance(4)))();
                _exit(0);
            }
    }
    over = 1;
}

/* --- */

static void child(uint64_t seed)
{
    begin(seed);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    switch (chance(3)) {
    case 0: return_oddly(); break;
    case 1: set_registers(); break;
    default: write_own_pages();
    }
    _exit(0);
}

static void end_child(pid_t pid)
{
    sigset_t chld;
    struct timespec patience = {0, 300000000};
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    if (waitpid(pid, NULL, WNOHANG) != pid && sigtimedwait(&chld, NULL, &patience) >= 0)
        waitpid(pid, NULL, WNOHANG);
    kill(-1, SIGKILL);
    while (waitpid(-1, NULL, __WALL) > 0)
        kill(-1, SIGKILL);
    while (sigtimedwait(&chld, NULL, &(struct timespec){0, 0}) >= 0)
        ;
}

/* 1 if a call changes anything that it must not. */
static int look(void)
{
    uint64_t in[2] = {0x1122334455667788, 0x99aabbccddeeff00}, out[2], rbx = 0x5a5a, flags;
    uint32_t mxcsr;
    uint16_t control;
    long pid = SYS_getppid;
    __asm__ volatile("movdqu %[in], %%xmm9\n syscall\n movdqu %%xmm9, %[out]\n"
                     "stmxcsr %[mxcsr]\n fnstcw %[control]\n pushfq\n pop %[flags]\n"
                     : "+a"(pid), "+b"(rbx), [out] "=m"(out), [mxcsr] "=m"(mxcsr),
                       [control] "=m"(control), [flags] "=r"(flags)
                     : [in] "m"(in) : "rcx", "r11", "xmm9", "memory");
    return memcmp(in, out, 16) || rbx != 0x5a5a || mxcsr != 0x1f80 || control != 0x37f
           || (flags & 0x47400) || pid != getppid();
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    uint64_t seed = strtoull(argv[1], NULL, 0);
    double seconds = atof(argv[2]);
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    sigset_t chld;
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    sigprocmask(SIG_BLOCK, &chld, NULL);
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (unsigned long n = argc > 3 ? strtoul(argv[3], NULL, 0) : 0;; n++) {
        pid_t pid = fork();
        if (pid == 0)
            child(seed * 1000003 + n);
        if (pid > 0)
            end_child(pid);
        if (look()) {
            printf("child %lu has changed what is another's\n", n);
            return 1;
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
        if ((double)(now.tv_sec - start.tv_sec) >= seconds || argc > 3) {
            printf("%lu children\n", n + 1);
            return 0;
        }
    }
}
