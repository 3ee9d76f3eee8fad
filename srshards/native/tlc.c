#include "tlc.h"

#include <string.h>

#if defined(__SSE2__) && !defined(TLC_PLAIN)
#include <emmintrin.h>
#define HAS_SSE2 1
#else
#define HAS_SSE2 0
#endif

#define TILE 32
#define BLOCK 8
#define BLOCKS (TILE / BLOCK) /* along an edge of a tile */
#define STREAMS 4             /* of a tile. Row y of a tile is in stream y % 4 */
#define HEADER_BYTES 12
#define TILE_HEADER_BYTES 10

#define WITHOUT_DIFFERENCES 1 /* modes of a tile */
#define WITH_GRADIENT 2

#define CODES 16     /* of blocks; 0: all residuals are 0 */
#define PAIR_CODES 5 /* codes 1 to 5 are for pairs of residuals, the others for single ones */
#define CODE_CODE 16 /* for the codes of the blocks */
#define PAIR_RANGE 4 /* pairs consist of -4 to 4 */
#define PAIR_SIDE (2 * PAIR_RANGE + 1)
#define PAIRS (PAIR_SIDE * PAIR_SIDE)
#define MAX_BITS 12
#define MAX_PAIR_BITS 11

#define NO_CODE 800 /* instead of a number of bits: 64 of them are below 2^16, and any block is cheaper with code 15 */
#define MAX_BLOCK_BYTES (BLOCK * BLOCK) /* with code 15 */
#define MAX_STREAM_BYTES (TILE * TILE * 3 / STREAMS * MAX_BITS / 8 + 64)
#define MAX_TILE_BYTES (TILE_HEADER_BYTES + 3 * BLOCKS * BLOCKS * (MAX_BLOCK_BYTES + 2) + STREAMS)

/* The numbers of codewords of 1 to 12 bits. */
static const uint16_t NUM_CODEWORDS[CODES + 1][MAX_BITS] = {
    {0},
    {1, 0, 2, 2, 0, 4, 2, 2, 0, 12, 56, 0},
    {1, 0, 0, 4, 4, 3, 1, 8, 6, 2, 52, 0},
    {0, 1, 3, 1, 4, 4, 8, 8, 2, 6, 44, 0},
    {0, 0, 1, 8, 4, 8, 8, 8, 4, 8, 32, 0},
    {0, 0, 1, 4, 8, 8, 19, 21, 2, 14, 4, 0},
    {1, 0, 2, 2, 2, 0, 4, 2, 4, 4, 5, 38},
    {0, 1, 4, 2, 2, 2, 1, 3, 0, 4, 3, 26},
    {1, 0, 0, 2, 2, 4, 8, 14, 20, 46, 41, 118},
    {0, 0, 5, 3, 3, 2, 4, 3, 3, 4, 3, 34},
    {0, 0, 1, 8, 6, 6, 4, 6, 6, 5, 6, 80},
    {0, 0, 0, 5, 12, 10, 8, 8, 10, 9, 10, 120},
    {0, 0, 0, 0, 14, 19, 16, 15, 13, 13, 14, 152},
    {0, 0, 0, 1, 6, 14, 36, 38, 22, 27, 20, 92},
    {0, 0, 1, 0, 6, 8, 20, 12, 159, 50, 0, 0},
    {0, 0, 0, 0, 0, 0, 0, 256, 0, 0, 0, 0},
    {1, 0, 2, 1, 2, 3, 4, 10, 2, 2, 3, 2},
};

typedef struct {
    uint16_t bits;
    uint8_t length;
} codeword;

typedef uint16_t eight_u16 __attribute__((vector_size(16)));

/* For the encoder, by code, and by the symbol: 9 (a + 4) + b + 4 for a pair (a, b), a residual as an unsigned byte. */
static codeword codewords[CODES + 1][256];
/* The lengths of the codewords, by the symbol and the code. */
static eight_u16 pair_lengths[PAIRS];
static eight_u16 single_lengths[256][2];
/* By the next bits, for the decoder. */
static uint32_t pair_entries[PAIR_CODES + 1][1 << MAX_PAIR_BITS]; /* first residual, second, length: 8 bits each */
static uint16_t single_entries[CODES + 1][1 << MAX_BITS];         /* residual, length */

