/* Rings of AF_PACKET (PACKET_RX_RING, PACKET_TX_RING) of all versions, and PACKET_FANOUT. */
#define _GNU_SOURCE
#include "abi.h"
#include "net.h"
#include "net_own.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/mman.h>

#define BLOCK 4096
#define FRAME 2048
#define FRAMES 4
#define SLL_AT(header) (((header) + 15) & ~15)

static int udp;
static struct sockaddr_in self;

static void hello(void)
{
    CHECK(sendto(udp, "hello", 5, 0, (SA *)&self, sizeof self) == 5);
}

static int packet_socket(int version)
{
    int s = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
    CHECK(s >= 0);
    if (version != TPACKET_V1)
        CHECK(set_option(s, SOL_PACKET, PACKET_VERSION, version) == 0);
    return s;
}

static int ring(int s, int which, unsigned block, unsigned blocks, unsigned frame, unsigned frames)
{
    struct tpacket_req3 req = {block, blocks, frame, frames, 0, 0, 0};
    return setsockopt(s, SOL_PACKET, which, &req, sizeof req);
}

static int without_ring(int s, int which)
{
    return ring(s, which, 0, 0, 0, 0);
}

static void header_sizes(void)
{
    static const struct { int version, size; } all[] = {
        {TPACKET_V1, sizeof(struct tpacket_hdr)}, {TPACKET_V2, sizeof(struct tpacket2_hdr)},
        {TPACKET_V3, sizeof(struct tpacket3_hdr)}};
    int s = packet_socket(TPACKET_V1), value;
    socklen_t size;
    for (int i = 0; i < 3; i++) {
        value = all[i].version, size = sizeof value;
        CHECK(getsockopt(s, SOL_PACKET, PACKET_HDRLEN, &value, &size) == 0);
        CHECK(size == 4 && value == all[i].size);
    }
    value = 3, size = sizeof value;
    CHECK_ERR(getsockopt(s, SOL_PACKET, PACKET_HDRLEN, &value, &size), EINVAL);
    value = 1, size = 3;
    CHECK_ERR(getsockopt(s, SOL_PACKET, PACKET_HDRLEN, &value, &size), EINVAL);
    CHECK_ERR(set_option(s, SOL_PACKET, PACKET_VERSION, 3), EINVAL);
    close(s);
}

static void refused(int version, int which)
{
    int s = packet_socket(version);
    struct tpacket_req3 req = {BLOCK, 1, FRAME, 2};
    size_t least = version == TPACKET_V3 ? sizeof req : sizeof(struct tpacket_req);
    CHECK_ERR(setsockopt(s, SOL_PACKET, which, &req, least - 1), EINVAL);
    CHECK_ERR(ring(s, which, BLOCK, 1, FRAME, 3), EINVAL);
    CHECK_ERR(ring(s, which, BLOCK + 16, 1, FRAME, 2), EINVAL);
    CHECK_ERR(ring(s, which, 1u << 31, 1, FRAME, 1u << 20), EINVAL);
    CHECK_ERR(ring(s, which, BLOCK, 1, FRAME + 8, 1), EINVAL);
    CHECK_ERR(ring(s, which, BLOCK, 1, 48, BLOCK / 48), EINVAL);
    CHECK_ERR(ring(s, which, BLOCK, 1, 2 * BLOCK, 0), EINVAL);
    CHECK_ERR(ring(s, which, 0, 0, 0, 1), EINVAL);
    CHECK(without_ring(s, which) == 0);
    CHECK_ERR(mmap(NULL, BLOCK, PROT_READ, MAP_SHARED, s, 0) == MAP_FAILED ? -1 : 0, EINVAL);
    CHECK(ring(s, which, BLOCK, 2, FRAME, 4) == 0);
    CHECK_ERR(ring(s, which, BLOCK, 2, FRAME, 4), EBUSY);
    CHECK_ERR(set_option(s, SOL_PACKET, PACKET_VERSION, TPACKET_V1), EBUSY);
    CHECK_ERR(set_option(s, SOL_PACKET, PACKET_RESERVE, 4), EBUSY);
    CHECK_ERR(set_option(s, SOL_PACKET, PACKET_LOSS, 1), EBUSY);
    CHECK_ERR(mmap(NULL, BLOCK, PROT_READ, MAP_SHARED, s, 0) == MAP_FAILED ? -1 : 0, EINVAL);
    CHECK_ERR(mmap(NULL, 3 * BLOCK, PROT_READ, MAP_SHARED, s, 0) == MAP_FAILED ? -1 : 0, EINVAL);
    CHECK_ERR(mmap(NULL, BLOCK, PROT_READ, MAP_SHARED, s, BLOCK) == MAP_FAILED ? -1 : 0, EINVAL);
    void *at = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0);
    CHECK(at != MAP_FAILED);
    CHECK_ERR(without_ring(s, which), EBUSY);
    CHECK(munmap(at, 2 * BLOCK) == 0);
    CHECK(without_ring(s, which) == 0);
    CHECK(set_option(s, SOL_PACKET, PACKET_RESERVE, 4) == 0);
    close(s);
}

