#include "patches.h"

#include <string.h>

#include "guard.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#if defined(__clang__)
#define UNROLL _Pragma("unroll 8")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif
#define HAS_X86_KERNELS 1
#else
#define HAS_X86_KERNELS 0
#endif

#ifndef SRS_CPU_SUPPORTS /* tests define it, to choose the kernels */
#define SRS_CPU_SUPPORTS(instructions) __builtin_cpu_supports(instructions)
#endif

#define MAX_PX 65535
#define MAX_STAGE_ROWS 32       /* rows of a transposed patch that are written at a time, in the cache */
#define STAGE_BYTES (20 * 1024) /* two stages fit in the first-level cache */

/* The source of one patch. Row r of it starts at `first + r * stride`. */
typedef struct {
    const uint8_t *first;
    int64_t stride;
    int64_t px;
    int symmetry;
} source;

static source source_of(const srs_map *maps, const srs_patch *patch, srs_sizes sizes)
{
    const uint8_t *image = (const uint8_t *)(uintptr_t)maps[patch->map].address + patch->offset;
    const int64_t stride = 3 * sizes.width;
    return (source){image + patch->top * stride + 3 * patch->left, stride, sizes.patch, (int)patch->symmetry};
}

/* ---- Plain C. Pixel (i, j) of a patch is pixel (j, i) of the source if it is transposed, else (i, j), with rows and
   columns of the source counted from its end if they are reversed. */

static int is_transposed(int symmetry) { return symmetry & 1; }
static int has_rows_reversed(int symmetry) { return symmetry == 2 || symmetry == 3 || symmetry == 6 || symmetry == 7; }
static int has_columns_reversed(int symmetry)
{
    return symmetry == 1 || symmetry == 2 || symmetry == 4 || symmetry == 7;
}

static void copy_pixel(uint8_t *to, const uint8_t *from) { memcpy(to, from, 3); }

/* Writes columns j0 .. j1-1 of row i of the patch. */
static void write_pixels(uint8_t *to, const source *from, int64_t i, int64_t j0, int64_t j1)
{
    const int64_t last = from->px - 1;
    const int rows = has_rows_reversed(from->symmetry), columns = has_columns_reversed(from->symmetry);
    int64_t j;
    if (is_transposed(from->symmetry)) {
        const uint8_t *column = from->first + 3 * (columns ? last - i : i);
        for (j = j0; j < j1; j++)
            copy_pixel(to + 3 * j, column + (rows ? last - j : j) * from->stride);
    } else {
        const uint8_t *row = from->first + (rows ? last - i : i) * from->stride;
        if (!columns)
            memcpy(to + 3 * j0, row + 3 * j0, (size_t)(3 * (j1 - j0)));
        else
            for (j = j0; j < j1; j++)
                copy_pixel(to + 3 * j, row + 3 * (last - j));
    }
}

static void copy_plainly(uint8_t *to, const source *from)
{
    for (int64_t i = 0; i < from->px; i++)
        write_pixels(to + 3 * from->px * i, from, i, 0, from->px);
}

/* ---- x86-64 */

#if HAS_X86_KERNELS

#define X -1 /* in a mask: zero */

#define TARGET __attribute__((target("avx2")))
#define NAME(name) name##_avx2
#define VECTOR_BYTES 32
#include "patches_x86.h"
#undef TARGET
#undef NAME
#undef VECTOR_BYTES

#define TARGET __attribute__((target("avx2,avx512f,avx512bw")))
#define NAME(name) name##_avx512
#define VECTOR_BYTES 64
#include "patches_x86.h"

#endif

static void copy_all_plainly(const srs_map *maps, const srs_patch *patches, int64_t count, srs_sizes sizes, uint8_t *to,
                             volatile int64_t *current)
{
    for (int64_t n = 0; n < count; n++, to += 3 * sizes.patch * sizes.patch) {
        *current = n;
        if (patches[n].offset == SRS_NO_IMAGE)
            continue;
        const source from = source_of(maps, &patches[n], sizes);
        copy_plainly(to, &from);
    }
}

static int is_within(const srs_map *maps, int64_t num_maps, int64_t map, int64_t offset, int64_t size)
{
    return map >= 0 && map < num_maps && offset >= 0 && size <= maps[map].size && offset <= maps[map].size - size;
}

