/* PNG: what is written is read back by a reader of the test's own, chunk by chunk and filter by filter. */
#include "../io/io.h"
#include "test.h"

#include <unistd.h>

static char folder[512], path[600];

static uint32_t be32(const unsigned char *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

/* The parts of a PNG file: header bytes, joined IDAT bytes. */
typedef struct {
    unsigned char header[13];
    io_buffer idat;
    int idat_chunks;
    bool sound; /* signature, order, lengths and CRCs are right */
} picture;

static picture read_chunks(const io_buffer *file) {
    picture p = {0};
    size_t at = 8;
    bool ended = false;
    if (file->size < 8 || memcmp(file->data, "\x89PNG\r\n\x1a\n", 8) != 0) return p;
    for (int index = 0; !ended && file->size - at >= 12; index++) {
        const unsigned char *chunk = file->data + at;
        size_t n = be32(chunk);
        if (n > file->size - at - 12 || be32(chunk + 8 + n) != io_crc32(0, chunk + 4, n + 4)) return p;
        bool header = memcmp(chunk + 4, "IHDR", 4) == 0;
        if (header != (index == 0) || (header && n != 13)) return p;
        if (header) {
            memcpy(p.header, chunk + 8, 13);
        } else if (memcmp(chunk + 4, "IDAT", 4) == 0) {
            io_buffer_append(&p.idat, chunk + 8, n, NULL);
            p.idat_chunks++;
        } else {
            ended = memcmp(chunk + 4, "IEND", 4) == 0 && n == 0;
            if (!ended) return p;
        }
        at += 12 + n;
    }
    p.sound = ended && at == file->size;
    return p;
}

/* The five filters' predictions, written down anew. */
static int predict(int filter, int left, int up, int corner) {
    int p = left + up - corner, to_left = abs(p - left), to_up = abs(p - up), to_corner = abs(p - corner);
    switch (filter) {
    case 0: return 0;
    case 1: return left;
    case 2: return up;
    case 3: return (left + up) / 2;
    default:
        if (to_left <= to_up && to_left <= to_corner) return left;
        return to_up <= to_corner ? up : corner;
    }
}

/* Undoes zlib and the filters; used[f] counts the rows with filter f. */
static bool unpack(const picture *p, size_t width, size_t height, unsigned char *rgb, int used[5]) {
    io_buffer rows = {0};
    size_t consumed = 0, stride = 3 * width;
    bool ok = p->idat.size > 6 && p->idat.data[0] == 0x78 && (p->idat.data[0] * 256 + p->idat.data[1]) % 31 == 0;
    ok = ok && io_inflate(p->idat.data + 2, p->idat.size - 2, &consumed, &rows, 100000000, NULL) == SEGFM_OK;
    ok = ok && rows.size == height * (stride + 1) && consumed + 6 == p->idat.size;
    ok = ok && be32(p->idat.data + 2 + consumed) == io_adler32(1, rows.data, rows.size);
    for (size_t y = 0; ok && y < height; y++) {
        const unsigned char *row = rows.data + y * (stride + 1);
        ok = row[0] < 5;
        if (ok) used[row[0]]++;
        for (size_t i = 0; ok && i < stride; i++) {
            int left = i < 3 ? 0 : rgb[y * stride + i - 3], up = y == 0 ? 0 : rgb[(y - 1) * stride + i];
            int corner = i < 3 || y == 0 ? 0 : rgb[(y - 1) * stride + i - 3];
            rgb[y * stride + i] = (unsigned char)((row[1 + i] + predict(row[0], left, up, corner)) & 0xFF);
        }
    }
    io_buffer_free(&rows);
    return ok;
}

/* Writes the picture, reads it back, compares. Returns the number of IDAT chunks. */
static int round_trip(int width, int height, const unsigned char *rgb, int used[5]) {
    size_t bytes = (size_t)width * (size_t)height * 3;
    io_buffer file = {0};
    CHECK(io_png_write(path, width, height, rgb, NULL) == SEGFM_OK);
    CHECK(io_read_file(path, &file, NULL) == SEGFM_OK);
    picture p = read_chunks(&file);
    CHECK(p.sound);
    CHECK(be32(p.header) == (uint32_t)width && be32(p.header + 4) == (uint32_t)height);
    CHECK(memcmp(p.header + 8, "\x08\x02\0\0\0", 5) == 0);
    unsigned char *back = malloc(bytes);
    if (CHECK(back != NULL)) {
        CHECK(unpack(&p, (size_t)width, (size_t)height, back, used));
        CHECK(memcmp(back, rgb, bytes) == 0);
    }
    free(back);
    io_buffer_free(&p.idat);
    io_buffer_free(&file);
    remove(path);
    return p.idat_chunks;
}

static void noise(unsigned char *rgb, size_t n) {
    uint32_t state = 99;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525U + 1013904223U;
        rgb[i] = (unsigned char)(state >> 24);
    }
}

