/* npy.c: files put together here from header text and bytes, every element type in both byte orders, the spellings that
   numpy 1 and 2 write, and everything that must be refused. */
#include "../io/io.h"

#include "test.h"

/* Appends an npy file of the given version whose header is exactly `text`. */
static void put_npy(io_buffer *b, unsigned char version, const char *text, const void *data, size_t n) {
    unsigned char head[12] = {0x93, 'N', 'U', 'M', 'P', 'Y', version, 0, 0, 0, 0, 0};
    size_t length = strlen(text);
    base_put_le32(head + 8, (uint32_t)length); /* version 1 has the lower half only */
    b->size = 0;
    io_buffer_append(b, head, version == 1 ? 10 : 12, NULL);
    io_buffer_append(b, text, length, NULL);
    io_buffer_append(b, data, n, NULL);
}

/* Parses an allocation of exactly n bytes, so that the sanitizers see a read past the end; *copy is to be freed. */
static segfm_status parse(const unsigned char *p, size_t n, io_array *a, segfm_error *error, unsigned char **copy) {
    *copy = malloc(n > 0 ? n : 1);
    if (*copy == NULL) abort();
    if (n > 0) memcpy(*copy, p, n);
    return io_npy_parse(*copy, n, a, error);
}

/* ---- element types ------------------------------------------------------------------------------------------ */

/* Three values of each type, little-endian, and what they mean. */
typedef struct {
    io_dtype dtype;
    const char *letter; /* numpy's kind and size */
    unsigned char bytes[3 * 8];
    double values[3];
} sample;

static const sample samples[] = {
    {IO_BOOL, "b1", {0, 1, 1}, {0, 1, 1}},
    {IO_U8, "u1", {0, 200, 255}, {0, 200, 255}},
    {IO_I8, "i1", {0x80, 0xFF, 0x7F}, {-128, -1, 127}},
    {IO_U16, "u2", {0, 0, 0x34, 0x12, 0xFF, 0xFF}, {0, 0x1234, 65535}},
    {IO_I16, "i2", {0, 0x80, 0xFE, 0xFF, 0xFF, 0x7F}, {-32768, -2, 32767}},
    {IO_U32,
     "u4",
     {0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0x80, 255, 255, 255, 255},
     {0x12345678, 2147483648.0, 4294967295.0}},
    {IO_I32, "i4", {0, 0, 0, 0x80, 255, 255, 255, 255, 0x78, 0x56, 0x34, 0x12}, {-2147483648.0, -1, 0x12345678}},
    {IO_U64,
     "u8",
     {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80},
     {1, 4294967296.0, 9223372036854775808.0}},
    {IO_I64,
     "i8",
     {255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 2, 0, 0, 0},
     {-1, -9223372036854775808.0, 8589934592.0}},
    {IO_F16, "f2", {0x00, 0x3C, 0x00, 0xC5, 0x01, 0x00}, {1, -5, 5.9604644775390625e-8}},
    {IO_F32, "f4", {0, 0, 0x80, 0x3F, 0, 0, 0x20, 0xC1, 1, 0, 0, 0}, {1, -10, 1.40129846432481707e-45}},
    {IO_F64,
     "f8",
     {0, 0, 0, 0, 0, 0, 0xF0, 0x3F, 0, 0, 0, 0, 0, 0, 0x24, 0xC0, 0x9A, 0x99, 0x99, 0x99, 0x99, 0x99, 0xB9, 0x3F},
     {1, -10, 0.1}},
};
enum { n_samples = sizeof samples / sizeof samples[0] };

