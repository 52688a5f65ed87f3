/* Calls that sleep: woken by data, shutdown, close, reset, urgent data, signals;
 SIGPIPE. */
#define _GNU_SOURCE
#include "abi.h"
#include "far.h"
#include "net.h"

#include <pthread.h>
static char buf[100];

static void *closer(void *p)
{
    usleep(20000);
    close(*(int *)p);
    return 0;
}

static void *shutter(void *p)
{
    usleep(20000);
    shutdown(*(int *)p, SHUT_RD);
    return 0;
}

static void *shutall(void *p)
{
    usleep(20000);
    shutdown(*(int *)p, SHUT_RDWR);
    return 0;
}

static void *sender(void *p)
{
    for (int i = 0; i < 5; i++) {
        usleep(5000);
        send(*(int *)p, "ab", 2, 0);
    }
    return 0;
}

static void *connector(void *p)
{
    usleep(20000);
    int c = socket(2, 1, 0);
    connect_to(c, *(int *)p);
    return 0;
}

static void *urgent(void *p)
{
    usleep(20000);
    send(*(int *)p, "abc", 3, MSG_OOB);
    return 0;
}

static void *reset(void *p)
{
    usleep(20000);
    struct linger li = {1, 0};
    setsockopt(*(int *)p, 1, SO_LINGER, &li, 8);
    close(*(int *)p);
    return 0;
}

static pthread_t in_thread(void *(*f)(void *), int *fd)
{
    pthread_t t;
    pthread_create(&t, 0, f, fd);
    return t;
}

static void blocked(void)
{
    int c, s, l, f[2];
    pthread_t t;

    make_pair(&c, &s);
    t = in_thread(closer, &c);
    CHECK(recv(s, buf, 9, 0) == 0);
    pthread_join(t, 0);
    close(s);
    make_pair(&c, &s);
    if (!is_far(s)) { /* calls at the far end are made one by one */
        t = in_thread(shutter, &s);
        CHECK(recv(s, buf, 9, 0) == 0);
        pthread_join(t, 0);
    }
    close(c);
    close(s);
    make_pair(&c, &s);
    t = in_thread(reset, &c);
    CHECK_ERR(recv(s, buf, 9, 0), ECONNRESET);
    pthread_join(t, 0);
    close(s);
    make_pair(&c, &s);
    t = in_thread(sender, &c);
    CHECK(recv(s, buf, 10, MSG_WAITALL) == 10);
    pthread_join(t, 0);
    t = in_thread(sender, &c);
    CHECK(recv(s, buf, 7, MSG_WAITALL | MSG_PEEK) == 7);
    pthread_join(t, 0);
    CHECK(recv(s, buf, 99, 0) == 10);
    set_option(s, 1, SO_RCVLOWAT, 5);
    t = in_thread(sender, &c);
    CHECK(recv(s, buf, 50, 0) >= 5);
    pthread_join(t, 0);
    recv(s, buf, 99, MSG_DONTWAIT);
    set_option(s, 1, SO_RCVLOWAT, 1);
    t = in_thread(urgent, &c);
    CHECK(recv(s, buf, 9, MSG_WAITALL) == 2);
    pthread_join(t, 0);
    close(c);
    close(s);

    l = listener(5);
    if (!is_far(l)) {
        t = in_thread(shutter, &l);
        CHECK_ERR(accept(l, 0, 0), EINVAL);
        pthread_join(t, 0);
    }
    close(l);
    l = listener(5);
    int p = port(l);
    t = in_thread(connector, &p);
    CHECK(accept(l, 0, 0) > 0);
    pthread_join(t, 0);
    close(l);

    for (int kind = 1; kind <= 5; kind++) {
        if (kind == 3 || kind == 4)
            continue;
        socketpair(1, kind, 0, f);
        t = in_thread(shutter, &f[0]);
        CHECK(recv(f[0], buf, 9, 0) == 0);
        pthread_join(t, 0);
        close(f[0]);
        close(f[1]);
        socketpair(1, kind, 0, f);
        t = in_thread(shutall, &f[1]);
        if (kind != 2)
            CHECK(recv(f[0], buf, 9, 0) == 0);
        pthread_join(t, 0);
        close(f[0]);
        close(f[1]);
        socketpair(1, kind, 0, f);
        t = in_thread(sender, &f[1]);
        EACH(recv(f[0], buf, 6, MSG_WAITALL), 6, 2, 2);
        pthread_join(t, 0);
        close(f[0]);
        close(f[1]);
    }
}

