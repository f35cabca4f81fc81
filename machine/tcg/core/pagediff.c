/* pagediff.c: pages as what differs from others that are known. Uses no Machine. */
#include "api.h"
#include "softmmu.h"

#include <string.h>

/* A page that differs in more of its 512 words is stored as it is. */
enum { WORDS = WB_PAGE_SIZE / 8, MOST_DIFFERENT = WORDS / 2 };

int wb_is_zero_page(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, WB_PAGE_SIZE - 1) == 0;
}

int wb_same_bytes(const uint8_t *a, const uint8_t *b, uint64_t n)
{
    return memcmp(a, b, n) == 0;
}

void wb_diff_pages(uint8_t *copies, const uint32_t *pages, const uint32_t *at, uint64_t n,
                   const uint8_t *base, uint64_t first, uint64_t base_pages, uint64_t *places)
{
    for (uint64_t i = 0; i < n; i++) {
        places[i] = UINT64_MAX;
        const uint64_t number = pages[at[i]] - first;
        if (pages[at[i]] < first || number >= base_pages)
            continue;
        uint64_t page[WORDS], known[WORDS];
        uint8_t *const where = copies + at[i] * (uint64_t)WB_PAGE_SIZE;
        memcpy(page, where, sizeof(page));
        memcpy(known, base + number * WB_PAGE_SIZE, sizeof(known));
        uint64_t different = 0;
        for (int k = 0; k < WORDS; k++) {
            page[k] ^= known[k];
            different += page[k] != 0;
        }
        if (different > MOST_DIFFERENT)
            continue;
        places[i] = number * WB_PAGE_SIZE;
        memcpy(where, page, sizeof(page));
    }
}
