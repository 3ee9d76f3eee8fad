/* The lower bound of the time for a batch: copies random squares of EDGE px out of IMAGES mapped images of 512 px into
   anonymous shared memory, by vector stores that bypass the cache, with rows fetched ahead. Prints squares per second.

   copy_floor FILE IMAGES SECONDS */

#define _GNU_SOURCE
#include <fcntl.h>
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { IMAGE = 512, EDGE = 192, ROW = 3 * IMAGE, BYTES = 3 * EDGE, AHEAD = 8, SLOTS = 512 };

static uint64_t state = 88172645463325252ull;

static int64_t below(int64_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (int64_t)(state % (uint64_t)limit);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void copy(const uint8_t *from, uint8_t *to)
{
    for (int row = 0; row < EDGE; row++, from += ROW, to += BYTES) {
        for (int k = 0; k < BYTES; k += 64)
            _mm_prefetch((const char *)from + AHEAD * ROW + k, _MM_HINT_NTA);
#ifdef __AVX512F__
        for (int k = 0; k < BYTES; k += 64)
            _mm512_stream_si512((void *)(to + k), _mm512_loadu_si512(from + k));
#else
        for (int k = 0; k < BYTES; k += 32)
            _mm256_stream_si256((void *)(to + k), _mm256_loadu_si256((const void *)(from + k)));
#endif
    }
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    const int64_t images = atoll(argv[2]);
    const size_t size = (size_t)images * ROW * IMAGE, ring = (size_t)SLOTS * BYTES * EDGE;
    const int file = open(argv[1], O_RDONLY), memory = memfd_create("floor", 0);
    if (file < 0 || memory < 0 || ftruncate(memory, (off_t)ring))
        return 1;
    const uint8_t *from = mmap(NULL, size, PROT_READ, MAP_SHARED, file, 0);
    uint8_t *to = mmap(NULL, ring, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (from == MAP_FAILED || to == MAP_FAILED)
        return 1;
    memset(to, 1, ring);
    state ^= (uint64_t)getpid() << 32;
    int64_t count = 0;
    const double start = now();
    double seconds;
    do {
        for (int n = 0; n < SLOTS; n++, count++)
            copy(from + below(images) * ROW * IMAGE + below(IMAGE - EDGE - AHEAD) * ROW + 3 * below(IMAGE - EDGE),
                 to + (size_t)n * BYTES * EDGE);
        seconds = now() - start;
    } while (seconds < atof(argv[3]));
    printf("%.0f\n", (double)count / seconds);
    return 0;
}