static void check_sample(const sample *s, char order, unsigned char version) {
    io_buffer b = {0};
    io_array a;
    unsigned char bytes[24], *copy;
    char text[100];
    size_t size = io_dtype_size(s->dtype);
    bool big = order == '>' || (order == '=' && base_is_big_endian());
    for (size_t i = 0; i < 3 * size; i++) bytes[i] = s->bytes[big ? i / size * size + size - 1 - i % size : i];
    snprintf(text, sizeof text, "{'descr': '%c%s', 'fortran_order': False, 'shape': (3,), }  \n", order, s->letter);
    put_npy(&b, version, text, bytes, 3 * size);
    segfm_error error = {0};
    if (CHECK(parse(b.data, b.size, &a, &error, &copy) == SEGFM_OK)) {
        CHECK(a.dtype == s->dtype && a.ndim == 1 && a.shape[0] == 3 && a.count == 3 && a.bytes == 3 * size);
        CHECK(!a.fortran && a.big_endian == (order == '>' || (order == '=' && base_is_big_endian())));
        float f[3];
        double d[3];
        int64_t w[3] = {77, 77, 77};
        io_array_to_f32(&a, f);
        io_array_to_f64(&a, d);
        segfm_status status = io_array_to_i64(&a, w, &error);
        bool fits = true;
        for (size_t i = 0; i < 3; i++) {
            CHECK(io_array_get(&a, i) == s->values[i] && d[i] == s->values[i] && f[i] == (float)s->values[i]);
            fits = fits && s->values[i] == floor(s->values[i]) && s->values[i] < 9223372036854775808.0;
        }
        CHECK(status == (fits ? SEGFM_OK : SEGFM_BAD_INPUT));
        for (size_t i = 0; i < 3; i++) CHECK(fits ? (double)w[i] == s->values[i] : w[i] == 77);
    } else printf("    %s: %s\n", text, error.message);
    free(copy);
    io_buffer_free(&b);
}

static void test_types(void) {
    for (int k = 0; k < n_samples; k++)
        for (unsigned char version = 1; version <= 3; version++) {
            check_sample(&samples[k], '<', version);
            check_sample(&samples[k], '>', version);
            check_sample(&samples[k], '=', version);
            if (io_dtype_size(samples[k].dtype) == 1) check_sample(&samples[k], '|', version);
        }
    CHECK(strcmp(io_dtype_name(IO_U8), "uint8") == 0 && strcmp(io_dtype_name(IO_F16), "float16") == 0);
    CHECK(strcmp(io_dtype_name(IO_OBJECT), "object") == 0 && strcmp(io_dtype_name(IO_BF16), "bfloat16") == 0);
    CHECK(io_dtype_size(IO_NONE) == 0 && io_dtype_size(IO_OBJECT) == 0 && io_dtype_size(IO_BF16) == 2);
    CHECK(io_dtype_size((io_dtype)99) == 0 && strcmp(io_dtype_name((io_dtype)99), "unknown") == 0);
}

/* The types and values that only arrays from elsewhere have, and the edges of the conversions. */
static void test_conversions(void) {
    static const unsigned char bf16[6] = {0x80, 0x3F, 0x80, 0xFF, 0xC0, 0x7F}; /* 1, -infinity, NaN */
    io_array a = {.dtype = IO_BF16, .ndim = 1, .shape = {3}, .count = 3, .data = bf16, .bytes = 6};
    float f[3];
    int64_t w[3] = {77, 77, 77};
    segfm_error error = {0};
    io_array_to_f32(&a, f);
    CHECK(f[0] == 1 && isinf(f[1]) && f[1] < 0 && isnan(f[2]));
    CHECK(io_array_get(&a, 0) == 1 && isnan(io_array_get(&a, 2)));
    CHECK(io_array_to_i64(&a, w, &error) == SEGFM_BAD_INPUT && w[0] == 77 && w[1] == 77);
    CHECK(strstr(error.message, "bfloat16") != NULL && strstr(error.message, "element 1 ") != NULL);

    static const unsigned char half[4] = {0x00, 0x7C, 0x01, 0x7E}; /* infinity, NaN */
    a = (io_array){.dtype = IO_F16, .ndim = 1, .shape = {2}, .count = 2, .data = half, .bytes = 4};
    io_array_to_f32(&a, f);
    CHECK(isinf(f[0]) && f[0] > 0 && isnan(f[1]));

    /* 2^24 + 1 steps of 2^40 and a bit: rounds up to float at once, but down by way of double. */
    unsigned char wide[16];
    base_put_le64(wide, ((uint64_t)0x1000001 << 36) + 1);
    base_put_le64(wide + 8, 0 - (((uint64_t)0x1000001 << 36) + 1));
    a = (io_array){.dtype = IO_I64, .ndim = 1, .shape = {2}, .count = 2, .data = wide, .bytes = 16};
    io_array_to_f32(&a, f);
    CHECK(f[0] == 0x1.000002p60f && f[1] == -0x1.000002p60f);
    CHECK(io_array_to_i64(&a, w, NULL) == SEGFM_OK && w[0] == ((int64_t)0x1000001 << 36) + 1 && w[1] == -w[0]);
    a.dtype = IO_U64;
    io_array_to_f32(&a, f);
    CHECK(f[0] == 0x1.000002p60f);
    CHECK(io_array_to_i64(&a, w, NULL) == SEGFM_BAD_INPUT);

    /* Doubles around the limits of int64: 2^63 does not fit, −2^63 does; a half is not whole. */
    static const double edges[6] = {
        9223372036854775808.0, -9223372036854775808.0, 0.5, -1e300, 9223372036854774784.0, -0.0};
    static const bool fits[6] = {false, true, false, false, true, true};
    for (int i = 0; i < 6; i++) {
        unsigned char p[8];
        uint64_t bits;
        memcpy(&bits, &edges[i], 8);
        base_put_le64(p, bits);
        a = (io_array){.dtype = IO_F64, .count = 1, .data = p, .bytes = 8};
        CHECK(io_array_to_i64(&a, w, NULL) == (fits[i] ? SEGFM_OK : SEGFM_BAD_INPUT));
        if (fits[i]) CHECK((double)w[0] == edges[i]);
    }
    a = (io_array){.dtype = IO_OBJECT, .count = 1, .data = wide, .bytes = 8};
    CHECK(io_array_to_i64(&a, w, &error) == SEGFM_BAD_INPUT && strstr(error.message, "object") != NULL);
}

