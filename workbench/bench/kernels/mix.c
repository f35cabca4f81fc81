/* mix.c: lists, small matrices, a state machine and a CRC in turn: the mix of an embedded program. */
#include "kernel.h"

enum { NODES = 64, N = 12, TEXT = 512, ROUNDS = 40000 };

const char kernel_name[] = "mix";

typedef struct Node {
    struct Node *next;
    int16_t key, value;
} Node;

static Node pool[NODES];
static int16_t left[N][N], right[N][N];
static int32_t product[N][N];
static char text[TEXT];

static uint16_t crc16(uint16_t crc, uint32_t data)
{
    for (unsigned bit = 0; bit < 16; bit++) {
        const uint32_t carry = (crc ^ data) & 1;
        crc >>= 1;
        data >>= 1;
        if (carry)
            crc ^= 0xa001;
    }
    return crc;
}

static Node *list_reverse(Node *head)
{
    Node *done = NULL;
    while (head) {
        Node *next = head->next;
        head->next = done;
        done = head;
        head = next;
    }
    return done;
}

static Node *merge(Node *a, Node *b)
{
    Node first = {0}, *tail = &first;
    while (a && b) {
        Node **least = a->key <= b->key ? &a : &b;
        tail->next = *least;
        tail = *least;
        *least = (*least)->next;
    }
    tail->next = a ? a : b;
    return first.next;
}

static Node *list_sort(Node *head)
{
    if (!head || !head->next)
        return head;
    Node *slow = head, *fast = head->next;
    while (fast && fast->next) {
        slow = slow->next;
        fast = fast->next->next;
    }
    Node *half = slow->next;
    slow->next = NULL;
    return merge(list_sort(head), list_sort(half));
}

static uint16_t work_lists(uint32_t round, uint16_t crc)
{
    for (uint32_t i = 0; i < NODES; i++) {
        pool[i].key = (int16_t)((i * 37 + round * 11) % 101);
        pool[i].value = (int16_t)i;
        pool[i].next = i + 1 < NODES ? &pool[i + 1] : NULL;
    }
    Node *list = list_reverse(list_sort(list_reverse(pool)));
    for (uint32_t n = 0; list; list = list->next, n++)
        if (n % 8 == 0)
            crc = crc16(crc, (uint32_t)list->value);
    return crc;
}

static uint16_t work_matrix(uint32_t round, uint16_t crc)
{
    for (uint32_t i = 0; i < N; i++)
        for (uint32_t j = 0; j < N; j++) {
            left[i][j] = (int16_t)(i * round + j);
            right[i][j] = (int16_t)(i - j * 3);
        }
    int32_t sum = 0;
    for (uint32_t i = 0; i < N; i++)
        for (uint32_t j = 0; j < N; j++) {
            int32_t cell = 0;
            for (uint32_t k = 0; k < N; k++)
                cell += left[i][k] * right[k][j];
            product[i][j] = cell;
            sum += (cell >> 3) & 0xff;
        }
    return crc16(crc, (uint32_t)sum);
}

typedef enum { START, SIGN, DIGITS, POINT, EXPONENT, WRONG, STATES } State;

static State state_step(State state, char c)
{
    const int digit = c >= '0' && c <= '9';
    switch (state) {
    case START:
        return digit ? DIGITS : c == '+' || c == '-' ? SIGN : c == '.' ? POINT : WRONG;
    case SIGN:
        return digit ? DIGITS : c == '.' ? POINT : WRONG;
    case DIGITS:
        return digit ? DIGITS : c == '.' ? POINT : c == 'e' ? EXPONENT : WRONG;
    case POINT:
        return digit ? POINT : c == 'e' ? EXPONENT : WRONG;
    case EXPONENT:
        return digit || c == '-' ? EXPONENT : WRONG;
    default:
        return WRONG;
    }
}

static uint16_t work_states(uint32_t round, uint16_t crc)
{
    static const char sample[] = "5012,-12.5,.e3,1e-9,+77x,3.141,-.5e2,9..1,";
    uint32_t count[STATES] = {0};
    for (uint32_t i = 0; i < TEXT; i++)
        text[i] = sample[(i + round) % (sizeof(sample) - 1)];
    State state = START;
    for (uint32_t i = 0; i < TEXT; i++) {
        if (text[i] == ',') {
            count[state]++;
            state = START;
        } else {
            state = state_step(state, text[i]);
        }
    }
    for (uint32_t i = 0; i < STATES; i++)
        crc = crc16(crc, count[i]);
    return crc;
}

uint64_t kernel_run(void)
{
    uint16_t crc = 0xffff;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        crc = work_lists(round, crc);
        crc = work_matrix(round, crc);
        crc = work_states(round, crc);
    }
    return crc;
}
