/* Frames of a donated packet socket, many a call, what stands in those of most segments and
 * datagrams, and the sums that protect it. */
#ifndef SENTRY_UPLINK_H
#define SENTRY_UPLINK_H

#include <stddef.h>
#include <stdint.h>

#define UPLINK_BATCH 64
#define EARLY_KEY 37
#define EARLY_JOINED (1u << 18) /* bytes of segments that are taken for one, at most */

#define EARLY_UDP 16 /* in the first byte of `key` */

/* Of a frame that has a whole segment of TCP, or a datagram of UDP, and nothing unusual; else `kind`
 * is 0. */
struct early {
    uint8_t kind;           /* 4, 6: the version of IP */
    uint8_t flags;          /* of TCP: ACK, with or without PSH and FIN */
    uint8_t tos;            /* of IP */
    uint8_t has_stamps;
    uint16_t window;
    uint16_t payload;       /* where it begins, from the beginning of the frame on */
    uint32_t end;           /* and where it ends */
    uint32_t seq, ack, value, echo;
    uint8_t key[EARLY_KEY]; /* `kind`, addresses and ports as they stand there, zeros */
    uint8_t ttl;            /* of IP */
    uint8_t count;          /* segments that go on from one to the next, from this one on */
    uint8_t next;           /* of them: its number in the batch; 0: this is the last */
    uint8_t head;           /* the number of the first one, and 1; 0: it goes on from none */
    uint8_t padding[3];
};

int uplink_receive(int fd, uint8_t *slots, uint32_t slot_size, uint32_t count, uint32_t *sizes);
int uplink_early(const uint8_t *slots, uint32_t slot_size, uint32_t count, const uint32_t *sizes,
                 const uint8_t *hardware, struct early *found);
int uplink_send(int fd, const uint8_t *frames, const uint32_t *sizes, uint32_t count);
uint32_t internet_sum(const uint8_t *data, size_t size, uint32_t before);

#endif
