/* SCM_RIGHTS and SCM_CREDENTIALS: cut, peeked at, refused, in flight when all ends close. */
#define _GNU_SOURCE
#include "abi.h"
#include "net.h"

static char ctl[2048];
static struct msghdr m;
static struct iovec iv;
static char data[64];

static int nfds;
static int fds[300];
static struct ucred cr;

static int snd(int s, int n, int *f, int flags)
{
    memset(ctl, 0, sizeof ctl);
    iv = (struct iovec){"d", 1};
    m = (struct msghdr){0, 0, &iv, 1, ctl, CMSG_SPACE(4 * n)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(4 * n);
    memcpy(CMSG_DATA(c), f, 4 * n);
    return sendmsg(s, &m, flags);
}

static int scr(int s, int pid, int uid, int gid)
{
    struct ucred u = {pid, uid, gid};
    memset(ctl, 0, sizeof ctl);
    iv = (struct iovec){"d", 1};
    m = (struct msghdr){0, 0, &iv, 1, ctl, CMSG_SPACE(12)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_CREDENTIALS;
    c->cmsg_len = CMSG_LEN(12);
    memcpy(CMSG_DATA(c), &u, 12);
    return sendmsg(s, &m, 0);
}

static int rcv(int s, int room, int flags)
{
    memset(ctl, 0, sizeof ctl);
    iv = (struct iovec){data, 64};
    m = (struct msghdr){0, 0, &iv, 1, ctl, room};
    nfds = 0;
    cr.pid = -9;
    int r = recvmsg(s, &m, flags);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == 1 && c->cmsg_type == 1) {
            nfds = (c->cmsg_len - CMSG_LEN(0)) / 4;
            memcpy(fds, CMSG_DATA(c), 4 * nfds);
        } else if (c->cmsg_level == 1 && c->cmsg_type == 2)
            memcpy(&cr, CMSG_DATA(c), 12);
    return r;
}

static void drop(void)
{
    for (int i = 0; i < nfds; i++)
        close(fds[i]);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    int f[2], p[2], many[300];

    for (int kind = 1; kind <= 5; kind++) {
        if (kind == 3 || kind == 4)
            continue;
        socketpair(AF_UNIX, kind, 0, f);
        pipe(p);
        for (int i = 0; i < 300; i++)
            many[i] = p[1];

        CHECK(snd(f[0], 1, p + 1, 0) == 1);
        CHECK(rcv(f[1], 512, 0) == 1);
        CHECK(nfds == 1);
        CHECK(m.msg_flags == 0);
        CHECK(m.msg_controllen == 24);
        CHECK(fcntl(fds[0], F_GETFD) == 0);
        CHECK(write(fds[0], "x", 1) == 1);
        CHECK(read(p[0], data, 1) == 1);
        drop();

        CHECK(snd(f[0], 1, p + 1, 0) == 1);
        CHECK(rcv(f[1], 512, MSG_CMSG_CLOEXEC) == 1);
        CHECK(fcntl(fds[0], F_GETFD) == 1);
        CHECK(m.msg_flags == MSG_CMSG_CLOEXEC);
        drop();

        CHECK(snd(f[0], 2, p, 0) == 1);
        CHECK(rcv(f[1], CMSG_SPACE(4), 0) == 1);
        CHECK(nfds == 2);
        CHECK(m.msg_flags == 0);
        CHECK(m.msg_controllen == 24);
        drop();
        CHECK(snd(f[0], 3, many, 0) == 1);
        CHECK(rcv(f[1], CMSG_SPACE(4), 0) == 1);
        CHECK(nfds == 2);
        CHECK(m.msg_flags == 8);
        CHECK(m.msg_controllen == 24);
        drop();
        CHECK(snd(f[0], 1, p, 0) == 1);
        CHECK(rcv(f[1], CMSG_LEN(3), 0) == 1);
        CHECK(nfds == 0);
        CHECK(m.msg_flags == 8);
        CHECK(m.msg_controllen == 0);
        CHECK(snd(f[0], 1, p, 0) == 1);
        CHECK(rcv(f[1], 8, 0) == 1);
        CHECK(m.msg_flags == 8);
        CHECK(m.msg_controllen == 0);
        CHECK(snd(f[0], 1, p, 0) == 1);
        CHECK(rcv(f[1], 0, 0) == 1);
        CHECK(m.msg_flags == 8);
        CHECK(snd(f[0], 1, p, 0) == 1);
        CHECK(read(f[1], data, 9) == 1);

        CHECK(snd(f[0], 253, many, 0) == 1);
        CHECK(rcv(f[1], 2000, 0) == 1);
        CHECK(nfds == 253);
        drop();
        CHECK_ERR(snd(f[0], 254, many, 0), EINVAL);
        many[1] = 999;
        CHECK_ERR(snd(f[0], 2, many, 0), EBADF);
        CHECK_ERR(recv(f[1], data, 9, MSG_DONTWAIT), EAGAIN);
        many[1] = p[1];
        int none = -1;
        CHECK_ERR(snd(f[0], 1, &none, 0), EBADF);
        CHECK(snd(f[0], 0, p, 0) == 1);
        CHECK(rcv(f[1], 512, 0) == 1);
        CHECK(nfds == 0);
        CHECK(m.msg_controllen == 0);

        CHECK(snd(f[0], 1, p, 0) == 1);
        CHECK(rcv(f[1], 512, MSG_PEEK) == 1);
        CHECK(nfds == 1);
        drop();
        CHECK(rcv(f[1], 512, 0) == 1);
        CHECK(nfds == 1);
        drop();

        send(f[0], "abc", 3, 0);
        snd(f[0], 1, p, 0);
        send(f[0], "efg", 3, 0);
        EACH(rcv(f[1], 512, MSG_DONTWAIT), 4, 3, 3);
        EACH(nfds, 1, 0, 0);
        drop();
        EACH(rcv(f[1], 512, MSG_DONTWAIT), 3, 1, 1);
        EACH(nfds, 0, 1, 1);
        drop();
        EACH(rcv(f[1], 512, MSG_DONTWAIT), -EAGAIN, 3, 3);
        CHECK(nfds == 0);
        drop();

        snd(f[0], 1, p, 0);
        snd(f[0], 1, p, 0);
        CHECK(rcv(f[1], 512, MSG_DONTWAIT) == 1);
        CHECK(nfds == 1);
        drop();
        CHECK(rcv(f[1], 512, MSG_DONTWAIT) == 1);
        CHECK(nfds == 1);
        drop();

        CHECK(snd(f[0], 1, f + 1, 0) == 1);
        CHECK(snd(f[0], 1, f, 0) == 1);
        CHECK(rcv(f[1], 512, 0) == 1);
        CHECK(nfds == 1);
        drop();
        CHECK(rcv(f[1], 512, 0) == 1);
        drop();

        CHECK(scr(f[0], getpid(), 0, 0) == 1);
        CHECK(rcv(f[1], 512, 0) == 1);
        CHECK(cr.pid == -9);
        CHECK(m.msg_controllen == 0);
        CHECK(set_option(f[1], 1, SO_PASSCRED, 1) == 0);
        CHECK(option(f[1], 1, SO_PASSCRED) == 1);
        CHECK(option(f[0], 1, SO_PASSCRED) == 0);
        CHECK(send(f[0], "x", 1, 0) == 1);
        CHECK(rcv(f[1], 512, 0) == 1);
        CHECK(cr.pid == getpid());
        CHECK(cr.uid == 0);
        CHECK(m.msg_controllen == 32);
        CHECK(scr(f[0], getpid(), 5, 6) == 1);
        CHECK(rcv(f[1], 512, 0) == 1);
        CHECK(cr.pid == getpid());
        CHECK(cr.uid == 5);
        CHECK(cr.gid == 6);
        CHECK_ERR(scr(f[0], 1 << 29, 0, 0), ESRCH);
        CHECK_ERR(scr(f[0], -1, 0, 0), ESRCH);
        CHECK_ERR(scr(f[0], getpid(), -1, 0), EINVAL);
        CHECK_ERR(rcv(f[1], CMSG_LEN(8), MSG_DONTWAIT), EAGAIN);
        CHECK(send(f[0], "x", 1, 0) == 1);
        CHECK(rcv(f[1], CMSG_LEN(8), 0) == 1);
        CHECK(m.msg_flags == 8);
        CHECK(m.msg_controllen == 24);
        CHECK(snd(f[0], 1, p, 0) == 1);
        CHECK(rcv(f[1], 512, 0) == 1);
        CHECK(nfds == 1);
        CHECK(cr.pid == getpid());
        CHECK(m.msg_controllen == 56);
        CHECK(((struct cmsghdr *)ctl)->cmsg_type == 2);
        drop();

        set_option(f[1], 1, SO_PASSCRED, 0);
        send(f[0], "x", 1, 0);
        set_option(f[1], 1, SO_PASSCRED, 1);
        CHECK(rcv(f[1], 512, 0) == 1);
        CHECK(cr.pid == 0);
        CHECK(cr.uid == 65534);

        int pid = fork();
        if (!pid) {
            send(f[0], "c", 1, 0);
            CHECK(setresuid(7, 7, 7) == 0);
            CHECK_ERR(scr(f[0], getppid(), 7, 0), EPERM);
            CHECK_ERR(scr(f[0], getpid(), 0, 0), EPERM);
            CHECK(scr(f[0], getpid(), 7, 0) == 1);
            fflush(stdout);
            _exit(0);
        }
        int st;
        waitpid(pid, &st, 0);
        CHECK(rcv(f[1], 512, 0) == 1);
        CHECK(cr.pid == pid);
        CHECK(cr.uid == 0);
        CHECK(rcv(f[1], 512, MSG_DONTWAIT) == 1);
        CHECK(cr.uid == 7);

        {
            char cb[64] = {0};
            struct msghdr h = {0, 0, &iv, 1, cb, CMSG_SPACE(4)};
            iv = (struct iovec){"d", 1};
            struct cmsghdr *c = (void *)cb;
            c->cmsg_len = CMSG_LEN(4);
            c->cmsg_level = 1;
            c->cmsg_type = 77;
            CHECK_ERR(sendmsg(f[0], &h, 0), EINVAL);
            c->cmsg_level = 99;
            CHECK(sendmsg(f[0], &h, 0) == 1);
            c->cmsg_len = 4;
            CHECK_ERR(sendmsg(f[0], &h, 0), EINVAL);
            c->cmsg_len = 300;
            CHECK_ERR(sendmsg(f[0], &h, 0), EINVAL);
            c->cmsg_level = 1;
            c->cmsg_type = 2;
            c->cmsg_len = CMSG_LEN(4);
            CHECK_ERR(sendmsg(f[0], &h, 0), EINVAL);
            h.msg_controllen = 1 << 20;
            CHECK_ERR(sendmsg(f[0], &h, 0), ENOBUFS);
            h.msg_controllen = 64;
            h.msg_control = (void *)8;
            CHECK_ERR(sendmsg(f[0], &h, 0), EFAULT);
        }
        close(p[0]);
        close(p[1]);
        CHECK(close(f[0]) == 0);
        close(f[1]);

        socketpair(AF_UNIX, kind, 0, f);
        pipe(p);
        snd(f[0], 1, p + 1, 0);
        close(p[1]);
        fcntl(p[0], F_SETFL, O_NONBLOCK);
        CHECK_ERR(read(p[0], data, 1), EAGAIN);
        close(f[1]);
        CHECK(read(p[0], data, 1) == 0);
        close(f[0]);
        CHECK(read(p[0], data, 1) == 0);
        close(p[0]);
    }
    return 0;
}
