/* pickle: a restricted unpickler. It runs the pickle machine (a stack, a memo, a list of marks) over an allow-list of
   opcodes and of globals, and builds nodes where Python would build objects. Nothing is ever called or imported.

   What keeps hostile input harmless:
   - every length is compared with the bytes left before anything is taken or pointed to;
   - an opcode makes at most one node and pushes at most one item, and an item that becomes a child has been popped:
     nodes, children and stack are all bounded by the input's length. "Doubling tuples" share nodes by index;
   - children that move into another node (list → object array, list → set) leave the first one empty, so a list in the
     memo cannot be multiplied;
   - cycles, which a list in the memo can make, and nesting beyond MAX_DEPTH are refused at the end. */
#include "io.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_DEPTH = 64,
    MAX_NODES = 1 << 22, /* about a gigabyte of nodes; the largest training checkpoints have some 100 000 */
    MAX_CELLS = 1 << 24
};

#define NO_INDEX UINT32_MAX

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        segfm_status status_ = (call);                                                                                 \
        if (status_ != SEGFM_OK) return status_;                                                                       \
    } while (0)

/* Opcodes by their names in Python's pickletools. What is not here is refused: neither numpy nor torch writes it. */
enum opcode {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_BINFLOAT = 'G',
    OP_FLOAT = 'F',
    OP_INT = 'I',
    OP_LONG = 'L',
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_NONE = 'N',
    OP_BINPERSID = 'Q',
    OP_REDUCE = 'R',
    OP_BINSTRING = 'T',
    OP_SHORT_BINSTRING = 'U',
    OP_UNICODE = 'V',
    OP_BINUNICODE = 'X',
    OP_APPEND = 'a',
    OP_BUILD = 'b',
    OP_GLOBAL = 'c',
    OP_DICT = 'd',
    OP_EMPTY_DICT = '}',
    OP_APPENDS = 'e',
    OP_GET = 'g',
    OP_BINGET = 'h',
    OP_LONG_BINGET = 'j',
    OP_LIST = 'l',
    OP_EMPTY_LIST = ']',
    OP_PUT = 'p',
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_SETITEM = 's',
    OP_TUPLE = 't',
    OP_EMPTY_TUPLE = ')',
    OP_SETITEMS = 'u',
    OP_BINBYTES = 'B',
    OP_SHORT_BINBYTES = 'C',
    OP_PROTO = 0x80,
    OP_NEWOBJ = 0x81,
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
    OP_LONG1 = 0x8A,
    OP_LONG4 = 0x8B,
    OP_SHORT_BINUNICODE = 0x8C,
    OP_BINUNICODE8 = 0x8D,
    OP_BINBYTES8 = 0x8E,
    OP_EMPTY_SET = 0x8F,
    OP_ADDITEMS = 0x90,
    OP_FROZENSET = 0x91,
    OP_NEWOBJ_EX = 0x92,
    OP_STACK_GLOBAL = 0x93,
    OP_MEMOIZE = 0x94,
    OP_FRAME = 0x95,
    OP_BYTEARRAY8 = 0x96
};

/* ---- the globals that may appear ----------------------------------------------------------------------------- */

typedef enum action {
    CALL_NOTHING, /* a name only: being there is allowed, calling is not */
    CALL_RECONSTRUCT,
    CALL_SCALAR,
    CALL_DTYPE,
    CALL_FROMBUFFER,
    CALL_ENCODE,
    CALL_BYTES,
    CALL_SET,
    CALL_ORDERED_DICT,
    CALL_TENSOR,
    CALL_PARAMETER,
    CALL_SIZE,
    CALL_OPAQUE, /* an object whose content does not matter here */
    IS_NDARRAY,
    IS_STORAGE
} action;

typedef struct global {
    const char *name; /* "module name" */
    action action;
    io_dtype dtype; /* of a storage */
} global;

static const global allowed_globals[] = {
    {"numpy.core.multiarray _reconstruct", CALL_RECONSTRUCT, IO_NONE}, /* numpy 1 */
    {"numpy.core.multiarray scalar", CALL_SCALAR, IO_NONE},
    {"numpy.core.numeric _frombuffer", CALL_FROMBUFFER, IO_NONE},
    {"numpy._core.multiarray _reconstruct", CALL_RECONSTRUCT, IO_NONE}, /* numpy 2 */
    {"numpy._core.multiarray scalar", CALL_SCALAR, IO_NONE},
    {"numpy._core.numeric _frombuffer", CALL_FROMBUFFER, IO_NONE},
    {"numpy dtype", CALL_DTYPE, IO_NONE},
    {"numpy ndarray", IS_NDARRAY, IO_NONE},
    {"_codecs encode", CALL_ENCODE, IO_NONE}, /* how protocols 0-2 spell bytes */
    {"__builtin__ bytes", CALL_BYTES, IO_NONE},
    {"__builtin__ bytearray", CALL_BYTES, IO_NONE},
    {"__builtin__ set", CALL_SET, IO_NONE},
    {"__builtin__ frozenset", CALL_SET, IO_NONE},
    {"builtins bytes", CALL_BYTES, IO_NONE},
    {"builtins bytearray", CALL_BYTES, IO_NONE},
    {"builtins set", CALL_SET, IO_NONE},
    {"builtins frozenset", CALL_SET, IO_NONE},
    {"collections OrderedDict", CALL_ORDERED_DICT, IO_NONE},
    {"torch._utils _rebuild_tensor_v2", CALL_TENSOR, IO_NONE},
    {"torch._utils _rebuild_parameter", CALL_PARAMETER, IO_NONE},
    {"torch Size", CALL_SIZE, IO_NONE},
    {"torch FloatStorage", IS_STORAGE, IO_F32},
    {"torch DoubleStorage", IS_STORAGE, IO_F64},
    {"torch HalfStorage", IS_STORAGE, IO_F16},
    {"torch BFloat16Storage", IS_STORAGE, IO_BF16},
    {"torch LongStorage", IS_STORAGE, IO_I64},
    {"torch IntStorage", IS_STORAGE, IO_I32},
    {"torch ShortStorage", IS_STORAGE, IO_I16},
    {"torch CharStorage", IS_STORAGE, IO_I8},
    {"torch ByteStorage", IS_STORAGE, IO_U8},
    {"torch BoolStorage", IS_STORAGE, IO_BOOL},
    {"torch float32", CALL_NOTHING, IO_NONE}, /* torch.dtype objects in saved settings */
    {"torch float64", CALL_NOTHING, IO_NONE},
    {"torch float16", CALL_NOTHING, IO_NONE},
    {"torch bfloat16", CALL_NOTHING, IO_NONE},
    {"torch int64", CALL_NOTHING, IO_NONE},
    {"torch device", CALL_OPAQUE, IO_NONE},
    {"argparse Namespace", CALL_OPAQUE, IO_NONE}, /* a training script's options */
    {"types SimpleNamespace", CALL_OPAQUE, IO_NONE},
    {"collections Counter", CALL_OPAQUE, IO_NONE}, /* MultiStepLR's milestones */
    {"pathlib PosixPath", CALL_OPAQUE, IO_NONE},
    {"pathlib WindowsPath", CALL_OPAQUE, IO_NONE},
};

enum { GLOBAL_COUNT = sizeof allowed_globals / sizeof allowed_globals[0] };

/* ---- the machine --------------------------------------------------------------------------------------------- */

/* What a node is beyond its public kind. */
typedef enum node_flavour { PLAIN, TUPLE, LIST, SET, DTYPE, UNBUILT } node_flavour;

/* Children of a container that is still growing: a chain of cells. */
typedef struct cell {
    uint32_t node, next;
} cell;

