/* Copying of square patches out of raw RGB images, in memory-mapped files. No Python. */

#ifndef SRSHARDS_PATCHES_H
#define SRSHARDS_PATCHES_H

#include <stddef.h>
#include <stdint.h>

/* Memory that may be read. */
typedef struct {
    int64_t address;
    int64_t size;
} srs_map;

/* An image in a map, at `offset` bytes, or SRS_NO_IMAGE, and the patch of it: its first row and column in px, and its
   symmetry, 0 to 7: 0 to 3 rotate counter-clockwise by 90 degrees each; 4 to 7 first flip left to right. */
typedef struct {
    int64_t map;
    int64_t offset;
    int64_t top;
    int64_t left;
    int64_t symmetry;
} srs_patch;

enum { SRS_NO_IMAGE = -1 };

/* Sizes in px of all images, of 3 bytes per pixel, and of all patches. */
typedef struct {
    int64_t height;
    int64_t width;
    int64_t patch;
} srs_sizes;

typedef enum { SRS_OK, SRS_INVALID_SIZE, SRS_OUT_OF_BOUNDS, SRS_UNREADABLE } srs_status;

/* Checks `count` patches of images that take `lengths` bytes each, NULL: those of their pixels, and the size in bytes of
   the memory for all patches. `failed` becomes the number of the patch that is out of bounds. */
srs_status srs_check_patches(const srs_map *maps, int64_t num_maps, const srs_patch *patches, const int64_t *lengths,
                             int64_t count, srs_sizes sizes, int64_t to_size, int64_t *failed);

/* Copies `count` patches of raw images to `to`, one after the other, after checking all of them; leaves out those
   without an image. `failed` becomes the number of the patch that is out of bounds, or on a page that could not be
   read. */
srs_status srs_copy_patches(const srs_map *maps, int64_t num_maps, const srs_patch *patches, int64_t count,
                            srs_sizes sizes, uint8_t *to, int64_t to_size, int64_t *failed);

/* The same for images that are encoded as `tlc`, of `lengths` bytes each. `is_intact` becomes 0 for patches without an
   image, or of damaged images, else 1. `scratch` has the size of a patch. */
srs_status srs_decode_patches(const srs_map *maps, int64_t num_maps, const srs_patch *patches, const int64_t *lengths,
                              int64_t count, srs_sizes sizes, uint8_t *to, int64_t to_size, uint8_t *scratch,
                              uint8_t *is_intact, int64_t *failed);

/* Copies one square of px x px pixels, with a symmetry. */
void srs_copy_square(const uint8_t *from, int64_t px, int symmetry, uint8_t *to);

/* Compares `size` bytes at each of `count` positions, pairs of map and offset, with `expected`, and sets `equal` to 0
   or 1 for each. What is out of bounds is not equal. */
srs_status srs_compare(const srs_map *maps, int64_t num_maps, const int64_t (*positions)[2], int64_t count,
                       const uint8_t *expected, int64_t size, uint8_t *equal, int64_t *failed);

#endif
