/* platforms: native kvm
 * Floating-point exceptions (an emulator does not raise those of SSE), and vector registers that
 * live through handlers, system calls and switches between threads. */
#define _GNU_SOURCE
#include "abi.h"
#include <cpuid.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf jump;
static siginfo_t info;
static long trapno;

static void caught(int signo, siginfo_t *details, void *context)
{
    (void)signo;
    info = *details;
    trapno = ((ucontext_t *)context)->uc_mcontext.gregs[REG_TRAPNO];
    siglongjmp(jump, 1);
}

#define TRAP(statement)          \
    do {                         \
        info.si_signo = 0;       \
        if (!sigsetjmp(jump, 1)) \
            statement;           \
    } while (0)

static void exceptions(void)
{
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
    sigaction(SIGFPE, &action, NULL);
    uint32_t mxcsr = 0x1f80 & ~(1u << 9); /* division by zero traps */
    float one = 1, nothing = 0;
    TRAP(__asm__ volatile("ldmxcsr %0\n divss %2, %1" ::"m"(mxcsr), "x"(one), "x"(nothing)));
    CHECK(info.si_signo == SIGFPE && info.si_code == FPE_FLTDIV && trapno == 19);
    mxcsr = 0x1f80 & ~(1u << 7); /* so do invalid operations */
    TRAP(__asm__ volatile("ldmxcsr %0\n divss %1, %1" ::"m"(mxcsr), "x"(nothing)));
    CHECK(info.si_signo == SIGFPE && info.si_code == FPE_FLTINV && trapno == 19);
    mxcsr = 0x1f80;
    __asm__ volatile("ldmxcsr %0" ::"m"(mxcsr));
    uint16_t control = 0x37f & ~4;
    TRAP(__asm__ volatile("fldcw %0\n fld1\n fldz\n fdivrp\n fwait" ::"m"(control)));
    CHECK(info.si_signo == SIGFPE && info.si_code == FPE_FLTDIV && trapno == 16);
    __asm__ volatile("fninit");
}

static int has_avx(void)
{
    unsigned a, b, c, d;
    __cpuid(1, a, b, c, d);
    return c >> 27 & 1 && c >> 28 & 1;
}

static volatile int handled;
static void clobber(int signo)
{
    (void)signo;
    __asm__ volatile("vpcmpeqd %%xmm1, %%xmm1, %%xmm1\n vinsertf128 $1, %%xmm1, %%ymm1, %%ymm5\n"
                     "vzeroupper" ::
                         : "xmm1", "xmm5");
    handled++;
}

static int keeps_ymm(uint64_t seed, int signo)
{
    uint64_t in[4] = {seed, seed * 3, seed * 5, seed * 7}, out[4];
    long pid = getpid(), tid = syscall(SYS_gettid);
    __asm__ volatile("vmovdqu %[in], %%ymm5\n"
                     "mov %[signo], %%edx\n"
                     "mov $234, %%eax\n"
                     "syscall\n"
                     "vmovdqu %%ymm5, %[out]\n"
                     "vzeroupper"
                     : [out] "=m"(out), "+D"(pid), "+S"(tid)
                     : [in] "m"(in), [signo] "r"(signo)
                     : "rax", "rcx", "r11", "rdx", "xmm5", "memory");
    return memcmp(in, out, sizeof in) == 0;
}

static void *vectors(void *argument)
{
    for (uint64_t i = 1; i <= 200; i++)
        if (!keeps_ymm(i * (uint64_t)(uintptr_t)argument, i % 4 ? 0 : SIGUSR1))
            return (void *)1;
    return NULL;
}

int main(void)
{
    exceptions();
    if (has_avx()) {
        pthread_t threads[4];
        void *wrong;
        signal(SIGUSR1, clobber);
        CHECK(keeps_ymm(0x1234567, SIGUSR1) && handled == 1);
        for (long i = 0; i < 4; i++)
            pthread_create(&threads[i], NULL, vectors, (void *)(i + 3));
        for (int i = 0; i < 4; i++) {
            pthread_join(threads[i], &wrong);
            CHECK(!wrong);
        }
    }
    return 0;
}
