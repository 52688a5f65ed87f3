/* One end of a program's sockets on another machine, which `tests/full/far.c` makes calls for.
 *
 * With FAR=NEAR4,FAR4,NEAR6,FAR6,PORT in the environment, sockets made by `other_socket` are at the
 * far end, the others here; with FAR_SWAPPED it is the other way round. Their descriptors have
 * FAR_BIT, and calls with these go by a connection of TCP over the same link, so what was sent before
 * a call is there before it. Without FAR all are here, and nothing is different. */
#ifndef FAR_H
#define FAR_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FAR_BIT (1 << 20)
#define FAR_BUFFERS 24
#define FAR_MOST (1 << 20)

/* What a pointer leads to: an argument (owner -1), or eight bytes of an earlier buffer. */
struct far_buffer {
    int owner, slot, is_out;
    unsigned size;
};

struct far_call {
    long number, args[6];
    int count;
    struct far_buffer buffers[FAR_BUFFERS];
};

struct far_answer {
    long result;
    int error;
};

static inline int far_move(int fd, void *data, size_t size, int is_out)
{
    for (size_t done = 0; done < size;) {
        char *at = (char *)data + done;
        long got = is_out ? syscall(SYS_sendto, fd, at, size - done, MSG_NOSIGNAL, NULL, 0)
                          : syscall(SYS_recvfrom, fd, at, size - done, 0, NULL, NULL);
        if (got <= 0 && errno != EINTR)
            return -1;
        done += got > 0 ? got : 0;
    }
    return 0;
}

/* --- who is where */

static struct {
    int control, swapped, parted, known;
    struct in_addr ip4[2];
    struct in6_addr ip6[2];
} far_;

/* Each end finds the other one by IPv6: what comes first waits for a neighbour to be found, and is
 * not there before a call that goes by IPv4. That nobody has port 1 is known then. */
