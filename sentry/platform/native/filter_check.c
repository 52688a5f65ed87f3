/* Which programs Linux accepts: bpf_check_classic(), seccomp_check_filter(); and how long they become
 * in its own machine: bpf_convert_filter() of net/core/filter.c.
 *
 * SAFETY: an instruction is looked at only below `count`, which is at most FILTER_MAX.
 */
#include "filter_internal.h"

#include <string.h>

#define ANCILLARY ((uint32_t)SKF_AD_OFF)

static int is_jump(uint16_t code)
{
    switch (code) {
    case BPF_JMP | BPF_JEQ | BPF_K: case BPF_JMP | BPF_JEQ | BPF_X:
    case BPF_JMP | BPF_JGT | BPF_K: case BPF_JMP | BPF_JGT | BPF_X:
    case BPF_JMP | BPF_JGE | BPF_K: case BPF_JMP | BPF_JGE | BPF_X:
    case BPF_JMP | BPF_JSET | BPF_K: case BPF_JMP | BPF_JSET | BPF_X:
        return 1;
    }
    return 0;
}

/* The operands of the instruction at `pc` are within bounds, and there is such an instruction. */
static int is_valid(const struct sock_filter *code, uint32_t pc, uint32_t count)
{
    const struct sock_filter *at = &code[pc];
    uint32_t left = count - pc - 1;
    if (is_jump(at->code))
        return at->jt < left && at->jf < left;
    switch (at->code) {
    case BPF_ALU | BPF_ADD | BPF_K: case BPF_ALU | BPF_ADD | BPF_X:
    case BPF_ALU | BPF_SUB | BPF_K: case BPF_ALU | BPF_SUB | BPF_X:
    case BPF_ALU | BPF_MUL | BPF_K: case BPF_ALU | BPF_MUL | BPF_X:
    case BPF_ALU | BPF_OR | BPF_K: case BPF_ALU | BPF_OR | BPF_X:
    case BPF_ALU | BPF_AND | BPF_K: case BPF_ALU | BPF_AND | BPF_X:
    case BPF_ALU | BPF_XOR | BPF_K: case BPF_ALU | BPF_XOR | BPF_X:
    case BPF_ALU | BPF_DIV | BPF_X: case BPF_ALU | BPF_MOD | BPF_X:
    case BPF_ALU | BPF_LSH | BPF_X: case BPF_ALU | BPF_RSH | BPF_X:
    case BPF_ALU | BPF_NEG:
    case BPF_LD | BPF_IMM: case BPF_LDX | BPF_IMM:
    case BPF_LD | BPF_W | BPF_LEN: case BPF_LDX | BPF_W | BPF_LEN:
    case BPF_LD | BPF_W | BPF_IND: case BPF_LD | BPF_H | BPF_IND: case BPF_LD | BPF_B | BPF_IND:
    case BPF_LDX | BPF_B | BPF_MSH:
    case BPF_RET | BPF_K: case BPF_RET | BPF_A:
    case BPF_MISC | BPF_TAX: case BPF_MISC | BPF_TXA:
        return 1;
    case BPF_ALU | BPF_DIV | BPF_K: case BPF_ALU | BPF_MOD | BPF_K:
        return at->k != 0;
    case BPF_ALU | BPF_LSH | BPF_K: case BPF_ALU | BPF_RSH | BPF_K:
        return at->k < 32;
    case BPF_LD | BPF_MEM: case BPF_LDX | BPF_MEM: case BPF_ST: case BPF_STX:
        return at->k < FILTER_MEMORY;
    case BPF_JMP | BPF_JA:
        return at->k < left;
    case BPF_LD | BPF_W | BPF_ABS: case BPF_LD | BPF_H | BPF_ABS: case BPF_LD | BPF_B | BPF_ABS:
        if (at->k < ANCILLARY)
            return 1;
        return at->k - ANCILLARY <= SKF_AD_VLAN_TPID && at->k % 4 == 0;
    }
    return 0;
}

/* Beside what is valid for packets: aligned words of struct seccomp_data alone. */
static int is_for_calls(const struct sock_filter *at)
{
    switch (at->code) {
    case BPF_LD | BPF_W | BPF_ABS:
        return at->k < FILTER_CALL_BYTES && at->k % 4 == 0;
    case BPF_LD | BPF_H | BPF_ABS: case BPF_LD | BPF_B | BPF_ABS:
    case BPF_LD | BPF_W | BPF_IND: case BPF_LD | BPF_H | BPF_IND: case BPF_LD | BPF_B | BPF_IND:
    case BPF_LDX | BPF_B | BPF_MSH:
    case BPF_ALU | BPF_MOD | BPF_K: case BPF_ALU | BPF_MOD | BPF_X:
        return 0;
    }
    return 1;
}