static void counted(int s, unsigned packets, unsigned drops)
{
    unsigned counts[3];
    socklen_t size = sizeof counts;
    CHECK(getsockopt(s, SOL_PACKET, PACKET_STATISTICS, counts, &size) == 0);
    CHECK(counts[0] == packets && counts[1] == drops);
}

static void is_hello(const unsigned char *frame, size_t header, unsigned mac, unsigned net, int kind)
{
    const struct sockaddr_ll *sll = (const void *)(frame + SLL_AT(header));
    CHECK(sll->sll_family == AF_PACKET && sll->sll_ifindex == 1 && sll->sll_pkttype == kind);
    CHECK(sll->sll_protocol == htons(ETH_P_IP) && sll->sll_hatype == 772 && sll->sll_halen == 6);
    CHECK(net == mac + 14 && frame[net] == 0x45);
    CHECK(memcmp(frame + net + 28, "hello", 5) == 0);
}

/* Of the first two versions: a frame each. */
static void frames(int version, int reserve)
{
    int s = packet_socket(version);
    unsigned char *map, *frame;
    if (reserve)
        CHECK(set_option(s, SOL_PACKET, PACKET_RESERVE, reserve) == 0);
    CHECK(ring(s, PACKET_RX_RING, BLOCK, 2, FRAME, FRAMES) == 0);
    map = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0);
    CHECK(map != MAP_FAILED && events(s) == POLLOUT);
    hello(); /* it goes out, and comes in */
    CHECK(events(s) == (POLLIN | POLLOUT));
    char other[100];
    CHECK_ERR(recv(s, other, sizeof other, MSG_DONTWAIT), EAGAIN);
    for (int i = 0; i < 2; i++) {
        frame = map + i * FRAME;
        int kind = i ? PACKET_HOST : PACKET_OUTGOING;
        if (version == TPACKET_V1) {
            struct tpacket_hdr *h = (void *)frame;
            CHECK(h->tp_status & TP_STATUS_USER && h->tp_len == 47 && h->tp_snaplen == 47);
            CHECK(h->tp_net == ((52 + 16 + 15) & ~15) + reserve && h->tp_sec > 1000000000);
            is_hello(frame, sizeof *h, h->tp_mac, h->tp_net, kind);
        } else {
            struct tpacket2_hdr *h = (void *)frame;
            CHECK(h->tp_status & TP_STATUS_USER && h->tp_len == 47 && h->tp_snaplen == 47);
            CHECK(h->tp_net == ((52 + 16 + 15) & ~15) + reserve && h->tp_vlan_tci == 0);
            is_hello(frame, sizeof *h, h->tp_mac, h->tp_net, kind);
        }
    }
    hello();
    hello(); /* there is no more room */
    counted(s, 6, 2);
    counted(s, 0, 0);
    for (int i = 0; i < FRAMES; i++)
        *(unsigned *)(map + i * FRAME) = TP_STATUS_KERNEL;
    CHECK(events(s) == POLLOUT);
    hello();
    CHECK(*(unsigned *)map & TP_STATUS_USER && !(*(unsigned *)map & TP_STATUS_LOSING));
    CHECK(*(unsigned *)(map + FRAME) & TP_STATUS_USER);
    CHECK(*(unsigned *)(map + 2 * FRAME) == TP_STATUS_KERNEL);
    munmap(map, 2 * BLOCK), close(s);
}