static inline void far_greet6(void)
{
    struct sockaddr_in6 to = {AF_INET6, htons(1), 0, far_.ip6[1], 0};
    char none;
    int fd = syscall(SYS_socket, AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (syscall(SYS_connect, fd, &to, sizeof to) || syscall(SYS_sendto, fd, "", 1, 0, NULL, 0) != 1 ||
        syscall(SYS_recvfrom, fd, &none, 1, 0, NULL, NULL) >= 0 || errno != ECONNREFUSED)
        fprintf(stderr, "nobody is at FAR by IPv6 (errno %d)\n", errno), exit(1);
    syscall(SYS_close, fd);
}

static inline void far_begin(void)
{
    const char *given = getenv("FAR");
    char text[4][64];
    int port;
    if (far_.known++ || !given)
        return;
    if (sscanf(given, "%63[^,],%63[^,],%63[^,],%63[^,],%d", text[0], text[1], text[2], text[3],
               &port) != 5)
        fprintf(stderr, "FAR is wrong\n"), exit(1);
    for (int i = 0; i < 2; i++) {
        inet_pton(AF_INET, text[i], &far_.ip4[i]);
        inet_pton(AF_INET6, text[2 + i], &far_.ip6[i]);
    }
    struct sockaddr_in to = {AF_INET, htons(port), far_.ip4[1]};
    int on = 1, fd = syscall(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (syscall(SYS_connect, fd, &to, sizeof to))
        fprintf(stderr, "nobody is at FAR (errno %d)\n", errno), exit(1);
    syscall(SYS_setsockopt, fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    far_.control = syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 900);
    syscall(SYS_close, fd);
    far_.swapped = getenv("FAR_SWAPPED") != NULL;
    far_.parted = 1;
    far_greet6();
}

/* The two ends are on two machines. */
static inline int parted(void)
{
    far_begin();
    return far_.parted;
}

static inline int is_far(int fd)
{
    return fd >= 0 && (fd & FAR_BIT) != 0;
}

/* Where an end is. */
static inline struct in_addr address_of(int far_end)
{
    return parted() ? far_.ip4[far_end] : (struct in_addr){htonl(INADDR_LOOPBACK)};
}

static inline struct in6_addr address6_of(int far_end)
{
    return parted() ? far_.ip6[far_end] : in6addr_loopback;
}

/* --- calls made there */

static struct far_call far_asked;
static void *far_data[FAR_BUFFERS];

static inline void far_ask(long number)
{
    far_asked = (struct far_call){.number = number};
}

/* A buffer; a pointer to nothing stays what it is. Its place among them. */
static inline int far_add(int owner, int slot, const void *data, size_t size, int is_out)
{
    size = size > FAR_MOST ? 64 : size; /* a size that is wrong */
    if ((unsigned long)data < 65536) {
        if (owner < 0)
            far_asked.args[slot] = (long)data;
        return -1;
    }
    far_data[far_asked.count] = (void *)data;
    far_asked.buffers[far_asked.count] = (struct far_buffer){owner, slot, is_out, size};
    return far_asked.count++;
}

static inline long far_do(void)
{
    struct far_answer answer;
    int wrong = far_move(far_.control, &far_asked, sizeof far_asked, 1);
    for (int i = 0; i < far_asked.count; i++)
        wrong |= far_move(far_.control, far_data[i], far_asked.buffers[i].size, 1);
    wrong |= far_move(far_.control, &answer, sizeof answer, 0);
    for (int i = 0; i < far_asked.count; i++)
        if (far_asked.buffers[i].is_out)
            wrong |= far_move(far_.control, far_data[i], far_asked.buffers[i].size, 0);
    if (wrong)
        fprintf(stderr, "the far end has gone\n"), exit(1);
    errno = answer.result == -1 ? answer.error : errno;
    return answer.result;
}

/* Numbers alone. */
static inline long far_plain(long number, long a, long b, long c)
{
    far_ask(number);
    far_asked.args[0] = a, far_asked.args[1] = b, far_asked.args[2] = c;
    return far_do();
}

static inline long far_fd(long got)
{
    return got < 0 ? got : got | FAR_BIT;
}

/* A port with the bit of the end where sockets of `other_socket` are. */
static inline int across(int port)
{
    return port | (parted() && !far_.swapped) << 16;
}

static inline int far_socket(int is_other, int domain, int type, int protocol)
{
    if (!parted() || is_other == far_.swapped)
        return socket(domain, type, protocol);
    return far_fd(far_plain(SYS_socket, domain, type, protocol));
}

/* An address, bytes, or an option: `size` of them at an argument. */
static inline long far_with(long number, int fd, int slot, const void *data, long size, int at)
{
    far_ask(number);
    far_asked.args[0] = fd & ~FAR_BIT;
    far_asked.args[at] = size;
    far_add(-1, slot, data, size < 0 ? 0 : size, 0);
    return far_do();
}

static inline int far_bind(int fd, const struct sockaddr *to, socklen_t size)
{
    return is_far(fd) ? far_with(SYS_bind, fd, 1, to, size, 2) : bind(fd, to, size);
}

static inline int far_connect(int fd, const struct sockaddr *to, socklen_t size)
{
    return is_far(fd) ? far_with(SYS_connect, fd, 1, to, size, 2) : connect(fd, to, size);
}

static inline int far_listen(int fd, int backlog)
{
    return is_far(fd) ? far_plain(SYS_listen, fd & ~FAR_BIT, backlog, 0) : listen(fd, backlog);
}

static inline int far_shutdown(int fd, int how)
{
    return is_far(fd) ? far_plain(SYS_shutdown, fd & ~FAR_BIT, how, 0) : shutdown(fd, how);
}

static inline int far_close(int fd)
{
    return is_far(fd) ? far_plain(SYS_close, fd & ~FAR_BIT, 0, 0) : close(fd);
}

/* accept4(2), getsockname(2), getpeername(2). */
static inline long far_named(long number, int fd, struct sockaddr *name, socklen_t *size, int flags)
{
    if (!is_far(fd))
        return syscall(number, fd, name, size, flags);
    far_ask(number);
    far_asked.args[0] = fd & ~FAR_BIT, far_asked.args[3] = flags;
    far_add(-1, 1, name, (unsigned long)size < 65536 ? 0 : *size, 1);
    far_add(-1, 2, size, sizeof *size, 1);
    long got = far_do();
    return number == SYS_accept4 ? far_fd(got) : got;
}

static inline ssize_t far_sendto(int fd, const void *data, size_t n, int flags,
                                 const struct sockaddr *to, socklen_t size)
{
    if (!is_far(fd))
        return sendto(fd, data, n, flags, to, size);
    far_ask(SYS_sendto);
    far_asked.args[0] = fd & ~FAR_BIT, far_asked.args[2] = n, far_asked.args[3] = flags;
    far_asked.args[5] = size;
    far_add(-1, 1, data, n, 0), far_add(-1, 4, to, size, 0);
    return far_do();
}

static inline ssize_t far_recvfrom(int fd, void *data, size_t n, int flags, struct sockaddr *name,
                                   socklen_t *size)
{
    if (!is_far(fd))
        return recvfrom(fd, data, n, flags, name, size);
    far_ask(SYS_recvfrom);
    far_asked.args[0] = fd & ~FAR_BIT, far_asked.args[2] = n, far_asked.args[3] = flags;
    far_add(-1, 1, data, n, 1);
    far_add(-1, 4, name, (unsigned long)size < 65536 ? 0 : *size, 1);
    far_add(-1, 5, size, sizeof *size, 1);
    return far_do();
}

/* What a struct msghdr leads to that stands in a buffer. */
static inline void far_parts(int head, size_t at, const struct msghdr *m, int is_out)
{
    size_t pieces = m->msg_iovlen > 8 ? 0 : m->msg_iovlen;
    int slot = at + offsetof(struct msghdr, msg_iov);
    int list = far_add(head, slot, m->msg_iov, pieces * sizeof *m->msg_iov, 0);
    slot = at + offsetof(struct msghdr, msg_name);
    far_add(head, slot, m->msg_name, m->msg_name ? m->msg_namelen : 0, is_out);
    slot = at + offsetof(struct msghdr, msg_control);
    far_add(head, slot, m->msg_control, m->msg_control ? m->msg_controllen : 0, is_out);
    for (size_t i = 0; list >= 0 && i < pieces; i++) {
        slot = i * sizeof *m->msg_iov;
        far_add(list, slot, m->msg_iov[i].iov_base, m->msg_iov[i].iov_len, is_out);
    }
}

/* All but the pointers is as the far end has left it. */
static inline void far_told(struct msghdr *m, const struct msghdr *before)
{
    m->msg_iov = before->msg_iov, m->msg_name = before->msg_name;
    m->msg_control = before->msg_control;
}

static inline ssize_t far_message(long number, int fd, struct msghdr *m, int flags)
{
    if (!is_far(fd))
        return number == SYS_sendmsg ? sendmsg(fd, m, flags) : recvmsg(fd, m, flags);
    struct msghdr before = *m;
    far_ask(number);
    far_asked.args[0] = fd & ~FAR_BIT, far_asked.args[2] = flags;
    far_parts(far_add(-1, 1, m, sizeof *m, 1), 0, m, number == SYS_recvmsg);
    ssize_t got = far_do();
    far_told(m, &before);
    return got;
}

static inline int far_messages(long number, int fd, struct mmsghdr *some, unsigned count, int flags,
                               struct timespec *within)
{
    if (!is_far(fd))
        return syscall(number, fd, some, count, flags, within);
    struct mmsghdr before[4];
    far_ask(number);
    far_asked.args[0] = fd & ~FAR_BIT, far_asked.args[2] = count, far_asked.args[3] = flags;
    int list = far_add(-1, 1, some, count * sizeof *some, 1);
    for (unsigned i = 0; list >= 0 && i < count; i++) {
        before[i] = some[i];
        far_parts(list, i * sizeof *some, &some[i].msg_hdr, number == SYS_recvmmsg);
    }
    far_add(-1, 4, within, sizeof *within, 1);
    int got = far_do();
    for (unsigned i = 0; list >= 0 && i < count; i++)
        far_told(&some[i].msg_hdr, &before[i].msg_hdr);
    return got;
}

static inline int far_getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
    if (!is_far(fd))
        return getsockopt(fd, level, name, value, size);
    far_ask(SYS_getsockopt);
    far_asked.args[0] = fd & ~FAR_BIT, far_asked.args[1] = level, far_asked.args[2] = name;
    far_add(-1, 3, value, (unsigned long)size < 65536 ? 0 : *size, 1);
    far_add(-1, 4, size, sizeof *size, 1);
    return far_do();
}

static inline int far_setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    if (!is_far(fd))
        return setsockopt(fd, level, name, value, size);
    far_ask(SYS_setsockopt);
    far_asked.args[0] = fd & ~FAR_BIT, far_asked.args[1] = level, far_asked.args[2] = name;
    far_asked.args[4] = size;
    int at = far_add(-1, 3, value, size, 0);
    if (level == SOL_SOCKET && name == SO_ATTACH_FILTER && at >= 0 && size == 16) {
        const struct sock_fprog *program = value;
        far_add(at, offsetof(struct sock_fprog, filter), program->filter,
                program->len * sizeof *program->filter, 0);
    }
    return far_do();
}

