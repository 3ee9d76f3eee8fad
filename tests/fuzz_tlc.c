/* Decodes random, truncated and mutated content with sanitizers: tests/test_tlc_native.py.

   fuzz_tlc ROUNDS      Prints how many contents were decoded and refused. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tlc.h"

static uint32_t state = 1;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % below;
}

/* Noise of a random range around random lines. */
static void draw_image(uint8_t *image, int height, int width)
{
    const uint32_t range = 1u << draw(9), slope = draw(4), step = draw(64);
    for (int i = 0; i < height * width * 3; i++)
        image[i] = (uint8_t)(draw(range) + slope * (uint32_t)(i / 3 % width) + step * (uint32_t)(i / 3 / width / 8));
}

static tlc_box draw_box(int height, int width)
{
    tlc_box box;
    box.top = (int)draw((uint32_t)height);
    box.left = (int)draw((uint32_t)width);
    box.height = 1 + (int)draw((uint32_t)(height - box.top));
    box.width = 1 + (int)draw((uint32_t)(width - box.left));
    return box;
}

/* Decodes a box from a copy that ends where the content ends, to memory that ends where the box ends. */
static tlc_status decode(const uint8_t *content, size_t size, tlc_box box, uint8_t *expected, int width)
{
    const size_t row_bytes = 3 * (size_t)box.width;
    uint8_t *copy = malloc(size ? size : 1), *to = malloc(row_bytes * (size_t)box.height);
    tlc_status status;
    memcpy(copy, content, size);
    status = tlc_decode(copy, size, box, to, row_bytes);
    for (int y = 0; expected && y < box.height; y++)
        if (status || memcmp(to + row_bytes * (size_t)y, expected + 3 * (((size_t)(box.top + y)) * (size_t)width +
                                                                         (size_t)box.left), row_bytes)) {
            printf("wrong pixels, or status %d, of %d x %d px\n", status, box.height, box.width);
            exit(1);
        }
    free(copy);
    free(to);
    return status;
}

static void mutate(uint8_t *content, size_t size)
{
    for (uint32_t i = 0, count = 1 + draw(8); i < count; i++) {
        const size_t near_start = 12 + draw(64), at = draw(2) && near_start < size ? near_start : draw((uint32_t)size);
        content[at] = (uint8_t)(draw(2) ? draw(256) : content[at] ^ 1u << draw(8));
    }
}

int main(int argc, char **argv)
{
    const int rounds = argc > 1 ? atoi(argv[1]) : 1000;
    int decoded = 0, refused = 0;
    tlc_init();
    for (int i = 0; i < rounds; i++) {
        const int height = 1 + (int)draw(100), width = 1 + (int)draw(100);
        const size_t capacity = tlc_max_size(height, width);
        uint8_t *image = malloc((size_t)height * (size_t)width * 3), *valid = malloc(capacity);
        uint8_t *content = malloc(capacity);
        const tlc_box all = {0, 0, height, width};
        size_t size;
        draw_image(image, height, width);
        size = tlc_encode(image, height, width, valid);
        decode(valid, size, all, image, width);
        decode(valid, size, draw_box(height, width), image, width);
        for (int j = 0; j < 20; j++) {
            int h = height, w = width;
            size_t length = size;
            memcpy(content, valid, size);
            if (j % 5 == 4)
                length = draw((uint32_t)size + 1);
            else if (j % 5 == 3)
                for (size_t k = 8; k < size; k++)
                    content[k] = (uint8_t)draw(256);
            else
                mutate(content, size);
            if (tlc_read_size(content, length, &h, &w) || h > 200 || w > 200)
                h = height, w = width;
            *(decode(content, length, draw_box(h, w), NULL, w) ? &refused : &decoded) += 1;
        }
        free(image);
        free(valid);
        free(content);
    }
    printf("%d decoded, %d refused\n", decoded, refused);
    return 0;
}
