/* zip.c: archives made by Python's zipfile (as byte arrays), archives put together here record by record so that each
   field can be wrong in turn, and round trips of the writer. */
#include "../io/io.h"

#include "test.h"

/* Made with Python 3.11's zipfile, dates 2020-01-02: a member 'a.npy' of b'abc'*40, deflated, and a stored member 'b'
   of b'stored'. python_zip64: both opened with force_zip64=True, archive comment b'PK\5\6 comment'. python_stream: written
   to a stream without seek, so with data descriptors, 'b' with force_zip64=True. */
static const unsigned char python_zip64[252] = {
    0x50, 0x4b, 0x03, 0x04, 0x14, 0x00, 0x00, 0x00, 0x08, 0x00, 0x83, 0x18, 0x22, 0x50, 0x02, 0xf0, 0xae, 0x9c,
    0x08, 0x00, 0x00, 0x00, 0x78, 0x00, 0x00, 0x00, 0x05, 0x00, 0x14, 0x00, 0x61, 0x2e, 0x6e, 0x70, 0x79, 0x01,
    0x00, 0x10, 0x00, 0x78, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x4b, 0x4c, 0x4a, 0x4e, 0x1c, 0x08, 0x04, 0x00, 0x50, 0x4b, 0x03, 0x04, 0x14, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x83, 0x18, 0x22, 0x50, 0x0b, 0xf9, 0x43, 0x56, 0x06, 0x00, 0x00, 0x00, 0x06, 0x00, 0x00, 0x00, 0x01,
    0x00, 0x14, 0x00, 0x62, 0x01, 0x00, 0x10, 0x00, 0x06, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x06, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x73, 0x74, 0x6f, 0x72, 0x65, 0x64, 0x50, 0x4b, 0x01, 0x02, 0x14, 0x03,
    0x14, 0x00, 0x00, 0x00, 0x08, 0x00, 0x83, 0x18, 0x22, 0x50, 0x02, 0xf0, 0xae, 0x9c, 0x08, 0x00, 0x00, 0x00,
    0x78, 0x00, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80, 0x01,
    0x00, 0x00, 0x00, 0x00, 0x61, 0x2e, 0x6e, 0x70, 0x79, 0x50, 0x4b, 0x01, 0x02, 0x14, 0x03, 0x14, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x83, 0x18, 0x22, 0x50, 0x0b, 0xf9, 0x43, 0x56, 0x06, 0x00, 0x00, 0x00, 0x06, 0x00, 0x00,
    0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80, 0x01, 0x3f, 0x00, 0x00,
    0x00, 0x62, 0x50, 0x4b, 0x05, 0x06, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x02, 0x00, 0x62, 0x00, 0x00, 0x00,
    0x78, 0x00, 0x00, 0x00, 0x0c, 0x00, 0x50, 0x4b, 0x05, 0x06, 0x20, 0x63, 0x6f, 0x6d, 0x6d, 0x65, 0x6e, 0x74,
};
static const unsigned char python_stream[260] = {
    0x50, 0x4b, 0x03, 0x04, 0x14, 0x00, 0x08, 0x00, 0x08, 0x00, 0x83, 0x18, 0x22, 0x50, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00, 0x61, 0x2e, 0x6e, 0x70, 0x79, 0x4b, 0x4c, 0x4a,
    0x4e, 0x1c, 0x08, 0x04, 0x00, 0x50, 0x4b, 0x07, 0x08, 0x02, 0xf0, 0xae, 0x9c, 0x08, 0x00, 0x00, 0x00, 0x78, 0x00,
    0x00, 0x00, 0x50, 0x4b, 0x03, 0x04, 0x14, 0x00, 0x08, 0x00, 0x00, 0x00, 0x83, 0x18, 0x22, 0x50, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x14, 0x00, 0x62, 0x01, 0x00, 0x10, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x73, 0x74, 0x6f, 0x72,
    0x65, 0x64, 0x50, 0x4b, 0x07, 0x08, 0x0b, 0xf9, 0x43, 0x56, 0x06, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x06,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x50, 0x4b, 0x01, 0x02, 0x14, 0x03, 0x14, 0x00, 0x08, 0x00, 0x08, 0x00,
    0x83, 0x18, 0x22, 0x50, 0x02, 0xf0, 0xae, 0x9c, 0x08, 0x00, 0x00, 0x00, 0x78, 0x00, 0x00, 0x00, 0x05, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80, 0x01, 0x00, 0x00, 0x00, 0x00, 0x61, 0x2e, 0x6e, 0x70,
    0x79, 0x50, 0x4b, 0x01, 0x02, 0x14, 0x03, 0x14, 0x00, 0x08, 0x00, 0x00, 0x00, 0x83, 0x18, 0x22, 0x50, 0x0b, 0xf9,
    0x43, 0x56, 0x06, 0x00, 0x00, 0x00, 0x06, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x80, 0x01, 0x3b, 0x00, 0x00, 0x00, 0x62, 0x50, 0x4b, 0x05, 0x06, 0x00, 0x00, 0x00, 0x00, 0x02,
    0x00, 0x02, 0x00, 0x62, 0x00, 0x00, 0x00, 0x8c, 0x00, 0x00, 0x00, 0x00, 0x00,
};

