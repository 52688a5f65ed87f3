/* Handlers, masks, queueing: sigaction(2), sigprocmask(2), sigqueue(3), signal(7). */
#define _GNU_SOURCE
#include "abi.h"
#include <signal.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static volatile int calls, order[16], depth, deepest;
static siginfo_t last;

static void note(int signo, siginfo_t *info, void *context)
{
    (void)context;
    order[calls++ & 15] = signo;
    last = *info;
}

static void nesting(int signo)
{
    calls++;
    if (++depth > deepest)
        deepest = depth;
    if (calls < 3)
        raise(signo);
    depth--;
}

static void install(int signo, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    CHECK(sigaction(signo, &action, NULL) == 0);
}

static void kill_tells_who(void)
{
    install(SIGUSR1, note, 0);
    calls = 0;
    CHECK(kill(getpid(), SIGUSR1) == 0);
    CHECK(calls == 1 && last.si_signo == SIGUSR1 && last.si_code == SI_USER);
    CHECK(last.si_pid == getpid() && last.si_uid == getuid());
    CHECK(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1) == 0);
    CHECK(calls == 2 && last.si_code == SI_TKILL && last.si_pid == getpid());
}

static void blocked_ones_wait(void)
{
    sigset_t set, old, pending;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    install(SIGUSR2, note, 0);
    CHECK(sigprocmask(SIG_BLOCK, &set, &old) == 0);
    CHECK(!sigismember(&old, SIGUSR1));
    calls = 0;
    kill(getpid(), SIGUSR2);
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGUSR1);
    CHECK(calls == 0);
    CHECK(sigpending(&pending) == 0);
    CHECK(sigismember(&pending, SIGUSR1) && sigismember(&pending, SIGUSR2));
    CHECK(!sigismember(&pending, SIGTERM));
    CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0);
    /* once each; the frames stack up, so the later one pushed runs first */
    CHECK(calls == 2 && order[0] == SIGUSR2 && order[1] == SIGUSR1);
    CHECK(sigpending(&pending) == 0 && !sigismember(&pending, SIGUSR1));
}

static int values[8];
static void note_value(int signo, siginfo_t *info, void *context)
{
    (void)signo;
    (void)context;
    values[calls++] = info->si_value.sival_int;
    last = *info;
}

static void real_time_ones_queue(void)
{
    int signo = SIGRTMIN + 3;
    sigset_t set, old;
    install(signo, note_value, 0);
    sigemptyset(&set);
    sigaddset(&set, signo);
    sigprocmask(SIG_BLOCK, &set, &old);
    calls = 0;
    for (int i = 1; i <= 4; i++)
        CHECK(sigqueue(getpid(), signo, (union sigval){.sival_int = i * 11}) == 0);
    sigprocmask(SIG_SETMASK, &old, NULL);
    CHECK(calls == 4 && last.si_code == SI_QUEUE && last.si_pid == getpid());
    for (int i = 0; i < 4; i++)
        CHECK(values[i] == (i + 1) * 11);
}

static void mask_during_the_handler(void)
{
    struct sigaction action = {.sa_handler = nesting};
    sigaction(SIGUSR1, &action, NULL);
    calls = depth = deepest = 0;
    raise(SIGUSR1);
    CHECK(calls == 3 && deepest == 1);
    action.sa_flags = SA_NODEFER;
    sigaction(SIGUSR1, &action, NULL);
    calls = depth = deepest = 0;
    raise(SIGUSR1);
    CHECK(calls == 3 && deepest == 3);
}

static void once_only(void)
{
    struct sigaction now;
    install(SIGUSR1, note, SA_RESETHAND);
    calls = 0;
    raise(SIGUSR1);
    CHECK(calls == 1);
    CHECK(sigaction(SIGUSR1, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
}

static void ignoring_drops_what_is_pending(void)
{
    sigset_t set, old, pending;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    install(SIGUSR1, note, 0);
    sigprocmask(SIG_BLOCK, &set, &old);
    raise(SIGUSR1);
    signal(SIGUSR1, SIG_IGN);
    sigpending(&pending);
    CHECK(!sigismember(&pending, SIGUSR1));
    /* a blocked signal is not dropped for being ignored: the action may change */
    raise(SIGUSR1);
    sigpending(&pending);
    CHECK(sigismember(&pending, SIGUSR1));
    sigprocmask(SIG_SETMASK, &old, NULL);
}

static void actions_read_back(void)
{
    struct sigaction set = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | SA_RESTART}, got;
    sigemptyset(&set.sa_mask);
    sigaddset(&set.sa_mask, SIGTERM);
    sigaddset(&set.sa_mask, SIGKILL);
    CHECK(sigaction(SIGUSR2, &set, NULL) == 0 && sigaction(SIGUSR2, NULL, &got) == 0);
    CHECK(got.sa_sigaction == note && (got.sa_flags & SA_RESTART) && (got.sa_flags & SA_SIGINFO));
    CHECK(sigismember(&got.sa_mask, SIGTERM) && !sigismember(&got.sa_mask, SIGKILL));
    sigset_t all, now;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &now);
    sigprocmask(SIG_SETMASK, &now, &all);
    CHECK(sigismember(&all, SIGTERM) && !sigismember(&all, SIGKILL) && !sigismember(&all, SIGSTOP));
}

int main(void)
{
    kill_tells_who();
    blocked_ones_wait();
    real_time_ones_queue();
    mask_during_the_handler();
    once_only();
    ignoring_drops_what_is_pending();
    actions_read_back();
    return 0;
}
