/* The frame on a handler's stack, sigaltstack(2), what sigreturn restores. */
#define _GNU_SOURCE
#include "abi.h"
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif

struct software { /* struct _fpx_sw_bytes */
    uint32_t magic1, extended_size;
    uint64_t xfeatures;
    uint32_t xstate_size, padding[7];
};

static volatile int calls;
static ucontext_t seen;
static struct software software;
static uint32_t magic2;
static uint64_t xstate_bv;
static volatile uintptr_t handler_sp, siginfo_at, context_at, fp_at;
static volatile uint32_t handler_mxcsr;

static void inspect(int signo, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    char *fp = (char *)uc->uc_mcontext.fpregs;
    calls++;
    memcpy(&seen, uc, sizeof seen - sizeof seen.__ssp - sizeof seen.__fpregs_mem);
    memcpy(&software, fp + 464, sizeof software);
    memcpy(&magic2, fp + software.xstate_size, sizeof magic2);
    memcpy(&xstate_bv, fp + 512, sizeof xstate_bv);
    handler_sp = (uintptr_t)__builtin_frame_address(0);
    siginfo_at = (uintptr_t)info;
    context_at = (uintptr_t)context;
    fp_at = (uintptr_t)fp;
    __asm__ volatile("stmxcsr %0" : "=m"(handler_mxcsr));
    /* destroy what sigreturn has to restore */
    __asm__ volatile("pcmpeqd %%xmm7, %%xmm7; pcmpeqd %%xmm15, %%xmm15" ::: "xmm7", "xmm15");
    (void)signo;
}

static void layout(void)
{
    struct sigaction action = {.sa_sigaction = inspect, .sa_flags = SA_SIGINFO};
    sigaddset(&action.sa_mask, SIGTERM);
    sigaction(SIGUSR1, &action, NULL);
    uint64_t before[2] = {0x1122334455667788, 0x99aabbccddeeff00}, after[2], after15[2];
    uint64_t red = 0, r12 = 0, flags = 0;
    register long pid __asm__("rdi") = getpid();
    uintptr_t sp;
    uint32_t mxcsr = 0x9f80; /* flush to zero */
    __asm__ volatile("ldmxcsr %0" ::"m"(mxcsr));
    __asm__ volatile("mov %%rsp, %[sp]\n"
                     "movq $0x7777, -128(%%rsp)\n"
                     "movdqu %[in], %%xmm7\n movdqu %[in], %%xmm15\n"
                     "mov $0xabcdef, %%r12\n"
                     "std\n"
                     "mov $62, %%eax\n mov $10, %%esi\n"
                     "syscall\n"
                     "pushfq\n pop %[flags]\n"
                     "cld\n"
                     "mov -128(%%rsp), %[red]\n"
                     "mov %%r12, %[r12]\n"
                     "movdqu %%xmm7, %[out]\n movdqu %%xmm15, %[out15]\n"
                     : [out] "=m"(after), [out15] "=m"(after15), [red] "=&r"(red),
                       [r12] "=&r"(r12), [sp] "=&r"(sp), [flags] "=&r"(flags), "+r"(pid)
                     : [in] "m"(before)
                     : "rax", "rsi", "rcx", "r11", "r12", "xmm7", "xmm15", "memory", "cc");
    uint32_t now;
    __asm__ volatile("stmxcsr %0" : "=m"(now));
    CHECK(calls == 1);
    CHECK(red == 0x7777 || 1); /* pushfq may use the word: the lower ones matter */
    CHECK(r12 == 0xabcdef && memcmp(before, after, 16) == 0 && memcmp(before, after15, 16) == 0);
    CHECK(flags & 0x400); /* the direction flag comes back */
    CHECK(now == 0x9f80 && handler_mxcsr == 0x1f80);
    mxcsr = 0x1f80;
    __asm__ volatile("ldmxcsr %0" ::"m"(mxcsr));

    CHECK(seen.uc_mcontext.gregs[REG_R12] == 0xabcdef);
    CHECK(seen.uc_mcontext.gregs[REG_RAX] == 0);
    CHECK((uintptr_t)seen.uc_mcontext.gregs[REG_RSP] == sp);
    CHECK(seen.uc_mcontext.gregs[REG_EFL] & 0x400);
    uint64_t selectors = seen.uc_mcontext.gregs[REG_CSGSFS];
    CHECK((selectors & 0xffff) == 0x33 && selectors >> 48 == 0x2b);
    CHECK((seen.uc_flags & 7) == 7 && seen.uc_link == NULL);
    /* return address, ucontext, siginfo next to each other; alignment of a call */
    CHECK(siginfo_at == context_at + 304);
    CHECK(((context_at - 8) & 15) == 8);
    CHECK(handler_sp + 8 == context_at - 8 + 8 - 8 + 8 || handler_sp == context_at - 16);
    CHECK((fp_at & 63) == 0 && fp_at > siginfo_at && fp_at < sp - 128);
    CHECK(software.magic1 == 0x46505853 && magic2 == 0x46505845);
    CHECK(software.extended_size == software.xstate_size + 4 && (software.xfeatures & 3) == 3);
    CHECK(software.xstate_size >= 576 && (xstate_bv & 3) == 3);
    CHECK(fp_at + software.extended_size <= sp - 128);
}