static int min_of(int a, int b) { return a < b ? a : b; }
static int max_of(int a, int b) { return a > b ? a : b; }
static int magnitude(int a) { return a < 0 ? -a : a; }
static int from_zigzag(int z) { return z & 1 ? -(z + 1) / 2 : z / 2; }
static int pair_symbol(int a, int b) { return PAIR_SIDE * (a + PAIR_RANGE) + b + PAIR_RANGE; }

/* ---- Tables */

/* Lists the pairs by sum of magnitudes, then by the larger magnitude, then in ascending order. */
static void list_pairs(int8_t pairs[PAIRS][2])
{
    int n = 0;
    for (int sum = 0; sum <= 2 * PAIR_RANGE; sum++)
        for (int larger = 0; larger <= PAIR_RANGE; larger++)
            for (int a = -PAIR_RANGE; a <= PAIR_RANGE; a++)
                for (int b = -PAIR_RANGE; b <= PAIR_RANGE; b++)
                    if (magnitude(a) + magnitude(b) == sum && max_of(magnitude(a), magnitude(b)) == larger) {
                        pairs[n][0] = (int8_t)a;
                        pairs[n++][1] = (int8_t)b;
                    }
}

static void add_pair(int code, int bits, int length, const int8_t pair[2])
{
    const int symbol = pair_symbol(pair[0], pair[1]), shift = MAX_PAIR_BITS - length;
    const uint32_t entry = (uint8_t)pair[0] | (uint32_t)(uint8_t)pair[1] << 8 | (uint32_t)length << 16;
    codewords[code][symbol] = (codeword){(uint16_t)bits, (uint8_t)length};
    pair_lengths[symbol][code] = (uint16_t)length;
    for (int i = bits << shift; i < (bits + 1) << shift; i++)
        pair_entries[code][i] = entry;
}

static void add_single(int code, int bits, int length, int residual)
{
    const int symbol = residual & 255, shift = MAX_BITS - length;
    codewords[code][symbol] = (codeword){(uint16_t)bits, (uint8_t)length};
    if (code < CODES)
        single_lengths[symbol][code / 8][code % 8] = (uint16_t)length;
    for (int i = bits << shift; i < (bits + 1) << shift; i++)
        single_entries[code][i] = (uint16_t)(symbol | length << 8);
}

void tlc_init(void)
{
    int8_t pairs[PAIRS][2];
    list_pairs(pairs);
    for (int i = 0; i < PAIRS; i++)
        for (int code = 0; code < 8; code++)
            pair_lengths[i][code] = NO_CODE;
    for (int i = 0; i < 256; i++)
        for (int code = 0; code < CODES; code++)
            single_lengths[i][code / 8][code % 8] = NO_CODE;
    for (int code = 1; code <= CODES; code++) {
        int bits = 0, n = 0;
        for (int length = 1; length <= MAX_BITS; length++, bits <<= 1)
            for (int i = 0; i < NUM_CODEWORDS[code][length - 1]; i++, n++, bits++)
                if (code <= PAIR_CODES)
                    add_pair(code, bits, length, pairs[n]);
                else
                    add_single(code, bits, length, from_zigzag(n));
    }
}

/* ---- Codes of the blocks of a tile */

/* Predicts the code of a block from the codes of the blocks above, to its left, or of the previous plane. */
static int predicted_code(uint8_t codes[3][BLOCKS][BLOCKS], int plane, int row, int column)
{
    if (row && column)
        return (codes[plane][row - 1][column] + codes[plane][row][column - 1] + 1) >> 1;
    if (row)
        return codes[plane][row - 1][column];
    if (column)
        return codes[plane][row][column - 1];
    return plane ? codes[plane - 1][0][0] : 0;
}

/* ---- Encoder */

typedef struct {
    uint64_t bits; /* the last `count` of them are not yet written */
    int count;
    uint8_t *to;
} bit_writer;

static inline void write_bits(bit_writer *writer, codeword word)
{
    writer->bits = writer->bits << word.length | word.bits;
    writer->count += word.length;
    if (writer->count >= 32) {
        writer->count -= 32;
        for (int shift = 24; shift >= 0; shift -= 8)
            *writer->to++ = (uint8_t)(writer->bits >> writer->count >> shift);
    }
}

static void finish(bit_writer *writer)
{
    for (; writer->count > 0; writer->count -= 8)
        *writer->to++ = (uint8_t)(writer->bits << 8 >> writer->count);
}

