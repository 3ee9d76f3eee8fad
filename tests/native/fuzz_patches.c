/* Calls the core with random arguments, valid and invalid ones, and compares all that it does with a plain
   implementation. To be compiled with sanitizers: each map and each destination is a block of memory of its own.

       fuzz_patches SEED ROUNDS

   Prints the number of valid calls of each function and the kernels that were run. */

#include <stdio.h>
#include <stdlib.h>

#include "chosen_kernels.c"

#define MAX_MAPS 4
#define MAX_PATCHES 12
#define GUARD_BYTES 64
#define FILL 0xA5

static uint64_t state;

static uint64_t next(void) /* splitmix64 */
{
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static int64_t below(int64_t stop) { return (int64_t)(next() % (uint64_t)stop); }

static int64_t between(int64_t first, int64_t last) { return first + below(last - first + 1); }

static int64_t hostile(int64_t valid)
{
    static const int64_t extremes[] = {INT64_MIN, INT64_MIN + 1, -65536, -1, 65536, INT64_MAX - 1, INT64_MAX};
    const int64_t near = valid + between(-9, 9);
    return below(2) ? near : extremes[below(7)];
}

static void check(int is_true, const char *what)
{
    if (!is_true) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

typedef struct {
    srs_map maps[MAX_MAPS];
    int64_t num_maps;
} memory;

static memory make_memory(int64_t image_bytes)
{
    memory made = {.num_maps = between(1, MAX_MAPS)};
    for (int64_t n = 0; n < made.num_maps; n++) {
        const int64_t size = image_bytes + (below(3) ? below(200) : 0) - (below(8) ? 0 : below(image_bytes + 1));
        uint8_t *block = malloc((size_t)size);
        for (int64_t k = 0; k < size; k++)
            block[k] = (uint8_t)next();
        made.maps[n] = (srs_map){(int64_t)(uintptr_t)block, size};
    }
    return made;
}

static void free_memory(memory *made)
{
    for (int64_t n = 0; n < made->num_maps; n++)
        free((void *)(uintptr_t)made->maps[n].address);
}

static int is_in_bounds(const memory *from, int64_t map, int64_t offset, int64_t size)
{
    return map >= 0 && map < from->num_maps && offset >= 0 && (__int128)offset + size <= from->maps[map].size;
}

static int is_valid(const memory *from, const srs_patch *patch, srs_sizes sizes)
{
    const __int128 size = (__int128)3 * sizes.height * sizes.width;
    if (patch->offset == SRS_NO_IMAGE)
        return 1;
    return is_in_bounds(from, patch->map, patch->offset, (int64_t)size) && patch->top >= 0 && patch->left >= 0 &&
           (__int128)patch->top + sizes.patch <= sizes.height && (__int128)patch->left + sizes.patch <= sizes.width &&
           patch->symmetry >= 0 && patch->symmetry < 8;
}

/* Pixel (i, j) is pixel (j, last - i) before the last rotation, and pixel (i, last - j) before the flip. */
static const uint8_t *pixel(const memory *from, const srs_patch *patch, srs_sizes sizes, int64_t i, int64_t j)
{
    for (int64_t turn = 0; turn < patch->symmetry % 4; turn++) {
        const int64_t row = j;
        j = sizes.patch - 1 - i;
        i = row;
    }
    if (patch->symmetry >= 4)
        j = sizes.patch - 1 - j;
    const uint8_t *image = (const uint8_t *)(uintptr_t)from->maps[patch->map].address + patch->offset;
    return image + 3 * ((patch->top + i) * sizes.width + patch->left + j);
}

static void check_fill(const uint8_t *bytes, int64_t count)
{
    for (int64_t k = 0; k < count; k++)
        check(bytes[k] == FILL, "wrote outside of the destination");
}

static srs_sizes make_sizes(void)
{
    static const int64_t usual[] = {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 48, 50, 63, 64, 96, 192, 256};
    const int64_t patch = below(2) ? usual[below(below(4) ? 15 : 18)] : between(1, 70);
    return (srs_sizes){patch + (below(3) ? below(20) : 0), patch + (below(3) ? below(20) : 0), patch};
}

static int64_t fuzz_copy(void)
{
    srs_sizes sizes = make_sizes();
    memory from = make_memory(3 * sizes.height * sizes.width);
    const int64_t image_bytes = 3 * sizes.height * sizes.width, patch_bytes = 3 * sizes.patch * sizes.patch;
    int64_t count = between(0, MAX_PATCHES), size = count * patch_bytes;
    srs_patch *patches = malloc((size_t)count * sizeof *patches);
    for (int64_t n = 0; n < count; n++) {
        const int64_t map = below(from.num_maps), free_bytes = from.maps[map].size - image_bytes;
        const int64_t offset = free_bytes > 0 ? (below(2) ? below(free_bytes + 1) : free_bytes) : 0;
        patches[n] = (srs_patch){map, offset, below(sizes.height - sizes.patch + 1),
                                 below(sizes.width - sizes.patch + 1), below(8)};
    }
    if (count && !below(4)) {
        int64_t *field = (int64_t *)&patches[below(count)] + below(5);
        *field = hostile(*field);
    }
    const int64_t alignment = below(2) ? 0 : below(64);
    uint8_t *block = aligned_alloc(64, (size_t)(((2 * GUARD_BYTES + 64 + size) / 64 + 1) * 64));
    uint8_t *to = block + GUARD_BYTES + alignment;
    memset(block, FILL, (size_t)(2 * GUARD_BYTES + alignment + size));

    int64_t given_size = size, given_count = count;
    if (!below(6)) {
        int64_t *fields[] = {&sizes.height, &sizes.width, &sizes.patch, &given_size, &given_count};
        int64_t *field = fields[below(5)];
        *field = hostile(*field);
        given_size = given_size < 0 ? 0 : given_size;
    }
    const int is_known_count = given_count <= count && given_size <= size; /* else invalid arguments are undefined */
    const int has_size = sizes.patch >= 1 && sizes.patch <= sizes.height && sizes.patch <= sizes.width &&
                         sizes.height <= 65535 && sizes.width <= 65535 && given_count >= 0 &&
                         (__int128)3 * sizes.patch * sizes.patch * given_count <= given_size;
    int64_t is_done = 0, failed = -1;
    if (!has_size || is_known_count) {
        srs_status expected = has_size ? SRS_OK : SRS_INVALID_SIZE;
        int64_t expected_failed = 0;
        for (int64_t n = 0; expected == SRS_OK && n < given_count; n++)
            if (!is_valid(&from, &patches[n], sizes)) {
                expected = SRS_OUT_OF_BOUNDS;
                expected_failed = n;
            }
        const srs_status status =
            srs_copy_patches(from.maps, from.num_maps, patches, given_count, sizes, to, given_size, &failed);
        check(status == expected, "another status");
        check(status != SRS_OUT_OF_BOUNDS || failed == expected_failed, "another failed patch");
        int64_t written = 0;
        if (status == SRS_OK) {
            for (int64_t n = 0; n < given_count; n++)
                if (patches[n].offset == SRS_NO_IMAGE) {
                    check_fill(to + written, 3 * sizes.patch * sizes.patch);
                    written += 3 * sizes.patch * sizes.patch;
                } else
                    for (int64_t i = 0; i < sizes.patch; i++)
                        for (int64_t j = 0; j < sizes.patch; j++, written += 3)
                            check(!memcmp(to + written, pixel(&from, &patches[n], sizes, i, j), 3), "another pixel");
            is_done = 1;
        }
        check_fill(block, GUARD_BYTES + alignment);
        check_fill(to + written, size - written + GUARD_BYTES);
    }
    free(block);
    free(patches);
    free_memory(&from);
    return is_done;
}

static int64_t fuzz_compare(void)
{
    memory from = make_memory(between(1, 300));
    const int64_t count = between(0, MAX_PATCHES), size = below(8) ? below(200) : hostile(0);
    int64_t(*positions)[2] = malloc((size_t)count * sizeof *positions);
    const int64_t known = size > 0 && size < 1000 ? size : 0; /* bytes of what is expected */
    uint8_t *expected = malloc((size_t)known), *equal = malloc((size_t)count);
    for (int64_t k = 0; k < known; k++)
        expected[k] = (uint8_t)next();
    for (int64_t n = 0; n < count; n++) {
        const int64_t map = below(from.num_maps);
        positions[n][0] = below(6) ? map : hostile(map);
        positions[n][1] = below(6) ? below(from.maps[map].size + 1) : hostile(from.maps[map].size - known);
        if (below(2) && is_in_bounds(&from, positions[n][0], positions[n][1], known))
            memcpy((uint8_t *)(uintptr_t)from.maps[positions[n][0]].address + positions[n][1], expected, (size_t)known);
    }
    int64_t failed = -1;
    const srs_status status = srs_compare(from.maps, from.num_maps, (const int64_t(*)[2])positions, count, expected,
                                          size, equal, &failed);
    check(status == (size < 0 ? SRS_INVALID_SIZE : SRS_OK), "another status of compare");
    for (int64_t n = 0; status == SRS_OK && n < count; n++) {
        int is_equal = is_in_bounds(&from, positions[n][0], positions[n][1], size);
        for (int64_t k = 0; is_equal && k < size; k++)
            is_equal = ((uint8_t *)(uintptr_t)from.maps[positions[n][0]].address)[positions[n][1] + k] == expected[k];
        check(equal[n] == is_equal, "another result of compare");
    }
    free(equal);
    free(expected);
    free(positions);
    free_memory(&from);
    return status == SRS_OK;
}

int main(int argc, char **argv)
{
    check(argc == 3, "usage: fuzz_patches SEED ROUNDS");
    state = strtoull(argv[1], NULL, 10);
    int64_t copies = 0, comparisons = 0, has_run[3] = {0};
    for (long long rounds = atoll(argv[2]); rounds > 0; rounds--) {
        const int chosen = (int)(rounds % 3);
        if (!srs_choose_kernels(chosen))
            continue;
        has_run[chosen] = 1;
        copies += fuzz_copy();
        comparisons += fuzz_compare();
    }
    printf("%lld copies, %lld comparisons, kernels:%s%s%s\n", (long long)copies, (long long)comparisons,
           has_run[PLAIN] ? " plain" : "", has_run[AVX2] ? " avx2" : "", has_run[AVX512] ? " avx512" : "");
    return 0;
}