srs_status srs_check_patches(const srs_map *maps, int64_t num_maps, const srs_patch *patches, const int64_t *lengths,
                             int64_t count, srs_sizes sizes, int64_t to_size, int64_t *failed)
{
    const int64_t height = sizes.height, width = sizes.width, px = sizes.patch;
    *failed = 0;
    if (px < 1 || px > height || px > width || height > MAX_PX || width > MAX_PX || count < 0 ||
        count > to_size / (3 * px * px))
        return SRS_INVALID_SIZE;
    for (int64_t n = 0; n < count; n++) {
        const srs_patch *patch = &patches[n];
        const int64_t length = lengths ? lengths[n] : 3 * height * width;
        *failed = n;
        if (patch->offset == SRS_NO_IMAGE)
            continue;
        if (length < 0 || !is_within(maps, num_maps, patch->map, patch->offset, length) || patch->top < 0 ||
            patch->top > height - px || patch->left < 0 || patch->left > width - px || patch->symmetry < 0 ||
            patch->symmetry > 7)
            return SRS_OUT_OF_BOUNDS;
    }
    return SRS_OK;
}

typedef struct {
    const srs_map *maps;
    const srs_patch *patches;
    int64_t count;
    srs_sizes sizes;
    uint8_t *to;
    volatile int64_t current; /* patch */
} copy_job;

static void copy_all(void *arguments)
{
    copy_job *job = arguments;
#if HAS_X86_KERNELS
    if (SRS_CPU_SUPPORTS("avx512bw"))
        copy_all_avx512(job->maps, job->patches, job->count, job->sizes, job->to, &job->current);
    else if (SRS_CPU_SUPPORTS("avx2"))
        copy_all_avx2(job->maps, job->patches, job->count, job->sizes, job->to, &job->current);
    else
#endif
        copy_all_plainly(job->maps, job->patches, job->count, job->sizes, job->to, &job->current);
}

srs_status srs_copy_patches(const srs_map *maps, int64_t num_maps, const srs_patch *patches, int64_t count,
                            srs_sizes sizes, uint8_t *to, int64_t to_size, int64_t *failed)
{
    const srs_status status = srs_check_patches(maps, num_maps, patches, NULL, count, sizes, to_size, failed);
    if (status)
        return status;
    copy_job job = {maps, patches, count, sizes, to, 0};
    if (srs_guarded(copy_all, &job))
        return SRS_OK;
    *failed = job.current;
    return SRS_UNREADABLE;
}

void srs_copy_square(const uint8_t *from, int64_t px, int symmetry, uint8_t *to)
{
    const srs_map map = {(int64_t)(uintptr_t)from, 3 * px * px};
    const srs_patch patch = {0, 0, 0, 0, symmetry};
    copy_all(&(copy_job){&map, &patch, 1, {px, px, px}, to, 0});
}

typedef struct {
    const srs_map *maps;
    int64_t num_maps;
    const int64_t (*positions)[2];
    int64_t count;
    const uint8_t *expected;
    int64_t size;
    uint8_t *equal;
    volatile int64_t current; /* position */
} compare_job;

static void compare_all(void *arguments)
{
    compare_job *job = arguments;
    for (int64_t n = 0; n < job->count; n++) {
        const int64_t map = job->positions[n][0], offset = job->positions[n][1];
        job->current = n;
        job->equal[n] = is_within(job->maps, job->num_maps, map, offset, job->size) &&
                        memcmp((const uint8_t *)(uintptr_t)job->maps[map].address + offset, job->expected,
                               (size_t)job->size) == 0;
    }
}

srs_status srs_compare(const srs_map *maps, int64_t num_maps, const int64_t (*positions)[2], int64_t count,
                       const uint8_t *expected, int64_t size, uint8_t *equal, int64_t *failed)
{
    compare_job job = {maps, num_maps, positions, count, expected, size, equal, 0};
    *failed = 0;
    if (size < 0)
        return SRS_INVALID_SIZE;
    if (srs_guarded(compare_all, &job))
        return SRS_OK;
    *failed = job.current;
    return SRS_UNREADABLE;
}
