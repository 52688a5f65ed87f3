/* Falco's plug-in of events of runsc's sandboxes: the functions that Falco calls. */
#include "runsc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))

EXPORTED const char *plugin_get_required_api_version(void) { return "3.0.0"; }
EXPORTED const char *plugin_get_name(void) { return "runsc"; }
EXPORTED const char *plugin_get_description(void) { return "What happens in sandboxes of runsc"; }
EXPORTED const char *plugin_get_contact(void) { return "see docs/falco.md of runsc"; }
EXPORTED const char *plugin_get_version(void) { return "0.1.0"; }
EXPORTED uint32_t plugin_get_id(void) { return 999; } /* for what has no number of Falco's registry */
EXPORTED const char *plugin_get_event_source(void) { return "runsc"; }
EXPORTED const char *plugin_get_extract_event_sources(void) { return "[\"runsc\"]"; }
EXPORTED const char *plugin_get_fields(void) { return FIELDS; }

EXPORTED void *plugin_init(const struct init_input *input, int32_t *rc) {
    struct plugin *p = calloc(1, sizeof *p);
    *rc = p ? SUCCESS : FAILURE;
    if (!p)
        return NULL;
    const char *config = input && input->config ? input->config : "";
    if (strlen(config) >= sizeof p->address) {
        *rc = FAILURE;
        snprintf(p->error, sizeof p->error, "init_config is too long");
    } else {
        strcpy(p->address, config);
    }
    return p;
}

EXPORTED void plugin_destroy(void *s) {
    if (s)
        fields_forget(s);
    free(s);
}

EXPORTED const char *plugin_get_last_error(void *s) {
    return s ? ((struct plugin *)s)->error : "no memory";
}

EXPORTED void *plugin_open(void *s, const char *params, int32_t *rc) {
    struct plugin *p = s;
    const char *where = params && *params ? params : p->address;
    struct instance *made = NULL;
    if (*where)
        made = source_open(where, p->error, sizeof p->error);
    else
        snprintf(p->error, sizeof p->error, "open_params: unix:PATH to listen at, or a file");
    *rc = made ? SUCCESS : FAILURE;
    return made;
}

EXPORTED void plugin_close(void *s, void *h) {
    (void)s;
    source_close(h);
}

EXPORTED int32_t plugin_next_batch(void *s, void *h, uint32_t *count, struct event ***events) {
    (void)s;
    return source_next(h, count, events);
}

EXPORTED const char *plugin_event_to_string(void *s, const struct event_input *input) {
    return fields_text(s, input->evt);
}

EXPORTED int32_t plugin_extract_fields(void *s, const struct event_input *input,
                                       const struct extract_input *in) {
    struct plugin *p = s;
    int rc = fields_extract(p, input->evt, in->fields, in->num_fields);
    if (rc != SUCCESS)
        snprintf(p->error, sizeof p->error, "no event of a sandbox, or no memory");
    return rc;
}