static void test_sizes(void) {
    static const int sizes[][2] = {{1, 1}, {1, 7}, {7, 1}, {2, 3}, {3, 2}, {17, 5}, {64, 33}};
    static unsigned char rgb[64 * 33 * 3];
    noise(rgb, sizeof rgb);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        int used[5] = {0};
        CHECK(round_trip(sizes[i][0], sizes[i][1], rgb, used) == 1);
    }
}

/* Rows made so that one filter fits each nearly: all five must be chosen and undone. */
static void test_filters(void) {
    enum { w = 50, h = 42 };
    static unsigned char rgb[h][w][3];
    int used[5] = {0};
    noise(&rgb[0][0][0], sizeof rgb);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < 3; c++) {
                int left = x > 0 ? rgb[y][x - 1][c] : 0, up = y > 0 ? rgb[y - 1][x][c] : 0;
                int corner = x > 0 && y > 0 ? rgb[y - 1][x - 1][c] : 0;
                if (y % 6 == 0) rgb[y][x][c] = rgb[y][x][c] % 8 == 0; /* lone ones: differences are larger */
                else if (y % 6 > 1) /* 1 stays noise, for the next row to start from */
                    rgb[y][x][c] = (unsigned char)((predict(y % 6 - 1, left, up, corner) + rgb[y][x][c] % 3) & 0xFF);
            }
    round_trip(w, h, &rgb[0][0][0], used);
    for (int f = 0; f < 5; f++) CHECK(used[f] > 0);
}

/* More compressed bytes than one chunk takes. */
static void test_many_chunks(void) {
    enum { w = 211, h = 127 };
    static unsigned char rgb[w * h * 3];
    int used[5] = {0};
    noise(rgb, sizeof rgb);
    CHECK(round_trip(w, h, rgb, used) == 2);
}

/* A smooth picture becomes much smaller than its pixels, and the same bytes every time. */
static void test_compresses(void) {
    enum { w = 120, h = 90 };
    static unsigned char rgb[h][w][3];
    io_buffer first = {0}, second = {0};
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < 3; c++) rgb[y][x][c] = (unsigned char)((x + 2 * y + 40 * c) & 0xFF);
    CHECK(io_png_write(path, w, h, &rgb[0][0][0], NULL) == SEGFM_OK && io_read_file(path, &first, NULL) == SEGFM_OK);
    CHECK(io_png_write(path, w, h, &rgb[0][0][0], NULL) == SEGFM_OK && io_read_file(path, &second, NULL) == SEGFM_OK);
    CHECK(first.size < sizeof rgb / 10);
    CHECK(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
    io_buffer_free(&first);
    io_buffer_free(&second);
    remove(path);
}

static void test_errors(void) {
    static const unsigned char rgb[3] = {1, 2, 3};
    segfm_error e = {0};
    CHECK(io_png_write(path, 0, 1, rgb, &e) == SEGFM_BAD_USAGE && strstr(e.message, "0 x 1") != NULL);
    CHECK(strcmp(e.where, path) == 0);
    CHECK(io_png_write(path, 1, -5, rgb, &e) == SEGFM_BAD_USAGE && strstr(e.message, "1 x -5") != NULL);
    char lost[700];
    snprintf(lost, sizeof lost, "%s/none/x.png", folder);
    CHECK(io_png_write(lost, 1, 1, rgb, &e) == SEGFM_WRITE_FAILED && strcmp(e.where, lost) == 0);
    CHECK(access(path, F_OK) != 0);
}

int main(void) {
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/test_png_XXXXXX", parent != NULL ? parent : ".");
    if (!CHECK(mkdtemp(folder) != NULL)) return test_summary();
    snprintf(path, sizeof path, "%s/picture.png", folder);
    test_sizes();
    test_filters();
    test_many_chunks();
    test_compresses();
    test_errors();
    CHECK(rmdir(folder) == 0); /* nothing was left behind */
    return test_summary();
}
