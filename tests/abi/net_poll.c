/* poll, select and edge-triggered epoll over sockets in their states.: */
#define _GNU_SOURCE
#include "abi.h"
#include "far.h"
#include "net.h"

static char buf[300000];
static int ep;
static struct epoll_event ev[4];

static int addep(int fd, unsigned e)
{
    struct epoll_event x = {e, {.fd = fd}};
    return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &x);
}

static int modep(int fd, unsigned e)
{
    struct epoll_event x = {e, {.fd = fd}};
    return epoll_ctl(ep, EPOLL_CTL_MOD, fd, &x);
}

static int epolled(int ms)
{
    int n = epoll_wait(ep, ev, 4, ms);
    return n < 1 ? -2 : ev[0].events;
}

#define ALL (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET)

static void edge(int c, int s)
{
    ep = epoll_beside(s);
    CHECK(addep(s, ALL) == 0);
    CHECK(epolled(0) == POLLOUT);
    CHECK(epolled(0) == -2);
    CHECK(send(c, "ab", 2, 0) == 2);
    CHECK(epolled(500) == (POLLIN | POLLOUT));
    CHECK(epolled(0) == -2);
    CHECK(recv(s, buf, 1, 0) == 1);
    CHECK(epolled(0) == -2);
    CHECK(send(c, "cd", 2, 0) == 2);
    CHECK(epolled(500) == (POLLIN | POLLOUT));
    CHECK(recv(s, buf, 9, 0) == 3);
    CHECK(epolled(0) == -2);
    CHECK(modep(s, ALL) == 0);
    CHECK(epolled(0) == POLLOUT);
    CHECK(modep(s, EPOLLIN | EPOLLONESHOT) == 0);
    CHECK(epolled(0) == -2);
    send(c, "x", 1, 0);
    CHECK(epolled(500) == POLLIN);
    send(c, "x", 1, 0);
    CHECK(epolled(0) == -2);
    CHECK(modep(s, EPOLLIN | EPOLLONESHOT) == 0);
    CHECK(epolled(0) == POLLIN);
    CHECK(recv(s, buf, 9, 0) > 0);
    modep(s, ALL);
    epolled(0);
    CHECK(shutdown(c, SHUT_WR) == 0);
    CHECK(epolled(500) == (POLLIN | POLLOUT | POLLRDHUP));
    CHECK(epolled(0) == -2);
    CHECK(recv(s, buf, 1, 0) == 0);
    CHECK(epolled(0) == -2);
    close(c);
    usleep(2000);
    CHECK(epolled(0) == -2);
    CHECK(epolled(0) == -2);
    close(s);
    CHECK(epolled(0) == -2);
    close(ep);
}

static void full(int c, int s)
{
    ep = epoll_beside(c);
    fcntl(c, F_SETFL, O_NONBLOCK);
    do
        while (send(c, buf, sizeof buf, 0) > 0)
            ;
    while (parted() && has_within(c, POLLOUT, 300)); /* the other end's buffer grows */
    addep(c, EPOLLOUT | EPOLLET);
    CHECK(epolled(0) == -2);
    int n = 0;
    fcntl(s, F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 200 && epoll_wait(ep, ev, 1, 0) < 1; i++) {
        while (recv(s, buf, sizeof buf, 0) > 0)
            ;
        usleep(500);
    }
    CHECK(ev[0].events == 4);
    close(c);
    close(s);
    close(ep);
}

static void listens(void)
{
    int l = listener(5), c, d;
    ep = epoll_beside(l);
    addep(l, ALL);
    CHECK(epolled(0) == -2);
    c = socket(2, 1, 0);
    connect_to(c, port(l));
    CHECK(epolled(500) == POLLIN);
    CHECK(epolled(0) == -2);
    d = socket(2, 1, 0);
    connect_to(d, port(l));
    CHECK(epolled(500) == POLLIN);
    CHECK(accept(l, 0, 0) > 0);
    CHECK(epolled(0) == -2);
    CHECK(accept(l, 0, 0) > 0);
    CHECK(epolled(0) == -2);
    CHECK(shutdown(l, SHUT_RD) == 0);
    CHECK(epolled(0) == (POLLOUT | POLLHUP));
    CHECK(events(l) == (POLLOUT | POLLHUP));
    close(l);
    close(c);
    close(d);
    close(ep);
}

