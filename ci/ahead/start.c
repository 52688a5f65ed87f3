/* A second module in the library that mypyc makes: it runs the modules in it, one by one.

   mypyc would have a shared object of its own for each of two hundred modules do that. */
#include <Python.h>

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
