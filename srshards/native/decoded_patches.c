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

srs_status srs_decode_patches(const srs_map *maps, int64_t num_maps, const srs_patch *patches, const int64_t *lengths,
                              int64_t count, srs_sizes sizes, uint8_t *to, int64_t to_size, uint8_t *scratch,
                              uint8_t *is_intact, int64_t *failed)
{
    const srs_status status = srs_check_patches(maps, num_maps, patches, lengths, count, sizes, to_size, failed);
    if (status)
        return status;
    volatile int64_t n = 0;
    sigjmp_buf guard;
    srs_install_guard();
    if (sigsetjmp(guard, 1)) {
        *failed = n;
        return SRS_UNREADABLE;
    }
    srs_set_guard(&guard);
    for (; n < count; n++) {
        const srs_patch *patch = &patches[n];
        is_intact[n] = 0;
        if (patch->offset != SRS_NO_IMAGE) {
            const uint8_t *content = (const uint8_t *)(uintptr_t)maps[patch->map].address + patch->offset;
            is_intact[n] = (uint8_t)decode_patch(content, lengths[n], patch, sizes, scratch,
                                                 to + 3 * sizes.patch * sizes.patch * n);
        }
    }
    srs_set_guard(NULL);
    return SRS_OK;
}