/* An archive in memory of exactly n bytes, so that the sanitizers see a read past the end. */
static unsigned char *exact_copy(const unsigned char *p, size_t n) {
    unsigned char *copy = malloc(n > 0 ? n : 1);
    if (copy == NULL) abort();
    if (n > 0) memcpy(copy, p, n);
    return copy;
}

static bool holds(const io_zip *zip, const char *name, const void *want, size_t n) {
    const io_zip_entry *e = io_zip_find(zip, name);
    io_buffer out = {0};
    bool same = e != NULL && e->size == n && io_zip_read(zip, e, &out, NULL) == SEGFM_OK && out.size == n &&
                (n == 0 || memcmp(out.data, want, n) == 0);
    io_buffer_free(&out);
    return same;
}

static void fill_abc(unsigned char *p, size_t n) {
    for (size_t i = 0; i < n; i++) p[i] = (unsigned char)("abc"[i % 3]);
}

/* ---- Python's archives -------------------------------------------------------------------------------------- */

static void check_python(const unsigned char *bytes, size_t n) {
    unsigned char abc[120], *copy = exact_copy(bytes, n);
    const unsigned char *data = NULL;
    io_zip zip;
    segfm_error error = {0};
    fill_abc(abc, sizeof abc);
    if (CHECK(io_zip_open(copy, n, &zip, NULL) == SEGFM_OK)) {
        CHECK(io_is_zip(copy, n) && zip.count == 2 && zip.size == n);
        CHECK(strcmp(zip.entries[0].name, "a.npy") == 0 && zip.entries[0].method == 8);
        CHECK(holds(&zip, "a.npy", abc, sizeof abc) && holds(&zip, "b", "stored", 6));
        CHECK(io_zip_view(&zip, io_zip_find(&zip, "b"), &data, NULL) == SEGFM_OK && memcmp(data, "stored", 6) == 0);
        CHECK(io_zip_view(&zip, &zip.entries[0], &data, &error) == SEGFM_BAD_INPUT);
        CHECK(strstr(error.message, "'a.npy': is compressed") != NULL);
        CHECK(io_zip_find(&zip, "a") == NULL && io_zip_find(&zip, "a.npy2") == NULL && io_zip_find(&zip, "") == NULL);
        io_zip_close(&zip);
        CHECK(zip.entries == NULL && zip.count == 0);
    }
    free(copy);
    /* Cut short anywhere, it is refused. */
    for (size_t cut = 0; cut < n; cut++) {
        copy = exact_copy(bytes, cut);
        error.message[0] = '\0';
        CHECK(io_zip_open(copy, cut, &zip, &error) == SEGFM_BAD_INPUT && error.message[0] != '\0');
        free(copy);
    }
}

/* Any single bit flipped: never a crash, and what is read has the right CRC, so it is the right data. */
static void test_flips(void) {
    unsigned char abc[120];
    fill_abc(abc, sizeof abc);
    for (size_t bit = 0; bit < 8 * sizeof python_zip64; bit++) {
        unsigned char *copy = exact_copy(python_zip64, sizeof python_zip64);
        io_zip zip;
        copy[bit / 8] ^= (unsigned char)(1U << bit % 8);
        if (io_zip_open(copy, sizeof python_zip64, &zip, NULL) == SEGFM_OK) {
            for (size_t i = 0; i < zip.count; i++) {
                io_buffer out = {0};
                if (io_zip_read(&zip, &zip.entries[i], &out, NULL) == SEGFM_OK)
                    CHECK(i == 0 ? out.size == 120 && memcmp(out.data, abc, 120) == 0
                                 : out.size == 6 && memcmp(out.data, "stored", 6) == 0);
                else CHECK(out.size == 0);
                io_buffer_free(&out);
            }
            io_zip_close(&zip);
        }
        free(copy);
    }
}

/* ---- archives made field by field --------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    const char *data; /* stored; its size is strlen */
    unsigned flags;
    bool zip64_local, zip64_central; /* sizes (and offset) in zip64 fields */
    const char *local_name;          /* NULL: name */
    bool empty_extras;               /* five fields without content in the directory */
} member;

typedef struct {
    size_t local[8], central[8], end64, locator, end; /* offsets of the records */
} layout;

static void put16(io_buffer *b, unsigned v) {
    unsigned char p[2];
    base_put_le16(p, (uint16_t)v);
    io_buffer_append(b, p, 2, NULL);
}

static void put32(io_buffer *b, uint64_t v) {
    unsigned char p[4];
    base_put_le32(p, (uint32_t)v);
    io_buffer_append(b, p, 4, NULL);
}

static void put64(io_buffer *b, uint64_t v) {
    unsigned char p[8];
    base_put_le64(p, v);
    io_buffer_append(b, p, 8, NULL);
}

static void put_string(io_buffer *b, const char *s) { io_buffer_append(b, s, strlen(s), NULL); }