static void connecting(void)
{
    int l = listener(5), c = socket(2, SOCK_STREAM | SOCK_NONBLOCK, 0);
    ep = epoll_beside(c);
    CHECK(addep(c, ALL) == 0);
    CHECK(epolled(0) == (POLLOUT | POLLHUP));
    CHECK_ERR(connect_to(c, port(l)), EINPROGRESS);
    CHECK(epolled(500) == POLLOUT);
    CHECK(epolled(0) == -2);
    int p = port(l);
    close(l);
    CHECK(epolled(500) == (POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP));
    close(c);
    c = socket(2, SOCK_STREAM | SOCK_NONBLOCK, 0);
    addep(c, ALL);
    CHECK(epolled(0) == (POLLOUT | POLLHUP));
    CHECK_ERR(connect_to(c, p), EINPROGRESS);
    CHECK(epolled(500) == (POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP));
    CHECK(epolled(0) == -2);
    CHECK(option(c, 1, SO_ERROR) == 111);
    CHECK(epolled(0) == -2);
    close(c);
    close(ep);
}

static void datagrams(void)
{
    int s = socket(2, 2, 0), d = other_socket(2, 2, 0);
    bind_to(d, 0);
    connect_to(s, port(d));
    ep = epoll_beside(d);
    addep(d, ALL);
    CHECK(epolled(0) == POLLOUT);
    send(s, "a", 1, 0);
    CHECK(epolled(500) == (POLLIN | POLLOUT));
    send(s, "b", 1, 0);
    CHECK(epolled(500) == (POLLIN | POLLOUT));
    CHECK(epolled(0) == -2);
    recv(d, buf, 9, 0);
    CHECK(epolled(0) == -2);
    shutdown(d, SHUT_RD);
    CHECK(epolled(0) == (POLLIN | POLLOUT | POLLRDHUP));
    close(d);
    close(ep);
    ep = epoll_beside(s);
    addep(s, ALL);
    CHECK(epolled(0) == POLLOUT);
    send(s, "x", 1, 0);
    CHECK(epolled(500) == (POLLOUT | POLLERR));
    CHECK(epolled(0) == -2);
    CHECK_ERR(recv(s, buf, 1, MSG_DONTWAIT), ECONNREFUSED);
    CHECK(epolled(0) == -2);
    CHECK(events(s) == POLLOUT);
    close(s);
    close(ep);
}

static void selects(void)
{
    int c, s;
    make_pair(&c, &s);
    fd_set r, w, e;
    struct timeval z = {0};
    FD_ZERO(&r);
    FD_ZERO(&w);
    FD_ZERO(&e);
    FD_SET(s, &r);
    FD_SET(s, &w);
    FD_SET(s, &e);
    CHECK(select(s + 1, &r, &w, &e, &z) == 1);
    CHECK(FD_ISSET(s, &w) != 0 == 1);
    send(c, "x", 1, MSG_OOB);
    wait_for(s, POLLPRI);
    FD_SET(s, &e);
    FD_ZERO(&r);
    FD_SET(s, &r);
    CHECK(select(s + 1, &r, 0, &e, &z) == 1);
    CHECK(FD_ISSET(s, &e) != 0 == 1);
    close(c);
    close(s);

    make_pair(&c, &s);
    struct pollfd p = {s, 0, 0};
    CHECK(poll(&p, 1, 0) == 0);
    close(c);
    CHECK(poll(&p, 1, 0) == 0);
    struct linger li = {1, 0};
    close(s);
    make_pair(&c, &s);
    setsockopt(c, 1, SO_LINGER, &li, 8);
    close(c);
    p.fd = s;
    CHECK(poll(&p, 1, 500) == 1);
    CHECK(p.revents == 24);
    p.fd = -1;
    CHECK(poll(&p, 1, 0) == 0);
    close(s);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    int c, s, f[2];

    make_pair(&c, &s);
    edge(c, s);

    make_pair(&c, &s);
    full(c, s);
    listens();
    connecting();
    datagrams();
    if (!parted()) /* sets of descriptors are of one end */
        selects();
    return 0;
}