typedef struct extra {
    uint32_t head, tail; /* cells */
    unsigned char flavour;
    unsigned char height; /* the final check's: 0 not seen, ON_PATH, else levels below and including the node */
} extra;

/* Bytes that had to be decoded, in a chain that io_pickle_free walks. */
typedef struct block {
    struct block *next;
    unsigned char bytes[];
} block;

typedef struct machine {
    const unsigned char *bytes;
    size_t size, at, op_at;
    io_pickle_node *nodes;
    extra *extras;
    size_t node_count, node_capacity, extra_capacity;
    cell *cells;
    size_t cell_count, cell_capacity;
    uint32_t *stack;
    size_t stack_count, stack_capacity;
    size_t *marks;
    size_t mark_count, mark_capacity;
    uint32_t *memo; /* NO_INDEX: not set */
    size_t memo_size, memo_capacity, memo_set;
    block *blocks;
    size_t decoded;
    uint32_t none, yes, no, empty; /* shared nodes of the immutable constants */
    segfm_error *error;
} machine;

static segfm_status bad(machine *m, const char *what) {
    (void)base_fail(m->error, SEGFM_BAD_INPUT, "pickle offset %zu: %s", m->op_at, what);
    return SEGFM_BAD_INPUT; /* a constant, so that the compiler sees that outputs are set when SEGFM_OK comes back */
}

static segfm_status no_memory(machine *m) {
    (void)base_fail(m->error, SEGFM_NO_MEMORY, "pickle offset %zu: out of memory", m->op_at);
    return SEGFM_NO_MEMORY;
}

/* Foreign bytes for a message: cut, and without control characters. */
static void printable(char *out, size_t capacity, const void *text, size_t n) {
    const unsigned char *t = text;
    size_t i = 0;
    for (; i < n && i + 1 < capacity; i++) out[i] = t[i] >= 0x20 && t[i] < 0x7F ? (char)t[i] : '?';
    out[i] = '\0';
}

/* p with room for at least `need` elements of `unit` bytes, or NULL (p stays valid). */
static void *grown(void *p, size_t *capacity, size_t need, size_t unit) {
    if (need <= *capacity) return p;
    size_t room = *capacity < 64 ? 64 : *capacity, bytes;
    while (room < need)
        if (!base_mul(room, 2, &room)) return NULL;
    if (!base_mul(room, unit, &bytes)) return NULL;
    void *q = realloc(p, bytes);
    if (q != NULL) *capacity = room;
    return q;
}

static segfm_status new_node(machine *m, io_pickle_kind kind, uint32_t *out) {
    if (m->node_count >= MAX_NODES) return bad(m, "the pickle has more than 4194304 objects");
    io_pickle_node *nodes = grown(m->nodes, &m->node_capacity, m->node_count + 1, sizeof *nodes);
    if (nodes == NULL) return no_memory(m);
    m->nodes = nodes;
    extra *extras = grown(m->extras, &m->extra_capacity, m->node_count + 1, sizeof *extras);
    if (extras == NULL) return no_memory(m);
    m->extras = extras;
    *out = (uint32_t)m->node_count++;
    memset(&nodes[*out], 0, sizeof *nodes);
    nodes[*out].kind = kind;
    extras[*out] = (extra){NO_INDEX, NO_INDEX, PLAIN, 0};
    return SEGFM_OK;
}

static segfm_status push(machine *m, uint32_t node) {
    uint32_t *stack = grown(m->stack, &m->stack_capacity, m->stack_count + 1, sizeof *stack);
    if (stack == NULL) return no_memory(m);
    m->stack = stack;
    stack[m->stack_count++] = node;
    return SEGFM_OK;
}

/* A new node on the stack; *out is valid until the next node is made. */
static segfm_status push_new(machine *m, io_pickle_kind kind, node_flavour flavour, io_pickle_node **out) {
    uint32_t node;
    TRY(new_node(m, kind, &node));
    TRY(push(m, node));
    m->extras[node].flavour = (unsigned char)flavour;
    if (out != NULL) *out = &m->nodes[node];
    return SEGFM_OK;
}

/* Items below the last mark are out of reach until the mark is consumed. */
static size_t floor_of_stack(const machine *m) { return m->mark_count > 0 ? m->marks[m->mark_count - 1] : 0; }

static segfm_status pop(machine *m, uint32_t *out) {
    if (m->stack_count <= floor_of_stack(m)) return bad(m, "an operation finds too few items on the stack");
    *out = m->stack[--m->stack_count];
    return SEGFM_OK;
}

static segfm_status top(machine *m, uint32_t *out) {
    TRY(pop(m, out));
    m->stack_count++;
    return SEGFM_OK;
}

static segfm_status push_mark(machine *m) {
    size_t *marks = grown(m->marks, &m->mark_capacity, m->mark_count + 1, sizeof *marks);
    if (marks == NULL) return no_memory(m);
    m->marks = marks;
    marks[m->mark_count++] = m->stack_count;
    return SEGFM_OK;
}

/* Ends the last mark: its items are stack[*begin … stack_count), for the caller to use and drop. */
static segfm_status pop_mark(machine *m, size_t *begin) {
    if (m->mark_count == 0) return bad(m, "an operation needs a mark, there is none");
    *begin = m->marks[--m->mark_count];
    return SEGFM_OK;
}

static segfm_status add_child(machine *m, uint32_t parent, uint32_t child) {
    if (m->cell_count >= MAX_CELLS) return bad(m, "the pickle's containers have more than 16777216 items");
    cell *cells = grown(m->cells, &m->cell_capacity, m->cell_count + 1, sizeof *cells);
    if (cells == NULL) return no_memory(m);
    m->cells = cells;
    uint32_t c = (uint32_t)m->cell_count++;
    cells[c] = (cell){child, NO_INDEX};
    extra *e = &m->extras[parent];
    if (e->head == NO_INDEX) e->head = c;
    else cells[e->tail].next = c;
    e->tail = c;
    m->nodes[parent].count++;
    return SEGFM_OK;
}

/* The i-th child, i < count; for the short argument tuples. */
static uint32_t child(const machine *m, uint32_t parent, uint32_t i) {
    uint32_t c = m->extras[parent].head;
    while (i-- > 0) c = m->cells[c].next;
    return m->cells[c].node;
}

static const io_pickle_node *child_node(const machine *m, uint32_t parent, uint32_t i) {
    return &m->nodes[child(m, parent, i)];
}

static void move_children(machine *m, uint32_t from, uint32_t to) {
    m->extras[to].head = m->extras[from].head;
    m->extras[to].tail = m->extras[from].tail;
    m->nodes[to].count = m->nodes[from].count;
    m->extras[from].head = m->extras[from].tail = NO_INDEX;
    m->nodes[from].count = 0;
}

static bool is_flavour(const machine *m, uint32_t node, node_flavour f) {
    return m->extras[node].flavour == (unsigned char)f;
}

static bool is_global(const machine *m, uint32_t node, action a) {
    return m->nodes[node].kind == IO_PICKLE_GLOBAL && allowed_globals[m->nodes[node].integer].action == a;
}

static bool string_is(const io_pickle_node *node, const char *text) {
    size_t n = strlen(text);
    return node->kind == IO_PICKLE_STRING && node->length == n && memcmp(node->string, text, n) == 0;
}

/* ---- reading arguments --------------------------------------------------------------------------------------- */

static segfm_status take(machine *m, uint64_t n, const unsigned char **out) {
    if (n > m->size - m->at) {
        (void)base_fail(m->error, SEGFM_BAD_INPUT, "pickle offset %zu: opcode 0x%x needs %llu more bytes, %zu are left",
                        m->op_at, (unsigned)m->bytes[m->op_at], (unsigned long long)n, m->size - m->at);
        return SEGFM_BAD_INPUT;
    }
    *out = m->bytes + m->at;
    m->at += (size_t)n;
    return SEGFM_OK;
}

