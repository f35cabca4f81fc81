/* Buffers that drivers and the timer interrupt share, and the queue of tick records that the interrupt fills.
 *
 * HERE IS THE BUG this guest is for. pool_get keeps interrupts off while it takes a buffer from the free
 * list; pool_put does not. Between its load of pool.free and its store there, a tick can take the buffer that
 * was first on the list. The store then puts that buffer back on the list while the tick queue still has it:
 * the next driver to get it writes its descriptor over the tick record, and tickd panics long after. The boot
 * argument `safe` keeps interrupts off there too. */
#include "kernel.h"

#define BUFFERS 128
#define POISON  0x6b6b6b6b6b6b6b6bUL

struct pool pool;
struct tick_queue tick_queue;
static u64 next_serial;
static bool safe;

void pool_init(void)
{
    u64 in_page = PAGE_SIZE / sizeof(struct buffer);
    struct buffer *buffers = NULL;
    safe = bootarg("safe");
    for (u64 i = 0; i < BUFFERS; i++) {
        if (i % in_page == 0)
            buffers = page_alloc();
        pool_put(&buffers[i % in_page]);
    }
    pool.buffers = BUFFERS;
    log_line("pool: %lu buffers of %lu bytes, free list at 0x%lx", pool.buffers, sizeof(struct buffer),
             (u64)&pool.free);
}

/* Take a buffer off the free list; NULL if there is none. */
struct buffer *pool_get(enum owner owner)
{
    u64 on = irq_save();
    struct buffer *buffer = pool.free;
    if (buffer != NULL) {
        pool.free = buffer->next;
        buffer->owner = owner;
        buffer->next = NULL;
    }
    irq_restore(on);
    return buffer;
}

static void put_on_free_list(struct buffer *buffer)
{
    buffer->owner = OWNER_FREE;
    buffer->next = *(struct buffer *volatile *)&pool.free;
    barrier();
    buffer->magic = POISON;
    for (u64 i = 0; i < BUFFER_WORDS; i++) /* so that a use after this is seen */
        buffer->words[i] = POISON;
    barrier();
    *(struct buffer *volatile *)&pool.free = buffer;
}

/* Give a buffer back. */
void pool_put(struct buffer *buffer)
{
    if (safe) {
        u64 on = irq_save();
        put_on_free_list(buffer);
        irq_restore(on);
    } else {
        put_on_free_list(buffer);
    }
}

/* Called at every tick, interrupts off: note where the tick found the machine. */
void tick_record(u64 sepc)
{
    struct buffer *buffer = pool_get(OWNER_TICK);
    if (buffer == NULL) {
        tick_queue.lost++;
        return;
    }
    buffer->magic = TICK_MAGIC;
    buffer->serial = next_serial++;
    buffer->words[0] = now();
    buffer->words[1] = sepc;
    if (tick_queue.first == NULL)
        tick_queue.first = buffer;
    else
        tick_queue.last->next = buffer;
    tick_queue.last = buffer;
}

/* Check the records that wait and give them back; return how many there were. */
u64 tick_drain(void)
{
    u64 count = 0;
    u64 on = irq_save();
    while (tick_queue.first != NULL) {
        struct buffer *buffer = tick_queue.first;
        if (buffer->magic != TICK_MAGIC || buffer->serial != tick_queue.taken)
            panic("tick record %lu at 0x%lx: magic 0x%lx serial %lu, expected magic 0x%lx serial %lu",
                  tick_queue.taken, (u64)buffer, buffer->magic, buffer->serial, TICK_MAGIC, tick_queue.taken);
        tick_queue.first = buffer->next;
        tick_queue.taken++;
        pool_put(buffer);
        count++;
    }
    irq_restore(on);
    return count;
}
