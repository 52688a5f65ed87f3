/* PTRACE_SINGLESTEP, breakpoints in code, and a program that sets the trap flag itself. */
#include "ptrace.h"

#include <sys/mman.h>

__attribute__((noinline)) static int code(int x)
{
    __asm__ volatile("" ::: "memory");
    return x * 3 + 1;
}

static void three_body(void)
{
    __asm__ volatile("int3\n\tnop\n\tmov $5, %%ecx\n1:\tdec %%ecx\n\tjnz 1b\n\tnop" ::: "ecx");
    _exit(0);
}

static void step(pid_t pid, int signo)
{
    CHECK(ptrace(PTRACE_SINGLESTEP, pid, 0, signo) == 0);
}

static void instructions(void)
{
    siginfo_t info;
    pid_t pid = traced(three_body);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_stop(pid, SIGTRAP, 0);
    unsigned long rip = regs_of(pid).rip;
    step(pid, 0);
    expect_stop(pid, SIGTRAP, 0);
    struct user_regs_struct r = regs_of(pid);
    CHECK(r.rip == rip + 1);
    CHECK(!(r.eflags & 0x100)); /* the trap flag is the tracer's business */
    CHECK(ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0);
    CHECK(info.si_signo == SIGTRAP && info.si_code == TRAP_TRACE);
    CHECK(info.si_addr == (void *)r.rip);
    step(pid, 0);
    expect_stop(pid, SIGTRAP, 0);
    for (int i = 5; i > 0; i--) {
        CHECK(regs_of(pid).rcx == i);
        step(pid, 0);
        expect_stop(pid, SIGTRAP, 0);
        step(pid, 0);
        expect_stop(pid, SIGTRAP, 0);
    }
    CHECK(regs_of(pid).rcx == 0);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_exit(pid, 0);
}

static volatile int handled;

static void on_signal(int signo)
{
    handled = signo;
}

static void handler_body(void)
{
    signal(SIGUSR1, on_signal);
    raise(SIGUSR1);
    _exit(handled == SIGUSR1 ? 0 : 1);
}

static void into_a_handler(void)
{
    pid_t pid = traced(handler_body);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_stop(pid, SIGUSR1, 0);
    step(pid, SIGUSR1);
    expect_stop(pid, SIGTRAP, 0);
    struct user_regs_struct r = regs_of(pid);
    CHECK(r.rip == (unsigned long)on_signal && r.rdi == SIGUSR1);
    /* the flags that sigreturn restores have no trap flag */
    long flags = ptrace(PTRACE_PEEKDATA, pid, r.rsp + 8 + 40 + 17 * 8, 0);
    CHECK(flags & 0x200 && !(flags & 0x100));
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_exit(pid, 0);
}

static void call_body(void)
{
    long result;
    __asm__ volatile("int3\n\tsyscall\n\tnop\n\tnop" : "=a"(result) : "a"(SYS_getppid)
                     : "rcx", "r11", "memory");
    _exit(result == getppid() ? 0 : 1);
}

static void over_a_call(void)
{
    siginfo_t info;
    pid_t pid = traced(call_body);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_stop(pid, SIGTRAP, 0);
    unsigned long rip = regs_of(pid).rip;
    step(pid, 0);
    expect_stop(pid, SIGTRAP, 0);
    struct user_regs_struct r = regs_of(pid);
    CHECK(r.rip == rip + 2 && r.rax == getpid());
    CHECK(ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0);
    CHECK(info.si_code == TRAP_BRKPT);
    step(pid, 0);
    expect_stop(pid, SIGTRAP, 0);
    CHECK(regs_of(pid).rip == rip + 3);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_exit(pid, 0);
}

static void breakpoint_body(void)
{
    int sum = 0;
    for (int i = 0; i < 3; i++)
        sum += code(i);
    raise(SIGUSR2);
    _exit(sum + code(0));
}

/* An int3 in code that other processes use too, stepped over three times, then taken away. */
static void breakpoint(void)
{
    pid_t pid = traced(breakpoint_body);
    long old = ptrace(PTRACE_PEEKTEXT, pid, code, 0);
    CHECK(ptrace(PTRACE_POKETEXT, pid, code, (old & ~0xffL) | 0xcc) == 0);
    CHECK(*(volatile unsigned char *)code == (old & 0xff)); /* this process has its own page */
    CHECK(code(1) == 4);
    for (int i = 0; i < 3; i++) {
        CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
        expect_stop(pid, SIGTRAP, 0);
        struct user_regs_struct r = regs_of(pid);
        CHECK(r.rip == (unsigned long)code + 1 && r.rdi == i);
        r.rip--;
        CHECK(ptrace(PTRACE_SETREGS, pid, 0, &r) == 0);
        CHECK(ptrace(PTRACE_POKETEXT, pid, code, old) == 0);
        step(pid, 0);
        expect_stop(pid, SIGTRAP, 0);
        CHECK(regs_of(pid).rip > (unsigned long)code);
        CHECK(ptrace(PTRACE_POKETEXT, pid, code, (old & ~0xffL) | 0xcc) == 0);
    }
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_stop(pid, SIGUSR2, 0);
    CHECK(ptrace(PTRACE_POKETEXT, pid, code, old) == 0);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_exit(pid, 12 + 1);
    /* another process, started later, runs the file's code */
    pid = fork();
    if (pid == 0)
        _exit(code(2));
    expect_exit(pid, 7);
}

static volatile int traps;

static void on_trap(int signo)
{
    traps++;
}

/* Without a tracer: the trap flag stays set over the handler, so each instruction traps. */
static void own_flag(void)
{
    signal(SIGTRAP, on_trap);
    __asm__ volatile("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\tnop\n\tnop\n\tnop\n\t"
                     "pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq\n\tnop" ::: "memory", "cc");
    CHECK(traps == 6); /* after popfq the trap comes behind the next instruction */
    signal(SIGTRAP, SIG_DFL);
}

static void emulate_body(void)
{
    long result;
    __asm__ volatile("int3\n\tnop\n\tsyscall\n\tnop" : "=a"(result) : "a"(SYS_getppid)
                     : "rcx", "r11", "memory");
    _exit(result == 55 ? 0 : 1);
}

static void emulated_steps(void)
{
    pid_t pid = traced(emulate_body);
    CHECK(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD) == 0);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_stop(pid, SIGTRAP, 0);
    CHECK(ptrace(PTRACE_SYSEMU_SINGLESTEP, pid, 0, 0) == 0);
    expect_stop(pid, SIGTRAP, 0);
    CHECK(ptrace(PTRACE_SYSEMU_SINGLESTEP, pid, 0, 0) == 0);
    expect_stop(pid, SIGTRAP | 0x80, 0);
    CHECK(regs_of(pid).orig_rax == SYS_getppid);
    CHECK(ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.rax), 55) == 0);
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    expect_exit(pid, 0);
}

int main(void)
{
    instructions();
    into_a_handler();
    over_a_call();
    breakpoint();
    own_flag();
    emulated_steps();
    return 0;
}
