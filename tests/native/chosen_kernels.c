/* The core, with a choice of its kernels: the tests run all that this processor supports. */

#include <string.h>

#include "patches.h"

enum { PLAIN, AVX2, AVX512 };
static int kernels;

#define SRS_CPU_SUPPORTS(instructions) \
    (kernels >= (strcmp(instructions, "avx2") ? AVX512 : AVX2) && __builtin_cpu_supports(instructions))

#include "patches.c"

/* Chooses the kernels of all further calls. Returns whether this processor supports them. */
int srs_choose_kernels(int chosen)
{
    kernels = chosen;
#if HAS_X86_KERNELS
    if (chosen == AVX2)
        return __builtin_cpu_supports("avx2") != 0;
    if (chosen == AVX512)
        return __builtin_cpu_supports("avx512bw") != 0;
#endif
    return chosen == PLAIN;
}