/* What is too long for a frame is cut. */
static void cut(void)
{
    int s = packet_socket(TPACKET_V2);
    CHECK(ring(s, PACKET_RX_RING, BLOCK, 1, 128, BLOCK / 128) == 0);
    unsigned char *map = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0);
    char data[300];
    memset(data, 'x', sizeof data);
    CHECK(sendto(udp, data, sizeof data, 0, (SA *)&self, sizeof self) == sizeof data);
    struct tpacket2_hdr *h = (void *)map;
    CHECK(h->tp_status & TP_STATUS_USER && h->tp_len == 342 && h->tp_snaplen == 128u - h->tp_mac);
    h = (void *)(map + 128);
    CHECK(h->tp_status & TP_STATUS_USER && h->tp_snaplen == 128u - h->tp_mac);
    munmap(map, BLOCK), close(s);
}

/* Of the third version: blocks of many, which are handed over when they are full, or in time. */
static void blocks(void)
{
    int s = packet_socket(TPACKET_V3);
    struct tpacket_req3 req = {BLOCK, 2, FRAME, FRAMES, 30, 13, 0};
    CHECK(setsockopt(s, SOL_PACKET, PACKET_RX_RING, &req, sizeof req) == 0);
    unsigned char *map = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0);
    CHECK(map != MAP_FAILED && events(s) == POLLOUT);
    hello();
    wait_for(s, POLLIN);
    CHECK(events(s) == (POLLIN | POLLOUT));
    struct tpacket_block_desc *b = (void *)map;
    struct tpacket_hdr_v1 *about = &b->hdr.bh1;
    CHECK(b->version == TPACKET_V3 && b->offset_to_priv == 48);
    CHECK(about->block_status & TP_STATUS_USER && about->block_status & TP_STATUS_BLK_TMO);
    CHECK(about->num_pkts == 2 && about->offset_to_first_pkt == 64 && about->seq_num == 1);
    unsigned char *frame = map + about->offset_to_first_pkt;
    for (int i = 0; i < 2; i++) {
        struct tpacket3_hdr *h = (void *)frame;
        CHECK(h->tp_len == 47 && h->tp_snaplen == 47);
        CHECK(h->tp_net == ((68 + 16 + 15) & ~15));
        is_hello(frame, sizeof *h, h->tp_mac, h->tp_net, i ? PACKET_HOST : PACKET_OUTGOING);
        CHECK(i ? h->tp_next_offset == 0
                : h->tp_next_offset == ((h->tp_mac + 47u + 7) & ~7u));
        CHECK(about->blk_len > (frame - map) + h->tp_mac + 47);
        frame += h->tp_next_offset;
    }
    CHECK(about->ts_first_pkt.ts_sec <= about->ts_last_pkt.ts_sec);

    counted(s, 2, 0);
    char data[1000];
    memset(data, 'x', sizeof data);
    for (int i = 0; i < 4; i++) /* 2 of the 8 frames do not fit, as the first block is ours */
        CHECK(sendto(udp, data, sizeof data, 0, (SA *)&self, sizeof self) == sizeof data);
    b = (void *)(map + BLOCK), about = &b->hdr.bh1;
    CHECK(about->block_status & TP_STATUS_USER && !(about->block_status & TP_STATUS_BLK_TMO));
    CHECK(about->num_pkts == 3 && about->seq_num == 2);
    unsigned counts[3];
    socklen_t size = sizeof counts;
    CHECK(getsockopt(s, SOL_PACKET, PACKET_STATISTICS, counts, &size) == 0 && size == 12);
    CHECK(counts[0] == 8 && counts[1] == 5 && counts[2] == 1);
    ((struct tpacket_block_desc *)map)->hdr.bh1.block_status = TP_STATUS_KERNEL;
    about->block_status = TP_STATUS_KERNEL;
    hello();
    wait_for(s, POLLIN);
    about = &((struct tpacket_block_desc *)map)->hdr.bh1;
    CHECK(about->block_status & TP_STATUS_USER && about->num_pkts == 2 && about->seq_num == 3);
    munmap(map, 2 * BLOCK), close(s);
}

