/* Drivers without hardware: each takes buffers, fills them with descriptors, tests them and gives them back.
 */
#include "kernel.h"

#define MAX_BUFFERS 64

struct driver {
    const char *name;
    u64 buffers; /* at most MAX_BUFFERS; each driver has more than the one before */
    bool keeps;  /* its buffers stay with it, as a receive ring's do */
};

static const struct driver drivers[] = {
    {"blk0", 40, false},
    {"blk1", 48, false},
    {"snd0", 56, false},
    {"net0", 60, true},
};

static void driver_fill(struct buffer *buffer, u64 serial)
{
    u64 word = serial + 1;
    buffer->magic = DESC_MAGIC;
    buffer->serial = serial;
    for (u64 i = 0; i < BUFFER_WORDS; i++) {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        buffer->words[i] = word;
    }
}

static u64 driver_test(const struct buffer *buffer, u64 rounds)
{
    u64 sum = 0;
    for (u64 round = 0; round < rounds; round++)
        for (u64 i = 0; i < BUFFER_WORDS; i++)
            sum = (sum << 5 | sum >> 59) ^ buffer->words[i];
    return sum;
}

static void driver_init(const struct driver *driver)
{
    struct buffer *taken[MAX_BUFFERS];
    u64 count = 0, sum = 0;
    u64 rounds = 32 + random_next() % 32;
    while (count < driver->buffers) {
        struct buffer *buffer = pool_get(OWNER_DRIVER);
        if (buffer == NULL)
            break;
        driver_fill(buffer, count);
        taken[count++] = buffer;
    }
    for (u64 i = 0; i < count; i++)
        sum ^= driver_test(taken[i], rounds);
    if (!driver->keeps)
        for (u64 i = 0; i < count; i++)
            pool_put(taken[i]);
    log_line("%s: %lu buffers, %lu rounds, sum %016lx%s", driver->name, count, rounds, sum,
             driver->keeps ? ", kept" : "");
}

void drivers_init(void)
{
    for (u64 i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++)
        driver_init(&drivers[i]);
}
