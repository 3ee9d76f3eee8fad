#include "patches.h"

#include "guard.h"
#include "tlc.h"

/* Decodes a patch to `to`, through `scratch` unless its pixels keep their order. Returns whether it is intact. */
static int decode_patch(const uint8_t *content, int64_t length, const srs_patch *patch, srs_sizes sizes,
                        uint8_t *scratch, uint8_t *to)
{
    const int px = (int)sizes.patch;
    const tlc_box box = {(int)patch->top, (int)patch->left, px, px};
    int height, width;
    if (tlc_read_size(content, (size_t)length, &height, &width) || height != sizes.height || width != sizes.width)
        return 0;
    if (tlc_decode(content, (size_t)length, box, patch->symmetry ? scratch : to, 3 * (size_t)px))
        return 0;
    if (patch->symmetry)
        srs_copy_square(scratch, px, (int)patch->symmetry, to);
    return 1;
}

typedef struct {
    const srs_map *maps;
    const srs_patch *patches;
    const int64_t *lengths;
    int64_t count;
    srs_sizes sizes;
    uint8_t *to;
    uint8_t *scratch;
    uint8_t *is_intact;
    volatile int64_t current; /* patch */
} decode_job;

static void decode_all(void *arguments)
{
    decode_job *job = arguments;
    const int64_t bytes = 3 * job->sizes.patch * job->sizes.patch;
    for (int64_t n = 0; n < job->count; n++) {
        const srs_patch *patch = &job->patches[n];
        job->current = n;
        job->is_intact[n] = 0;
        if (patch->offset != SRS_NO_IMAGE) {
            const uint8_t *content = (const uint8_t *)(uintptr_t)job->maps[patch->map].address + patch->offset;
            job->is_intact[n] = (uint8_t)decode_patch(content, job->lengths[n], patch, job->sizes, job->scratch,
                                                      job->to + bytes * n);
        }
    }
}

srs_status srs_decode_patches(const srs_map *maps, int64_t num_maps, const srs_patch *patches, const int64_t *lengths,
                              int64_t count, srs_sizes sizes, uint8_t *to, int64_t to_size, uint8_t *scratch,
                              uint8_t *is_intact, int64_t *failed)
{
    const srs_status status = srs_check_patches(maps, num_maps, patches, lengths, count, sizes, to_size, failed);
    if (status)
        return status;
    decode_job job = {maps, patches, lengths, count, sizes, to, scratch, is_intact, 0};
    if (srs_guarded(decode_all, &job))
        return SRS_OK;
    *failed = job.current;
    return SRS_UNREADABLE;
}
