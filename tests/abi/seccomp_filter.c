/* seccomp(2): filters, what their actions do, who inherits them, what is refused. */
#define _GNU_SOURCE
#include "abi.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, (value))
#define SAME(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (yes), (no))
#define LEN(array) (sizeof(array) / sizeof((array)[0]))

static siginfo_t info;
static long rax, rip;

static long seccomp(unsigned operation, unsigned flags, void *args)
{
    return syscall(SYS_seccomp, operation, flags, args);
}

static long install(struct sock_filter *code, unsigned short length, unsigned flags)
{
    struct sock_fprog program = {length, code};
    return seccomp(SECCOMP_SET_MODE_FILTER, flags, &program);
}

/* One call gets this action. */
static long on(long number, unsigned action)
{
    struct sock_filter code[] = {
        LOAD(nr), SAME(number, 0, 1), RETURN(action), RETURN(SECCOMP_RET_ALLOW)};
    return install(code, LEN(code), 0);
}

static int status_of(void (*run)(void))
{
    pid_t child = fork();
    if (!child) {
        CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        run();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

#define PASSES(run) CHECK(status_of(run) == 0)
#define DIES(run, signo)                                             \
    do {                                                             \
        int status_ = status_of(run);                                \
        CHECK(WIFSIGNALED(status_) && WTERMSIG(status_) == (signo)); \
    } while (0)

static void caught(int signo, siginfo_t *details, void *context)
{
    ucontext_t *uc = context;
    (void)signo;
    info = *details;
    rax = uc->uc_mcontext.gregs[REG_RAX];
    rip = uc->uc_mcontext.gregs[REG_RIP];
}

static int field_of(pid_t pid, const char *name)
{
    char path[64], line[256], found[64];
    int value = -1;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    snprintf(found, sizeof found, "%s:", name);
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, found, strlen(found)))
            value = atoi(line + strlen(found));
    fclose(file);
    return value;
}

static int status_field(const char *name)
{
    return field_of(getpid(), name);
}

static void errnos(void)
{
    int before = status_field("Seccomp_filters");
    CHECK(on(SYS_getppid, SECCOMP_RET_ERRNO | 77) == 0);
    CHECK_ERR(syscall(SYS_getppid), 77);
    CHECK(prctl(PR_GET_SECCOMP) == 2);
    CHECK(status_field("Seccomp") == 2);
    CHECK(status_field("Seccomp_filters") == before + 1);
    CHECK(on(SYS_getuid, SECCOMP_RET_ERRNO | 0) == 0);
    CHECK(syscall(SYS_getuid) == 0);
    CHECK(on(SYS_getpgrp, SECCOMP_RET_ERRNO | 0xffff) == 0);
    CHECK_ERR(syscall(SYS_getpgrp), 4095);
    CHECK(on(SYS_getsid, SECCOMP_RET_TRACE | 5) == 0);
    CHECK_ERR(syscall(SYS_getsid, 0), ENOSYS);
    CHECK(on(SYS_getgid, SECCOMP_RET_LOG) == 0);
    CHECK(syscall(SYS_getgid) == getgid());
    CHECK(on(1000, SECCOMP_RET_ERRNO | 5) == 0);
    CHECK_ERR(syscall(1000), 5);
}

/* Calls that a kernel may answer by a short way are filtered too. */
static void short_ways(void)
{
    CHECK(getpid() > 0 && syscall(SYS_gettid) > 0);
    CHECK(on(SYS_getpid, SECCOMP_RET_ERRNO | 1) == 0);
    CHECK(on(SYS_gettid, SECCOMP_RET_ERRNO | 2) == 0);
    CHECK(on(SYS_sched_yield, SECCOMP_RET_ERRNO | 3) == 0);
    CHECK_ERR(syscall(SYS_getpid), 1);
    CHECK_ERR(syscall(SYS_gettid), 2);
    CHECK_ERR(syscall(SYS_sched_yield), 3);
    pid_t child = fork();
    if (!child) {
        CHECK_ERR(syscall(SYS_getpid), 1);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* The strictest action counts, of equal ones that of the newest filter. */
static void order(void)
{
    CHECK(on(SYS_getppid, SECCOMP_RET_ERRNO | 1) == 0);
    CHECK(on(SYS_getppid, SECCOMP_RET_ERRNO | 2) == 0);
    CHECK_ERR(syscall(SYS_getppid), 2);
    CHECK(on(SYS_getppid, SECCOMP_RET_LOG) == 0);
    CHECK_ERR(syscall(SYS_getppid), 2);
    CHECK(on(SYS_getppid, SECCOMP_RET_KILL_THREAD) == 0);
    syscall(SYS_getppid);
}

static void arguments(void)
{
    struct sock_filter code[] = {
        LOAD(arch), SAME(AUDIT_ARCH_X86_64, 0, 11),
        LOAD(nr), SAME(SYS_getpriority, 0, 8),
        LOAD(args[0]), SAME(0x89abcdef, 0, 6),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5]) + 4),
        SAME(0x76543210, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0), SAME(64, 0, 2),
        BPF_STMT(BPF_LD | BPF_IMM, 0), RETURN(SECCOMP_RET_ERRNO | 9),
        RETURN(SECCOMP_RET_ALLOW), RETURN(SECCOMP_RET_KILL_PROCESS)};
    CHECK(install(code, LEN(code), SECCOMP_FILTER_FLAG_SPEC_ALLOW) == 0);
    CHECK_ERR(syscall(SYS_getpriority, 0x89abcdefL, 0, 0, 0, 0, 0x7654321000000000L), 9);
    CHECK_ERR(syscall(SYS_getpriority, 0x89abcdefL, 0, 0, 0, 0, 0x7654321100000000L), EINVAL);
}

