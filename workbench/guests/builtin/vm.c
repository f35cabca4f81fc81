/* Pages and Sv39 page tables.
 *
 * The kernel is mapped one to one: its image page by page with the rights of each part, the memory behind it
 * by 2 MiB pages, the UART and the PLIC by 4 KiB and 2 MiB ones. A task's space shares the kernel's tables
 * from 0x80000000 up and has the pages below to itself.
 *
 *   vaddr  | 38 vpn2 30 | 29 vpn1 21 | 20 vpn0 12 | 11 offset 0 |
 *   pte    | 53 ppn 10 | 9 8 | D A G U X W R V | */
#include "kernel.h"

#define MEGA_SIZE (2UL << 20)
#define UART_BASE 0x10000000UL
#define PLIC_BASE 0x0c000000UL
#define PLIC_SIZE 0x00400000UL
#define SATP_SV39 (8UL << 60)

/* Memory the kernel takes pages from: enough for its tasks, so that a boot touches little. */
#define POOL_BYTES (16UL << 20)

static u64 next_page, end_page, used;
static void *free_pages;
static u64 *kernel_root;

void page_init(void)
{
    next_page = (u64)kernel_end;
    end_page = next_page + POOL_BYTES;
    u64 memory_end = bootinfo.memory_base + bootinfo.memory_size;
    if (end_page > memory_end)
        end_page = memory_end;
}

/* Return a page of zeros. */
void *page_alloc(void)
{
    u64 *page = free_pages;
    if (page != NULL)
        free_pages = *(void **)page;
    else if (next_page < end_page) {
        page = (u64 *)next_page;
        next_page += PAGE_SIZE;
    } else
        panic("out of memory: %lu pages used", used);
    used++;
    for (u64 i = 0; i < PAGE_SIZE / 8; i++)
        page[i] = 0;
    return page;
}

void page_free(void *page)
{
    *(void **)page = free_pages;
    free_pages = page;
    used--;
}

u64 pages_used(void)
{
    return used;
}

static u64 make_pte(u64 paddr, u64 flags)
{
    return paddr >> 12 << 10 | flags | PTE_V;
}

static u64 *pte_table(u64 pte)
{
    return (u64 *)(pte >> 10 << 12);
}

/* Return the entry of vaddr at a level (2: 1 GiB, 1: 2 MiB, 0: 4 KiB), making the tables above it. */
static u64 *find_pte(u64 *root, u64 vaddr, int level)
{
    u64 *table = root;
    for (int at = 2; at > level; at--) {
        u64 *pte = &table[vaddr >> (12 + 9 * at) & 511];
        if ((*pte & PTE_V) == 0)
            *pte = make_pte((u64)page_alloc(), 0);
        table = pte_table(*pte);
    }
    return &table[vaddr >> (12 + 9 * level) & 511];
}

void vm_map_page(u64 *root, u64 vaddr, u64 paddr, u64 flags)
{
    *find_pte(root, vaddr, 0) = make_pte(paddr, flags);
    __asm__ volatile("sfence.vma %0" ::"r"(vaddr) : "memory");
}

static void map_pages(u64 start, u64 end, u64 flags)
{
    for (u64 at = start; at < end; at += PAGE_SIZE)
        *find_pte(kernel_root, at, 0) = make_pte(at, flags);
}

static void map_mega(u64 start, u64 end, u64 flags)
{
    for (u64 at = start; at < end; at += MEGA_SIZE)
        *find_pte(kernel_root, at, 1) = make_pte(at, flags);
}

void vm_init(void)
{
    u64 kernel_rw = PTE_R | PTE_W | PTE_A | PTE_D;
    kernel_root = page_alloc();
    map_pages((u64)text_start, (u64)text_end, PTE_R | PTE_X | PTE_A);
    map_pages((u64)text_end, (u64)rodata_end, PTE_R | PTE_A);
    u64 first_mega = ((u64)kernel_end + MEGA_SIZE - 1) & ~(MEGA_SIZE - 1);
    map_pages((u64)rodata_end, first_mega, kernel_rw);
    map_mega(first_mega, (end_page + MEGA_SIZE - 1) & ~(MEGA_SIZE - 1), kernel_rw);
    map_pages(UART_BASE, UART_BASE + PAGE_SIZE, kernel_rw);
    map_mega(PLIC_BASE, PLIC_BASE + PLIC_SIZE, kernel_rw);
    write_csr("satp", vm_satp(kernel_root));
    __asm__ volatile("sfence.vma" ::: "memory");
    log_line("vm: Sv39, text %lu KiB, rodata %lu KiB, data %lu KiB", (u64)(text_end - text_start) / 1024,
             (u64)(rodata_end - text_end) / 1024, (u64)(kernel_end - rodata_end) / 1024);
}

u64 vm_satp(const u64 *root)
{
    return SATP_SV39 | (u64)(root != NULL ? root : kernel_root) >> 12;
}

/* Return a space with the kernel in it. The low gigabyte gets tables of its own, with the devices. */
u64 *vm_new_space(void)
{
    u64 *root = page_alloc();
    for (u64 i = 1; i < PAGE_SIZE / 8; i++)
        root[i] = kernel_root[i];
    u64 *low = page_alloc();
    u64 *kernel_low = pte_table(kernel_root[0]);
    for (u64 i = 0; i < PAGE_SIZE / 8; i++)
        low[i] = kernel_low[i];
    root[0] = make_pte((u64)low, 0);
    return root;
}

/* Free a space's tables and the pages that it alone has; not the one in use. */
void vm_free_space(u64 *root)
{
    u64 *low = pte_table(root[0]);
    u64 *kernel_low = pte_table(kernel_root[0]);
    for (u64 i = 0; i < PAGE_SIZE / 8; i++) {
        if (low[i] == kernel_low[i])
            continue;
        u64 *table = pte_table(low[i]);
        for (u64 j = 0; j < PAGE_SIZE / 8; j++)
            if ((table[j] & PTE_W) != 0)
                page_free(pte_table(table[j]));
        page_free(table);
    }
    page_free(low);
    page_free(root);
}
