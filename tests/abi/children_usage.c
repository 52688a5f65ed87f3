/* What getrusage(2) and wait4(2) say of children: of those that are waited for, and no others. */
#define _GNU_SOURCE
#include "abi.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1 << 20)

static long us(const struct rusage *usage)
{
    return usage->ru_utime.tv_sec * 1000000 + usage->ru_utime.tv_usec +
           usage->ru_stime.tv_sec * 1000000 + usage->ru_stime.tv_usec;
}

static struct rusage of(int who)
{
    struct rusage usage;
    CHECK(getrusage(who, &usage) == 0);
    return usage;
}

static void consume(int mib)
{
    char *memory = mmap(NULL, mib * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    memset(memory, 1, mib * MIB);
}

static void burn(long wanted)
{
    struct rusage usage;
    do {
        for (volatile int i = 0; i < 100000; i++)
            ;
        usage = of(RUSAGE_SELF);
    } while (us(&usage) < wanted);
}

static pid_t child(int mib, long cpu_us)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        if (mib)
            consume(mib);
        burn(cpu_us);
        _exit(0);
    }
    return pid;
}

/* The child's and its children's, once it is waited for. */
static void waited_for(void)
{
    struct rusage usage;
    siginfo_t info;
    CHECK(of(RUSAGE_CHILDREN).ru_maxrss == 0);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(of(RUSAGE_CHILDREN).ru_maxrss == 0);
        CHECK(waitpid(child(24, 0), NULL, 0) > 0);
        CHECK(of(RUSAGE_CHILDREN).ru_maxrss >= 24 * 1024);
        burn(20000);
        _exit(0);
    }
    CHECK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT) == 0);
    CHECK(of(RUSAGE_CHILDREN).ru_maxrss == 0);
    CHECK(wait4(pid, NULL, 0, &usage) == pid);
    CHECK(usage.ru_maxrss >= 24 * 1024 && usage.ru_maxrss < 120 * 1024);
    CHECK(us(&usage) >= 20000);
    usage = of(RUSAGE_CHILDREN);
    CHECK(usage.ru_maxrss >= 24 * 1024 && us(&usage) >= 20000);
    pid = child(8, 0);
    CHECK(wait4(pid, NULL, 0, &usage) == pid);
    CHECK(usage.ru_maxrss >= 8 * 1024 && usage.ru_maxrss < 24 * 1024);
    CHECK(of(RUSAGE_CHILDREN).ru_maxrss >= 24 * 1024); /* the largest of them */
}

/* A child that nobody has to wait for leaves nothing. */
static void ignored(void)
{
    struct rusage before = of(RUSAGE_CHILDREN), after;
    signal(SIGCHLD, SIG_IGN);
    child(64, 20000);
    CHECK_ERR(wait(NULL), ECHILD);
    after = of(RUSAGE_CHILDREN);
    CHECK(after.ru_maxrss == before.ru_maxrss && us(&after) == us(&before));
    signal(SIGCHLD, SIG_DFL);
}

/* A stopped child lives: what it has used so far. */
static void stopped(void)
{
    struct rusage usage;
    pid_t pid = fork();
    if (pid == 0) {
        burn(20000);
        raise(SIGSTOP);
        _exit(0);
    }
    CHECK(wait4(pid, NULL, WUNTRACED, &usage) == pid && us(&usage) >= 20000);
    CHECK(kill(pid, SIGCONT) == 0 && waitpid(pid, NULL, 0) == pid);
}

/* The maximum stays when the program does not. */
static void execs(char *self)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        consume(32);
        execl(self, self, "32", NULL);
        _exit(1);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        CHECK(of(RUSAGE_SELF).ru_maxrss >= atoi(argv[1]) * 1024);
        return 0;
    }
    waited_for();
    ignored();
    stopped();
    execs(argv[0]);
    return 0;
}
