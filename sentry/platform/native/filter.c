/* Runs checked programs. Linux translates them for its eBPF machine; the results are the same.
 *
 * SAFETY: a program is a private copy, and only what filter_accepts() has seen is run; even so no
 * instruction is fetched beyond the end, scratch memory is indexed modulo its size, and every load is
 * compared with the size of the packet in 64 bits. Jumps go forward only, and what one instruction
 * may do in a loop (netlink attributes) has a bound for the whole run: so a run ends after
 * FILTER_MAX instructions and MAX_ATTRIBUTES attributes at the latest.
 */
#include "filter_internal.h"

#include <linux/if_ether.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#define MAX_ATTRIBUTES 16384

/* What a run is over: a packet, or the words of struct seccomp_data. */
struct input {
    const uint8_t *bytes;
    const struct packet *packet;
    const uint32_t *words;
    uint32_t length;     /* LD LEN */
    uint32_t attributes; /* that may still be looked at */
    int looked;          /* at more than the number and the architecture */
};

struct filter *filter_make(const uint8_t *code, uint32_t count, int for_calls)
{
    if (!filter_accepts(code, count, for_calls))
        return NULL;
    struct filter *filter = malloc(sizeof *filter + count * sizeof *filter->code);
    if (!filter)
        return NULL;
    memcpy(filter->code, code, count * sizeof *filter->code);
    filter->older = NULL;
    filter->count = count;
    filter->converted = filter_conversion(filter->code, count, for_calls);
    return filter;
}

void filter_free(struct filter *filter) { free(filter); }

void filter_link(struct filter *filter, const struct filter *older) { filter->older = older; }

const uint8_t *filter_code(const struct filter *filter) { return (const uint8_t *)filter->code; }

uint32_t filter_converted(const struct filter *filter) { return filter->converted; }

/* Whether `size` bytes at `at` are there. */
static int is_inside(const struct packet *packet, int64_t at, uint32_t size)
{
    return at >= 0 && at + size <= packet->size;
}

/* bpf_skb_load_helper_*(): offsets below zero are from one of the headers. 0: there is nothing. */
static int load(const struct input *in, int32_t offset, uint32_t size, uint32_t *value)
{
    const struct packet *packet = in->packet;
    int64_t at;
    if (offset >= 0)
        at = (int64_t)packet->start + offset;
    else if (offset >= SKF_NET_OFF)
        at = (int64_t)packet->network + offset - SKF_NET_OFF;
    else if (offset >= SKF_LL_OFF && packet->link >= 0)
        at = packet->link + offset - SKF_LL_OFF;
    else
        return 0;
    if (!is_inside(packet, at, size))
        return 0;
    uint32_t found = 0;
    for (uint32_t i = 0; i < size; i++)
        found = found << 8 | in->bytes[at + i];
    *value = found;
    return 1;
}

/* nla_find() between two offsets of the packet: where the attribute is, 0 if it is not. */
static uint32_t find_attribute(struct input *in, uint32_t at, uint32_t end, uint32_t type)
{
    while (end > at && end - at >= sizeof(struct nlattr) && in->attributes) {
        struct nlattr attribute;
        memcpy(&attribute, in->bytes + in->packet->start + at, sizeof attribute);
        uint32_t size = attribute.nla_len;
        if (size < sizeof attribute || size > end - at)
            return 0;
        if ((attribute.nla_type & NLA_TYPE_MASK) == type)
            return at;
        in->attributes--;
        at += (size + 3) & ~3u; /* NLA_ALIGN */
    }
    return 0;
}

/* bpf_skb_get_nlattr(), bpf_skb_get_nlattr_nest(): A is where to begin, X the type. */
static uint32_t attribute(struct input *in, uint32_t a, uint32_t x, int nested)
{
    if (in->length < sizeof(struct nlattr) || a > in->length - sizeof(struct nlattr))
        return 0;
    if (!nested)
        return find_attribute(in, a, in->length, x);
    struct nlattr outer;
    memcpy(&outer, in->bytes + in->packet->start + a, sizeof outer);
    if (outer.nla_len > in->length - a || outer.nla_len < sizeof outer)
        return 0;
    return find_attribute(in, a + (uint32_t)sizeof outer, a + outer.nla_len, x);
}

