/* Debug registers: watchpoints and breakpoints of a tracer. */
#include "ptrace.h"

static volatile long watched, other;
static volatile char small[8];

__attribute__((noinline)) static void function(void)
{
    __asm__ volatile("nop" ::: "memory");
}

static void body(void)
{
    watched = 1;
    other = 2;
    watched = 3;
    function();
    small[3] = 1;
    small[2] = 1;
    syscall(SYS_getppid);
    function();
    _exit(0);
}

#define DR(n) (offsetof(struct user, u_debugreg) + 8 * (n))
#define ENABLE(n, kind, length) (1l << 2 * (n) | (long)(kind) << (16 + 4 * (n)) | (long)(length) << (18 + 4 * (n)))
enum { EXECUTE, WRITE };
enum { ONE, TWO, EIGHT, FOUR };

static void put(pid_t pid, int n, long value)
{
    CHECK(ptrace(PTRACE_POKEUSER, pid, DR(n), value) == 0);
}

static long get(pid_t pid, int n)
{
    errno = 0;
    long value = ptrace(PTRACE_PEEKUSER, pid, DR(n), 0);
    CHECK(!errno);
    return value;
}

static void go(pid_t pid, unsigned long hit)
{
    siginfo_t info;
    put(pid, 6, 0);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_stop(pid, SIGTRAP, 0);
    CHECK(ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0);
    CHECK(info.si_code == TRAP_HWBKPT);
    CHECK((get(pid, 6) & 0x400f) == hit);
    CHECK(!(regs_of(pid).eflags & 0x100));
}

static void hits(void)
{
    pid_t pid = traced(body);
    CHECK(get(pid, 0) == 0 && get(pid, 7) == 0);
    put(pid, 0, (long)&watched);
    put(pid, 1, (long)function);
    put(pid, 2, (long)&small[2]);
    put(pid, 7, ENABLE(0, WRITE, EIGHT) | ENABLE(1, EXECUTE, ONE));
    CHECK(get(pid, 0) == (long)&watched);
    CHECK((get(pid, 7) & ~0x400) == (ENABLE(0, WRITE, EIGHT) | ENABLE(1, EXECUTE, ONE)));
    go(pid, 1);
    CHECK(ptrace(PTRACE_PEEKDATA, pid, &watched, 0) == 1);
    go(pid, 1);
    CHECK(ptrace(PTRACE_PEEKDATA, pid, &watched, 0) == 3);
    CHECK(ptrace(PTRACE_PEEKDATA, pid, &other, 0) == 2);
    go(pid, 2);
    CHECK(regs_of(pid).rip == (unsigned long)function);
    put(pid, 7, ENABLE(1, EXECUTE, ONE) | ENABLE(2, WRITE, TWO));
    go(pid, 4);
    go(pid, 4);
    CHECK(ptrace(PTRACE_PEEKDATA, pid, small, 0) == 0x01010000);
    go(pid, 2); /* over a system call */
    put(pid, 7, 0);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_exit(pid, 0);
}

static void steps_and_errors(void)
{
    pid_t pid = traced(body);
    CHECK(ptrace(PTRACE_SINGLESTEP, pid, 0, 0) == 0);
    expect_stop(pid, SIGTRAP, 0);
    CHECK(ptrace(PTRACE_SINGLESTEP, pid, 0, 0) == 0);
    expect_stop(pid, SIGTRAP, 0);
    CHECK(get(pid, 6) & 0x4000);
    CHECK_ERR(ptrace(PTRACE_POKEUSER, pid, DR(4), 0), EIO);
    CHECK_ERR(ptrace(PTRACE_POKEUSER, pid, DR(5), 0), EIO);
    CHECK_ERR(ptrace(PTRACE_POKEUSER, pid, DR(0), -8l), EINVAL);
    put(pid, 0, (long)&small[1]);
    CHECK_ERR(ptrace(PTRACE_POKEUSER, pid, DR(7), ENABLE(0, WRITE, TWO)), EINVAL);
    put(pid, 0, (long)&small[2]);
    CHECK_ERR(ptrace(PTRACE_POKEUSER, pid, DR(7), ENABLE(0, EXECUTE, TWO)), EINVAL);
    CHECK_ERR(ptrace(PTRACE_POKEUSER, pid, DR(7), ENABLE(0, 2, ONE)), EINVAL);
    CHECK(ptrace(PTRACE_KILL, pid, 0, 0) == 0);
    expect_killed(pid, SIGKILL);
}

int main(void)
{
    hits();
    steps_and_errors();
    return 0;
}