/* An unsigned number of `width` (1, 2, 4, 8) little-endian bytes. */
static segfm_status take_number(machine *m, size_t width, uint64_t *out) {
    const unsigned char *p;
    TRY(take(m, width, &p));
    *out = 0;
    for (size_t i = 0; i < width; i++) *out |= (uint64_t)p[i] << (8 * i);
    return SEGFM_OK;
}

/* The text up to a newline, which is consumed too. */
static segfm_status take_line(machine *m, const unsigned char **text, size_t *n) {
    const unsigned char *end = m->at < m->size ? memchr(m->bytes + m->at, '\n', m->size - m->at) : NULL;
    if (end == NULL) return bad(m, "a text argument has no end");
    *text = m->bytes + m->at;
    *n = (size_t)(end - *text);
    m->at += *n + 1;
    return SEGFM_OK;
}

/* Two's complement, without relying on what the compiler does with numbers out of range. */
static int64_t to_signed(uint64_t v) { return v <= (uint64_t)INT64_MAX ? (int64_t)v : -(int64_t)(UINT64_MAX - v) - 1; }

/* Decimal text → *out. False when it is not a whole number; *fits is false when it is one that int64 cannot hold. */
static bool parse_decimal(const unsigned char *text, size_t n, int64_t *out, bool *fits) {
    bool negative = n > 0 && text[0] == '-';
    size_t i = negative ? 1 : 0;
    uint64_t v = 0, limit = (uint64_t)INT64_MAX + (negative ? 1U : 0U);
    if (i == n) return false;
    *fits = true;
    for (; i < n; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        uint64_t digit = (uint64_t)(text[i] - '0');
        if (*fits && v > (limit - digit) / 10) *fits = false;
        if (*fits) v = v * 10 + digit;
    }
    *out = to_signed(negative ? 0U - v : v);
    return true;
}

/* A number too large for int64 (a 128-bit random state) is kept as an object without content. */
static segfm_status push_integer(machine *m, int64_t v, bool fits) {
    io_pickle_node *node;
    TRY(push_new(m, fits ? IO_PICKLE_INT : IO_PICKLE_OPAQUE, PLAIN, &node));
    node->integer = fits ? v : 0;
    return SEGFM_OK;
}

/* ---- numpy --------------------------------------------------------------------------------------------------- */

static const struct {
    const char *code;
    io_dtype dtype;
} numpy_types[] = {
    {"b1", IO_BOOL}, {"u1", IO_U8},  {"i1", IO_I8},     {"u2", IO_U16},    {"i2", IO_I16},
    {"u4", IO_U32},  {"i4", IO_I32}, {"u8", IO_U64},    {"i8", IO_I64},    {"f2", IO_F16},
    {"f4", IO_F32},  {"f8", IO_F64}, {"O8", IO_OBJECT}, {"O4", IO_OBJECT},
};

static uint64_t load_bits(const unsigned char *p, size_t size, bool big_endian) {
    uint64_t v = 0;
    for (size_t i = 0; i < size; i++) v |= (uint64_t)p[big_endian ? size - 1 - i : i] << (8 * i);
    return v;
}

static double bits_to_double(uint64_t bits, size_t size) {
    if (size == 2) return (double)base_half_to_float((uint16_t)bits);
    if (size == 4) {
        uint32_t low = (uint32_t)bits;
        float f;
        memcpy(&f, &low, 4);
        return (double)f;
    }
    double d;
    memcpy(&d, &bits, 8);
    return d;
}

/* One numpy element as a BOOL, INT or FLOAT; OPAQUE when it is an unsigned number beyond int64. */
static void set_number(io_pickle_node *node, io_dtype dtype, bool big_endian, const unsigned char *p) {
    size_t size = io_dtype_size(dtype);
    uint64_t bits = load_bits(p, size, big_endian);
    if (dtype == IO_F16 || dtype == IO_F32 || dtype == IO_F64) {
        node->kind = IO_PICKLE_FLOAT;
        node->number = bits_to_double(bits, size);
        return;
    }
    bool is_signed = dtype == IO_I8 || dtype == IO_I16 || dtype == IO_I32 || dtype == IO_I64;
    if (is_signed && size < 8 && (bits >> (8 * size - 1)) != 0) bits |= UINT64_MAX << (8 * size);
    bool fits = is_signed || bits <= (uint64_t)INT64_MAX;
    node->kind = !fits ? IO_PICKLE_OPAQUE : dtype == IO_BOOL ? IO_PICKLE_BOOL : IO_PICKLE_INT;
    node->integer = !fits ? 0 : dtype == IO_BOOL ? bits != 0 : to_signed(bits);
}

/* dtype('i8', False, True) */
static segfm_status call_dtype(machine *m, uint32_t args) {
    if (m->nodes[args].count < 1 || child_node(m, args, 0)->kind != IO_PICKLE_STRING)
        return bad(m, "numpy.dtype is called without a type code");
    const io_pickle_node *code = child_node(m, args, 0);
    io_dtype dtype = IO_NONE;
    for (size_t i = 0; i < sizeof numpy_types / sizeof numpy_types[0]; i++)
        if (string_is(code, numpy_types[i].code)) dtype = numpy_types[i].dtype;
    if (dtype == IO_NONE) {
        char text[32];
        printable(text, sizeof text, code->string, code->length);
        return base_fail(
            m->error, SEGFM_BAD_INPUT,
            "pickle offset %zu: numpy type '%s' is not supported, need a bool, integer, float or object type", m->op_at,
            text);
    }
    io_pickle_node *node;
    TRY(push_new(m, IO_PICKLE_OPAQUE, DTYPE, &node));
    node->dtype = dtype;
    return SEGFM_OK;
}

/* The state of a dtype: (version, byte order, subtype, names, fields, …). */
static segfm_status build_dtype(machine *m, uint32_t dtype, uint32_t state) {
    const io_pickle_node *s = &m->nodes[state];
    if (!is_flavour(m, state, TUPLE) || s->count < 5 || child_node(m, state, 1)->kind != IO_PICKLE_STRING)
        return bad(m, "a numpy type has a malformed state");
    for (uint32_t i = 2; i < 5; i++)
        if (child_node(m, state, i)->kind != IO_PICKLE_NONE)
            return bad(m, "a numpy type has fields, need a plain number or object type");
    const io_pickle_node *order = child_node(m, state, 1);
    bool big = string_is(order, ">");
    if (!big && !string_is(order, "<") && !string_is(order, "|"))
        return bad(m, "a numpy type has an unknown byte order, need '<', '>' or '|'");
    m->nodes[dtype].array.big_endian = big;
    return SEGFM_OK;
}

/* A tuple of non-negative integers. */
static segfm_status read_sizes(machine *m, uint32_t tuple, size_t *sizes, int *n) {
    if (!is_flavour(m, tuple, TUPLE)) return bad(m, "a shape is not a tuple");
    if (m->nodes[tuple].count > IO_MAX_DIMS)
        return base_fail(m->error, SEGFM_BAD_INPUT,
                         "pickle offset %zu: a shape has %llu dimensions, at most %d are supported", m->op_at,
                         (unsigned long long)m->nodes[tuple].count, IO_MAX_DIMS);
    *n = (int)m->nodes[tuple].count;
    for (int i = 0; i < *n; i++) {
        const io_pickle_node *v = child_node(m, tuple, (uint32_t)i);
        if (v->kind != IO_PICKLE_INT || v->integer < 0 || (uint64_t)v->integer > SIZE_MAX)
            return bad(m, "a shape holds something that is not a size");
        sizes[i] = (size_t)v->integer;
    }
    return SEGFM_OK;
}