static void to_be_sent(void)
{
    int s = packet_socket(TPACKET_V2), seen = packet_socket(TPACKET_V1);
    struct sockaddr_ll to = {AF_PACKET, htons(ETH_P_ALL), 1};
    CHECK(bind(s, (SA *)&to, sizeof to) == 0);
    CHECK(ring(s, PACKET_RX_RING, BLOCK, 1, FRAME, 2) == 0);
    CHECK(ring(s, PACKET_TX_RING, BLOCK, 2, FRAME, FRAMES) == 0);
    unsigned char *map = mmap(NULL, 3 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0);
    CHECK(map != MAP_FAILED);
    unsigned char *sends = map + BLOCK, got[FRAME];
    for (int i = 0; i < 3; i++) {
        struct tpacket2_hdr *h = (void *)(sends + i * FRAME);
        unsigned char *data = (unsigned char *)h + TPACKET2_HDRLEN - sizeof(struct sockaddr_ll);
        memcpy(data, "\2\0\0\0\0\0\0\0\0\0\0\0\x12\x34number 0", 22);
        data[21] += i;
        h->tp_len = 22;
        h->tp_status = TP_STATUS_SEND_REQUEST;
    }
    CHECK(send(s, NULL, 0, 0) == 66);
    for (int i = 0; i < 3; i++) {
        CHECK(*(unsigned *)(sends + i * FRAME) == TP_STATUS_AVAILABLE);
        for (int way = 0; way < 2; way++) {
            wait_for(seen, POLLIN);
            CHECK(recv(seen, got, sizeof got, MSG_DONTWAIT) == 22 && got[21] == '0' + i);
        }
    }
    CHECK(send(s, NULL, 0, 0) == 0);
    struct tpacket2_hdr *h = (void *)(sends + 3 * FRAME);
    h->tp_len = FRAME;
    h->tp_status = TP_STATUS_SEND_REQUEST;
    CHECK_ERR(send(s, NULL, 0, 0), EMSGSIZE);
    CHECK(h->tp_status == TP_STATUS_WRONG_FORMAT);
    h->tp_len = 13;
    h->tp_status = TP_STATUS_SEND_REQUEST;
    CHECK_ERR(send(s, NULL, 0, 0), EINVAL);
    munmap(map, 3 * BLOCK), close(s), close(seen);
}

/* No frame has room for a packet: the last one neither, and all of it can still be mapped. */
static void small(void)
{
    int s = packet_socket(TPACKET_V2);
    CHECK(ring(s, PACKET_RX_RING, BLOCK, 1, 64, BLOCK / 64) == 0);
    for (int i = 0; i < BLOCK / 64; i++) /* each goes out and comes in */
        hello();
    unsigned char *map = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0);
    CHECK(map != MAP_FAILED);
    struct tpacket2_hdr *h = (void *)(map + BLOCK - 64);
    CHECK(h->tp_status & TP_STATUS_USER && h->tp_snaplen == 0);
    munmap(map, BLOCK), close(s);
}

