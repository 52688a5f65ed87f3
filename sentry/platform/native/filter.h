/* Classic BPF programs, which are hostile: checked once, run in bounded time. */
#ifndef SENTRY_FILTER_H
#define SENTRY_FILTER_H

#include <stdint.h>

#define FILTER_MAX 4096       /* BPF_MAXINSNS */
#define FILTER_MEMORY 16      /* BPF_MEMWORDS */
#define FILTER_CALL_BYTES 64  /* sizeof(struct seccomp_data) */
#define FILTER_LOOKED_SHIFT 32
#define FILTER_PLACE_SHIFT 33

/* A checked program; nothing of it changes but `older`, once. */
struct filter;

/* How a packet lies before a filter: struct sk_buff. Positions are in the bytes that go with it. */
struct packet {
    uint32_t size;     /* of all bytes */
    uint32_t start;    /* where what the program calls the packet begins */
    uint32_t network;  /* SKF_NET_OFF: its network header */
    int64_t link;      /* SKF_LL_OFF: its link header; -1: it has none */
    uint32_t protocol; /* SKF_AD_PROTOCOL */
    uint32_t kind;     /* SKF_AD_PKTTYPE */
    uint32_t device;   /* SKF_AD_IFINDEX; 0: no device */
    uint32_t hardware; /* SKF_AD_HATYPE */
    uint32_t has_tag;  /* SKF_AD_VLAN_TAG_PRESENT */
    uint32_t tag_kind; /* SKF_AD_VLAN_TPID */
    uint32_t tag;      /* SKF_AD_VLAN_TAG */
};

/* Take a program of `count` struct sock_filter, for system calls or for packets. NULL: Linux refuses
 * it, or there is no memory. */
struct filter *filter_make(const uint8_t *code, uint32_t count, int for_calls);
void filter_free(struct filter *filter);
/* It runs before `older`, which has to live as long. */
void filter_link(struct filter *filter, const struct filter *older);
const uint8_t *filter_code(const struct filter *filter); /* its struct sock_filter */
/* How many instructions Linux makes of it: what its limits count. */
uint32_t filter_converted(const struct filter *filter);

/* The result over a packet. Preconditions: `bytes` has packet->size of them, made for packets. */
uint32_t filter_packet(const struct filter *filter, const uint8_t *bytes,
                       const struct packet *packet);
/* Run `newest` and all older ones over struct seccomp_data: the strictest action, of equal ones the
 * newest filter's; with it at FILTER_LOOKED_SHIFT whether more than number and architecture was
 * looked at, and at FILTER_PLACE_SHIFT how many newer filters there are than the one that decided.
 * Preconditions: made for calls; FILTER_CALL_BYTES of data. */
uint64_t filter_calls(const struct filter *newest, const uint8_t *data);

#endif