/* Checks shape and type of `array` (which has them set) against its data: a string node, or for objects a list. */
static segfm_status attach_data(machine *m, uint32_t array, uint32_t data) {
    io_array *a = &m->nodes[array].array;
    bool objects = a->dtype == IO_OBJECT;
    size_t need, got = objects ? m->nodes[data].count : m->nodes[data].length;
    if (objects ? !is_flavour(m, data, LIST) : m->nodes[data].kind != IO_PICKLE_STRING)
        return bad(m, "a numpy array has no data of its type");
    if (!base_count(a->shape, a->ndim, 1, &a->count) ||
        !base_mul(a->count, objects ? 1 : io_dtype_size(a->dtype), &need))
        return bad(m, "a numpy array's shape overflows");
    if (got != need)
        return base_fail(m->error, SEGFM_BAD_INPUT,
                         "pickle offset %zu: a numpy array holds %zu %s, its shape needs %zu", m->op_at, got,
                         objects ? "objects" : "bytes", need);
    if (objects) {
        move_children(m, data, array);
    } else {
        a->data = (const unsigned char *)m->nodes[data].string;
        a->bytes = need;
    }
    m->extras[array].flavour = PLAIN;
    return SEGFM_OK;
}

/* _reconstruct(numpy.ndarray, (0,), b'b'): an array that the following BUILD fills. */
static segfm_status call_reconstruct(machine *m, uint32_t args) {
    if (m->nodes[args].count != 3 || !is_global(m, child(m, args, 0), IS_NDARRAY))
        return bad(m, "_reconstruct is called for something other than numpy.ndarray");
    return push_new(m, IO_PICKLE_ARRAY, UNBUILT, NULL);
}

/* The state of an array: (version, shape, dtype, is_fortran, bytes or list). */
static segfm_status build_array(machine *m, uint32_t array, uint32_t state) {
    if (!is_flavour(m, state, TUPLE) || m->nodes[state].count != 5 || !is_flavour(m, child(m, state, 2), DTYPE) ||
        child_node(m, state, 3)->kind != IO_PICKLE_BOOL)
        return bad(m, "a numpy array has a malformed state");
    io_array *a = &m->nodes[array].array;
    const io_pickle_node *dtype = child_node(m, state, 2);
    TRY(read_sizes(m, child(m, state, 1), a->shape, &a->ndim));
    a->dtype = dtype->dtype;
    a->big_endian = dtype->array.big_endian;
    /* numpy lists objects in C order whatever the order in memory was */
    a->fortran = a->dtype != IO_OBJECT && child_node(m, state, 3)->integer != 0;
    return attach_data(m, array, child(m, state, 4));
}

/* _frombuffer(bytes, dtype, shape, 'C' or 'F'): how protocol 5 spells an array of numbers. */
static segfm_status call_frombuffer(machine *m, uint32_t args) {
    if (m->nodes[args].count != 4 || !is_flavour(m, child(m, args, 1), DTYPE) ||
        child_node(m, args, 1)->dtype == IO_OBJECT)
        return bad(m, "_frombuffer is called with arguments that numpy does not write");
    bool fortran = string_is(child_node(m, args, 3), "F");
    if (!fortran && !string_is(child_node(m, args, 3), "C")) return bad(m, "a numpy array's order is neither C nor F");
    uint32_t array;
    TRY(new_node(m, IO_PICKLE_ARRAY, &array));
    io_array *a = &m->nodes[array].array;
    TRY(read_sizes(m, child(m, args, 2), a->shape, &a->ndim));
    a->dtype = child_node(m, args, 1)->dtype;
    a->big_endian = child_node(m, args, 1)->array.big_endian;
    a->fortran = fortran;
    TRY(attach_data(m, array, child(m, args, 0)));
    return push(m, array);
}

/* scalar(dtype, bytes) */
static segfm_status call_scalar(machine *m, uint32_t args) {
    if (m->nodes[args].count != 2 || !is_flavour(m, child(m, args, 0), DTYPE) ||
        child_node(m, args, 1)->kind != IO_PICKLE_STRING)
        return bad(m, "numpy's scalar is called with arguments that numpy does not write");
    const io_pickle_node *bytes = child_node(m, args, 1), *type = child_node(m, args, 0);
    io_dtype dtype = type->dtype;
    bool big = type->array.big_endian;
    const unsigned char *p = (const unsigned char *)bytes->string;
    if (dtype == IO_OBJECT) return bad(m, "a numpy scalar is an object");
    if (bytes->length != io_dtype_size(dtype))
        return base_fail(m->error, SEGFM_BAD_INPUT, "pickle offset %zu: a numpy %s scalar has %zu bytes, need %zu",
                         m->op_at, io_dtype_name(dtype), bytes->length, io_dtype_size(dtype));
    io_pickle_node *node;
    TRY(push_new(m, IO_PICKLE_INT, PLAIN, &node));
    set_number(node, dtype, big, p);
    return SEGFM_OK;
}

/* ---- text that has to be decoded ----------------------------------------------------------------------------- */

/* Room for n decoded bytes. */
static segfm_status decoded_bytes(machine *m, size_t n, unsigned char **out) {
    block *b = malloc(sizeof *b + n + 1);
    if (b == NULL) return no_memory(m);
    b->next = m->blocks;
    m->blocks = b;
    *out = b->bytes;
    return SEGFM_OK;
}

/* UTF-8 text whose characters are all below 256 → those bytes. Each text is decoded once by what Python writes, so that
   all of them together are no longer than the input; a text in the memo cannot be decoded again and again, which would take
   memory, or for ASCII, which is only looked at, time. */
static segfm_status decode_latin1(machine *m, const unsigned char *text, size_t n, const unsigned char **out,
                                  size_t *out_n) {
    size_t ascii = 0;
    *out = text;
    *out_n = n;
    if (n > m->size - m->decoded) return bad(m, "the pickle decodes more text than it holds");
    m->decoded += n;
    while (ascii < n && text[ascii] < 0x80) ascii++;
    if (ascii == n) return SEGFM_OK; /* the bytes are the text */
    unsigned char *p = NULL;
    TRY(decoded_bytes(m, n, &p));
    size_t length = 0;
    for (size_t i = 0; i < n; length++) {
        if (text[i] < 0x80) {
            p[length] = text[i++];
        } else {
            if ((text[i] != 0xC2 && text[i] != 0xC3) || i + 1 >= n || (text[i + 1] & 0xC0) != 0x80)
                return bad(m, "bytes written as latin1 text hold a character beyond 255");
            p[length] = (unsigned char)((text[i] & 3) << 6 | (text[i + 1] & 0x3F));
            i += 2;
        }
    }
    *out = p;
    *out_n = length;
    return SEGFM_OK;
}

static segfm_status push_string(machine *m, const void *text, size_t n) {
    io_pickle_node *node;
    TRY(push_new(m, IO_PICKLE_STRING, PLAIN, &node));
    node->string = text;
    node->length = n;
    return SEGFM_OK;
}

/* encode(text, 'latin1'), bytearray(text, 'latin-1'): bytes before protocol 3. */
static segfm_status call_encode(machine *m, uint32_t args) {
    if (m->nodes[args].count != 2 || child_node(m, args, 0)->kind != IO_PICKLE_STRING)
        return bad(m, "_codecs.encode is called with arguments that pickle does not write");
    const io_pickle_node *text = child_node(m, args, 0), *codec = child_node(m, args, 1);
    if (!string_is(codec, "latin1") && !string_is(codec, "latin-1"))
        return bad(m, "bytes are encoded by a codec other than latin1");
    const unsigned char *p;
    size_t n;
    TRY(decode_latin1(m, (const unsigned char *)text->string, text->length, &p, &n));
    return push_string(m, p, n);
}

