/* Objects of CPython whose references are not counted. */
#include "uncounted.h"

#include <errno.h>
#include <stdlib.h>

/* Part of CPython's stable ABI since 3.10 for all types; the limited API that cffi selects hides it. */
extern void *PyType_GetSlot(PyTypeObject *type, int slot);

/* PEP 683: CPython (3.12 and later, 64 bits) counts no references of an object whose count, in its
 * first 32 bits, is negative. What None has there is such a count. */
struct walk {
    PyObject **left; /* whose referents are to be found yet */
    size_t count, room;
    int32_t never;
    PyTypeObject *code, *frame;
    PyObject *kinds; /* types, or NULL: everything is followed */
    int of_namespace, of_kind; /* whose referents are being found: a module or class; one of the kinds */
};

static volatile int32_t *references(PyObject *object) { return (volatile int32_t *)(void *)object; }

static int keep(struct walk *walk, PyObject *object)
{
    if (walk->count == walk->room) {
        size_t room = walk->room ? 2 * walk->room : 1 << 16;
        PyObject **left = realloc(walk->left, room * sizeof *left);
        if (left == NULL)
            return -ENOMEM;
        walk->left = left;
        walk->room = room;
    }
    walk->left[walk->count++] = object;
    return 0;
}

static int is_kind(const struct walk *walk, PyObject *object)
{
    if (PyType_Check(object))
        return 1;
    for (Py_ssize_t i = 0, size = PyTuple_Size(walk->kinds); i < size; i++)
        if ((PyObject *)Py_TYPE(object) == PyTuple_GetItem(walk->kinds, i))
            return 1;
    return 0;
}

/* Of what lasts only: such kinds, the names of modules and classes, and tuples that belong to code. */
static int is_followed(const struct walk *walk, PyObject *object)
{
    if (walk->kinds == NULL || is_kind(walk, object))
        return 1;
    return (walk->of_namespace && Py_TYPE(object) == &PyDict_Type) ||
           (walk->of_kind && Py_TYPE(object) == &PyTuple_Type);
}

/* visitproc. What is not counted is known, or was there before there was anything else. A text keeps its
 * hash with the first look at it. */
static int found(PyObject *object, void *arg)
{
    struct walk *walk = arg;
    if (*references(object) < 0 || Py_TYPE(object) == walk->frame || !is_followed(walk, object))
        return 0;
    *references(object) = walk->never;
    if (Py_TYPE(object) == &PyUnicode_Type || Py_TYPE(object) == &PyBytes_Type) {
        PyObject_Hash(object);
        return 0;
    }
    return keep(walk, object);
}

/* An attribute; what there is of it. */
static int attribute(struct walk *walk, getattrofunc get, PyObject *object, PyObject *name)
{
    PyObject *value = get(object, name);
    int error = 0;
    if (value == NULL)
        PyErr_Clear();
    else if (walk != NULL)
        error = found(value, walk);
    Py_XDECREF(value);
    return error;
}

/* What it refers to. The collector knows nothing of code's; a class gets a number with the first look
 * for one of its attributes (tp_version_tag). */
static int referents(struct walk *walk, PyObject *object, PyObject *const *names, size_t count)
{
    PyTypeObject *type = Py_TYPE(object);
    int error = 0;
    walk->of_kind = walk->kinds != NULL && is_kind(walk, object);
    walk->of_namespace = PyType_Check(object) || PyModule_Check(object);
    if (type == walk->code) {
        for (size_t i = 1; i < count && error == 0; i++)
            error = attribute(walk, PyObject_GetAttr, object, names[i]);
        return error;
    }
    if (PyType_Check(object)) {
        union { void *slot; getattrofunc get; } of = { PyType_GetSlot(&PyType_Type, Py_tp_getattro) };
        attribute(NULL, of.get, object, names[0]);
    }
    union { void *slot; traverseproc call; } traverse = { PyType_GetSlot(type, Py_tp_traverse) };
    union { void *slot; inquiry call; } is_gc = { PyType_GetSlot(type, Py_tp_is_gc) };
    if (!(PyType_GetFlags(type) & Py_TPFLAGS_HAVE_GC) || traverse.slot == NULL ||
        (is_gc.slot != NULL && !is_gc.call(object)))
        return 0;
    return traverse.call(object, found, walk);
}

/* Of these objects, and of what they refer to, no references are counted from now on; frames, which
 * are being run, are left. With a tuple of `kinds`, of what is one of those, or a class, alone.
 * Nothing happens where None has references.
 * SAFETY: the addresses are those of a list, two types and a tuple (or 0), which the caller holds; one
 * thread. */
int rs_count_no_more(uint64_t list, uint64_t code, uint64_t frame, uint64_t kinds)
{
    static const char *const TEXTS[] = { "__init__", "co_consts", "co_names", "co_qualname",
                                         "co_filename" };
    enum { COUNT = sizeof TEXTS / sizeof *TEXTS };
    PyGILState_STATE gil = PyGILState_Ensure();
    struct walk walk = { .never = *references(Py_None), .code = (PyTypeObject *)(uintptr_t)code,
                         .frame = (PyTypeObject *)(uintptr_t)frame,
                         .kinds = (PyObject *)(uintptr_t)kinds };
    PyObject *roots = (PyObject *)(uintptr_t)list, *names[COUNT];
    int error = 0;
    for (int i = 0; i < COUNT; i++)
        names[i] = PyUnicode_InternFromString(TEXTS[i]);
    for (Py_ssize_t i = 0, size = walk.never < 0 ? PyList_Size(roots) : 0; i < size && !error; i++) {
        PyObject *root = PyList_GetItem(roots, i);
        if (Py_TYPE(root) == walk.frame)
            continue;
        if (*references(root) > 0) /* others belong to the interpreter, or were found before */
            *references(root) = walk.never;
        error = keep(&walk, root);
    }
    while (walk.count > 0 && error == 0)
        error = referents(&walk, walk.left[--walk.count], names, COUNT);
    for (int i = 0; i < COUNT; i++)
        Py_XDECREF(names[i]);
    free(walk.left);
    PyGILState_Release(gil);
    return error;
}