/* ---- shapes ------------------------------------------------------------------------------------------------- */

static void test_fortran(void) {
    /* Element (i, j, k) of a 2 × 3 × 4 array is 100 i + 10 j + k; stored with i fastest. */
    uint8_t stored[24];
    for (unsigned i = 0; i < 2; i++)
        for (unsigned j = 0; j < 3; j++)
            for (unsigned k = 0; k < 4; k++) stored[i + 2 * j + 6 * k] = (uint8_t)(100 * i + 10 * j + k);
    io_buffer b = {0};
    io_array a;
    put_npy(&b, 1, "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3, 4), }\n", stored, 24);
    if (CHECK(io_npy_parse(b.data, b.size, &a, NULL) == SEGFM_OK)) {
        float f[24];
        double d[24];
        int64_t w[24];
        CHECK(a.fortran && a.ndim == 3 && io_array_get(&a, 1) == 100);
        io_array_to_f32(&a, f);
        io_array_to_f64(&a, d);
        CHECK(io_array_to_i64(&a, w, NULL) == SEGFM_OK);
        for (int i = 0; i < 24; i++) {
            int want = 100 * (i / 12) + 10 * (i / 4 % 3) + i % 4;
            CHECK(f[i] == (float)want && d[i] == want && w[i] == want);
        }
    }
    /* Eight dimensions, some of one element; and one dimension, where the order means nothing. */
    put_npy(&b, 1, "{'descr': '|u1', 'fortran_order': True, 'shape': (1, 2, 1, 3, 1, 1, 4, 1), }\n", stored, 24);
    if (CHECK(io_npy_parse(b.data, b.size, &a, NULL) == SEGFM_OK)) {
        float f[24];
        io_array_to_f32(&a, f);
        for (int i = 0; i < 24; i++) CHECK(f[i] == (float)(100 * (i / 12) + 10 * (i / 4 % 3) + i % 4));
    }
    put_npy(&b, 1, "{'descr': '|u1', 'fortran_order': True, 'shape': (24,), }\n", stored, 24);
    if (CHECK(io_npy_parse(b.data, b.size, &a, NULL) == SEGFM_OK)) {
        float f[24];
        io_array_to_f32(&a, f);
        for (int i = 0; i < 24; i++) CHECK(f[i] == (float)stored[i]);
    }
    io_buffer_free(&b);
}