/* Who sends a ring waits until all have heard of it. */
static void sent_to_many(void)
{
    enum { MANY = 200 };
    static int seen[MANY];
    int s = packet_socket(TPACKET_V2);
    struct sockaddr_ll to = {AF_PACKET, htons(ETH_P_ALL), 1};
    CHECK(bind(s, (SA *)&to, sizeof to) == 0);
    CHECK(ring(s, PACKET_TX_RING, BLOCK, 2, FRAME, FRAMES) == 0);
    unsigned char *map = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0);
    CHECK(map != MAP_FAILED);
    for (int i = 0; i < MANY; i++)
        seen[i] = packet_socket(TPACKET_V1);
    for (int i = 0; i < FRAMES; i++) {
        struct tpacket2_hdr *h = (void *)(map + i * FRAME);
        unsigned char *data = (unsigned char *)h + TPACKET2_HDRLEN - sizeof(struct sockaddr_ll);
        memcpy(data, "\2\0\0\0\0\0\0\0\0\0\0\0\x12\x34number 0", 22);
        h->tp_len = 22;
        h->tp_status = TP_STATUS_SEND_REQUEST;
    }
    CHECK(send(s, NULL, 0, 0) == 22 * FRAMES);
    wait_for(seen[MANY - 1], POLLIN);
    char got[FRAME];
    for (int i = 0; i < MANY; i++) {
        for (int k = 0; k < 2 * FRAMES; k++)
            CHECK(recv(seen[i], got, sizeof got, MSG_DONTWAIT) == 22);
        close(seen[i]);
    }
    munmap(map, 2 * BLOCK), close(s);
}

static void spread(void)
{
    int s[3];
    for (int i = 0; i < 3; i++) {
        s[i] = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_IP));
        CHECK(option(s[i], SOL_PACKET, PACKET_FANOUT) == 0);
    }
    CHECK_ERR(set_option(s[0], SOL_PACKET, PACKET_FANOUT, 7 | 99 << 16), EINVAL);
    CHECK(set_option(s[0], SOL_PACKET, PACKET_FANOUT, 7 | PACKET_FANOUT_LB << 16) == 0);
    CHECK_ERR(set_option(s[0], SOL_PACKET, PACKET_FANOUT, 7 | PACKET_FANOUT_LB << 16), EALREADY);
    CHECK(option(s[0], SOL_PACKET, PACKET_FANOUT) == (7 | PACKET_FANOUT_LB << 16));
    CHECK_ERR(set_option(s[1], SOL_PACKET, PACKET_FANOUT, 7 | PACKET_FANOUT_HASH << 16), EINVAL);
    CHECK(set_option(s[1], SOL_PACKET, PACKET_FANOUT, 7 | PACKET_FANOUT_LB << 16) == 0);
    struct sockaddr_ll a = {AF_PACKET, htons(ETH_P_IP), 1};
    CHECK_ERR(bind(s[1], (SA *)&a, sizeof a), EINVAL);
    for (int i = 0; i < 4; i++)
        hello();
    char got[100];
    int heard[3] = {0};
    for (int i = 0; i < 3; i++)
        while (recv(s[i], got, sizeof got, MSG_DONTWAIT) == 33)
            heard[i]++;
    CHECK(heard[0] == 2 && heard[1] == 2 && heard[2] == 4);
    close(s[0]);
    hello();
    CHECK(recv(s[1], got, sizeof got, MSG_DONTWAIT) == 33);
    close(s[1]);
    CHECK(set_option(s[2], SOL_PACKET, PACKET_FANOUT, 7 | PACKET_FANOUT_HASH << 16) == 0);
    CHECK(recv(s[2], got, sizeof got, MSG_DONTWAIT) == 33); /* from before */
    hello();
    CHECK(recv(s[2], got, sizeof got, MSG_DONTWAIT) == 33);
    close(s[2]);
}

int main(void)
{
    own_network();
    udp = socket(AF_INET, SOCK_DGRAM, 0);
    socklen_t size = sizeof self;
    self = (struct sockaddr_in){AF_INET, 0, {htonl(INADDR_LOOPBACK)}};
    CHECK(bind(udp, (SA *)&self, sizeof self) == 0);
    CHECK(getsockname(udp, (SA *)&self, &size) == 0);
    header_sizes();
    for (int version = TPACKET_V1; version <= TPACKET_V3; version++) {
        refused(version, PACKET_RX_RING);
        refused(version, PACKET_TX_RING);
    }
    for (int version = TPACKET_V1; version <= TPACKET_V2; version++) {
        frames(version, 0);
        frames(version, 4);
    }
    cut();
    blocks();
    to_be_sent();
    small();
    sent_to_many();
    spread();
    CHECK(umount("proc") == 0 && rmdir("proc") == 0);
    return 0;
}