static void put_local(io_buffer *b, const member *m) {
    const char *name = m->local_name != NULL ? m->local_name : m->name;
    bool later = (m->flags & 8) != 0;
    uint64_t size = later ? 0 : strlen(m->data);
    uint32_t crc = io_crc32(0, m->data, strlen(m->data));
    put32(b, 0x04034B50);
    put16(b, 20), put16(b, m->flags), put16(b, 0), put32(b, 0x210000);
    put32(b, later ? 0 : crc);
    put32(b, m->zip64_local ? 0xFFFFFFFFU : size), put32(b, m->zip64_local ? 0xFFFFFFFFU : size);
    put16(b, (unsigned)strlen(name)), put16(b, m->zip64_local ? 20 : 0);
    put_string(b, name);
    if (m->zip64_local) put16(b, 1), put16(b, 16), put64(b, size), put64(b, size);
    put_string(b, m->data);
    if (later) put32(b, 0x08074B50), put32(b, crc), put32(b, strlen(m->data)), put32(b, strlen(m->data));
}

/* With a foreign extra field before the zip64 one, and a comment. */
static void put_central(io_buffer *b, const member *m, size_t local) {
    uint64_t size = strlen(m->data);
    put32(b, 0x02014B50);
    put16(b, 20), put16(b, 20), put16(b, m->flags), put16(b, 0), put32(b, 0x210000);
    put32(b, io_crc32(0, m->data, size));
    put32(b, m->zip64_central ? 0xFFFFFFFFU : size), put32(b, m->zip64_central ? 0xFFFFFFFFU : size);
    put16(b, (unsigned)strlen(m->name)), put16(b, (m->zip64_central ? 34U : 6U) + (m->empty_extras ? 20U : 0U)),
        put16(b, 2);
    put16(b, 0), put16(b, 0), put32(b, 0);
    put32(b, m->zip64_central ? 0xFFFFFFFFU : local);
    put_string(b, m->name);
    put16(b, 0x5455), put16(b, 2), put16(b, 0);
    if (m->zip64_central) put16(b, 1), put16(b, 24), put64(b, size), put64(b, size), put64(b, local);
    for (int i = 0; i < 5 && m->empty_extras; i++) put16(b, 0xCAFE), put16(b, 0);
    put_string(b, "hi");
}

static layout build(io_buffer *b, const member *members, size_t n, bool end64, const char *comment) {
    layout l = {0};
    b->size = 0;
    for (size_t i = 0; i < n; i++) {
        l.local[i] = b->size;
        put_local(b, &members[i]);
    }
    size_t begin = b->size;
    for (size_t i = 0; i < n; i++) {
        l.central[i] = b->size;
        put_central(b, &members[i], l.local[i]);
    }
    size_t size = b->size - begin;
    l.end64 = b->size;
    if (end64) {
        put32(b, 0x06064B50);
        put64(b, 44), put16(b, 45), put16(b, 45), put32(b, 0), put32(b, 0);
        put64(b, n), put64(b, n), put64(b, size), put64(b, begin);
        l.locator = b->size;
        put32(b, 0x07064B50);
        put32(b, 0), put64(b, l.end64), put32(b, 1);
    }
    l.end = b->size;
    put32(b, 0x06054B50);
    put16(b, 0), put16(b, 0), put16(b, end64 ? 0xFFFF : (unsigned)n), put16(b, end64 ? 0xFFFF : (unsigned)n);
    put32(b, end64 ? 0xFFFFFFFFU : size), put32(b, end64 ? 0xFFFFFFFFU : begin);
    put16(b, (unsigned)strlen(comment));
    put_string(b, comment);
    return l;
}

static void test_valid(void) {
    static const char text[] = "one two three";
    io_buffer b = {0};
    for (unsigned variant = 0; variant < 32; variant++) {
        const member members[4] = {{.name = "first/a.npy", .data = "first data", .zip64_local = (variant & 1) != 0},
                                   {.name = "empty", .data = "", .empty_extras = true},
                                   {.name = "\xC3\xA4",
                                    .data = text,
                                    .flags = (variant & 2) != 0 ? 8 : 0,
                                    .zip64_central = (variant & 4) != 0},
                                   {.name = "folder/", .data = "", .flags = 0x800}};
        build(&b, members, 4, (variant & 8) != 0, (variant & 16) != 0 ? "a comment, PK\5\6 and so on" : "");
        unsigned char *copy = exact_copy(b.data, b.size);
        io_zip zip;
        segfm_error error = {0};
        if (CHECK(io_zip_open(copy, b.size, &zip, &error) == SEGFM_OK)) {
            CHECK(zip.count == 4 && zip.entries[2].size == sizeof text - 1 && zip.entries[2].crc != 0);
            CHECK(holds(&zip, "first/a.npy", "first data", 10) && holds(&zip, "empty", NULL, 0));
            CHECK(holds(&zip, "\xC3\xA4", text, sizeof text - 1) && holds(&zip, "folder/", NULL, 0));
            io_zip_close(&zip);
        } else printf("    %s\n", error.message);
        free(copy);
    }
    build(&b, NULL, 0, false, "");
    io_zip zip;
    CHECK(io_is_zip(b.data, b.size) && io_zip_open(b.data, b.size, &zip, NULL) == SEGFM_OK && zip.count == 0);
    io_zip_close(&zip);
    CHECK(!io_is_zip(b.data, 21) && !io_is_zip((const unsigned char *)"PK\3\5ssssssssssssssssssssssss", 28));
    io_buffer_free(&b);
}