typedef struct {
    uint8_t planes[3][TILE][TILE];
    int8_t residuals[3][TILE][TILE]; /* 0 outside of the tile */
    uint8_t codes[3][BLOCKS][BLOCKS];
    int mode;
} coded_tile;

static void split_planes(coded_tile *tile, const uint8_t *image, size_t stride, int height, int width, int mode)
{
    const int is_difference = !(mode & WITHOUT_DIFFERENCES);
    tile->mode = mode;
    for (int y = 0; y < height; y++) {
        const uint8_t *pixel = image + (size_t)y * stride;
        for (int x = 0; x < width; x++, pixel += 3) {
            const int base = is_difference ? pixel[1] - 128 : 0;
            tile->planes[0][y][x] = (uint8_t)(pixel[0] - base);
            tile->planes[1][y][x] = pixel[1];
            tile->planes[2][y][x] = (uint8_t)(pixel[2] - base);
        }
    }
}

/* Around the tile, all neighbours have the value of its first pixel. */
static void predict_plane(coded_tile *tile, int plane, int height, int width)
{
    const uint8_t border = tile->planes[plane][0][0];
    const int is_gradient = tile->mode & WITH_GRADIENT;
    uint8_t above[TILE + 1], left[TILE + 1]; /* from the pixel to the left of the row */
    memset(above, border, sizeof above);
    left[0] = border;
    for (int y = 0; y < TILE; y++) {
        const uint8_t *row = tile->planes[plane][y];
        int8_t *residuals = tile->residuals[plane][y];
        if (y >= height) {
            memset(residuals, 0, TILE);
            continue;
        }
        memcpy(left + 1, row, TILE);
        if (is_gradient)
            for (int x = 0; x < TILE; x++)
                residuals[x] = (int8_t)(uint8_t)(row[x] - left[x] - above[x + 1] + above[x]);
        else
            for (int x = 0; x < TILE; x++) {
                const uint8_t w = left[x], n = above[x + 1], low = w < n ? w : n, high = w < n ? n : w;
                uint8_t corner = above[x] < low ? low : above[x];
                corner = corner > high ? high : corner;
                residuals[x] = (int8_t)(uint8_t)(row[x] - w - n + corner);
            }
        memset(residuals + width, 0, (size_t)(TILE - width));
        memcpy(above + 1, row, TILE);
    }
}

static int sum_of_magnitudes(const coded_tile *tile)
{
    int sum = 0;
    for (int plane = 0; plane < 3; plane++)
        for (int y = 0; y < TILE; y++)
            for (int x = 0; x < TILE; x++)
                sum += magnitude(tile->residuals[plane][y][x]);
    return sum;
}

/* Whether any residual of a block is not 0, and whether any is not within the range of pairs. */
static void inspect_block(int8_t residuals[TILE][TILE], int top, int left, int *is_used, int *is_large)
{
    *is_used = *is_large = 0;
    for (int y = top; y < top + BLOCK; y++)
        for (int x = left; x < left + BLOCK; x++) {
            *is_used |= residuals[y][x];
            *is_large |= (uint8_t)(residuals[y][x] + PAIR_RANGE) > 2 * PAIR_RANGE;
        }
}

/* Returns the code with which a block has the fewest bits, the first of several. */
static uint8_t choose_code(int8_t residuals[TILE][TILE], int top, int left)
{
    eight_u16 first = {0}, second = {0}, of_pairs = {0};
    uint16_t bits[CODES];
    int is_used, is_large, code = 1;
    inspect_block(residuals, top, left, &is_used, &is_large);
    if (!is_used)
        return 0;
    for (int y = top; y < top + BLOCK; y++)
        for (int x = left; x < left + BLOCK; x++) {
            first += single_lengths[(uint8_t)residuals[y][x]][0];
            second += single_lengths[(uint8_t)residuals[y][x]][1];
        }
    memcpy(bits, &first, sizeof first);
    memcpy(bits + 8, &second, sizeof second);
    if (!is_large) {
        for (int y = top; y < top + BLOCK; y++)
            for (int x = left; x < left + BLOCK; x += 2)
                of_pairs += pair_lengths[pair_symbol(residuals[y][x], residuals[y][x + 1])];
        for (int i = 1; i <= PAIR_CODES; i++)
            bits[i] = of_pairs[i];
    }
    for (int i = 2; i < CODES; i++)
        if (bits[i] < bits[code])
            code = i;
    return (uint8_t)code;
}