/* skb_get_poff(): how many bytes the headers take, of packets without extension headers. */
static uint32_t payload_offset(const struct input *in)
{
    const struct packet *packet = in->packet;
    const uint8_t *head = in->bytes + packet->network;
    uint32_t protocol;
    int64_t at = packet->network;
    if (packet->protocol == ETH_P_IP && is_inside(packet, at, 20) && (head[0] & 0xF) >= 5) {
        at += (head[0] & 0xF) * 4;
        protocol = head[6] & 0x3F || head[7] ? IPPROTO_RAW : head[9];
    } else if (packet->protocol == ETH_P_IPV6 && is_inside(packet, at, 40)) {
        at += 40;
        protocol = head[6];
    } else {
        return 0;
    }
    uint32_t offset = (uint32_t)(at - packet->start);
    switch (protocol) {
    case IPPROTO_TCP:
        if (!is_inside(packet, at, 13))
            return offset;
        uint32_t words = (in->bytes[at + 12] & 0xF0u) >> 2;
        return offset + (words < 20 ? 20 : words);
    case IPPROTO_UDP: case IPPROTO_UDPLITE: case IPPROTO_ICMP: case IPPROTO_ICMPV6: case IPPROTO_IGMP:
        return offset + 8;
    case IPPROTO_SCTP: case IPPROTO_DCCP:
        return offset + 12;
    }
    return offset;
}

/* get_random_u32() is for sampling here, not for secrets. */
static uint32_t random_number(void)
{
    uint64_t seed = __rdtsc() * 0x9E3779B97F4A7C15u;
    seed = (seed ^ seed >> 32) * 0xD6E8FEB86659FD93u;
    return (uint32_t)(seed >> 32);
}

/* convert_bpf_extensions(): what a load at SKF_AD_OFF + k gives. 0: the program ends with A. */
static int extension(struct input *in, uint32_t k, uint32_t x, uint32_t *a)
{
    const struct packet *packet = in->packet;
    switch (k) {
    case SKF_AD_PROTOCOL: *a = packet->protocol; return 1;
    case SKF_AD_PKTTYPE: *a = packet->kind; return 1;
    case SKF_AD_IFINDEX: case SKF_AD_HATYPE:
        if (!packet->device)
            return 0;
        *a = k == SKF_AD_IFINDEX ? packet->device : packet->hardware;
        return 1;
    case SKF_AD_NLATTR: *a = attribute(in, *a, x, 0); return 1;
    case SKF_AD_NLATTR_NEST: *a = attribute(in, *a, x, 1); return 1;
    case SKF_AD_ALU_XOR_X: *a ^= x; return 1;
    case SKF_AD_PAY_OFFSET: *a = payload_offset(in); return 1;
    case SKF_AD_RANDOM: *a = random_number(); return 1;
    case SKF_AD_VLAN_TAG: *a = packet->tag; return 1;
    case SKF_AD_VLAN_TAG_PRESENT: *a = packet->has_tag; return 1;
    case SKF_AD_VLAN_TPID: *a = packet->tag_kind; return 1;
    }
    *a = 0; /* no mark, no queue, no hash, CPU 0 */
    return 1;
}

#define ARITHMETIC(op, expression)                                       \
    case BPF_ALU | (op) | BPF_K: { uint32_t b = at->k; a = (expression); continue; } \
    case BPF_ALU | (op) | BPF_X: { uint32_t b = x; a = (expression); continue; }
#define DIVISION(op, expression)                                         \
    case BPF_ALU | (op) | BPF_K: { uint32_t b = at->k; if (!b) return 0; a = (expression); continue; } \
    case BPF_ALU | (op) | BPF_X: { uint32_t b = x; if (!b) return 0; a = (expression); continue; }
#define JUMP(op, condition)                                              \
    case BPF_JMP | (op) | BPF_K: { uint32_t b = at->k; pc += (condition) ? at->jt : at->jf; continue; } \
    case BPF_JMP | (op) | BPF_X: { uint32_t b = x; pc += (condition) ? at->jt : at->jf; continue; }