static void test_shapes(void) {
    static const struct {
        const char *shape;
        int ndim;
        size_t count, dims[8];
    } good[] = {
        {"()", 0, 1, {0}},
        {"( )", 0, 1, {0}},
        {"(3,)", 1, 3, {3}},
        {"(3L,)", 1, 3, {3}},
        {"(2, 2)", 2, 4, {2, 2}},
        {"(2,2,)", 2, 4, {2, 2}},
        {"( 2 ,\t2\n)", 2, 4, {2, 2}},
        {"(0,)", 1, 0, {0}},
        {"(5, 0, 7)", 3, 0, {5, 0, 7}},
        {"(4294967296, 0, 4294967296, 4294967296)", 4, 0, {4294967296U, 0, 4294967296U, 4294967296U}},
        {"(1, 1, 1, 1, 1, 1, 1, 6)", 8, 6, {1, 1, 1, 1, 1, 1, 1, 6}},
    };
    io_buffer b = {0};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char text[160];
        const unsigned char data[12] = {1, 0, 2, 0, 3, 0};
        io_array a;
        unsigned char *copy;
        segfm_error error = {0};
        snprintf(text, sizeof text, "{'descr': '<u2', 'fortran_order': False, 'shape': %s, }", good[i].shape);
        put_npy(&b, 1, text, data, 2 * good[i].count);
        if (CHECK(parse(b.data, b.size, &a, &error, &copy) == SEGFM_OK)) {
            float f[8] = {-1};
            CHECK(a.ndim == good[i].ndim && a.count == good[i].count && a.bytes == 2 * good[i].count);
            for (int k = 0; k < a.ndim; k++) CHECK(a.shape[k] == good[i].dims[k]);
            io_array_to_f32(&a, f);
            CHECK(f[0] == (a.count > 0 ? 1.0f : -1.0f));
        } else printf("    %s: %s\n", text, error.message);
        free(copy);
    }
    io_buffer_free(&b);
}

/* ---- headers ------------------------------------------------------------------------------------------------ */

static void test_spellings(void) {
    static const char *const good[] = {
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }          \n", /* numpy 1 and 2 */
        "{'descr':'<f4','fortran_order':False,'shape':(2,)}",
        "{\"shape\": (2,), \"descr\": \"<f4\", \"fortran_order\": False}\n",
        " {\n\t'fortran_order' : False ,\r\n 'shape' : ( 2 , ) , 'descr' : '<f4' , } \n\n",
        "{'shape': (2L,), 'fortran_order': False, 'descr': '<f4'}",
    };
    io_buffer b = {0};
    const unsigned char data[8] = {0, 0, 0x80, 0x3F, 0, 0, 0, 0x40};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        for (unsigned char version = 1; version <= 3; version++) {
            io_array a;
            unsigned char *copy;
            segfm_error error = {0};
            put_npy(&b, version, good[i], data, 8);
            if (CHECK(parse(b.data, b.size, &a, &error, &copy) == SEGFM_OK))
                CHECK(a.dtype == IO_F32 && a.count == 2 && io_array_get(&a, 0) == 1 && io_array_get(&a, 1) == 2);
            else printf("    %s: %s\n", good[i], error.message);
            free(copy);
        }

    /* Objects: the data are a pickle of any size. */
    io_array a;
    put_npy(&b, 1, "{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }\n", "a pickle", 8);
    CHECK(io_npy_parse(b.data, b.size, &a, NULL) == SEGFM_OK);
    CHECK(a.dtype == IO_OBJECT && a.count == 6 && a.bytes == 8 && memcmp(a.data, "a pickle", 8) == 0);
    io_buffer_free(&b);
}

static void check_refused(const io_buffer *b, const char *sentence, const char *what) {
    io_array a = {.ndim = 77};
    unsigned char *copy;
    segfm_error error = {0};
    segfm_status status = parse(b->data, b->size, &a, &error, &copy);
    bool ok = status == SEGFM_BAD_INPUT && a.ndim == 77 && strstr(error.message, sentence) != NULL;
    if (!test_check(ok, sentence, __FILE__, __LINE__))
        printf("    %s: status %d, %s\n", what, (int)status, error.message);
    free(copy);
}

