/* The Python module: converts arguments and releases the GIL. Arrays are passed as addresses, because the stable ABI of
   Python 3.10 has no buffers; srshards/native/__init__.py checks their types and keeps them alive. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include "patches.h"

/* copy_patches(maps, num_maps, patches, count, height, width, patch, to, to_size) -> (status, failed) */
static PyObject *copy_patches(PyObject *self, PyObject *args)
{
    (void)self;
    long long maps, num_maps, patches, count, to, to_size;
    long long height, width, patch;
    if (!PyArg_ParseTuple(args, "LLLLLLLLL", &maps, &num_maps, &patches, &count, &height, &width, &patch, &to, &to_size))
        return NULL;
    int64_t failed = 0;
    srs_status status;
    const srs_sizes sizes = {height, width, patch};
    Py_BEGIN_ALLOW_THREADS
    status = srs_copy_patches((const srs_map *)(uintptr_t)maps, num_maps, (const srs_patch *)(uintptr_t)patches, count,
                              sizes, (uint8_t *)(uintptr_t)to, to_size, &failed);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("iL", (int)status, (long long)failed);
}

/* compare(maps, num_maps, positions, count, expected, size, equal) -> (status, failed) */
static PyObject *compare(PyObject *self, PyObject *args)
{
    (void)self;
    long long maps, num_maps, positions, count, equal;
    const char *expected;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "LLLLy#L", &maps, &num_maps, &positions, &count, &expected, &size, &equal))
        return NULL;
    int64_t failed = 0;
    srs_status status;
    Py_BEGIN_ALLOW_THREADS
    status = srs_compare((const srs_map *)(uintptr_t)maps, num_maps, (const int64_t(*)[2])(uintptr_t)positions, count,
                         (const uint8_t *)expected, size, (uint8_t *)(uintptr_t)equal, &failed);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("iL", (int)status, (long long)failed);
}

static PyMethodDef functions[] = {
    {"copy_patches", copy_patches, METH_VARARGS, NULL},
    {"compare", compare, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_core", NULL, 0, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&module);
}