#define LOAD(size_code, size)                                            \
    case BPF_LD | (size_code) | BPF_ABS:                                 \
        if (at->k >= (uint32_t)SKF_AD_OFF) {                             \
            if (!extension(in, at->k - (uint32_t)SKF_AD_OFF, x, &a))     \
                return a;                                                \
        } else if (!load(in, (int32_t)at->k, size, &a)) {                \
            return 0;                                                    \
        }                                                                \
        continue;                                                        \
    case BPF_LD | (size_code) | BPF_IND:                                 \
        if (!load(in, (int32_t)(x + at->k), size, &a))                   \
            return 0;                                                    \
        continue;

static uint32_t run(const struct filter *filter, struct input *in)
{
    uint32_t a = 0, x = 0, memory[FILTER_MEMORY] = {0};
    uint64_t pc = 0;
    while (pc < filter->count) {
        const struct sock_filter *at = &filter->code[pc++];
        switch (at->code) {
        ARITHMETIC(BPF_ADD, a + b)
        ARITHMETIC(BPF_SUB, a - b)
        ARITHMETIC(BPF_MUL, a * b)
        ARITHMETIC(BPF_OR, a | b)
        ARITHMETIC(BPF_AND, a & b)
        ARITHMETIC(BPF_XOR, a ^ b)
        ARITHMETIC(BPF_LSH, a << (b & 31))
        ARITHMETIC(BPF_RSH, a >> (b & 31))
        DIVISION(BPF_DIV, a / b)
        DIVISION(BPF_MOD, a % b)
        JUMP(BPF_JEQ, a == b)
        JUMP(BPF_JGT, a > b)
        JUMP(BPF_JGE, a >= b)
        JUMP(BPF_JSET, a & b)
        case BPF_ALU | BPF_NEG: a = -a; continue;
        case BPF_JMP | BPF_JA: pc += at->k; continue;
        case BPF_RET | BPF_K: return at->k;
        case BPF_RET | BPF_A: return a;
        case BPF_LD | BPF_IMM: a = at->k; continue;
        case BPF_LDX | BPF_IMM: x = at->k; continue;
        case BPF_LD | BPF_MEM: a = memory[at->k % FILTER_MEMORY]; continue;
        case BPF_LDX | BPF_MEM: x = memory[at->k % FILTER_MEMORY]; continue;
        case BPF_ST: memory[at->k % FILTER_MEMORY] = a; continue;
        case BPF_STX: memory[at->k % FILTER_MEMORY] = x; continue;
        case BPF_LD | BPF_W | BPF_LEN: a = in->length; continue;
        case BPF_LDX | BPF_W | BPF_LEN: x = in->length; continue;
        case BPF_MISC | BPF_TAX: x = a; continue;
        case BPF_MISC | BPF_TXA: a = x; continue;
        }
        if (in->words) { /* the one load of seccomp */
            in->looked |= at->k >= 8;
            a = in->words[at->k / 4 % (FILTER_CALL_BYTES / 4)];
            continue;
        }
        switch (at->code) {
        LOAD(BPF_W, 4)
        LOAD(BPF_H, 2)
        LOAD(BPF_B, 1)
        case BPF_LDX | BPF_B | BPF_MSH:
            if (!load(in, (int32_t)at->k, 1, &x))
                return 0;
            x = (x & 0xF) << 2;
            continue;
        }
        return 0;
    }
    return 0;
}

uint32_t filter_packet(const struct filter *filter, const uint8_t *bytes,
                       const struct packet *packet)
{
    struct input in = {.bytes = bytes, .packet = packet, .attributes = MAX_ATTRIBUTES};
    if (packet->start > packet->size)
        return 0;
    in.length = packet->size - packet->start;
    return run(filter, &in);
}

uint64_t filter_calls(const struct filter *newest, const uint8_t *data)
{
    uint32_t words[FILTER_CALL_BYTES / 4];
    struct input in = {.words = words, .length = FILTER_CALL_BYTES};
    uint32_t best = SECCOMP_RET_ALLOW;
    uint64_t place = 0, decided = 0;
    memcpy(words, data, sizeof words);
    for (const struct filter *filter = newest; filter; filter = filter->older, place++) {
        uint32_t result = run(filter, &in);
        if ((int32_t)(result & SECCOMP_RET_ACTION_FULL) < (int32_t)(best & SECCOMP_RET_ACTION_FULL)) {
            best = result;
            decided = place;
        }
    }
    return best | (uint64_t)(in.looked != 0) << FILTER_LOOKED_SHIFT | decided << FILTER_PLACE_SHIFT;
}