static void test_bad_headers(void) {
    io_buffer shortest = {(unsigned char[]){0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, 0, 0}, 10, 10};
    check_refused(&shortest, "need a dictionary", "a header of no bytes");
#define FIELDS "'fortran_order': False, 'shape': (2,)"
#define DESCR "'descr': '|u1', "
    static const struct {
        const char *text, *sentence;
    } bad[] = {
        {"", "need a dictionary"},
        {"     \n", "need a dictionary"},
        {"[1]", "need a dictionary"},
        {"{", "need a quoted string"},
        {"{}", "key 'descr' is missing"},
        {"{,}", "need a quoted string"},
        {"{" DESCR FIELDS, "need a comma or a closing brace"},
        {"{" DESCR FIELDS ",", "need a quoted string"},
        {"{" DESCR FIELDS ",,}", "need a quoted string"},
        {"{" DESCR FIELDS "} x", "more text after the dictionary"},
        {"{" DESCR FIELDS "}}", "more text after the dictionary"},
        {"{" DESCR DESCR FIELDS "}", "key 'descr' occurs twice"},
        {"{" DESCR "'extra': 1, " FIELDS "}", "unknown key 'extra'"},
        {"{" DESCR "'Shape': (2,), 'fortran_order': False}", "unknown key 'Shape'"},
        {"{" FIELDS "}", "key 'descr' is missing"},
        {"{" DESCR "'shape': (2,)}", "key 'fortran_order' is missing"},
        {"{" DESCR "'fortran_order': False}", "key 'shape' is missing"},
        {"{'descr' '|u1', " FIELDS "}", "need a colon"},
        {"{'descr': '|u1' " FIELDS "}", "need a comma or a closing brace"},
        {"{'descr': '|u1, " FIELDS "}", "type '|u1, '"}, /* up to the next quote */
        {"{'descr\": '|u1', " FIELDS "}", "unknown key"},
        {"{'de\\x73cr': '|u1', " FIELDS "}", "not plain"},
        {"{'descr\n': '|u1', " FIELDS "}", "not plain"},
        {"{'descr\xC3\xA4': '|u1', " FIELDS "}", "not plain"},
        {"{'a key that is far too long to be one of the three': 1}", "too long"},
        {"{'descr': '|u1", "a string does not end"},
        {"{'descr': u1, " FIELDS "}", "need a quoted string"},
        {"{'descr': [('a', '<f4'), ('b', '<i2')], " FIELDS "}", "structured records"},
        {"{'descr': '', " FIELDS "}", "type '' (an unknown type)"},
        {"{'descr': '<', " FIELDS "}", "type '<' (an unknown type)"},
        {"{'descr': '<f', " FIELDS "}", "type '<f'"},
        {"{'descr': 'f4', " FIELDS "}", "type 'f4'"},
        {"{'descr': '!f4', " FIELDS "}", "type '!f4'"},
        {"{'descr': '|f4', " FIELDS "}", "type '|f4'"},
        {"{'descr': '<f16', " FIELDS "}", "type '<f16'"},
        {"{'descr': '<f44', " FIELDS "}", "type '<f44'"},
        {"{'descr': '<f4 ', " FIELDS "}", "type '<f4 '"},
        {"{'descr': '<f1', " FIELDS "}", "type '<f1'"},
        {"{'descr': '<u3', " FIELDS "}", "type '<u3'"},
        {"{'descr': '<b2', " FIELDS "}", "type '<b2'"},
        {"{'descr': '<O', " FIELDS "}", "type '<O'"},
        {"{'descr': '<c8', " FIELDS "}", "type '<c8' (complex numbers)"},
        {"{'descr': '|S5', " FIELDS "}", "type '|S5' (byte strings)"},
        {"{'descr': '<U5', " FIELDS "}", "type '<U5' (text strings)"},
        {"{'descr': '|V2', " FIELDS "}", "type '|V2' (raw or structured records)"},
        {"{'descr': '<M8[ns]', " FIELDS "}", "type '<M8[ns]' (dates)"},
        {"{'descr': '<m8[s]', " FIELDS "}", "type '<m8[s]' (time spans)"},
        {"{" DESCR "'fortran_order': 0, 'shape': (2,)}", "True or False"},
        {"{" DESCR "'fortran_order': false, 'shape': (2,)}", "True or False"},
        {"{" DESCR "'fortran_order': , 'shape': (2,)}", "True or False"},
        {"{" DESCR "'fortran_order': Fals", "True or False"},
        {"{" DESCR "'fortran_order': Falsey, 'shape': (2,)}", "need a comma or a closing brace"},
        {"{" DESCR "'fortran_order': False, 'shape': 2}", "needs to be a tuple"},
        {"{" DESCR "'fortran_order': False, 'shape': [2]}", "needs to be a tuple"},
        {"{" DESCR "'fortran_order': False, 'shape': (2)}", "number in brackets"},
        {"{" DESCR "'fortran_order': False, 'shape': (2", "a comma or a closing bracket"},
        {"{" DESCR "'fortran_order': False, 'shape': (2,", "need a dimension"},
        {"{" DESCR "'fortran_order': False, 'shape': (", "need a dimension"},
        {"{" DESCR "'fortran_order': False, 'shape': (,)}", "need a dimension"},
        {"{" DESCR "'fortran_order': False, 'shape': (2,,)}", "need a dimension"},
        {"{" DESCR "'fortran_order': False, 'shape': (-2,)}", "need a dimension"},
        {"{" DESCR "'fortran_order': False, 'shape': (+2,)}", "need a dimension"},
        {"{" DESCR "'fortran_order': False, 'shape': (None,)}", "need a dimension"},
        {"{" DESCR "'fortran_order': False, 'shape': (2.0,)}", "a comma or a closing bracket"},
        {"{" DESCR "'fortran_order': False, 'shape': (2 2)}", "a comma or a closing bracket"},
        {"{" DESCR "'fortran_order': False, 'shape': (0x2,)}", "a comma or a closing bracket"},
        {"{" DESCR "'fortran_order': False, 'shape': (02,)}", "begins with a zero"},
        {"{" DESCR "'fortran_order': False, 'shape': (2LL,)}", "a comma or a closing bracket"},
        {"{" DESCR "'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 1, 1, 1, 2)}", "more than 8 dimensions"},
        {"{" DESCR "'fortran_order': False, 'shape': (99999999999999999999999,)}", "does not fit"},
        {"{" DESCR "'fortran_order': False, 'shape': (18446744073709551616,)}", "does not fit"},
        {"{" DESCR "'fortran_order': False, 'shape': (4294967296, 4294967296, 16)}", "does not fit"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (2305843009213693952,)}", "does not fit"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (2305843009213693951,)}", "has 2 bytes of data, need"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (4294967296, 4294967296, 16)}", "does not fit"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': ()}", "need 8 for 1 elements of float64"},
        {"{" DESCR "'fortran_order': False, 'shape': (3,)}", "has 2 bytes of data, need 3"},
        {"{" DESCR "'fortran_order': False, 'shape': (1,)}", "has 2 bytes of data, need 1"},
        {"{" DESCR "'fortran_order': False, 'shape': (0,)}", "has 2 bytes of data, need 0"},
    };
    io_buffer b = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        for (unsigned char version = 1; version <= 3; version++) {
            put_npy(&b, version, bad[i].text, "\1\2", 2);
            check_refused(&b, bad[i].sentence, bad[i].text);
        }

    put_npy(&b, 1, "{" DESCR FIELDS "}", "\1\2", 2);
    static const unsigned char versions[6][2] = {{0, 0}, {4, 0}, {255, 0}, {1, 1}, {2, 1}, {3, 9}};
    for (int i = 0; i < 6; i++) {
        memcpy(b.data + 6, versions[i], 2);
        check_refused(&b, "need 1.0, 2.0 or 3.0", "version");
    }
    for (size_t i = 0; i < 6; i++) {
        put_npy(&b, 1, "{" DESCR FIELDS "}", "\1\2", 2);
        b.data[i] ^= 1;
        check_refused(&b, "does not begin as one", "magic number");
    }
    for (unsigned char version = 1; version <= 3; version++) {
        put_npy(&b, version, "{" DESCR FIELDS "}", "\1\2", 2);
        size_t n = b.size;
        for (b.size = 0; b.size < n; b.size++) check_refused(&b, "", "cut short");
        b.size = n;
        memset(b.data + 8, 0xFF, version == 1 ? 2 : 4);
        check_refused(&b, "header needs", "header length");
        put_npy(&b, version, "{" DESCR FIELDS "}", "\1\2", 2);
        base_put_le16(b.data + 8, 0);
        check_refused(&b, "need a dictionary", "header length 0");
    }
    io_buffer_free(&b);
}

