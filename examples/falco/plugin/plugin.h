/* What of Falco's plug-in API 3 is used here: sources of events, extraction of fields. The layout
 * is that of its plugin_types.h and plugin_api.h; fields behind those that are used are left out,
 * for Falco makes such structs and only appends to them. */
#ifndef RUNSC_FALCO_PLUGIN_H
#define RUNSC_FALCO_PLUGIN_H

#include <stdint.h>

enum { SUCCESS = 0, FAILURE = 1, TIMEOUT = -1, END = 2 };
enum { UINT64 = 8, STRING = 9, ABSTIME = 21, BOOL = 25, IPADDR = 40 };

enum { PLUGIN_EVENT = 322 };

/* In memory: this, one uint32_t length for each parameter, the parameters. */
struct __attribute__((packed)) event {
    uint64_t ts;  /* ns since 1970 */
    uint64_t tid; /* of the host, or -1 */
    uint32_t len; /* of all */
    uint16_t type;
    uint32_t nparams;
};

struct event_input {
    const struct event *evt;
    uint64_t evtnum;
    const char *evtsrc;
};

struct buffer {
    uint32_t len;
    const void *ptr;
};

struct field {
    union {
        const char **str;
        uint64_t *u64;
        uint32_t *boolean;
        struct buffer *buf;
    } res;
    uint64_t res_len;
    uint32_t field_id; /* its place in the list of get_fields */
    const char *field;
    const char *arg_key;
    uint64_t arg_index;
    uint32_t arg_present;
    uint32_t ftype;
    uint32_t flist;
};

struct init_input {
    const char *config;
};

struct extract_input {
    void *owner;
    const char *(*get_owner_last_error)(void *owner);
    uint32_t num_fields;
    struct field *fields;
};

#endif