static void write_row(bit_writer *writer, const int8_t *residuals, int count, int code)
{
    if (code <= PAIR_CODES)
        for (int x = 0; x < count; x += 2)
            write_bits(writer, codewords[code][pair_symbol(residuals[x], residuals[x + 1])]);
    else
        for (int x = 0; x < count; x++)
            write_bits(writer, codewords[code][(uint8_t)residuals[x]]);
}

static void write_streams(coded_tile *tile, int height, int width, bit_writer writers[STREAMS])
{
    for (int row = 0; row * BLOCK < height; row++) {
        for (int plane = 0; plane < 3; plane++)
            for (int column = 0; column * BLOCK < width; column++) {
                const int change = tile->codes[plane][row][column] - predicted_code(tile->codes, plane, row, column);
                write_bits(&writers[column], codewords[CODE_CODE][(uint8_t)change]);
            }
        for (int column = 0; column * BLOCK < width; column++)
            for (int plane = 0; plane < 3; plane++) {
                const int code = tile->codes[plane][row][column], count = min_of(BLOCK, width - BLOCK * column);
                for (int y = BLOCK * row; code && y < min_of(BLOCK * (row + 1), height); y++)
                    write_row(&writers[y % STREAMS], &tile->residuals[plane][y][BLOCK * column], count, code);
            }
    }
}

static uint8_t *write_tile(coded_tile *tile, int height, int width, uint8_t *to)
{
    uint8_t streams[STREAMS][MAX_STREAM_BYTES], *sizes;
    bit_writer writers[STREAMS];
    *to++ = (uint8_t)tile->mode;
    for (int plane = 0; plane < 3; plane++)
        *to++ = tile->planes[plane][0][0];
    for (int i = 0; i < STREAMS; i++)
        writers[i] = (bit_writer){0, 0, streams[i]};
    write_streams(tile, height, width, writers);
    sizes = to;
    to += 2 * (STREAMS - 1);
    for (int i = 0; i < STREAMS; i++) {
        size_t size;
        finish(&writers[i]);
        size = (size_t)(writers[i].to - streams[i]);
        if (i < STREAMS - 1) {
            *sizes++ = (uint8_t)size;
            *sizes++ = (uint8_t)(size >> 8);
        }
        memcpy(to, streams[i], size);
        to += size;
    }
    return to;
}

static void predict_tile(coded_tile *tile, const uint8_t *image, size_t stride, int height, int width, int mode)
{
    split_planes(tile, image, stride, height, width, mode);
    for (int plane = 0; plane < 3; plane++)
        predict_plane(tile, plane, height, width);
}

/* Tries differences with both predictors, then no differences with the better one. */
static uint8_t *encode_tile(const uint8_t *image, size_t stride, int height, int width, uint8_t *to)
{
    coded_tile tiles[2] = {0}, *best = &tiles[0], *other = &tiles[1];
    int smallest;
    predict_tile(best, image, stride, height, width, 0);
    smallest = sum_of_magnitudes(best);
    for (int i = 0; i < 2; i++) {
        int sum;
        predict_tile(other, image, stride, height, width, i ? best->mode | WITHOUT_DIFFERENCES : WITH_GRADIENT);
        if ((sum = sum_of_magnitudes(other)) < smallest) {
            coded_tile *worse = best;
            smallest = sum;
            best = other;
            other = worse;
        }
    }
    for (int plane = 0; plane < 3; plane++)
        for (int row = 0; row * BLOCK < height; row++)
            for (int column = 0; column * BLOCK < width; column++)
                best->codes[plane][row][column] = choose_code(best->residuals[plane], BLOCK * row, BLOCK * column);
    return write_tile(best, height, width, to);
}

static size_t tiles_along(int px) { return ((size_t)px + TILE - 1) / TILE; }

size_t tlc_max_size(int height, int width)
{
    return HEADER_BYTES + tiles_along(height) * tiles_along(width) * (2 + MAX_TILE_BYTES);
}

