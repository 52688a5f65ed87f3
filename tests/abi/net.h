/* What the socket programs share. */
#ifndef NET_H
#define NET_H

#include <linux/sockios.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef FAR_H /* with it, a program's other end may be on another machine */
#define other_socket socket
#define epoll_beside(fd) epoll_create1(0)
#define socket_at(port, domain, type, protocol) socket(domain, type, protocol)
#define across(port) (port)
#define parted() 0
#define is_far(fd) 0
#define address_of(is_far) ((struct in_addr){htonl(INADDR_LOOPBACK)})
#endif

typedef struct sockaddr SA;

/* The result of a call, or its errno as a negative number. */
#define RESULT(expr)                                                                            \
    ({                                                                                          \
        errno = 0;                                                                              \
        ABI_FENCE;                                                                              \
        long value_ = (long)(expr);                                                             \
        value_ == -1 && errno ? -errno : value_;                                                \
    })

/* Inside of a loop over `kind`: what each kind of socket gives. */
#define EACH(expr, stream, datagram, seqpacket)                                                 \
    do {                                                                                        \
        long got_ = RESULT(expr);                                                               \
        long wanted_ = kind == SOCK_STREAM  ? (stream)                                          \
                       : kind == SOCK_DGRAM ? (datagram)                                        \
                                            : (seqpacket);                                      \
        if (got_ != wanted_) {                                                                  \
            fprintf(stderr, "%s:%d: kind %d: %s gave %ld instead of %ld\n", __FILE__, __LINE__, \
                    kind, #expr, got_, wanted_);                                                \
            exit(1);                                                                            \
        }                                                                                       \
    } while (0)

/* poll(2) of one socket, without waiting. */
/* On a kernel of a host. One that was hardened lets nobody listen who has been connected, and knows no
 * IPV6_ADDRFORM. */
static inline int of_host(void)
{
    return getenv("HOST_KERNEL") || getenv("FAR");
}

static inline int listens_again(int fd, int backlog)
{
    return listen(fd, backlog) == 0 || (of_host() && errno == EINVAL);
}

static inline int events(int fd)
{
    struct pollfd one = {fd, POLLIN | POLLPRI | POLLOUT | POLLRDHUP, 0};
    poll(&one, 1, 0);
    return one.revents;
}

/* It has one of some events, or gets it in time. */
static inline int has_within(int fd, int wanted, int ms)
{
    struct pollfd one = {fd, wanted, 0};
    return poll(&one, 1, ms) > 0;
}

/* Until a socket has one of some events. */
static inline void wait_for(int fd, int wanted)
{
    has_within(fd, wanted, 5000);
}

static inline int option(int fd, int level, int name)
{
    int value = -77;
    socklen_t size = sizeof value;
    return getsockopt(fd, level, name, &value, &size) ? -1 : value;
}

static inline int set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value);
}

static inline void set_timeout(int fd, int name, int ms)
{
    struct timeval time = {ms / 1000, ms % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, name, &time, sizeof time);
}

/* FIONREAD and the like. */
static inline int queued(int fd, int request)
{
    int value = -9;
    return ioctl(fd, request, &value) ? -1 : value;
}

/* A port of the far end has bit 16: see `port`. */
static inline struct sockaddr_in loopback(int port)
{
    return (struct sockaddr_in){AF_INET, htons(port), address_of(port >> 16 & 1)};
}

static inline int port(int fd)
{
    struct sockaddr_in6 address = {0};
    socklen_t size = sizeof address;
    getsockname(fd, (SA *)&address, &size);
    return ntohs(address.sin6_port) | is_far(fd) << 16;
}

static inline int connect_to(int fd, int port)
{
    struct sockaddr_in address = loopback(port);
    return connect(fd, (SA *)&address, sizeof address);
}

static inline int bind_to(int fd, int port)
{
    struct sockaddr_in address = loopback(port | is_far(fd) << 16);
    return bind(fd, (SA *)&address, sizeof address);
}

static inline int listener(int backlog)
{
    int fd = other_socket(AF_INET, SOCK_STREAM, 0);
    bind_to(fd, 0);
    listen(fd, backlog);
    return fd;
}

/* A TCP connection. */
static inline void make_pair(int *client, int *server)
{
    int fd = listener(5);
    *client = socket(AF_INET, SOCK_STREAM, 0);
    connect_to(*client, port(fd));
    *server = accept(fd, NULL, NULL);
    close(fd);
}

static struct sockaddr_in a4;
static socklen_t al;

#endif
