/* SAFETY: slots and frames are the caller's own, of the sizes that go with them; nothing points to
 * memory of the guest. A frame that is larger than its slot has the size that it had: the caller
 * sees that it was cut.
 */
#define _GNU_SOURCE
#include "uplink.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* recvmmsg(2): how many slots are full, or -errno. */
int uplink_receive(int fd, uint8_t *slots, uint32_t slot_size, uint32_t count, uint32_t *sizes)
{
    struct mmsghdr messages[UPLINK_BATCH];
    struct iovec pieces[UPLINK_BATCH];

    if (count > UPLINK_BATCH)
        count = UPLINK_BATCH;
    memset(messages, 0, count * sizeof(messages[0]));
    for (uint32_t i = 0; i < count; i++) {
        pieces[i] = (struct iovec){slots + (size_t)i * slot_size, slot_size};
        messages[i].msg_hdr.msg_iov = &pieces[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    int got = recvmmsg(fd, messages, count, MSG_DONTWAIT | MSG_TRUNC, NULL);
    for (int i = 0; i < got; i++)
        sizes[i] = messages[i].msg_len;
    return got < 0 ? -errno : got;
}

/* sendmmsg(2) of frames that lie one behind the other: how many went, or -errno for the first. */
int uplink_send(int fd, const uint8_t *frames, const uint32_t *sizes, uint32_t count)
{
    struct mmsghdr messages[UPLINK_BATCH];
    struct iovec pieces[UPLINK_BATCH];

    if (count > UPLINK_BATCH)
        count = UPLINK_BATCH;
    memset(messages, 0, count * sizeof(messages[0]));
    for (uint32_t i = 0; i < count; i++) {
        pieces[i] = (struct iovec){(void *)frames, sizes[i]};
        frames += sizes[i];
        messages[i].msg_hdr.msg_iov = &pieces[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    int sent = sendmmsg(fd, messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}

/* RFC 1071: the sum of 16-bit words in one's complement, folded, not inverted; what is odd at the
 * end counts as if a zero followed. `before` is such a sum of what is in front. */
uint32_t internet_sum(const uint8_t *data, size_t size, uint32_t before)
{
    uint64_t total = __builtin_bswap16((uint16_t)before);
    uint64_t word;

    for (; size >= 8; size -= 8, data += 8) {
        memcpy(&word, data, 8);
        total += word;
        total += total < word;
    }
    if (size) {
        word = 0;
        memcpy(&word, data, size);
        total += word;
        total += total < word;
    }
    total = (total & 0xffffffff) + (total >> 32);
    total = (total & 0xffffffff) + (total >> 32);
    total = (total & 0xffff) + (total >> 16);
    total = (total & 0xffff) + (total >> 16);
    return __builtin_bswap16((uint16_t)total);
}