static inline int far_ioctl(int fd, unsigned long request, void *value, size_t size)
{
    if (!is_far(fd))
        return ioctl(fd, request, value);
    far_ask(SYS_ioctl);
    far_asked.args[0] = fd & ~FAR_BIT, far_asked.args[1] = request;
    far_add(-1, 2, value, size, 1);
    return far_do();
}

static inline int far_fcntl(int fd, int command, long value)
{
    return is_far(fd) ? far_plain(SYS_fcntl, fd & ~FAR_BIT, command, value)
                      : fcntl(fd, command, value);
}

/* One, or some that are here. */
static inline int far_poll(struct pollfd *some, nfds_t count, int ms)
{
    if (!is_far(some->fd))
        return poll(some, count, ms);
    far_ask(SYS_poll);
    far_asked.args[1] = count, far_asked.args[2] = ms;
    some->fd ^= FAR_BIT;
    far_add(-1, 0, some, count * sizeof *some, 1);
    int got = far_do();
    some->fd ^= FAR_BIT;
    return got;
}

/* epoll_create1(2), at the end of a socket. */
static inline int epoll_beside(int fd)
{
    return is_far(fd) ? far_fd(far_plain(SYS_epoll_create1, 0, 0, 0)) : epoll_create1(0);
}

static inline int far_epoll_ctl(int ep, int what, int fd, struct epoll_event *event)
{
    if (!is_far(ep))
        return epoll_ctl(ep, what, fd, event);
    far_ask(SYS_epoll_ctl);
    far_asked.args[0] = ep & ~FAR_BIT, far_asked.args[1] = what, far_asked.args[2] = fd & ~FAR_BIT;
    far_add(-1, 3, event, sizeof *event, 0);
    return far_do();
}