static __attribute__((noinline, noclone)) long direct(long number)
{
    long result;
    __asm__ volatile("syscall\n .globl after_call\nafter_call:"
                     : "=a"(result) : "a"(number) : "rcx", "r11", "memory");
    return result;
}
extern char after_call[];

static void traps(void)
{
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGSYS, &action, NULL) == 0);
    CHECK(on(SYS_getppid, SECCOMP_RET_TRAP | 0x1234) == 0);
    CHECK(direct(SYS_getppid) == SYS_getppid);
    CHECK(info.si_signo == SIGSYS && info.si_code == 1 && info.si_errno == 0x1234);
    CHECK(info.si_call_addr == (void *)after_call && rip == (long)after_call);
    CHECK(info.si_syscall == SYS_getppid && info.si_arch == AUDIT_ARCH_X86_64);
    CHECK(rax == SYS_getppid);
}

/* The filter sees where a call is made from. */
static void pointer(void)
{
    struct sock_filter code[] = {
        LOAD(nr), SAME(SYS_getppid, 0, 3),
        LOAD(instruction_pointer), SAME((uint32_t)(uintptr_t)after_call, 0, 1),
        RETURN(SECCOMP_RET_ERRNO | 3), RETURN(SECCOMP_RET_ALLOW)};
    CHECK(install(code, LEN(code), 0) == 0);
    CHECK(direct(SYS_getppid) == -3);
    CHECK(syscall(SYS_getppid) == getppid());
}

static void trap_blocked(void)
{
    sigset_t set;
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &action, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGSYS);
    sigprocmask(SIG_BLOCK, &set, NULL);
    on(SYS_getppid, SECCOMP_RET_TRAP);
    syscall(SYS_getppid);
}

static void kill_handled(void)
{
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &action, NULL);
    on(SYS_getppid, SECCOMP_RET_KILL_PROCESS);
    syscall(SYS_getppid);
}

static void unknown_action(void)
{
    on(SYS_getppid, 0x00120000);
    syscall(SYS_getppid);
}

static void strict(void)
{
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
    write(2, "", 0);
    syscall(SYS_exit, 0);
}

static void strict_broken(void)
{
    CHECK(seccomp(SECCOMP_SET_MODE_STRICT, 0, NULL) == 0);
    syscall(SYS_getpid);
}

static void inherited(void)
{
    CHECK(on(SYS_getppid, SECCOMP_RET_ERRNO | 1) == 0);
    execl("/proc/self/exe", "again", NULL);
    _exit(9);
}

