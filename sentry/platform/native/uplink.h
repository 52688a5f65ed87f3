/* Frames of a donated packet socket, many a call, and the sums that protect what is in them. */
#ifndef SENTRY_UPLINK_H
#define SENTRY_UPLINK_H

#include <stddef.h>
#include <stdint.h>

#define UPLINK_BATCH 64

int uplink_receive(int fd, uint8_t *slots, uint32_t slot_size, uint32_t count, uint32_t *sizes);
int uplink_send(int fd, const uint8_t *frames, const uint32_t *sizes, uint32_t count);
uint32_t internet_sum(const uint8_t *data, size_t size, uint32_t before);

#endif