static inline int far_epoll_wait(int ep, struct epoll_event *events, int most, int ms)
{
    if (!is_far(ep))
        return epoll_wait(ep, events, most, ms);
    far_ask(SYS_epoll_wait);
    far_asked.args[0] = ep & ~FAR_BIT, far_asked.args[2] = most, far_asked.args[3] = ms;
    far_add(-1, 1, events, most * sizeof *events, 1);
    return far_do();
}

static inline ssize_t far_read(int fd, void *data, size_t n)
{
    if (!is_far(fd))
        return read(fd, data, n);
    far_ask(SYS_read);
    far_asked.args[0] = fd & ~FAR_BIT, far_asked.args[2] = n;
    far_add(-1, 1, data, n, 1);
    return far_do();
}

static inline ssize_t far_write(int fd, const void *data, size_t n)
{
    return is_far(fd) ? far_sendto(fd, data, n, 0, NULL, 0) : write(fd, data, n);
}

#define epoll_ctl far_epoll_ctl
#define epoll_wait far_epoll_wait
#define read far_read
#define write far_write
/* Where a port is. */
#define socket_at(port, domain, type, protocol) \
    far_socket(parted() && ((port) >> 16 & 1) != far_.swapped, domain, type, protocol)
#define other_socket(domain, type, protocol) far_socket(1, domain, type, protocol)
#define socket(domain, type, protocol) far_socket(0, domain, type, protocol)
#define bind far_bind
#define connect far_connect
#define listen far_listen
#define shutdown far_shutdown
#define close far_close
#define accept(fd, name, size) far_named(SYS_accept4, fd, name, size, 0)
#define accept4(fd, name, size, flags) far_named(SYS_accept4, fd, name, size, flags)
#define getsockname(fd, name, size) far_named(SYS_getsockname, fd, name, size, 0)
#define getpeername(fd, name, size) far_named(SYS_getpeername, fd, name, size, 0)
#define sendto far_sendto
#define send(fd, data, n, flags) far_sendto(fd, data, n, flags, NULL, 0)
#define recvfrom far_recvfrom
#define recv(fd, data, n, flags) far_recvfrom(fd, data, n, flags, NULL, NULL)
#define sendmsg(fd, m, flags) far_message(SYS_sendmsg, fd, (struct msghdr *)(m), flags)
#define recvmsg(fd, m, flags) far_message(SYS_recvmsg, fd, m, flags)
#define sendmmsg(fd, some, n, flags) far_messages(SYS_sendmmsg, fd, some, n, flags, NULL)
#define recvmmsg(fd, some, n, flags, ms) far_messages(SYS_recvmmsg, fd, some, n, flags, (void *)(ms))
#define getsockopt far_getsockopt
#define setsockopt far_setsockopt
#define poll far_poll
#define ioctl(fd, request, value) \
    far_ioctl(fd, request, (void *)(value), sizeof(*(value)))
#define fcntl(fd, ...) far_fcntl(fd, FAR_TWO(__VA_ARGS__, 0))
#define FAR_TWO(command, value, ...) command, (long)(value)

#endif
