/* Calls on host sockets that a helper process made and donated: a result, or -errno. */
#ifndef SENTRY_SOCKETS_H
#define SENTRY_SOCKETS_H

#include <stddef.h>
#include <stdint.h>

int sock_bind(int fd, const uint8_t *address, uint32_t size);
int sock_connect(int fd, const uint8_t *address, uint32_t size);
int sock_listen(int fd, int backlog);
int sock_accept(int fd, uint8_t *address, uint32_t *size);
int sock_name(int fd, int peer, uint8_t *address, uint32_t *size);
int sock_shutdown(int fd, int how);
int sock_set(int fd, int level, int name, const uint8_t *value, uint32_t size);
int sock_get(int fd, int level, int name, uint8_t *value, uint32_t *size);
int64_t sock_send(int fd, const uint8_t *data, size_t size, const uint8_t *address,
                  uint32_t address_size, const uint8_t *control, size_t control_size, int flags);
int64_t sock_receive(int fd, uint8_t *data, size_t size, uint8_t *address, uint32_t *address_size,
                     uint8_t *control, size_t *control_size, int *flags);
int sock_count(int fd, unsigned request, int *value);

#endif