static void refused(void)
{
    struct sock_filter fine[] = {RETURN(SECCOMP_RET_ALLOW)};
    struct sock_filter endless[] = {LOAD(nr)};
    struct sock_filter odd[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 2), RETURN(SECCOMP_RET_ALLOW)};
    struct sock_filter beyond[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 64), RETURN(SECCOMP_RET_ALLOW)};
    static struct sock_filter large[4097];
    unsigned action = SECCOMP_RET_TRAP, none = 0x00120000;
    struct seccomp_notif_sizes sizes;
    for (unsigned i = 0; i < LEN(large); i++)
        large[i] = fine[0];

    CHECK_ERR(install(endless, 1, 0), EINVAL);
    CHECK_ERR(install(odd, 2, 0), EINVAL);
    CHECK_ERR(install(beyond, 2, 0), EINVAL);
    CHECK_ERR(install(fine, 0, 0), EINVAL);
    CHECK_ERR(install(large, 4097, 0), EINVAL);
    CHECK_ERR(install(fine, 1, 1 << 20), EINVAL);
    CHECK_ERR(install((void *)16, 1, 0), EFAULT);
    CHECK_ERR(seccomp(SECCOMP_SET_MODE_FILTER, 0, NULL), EFAULT);
    CHECK_ERR(seccomp(SECCOMP_SET_MODE_STRICT, 1, NULL), EINVAL);
    CHECK_ERR(seccomp(99, 0, NULL), EINVAL);
    CHECK_ERR(prctl(PR_SET_SECCOMP, 7, 0), EINVAL);
    CHECK(seccomp(SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0);
    CHECK_ERR(seccomp(SECCOMP_GET_ACTION_AVAIL, 0, &none), EOPNOTSUPP);
    CHECK_ERR(seccomp(SECCOMP_GET_ACTION_AVAIL, 1, &action), EINVAL);
    CHECK(seccomp(SECCOMP_GET_NOTIF_SIZES, 0, &sizes) == 0);
    CHECK(sizes.seccomp_notif == sizeof(struct seccomp_notif) && sizes.seccomp_data == 64);

    int filters = 0;
    while (install(large, 4096, 0) == 0)
        filters++;
    CHECK_ERR(install(large, 4096, 0), ENOMEM);
    CHECK(filters > 0 && filters <= 7);
    CHECK(install(fine, 1, 0) == 0);
    CHECK_ERR(seccomp(SECCOMP_SET_MODE_STRICT, 0, NULL), EINVAL);
}

/* Without no_new_privs a filter needs CAP_SYS_ADMIN. */
static void privileges(void)
{
    pid_t child = fork();
    int status;
    if (!child) {
        CHECK(setresuid(1000, 1000, 1000) == 0);
        CHECK_ERR(on(SYS_getppid, SECCOMP_RET_ERRNO | 1), EACCES);
        CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        CHECK(on(SYS_getppid, SECCOMP_RET_ERRNO | 1) == 0);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* Where this runs natively in a container, that one's filters count, too. In a sandbox there is none. */
static int filters_from_outside;

/* What a zombie had is still told. */
static void zombie(void)
{
    siginfo_t ended;
    int before = status_field("Seccomp_filters");
    pid_t child = fork();
    if (!child) {
        CHECK(on(SYS_getppid, SECCOMP_RET_ERRNO | 1) == 0 && on(SYS_getpgrp, SECCOMP_RET_ERRNO | 1) == 0);
        _exit(0);
    }
    CHECK(waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT) == 0);
    CHECK(field_of(child, "Seccomp") == 2);
    CHECK(field_of(child, "Seccomp_filters") == before + 2);
    CHECK(waitpid(child, NULL, 0) == child);
}

/* MAX_INSNS_PER_PATH: instructions as Linux translates them, of all filters; each older one costs 4
 * more. The smallest filter becomes 5. */
static void many(void)
{
    static struct sock_filter large[BPF_MAXINSNS];
    struct sock_filter small[] = {RETURN(SECCOMP_RET_ALLOW)};
    while (!install(small, 1, 0))
        ;
    CHECK_ERR(install(small, 1, 0), ENOMEM);
    int most = (32768 - 5) / 9 + 1;
    int got = status_field("Seccomp_filters");
    CHECK(filters_from_outside ? got <= most : got == most);
    CHECK(getppid() > 0);
    for (int i = 0; i < BPF_MAXINSNS; i++)
        large[i] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
    CHECK_ERR(install(large, BPF_MAXINSNS, 0), ENOMEM);
}

static void large(void)
{
    static struct sock_filter code[BPF_MAXINSNS];
    for (int i = 0; i < BPF_MAXINSNS - 1; i++)
        code[i] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 1);
    code[BPF_MAXINSNS - 1] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
    for (int i = 0; i < 7 && !filters_from_outside; i++)
        CHECK(install(code, BPF_MAXINSNS, 0) == 0);
    while (filters_from_outside && install(code, BPF_MAXINSNS, 0) == 0)
        ;
    CHECK_ERR(install(code, BPF_MAXINSNS, 0), ENOMEM);
    CHECK(install(code, BPF_MAXINSNS, 0) == -1 && getppid() > 0);
}

int main(int argc, char **argv)
{
    if (!strcmp(argv[0], "again")) {
        CHECK_ERR(syscall(SYS_getppid), 1);
        return 0;
    }
    PASSES(errnos);
    PASSES(short_ways);
    PASSES(arguments);
    PASSES(traps);
    PASSES(pointer);
    PASSES(strict);
    PASSES(inherited);
    PASSES(refused);
    filters_from_outside = status_field("Seccomp_filters");
    PASSES(zombie);
    PASSES(many);
    PASSES(large);
    DIES(order, SIGSYS);
    DIES(trap_blocked, SIGSYS);
    DIES(kill_handled, SIGSYS);
    DIES(unknown_action, SIGSYS);
    DIES(strict_broken, SIGKILL);
    privileges();
    return 0;
}