/* check_load_and_stores(): no path reads a word of scratch memory that it has not written. */
static int writes_first(const struct sock_filter *code, uint32_t count)
{
    uint16_t missing_at[FILTER_MAX] = {0}; /* words that some jump to there has not written */
    uint16_t missing = 0xFFFF;             /* on the way through: at first all */
    for (uint32_t pc = 0; pc < count; pc++) {
        const struct sock_filter *at = &code[pc];
        missing |= missing_at[pc];
        switch (at->code) {
        case BPF_ST: case BPF_STX:
            missing &= (uint16_t)~(1u << at->k);
            continue;
        case BPF_LD | BPF_MEM: case BPF_LDX | BPF_MEM:
            if (missing >> at->k & 1)
                return 0;
            continue;
        case BPF_JMP | BPF_JA:
            missing_at[pc + 1 + at->k] |= missing;
            missing = 0;
            continue;
        }
        if (is_jump(at->code)) {
            missing_at[pc + 1 + at->jt] |= missing;
            missing_at[pc + 1 + at->jf] |= missing;
            missing = 0;
        }
    }
    return 1;
}

int filter_accepts(const uint8_t *bytes, uint32_t count, int for_calls)
{
    struct sock_filter code[FILTER_MAX];
    if (!count || count > FILTER_MAX)
        return 0;
    memcpy(code, bytes, count * sizeof *code);
    for (uint32_t pc = 0; pc < count; pc++)
        if (!is_valid(code, pc, count) || (for_calls && !is_for_calls(&code[pc])))
            return 0;
    uint16_t last = code[count - 1].code;
    return (last == (BPF_RET | BPF_K) || last == (BPF_RET | BPF_A)) && writes_first(code, count);
}

/* convert_bpf_ld_abs(): in place where that can be, and the call for the rest. */
static uint32_t load_length(const struct sock_filter *at)
{
    uint32_t call = 8;
    if (BPF_MODE(at->code) == BPF_IND)
        return call + (at->k != 0);
    if (at->k >> 31)
        return call;
    uint32_t swap = BPF_SIZE(at->code) != BPF_B;
    return call + 4 + (at->k != 0) + swap + (at->k > INT16_MAX ? 2 : 0);
}

/* convert_bpf_extensions() */
static uint32_t extension_length(uint32_t k)
{
    switch (k - ANCILLARY) {
    case SKF_AD_PROTOCOL: case SKF_AD_PKTTYPE: case SKF_AD_VLAN_TPID:
        return 2;
    case SKF_AD_VLAN_TAG_PRESENT:
        return 3;
    case SKF_AD_IFINDEX: case SKF_AD_HATYPE: case SKF_AD_PAY_OFFSET: case SKF_AD_NLATTR:
    case SKF_AD_NLATTR_NEST: case SKF_AD_CPU: case SKF_AD_RANDOM:
        return 4;
    }
    return 1;
}

static uint32_t jump_length(const struct sock_filter *at)
{
    uint32_t constant = BPF_SRC(at->code) == BPF_K && at->k >> 31;
    int either = !at->jf || (!at->jt && BPF_OP(at->code) != BPF_JSET);
    return constant + (either ? 1 : 2);
}

uint32_t filter_conversion(const struct sock_filter *code, uint32_t count, int for_calls)
{
    uint32_t length = 3, loads = 0;
    for (uint32_t pc = 0; pc < count; pc++) {
        const struct sock_filter *at = &code[pc];
        if (is_jump(at->code)) {
            length += jump_length(at);
            continue;
        }
        switch (at->code) {
        case BPF_ALU | BPF_DIV | BPF_X: case BPF_ALU | BPF_MOD | BPF_X:
            length += 5;
            continue;
        case BPF_RET | BPF_K:
            length += 2;
            continue;
        case BPF_LDX | BPF_B | BPF_MSH: {
            struct sock_filter byte = {BPF_LD | BPF_B | BPF_ABS, 0, 0, at->k};
            length += 6 + load_length(&byte);
            loads = 1;
            continue;
        }
        case BPF_LD | BPF_W | BPF_ABS: case BPF_LD | BPF_H | BPF_ABS: case BPF_LD | BPF_B | BPF_ABS:
            if (for_calls) {
                length++;
                continue;
            }
            if (at->k >= ANCILLARY) {
                length += extension_length(at->k);
                continue;
            }
            /* fallthrough */
        case BPF_LD | BPF_W | BPF_IND: case BPF_LD | BPF_H | BPF_IND: case BPF_LD | BPF_B | BPF_IND:
            length += load_length(at);
            loads = 1;
            continue;
        }
        length++;
    }
    return length + (loads ? 4 : 0);
}