static void check_refused(const io_buffer *b, const char *sentence, int line) {
    unsigned char *copy = exact_copy(b->data, b->size);
    io_zip zip = {.size = 7, .count = 9};
    segfm_error error = {0};
    segfm_status status = io_zip_open(copy, b->size, &zip, &error);
    bool untouched = zip.size == 7 && zip.count == 9 && zip.entries == NULL;
    bool ok = status == SEGFM_BAD_INPUT && untouched && strstr(error.message, sentence) != NULL;
    if (!test_check(ok, sentence, __FILE__, line)) printf("    status %d, message: %s\n", (int)status, error.message);
    if (status == SEGFM_OK) io_zip_close(&zip);
    free(copy);
}

/* Two stored members, the second with zip64 fields; `size` bytes at a record's field become `value`. */
typedef struct {
    enum { in_local, in_local2, in_central, in_central2, in_end64, in_locator, in_end } record;
    size_t field, size;
    uint64_t value;
    const char *sentence;
    int line;
} damage;

static void test_fields(void) {
    static const damage damages[] = {
        {in_end, 0, 4, 0, "no end record", __LINE__},
        {in_end, 20, 2, 1, "no end record", __LINE__}, /* a comment longer than the file */
        {in_end, 4, 2, 1, "split over several disks", __LINE__},
        {in_end, 6, 2, 1, "split over several disks", __LINE__},
        {in_end, 8, 2, 1, "split over several disks", __LINE__},
        {in_end, 12, 4, 5, "end record and the zip64 end record disagree", __LINE__},
        {in_end, 16, 4, 5, "end record and the zip64 end record disagree", __LINE__},
        {in_locator, 0, 4, 0, "the central directory does not end at the end record", __LINE__},
        {in_locator, 4, 4, 1, "split over several disks", __LINE__},
        {in_locator, 16, 4, 2, "split over several disks", __LINE__},
        {in_locator, 8, 8, 0, "zip64 end record is not where", __LINE__},
        {in_locator, 8, 8, UINT64_MAX, "zip64 end record is not where", __LINE__},
        {in_end64, 4, 8, 45, "does not reach to its locator", __LINE__},
        {in_end64, 4, 8, UINT64_MAX, "does not reach to its locator", __LINE__},
        {in_end64, 16, 4, 1, "split over several disks", __LINE__},
        {in_end64, 20, 4, 1, "split over several disks", __LINE__},
        {in_end64, 24, 8, 1, "split over several disks", __LINE__},
        {in_end64, 40, 8, 1, "does not end at the zip64 end record", __LINE__},
        {in_end64, 48, 8, 1, "does not end at the zip64 end record", __LINE__},
        {in_end64, 48, 8, UINT64_MAX, "does not end at the zip64 end record", __LINE__},
        {in_central, 0, 4, 0, "cut short or damaged", __LINE__},
        {in_central2, 0, 4, 0, "cut short or damaged", __LINE__},
        {in_central, 28, 2, 0xFFFF, "cut short or damaged", __LINE__},
        {in_central, 30, 2, 0xFFFF, "cut short or damaged", __LINE__},
        {in_central, 32, 2, 0xFFFF, "cut short or damaged", __LINE__},
        {in_central2, 32, 2, 3, "cut short or damaged", __LINE__},
        {in_central2, 32, 2, 1, "more bytes than entries", __LINE__},
        {in_central, 28, 2, 0, "name is empty", __LINE__},
        {in_central, 46, 1, 0, "zero byte", __LINE__},
        {in_central, 8, 2, 1, "encrypted", __LINE__},
        {in_central, 8, 2, 64, "encrypted", __LINE__},
        {in_central, 8, 2, 0x2000, "encrypted", __LINE__},
        {in_central, 8, 2, 32, "patch data", __LINE__},
        {in_central, 10, 2, 12, "method is 12, need 0 (stored) or 8 (deflated)", __LINE__},
        {in_central, 10, 2, 8, "disagree in the method", __LINE__},
        {in_central, 16, 4, 0, "disagree in sizes or CRC", __LINE__},
        {in_central, 20, 4, 4, "sizes contradict", __LINE__},
        {in_central, 24, 4, 4, "sizes contradict", __LINE__},
        {in_central, 20, 4, 0xFFFFFFFF, "extra fields are malformed", __LINE__},
        {in_central, 24, 4, 0xFFFFFFFF, "extra fields are malformed", __LINE__},
        {in_central, 42, 4, 0xFFFFFFFF, "extra fields are malformed", __LINE__},
        {in_central, 34, 2, 1, "split over several disks", __LINE__},
        {in_central, 34, 2, 0xFFFF, "split over several disks", __LINE__},
        {in_central, 42, 4, 1, "local header is not where", __LINE__},
        {in_central, 42, 4, 0xFFFFFFF0, "local header is not where", __LINE__},
        {in_central, 46, 1, 'x', "disagree in the name", __LINE__},
        {in_central2, 46 + 1 + 2, 2, 500, "extra fields are malformed", __LINE__}, /* the foreign field's size */
        {in_central2, 46 + 1 + 6, 2, 2, "extra fields are malformed", __LINE__},   /* no zip64 field */
        {in_central2, 46 + 1 + 8, 2, 16, "extra fields are malformed", __LINE__},  /* too short for the offset */
        {in_central2, 46 + 1 + 10, 8, 1000, "sizes contradict", __LINE__},
        {in_central2, 46 + 1 + 26, 8, UINT64_MAX, "local header is not where", __LINE__},
        {in_local, 0, 4, 0, "local header is not where", __LINE__},
        {in_local, 6, 2, 1, "encrypted", __LINE__},
        {in_local, 8, 2, 8, "disagree in the method", __LINE__},
        {in_local, 14, 4, 1, "disagree in sizes or CRC", __LINE__},
        {in_local, 18, 4, 1, "disagree in sizes or CRC", __LINE__},
        {in_local, 22, 4, 1, "disagree in sizes or CRC", __LINE__},
        {in_local, 18, 4, 0xFFFFFFFF, "extra fields are malformed", __LINE__},
        {in_local, 26, 2, 2, "disagree in the name", __LINE__},
        {in_local, 26, 2, 0xFFFF, "local header does not fit", __LINE__},
        {in_local, 28, 2, 0xFFFF, "local header does not fit", __LINE__},
        {in_local, 30, 1, 'x', "disagree in the name", __LINE__},
        {in_local2, 30 + 1 + 2, 2, 17, "extra fields are malformed", __LINE__},
        {in_local2, 30 + 1 + 4, 8, 7, "disagree in sizes or CRC", __LINE__},
        {in_local2, 30 + 1 + 12, 8, UINT64_MAX, "disagree in sizes or CRC", __LINE__},
    };
    static const member members[2] = {{.name = "a", .data = "some data"},
                                      {.name = "b", .data = "more data", .zip64_local = true, .zip64_central = true}};
    io_buffer b = {0};
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        const damage *d = &damages[i];
        layout l = build(&b, members, 2, true, "");
        const size_t at[7] = {l.local[0], l.local[1], l.central[0], l.central[1], l.end64, l.locator, l.end};
        for (size_t k = 0; k < d->size; k++)
            b.data[at[d->record] + d->field + k] = (unsigned char)(d->value >> 8 * k & 0xFFU);
        check_refused(&b, d->sentence, d->line);
    }

    layout l = build(&b, members, 2, true, ""); /* more entries than the directory has room for: no memory is taken */
    base_put_le64(b.data + l.end64 + 24, (uint64_t)1 << 60);
    base_put_le64(b.data + l.end64 + 32, (uint64_t)1 << 60);
    check_refused(&b, "too small for its number of entries", __LINE__);
    l = build(&b, members, 2, false, "");
    base_put_le16(b.data + l.end + 8, 1);
    base_put_le16(b.data + l.end + 10, 1);
    check_refused(&b, "more bytes than entries", __LINE__);
    l = build(&b, members, 2, false, "");
    base_put_le32(b.data + l.end + 16, (uint32_t)l.central[0] + 1);
    check_refused(&b, "does not end at the end record", __LINE__);
    l = build(&b, members, 2, false, "");
    base_put_le32(b.data + l.end + 12, 0xFFFFFFF0U);
    check_refused(&b, "does not end at the end record", __LINE__);
    l = build(&b, members, 1, false, "");
    base_put_le16(b.data + l.end + 8, 0);
    base_put_le16(b.data + l.end + 10, 0);
    check_refused(&b, "more bytes than entries", __LINE__);
    io_buffer_free(&b);
}

