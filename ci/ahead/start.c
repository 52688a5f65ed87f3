/* A second module in the library that mypyc makes: it runs the modules in it, one by one.

   mypyc would have a shared object of its own for each of two hundred modules do that. */
#include <Python.h>
#include <string.h>

/* The names of a function's arguments, each with a zero. */
void ahead_arguments(CPyArg_Parser *parser, const char **names, const char *joined,
                     const char *format)
{
    parser->keywords = names;
    for (; *joined; joined += strlen(joined) + 1)
        *names++ = joined;
    parser->format = format;
}

/* What the next class is copied from, empty. */
PyTypeObject *ahead_blank(void)
{
    static PyTypeObject blank;
    memset(&blank, 0, sizeof blank);
    return &blank;
}

/* A class of this module, without bases; NULL with an exception. */
PyTypeObject *ahead_class(PyTypeObject *template, PyObject *module)
{
    PyObject *name = PyObject_GetAttrString(module, "__name__");
    if (name == NULL)
        return NULL;
    PyObject *made = CPyType_FromTemplate((PyObject *)template, NULL, name);
    Py_DECREF(name);
    return (PyTypeObject *)made;
}

/* What literals.py has found out: of each its kind and what it is, and where that begins. */
extern const char ahead_text[];
extern const unsigned ahead_at[];
enum { FIRST_LITERAL = 3 }; /* after None, False and True */

static bool made(unsigned which);

/* A tuple of others. */
static PyObject *collected(const unsigned char *at, size_t size)
{
    PyObject *all = PyTuple_New((Py_ssize_t)size / 2);
    for (Py_ssize_t i = 0; all != NULL && i < (Py_ssize_t)size / 2; i++) {
        unsigned which = at[2 * i] | (unsigned)at[2 * i + 1] << 8;
        if (!made(which))
            Py_CLEAR(all);
        else
            PyTuple_SET_ITEM(all, i, Py_NewRef(CPyStatics[which]));
    }
    return all;
}

static PyObject *literal(char kind, const char *at, size_t size)
{
    PyObject *one = NULL, *all;
    switch (kind) {
    case 's':
        one = PyUnicode_DecodeUTF8(at, (Py_ssize_t)size, "surrogatepass");
        if (one != NULL)
            PyUnicode_InternInPlace(&one);
        return one;
    case 'b':
        return PyBytes_FromStringAndSize(at, (Py_ssize_t)size);
    case 'i':
        return PyLong_FromString(at, NULL, 10);
    case 'f':
        return PyFloat_FromDouble(PyOS_string_to_double(at, NULL, NULL));
    case 't':
        return collected((const unsigned char *)at, size);
    default:
        all = collected((const unsigned char *)at, size);
        if (all != NULL)
            one = PyFrozenSet_New(all);
        Py_XDECREF(all);
        return one;
    }
}

static bool made(unsigned which)
{
    if (CPyStatics[which] == NULL) {
        const char *at = ahead_text + ahead_at[which - FIRST_LITERAL];
        size_t size = ahead_at[which - FIRST_LITERAL + 1] - ahead_at[which - FIRST_LITERAL];
        CPyStatics[which] = literal(at[0], at + 1, size - 2);
    }
    return CPyStatics[which] != NULL;
}

/* Those of a module, by number, up to 0; false with an exception. */
bool ahead_literals(const unsigned short *which)
{
    while (*which != 0 && made(*which))
        which++;
    return *which == 0;
}

static PyObject *start(PyObject *Py_UNUSED(module), PyObject *capsule)
{
    const char *name = PyCapsule_GetName(capsule);
    if (PyErr_Occurred())
        return NULL;
    PyObject *(*run)(void) = (PyObject * (*)(void)) PyCapsule_GetPointer(capsule, name);
    return run == NULL ? NULL : run();
}

static PyMethodDef methods[] = {
    {"start", start, METH_O, "The module of this capsule, which runs now if it has not before."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "sentry_ahead_start", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_sentry_ahead_start(void)
{
    return PyModule_Create(&definition);
}
