/* The parts of the plug-in. */
#ifndef RUNSC_FALCO_RUNSC_H
#define RUNSC_FALCO_RUNSC_H

#include "plugin.h"

#include <stddef.h>

struct answer {
    struct answer *next;
    max_align_t data[];
};

struct plugin {
    char error[1024];
    char address[1024];     /* of init: where to listen if open says nothing */
    struct answer *answers; /* of the last question for fields, */
    struct answer *text;    /* and of that for the whole as a text */
    struct json_t *line;    /* of the last event */
    char *data;
    size_t length;
};

struct instance;

/* source.c */
struct json_t *line_read(const char *line, size_t length);
struct instance *source_open(const char *where, char *error, size_t size);
void source_close(struct instance *it);
int source_next(struct instance *it, uint32_t *count, struct event ***events);

/* fields.c */
extern const char FIELDS[];
int fields_extract(struct plugin *p, const struct event *evt, struct field *fields, uint32_t count);
const char *fields_text(struct plugin *p, const struct event *evt);
void fields_forget(struct plugin *p);

#endif