static void test_members(void) {
    io_buffer b = {0};
    const member twice[3] = {{.name = "a", .data = "1"}, {.name = "b", .data = "2"}, {.name = "a", .data = "3"}};
    build(&b, twice, 3, false, "");
    check_refused(&b, "two members have the name 'a'", __LINE__);

    const member renamed[1] = {{.name = "a", .data = "1", .local_name = "b"}};
    build(&b, renamed, 1, false, "");
    check_refused(&b, "disagree in the name", __LINE__);

    /* The second member lies inside the first one's data. */
    const member inner = {.name = "in", .data = "xyz"};
    io_buffer hidden = {0};
    put_local(&hidden, &inner);
    char data[64] = {0};
    for (size_t i = 0; i < hidden.size; i++) data[i] = hidden.data[i] != 0 ? (char)hidden.data[i] : '!';
    const member nested[2] = {{.name = "out", .data = data}, {.name = "in", .data = "xyz"}};
    layout l = build(&b, nested, 2, false, "");
    memcpy(b.data + l.local[0] + 33, hidden.data, hidden.size);
    uint32_t crc = io_crc32(0, hidden.data, hidden.size);
    base_put_le32(b.data + l.local[0] + 14, crc);
    base_put_le32(b.data + l.central[0] + 16, crc);
    io_zip zip;
    if (CHECK(io_zip_open(b.data, b.size, &zip, NULL) == SEGFM_OK)) { /* not yet: "in" still points at its own place */
        CHECK(holds(&zip, "out", hidden.data, hidden.size));
        io_zip_close(&zip);
    }
    base_put_le32(b.data + l.central[1] + 42, (uint32_t)l.local[0] + 33);
    check_refused(&b, "two members overlap", __LINE__);
    base_put_le32(b.data + l.central[1] + 42, (uint32_t)l.local[0]);
    check_refused(&b, "disagree in the name", __LINE__);
    const member copied[2] = {{.name = "a", .data = "1"}, {.name = "a", .data = "1"}};
    l = build(&b, copied, 2, false, "");
    base_put_le32(b.data + l.central[1] + 42, (uint32_t)l.local[0]);
    check_refused(&b, "two members overlap", __LINE__);

    /* Two zip64 fields; a local header beyond the archive; a zip64 locator with no room before it. */
    const member large = {.name = "a", .data = "123", .zip64_central = true};
    l = build(&b, &large, 1, false, "");
    base_put_le16(b.data + l.central[0] + 46 + 1, 1);
    check_refused(&b, "the extra fields are malformed", __LINE__);
    base_put_le16(b.data + l.central[0] + 46 + 1, 0x5455);
    base_put_le64(b.data + l.end - 2 - 8, b.size); /* before the comment */
    check_refused(&b, "a local header is not where the directory says", __LINE__);
    b.size = 0;
    put32(&b, 0x07064B50), put32(&b, 0), put64(&b, 0), put32(&b, 1);
    put32(&b, 0x06054B50), put64(&b, 0), put64(&b, 0), put16(&b, 0);
    check_refused(&b, "the zip64 end record is not where its locator says", __LINE__);

    /* The data run into the directory. */
    const member one[1] = {{.name = "a", .data = "123", .flags = 8}};
    l = build(&b, one, 1, false, "");
    base_put_le32(b.data + l.central[0] + 20, 200);
    base_put_le32(b.data + l.central[0] + 24, 200);
    check_refused(&b, "data do not fit", __LINE__);
    io_buffer_free(&hidden);
    io_buffer_free(&b);
}

