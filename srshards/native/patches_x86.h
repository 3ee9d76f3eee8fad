/* Kernels for x86-64: included by patches.c once per instruction set, which defines TARGET (the attribute of functions),
   NAME (their names) and VECTOR_BYTES, 32 or 64.

   Patches are written past the cache, because nobody reads them soon, and sources are fetched ahead into the cache. */

#define BLOCK (VECTOR_BYTES / 4) /* pixels of 4 bytes in a vector */
#if VECTOR_BYTES == 64
typedef __m512i NAME(vector);
#define UNPACK(half, bits) _mm512_unpack##half##_epi##bits
#else
typedef __m256i NAME(vector);
#define UNPACK(half, bits) _mm256_unpack##half##_epi##bits
#endif

typedef struct {
    const uint8_t *row;
    int64_t stride;
    int64_t size;
    int64_t count;
} NAME(rows);

/* The rows of the patch in the order in which copy_rows and copy_reversed read them. */
TARGET static NAME(rows) NAME(rows_of)(const source *from)
{
    const int64_t step = has_rows_reversed(from->symmetry) ? -from->stride : from->stride;
    return (NAME(rows)){step < 0 ? from->first + (from->px - 1) * from->stride : from->first, step, 3 * from->px,
                        from->px};
}

/* Fetches a row of the next patch, if one is left. One at a time: the processor waits when too many are on their way. */
TARGET static inline void NAME(fetch_next)(NAME(rows) *rows)
{
    if (rows->count > 0) {
        for (int64_t k = 0; k < rows->size; k += 64)
            _mm_prefetch((const char *)rows->row + k, _MM_HINT_T1);
        _mm_prefetch((const char *)rows->row + rows->size - 1, _MM_HINT_T1);
        rows->row += rows->stride;
        rows->count--;
    }
}

/* Writes `size` bytes, a multiple of VECTOR_BYTES, to memory that is aligned to as much. */
TARGET static inline void NAME(stream)(uint8_t *to, const uint8_t *from, int64_t size)
{
    UNROLL
    for (int64_t k = 0; k < size; k += VECTOR_BYTES)
#if VECTOR_BYTES == 64
        _mm512_stream_si512((__m512i *)(to + k), _mm512_loadu_si512((const __m512i *)(from + k)));
#else
        _mm256_stream_si256((__m256i *)(to + k), _mm256_loadu_si256((const __m256i *)(from + k)));
#endif
}

/* Rows in the cache that are still to be streamed. */
typedef struct {
    uint8_t *to;
    const uint8_t *from;
    int64_t size;
} NAME(staged);

TARGET static inline void NAME(stream_part)(NAME(staged) *rows, int64_t size)
{
    if (size > rows->size)
        size = rows->size;
    NAME(stream)(rows->to, rows->from, size);
    rows->to += size;
    rows->from += size;
    rows->size -= size;
}

/* Copies rows in order or in reverse order. */
TARGET static void NAME(copy_rows)(uint8_t *to, const source *from, NAME(rows) *next)
{
    const NAME(rows) rows = NAME(rows_of)(from);
    const uint8_t *row = rows.row;
    const int is_aligned = rows.size % VECTOR_BYTES == 0 && (uintptr_t)to % VECTOR_BYTES == 0;
    for (int64_t i = 0; i < rows.count; i++, row += rows.stride, to += rows.size) {
        NAME(fetch_next)(next);
        if (is_aligned)
            NAME(stream)(to, row, rows.size);
        else
            memcpy(to, row, (size_t)rows.size);
    }
}

/* The pixels of a row in reverse order, 16 at a time. */
TARGET static inline void NAME(reverse_row)(uint8_t *to, const uint8_t *row, int64_t px, int is_aligned)
{
    const __m128i c2 = _mm_setr_epi8(13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, 1, 2, 3, X);
    const __m128i b2 = _mm_setr_epi8(X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, 14);
    const __m128i c1 = _mm_setr_epi8(X, 0, X, X, X, X, X, X, X, X, X, X, X, X, X, X);
    const __m128i b1 = _mm_setr_epi8(15, X, 11, 12, 13, 8, 9, 10, 5, 6, 7, 2, 3, 4, X, 0);
    const __m128i a1 = _mm_setr_epi8(X, X, X, X, X, X, X, X, X, X, X, X, X, X, 15, X);
    const __m128i b0 = _mm_setr_epi8(1, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X);
    const __m128i a0 = _mm_setr_epi8(X, 12, 13, 14, 9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2);
    for (int64_t j = 0; j + 16 <= px; j += 16) {
        const __m128i *in = (const __m128i *)(row + 3 * (px - j - 16));
        const __m128i a = _mm_loadu_si128(in), b = _mm_loadu_si128(in + 1), c = _mm_loadu_si128(in + 2);
        const __m128i out2 = _mm_or_si128(_mm_shuffle_epi8(c, c2), _mm_shuffle_epi8(b, b2));
        const __m128i ac1 = _mm_or_si128(_mm_shuffle_epi8(c, c1), _mm_shuffle_epi8(a, a1));
        const __m128i out1 = _mm_or_si128(ac1, _mm_shuffle_epi8(b, b1));
        const __m128i out0 = _mm_or_si128(_mm_shuffle_epi8(b, b0), _mm_shuffle_epi8(a, a0));
        __m128i *out = (__m128i *)(to + 3 * j);
        if (is_aligned) {
            _mm_stream_si128(out, out2);
            _mm_stream_si128(out + 1, out1);
            _mm_stream_si128(out + 2, out0);
        } else {
            _mm_storeu_si128(out, out2);
            _mm_storeu_si128(out + 1, out1);
            _mm_storeu_si128(out + 2, out0);
        }
    }
}

