/* Tiled lossless coding of 8-bit RGB images: docs/reference/formats.md, "`tlc`". No Python. */

#ifndef SRSHARDS_TLC_H
#define SRSHARDS_TLC_H

#include <stddef.h>
#include <stdint.h>

#define TLC_MAX_PX 65535

typedef enum { TLC_OK, TLC_INVALID_HEADER, TLC_INVALID_SIZES, TLC_INVALID_TILE, TLC_OUT_OF_BOUNDS } tlc_status;

/* Part of an image, in px. */
typedef struct {
    int top;
    int left;
    int height;
    int width;
} tlc_box;

/* Makes the tables that the other functions need. To be called once, before them. */
void tlc_init(void);

/* The largest size in bytes that an image of that size can be encoded to. */
size_t tlc_max_size(int height, int width);

/* Encodes an image without padding, 1 to TLC_MAX_PX px high and wide, and returns the size of `to`, which must have
   tlc_max_size bytes. The four bytes of the CRC-32 are left 0. */
size_t tlc_encode(const uint8_t *image, int height, int width, uint8_t *to);

/* Reads the size of an image. */
tlc_status tlc_read_size(const uint8_t *content, size_t size, int *height, int *width);

/* Decodes a box of an image, reading only the tiles that it touches. Rows of `to` are `stride` bytes apart. Any
   content is safe; the CRC-32 is not compared. */
tlc_status tlc_decode(const uint8_t *content, size_t size, tlc_box box, uint8_t *to, size_t stride);

#endif