/* What only shows when a member is read. */
static void test_data(void) {
    io_buffer b = {0}, out = {0};
    const member one[1] = {{.name = "a", .data = "0123456789"}};
    const unsigned char *data = NULL;
    segfm_error error = {0};
    io_zip zip;
    layout l = build(&b, one, 1, false, "");
    b.data[l.local[0] + 31 + 4] ^= 1;
    io_buffer_append(&out, "old", 3, NULL);
    if (CHECK(io_zip_open(b.data, b.size, &zip, NULL) == SEGFM_OK)) {
        CHECK(io_zip_read(&zip, &zip.entries[0], &out, &error) == SEGFM_BAD_INPUT && out.size == 3);
        CHECK(strstr(error.message, "'a': CRC of the data is") != NULL);
        CHECK(io_zip_view(&zip, &zip.entries[0], &data, &error) == SEGFM_BAD_INPUT && data == NULL);
        io_zip_close(&zip);
    }
    /* Deflated members that give more, less, or something else than promised; the stream begins after the name. */
    for (int change = 0; change < 6; change++) {
        unsigned char *copy = exact_copy(python_stream, sizeof python_stream);
        if (CHECK(io_zip_open(copy, sizeof python_stream, &zip, NULL) == SEGFM_OK)) {
            io_zip_entry e = zip.entries[0];
            static const char *const sentence[6] = {"'a.npy': deflate stream", "need", "CRC",
                                                    "'a.npy': deflate stream", "need", "'a.npy': deflate stream"};
            if (change == 0) e.size--;
            if (change == 1) e.size++;
            if (change == 2) e.crc++;
            if (change == 3) e.compressed_size--;
            if (change == 4) e.compressed_size++;
            if (change == 5) copy[e.data_offset] = 7;
            error.message[0] = '\0';
            CHECK(io_zip_read(&zip, &e, &out, &error) == SEGFM_BAD_INPUT && out.size == 3);
            CHECK(strstr(error.message, sentence[change]) != NULL && strstr(error.message, "'a.npy'") != NULL);
            CHECK(io_zip_read(&zip, &e, &out, NULL) == SEGFM_BAD_INPUT);
            io_zip_close(&zip);
        }
        free(copy);
    }
    io_buffer_free(&out);
    io_buffer_free(&b);
}

/* A size that the compressed bytes cannot give is refused before any memory is taken. */
static void test_size_claims(void) {
    unsigned char *copy = exact_copy(python_stream, sizeof python_stream);
    io_zip zip;
    segfm_error error = {0};
    size_t central = 0;
    while (base_le32(copy + central) != 0x02014B50) central++;
    base_put_le32(copy + central + 24, 0xFFFFFFFEU);
    CHECK(io_zip_open(copy, sizeof python_stream, &zip, &error) == SEGFM_BAD_INPUT);
    CHECK(strstr(error.message, "sizes contradict") != NULL);
    uint32_t most = base_le32(copy + central + 20) * 1032 + 1031; /* deflate can give no more of so few bytes */
    base_put_le32(copy + central + 24, most + 1);
    CHECK(io_zip_open(copy, sizeof python_stream, &zip, &error) == SEGFM_BAD_INPUT);
    base_put_le32(copy + central + 24, most);
    if (CHECK(io_zip_open(copy, sizeof python_stream, &zip, &error) == SEGFM_OK)) io_zip_close(&zip);
    free(copy);
}