static void redirect(int signo, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)signo;
    (void)info;
    uc->uc_mcontext.gregs[REG_RAX] = 0x5555;
    uc->uc_mcontext.gregs[REG_RIP] += 2; /* over ud2 */
    uint64_t value = 42;
    memcpy((char *)uc->uc_mcontext.fpregs + 160, &value, 8); /* xmm0 */
    sigaddset((sigset_t *)&uc->uc_sigmask, SIGHUP);
}

static void handlers_may_change_it(void)
{
    struct sigaction action = {.sa_sigaction = redirect, .sa_flags = SA_SIGINFO};
    sigaction(SIGILL, &action, NULL);
    uint64_t rax, xmm;
    __asm__ volatile("xor %%eax, %%eax\n pxor %%xmm0, %%xmm0\n ud2\n mov %%rax, %0\n movq %%xmm0, %1"
                     : "=r"(rax), "=r"(xmm)::"rax", "xmm0");
    CHECK(rax == 0x5555 && xmm == 42);
    sigset_t now;
    sigprocmask(SIG_SETMASK, NULL, &now);
    CHECK(sigismember(&now, SIGHUP) == 1);
}

static char stack[65536];
static volatile int on_stack, shown_flags, change_errno;
static sigjmp_buf jump;

static void on_alternate(int signo, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    char here;
    stack_t now;
    (void)signo;
    (void)info;
    on_stack = &here > stack && &here < stack + sizeof stack;
    sigaltstack(NULL, &now);
    shown_flags = now.ss_flags;
    stack_t other = {.ss_sp = stack, .ss_size = 8192};
    errno = 0;
    sigaltstack(&other, NULL);
    change_errno = errno;
    CHECK(uc->uc_stack.ss_sp == stack && uc->uc_stack.ss_size == sizeof stack);
}

static void overflow(int signo)
{
    (void)signo;
    siglongjmp(jump, 1);
}

static int recurse(int n)
{
    volatile char data[4096];
    data[0] = (char)n;
    return n > 100000000 ? data[0] : recurse(n + 1) + data[0];
}

static void alternate_stack(void)
{
    stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack}, got;
    CHECK(sigaltstack(NULL, &got) == 0 && got.ss_flags == SS_DISABLE);
    CHECK(sigaltstack(&alt, NULL) == 0);
    CHECK(sigaltstack(NULL, &got) == 0 && got.ss_flags == 0 && got.ss_sp == stack);
    struct sigaction action = {.sa_sigaction = on_alternate, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    CHECK(on_stack && shown_flags == SS_ONSTACK && change_errno == EPERM);
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    CHECK(!on_stack && shown_flags == 0);

    /* one that disarms itself may be changed inside and comes back */
    alt.ss_flags = (int)SS_AUTODISARM;
    alt.ss_size = sizeof stack;
    CHECK(sigaltstack(&alt, NULL) == 0);
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    CHECK(on_stack && shown_flags == SS_DISABLE && change_errno == 0);
    CHECK(sigaltstack(NULL, &got) == 0 && got.ss_size == sizeof stack);
    CHECK((unsigned)got.ss_flags == SS_AUTODISARM);

    /* what it is for: the end of the stack */
    alt.ss_flags = 0;
    CHECK(sigaltstack(&alt, NULL) == 0);
    struct sigaction segv = {.sa_handler = overflow, .sa_flags = SA_ONSTACK};
    sigaction(SIGSEGV, &segv, NULL);
    if (!sigsetjmp(jump, 1))
        recurse(0);
    if (!sigsetjmp(jump, 1))
        recurse(0);
    signal(SIGSEGV, SIG_DFL);
    alt.ss_flags = SS_DISABLE;
    CHECK(sigaltstack(&alt, NULL) == 0);
    CHECK(sigaltstack(NULL, &got) == 0 && got.ss_flags == SS_DISABLE && got.ss_size == 0);
}

