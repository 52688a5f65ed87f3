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