size_t tlc_encode(const uint8_t *image, int height, int width, uint8_t *to)
{
    const size_t stride = 3 * (size_t)width, num_tiles = tiles_along(height) * tiles_along(width);
    const uint8_t header[HEADER_BYTES] = {'T', 'L', 'C', '1', (uint8_t)height, (uint8_t)(height >> 8),
                                          (uint8_t)width, (uint8_t)(width >> 8)};
    uint8_t *sizes = to + HEADER_BYTES, *end = sizes + 2 * num_tiles;
    memcpy(to, header, sizeof header);
    for (int top = 0; top < height; top += TILE)
        for (int left = 0; left < width; left += TILE) {
            uint8_t *start = end;
            end = encode_tile(image + (size_t)top * stride + 3 * (size_t)left, stride, min_of(TILE, height - top),
                              min_of(TILE, width - left), start);
            *sizes++ = (uint8_t)(end - start);
            *sizes++ = (uint8_t)((end - start) >> 8);
        }
    return (size_t)(end - to);
}

/* ---- Decoder */

static inline int read_u16(const uint8_t *from) { return from[0] | from[1] << 8; }

static inline uint64_t read_big_endian_u64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

/* A stream of bits. It may be read beyond its end, which is found out after the tile, but not beyond the content. */
typedef struct {
    uint64_t bits;         /* the first `count` of them are valid */
    int count;
    size_t position;       /* of the next byte */
    const uint8_t *content;
    size_t size;           /* of the content; beyond it are zeros */
} bit_reader;

/* Makes at least 56 bits valid: enough for four symbols. */
static inline void refill(bit_reader *reader)
{
    if (reader->position + 8 <= reader->size) {
        reader->bits |= read_big_endian_u64(reader->content + reader->position) >> reader->count;
        reader->position += (size_t)((63 - reader->count) >> 3);
        reader->count |= 56;
    } else
        for (; reader->count <= 56; reader->count += 8, reader->position++)
            if (reader->position < reader->size)
                reader->bits |= (uint64_t)reader->content[reader->position] << (56 - reader->count);
}

static inline uint8_t take_single(bit_reader *reader, const uint16_t *entries)
{
    const unsigned entry = entries[reader->bits >> (64 - MAX_BITS)];
    reader->bits <<= entry >> 8;
    reader->count -= (int)(entry >> 8);
    return (uint8_t)entry;
}

static inline void take_pair(bit_reader *reader, const uint32_t *entries, uint8_t *first, uint8_t *second)
{
    const uint32_t entry = entries[reader->bits >> (64 - MAX_PAIR_BITS)];
    reader->bits <<= entry >> 16;
    reader->count -= (int)(entry >> 16);
    *first = (uint8_t)entry;
    *second = (uint8_t)(entry >> 8);
}

static int ends_at(const bit_reader *reader, size_t end)
{
    return (8 * reader->position - (size_t)reader->count + 7) / 8 == end;
}

/* A band is eight rows of a tile. Its bytes are in the order in which they are computed: step x + y has pixel (y, x) of
   every row y, four bytes each, three of which are used. All pixels of a step are computed at once: those to the left,
   above and on the upper left belong to the previous two steps. */
#define STEP_BYTES (4 * BLOCK)
#define MAX_STEPS (TILE + BLOCK)
#define BAND_BYTES (MAX_STEPS * STEP_BYTES)
#define AT(y, x) (((x) + (y)) * STEP_BYTES + 4 * (y))

static inline void read_row_of_pairs(bit_reader *reader, const uint32_t *entries, uint8_t *to)
{
    refill(reader);
    for (int x = 0; x < BLOCK; x += 2)
        take_pair(reader, entries, to + AT(0, x), to + AT(0, x + 1));
}

static inline void read_row_of_singles(bit_reader *reader, const uint16_t *entries, uint8_t *to)
{
    for (int half = 0; half < BLOCK; half += 4) {
        refill(reader);
        for (int x = half; x < half + 4; x++)
            to[AT(0, x)] = take_single(reader, entries);
    }
}

/* Reads the first residuals of a row of a block on the right edge of an image. */
static void read_part_of_row(bit_reader *reader, int code, int count, uint8_t *to)
{
    uint8_t unused;
    for (int x = 0; x < count; x++) {
        refill(reader);
        if (code > PAIR_CODES)
            to[AT(0, x)] = take_single(reader, single_entries[code]);
        else {
            take_pair(reader, pair_entries[code], to + AT(0, x), x + 1 < count ? to + AT(0, x + 1) : &unused);
            x++;
        }
    }
}

