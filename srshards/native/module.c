/* The Python module: converts arguments and releases the GIL. Arrays are passed as addresses, because the stable ABI of
   Python 3.10 has no buffers; srshards/native/__init__.py checks their types and keeps them alive. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include "guard.h"
#include "patches.h"
#include "tlc.h"

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

/* decode_patches(maps, num_maps, patches, lengths, count, height, width, patch, to, to_size, scratch, is_intact)
   -> (status, failed) */
static PyObject *decode_patches(PyObject *self, PyObject *args)
{
    (void)self;
    long long maps, num_maps, patches, lengths, count, to, to_size, scratch, is_intact;
    long long height, width, patch;
    if (!PyArg_ParseTuple(args, "LLLLLLLLLLLL", &maps, &num_maps, &patches, &lengths, &count, &height, &width, &patch,
                          &to, &to_size, &scratch, &is_intact))
        return NULL;
    int64_t failed = 0;
    srs_status status;
    const srs_sizes sizes = {height, width, patch};
    Py_BEGIN_ALLOW_THREADS
    status = srs_decode_patches((const srs_map *)(uintptr_t)maps, num_maps, (const srs_patch *)(uintptr_t)patches,
                                (const int64_t *)(uintptr_t)lengths, count, sizes, (uint8_t *)(uintptr_t)to, to_size,
                                (uint8_t *)(uintptr_t)scratch, (uint8_t *)(uintptr_t)is_intact, &failed);
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

/* encode_tlc(image, height, width, to, to_size) -> size, or 0 if `to` is too small */
static PyObject *encode_tlc(PyObject *self, PyObject *args)
{
    (void)self;
    long long image, to, to_size;
    int height, width;
    if (!PyArg_ParseTuple(args, "LiiLL", &image, &height, &width, &to, &to_size))
        return NULL;
    size_t size = 0;
    Py_BEGIN_ALLOW_THREADS
    if ((unsigned long long)to_size >= tlc_max_size(height, width))
        size = tlc_encode((const uint8_t *)(uintptr_t)image, height, width, (uint8_t *)(uintptr_t)to);
    Py_END_ALLOW_THREADS
    return PyLong_FromSize_t(size);
}

static PyObject *max_tlc_size(PyObject *self, PyObject *args)
{
    (void)self;
    int height, width;
    if (!PyArg_ParseTuple(args, "ii", &height, &width))
        return NULL;
    return PyLong_FromSize_t(tlc_max_size(height, width));
}

enum { TLC_UNREADABLE = -1 };

typedef struct {
    const uint8_t *content;
    size_t size;
    tlc_box box;
    uint8_t *to;
    int status;
} tlc_job;

static void decode_box(void *arguments)
{
    tlc_job *job = arguments;
    job->status = (int)tlc_decode(job->content, job->size, job->box, job->to, 3 * (size_t)job->box.width);
}

/* decode_tlc(content, size, top, left, height, width, to) -> status, TLC_UNREADABLE if memory cannot be read */
static PyObject *decode_tlc(PyObject *self, PyObject *args)
{
    (void)self;
    long long content, size, to;
    tlc_box box;
    if (!PyArg_ParseTuple(args, "LLiiiiL", &content, &size, &box.top, &box.left, &box.height, &box.width, &to))
        return NULL;
    tlc_job job = {(const uint8_t *)(uintptr_t)content, (size_t)size, box, (uint8_t *)(uintptr_t)to, 0};
    int is_readable; /* a page of a mapped file may not be */
    Py_BEGIN_ALLOW_THREADS
    is_readable = srs_guarded(decode_box, &job);
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(is_readable ? job.status : TLC_UNREADABLE);
}

static PyMethodDef functions[] = {
    {"copy_patches", copy_patches, METH_VARARGS, NULL},
    {"decode_patches", decode_patches, METH_VARARGS, NULL},
    {"compare", compare, METH_VARARGS, NULL},
    {"encode_tlc", encode_tlc, METH_VARARGS, NULL},
    {"max_tlc_size", max_tlc_size, METH_VARARGS, NULL},
    {"decode_tlc", decode_tlc, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_core", NULL, 0, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__core(void)
{
    tlc_init();
    return PyModuleDef_Init(&module);
}
