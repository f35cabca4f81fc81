/* nbody.c: planets of a made-up system under gravity, with a root and a quotient a pair. */
#include "kernel.h"

enum { BODIES = 5, STEPS = 1200 * 1000 };

const char kernel_name[] = "nbody";

typedef struct {
    double at[3], speed[3], mass;
} Body;

static void advance(Body *body, double dt)
{
    for (unsigned i = 0; i < BODIES; i++)
        for (unsigned j = i + 1; j < BODIES; j++) {
            double d[3], square = 0;
            for (unsigned k = 0; k < 3; k++) {
                d[k] = body[i].at[k] - body[j].at[k];
                square += d[k] * d[k];
            }
            const double pull = dt / (square * __builtin_sqrt(square));
            for (unsigned k = 0; k < 3; k++) {
                body[i].speed[k] -= d[k] * body[j].mass * pull;
                body[j].speed[k] += d[k] * body[i].mass * pull;
            }
        }
    for (unsigned i = 0; i < BODIES; i++)
        for (unsigned k = 0; k < 3; k++)
            body[i].at[k] += dt * body[i].speed[k];
}

uint64_t kernel_run(void)
{
    static Body body[BODIES];
    for (unsigned i = 0; i < BODIES; i++) {
        body[i].mass = i ? 0.001 * i : 40.0;
        body[i].at[i % 3] = 4.0 * i;
        body[i].at[(i + 1) % 3] = 0.25 * i;
        body[i].speed[(i + 2) % 3] = i ? 3.0 / i : 0.0;
    }
    for (unsigned step = 0; step < STEPS; step++)
        advance(body, 0.0005);
    uint64_t bits;
    __builtin_memcpy(&bits, &body[1].at[0], 8);
    return bits;
}