/* The streams are separate variables, so that the processor can decode symbols of all of them at the same time. */
#define READ_BLOCK(read_row, entries, to)                                                                              \
    do {                                                                                                               \
        read_row(&s0, entries, (to) + AT(0, 0));                                                                       \
        read_row(&s1, entries, (to) + AT(1, 0));                                                                       \
        read_row(&s2, entries, (to) + AT(2, 0));                                                                       \
        read_row(&s3, entries, (to) + AT(3, 0));                                                                       \
        read_row(&s0, entries, (to) + AT(4, 0));                                                                       \
        read_row(&s1, entries, (to) + AT(5, 0));                                                                       \
        read_row(&s2, entries, (to) + AT(6, 0));                                                                       \
        read_row(&s3, entries, (to) + AT(7, 0));                                                                       \
    } while (0)

typedef struct {
    bit_reader readers[STREAMS];
    uint8_t codes[3][BLOCKS][BLOCKS];
    int height; /* px */
    int width;
    int mode;
    uint8_t border[4];      /* the first pixel: the neighbours around the tile */
    uint8_t above[TILE][4]; /* the planes' last row of the previous band */
} tile_reader;

static tlc_status read_codes(tile_reader *tile, int row)
{
    const int columns = (tile->width + BLOCK - 1) / BLOCK;
    int8_t changes[3][BLOCKS];
    for (int column = 0; column < columns; column++) {
        bit_reader *reader = &tile->readers[column];
        refill(reader);
        for (int plane = 0; plane < 3; plane++)
            changes[plane][column] = (int8_t)take_single(reader, single_entries[CODE_CODE]);
    }
    for (int plane = 0; plane < 3; plane++)
        for (int column = 0; column < columns; column++) {
            const int code = predicted_code(tile->codes, plane, row, column) + changes[plane][column];
            if (code < 0 || code >= CODES)
                return TLC_INVALID_TILE;
            tile->codes[plane][row][column] = (uint8_t)code;
        }
    return TLC_OK;
}

/* Reads the residuals of a band, which are 0 before. */
static void read_residuals(tile_reader *tile, int row, uint8_t band[BAND_BYTES])
{
    const int rows = min_of(BLOCK, tile->height - BLOCK * row);
    bit_reader s0 = tile->readers[0], s1 = tile->readers[1], s2 = tile->readers[2], s3 = tile->readers[3];
    for (int left = 0; left < tile->width; left += BLOCK)
        for (int plane = 0; plane < 3; plane++) {
            const int code = tile->codes[plane][row][left / BLOCK], columns = min_of(BLOCK, tile->width - left);
            uint8_t *to = band + AT(0, left) + plane;
            if (!code)
                continue;
            if (rows == BLOCK && columns == BLOCK) {
                if (code <= PAIR_CODES)
                    READ_BLOCK(read_row_of_pairs, pair_entries[code], to);
                else
                    READ_BLOCK(read_row_of_singles, single_entries[code], to);
            } else
                for (int y = 0; y < rows; y++) {
                    bit_reader *readers[STREAMS] = {&s0, &s1, &s2, &s3}, reader = *readers[y % STREAMS];
                    read_part_of_row(&reader, code, columns, to + AT(y, 0));
                    *readers[y % STREAMS] = reader;
                }
        }
    tile->readers[0] = s0;
    tile->readers[1] = s1;
    tile->readers[2] = s2;
    tile->readers[3] = s3;
}

#if HAS_SSE2

/* The eight pixels of a step. */
typedef struct {
    __m128i low;
    __m128i high;
} step;

static inline __m128i predicted(__m128i left, __m128i above, __m128i corner, __m128i is_gradient)
{
    const __m128i low = _mm_min_epu8(left, above), high = _mm_max_epu8(left, above);
    const __m128i limited = _mm_min_epu8(_mm_max_epu8(corner, _mm_andnot_si128(is_gradient, low)),
                                         _mm_or_si128(high, is_gradient));
    return _mm_sub_epi8(_mm_add_epi8(left, above), limited);
}