/* Copies rows, in order or in reverse order, whose columns are reversed. */
TARGET static void NAME(copy_reversed)(uint8_t *to, const source *from, NAME(rows) *next)
{
    const NAME(rows) rows = NAME(rows_of)(from);
    const uint8_t *row = rows.row;
    const int is_aligned = from->px % 16 == 0 && (uintptr_t)to % 16 == 0;
    for (int64_t i = 0; i < rows.count; i++, row += rows.stride, to += rows.size) {
        NAME(fetch_next)(next);
        if (is_aligned)
            NAME(reverse_row)(to, row, from->px, 1);
        else
            NAME(reverse_row)(to, row, from->px, 0);
        write_pixels(to, from, i, from->px / 16 * 16, from->px);
    }
}

/* Four pixels of 3 bytes, at the position of `mask` in 16 bytes, of rows 0, 4, ..., as pixels of 4 bytes. */
TARGET static inline NAME(vector) NAME(widened)(const uint8_t *row, int64_t step, __m128i mask)
{
    const __m128i a = _mm_loadu_si128((const __m128i *)row), b = _mm_loadu_si128((const __m128i *)(row + 4 * step));
    const __m256i ab = _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
#if VECTOR_BYTES == 64
    const __m128i c = _mm_loadu_si128((const __m128i *)(row + 8 * step));
    const __m128i d = _mm_loadu_si128((const __m128i *)(row + 12 * step));
    const __m256i cd = _mm256_inserti128_si256(_mm256_castsi128_si256(c), d, 1);
    const __m512i all = _mm512_inserti64x4(_mm512_castsi256_si512(ab), cd, 1);
    return _mm512_shuffle_epi8(all, _mm512_broadcast_i32x4(mask));
#else
    return _mm256_shuffle_epi8(ab, _mm256_broadcastsi128_si256(mask));
#endif
}

/* Writes pixels of 4 bytes as pixels of 3 bytes. */
TARGET static inline void NAME(write_narrowed)(uint8_t *to, NAME(vector) pixels)
{
    const __m128i mask = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, X, X, X, X);
#if VECTOR_BYTES == 64
    const __m512i packed = _mm512_permutexvar_epi32(
        _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15),
        _mm512_shuffle_epi8(pixels, _mm512_broadcast_i32x4(mask)));
    _mm512_mask_storeu_epi32(to, 0x0FFF, packed);
#else
    const __m256i packed = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(pixels, _mm256_broadcastsi128_si256(mask)),
                                                       _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7));
    _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(packed));
    _mm_storel_epi64((__m128i *)(to + 16), _mm256_extracti128_si256(packed, 1));
#endif
}

/* Fetches the part of BLOCK rows that a stage needs from the second to the first level of the cache. */
TARGET static inline void NAME(fetch_block)(const uint8_t *part, int64_t step)
{
    for (int row = 0; row < BLOCK; row++, part += step) {
        _mm_prefetch((const char *)part, _MM_HINT_T0);
        _mm_prefetch((const char *)part + 3 * MAX_STAGE_ROWS - 1, _MM_HINT_T0);
    }
}

/* Rows i0 .. i1-1 of a transposed patch: blocks of 4 rows and BLOCK columns. Streams `staged` meanwhile: computing and
   writing to memory overlap best in small portions. */