/* ---- the writer --------------------------------------------------------------------------------------------- */

static void test_writer(void) {
    enum { n_long = 100000 };
    unsigned char *abc = malloc(n_long), *noise = malloc(n_long);
    if (abc == NULL || noise == NULL) abort();
    fill_abc(abc, n_long);
    uint32_t s = 1;
    for (size_t i = 0; i < n_long; i++) noise[i] = (unsigned char)((s = s * 1664525U + 1013904223U) >> 24);
    io_zip_writer w[2] = {0};
    for (int k = 0; k < 2; k++) {
        CHECK(io_zip_add(&w[k], "empty", NULL, 0, NULL) == SEGFM_OK);
        CHECK(io_zip_add(&w[k], "abc.npy", abc, n_long, NULL) == SEGFM_OK);
        CHECK(io_zip_add(&w[k], "noise", noise, n_long, NULL) == SEGFM_OK);
        CHECK(io_zip_add(&w[k], "deep/\xC3\xA4.txt", "1", 1, NULL) == SEGFM_OK);
        CHECK(io_zip_finish(&w[k], NULL) == SEGFM_OK);
    }
    CHECK(w[0].archive.size == w[1].archive.size &&
          memcmp(w[0].archive.data, w[1].archive.data, w[0].archive.size) == 0);
    unsigned char *copy = exact_copy(w[0].archive.data, w[0].archive.size);
    io_zip zip;
    if (CHECK(io_zip_open(copy, w[0].archive.size, &zip, NULL) == SEGFM_OK)) {
        CHECK(io_is_zip(copy, zip.size) && zip.count == 4);
        CHECK(holds(&zip, "empty", NULL, 0) && holds(&zip, "abc.npy", abc, n_long));
        CHECK(holds(&zip, "noise", noise, n_long) && holds(&zip, "deep/\xC3\xA4.txt", "1", 1));
        CHECK(zip.entries[1].method == 8 && zip.entries[1].compressed_size < n_long / 100 + 3000);
        CHECK(zip.entries[2].method == 0 && zip.entries[0].method == 0);
        CHECK(base_le16(copy + 12) == 0x21 && base_le16(copy + 10) == 0); /* 1980-01-01, midnight */
        io_zip_close(&zip);
    }
    for (size_t cut = w[0].archive.size - 300; cut < w[0].archive.size; cut++)
        CHECK(io_zip_open(copy, cut, &zip, NULL) == SEGFM_BAD_INPUT);
    free(copy);
    free(abc);
    free(noise);
    io_zip_writer_free(&w[0]);
    io_zip_writer_free(&w[1]);
    CHECK(w[0].archive.data == NULL && w[0].count == 0);
}

static void test_writer_misuse(void) {
    io_zip_writer w = {0};
    segfm_error error = {0};
    char *name = malloc(65537);
    if (name == NULL) abort();
    memset(name, 'n', 65536);
    name[65536] = '\0';
    CHECK(io_zip_add(&w, "", "x", 1, &error) == SEGFM_BAD_USAGE && w.archive.size == 0 && w.count == 0);
    CHECK(io_zip_add(&w, name, "x", 1, &error) == SEGFM_BAD_USAGE && w.archive.size == 0);
    CHECK(io_zip_add(&w, name + 1, "x", 1, NULL) == SEGFM_OK && w.count == 1);
    CHECK(io_zip_add(&w, "a", "x", 1, NULL) == SEGFM_OK && io_zip_add(&w, "a", "y", 1, NULL) == SEGFM_OK);
    CHECK(io_zip_finish(&w, &error) == SEGFM_BAD_USAGE && error.status == SEGFM_BAD_USAGE);
    CHECK(strstr(error.message, "two members have the name 'a'") != NULL);
    CHECK(io_zip_finish(&w, NULL) == SEGFM_BAD_USAGE);
    io_zip_writer_free(&w);
    CHECK(io_zip_finish(&w, NULL) == SEGFM_OK && w.archive.size == 22); /* an empty archive */
    io_zip_writer_free(&w);
    free(name);
}

