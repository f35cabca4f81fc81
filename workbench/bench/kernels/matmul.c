/* matmul.c: products of square matrices of doubles. */
#include "kernel.h"

enum { N = 128, ROUNDS = 120 };

const char kernel_name[] = "matmul";
static double a[N][N], b[N][N], c[N][N];

uint64_t kernel_run(void)
{
    for (uint32_t i = 0; i < N; i++)
        for (uint32_t j = 0; j < N; j++) {
            a[i][j] = 1.0 / (1.0 + i + j);
            b[i][j] = (double)((i * 3 + j * 7) % 11) - 5.0;
        }
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < N; i++)
            for (uint32_t j = 0; j < N; j++) {
                double sum = 0;
                for (uint32_t k = 0; k < N; k++)
                    sum += a[i][k] * b[k][j];
                c[i][j] = sum;
            }
        a[round][round] = c[round][round + 1];
    }
    double trace = 0;
    for (uint32_t i = 0; i < N; i++)
        trace += c[i][i];
    uint64_t bits;
    __builtin_memcpy(&bits, &trace, 8);
    return bits;
}
