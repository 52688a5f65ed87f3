/* CPU exceptions as signals: number, code, address, and what the frame says of them. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf jump;
static siginfo_t info;
static long trapno, error_code, cr2, rip;
static volatile int zero;

static void caught(int signo, siginfo_t *details, void *context)
{
    ucontext_t *uc = context;
    (void)signo;
    info = *details;
    trapno = uc->uc_mcontext.gregs[REG_TRAPNO];
    error_code = uc->uc_mcontext.gregs[REG_ERR];
    cr2 = uc->uc_mcontext.gregs[REG_CR2];
    rip = uc->uc_mcontext.gregs[REG_RIP];
    siglongjmp(jump, 1);
}

#define TRAP(statement)          \
    do {                         \
        info.si_signo = 0;       \
        if (!sigsetjmp(jump, 1)) \
            statement;           \
    } while (0)

static int status_of(void (*run)(void))
{
    pid_t child = fork();
    if (!child) {
        run();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

static void divide(void)
{
    int quotient = 1;
    __asm__ volatile("cltd\n idivl %1" : "+a"(quotient) : "m"(zero) : "edx", "cc");
}

static void store_null(void)
{
    *(volatile char *)16 = 1;
}

static void blocked_fault(void)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    store_null();
}

static void ignored_fault(void)
{
    signal(SIGSEGV, SIG_IGN);
    store_null();
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
    int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (unsigned i = 0; i < 5; i++)
        sigaction(signals[i], &action, NULL);

    TRAP(store_null());
    CHECK(info.si_signo == SIGSEGV && info.si_code == SEGV_MAPERR && info.si_addr == (void *)16);
    CHECK(trapno == 14 && error_code == 6 && cr2 == 16);
    TRAP((void)*(volatile char *)16);
    CHECK(info.si_code == SEGV_MAPERR && error_code == 4);

    char *page = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED && page[0] == 0);
    TRAP(page[5] = 1);
    CHECK(info.si_signo == SIGSEGV && info.si_code == SEGV_ACCERR && info.si_addr == page + 5);
    CHECK(error_code == 7 && cr2 == (long)(page + 5));
    TRAP(((void (*)(void))(page + 4096))());
    CHECK(info.si_signo == SIGSEGV && info.si_code == SEGV_ACCERR && info.si_addr == page + 4096);
    CHECK((error_code & 0x14) == 0x14 && rip == (long)(page + 4096));

    /* not canonical: a general protection fault without an address */
    TRAP((void)*(volatile char *)0x800000000000ff00);
    CHECK(info.si_signo == SIGSEGV && info.si_code == SI_KERNEL && info.si_addr == NULL);
    CHECK(trapno == 13 && error_code == 0);
    /* the kernel's half */
    TRAP((void)*(volatile char *)0xffffffff81000000);
    CHECK(info.si_signo == SIGSEGV && info.si_code == SEGV_MAPERR);
    CHECK(info.si_addr == (void *)0xffffffff81000000 && (error_code & 5) == 5);

    TRAP(divide());
    CHECK(info.si_signo == SIGFPE && info.si_code == FPE_INTDIV && trapno == 0);
    CHECK(info.si_addr == (void *)rip);
    TRAP(__asm__ volatile("ud2"));
    CHECK(info.si_signo == SIGILL && info.si_code == ILL_ILLOPN && trapno == 6);
    CHECK(info.si_addr == (void *)rip);
    TRAP(__asm__ volatile("int3"));
    CHECK(info.si_signo == SIGTRAP && info.si_code == SI_KERNEL && trapno == 3);
    CHECK(((unsigned char *)rip)[-1] == 0xcc);
    TRAP(__asm__ volatile("hlt"));
    CHECK(info.si_signo == SIGSEGV && info.si_code == SI_KERNEL && trapno == 13);
    TRAP(__asm__ volatile("pushfq\n orq $0x100, (%%rsp)\n popfq\n nop\n nop" ::: "memory", "cc"));
    CHECK(info.si_signo == SIGTRAP && info.si_code == TRAP_TRACE && trapno == 1);

    char name[] = "/tmp/abi-signals-XXXXXX";
    int fd = mkstemp(name);
    CHECK(fd >= 0 && unlink(name) == 0 && ftruncate(fd, 100) == 0);
    char *file = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(file != MAP_FAILED);
    TRAP(file[4096] = 1);
    CHECK(info.si_signo == SIGBUS && info.si_code == BUS_ADRERR && info.si_addr == file + 4096);

    /* a fault can be repaired and tried again */
    CHECK((status_of(blocked_fault) & 0x7f) == SIGSEGV);
    CHECK((status_of(ignored_fault) & 0x7f) == SIGSEGV);
    for (unsigned i = 0; i < 5; i++)
        signal(signals[i], SIG_DFL);
    CHECK((status_of(store_null) & 0x7f) == SIGSEGV);
    CHECK((status_of(divide) & 0x7f) == SIGFPE);
    CHECK((status_of(abort) & 0x7f) == SIGABRT);
    return 0;
}