/* Any single bit flipped: parsed or refused, and what is parsed lies inside the file. */
static void test_flips(void) {
    io_buffer b = {0};
    put_npy(&b, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }\n", "12345678", 8);
    for (size_t bit = 0; bit < 8 * b.size; bit++) {
        io_array a;
        unsigned char *copy;
        b.data[bit / 8] ^= (unsigned char)(1U << bit % 8);
        if (parse(b.data, b.size, &a, NULL, &copy) == SEGFM_OK) {
            volatile double sum = 0; /* every element is read */
            CHECK(a.data >= copy && a.data + a.bytes == copy + b.size);
            CHECK(a.dtype == IO_OBJECT || a.bytes == a.count * io_dtype_size(a.dtype));
            for (size_t i = 0; i < a.count && a.dtype != IO_OBJECT; i++) sum = sum + io_array_get(&a, i);
        }
        free(copy);
        b.data[bit / 8] ^= (unsigned char)(1U << bit % 8);
    }
    io_buffer_free(&b);
}

/* ---- the writer --------------------------------------------------------------------------------------------- */

static void test_writer(void) {
    io_buffer b = {0};
    io_array a;
    size_t shape[8] = {2, 3, 1, 1, 1, 1, 1, 1};
    const float values[6] = {1, -2, 0.5f, 3e38f, 0, 1e-45f};
    CHECK(io_buffer_append(&b, "old", 3, NULL) == SEGFM_OK);
    CHECK(io_npy_write(&b, IO_F32, 2, shape, values, NULL) == SEGFM_OK && memcmp(b.data, "old", 3) == 0);
    static const char want[] = "\x93NUMPY\1\0\x76\0{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
    CHECK(memcmp(b.data + 3, want, sizeof want - 1) == 0);
    CHECK(b.size == 3 + 128 + 24 && b.data[3 + 127] == '\n' && b.data[3 + 126] == ' ');
    if (CHECK(io_npy_parse(b.data + 3, b.size - 3, &a, NULL) == SEGFM_OK)) {
        CHECK(a.dtype == IO_F32 && a.ndim == 2 && a.shape[0] == 2 && a.shape[1] == 3 && !a.big_endian && !a.fortran);
        for (size_t i = 0; i < 6; i++) CHECK(io_array_get(&a, i) == (double)values[i]);
    }

    for (int k = 0; k < n_samples; k++)
        for (int ndim = 0; ndim <= 8; ndim++) {
            /* native-endian input from the little-endian sample */
            size_t size = io_dtype_size(samples[k].dtype), count = ndim == 0 ? 1 : 3;
            unsigned char native[24];
            for (size_t i = 0; i < 3 * size; i++)
                native[i] = samples[k].bytes[base_is_big_endian() ? i / size * size + size - 1 - i % size : i];
            for (int d = 0; d < 8; d++) shape[d] = d == ndim - 1 ? 3 : 1;
            b.size = 0;
            CHECK(io_npy_write(&b, samples[k].dtype, ndim, shape, native, NULL) == SEGFM_OK);
            CHECK((b.size - count * size) % 64 == 0);
            if (CHECK(io_npy_parse(b.data, b.size, &a, NULL) == SEGFM_OK)) {
                CHECK(a.dtype == samples[k].dtype && a.ndim == ndim && a.count == count);
                for (size_t i = 0; i < count; i++) CHECK(io_array_get(&a, i) == samples[k].values[i]);
            }
        }

    for (int d = 0; d < 8; d++) shape[d] = SIZE_MAX; /* the longest header, of an empty array */
    shape[7] = 0;
    b.size = 0;
    CHECK(io_npy_write(&b, IO_F64, 8, shape, NULL, NULL) == SEGFM_OK);
    CHECK(io_npy_parse(b.data, b.size, &a, NULL) == SEGFM_OK && a.count == 0 && a.shape[0] == SIZE_MAX);

    segfm_error error = {0};
    size_t before = b.size;
    shape[7] = 2;
    CHECK(io_npy_write(&b, IO_U8, 8, shape, values, &error) == SEGFM_BAD_USAGE && b.size == before);
    CHECK(io_npy_write(&b, IO_U8, 9, shape, values, &error) == SEGFM_BAD_USAGE && b.size == before);
    CHECK(io_npy_write(&b, IO_U8, -1, shape, values, &error) == SEGFM_BAD_USAGE && b.size == before);
    static const io_dtype unwritable[3] = {IO_NONE, IO_BF16, IO_OBJECT};
    for (int i = 0; i < 3; i++)
        CHECK(io_npy_write(&b, unwritable[i], 1, shape, values, &error) == SEGFM_BAD_USAGE && b.size == before);
    CHECK(strstr(error.message, "object") != NULL);
    io_buffer_free(&b);
}

