/* What every generated file includes first. mypyc leaves weak references to an object that goes as
   they are, pointing to freed memory; CPython's own classes clear them (subtype_dealloc). */
#include <Python.h>
#include <CPy.h>
#undef CPy_TRASHCAN_BEGIN
#define CPy_TRASHCAN_BEGIN(op, dealloc)                        \
    if (Py_TYPE(op)->tp_weaklistoffset)                        \
        PyObject_ClearWeakRefs((PyObject *)(op));              \
    Py_TRASHCAN_BEGIN(op, dealloc)
#include "__native_sentry_ahead.h"
#include "__native_internal_sentry_ahead.h"

/* What later.py and literals.py have the generated files call: start.c. */
void ahead_arguments(CPyArg_Parser *parser, const char **names, const char *joined,
                     const char *format);
PyTypeObject *ahead_blank(void);
PyTypeObject *ahead_class(PyTypeObject *template, PyObject *module);
bool ahead_literals(const unsigned short *which);

/* Nobody reads what functions and classes are for out of compiled ones. */
#undef PyDoc_STR
#define PyDoc_STR(text) NULL
