/* SAFETY: every buffer is the caller's own, of the size that goes with it; nothing points to memory
 * of the guest.
 */
#define _GNU_SOURCE
#include "sockets.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static int result(int r) { return r < 0 ? -errno : r; }

int sock_bind(int fd, const uint8_t *address, uint32_t size)
{
    return result(bind(fd, (const struct sockaddr *)address, size));
}

int sock_connect(int fd, const uint8_t *address, uint32_t size)
{
    return result(connect(fd, (const struct sockaddr *)address, size));
}

int sock_listen(int fd, int backlog)
{
    return result(listen(fd, backlog));
}

int sock_accept(int fd, uint8_t *address, uint32_t *size)
{
    return result(accept4(fd, (struct sockaddr *)address, size, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

int sock_name(int fd, int peer, uint8_t *address, uint32_t *size)
{
    struct sockaddr *to = (struct sockaddr *)address;
    return result(peer ? getpeername(fd, to, size) : getsockname(fd, to, size));
}

int sock_shutdown(int fd, int how)
{
    return result(shutdown(fd, how));
}

int sock_set(int fd, int level, int name, const uint8_t *value, uint32_t size)
{
    return result(setsockopt(fd, level, name, value, size));
}

int sock_get(int fd, int level, int name, uint8_t *value, uint32_t *size)
{
    return result(getsockopt(fd, level, name, value, size));
}

int64_t sock_send(int fd, const uint8_t *data, size_t size, const uint8_t *address,
                         uint32_t address_size, const uint8_t *control, size_t control_size,
                         int flags)
{
    struct iovec piece = {(void *)data, size};
    struct msghdr message = {
        .msg_name = (void *)address,
        .msg_namelen = address_size,
        .msg_iov = &piece,
        .msg_iovlen = 1,
        .msg_control = (void *)control,
        .msg_controllen = control_size,
    };
    ssize_t done = sendmsg(fd, &message, flags);
    return done < 0 ? -errno : done;
}

int64_t sock_receive(int fd, uint8_t *data, size_t size, uint8_t *address,
                            uint32_t *address_size, uint8_t *control, size_t *control_size,
                            int *flags)
{
    struct iovec piece = {data, size};
    struct msghdr message = {
        .msg_name = address,
        .msg_namelen = *address_size,
        .msg_iov = &piece,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = *control_size,
    };
    ssize_t done = recvmsg(fd, &message, *flags);
    if (done < 0)
        return -errno;
    *address_size = message.msg_namelen;
    *control_size = message.msg_controllen;
    *flags = message.msg_flags;
    return done;
}

int sock_count(int fd, unsigned request, int *value)
{
    return result(ioctl(fd, request, value));
}
