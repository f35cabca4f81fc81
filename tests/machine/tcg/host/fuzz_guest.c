/* fuzz_guest.c: the guest of random blocks: helpers that leave and change things by chance, and memory whose
 * slow path does so too. Both sides note what these see in a log. */
#include "fuzz.h"

#include <string.h>

uint64_t ram_vaddr;

static Side *side_of(const Hart *h)
{
    Side *s;
    memcpy(&s, h->guest, sizeof s);
    return s;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    a = (a ^ b) * UINT64_C(0x9e3779b97f4a7c15);
    return a ^ a >> 29;
}

/* Registers a C function may change hold rubbish afterwards. */
static void trash(void)
{
#if defined(__x86_64__)
    __asm__ volatile("mov $0x5a5a5a5a5a5a5a5a, %%r8; mov %%r8, %%r9; mov %%r8, %%r10; mov %%r8, %%r11;"
                     "mov %%r8, %%rsi; mov %%r8, %%rdi; mov %%r8, %%rcx; mov %%r8, %%rdx" ::
                         : "r8", "r9", "r10", "r11", "rsi", "rdi", "rcx", "rdx", "memory");
#endif
}

uint64_t steps_left(const Hart *h)
{
    return (uint64_t)h->budget + (h->cur_tb ? h->cur_tb->n_insns - h->site : 0u);
}

/* Notes all that is architecturally visible in the middle of a block. */
static uint64_t note(Hart *h, uint64_t a, uint64_t b, uint64_t c)
{
    Side *s = side_of(h);
    for (unsigned i = 0; i < IR_GLOBALS; i++)
        s->log = mix(s->log, h->slot[i]);
    s->log = mix(s->log, steps_left(h));
    s->log = mix(s->log, hart_insn_pc(h));
    s->log = mix(mix(mix(s->log, a), b), c);
    return s->log;
}

static void maybe_leave(Hart *h, uint64_t r)
{
    Side *s = side_of(h);
    if ((r >> 20) % 4 == 0)
        h->dctx = &s->ctx[(r >> 30) & 1];
    h->leave = (r >> 40) % 6 ? LEAVE_NONE : 1 + (r >> 50) % 4;
    if (h->leave == LEAVE_JUMP) {
        h->pc = r;
        h->slot[7] = r * 3;
    }
}

static uint64_t help_pure(Hart *h, uint64_t a, uint64_t b, uint64_t c)
{
    (void)h;
    trash();
    return (a * 3 + b) ^ (c << 7);
}

static uint64_t help_quiet(Hart *h, uint64_t a, uint64_t b, uint64_t c)
{
    Side *s = side_of(h);
    s->log = mix(mix(mix(s->log, a), b), c);
    trash();
    return s->log;
}

static uint64_t help_full(Hart *h, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t r = note(h, a, b, c);
    maybe_leave(h, r);
    trash();
    return r;
}

static const Helper helpers[] = {
    {"pure", help_pure, HF_PURE}, {"quiet", help_quiet, HF_NOLEAVE}, {"full", help_full, 0}};
static const uint8_t hot[] = {2, 10, 11, 12, 13, 14, 15, 8, 1, 9};
const GuestOps fuzz_guest = {
    .name = "fuzz", .helpers = helpers, .n_helpers = 3, .hot_slots = hot, .n_hot_slots = sizeof hot};

static bool in_ram(uint64_t vaddr, uint32_t size)
{
    return vaddr - ram_vaddr < RAM_BYTES && vaddr - ram_vaddr + size <= RAM_BYTES;
}

uint64_t softmmu_load(Hart *h, uint64_t vaddr, uint32_t mo)
{
    uint32_t bits = 8u << (mo & MO_SIZE);
    uint64_t v = 0, r = 0;
    if (!h->dctx->open[0] || !in_ram(vaddr, bits / 8)) { /* else the interpreter alone looks up two pages */
        r = note(h, vaddr, mo, 0);
        maybe_leave(h, r);
        if (h->leave == LEAVE_AFTER)
            h->leave = LEAVE_NONE;
    }
    trash();
    if (in_ram(vaddr, bits / 8))
        memcpy(&v, side_of(h)->ram + (vaddr - ram_vaddr), bits / 8);
    else
        v = r;
    if (bits == 64)
        return v;
    v &= (1ull << bits) - 1;
    if ((mo & MO_BOX) || ((mo & MO_SIGN) && v >> (bits - 1)))
        v |= ~0ull << bits;
    return v;
}

void softmmu_store(Hart *h, uint64_t vaddr, uint64_t v, uint32_t mo)
{
    uint32_t size = 1u << (mo & MO_SIZE);
    maybe_leave(h, note(h, vaddr, mo, size == 8 ? v : v & ((1ull << 8 * size) - 1)));
    if (in_ram(vaddr, size) && (h->leave == LEAVE_NONE || h->leave == LEAVE_AFTER))
        memcpy(side_of(h)->ram + (vaddr - ram_vaddr), &v, size);
    trash();
}
