/* prctl(2) PR_SET_SYSCALL_USER_DISPATCH: calls that become a SIGSYS. */
#define _GNU_SOURCE
#include "abi.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define SET 59 /* PR_SET_SYSCALL_USER_DISPATCH */
#define NUMBER 0xbeef

static volatile unsigned char selector;
static volatile int caught, caught_call, caught_code;
static volatile long caught_rax;
static volatile void *caught_at;

static long call(long number)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(0) : "rcx", "r11", "memory");
    return result;
}

static void on_call(int sig, siginfo_t *info, void *context)
{
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

    selector = 0;
    caught++;
    caught_call = info->si_syscall;
    caught_code = info->si_code;
    caught_rax = regs[REG_RAX];
    caught_at = info->si_call_addr;
    CHECK(info->si_call_addr == (void *)regs[REG_RIP] && info->si_errno == 0);
    regs[REG_RAX] = 77;
}

static void wrong(void)
{
    CHECK_ERR(prctl(SET, 2, 0, 0, 0), EINVAL);
    CHECK_ERR(prctl(SET, -1, 0, 0, &selector), EINVAL);
    CHECK_ERR(prctl(SET, 0, 1, 0, 0), EINVAL);
    CHECK_ERR(prctl(SET, 0, 0, 1, 0), EINVAL);
    CHECK_ERR(prctl(SET, 0, 0, 0, &selector), EINVAL);
    CHECK_ERR(prctl(SET, 1, 1, 0, &selector), EINVAL);
    CHECK_ERR(prctl(SET, 1, 1, -1L, &selector), EINVAL);
    CHECK_ERR(prctl(SET, 1, 1, -1L, -1L), EINVAL);
    CHECK_ERR(prctl(SET, 1, 0, 0, -1L), EFAULT);
    CHECK(prctl(SET, 0, 0, 0, 0) == 0);
}

static void dispatched(void)
{
    struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO};
    int me = getpid();

    CHECK(sigaction(SIGSYS, &action, NULL) == 0);
    CHECK(prctl(SET, 1, 0, 0, &selector) == 0);
    CHECK(call(SYS_getpid) == me && caught == 0);
    selector = 1;
    long result = call(NUMBER);
    CHECK(result == 77 && caught == 1 && caught_call == NUMBER && caught_code == 2);
    CHECK(caught_rax == NUMBER && caught_at > (void *)call);
    selector = 1;
    result = call(SYS_getpid); /* one that is answered quickly otherwise */
    CHECK(result == 77 && caught == 2 && caught_call == SYS_getpid);
    int child = fork(), status;
    if (child == 0) { /* has it not */
        selector = 1;
        _exit(call(SYS_gettid) != call(SYS_getpid));
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0 && caught == 2);
    CHECK(prctl(SET, 0, 0, 0, 0) == 0);
    selector = 1;
    CHECK(call(SYS_getpid) == me && caught == 2);
    CHECK(prctl(SET, 1, 0, -1L, &selector) == 0); /* all of memory may call */
    CHECK(call(SYS_getpid) == me && prctl(SET, 0, 0, 0, 0) == 0);
    selector = 0;
}

/* What a child ends with that makes a call under this selector. */
static int fate(volatile unsigned char *where, int value)
{
    int child = fork(), status;

    if (child == 0) {
        if (value >= 0)
            *where = 0;
        CHECK(prctl(SET, 1, 0, 0, where) == 0);
        if (value >= 0)
            *where = value;
        call(SYS_getpid);
        if (value >= 0)
            *where = 0;
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

int main(void)
{
    if (prctl(SET, 0, 0, 0, 0) == -1 && errno == EINVAL)
        return 0; /* before Linux 5.11 */
    wrong();
    dispatched();
    CHECK(fate(&selector, 0) == 0 && fate(&selector, 1) == 0);
    CHECK((fate(&selector, 2) & 127) == SIGSYS);
    unsigned char *gone = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK((fate(gone, -1) & 127) == SIGSEGV);
    CHECK((fate(NULL, -1) & 127) == SIGSYS); /* not even the return of the handler */
    return 0;
}