/* An archive that leaves piece by piece: its members' bytes never are in the writer. */
static void test_announce(void) {
    static const char *const names[] = {"a", "data/0", "data/longer name", "e"};
    unsigned char bytes[300];
    io_zip_writer w = {0};
    io_buffer file = {0};
    io_zip zip;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(i * 7);
    for (size_t i = 0; i < 4; i++) {
        size_t n = 99 * i;
        CHECK(io_zip_announce(&w, names[i], n, io_crc32(0, bytes, n), NULL) == SEGFM_OK);
        CHECK(io_buffer_append(&file, w.archive.data, w.archive.size, NULL) == SEGFM_OK);
        CHECK(file.size % 64 == 0 && io_buffer_append(&file, bytes, n, NULL) == SEGFM_OK);
        w.archive.size = 0;
        w.before = file.size;
    }
    CHECK(io_zip_add(&w, "added", "x", 1, NULL) == SEGFM_OK && io_zip_finish(&w, NULL) == SEGFM_OK);
    CHECK(io_buffer_append(&file, w.archive.data, w.archive.size, NULL) == SEGFM_OK);
    if (CHECK(io_zip_open(file.data, file.size, &zip, NULL) == SEGFM_OK)) {
        CHECK(zip.count == 5 && holds(&zip, "added", "x", 1));
        for (size_t i = 0; i < 4; i++) CHECK(holds(&zip, names[i], bytes, 99 * i));
        io_zip_close(&zip);
    }
    CHECK(io_zip_announce(&w, "", 0, 0, NULL) == SEGFM_BAD_USAGE);
    io_buffer_free(&file);
    io_zip_writer_free(&w);
}

/* Members of 4 GiB and more, and one behind them: headers alone, whose data nobody writes. What a reader needs is where
   the format has it. */
static void test_announce_large(void) {
    const uint64_t sizes[2] = {0xFFFFFFFFU, 5000000000U};
    io_zip_writer w = {0};
    uint64_t at[3];
    for (size_t i = 0; i < 3; i++) {
        at[i] = w.before;
        CHECK(io_zip_announce(&w, (const char *[]){"a", "b", "c"}[i], i < 2 ? sizes[i] : 7, 0x1234, NULL) == SEGFM_OK);
        const unsigned char *local = w.archive.data, *extra = local + 30 + 1;
        if (i < 2) {
            CHECK(base_le16(local + 4) == 45 && base_le32(local + 18) == UINT32_MAX &&
                  base_le32(local + 22) == UINT32_MAX);
            CHECK(base_le16(extra) == 1 && base_le16(extra + 2) == 16);
            CHECK(base_le64(extra + 4) == sizes[i] && base_le64(extra + 12) == sizes[i]);
        } else {
            CHECK(base_le16(local + 4) == 20 && base_le32(local + 18) == 7 && base_le32(local + 22) == 7);
        }
        CHECK(base_le16(local + 28) + 31U == w.archive.size && (w.before + w.archive.size) % 64 == 0);
        w.before += w.archive.size + (i < 2 ? sizes[i] : 7);
        w.archive.size = 0;
    }
    const unsigned char *d = w.directory.data;
    for (size_t i = 0; i < 3; i++) {
        const unsigned char *extra = d + 46 + 1;
        size_t n = i == 0 ? 20 : i == 1 ? 28 : 12; /* 4, then two sizes, and the offset where that is large too */
        CHECK(base_le32(d) == 0x02014B50 && base_le16(d + 30) == n && base_le16(extra) == 1 &&
              base_le16(extra + 2) == n - 4);
        CHECK(base_le32(d + 20) == (i < 2 ? UINT32_MAX : 7) && base_le32(d + 24) == (i < 2 ? UINT32_MAX : 7));
        if (i < 2) CHECK(base_le64(extra + 4) == sizes[i] && base_le64(extra + 12) == sizes[i]);
        CHECK(base_le32(d + 42) == (i == 0 ? at[0] : UINT32_MAX) && (i == 0 || base_le64(extra + n - 8) == at[i]));
        d += 46 + 1 + n;
    }
    size_t directory = w.directory.size;
    CHECK(io_zip_finish(&w, NULL) == SEGFM_OK && w.archive.size == directory + 56 + 20 + 22);
    CHECK(base_le64(w.archive.data + directory + 48) == w.before); /* where the directory begins */
    io_zip_writer_free(&w);
}

/* From 65535 members on, the archive needs zip64 end records. */
static void test_many(void) {
    for (size_t n = 65534; n <= 65536; n++) {
        io_zip_writer w = {0};
        size_t failures = 0;
        char name[24];
        for (size_t i = 0; i < n; i++) {
            snprintf(name, sizeof name, "m%05zu", i);
            failures += io_zip_add(&w, name, name, i % 4, NULL) != SEGFM_OK;
        }
        CHECK(failures == 0 && io_zip_finish(&w, NULL) == SEGFM_OK);
        io_zip zip;
        if (CHECK(io_zip_open(w.archive.data, w.archive.size, &zip, NULL) == SEGFM_OK)) {
            CHECK(zip.count == n && holds(&zip, name, name, (n - 1) % 4));
            io_zip_close(&zip);
        }
#ifndef SEGFM_TINY
        bool zip64 = base_le32(w.archive.data + w.archive.size - 42) == 0x07064B50;
        CHECK(zip64 == (n >= 65535));
#endif
        io_zip_writer_free(&w);
    }
}

int main(void) {
    check_python(python_zip64, sizeof python_zip64);
    check_python(python_stream, sizeof python_stream);
    test_flips();
    test_valid();
    test_fields();
    test_members();
    test_data();
    test_size_claims();
    test_writer();
    test_writer_misuse();
    test_announce();
    test_announce_large();
    test_many();
    return test_summary();
}