static inline __m128i with_green_added(__m128i planes)
{
    const __m128i green = _mm_and_si128(_mm_srli_epi32(planes, 8), _mm_set1_epi32(0xff));
    const __m128i both = _mm_or_si128(green, _mm_slli_epi32(green, 16));
    return _mm_xor_si128(_mm_add_epi8(planes, both), _mm_set1_epi32(0x00800080)); /* + 128 mod 256 */
}

/* Replaces the residuals of a band by pixels. */
static void restore_band(tile_reader *tile, uint8_t band[BAND_BYTES])
{
    const int num_steps = tile->width + BLOCK - 1;
    const __m128i is_gradient = _mm_set1_epi8(tile->mode & WITH_GRADIENT ? -1 : 0);
    step left, above, corner;
    int border, last;
    memcpy(&border, tile->border, 4);
    left.low = left.high = corner.low = corner.high = _mm_set1_epi32(border);
    for (int i = 0; i < num_steps; i++) {
        __m128i *at = (__m128i *)(void *)(band + i * STEP_BYTES);
        int first;
        memcpy(&first, tile->above[min_of(i, TILE - 1)], 4);
        above.low = _mm_or_si128(_mm_slli_si128(left.low, 4), _mm_cvtsi32_si128(first));
        above.high = _mm_or_si128(_mm_slli_si128(left.high, 4), _mm_srli_si128(left.low, 12));
        left.low = _mm_add_epi8(predicted(left.low, above.low, corner.low, is_gradient), at[0]);
        left.high = _mm_add_epi8(predicted(left.high, above.high, corner.high, is_gradient), at[1]);
        corner = above;
        if (i >= BLOCK - 1) {
            last = _mm_cvtsi128_si32(_mm_srli_si128(left.high, 12));
            memcpy(tile->above[i - (BLOCK - 1)], &last, 4);
        }
        at[0] = tile->mode & WITHOUT_DIFFERENCES ? left.low : with_green_added(left.low);
        at[1] = tile->mode & WITHOUT_DIFFERENCES ? left.high : with_green_added(left.high);
    }
}

#else

static inline uint8_t predicted(uint8_t left, uint8_t above, uint8_t corner, int is_gradient)
{
    const uint8_t low = left < above ? left : above, high = left < above ? above : left;
    if (!is_gradient)
        corner = corner < low ? low : corner > high ? high : corner;
    return (uint8_t)(left + above - corner);
}

/* Replaces the residuals of a band by pixels. */
static void restore_band(tile_reader *tile, uint8_t band[BAND_BYTES])
{
    for (int y = 0; y < BLOCK; y++) {
        uint8_t left[3], corner[3];
        memcpy(left, tile->border, 3);
        memcpy(corner, tile->border, 3);
        for (int x = 0; x < tile->width; x++)
            for (int plane = 0; plane < 3; plane++) {
                uint8_t *at = band + AT(y, x) + plane, *above = &tile->above[x][plane];
                *at = (uint8_t)(*at + predicted(left[plane], *above, corner[plane], tile->mode & WITH_GRADIENT));
                corner[plane] = *above;
                *above = left[plane] = *at;
            }
        for (int x = 0; x < tile->width && !(tile->mode & WITHOUT_DIFFERENCES); x++) {
            uint8_t *pixel = band + AT(y, x);
            pixel[0] = (uint8_t)(pixel[0] + pixel[1] - 128);
            pixel[2] = (uint8_t)(pixel[2] + pixel[1] - 128);
        }
    }
}

#endif

/* Copies `count` pixels of a row from a band. */
static inline void copy_pixels(uint8_t *to, const uint8_t *from, int count)
{
    for (; count > 1; count--, from += STEP_BYTES, to += 3)
        memcpy(to, from, 4); /* the fourth byte is overwritten */
    memcpy(to, from, 3);
}

/* Opens the tile at content[start .. end-1]. */
static tlc_status open_tile(tile_reader *tile, const uint8_t *content, size_t size, size_t start, size_t end,
                            size_t ends[STREAMS])
{
    const uint8_t *header = content + start;
    size_t position = start + TILE_HEADER_BYTES;
    if (end - start < TILE_HEADER_BYTES || header[0] > (WITHOUT_DIFFERENCES | WITH_GRADIENT))
        return TLC_INVALID_TILE;
    tile->mode = header[0];
    memcpy(tile->border, header + 1, 3);
    tile->border[3] = 0;
    for (int x = 0; x < TILE; x++)
        memcpy(tile->above[x], tile->border, 4);
    for (int i = 0; i < STREAMS; i++) {
        tile->readers[i] = (bit_reader){0, 0, position, content, size};
        position = i < STREAMS - 1 ? position + (size_t)read_u16(header + 4 + 2 * i) : end;
        if (position > end)
            return TLC_INVALID_TILE;
        ends[i] = position;
    }
    return TLC_OK;
}