static void udp(void)
{
    int s = socket(2, 2, 0);
    if (is_far(s))
        return;
    pthread_t t;
    bind_to(s, 0);
    connect_to(s, port(s));
    t = in_thread(shutall, &s);
    CHECK(recv(s, buf, 9, 0) == 0);
    pthread_join(t, 0);
    close(s);
    s = socket(2, 2, 0);
    bind_to(s, 0);
    set_timeout(s, SO_RCVTIMEO, 10);
    CHECK_ERR(recv(s, buf, 9, 0), EAGAIN);
    CHECK_ERR(recv(s, buf, 9, MSG_WAITALL), EAGAIN);
    close(s);
}

static void handler(int n)
{
}

static void interrupted(void)
{
    int c, s;
    struct sigaction a = {.sa_handler = handler};
    sigaction(SIGALRM, &a, 0);
    make_pair(&c, &s);
    if (is_far(s) || is_far(c)) /* signals are for who is here */
        return;
    struct itimerval it = {{0, 10000}, {0, 10000}}, off = {0};
    setitimer(ITIMER_REAL, &it, 0);
    CHECK_ERR(recv(s, buf, 9, 0), EINTR);
    int l = listener(1);
    setitimer(ITIMER_REAL, &it, 0);
    CHECK_ERR(accept(l, 0, 0), EINTR);
    a.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &a, 0);
    set_timeout(s, SO_RCVTIMEO, 500);
    setitimer(ITIMER_REAL, &it, 0);
    CHECK_ERR(recv(s, buf, 9, 0), EINTR);
    set_timeout(s, SO_RCVTIMEO, 40);
    send(c, "x", 1, 0);
    wait_for(s, POLLIN);
    setitimer(ITIMER_REAL, &it, 0);
    CHECK(recv(s, buf, 9, MSG_WAITALL) == 1);
    setitimer(ITIMER_REAL, &it, 0);
    CHECK_ERR(accept4(l, 0, (void *)0, 0x800000), EINVAL);
    pause();
    setitimer(ITIMER_REAL, &off, 0);
    close(c);
    close(s);
    close(l);

    signal(SIGPIPE, handler);
    make_pair(&c, &s);
    shutdown(c, SHUT_WR);
    signal(SIGPIPE, SIG_DFL);
    pid_t pid = fork();
    if (!pid) {
        send(c, "x", 1, MSG_NOSIGNAL);
        send(c, "x", 1, 0);
        _exit(0);
    }
    int st;
    waitpid(pid, &st, 0);
    CHECK(WTERMSIG(st) == 13);
    pid = fork();
    if (!pid) {
        struct iovec v = {"x", 1};
        struct msghdr m = {0, 0, &v, 1};
        int u[2];
        socketpair(1, 1, 0, u);
        close(u[1]);
        sendmsg(u[0], &m, MSG_NOSIGNAL);
        write(u[0], "x", 1);
        _exit(0);
    }
    waitpid(pid, &st, 0);
    CHECK(WTERMSIG(st) == 13);
    pid = fork();
    if (!pid) {
        int u[2];
        socketpair(1, SOCK_SEQPACKET, 0, u);
        close(u[1]);
        CHECK_ERR(write(u[0], "x", 1), EPIPE);
        fflush(stdout);
        _exit(0);
    }
    waitpid(pid, &st, 0);
    CHECK(st == 0);
    close(c);
    close(s);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    blocked();
    udp();
    interrupted();
    return 0;
}
