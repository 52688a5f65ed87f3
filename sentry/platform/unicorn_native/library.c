/* Loading libunicorn at run time. */
#define _GNU_SOURCE
#include "machine_api.h"
#include "unicorn_api.h"

#include <dlfcn.h>

struct unicorn_library api;

const char *unicorn_load(const char *path)
{
    static const struct {
        const char *name;
        size_t at;
    } wanted[] = {
#define WANTED(name) {"uc_" #name, offsetof(struct unicorn_library, name)}
        WANTED(version),        WANTED(open),           WANTED(close),
        WANTED(strerror),       WANTED(ctl),            WANTED(mem_map_ptr),
        WANTED(hook_add),       WANTED(emu_start),      WANTED(emu_stop),
        WANTED(reg_read),       WANTED(reg_write),      WANTED(reg_read_batch),
        WANTED(reg_write_batch), WANTED(context_alloc), WANTED(context_save),
        WANTED(context_restore), WANTED(context_free),
#undef WANTED
    };
    if (api.open)
        return NULL;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return dlerror();
    struct unicorn_library found;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *symbol = dlsym(library, wanted[i].name);
        if (!symbol)
            return dlerror();
        *(void **)((char *)&found + wanted[i].at) = symbol;
    }
    unsigned major, minor;
    found.version(&major, &minor);
    if (major != UC_API_MAJOR || minor != UC_API_MINOR)
        return "this is not libunicorn 2.1";
    api = found;
    return NULL;
}

int unicorn_loaded(void)
{
    return api.open != NULL;
}