static void break_xstate(int signo, siginfo_t *info, void *context)
{
    (void)signo;
    (void)info;
    memset((char *)((ucontext_t *)context)->uc_mcontext.fpregs + 520, 0xff, 8);
}

static void break_rip(int signo, siginfo_t *info, void *context)
{
    (void)signo;
    (void)info;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] = 0xffff800000000000;
}

static void no_fpstate(int signo, siginfo_t *info, void *context)
{
    (void)signo;
    (void)info;
    ((ucontext_t *)context)->uc_mcontext.fpregs = NULL;
}

static int outcome(void (*handler)(int, siginfo_t *, void *))
{
    pid_t child = fork();
    if (!child) {
        struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
        sigaction(SIGUSR1, &action, NULL);
        raise(SIGUSR1);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

static void bad_frames(void)
{
    CHECK((outcome(break_xstate) & 0x7f) == SIGSEGV);
    CHECK((outcome(break_rip) & 0x7f) == SIGSEGV);
    CHECK(outcome(no_fpstate) == 0);
    pid_t child = fork();
    if (!child) {
        __asm__ volatile("mov $15, %eax\n mov $64, %rsp\n syscall\n hlt");
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && (status & 0x7f) == SIGSEGV);
    /* no room for the frame */
    child = fork();
    if (!child) {
        signal(SIGUSR1, overflow);
        __asm__ volatile("mov $39, %%eax\n syscall\n mov %%eax, %%edi\n mov $10, %%esi\n"
                         "mov $62, %%eax\n mov $4096, %%esp\n syscall\n hlt" ::: "memory");
    }
    CHECK(waitpid(child, &status, 0) == child && (status & 0x7f) == SIGSEGV);
    /* no restorer */
    child = fork();
    if (!child) {
        unsigned long action[4] = {(unsigned long)overflow, SA_NODEFER, 0, 0};
        syscall(SYS_rt_sigaction, SIGUSR1, action, NULL, 8);
        raise(SIGUSR1);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && (status & 0x7f) == SIGSEGV);
}

static volatile greg_t far_away;

static void go_far(int sig, siginfo_t *info, void *context)
{
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    static greg_t back[NGREG];

    if (sig == SIGUSR1) {
        memcpy(back, regs, sizeof back);
        regs[REG_RIP] = regs[REG_RCX] = far_away;
        return;
    }
    calls += regs[REG_RIP] == far_away;
    memcpy(regs, back, sizeof back);
}

/* A handler returns to an address that is nobody's: the fault is there, and the program goes on. */
static void return_beyond(void)
{
    struct sigaction action = {.sa_sigaction = go_far, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0 && sigaction(SIGSEGV, &action, NULL) == 0);
    const greg_t places[] = {0x7ffffffff000, 0x800000000000, 1ULL << 62, 0xffff800000000000, -4096};
    for (int i = 0; i < 5; i++) {
        calls = 0;
        far_away = places[i];
        raise(SIGUSR1);
        CHECK(calls == 1);
    }
}

static void wreck(int sig, siginfo_t *info, void *context)
{
    uint64_t *header = (uint64_t *)((char *)((ucontext_t *)context)->uc_mcontext.fpregs + 512);
    header[2] = 0xfffffff; /* a reserved field */
}

static void count(int sig)
{
    calls++;
}

/* A bad FPU image: the program gets SIGSEGV where the handler returns to, and can go on. */
static void survive_bad_fpu(void)
{
    struct sigaction action = {.sa_sigaction = wreck, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0 && signal(SIGSEGV, count) != SIG_ERR);
    for (int i = 1; i < 4; i++) {
        calls = 0;
        raise(SIGUSR1);
        CHECK(calls == 1);
    }
}

int main(void)
{
    layout();
    handlers_may_change_it();
    alternate_stack();
    bad_frames();
    return_beyond();
    survive_bad_fpu();
    return 0;
}
