/* Names of AF_UNIX sockets. */
#ifndef NET_UNIX_H
#define NET_UNIX_H

#include "net.h"

/* What a call was given or gave last. */
static struct sockaddr_un name;
static socklen_t name_size;

static inline struct sockaddr_un path_address(const char *p)
{
    struct sockaddr_un a = {AF_UNIX};
    strcpy(a.sun_path, p);
    return a;
}

static inline int bind_path(int fd, const char *p)
{
    name = path_address(p);
    return bind(fd, (SA *)&name, sizeof name);
}

static inline int connect_path(int fd, const char *p)
{
    name = path_address(p);
    return connect(fd, (SA *)&name, sizeof name);
}

static inline int abstract(int fd, const char *p, int con)
{
    memset(&name, 0, sizeof name);
    name.sun_family = 1;
    strcpy(name.sun_path + 1, p);
    name_size = 3 + strlen(p);
    return con ? connect(fd, (SA *)&name, name_size) : bind(fd, (SA *)&name, name_size);
}

static inline int own_name(int fd)
{
    memset(&name, 0x55, sizeof name);
    name_size = sizeof name;
    return getsockname(fd, (SA *)&name, &name_size);
}

static inline int peer_name(int fd)
{
    memset(&name, 0x55, sizeof name);
    name_size = sizeof name;
    return getpeername(fd, (SA *)&name, &name_size);
}

static inline int send_to_path(int fd, const char *p)
{
    name = path_address(p);
    return sendto(fd, "m", 1, 0, (SA *)&name, sizeof name);
}

#endif