/* Decodes the rows and columns `box` of a tile; `to` is the first pixel of them. */
static tlc_status decode_tile(tile_reader *tile, tlc_box box, const size_t ends[STREAMS], uint8_t *to, size_t stride)
{
    _Alignas(16) uint8_t band[BAND_BYTES];
    const int bottom = box.top + box.height;
    for (int top = 0; top < bottom; top += BLOCK) {
        tlc_status status = read_codes(tile, top / BLOCK);
        if (status)
            return status;
        memset(band, 0, sizeof band);
        read_residuals(tile, top / BLOCK, band);
        restore_band(tile, band);
        for (int y = max_of(top, box.top); y < min_of(top + BLOCK, bottom); y++, to += stride)
            copy_pixels(to, band + AT(y - top, box.left), box.width);
    }
    for (int i = 0; i < STREAMS && bottom == tile->height; i++)
        if (!ends_at(&tile->readers[i], ends[i]))
            return TLC_INVALID_TILE;
    return TLC_OK;
}

tlc_status tlc_read_size(const uint8_t *content, size_t size, int *height, int *width)
{
    if (size < HEADER_BYTES || memcmp(content, "TLC1", 4))
        return TLC_INVALID_HEADER;
    *height = read_u16(content + 4);
    *width = read_u16(content + 6);
    if (!*height || !*width)
        return TLC_INVALID_HEADER;
    if (size < HEADER_BYTES + 2 * tiles_along(*height) * tiles_along(*width))
        return TLC_INVALID_SIZES;
    return TLC_OK;
}

/* The sum of `count` sizes of tiles. */
static size_t sum_sizes(const uint8_t *sizes, size_t count)
{
    size_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (size_t)read_u16(sizes + 2 * i);
    return sum;
}

tlc_status tlc_decode(const uint8_t *content, size_t size, tlc_box box, uint8_t *to, size_t stride)
{
    const uint8_t *const sizes = content + HEADER_BYTES;
    const int first_row = box.top / TILE, first_column = box.left / TILE;
    int height, width;
    size_t columns, start;
    tlc_status status = tlc_read_size(content, size, &height, &width);
    if (status)
        return status;
    if (box.top < 0 || box.left < 0 || box.height < 1 || box.width < 1 || box.height > height - box.top ||
        box.width > width - box.left)
        return TLC_OUT_OF_BOUNDS;
    columns = tiles_along(width);
    start = HEADER_BYTES + 2 * tiles_along(height) * columns + sum_sizes(sizes, (size_t)first_row * columns);
    for (int row = first_row; row * TILE < box.top + box.height; row++) {
        const uint8_t *row_sizes = sizes + 2 * (size_t)row * columns;
        const int top = max_of(box.top - row * TILE, 0), bottom = min_of(box.top + box.height - row * TILE, TILE);
        size_t position = start + sum_sizes(row_sizes, (size_t)first_column);
        for (int column = first_column; column * TILE < box.left + box.width; column++) {
            const int left = max_of(box.left - column * TILE, 0);
            const int right = min_of(box.left + box.width - column * TILE, TILE);
            const size_t end = position + (size_t)read_u16(row_sizes + 2 * column);
            const tlc_box part = {top, left, bottom - top, right - left};
            uint8_t *first = to + (size_t)(row * TILE + top - box.top) * stride +
                             3 * (size_t)(column * TILE + left - box.left);
            tile_reader tile;
            size_t ends[STREAMS];
            if (end > size)
                return TLC_INVALID_SIZES;
            tile.height = min_of(TILE, height - row * TILE);
            tile.width = min_of(TILE, width - column * TILE);
            status = open_tile(&tile, content, size, position, end, ends);
            if (!status)
                status = decode_tile(&tile, part, ends, first, stride);
            if (status)
                return status;
            position = end;
        }
        start += sum_sizes(row_sizes, columns);
    }
    return TLC_OK;
}