/* ---- strings, where they are fine ---------------------------------------------------------------------------- */

static segfm_status parse_texts(const char *descr, const char *shape, const void *data, size_t n, io_array *a,
                                io_buffer *b, segfm_error *error) {
    char text[200];
    snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': %s}", descr, shape);
    put_npy(b, 1, text, data, n);
    return io_npy_parse_texts(b->data, b->size, a, error);
}

static void test_texts(void) {
    static const unsigned char little[16] = "f\0\0\0g\0\0\0b\0\0\0\0\0\0", big[16] = "\0\0\0f\0\0\0g\0\0\0b\0\0\0";
    io_buffer b = {0};
    io_array a;
    segfm_error error = {0};
    for (int i = 0; i < 2; i++) {
        CHECK(parse_texts(i == 0 ? "<U2" : ">U2", "(2, 1)", i == 0 ? little : big, 16, &a, &b, &error) == SEGFM_OK);
        CHECK(a.dtype == IO_TEXT && a.ndim == 2 && a.count == 2 && a.bytes == 16);
        CHECK(io_array_is_text(&a, 0, "fg") && !io_array_is_text(&a, 0, "f") && !io_array_is_text(&a, 0, "fgh"));
        CHECK(io_array_is_text(&a, 1, "b") && !io_array_is_text(&a, 1, "bg") && !io_array_is_text(&a, 1, ""));
    }
    CHECK(parse_texts("<U2", "(3,)", little, 16, &a, &b, &error) == SEGFM_BAD_INPUT);
    CHECK(strstr(error.message, "has 16 bytes of data, need 24") != NULL);
    static const char *const bad[] = {"<U", "<Ux", "|U2", "U2", "<U2 ", "<U99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(parse_texts(bad[i], "(2,)", little, 16, &a, &b, &error) == SEGFM_BAD_INPUT);
    CHECK(parse_texts("<U999", "(4611686018427387904,)", little, 16, &a, &b, &error) == SEGFM_BAD_INPUT);
    CHECK(parse_texts("<f4", "(4,)", little, 16, &a, &b, &error) == SEGFM_OK && a.dtype == IO_F32);
    io_buffer_free(&b);
}

static void test_turning(void) {
    unsigned char bytes[] = "abcdefgh";
    io_turn_elements(bytes, 2, 4);
    CHECK(memcmp(bytes, "dcbahgfe", 8) == 0);
    io_turn_elements(bytes, 1, 8);
    CHECK(memcmp(bytes, "efghabcd", 8) == 0);
    io_turn_elements(bytes, 3, 2);
    CHECK(memcmp(bytes, "fehgbacd", 8) == 0);
    io_turn_elements(bytes, 8, 1);
    CHECK(memcmp(bytes, "fehgbacd", 8) == 0);
}

int main(void) {
    test_turning();
    test_types();
    test_conversions();
    test_fortran();
    test_shapes();
    test_spellings();
    test_bad_headers();
    test_flips();
    test_writer();
    test_texts();
    return test_summary();
}