TARGET static void NAME(write_transposed)(uint8_t *to, const source *from, int64_t i0, int64_t i1, NAME(rows) *next,
                                          NAME(staged) *staged)
{
    const int64_t px = from->px, size = 3 * px;
    const int64_t whole_i = px < BLOCK ? i0 : i0 + (i1 - i0) / 4 * 4, whole_j = px / BLOCK * BLOCK;
    const int is_reversed = has_columns_reversed(from->symmetry);
    const NAME(rows) rows = NAME(rows_of)(from);
    const int64_t step = rows.stride, to_next = is_reversed ? -size : size;
    const __m128i first = _mm_setr_epi8(0, 1, 2, X, 3, 4, 5, X, 6, 7, 8, X, 9, 10, 11, X);
    const __m128i last = _mm_setr_epi8(4, 5, 6, X, 7, 8, 9, X, 10, 11, 12, X, 13, 14, 15, X);
    const int64_t first_byte = 3 * (is_reversed ? px - i1 : i0);
    const uint8_t *block = rows.row;
    const int64_t portion = whole_j ? (staged->size * BLOCK / whole_j + 63) / 64 * 64 : 0;
    for (int64_t j = 0; j < whole_j; j += BLOCK, block += BLOCK * step) {
        for (int64_t fetched = 0; fetched < i1 - i0; fetched += whole_j / BLOCK)
            NAME(fetch_next)(next);
        if (j + BLOCK < whole_j)
            NAME(fetch_block)(block + BLOCK * step + first_byte, step);
        NAME(stream_part)(staged, portion);
        for (int64_t i = i0; i < whole_i; i += 4) {
            const int64_t column = is_reversed ? px - 4 - i : i;
            /* 16 bytes that end with the four pixels, unless they would begin before the row, where the map may begin */
            const int is_inside = 3 * column >= 4;
            const __m128i mask = is_inside ? last : first;
            const uint8_t *row = block + 3 * column - (is_inside ? 4 : 0);
            const NAME(vector) a = NAME(widened)(row, step, mask), b = NAME(widened)(row + step, step, mask);
            const NAME(vector) c = NAME(widened)(row + 2 * step, step, mask);
            const NAME(vector) d = NAME(widened)(row + 3 * step, step, mask);
            const NAME(vector) ab0 = UNPACK(lo, 32)(a, b), ab1 = UNPACK(hi, 32)(a, b);
            const NAME(vector) cd0 = UNPACK(lo, 32)(c, d), cd1 = UNPACK(hi, 32)(c, d);
            uint8_t *out = to + (i - i0 + (is_reversed ? 3 : 0)) * size + 3 * j;
            NAME(write_narrowed)(out, UNPACK(lo, 64)(ab0, cd0));
            NAME(write_narrowed)(out + to_next, UNPACK(hi, 64)(ab0, cd0));
            NAME(write_narrowed)(out + 2 * to_next, UNPACK(lo, 64)(ab1, cd1));
            NAME(write_narrowed)(out + 3 * to_next, UNPACK(hi, 64)(ab1, cd1));
        }
    }
    NAME(stream_part)(staged, staged->size);
    for (int64_t i = i0; i < i1; i++)
        write_pixels(to + (i - i0) * size, from, i, i < whole_i ? whole_j : 0, px);
}

/* Copies a transposed patch: a few rows at a time to one of two stages in the cache, and from there to memory. */
TARGET static void NAME(copy_transposed)(uint8_t *to, const source *from, NAME(rows) *next)
{
    _Alignas(64) uint8_t stages[2][STAGE_BYTES];
    const int64_t px = from->px, size = 3 * px, fitting = STAGE_BYTES / size / 4 * 4;
    const int is_aligned = px % 16 == 0 && fitting > 0 && (uintptr_t)to % VECTOR_BYTES == 0;
    const int64_t num_rows = is_aligned && fitting < MAX_STAGE_ROWS ? fitting : MAX_STAGE_ROWS;
    NAME(staged) staged = {0};
    for (int64_t i = 0, n = 0; i < px; i += num_rows, n++) {
        const int64_t stop = i + num_rows < px ? i + num_rows : px;
        uint8_t *rows = is_aligned ? stages[n % 2] : to + i * size;
        NAME(write_transposed)(rows, from, i, stop, next, &staged);
        if (is_aligned)
            staged = (NAME(staged)){to + i * size, rows, (stop - i) * size};
    }
    NAME(stream_part)(&staged, staged.size);
}

TARGET static void NAME(copy_all)(const srs_map *maps, const srs_patch *patches, int64_t count, srs_sizes sizes,
                                  uint8_t *to, volatile int64_t *current)
{
    for (int64_t n = 0; n < count; n++, to += 3 * sizes.patch * sizes.patch) {
        *current = n;
        if (patches[n].offset == SRS_NO_IMAGE)
            continue;
        const source from = source_of(maps, &patches[n], sizes);
        NAME(rows) next = {0};
        if (n + 1 < count && patches[n + 1].offset != SRS_NO_IMAGE) {
            const source following = source_of(maps, &patches[n + 1], sizes);
            next = NAME(rows_of)(&following);
        }
        if (is_transposed(from.symmetry))
            NAME(copy_transposed)(to, &from, &next);
        else if (has_columns_reversed(from.symmetry))
            NAME(copy_reversed)(to, &from, &next);
        else
            NAME(copy_rows)(to, &from, &next);
    }
    _mm_sfence();
}

#undef BLOCK
#undef UNPACK
