/* The console: a 16550 UART, log lines with the time since boot, panic and power-off. */
#include <stdarg.h>
#include "kernel.h"

#define UART_BASE 0x10000000UL
enum { UART_DATA = 0, UART_IER = 1, UART_FCR = 2, UART_LCR = 3, UART_MCR = 4, UART_LSR = 5 };
#define LSR_RX_READY 0x01
#define LSR_TX_EMPTY 0x20

#define SBI_SRST 0x53525354UL

static u64 boot_time;

static volatile u8 *uart_reg(u64 offset)
{
    return (volatile u8 *)(UART_BASE + offset);
}

static void put_char(char c)
{
    while ((*uart_reg(UART_LSR) & LSR_TX_EMPTY) == 0)
        ;
    *uart_reg(UART_DATA) = (u8)c;
}

void console_write(const char *text, u64 length)
{
    for (u64 i = 0; i < length; i++) {
        if (text[i] == '\n')
            put_char('\r');
        put_char(text[i]);
    }
}

/* Reception: bytes wait in a ring until a task asks for them. */
#define PLIC_PRIORITY(irq)      (0x0c000000UL + 4 * (irq))
#define PLIC_ENABLE(context)    (0x0c002000UL + 0x80 * (context))
#define PLIC_THRESHOLD(context) (0x0c200000UL + 0x1000 * (context))
#define PLIC_CLAIM(context)     (PLIC_THRESHOLD(context) + 4)
#define UART_IRQ                10

static volatile struct {
    char bytes[256];
    u8 head, tail;
} received;
static u64 plic_context;

static volatile u32 *plic_reg(u64 address)
{
    return (volatile u32 *)address;
}

/* Take receive interrupts on a hart: its S-mode context of the PLIC is the odd one of two. */
void console_enable_rx(u64 hart)
{
    plic_context = 2 * hart + 1;
    *plic_reg(PLIC_PRIORITY(UART_IRQ)) = 1;
    *plic_reg(PLIC_ENABLE(plic_context)) = 1u << UART_IRQ;
    *plic_reg(PLIC_THRESHOLD(plic_context)) = 0;
    *uart_reg(UART_IER) = 1;
    set_csr("sie", SIE_SEIE);
}

void console_interrupt(void)
{
    u32 irq = *plic_reg(PLIC_CLAIM(plic_context));
    if (irq == 0)
        return;
    while ((*uart_reg(UART_LSR) & LSR_RX_READY) != 0) {
        char byte = (char)*uart_reg(UART_DATA);
        if ((u8)(received.head + 1) != received.tail)
            received.bytes[received.head++] = byte;
    }
    *plic_reg(PLIC_CLAIM(plic_context)) = irq;
    sched_wake(true);
}

/* Return the next byte received; the task sleeps until there is one. */
char console_wait(void)
{
    u64 on = irq_save();
    while (received.head == received.tail)
        task_sleep(WAKE_BY_INPUT);
    char byte = received.bytes[received.tail++];
    irq_restore(on);
    return byte;
}

void print_init(void)
{
    *uart_reg(UART_IER) = 0;
    *uart_reg(UART_LCR) = 3; /* 8 bits, no parity */
    *uart_reg(UART_FCR) = 7; /* FIFOs on and empty */
    *uart_reg(UART_MCR) = 8; /* OUT2: interrupts reach the PLIC */
    boot_time = now();
}

/* A line in the making: what does not fit is cut off. */
struct line {
    char text[160];
    u64 length;
};

static void line_char(struct line *line, char c)
{
    if (line->length < sizeof(line->text) - 1)
        line->text[line->length++] = c;
}

static void line_string(struct line *line, const char *text, u64 width)
{
    u64 length = string_length(text);
    for (u64 i = 0; i < length; i++)
        line_char(line, text[i]);
    for (; length < width; length++)
        line_char(line, ' ');
}

static void line_number(struct line *line, u64 value, u64 base, u64 width, char fill)
{
    char digits[20];
    u64 count = 0;
    do {
        digits[count++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    for (u64 i = count; i < width; i++)
        line_char(line, fill);
    while (count > 0)
        line_char(line, digits[--count]);
}

/* Formats %s, %lu, %lx, %d of a positive int, each with an optional width, and 0 for zero fill. */
static void line_format(struct line *line, const char *format, va_list args)
{
    for (; *format != 0; format++) {
        if (*format != '%') {
            line_char(line, *format);
            continue;
        }
        format++;
        char fill = *format == '0' ? '0' : ' ';
        u64 width = 0;
        for (; *format >= '0' && *format <= '9'; format++)
            width = width * 10 + (u64)(*format - '0');
        if (*format == 's') {
            line_string(line, va_arg(args, const char *), width);
        } else if (*format == 'd') {
            line_number(line, (u64)va_arg(args, int), 10, width, fill);
        } else {
            format++;
            line_number(line, va_arg(args, u64), *format == 'x' ? 16 : 10, width, fill);
        }
    }
}

static void line_time(struct line *line)
{
    u64 micros = (now() - boot_time) * 1000000 / bootinfo.timebase_hz;
    line_char(line, '[');
    line_number(line, micros / 1000000, 10, 5, ' ');
    line_char(line, '.');
    line_number(line, micros % 1000000, 10, 6, '0');
    line_string(line, "] ", 0);
}

static void line_print(struct line *line, const char *prefix, const char *format, va_list args)
{
    line_time(line);
    line_string(line, prefix, 0);
    line_format(line, format, args);
    line->text[line->length++] = '\n';
    console_write(line->text, line->length);
}

void log_line(const char *format, ...)
{
    struct line line = {.length = 0};
    va_list args;
    va_start(args, format);
    line_print(&line, "", format, args);
    va_end(args);
}

void panic(const char *format, ...)
{
    struct line line = {.length = 0};
    va_list args;
    clear_csr("sstatus", SSTATUS_SIE);
    va_start(args, format);
    line_print(&line, "panic: ", format, args);
    va_end(args);
    log_line("panic: in task %s at tick %lu; powering off", current != NULL ? current->name : "boot", ticks);
    shutdown(true);
}

/* System reset by the SBI: type 0 is shutdown; reason 1 is a system failure. */
void shutdown(bool failed)
{
    register u64 a0 __asm__("a0") = 0;
    register u64 a1 __asm__("a1") = failed ? 1 : 0;
    register u64 a6 __asm__("a6") = 0;
    register u64 a7 __asm__("a7") = SBI_SRST;
    __asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a6), "r"(a7) : "memory");
    for (;;)
        __asm__ volatile("wfi");
}