/* bytes(), bytearray(), bytearray(b'…'), bytearray(text, 'latin-1') */
static segfm_status call_bytes(machine *m, uint32_t args) {
    uint32_t n = m->nodes[args].count;
    if (n == 0) return push_string(m, "", 0);
    if (n == 1 && child_node(m, args, 0)->kind == IO_PICKLE_STRING) return push(m, child(m, args, 0));
    return call_encode(m, args);
}

static int hex_digit(unsigned char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static size_t put_utf8(unsigned char *p, uint32_t c) {
    if (c < 0x80) {
        p[0] = (unsigned char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; --i > 0; c >>= 6) p[i] = (unsigned char)(0x80 | (c & 0x3F));
    p[0] = (unsigned char)((n == 2 ? 0xC0U : n == 3 ? 0xE0U : 0xF0U) | c);
    return n;
}

/* Protocol 0 text, "raw-unicode-escape": latin-1 with \uXXXX and \UXXXXXXXX → UTF-8, which is at most twice as long. */
static segfm_status op_unicode(machine *m) {
    const unsigned char *text;
    unsigned char *p;
    size_t n, length = 0;
    TRY(take_line(m, &text, &n));
    bool plain = true;
    for (size_t i = 0; i < n; i++) plain = plain && text[i] < 0x80 && text[i] != '\\';
    if (plain) return push_string(m, text, n);
    block *b = malloc(sizeof *b + 2 * n + 1);
    if (b == NULL) return no_memory(m);
    b->next = m->blocks;
    m->blocks = b;
    p = b->bytes;
    for (size_t i = 0; i < n;) {
        size_t digits = i + 1 < n && text[i] == '\\' ? (text[i + 1] == 'u' ? 4U : text[i + 1] == 'U' ? 8U : 0U) : 0U;
        uint32_t c = text[i];
        if (digits > 0) {
            c = 0;
            if (n - i - 2 < digits) return bad(m, "a text ends inside an escape");
            for (size_t k = 0; k < digits; k++) {
                int d = hex_digit(text[i + 2 + k]);
                if (d < 0 || c > 0x10FFFF) return bad(m, "a text holds a malformed escape");
                c = c << 4 | (uint32_t)d;
            }
            if (c > 0x10FFFF) return bad(m, "a text holds a character beyond Unicode");
            i += 1 + digits;
        }
        i++;
        length += put_utf8(p + length, c);
    }
    return push_string(m, p, length);
}

/* ---- torch --------------------------------------------------------------------------------------------------- */

/* Persistent id ('storage', torch.FloatStorage, key, location, elements). */
static segfm_status op_persistent_id(machine *m) {
    uint32_t id;
    TRY(pop(m, &id));
    if (!is_flavour(m, id, TUPLE) || m->nodes[id].count != 5 || !string_is(child_node(m, id, 0), "storage") ||
        !is_global(m, child(m, id, 1), IS_STORAGE) || child_node(m, id, 2)->kind != IO_PICKLE_STRING ||
        child_node(m, id, 4)->kind != IO_PICKLE_INT)
        return bad(m, "a persistent id is not one of a torch storage");
    int64_t elements = child_node(m, id, 4)->integer;
    io_dtype dtype = allowed_globals[child_node(m, id, 1)->integer].dtype;
    size_t bytes;
    if (elements < 0 || (uint64_t)elements > SIZE_MAX || !base_mul((size_t)elements, io_dtype_size(dtype), &bytes))
        return bad(m, "a torch storage has an impossible size");
    const io_pickle_node *key = child_node(m, id, 2);
    const char *key_text = key->string;
    size_t key_length = key->length;
    io_pickle_node *node;
    TRY(push_new(m, IO_PICKLE_STORAGE, PLAIN, &node));
    node->string = key_text;
    node->length = key_length;
    node->dtype = dtype;
    node->elements = (size_t)elements;
    return SEGFM_OK;
}

/* Whether the last element of the view lies in a storage of that many elements. */
static bool view_fits(const io_pickle_tensor *t, size_t elements) {
    size_t last = t->offset, step;
    for (int i = 0; i < t->ndim; i++)
        if (t->shape[i] == 0) return t->offset <= elements;
    for (int i = 0; i < t->ndim; i++)
        if (!base_mul(t->shape[i] - 1, t->stride[i], &step) || !base_add(last, step, &last)) return false;
    return last < elements;
}

/* _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata]) */
static segfm_status call_tensor(machine *m, uint32_t args) {
    if (m->nodes[args].count < 6 || m->nodes[args].count > 7 || child_node(m, args, 0)->kind != IO_PICKLE_STORAGE ||
        child_node(m, args, 1)->kind != IO_PICKLE_INT)
        return bad(m, "_rebuild_tensor_v2 is called with arguments that torch does not write");
    io_pickle_tensor t;
    int strides;
    int64_t offset = child_node(m, args, 1)->integer;
    memset(&t, 0, sizeof t);
    t.storage = child(m, args, 0);
    TRY(read_sizes(m, child(m, args, 2), t.shape, &t.ndim));
    TRY(read_sizes(m, child(m, args, 3), t.stride, &strides));
    if (strides != t.ndim) return bad(m, "a tensor's size and stride have different lengths");
    if (offset < 0 || (uint64_t)offset > SIZE_MAX) return bad(m, "a tensor has an impossible offset");
    t.offset = (size_t)offset;
    if (!view_fits(&t, m->nodes[t.storage].elements)) return bad(m, "a tensor reaches past the end of its storage");
    io_pickle_node *node;
    TRY(push_new(m, IO_PICKLE_TENSOR, PLAIN, &node));
    node->tensor = t;
    return SEGFM_OK;
}

/* _rebuild_parameter(tensor, requires_grad, hooks): the tensor. */
static segfm_status call_parameter(machine *m, uint32_t args) {
    if (m->nodes[args].count != 3 || child_node(m, args, 0)->kind != IO_PICKLE_TENSOR)
        return bad(m, "_rebuild_parameter is called without a tensor");
    return push(m, child(m, args, 0));
}

/* ---- calls, states, containers ------------------------------------------------------------------------------- */

static segfm_status call_set(machine *m, uint32_t args) {
    if (m->nodes[args].count != 1 || !is_flavour(m, child(m, args, 0), LIST))
        return bad(m, "a set is made of something other than a list");
    uint32_t set;
    TRY(new_node(m, IO_PICKLE_LIST, &set));
    m->extras[set].flavour = SET;
    move_children(m, child(m, args, 0), set);
    return push(m, set);
}

static segfm_status call_global(machine *m, uint32_t function, uint32_t args) {
    switch (allowed_globals[m->nodes[function].integer].action) {
    case CALL_RECONSTRUCT: return call_reconstruct(m, args);
    case CALL_SCALAR: return call_scalar(m, args);
    case CALL_DTYPE: return call_dtype(m, args);
    case CALL_FROMBUFFER: return call_frombuffer(m, args);
    case CALL_ENCODE: return call_encode(m, args);
    case CALL_BYTES: return call_bytes(m, args);
    case CALL_SET: return call_set(m, args);
    case CALL_ORDERED_DICT:
        if (m->nodes[args].count != 0) return bad(m, "OrderedDict is called with arguments");
        return push_new(m, IO_PICKLE_DICT, PLAIN, NULL);
    case CALL_TENSOR: return call_tensor(m, args);
    case CALL_PARAMETER: return call_parameter(m, args);
    case CALL_SIZE:
        if (m->nodes[args].count != 1 || !is_flavour(m, child(m, args, 0), TUPLE))
            return bad(m, "torch.Size is called without a tuple");
        return push(m, child(m, args, 0));
    case CALL_OPAQUE: return push_new(m, IO_PICKLE_OPAQUE, PLAIN, NULL);
    case CALL_NOTHING:
    case IS_NDARRAY:
    case IS_STORAGE: break;
    }
    return base_fail(m->error, SEGFM_BAD_INPUT, "pickle offset %zu: '%s' is called, only its name may appear", m->op_at,
                     m->nodes[function].string);
}

static segfm_status op_reduce(machine *m) {
    uint32_t function, args;
    TRY(pop(m, &args));
    TRY(pop(m, &function));
    if (m->nodes[function].kind != IO_PICKLE_GLOBAL) return bad(m, "something that is not a function is called");
    if (!is_flavour(m, args, TUPLE)) return bad(m, "a function is called with something that is not a tuple");
    return call_global(m, function, args);
}

/* cls.__new__(cls, *args): only for objects that are passed over. */
static segfm_status op_new_object(machine *m, bool keywords) {
    uint32_t class, args, names;
    if (keywords) TRY(pop(m, &names));
    TRY(pop(m, &args));
    TRY(pop(m, &class));
    if (!is_global(m, class, CALL_OPAQUE) || !is_flavour(m, args, TUPLE))
        return bad(m, "an object is made of a class that is not on the list");
    return push_new(m, IO_PICKLE_OPAQUE, PLAIN, NULL);
}

static segfm_status op_build(machine *m) {
    uint32_t state, target;
    TRY(pop(m, &state));
    TRY(top(m, &target));
    if (is_flavour(m, target, UNBUILT)) return build_array(m, target, state);
    if (is_flavour(m, target, DTYPE)) return build_dtype(m, target, state);
    /* a state_dict carries its modules' versions as the attribute _metadata */
    if (m->nodes[target].kind == IO_PICKLE_DICT && m->nodes[state].kind == IO_PICKLE_DICT) return SEGFM_OK;
    if (m->nodes[target].kind == IO_PICKLE_OPAQUE) return SEGFM_OK;
    return bad(m, "an object that takes no state is given one");
}

static segfm_status find_global(machine *m, const char *module, size_t module_n, const char *name, size_t name_n) {
    for (size_t i = 0; i < GLOBAL_COUNT; i++) {
        const char *g = allowed_globals[i].name;
        size_t n = strlen(g);
        if (n != module_n + 1 + name_n || memcmp(g, module, module_n) != 0 || g[module_n] != ' ' ||
            memcmp(g + module_n + 1, name, name_n) != 0)
            continue;
        io_pickle_node *node;
        TRY(push_new(m, IO_PICKLE_GLOBAL, PLAIN, &node));
        node->string = g;
        node->length = n;
        node->integer = (int64_t)i;
        return SEGFM_OK;
    }
    char module_text[80], name_text[80];
    printable(module_text, sizeof module_text, module, module_n);
    printable(name_text, sizeof name_text, name, name_n);
    return base_fail(m->error, SEGFM_BAD_INPUT,
                     "pickle offset %zu: the global '%s.%s' is not on the list of those that may appear", m->op_at,
                     module_text, name_text);
}

static segfm_status op_global(machine *m) {
    const unsigned char *module, *name;
    size_t module_n, name_n;
    TRY(take_line(m, &module, &module_n));
    TRY(take_line(m, &name, &name_n));
    return find_global(m, (const char *)module, module_n, (const char *)name, name_n);
}

static segfm_status op_stack_global(machine *m) {
    uint32_t module, name;
    TRY(pop(m, &name));
    TRY(pop(m, &module));
    const io_pickle_node *a = &m->nodes[module], *b = &m->nodes[name];
    if (a->kind != IO_PICKLE_STRING || b->kind != IO_PICKLE_STRING) return bad(m, "a global's name is not a text");
    return find_global(m, a->string, a->length, b->string, b->length);
}

/* The items from stack[begin] on become the children of a new node. */
static segfm_status collect(machine *m, size_t begin, io_pickle_kind kind, node_flavour flavour) {
    uint32_t node;
    TRY(new_node(m, kind, &node));
    m->extras[node].flavour = (unsigned char)flavour;
    for (size_t i = begin; i < m->stack_count; i++) TRY(add_child(m, node, m->stack[i]));
    m->stack_count = begin;
    return push(m, node);
}

static segfm_status op_short_tuple(machine *m, size_t n) {
    if (m->stack_count - floor_of_stack(m) < n) return bad(m, "a tuple finds too few items on the stack");
    return collect(m, m->stack_count - n, IO_PICKLE_LIST, TUPLE);
}

static segfm_status check_pairs(machine *m, size_t begin) {
    if ((m->stack_count - begin) % 2 != 0) return bad(m, "a dictionary gets a key without a value");
    for (size_t i = begin; i < m->stack_count; i += 2) {
        uint32_t key = m->stack[i];
        io_pickle_kind kind = m->nodes[key].kind;
        bool scalar = kind == IO_PICKLE_NONE || kind == IO_PICKLE_BOOL || kind == IO_PICKLE_INT ||
                      kind == IO_PICKLE_FLOAT || kind == IO_PICKLE_STRING;
        if (!scalar && !is_flavour(m, key, TUPLE))
            return bad(m, "a dictionary's key is neither a text, a number nor a tuple");
    }
    return SEGFM_OK;
}

/* Items from stack[begin] on are added to the container below them. */
static segfm_status extend(machine *m, size_t begin, io_pickle_kind kind, node_flavour flavour) {
    if (begin <= floor_of_stack(m)) return bad(m, "items are added where there is no container");
    uint32_t target = m->stack[begin - 1];
    bool opaque = m->nodes[target].kind == IO_PICKLE_OPAQUE;
    if (!opaque && (m->nodes[target].kind != kind || !is_flavour(m, target, flavour)))
        return bad(m, "items are added to something that is not their container");
    if (kind == IO_PICKLE_DICT) TRY(check_pairs(m, begin));
    for (size_t i = begin; i < m->stack_count && !opaque; i++) TRY(add_child(m, target, m->stack[i]));
    m->stack_count = begin;
    return SEGFM_OK;
}

static segfm_status extend_one(machine *m, size_t items, io_pickle_kind kind, node_flavour flavour) {
    if (m->stack_count - floor_of_stack(m) < items + 1) return bad(m, "an item is added, but the stack is too short");
    return extend(m, m->stack_count - items, kind, flavour);
}

static segfm_status extend_from_mark(machine *m, io_pickle_kind kind, node_flavour flavour) {
    size_t begin = 0;
    TRY(pop_mark(m, &begin));
    return extend(m, begin, kind, flavour);
}

static segfm_status collect_from_mark(machine *m, io_pickle_kind kind, node_flavour flavour) {
    size_t begin = 0;
    TRY(pop_mark(m, &begin));
    if (kind == IO_PICKLE_DICT) TRY(check_pairs(m, begin));
    return collect(m, begin, kind, flavour);
}

/* ---- memo ---------------------------------------------------------------------------------------------------- */

static segfm_status memo_get(machine *m, uint64_t index) {
    if (index >= m->memo_size || m->memo[index] == NO_INDEX)
        return base_fail(m->error, SEGFM_BAD_INPUT, "pickle offset %zu: memo entry %llu is read, but was never written",
                         m->op_at, (unsigned long long)index);
    return push(m, m->memo[index]);
}

/* Python numbers memo entries one after another, so an index beyond the input's length is no pickler's. */
static segfm_status memo_put(machine *m, uint64_t index) {
    uint32_t node;
    TRY(top(m, &node));
    if (index >= m->size)
        return base_fail(m->error, SEGFM_BAD_INPUT,
                         "pickle offset %zu: memo entry %llu is written, need a number below %zu", m->op_at,
                         (unsigned long long)index, m->size);
    uint32_t *memo = grown(m->memo, &m->memo_capacity, (size_t)index + 1, sizeof *memo);
    if (memo == NULL) return no_memory(m);
    m->memo = memo;
    for (; m->memo_size <= index; m->memo_size++) memo[m->memo_size] = NO_INDEX;
    if (memo[index] == NO_INDEX) m->memo_set++;
    memo[index] = node;
    return SEGFM_OK;
}

static segfm_status op_memo_line(machine *m, bool put) {
    const unsigned char *text;
    size_t n;
    int64_t index;
    bool fits;
    TRY(take_line(m, &text, &n));
    if (!parse_decimal(text, n, &index, &fits) || !fits || index < 0) return bad(m, "a memo index is not a number");
    return put ? memo_put(m, (uint64_t)index) : memo_get(m, (uint64_t)index);
}

static segfm_status op_memo(machine *m, size_t width, bool put) {
    uint64_t index;
    TRY(take_number(m, width, &index));
    return put ? memo_put(m, index) : memo_get(m, index);
}

/* ---- numbers and strings ------------------------------------------------------------------------------------- */

static segfm_status op_integer_line(machine *m, bool is_long) {
    const unsigned char *text;
    size_t n;
    int64_t v;
    bool fits;
    TRY(take_line(m, &text, &n));
    if (!is_long && n == 2 && text[0] == '0' && (text[1] == '0' || text[1] == '1'))
        return push(m, text[1] == '1' ? m->yes : m->no);
    if (is_long && n > 0 && text[n - 1] == 'L') n--;
    if (!parse_decimal(text, n, &v, &fits)) return bad(m, "a number is malformed");
    return push_integer(m, v, fits);
}

static segfm_status op_integer(machine *m, size_t width) {
    uint64_t v;
    TRY(take_number(m, width, &v));
    if (width == 4 && v > INT32_MAX) v |= UINT64_MAX << 32; /* BININT alone is signed */
    return push_integer(m, to_signed(v), true);
}

/* LONG1, LONG4: little-endian two's complement of any length. */
static segfm_status op_long(machine *m, size_t width) {
    uint64_t n, v = 0;
    const unsigned char *p;
    TRY(take_number(m, width, &n));
    TRY(take(m, n, &p));
    if (n > 8) return push_integer(m, 0, false);
    for (size_t i = 0; i < n; i++) v |= (uint64_t)p[i] << (8 * i);
    if (n > 0 && n < 8 && (p[n - 1] & 0x80) != 0) v |= UINT64_MAX << (8 * n);
    return push_integer(m, to_signed(v), true);
}

static segfm_status push_float(machine *m, double v) {
    io_pickle_node *node;
    TRY(push_new(m, IO_PICKLE_FLOAT, PLAIN, &node));
    node->number = v;
    return SEGFM_OK;
}

static segfm_status op_float_line(machine *m) {
    const unsigned char *text;
    size_t n;
    char copy[64], *end;
    TRY(take_line(m, &text, &n));
    if (n == 0 || n >= sizeof copy || text[0] <= ' ' || memchr(text, '\0', n) != NULL)
        return bad(m, "a float is malformed");
    memcpy(copy, text, n);
    copy[n] = '\0';
    double v = strtod(copy, &end);
    if (*end != '\0') return bad(m, "a float is malformed");
    return push_float(m, v);
}

static segfm_status op_float(machine *m) {
    const unsigned char *p;
    TRY(take(m, 8, &p));
    return push_float(m, bits_to_double(load_bits(p, 8, true), 8));
}

static segfm_status op_string(machine *m, size_t width) {
    uint64_t n;
    const unsigned char *p;
    TRY(take_number(m, width, &n));
    TRY(take(m, n, &p));
    return push_string(m, p, (size_t)n);
}

static segfm_status op_proto(machine *m) {
    uint64_t version;
    TRY(take_number(m, 1, &version));
    if (m->op_at != 0) return bad(m, "the protocol is stated in the middle");
    if (version > 5)
        return base_fail(m->error, SEGFM_BAD_INPUT, "pickle offset 0: protocol %llu, need 0 to 5",
                         (unsigned long long)version);
    return SEGFM_OK;
}

/* Frames only tell a reader how much to buffer; that the bytes are there is all there is to check. */
static segfm_status op_frame(machine *m) {
    uint64_t n;
    const unsigned char *p;
    TRY(take_number(m, 8, &n));
    size_t at = m->at;
    TRY(take(m, n, &p));
    m->at = at;
    return SEGFM_OK;
}

/* ---- the loop ------------------------------------------------------------------------------------------------ */

static segfm_status run_opcode(machine *m, unsigned op) {
    switch (op) {
    case OP_PROTO: return op_proto(m);
    case OP_FRAME: return op_frame(m);
    case OP_MARK: return push_mark(m);
    case OP_NONE: return push(m, m->none);
    case OP_NEWTRUE: return push(m, m->yes);
    case OP_NEWFALSE: return push(m, m->no);
    case OP_INT: return op_integer_line(m, false);
    case OP_LONG: return op_integer_line(m, true);
    case OP_BININT: return op_integer(m, 4);
    case OP_BININT1: return op_integer(m, 1);
    case OP_BININT2: return op_integer(m, 2);
    case OP_LONG1: return op_long(m, 1);
    case OP_LONG4: return op_long(m, 4);
    case OP_FLOAT: return op_float_line(m);
    case OP_BINFLOAT: return op_float(m);
    case OP_UNICODE: return op_unicode(m);
    case OP_SHORT_BINSTRING:
    case OP_SHORT_BINBYTES:
    case OP_SHORT_BINUNICODE: return op_string(m, 1);
    case OP_BINSTRING:
    case OP_BINBYTES:
    case OP_BINUNICODE: return op_string(m, 4);
    case OP_BINBYTES8:
    case OP_BYTEARRAY8:
    case OP_BINUNICODE8: return op_string(m, 8);
    case OP_EMPTY_TUPLE: return push(m, m->empty);
    case OP_EMPTY_LIST: return push_new(m, IO_PICKLE_LIST, LIST, NULL);
    case OP_EMPTY_DICT: return push_new(m, IO_PICKLE_DICT, PLAIN, NULL);
    case OP_EMPTY_SET: return push_new(m, IO_PICKLE_LIST, SET, NULL);
    case OP_TUPLE1: return op_short_tuple(m, 1);
    case OP_TUPLE2: return op_short_tuple(m, 2);
    case OP_TUPLE3: return op_short_tuple(m, 3);
    case OP_TUPLE: return collect_from_mark(m, IO_PICKLE_LIST, TUPLE);
    case OP_LIST: return collect_from_mark(m, IO_PICKLE_LIST, LIST);
    case OP_DICT: return collect_from_mark(m, IO_PICKLE_DICT, PLAIN);
    case OP_FROZENSET: return collect_from_mark(m, IO_PICKLE_LIST, SET);
    case OP_APPEND: return extend_one(m, 1, IO_PICKLE_LIST, LIST);
    case OP_APPENDS: return extend_from_mark(m, IO_PICKLE_LIST, LIST);
    case OP_ADDITEMS: return extend_from_mark(m, IO_PICKLE_LIST, SET);
    case OP_SETITEM: return extend_one(m, 2, IO_PICKLE_DICT, PLAIN);
    case OP_SETITEMS: return extend_from_mark(m, IO_PICKLE_DICT, PLAIN);
    case OP_GET: return op_memo_line(m, false);
    case OP_BINGET: return op_memo(m, 1, false);
    case OP_LONG_BINGET: return op_memo(m, 4, false);
    case OP_PUT: return op_memo_line(m, true);
    case OP_BINPUT: return op_memo(m, 1, true);
    case OP_LONG_BINPUT: return op_memo(m, 4, true);
    case OP_MEMOIZE: return memo_put(m, m->memo_set);
    case OP_GLOBAL: return op_global(m);
    case OP_STACK_GLOBAL: return op_stack_global(m);
    case OP_REDUCE: return op_reduce(m);
    case OP_NEWOBJ: return op_new_object(m, false);
    case OP_NEWOBJ_EX: return op_new_object(m, true);
    case OP_BUILD: return op_build(m);
    case OP_BINPERSID: return op_persistent_id(m);
    default:
        return base_fail(m->error, SEGFM_BAD_INPUT,
                         "pickle offset %zu: opcode 0x%x is not one that numpy or torch writes", m->op_at, op);
    }
}

static segfm_status make_constants(machine *m) {
    TRY(new_node(m, IO_PICKLE_NONE, &m->none));
    TRY(new_node(m, IO_PICKLE_BOOL, &m->no));
    TRY(new_node(m, IO_PICKLE_BOOL, &m->yes));
    TRY(new_node(m, IO_PICKLE_LIST, &m->empty));
    m->nodes[m->yes].integer = 1;
    m->extras[m->empty].flavour = TUPLE;
    return SEGFM_OK;
}

static segfm_status run_machine(machine *m, uint32_t *root) {
    TRY(make_constants(m));
    for (;;) {
        m->op_at = m->at;
        if (m->at >= m->size) return bad(m, "the pickle ends without its STOP");
        unsigned op = m->bytes[m->at++];
        if (op == OP_STOP) break;
        TRY(run_opcode(m, op));
    }
    if (m->stack_count != 1 || m->mark_count != 0)
        return base_fail(m->error, SEGFM_BAD_INPUT, "pickle offset %zu: STOP finds %zu items on the stack, need 1",
                         m->op_at, m->stack_count);
    if (m->at != m->size)
        return base_fail(m->error, SEGFM_BAD_INPUT, "pickle offset %zu: %zu bytes follow the STOP", m->at,
                         m->size - m->at);
    return pop(m, root);
}

/* ---- the result ---------------------------------------------------------------------------------------------- */

/* Chains of cells → one array, each node's children side by side. */
static segfm_status lay_out_children(machine *m, uint32_t **out) {
    uint32_t *children = malloc((m->cell_count + 1) * sizeof *children), used = 0;
    if (children == NULL) return no_memory(m);
    for (size_t i = 0; i < m->node_count; i++) {
        m->nodes[i].first = used;
        for (uint32_t c = m->extras[i].head; c != NO_INDEX; c = m->cells[c].next) children[used++] = m->cells[c].node;
    }
    *out = children;
    return SEGFM_OK;
}

/* Walks what the root reaches, each node once, with an explicit stack: no cycles, no deeper than MAX_DEPTH, and every
   array was given its data. */
static segfm_status check_graph(machine *m, const uint32_t *children, uint32_t root) {
    enum { ON_PATH = 255 };
    struct {
        uint32_t node, next;
    } path[MAX_DEPTH];
    int depth = 1;
    path[0].node = root;
    path[0].next = 0;
    m->extras[root].height = ON_PATH;
    while (depth > 0) {
        uint32_t node = path[depth - 1].node;
        const io_pickle_node *n = &m->nodes[node];
        if (path[depth - 1].next == 0 && m->extras[node].flavour == UNBUILT)
            return base_fail(m->error, SEGFM_BAD_INPUT, "pickle: a numpy array has no content");
        if (path[depth - 1].next < n->count) {
            uint32_t next = children[n->first + path[depth - 1].next++];
            unsigned height = m->extras[next].height;
            if (height == ON_PATH) return base_fail(m->error, SEGFM_BAD_INPUT, "pickle: a container contains itself");
            if (depth + (height == 0 ? 1 : (int)height) > MAX_DEPTH)
                return base_fail(m->error, SEGFM_BAD_INPUT, "pickle: objects are nested deeper than %d", MAX_DEPTH);
            if (height == 0) {
                m->extras[next].height = ON_PATH;
                path[depth].node = next;
                path[depth++].next = 0;
            }
        } else {
            unsigned height = 1;
            for (uint32_t i = 0; i < n->count; i++) {
                unsigned below = m->extras[children[n->first + i]].height + 1U;
                if (below > height) height = below;
            }
            m->extras[node].height = (unsigned char)height;
            depth--;
        }
    }
    return SEGFM_OK;
}

static void free_blocks(block *b) {
    while (b != NULL) {
        block *next = b->next;
        free(b);
        b = next;
    }
}

segfm_status io_pickle_parse(const unsigned char *bytes, size_t n, io_pickle *out, segfm_error *error) {
    machine m;
    uint32_t root = 0, *children = NULL;
    memset(out, 0, sizeof *out);
    memset(&m, 0, sizeof m);
    m.bytes = bytes;
    m.size = n;
    m.error = error;
    segfm_status status = run_machine(&m, &root);
    if (status == SEGFM_OK) status = lay_out_children(&m, &children);
    if (status == SEGFM_OK) status = check_graph(&m, children, root);
    free(m.extras);
    free(m.cells);
    free(m.stack);
    free(m.marks);
    free(m.memo);
    if (status != SEGFM_OK) {
        free(m.nodes);
        free(children);
        free_blocks(m.blocks);
        return status;
    }
    out->nodes = m.nodes;
    out->children = children;
    out->root = root;
    out->private_data = m.blocks;
    return SEGFM_OK;
}

void io_pickle_free(io_pickle *p) {
    free(p->nodes);
    free(p->children);
    free_blocks(p->private_data);
    memset(p, 0, sizeof *p);
}

const io_pickle_node *io_pickle_child(const io_pickle *p, const io_pickle_node *node, uint32_t i) {
    return i < node->count ? &p->nodes[p->children[node->first + i]] : NULL;
}

/* From the end, because in Python the last value of a repeated key stays. */
const io_pickle_node *io_pickle_get(const io_pickle *p, const io_pickle_node *dict, const char *key) {
    if (dict == NULL || dict->kind != IO_PICKLE_DICT) return NULL;
    for (uint32_t i = dict->count; i >= 2; i -= 2)
        if (string_is(io_pickle_child(p, dict, i - 2), key)) return io_pickle_child(p, dict, i - 1);
    return NULL;
}

bool io_pickle_int(const io_pickle_node *node, int64_t *out) {
    io_pickle_node element;
    if (node->kind == IO_PICKLE_ARRAY) {
        if (node->array.count != 1 || node->array.data == NULL) return false;
        memset(&element, 0, sizeof element);
        set_number(&element, node->array.dtype, node->array.big_endian, node->array.data);
        node = &element;
    }
    if (node->kind == IO_PICKLE_INT || node->kind == IO_PICKLE_BOOL) {
        *out = node->integer;
        return true;
    }
    /* the bounds keep the conversion defined; -2^63 is a double, 2^63 is the first one that does not fit */
    if (node->kind != IO_PICKLE_FLOAT ||
        !(node->number >= -9223372036854775808.0 && node->number < 9223372036854775808.0))
        return false;
    int64_t whole = (int64_t)node->number;
    if ((double)whole != node->number) return false;
    *out = whole;
    return true;
}
