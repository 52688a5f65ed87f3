/* SAFETY: slots and frames are the caller's own, of the sizes that go with them; nothing points to
 * memory of the guest. A frame that is larger than its slot has the size that it had: the caller
 * sees that it was cut. Of what stands in a frame no offset is followed before it is known to lie
 * within the frame's size.
 */
#define _GNU_SOURCE
#include "uplink.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#define VNET 10u
#define GSO_SIZE 4 /* of packets that were joined to one */
#define ETHERNET 14u
#define IP4_HEADER 20u
#define IP6_HEADER 40u
#define TCP_HEADER 20u
#define UDP_HEADER 8u
#define ETHERTYPE_IP4 0x0800
#define ETHERTYPE_IP6 0x86dd
#define FRAGMENT 0x3fff /* more of them follow, or an offset */
#define CHECKED 3       /* VIRTIO_NET_HDR_F_NEEDS_CSUM, _DATA_VALID */
#define FIN 1
#define PSH 8
#define ACK 16

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

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

/* The header of IP at `ip`, of which `size` bytes are there: where the segment begins, and in `e`
 * where it ends, and of which protocol it is. 0: there is something unusual. */
static uint32_t early_ip(const uint8_t *ip, uint32_t size, uint16_t ethertype, struct early *e)
{
    if (ethertype == ETHERTYPE_IP4 && size >= IP4_HEADER) {
        uint32_t total = get16(ip + 2);
        if (ip[0] != 0x45 || total > size || total < IP4_HEADER || get16(ip + 6) & FRAGMENT ||
            internet_sum(ip, IP4_HEADER, 0) != 0xffff)
            return 0;
        e->kind = 4;
        e->tos = ip[1];
        e->ttl = ip[8];
        e->key[0] = ip[9];
        e->end = total;
        return IP4_HEADER;
    }
    if (ethertype == ETHERTYPE_IP6 && size >= IP6_HEADER) {
        uint32_t total = IP6_HEADER + get16(ip + 4);
        if (ip[0] >> 4 != 6 || total > size)
            return 0;
        e->kind = 6;
        e->tos = (uint8_t)(ip[0] << 4 | ip[1] >> 4);
        e->ttl = ip[7];
        e->key[0] = ip[6];
        e->end = total;
        return IP6_HEADER;
    }
    return 0;
}

/* Its sum, with that of the pseudo header. */
static int early_is_good(const uint8_t *ip, uint32_t at, uint8_t protocol, const struct early *e)
{
    uint32_t addresses = e->kind == 4 ? 8 : 32, size = e->end - at;
    uint8_t pseudo[4] = {(uint8_t)(size >> 8), (uint8_t)size, 0, protocol};
    uint32_t sum = internet_sum(ip + at - addresses, addresses, internet_sum(pseudo, 4, 0));
    return internet_sum(ip + at, size, sum) == 0xffff;
}

/* A segment of TCP: how long its header is; 0: it is unusual. */
static uint32_t early_tcp(const uint8_t *tcp, uint32_t size, struct early *e)
{
    static const uint8_t stamps[4] = {1, 1, 8, 10};
    uint32_t offset = size < TCP_HEADER ? 0 : (tcp[12] >> 4) * 4u;

    e->has_stamps = offset == TCP_HEADER + 12 && size >= offset &&
                    !memcmp(tcp + TCP_HEADER, stamps, sizeof stamps);
    if ((offset != TCP_HEADER && !e->has_stamps) || (tcp[13] & ~(PSH | FIN)) != ACK)
        return 0;
    e->flags = tcp[13];
    e->window = get16(tcp + 14);
    e->seq = get32(tcp + 4);
    e->ack = get32(tcp + 8);
    e->value = e->has_stamps ? get32(tcp + 24) : 0;
    e->echo = e->has_stamps ? get32(tcp + 28) : 0;
    return offset;
}

/* The same of a datagram, which may end before the packet does; one without a sum is unusual. */
static uint32_t early_udp(const uint8_t *udp, uint32_t size, struct early *e)
{
    uint32_t length = size < UDP_HEADER ? 0 : get16(udp + 4);

    if (length < UDP_HEADER || length > size || !get16(udp + 6))
        return 0;
    e->end -= size - length;
    e->key[0] = EARLY_UDP | e->kind;
    return UDP_HEADER;
}

static void early_one(const uint8_t *frame, uint32_t size, const uint8_t *hardware, struct early *e)
{
    const uint8_t *ip = frame + VNET + ETHERNET;

    memset(e, 0, sizeof *e);
    if (size < VNET + ETHERNET || memcmp(frame + VNET, hardware, 6))
        return;
    uint32_t at = early_ip(ip, size - VNET - ETHERNET, get16(ip - 2), e), offset = 0;
    if (!at)
        return;
    uint8_t protocol = e->key[0];
    if (protocol == IPPROTO_TCP) {
        e->key[0] = e->kind;
        offset = early_tcp(ip + at, e->end - at, e);
    } else if (protocol == IPPROTO_UDP && !get16(frame + GSO_SIZE)) {
        offset = early_udp(ip + at, e->end - at, e);
    }
    if (!offset || (!(frame[0] & CHECKED) && !early_is_good(ip, at, protocol, e))) {
        e->kind = 0;
        return;
    }
    uint32_t addresses = e->kind == 4 ? 8 : 32;
    memcpy(e->key + 1, ip + at - addresses, addresses + 4);
    e->payload = (uint16_t)(VNET + ETHERNET + at + offset);
    e->end += VNET + ETHERNET;
}

/* A segment of the same connection that is the next one behind `last`, and says the same. */
static int early_goes_on(const struct early *last, const struct early *e)
{
    return e->seq == last->seq + last->end - last->payload && e->end > e->payload &&
           last->end > last->payload && !(last->flags & FIN) && e->ack == last->ack &&
           e->window == last->window && e->has_stamps == last->has_stamps &&
           e->value == last->value && e->echo == last->echo && e->tos == last->tos &&
           e->ttl == last->ttl;
}

/* Which segments are as good as one: tcp_gro_receive(), net/ipv4/tcp_offload.c. Whatever is unusual
 * is not overtaken. */
static void early_join(struct early *found, uint32_t number, uint32_t *bytes)
{
    struct early *e = &found[number];

    e->count = 1;
    bytes[number] = e->end - e->payload;
    for (uint32_t i = number; e->key[0] == e->kind && i-- > 0 && found[i].kind;) {
        struct early *last = &found[i];
        if (memcmp(last->key, e->key, EARLY_KEY))
            continue;
        uint32_t head = last->head ? last->head - 1u : i;
        if (early_goes_on(last, e) && bytes[head] + bytes[number] <= EARLY_JOINED) {
            last->next = (uint8_t)number;
            e->head = (uint8_t)(head + 1);
            found[head].count++;
            found[head].flags |= e->flags;
            bytes[head] += bytes[number];
        }
        return;
    }
}

/* What stands in frames, with virtio headers, for who has this address: how many have something. */
int uplink_early(const uint8_t *slots, uint32_t slot_size, uint32_t count, const uint32_t *sizes,
                 const uint8_t *hardware, struct early *found)
{
    uint32_t bytes[UPLINK_BATCH];
    int some = 0;

    if (count > UPLINK_BATCH)
        count = UPLINK_BATCH;
    for (uint32_t i = 0; i < count; i++) {
        early_one(slots + (size_t)i * slot_size, sizes[i] <= slot_size ? sizes[i] : 0, hardware,
                  &found[i]);
        some += found[i].kind != 0;
        early_join(found, i, bytes);
    }
    return some;
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
