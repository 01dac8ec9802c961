/* PNG (ISO/IEC 15948), writing only: 8-bit RGB, not interlaced, no ancillary chunks. Same picture, same bytes. */
#include "io.h"

#include <stdlib.h>
#include <string.h>

enum {
    pixel_bytes = 3,
    filters = 5,           /* none, sub, up, average, Paeth: their numbers in the file */
    idat_bytes = 64 * 1024 /* of one IDAT chunk: readers may take a chunk into memory as a whole */
};

/* ---- filters ------------------------------------------------------------------------------------------------- */

static int distance(int a, int b) { return a < b ? b - a : a - b; }

/* The neighbour that left + up − corner comes nearest to; ties go in this order. */
static int paeth(int left, int up, int corner) {
    int estimate = left + up - corner;
    int to_left = distance(estimate, left), to_up = distance(estimate, up), to_corner = distance(estimate, corner);
    if (to_left <= to_up && to_left <= to_corner) return left;
    return to_up <= to_corner ? up : corner;
}

/* Row of n bytes → filtered row; `above` is the row before it, zeros for the first. */
static void filter_row(int filter, const unsigned char *row, const unsigned char *above, size_t n, unsigned char *out) {
    for (size_t i = 0; i < n; i++) {
        int left = i < pixel_bytes ? 0 : row[i - pixel_bytes], corner = i < pixel_bytes ? 0 : above[i - pixel_bytes];
        int up = above[i], guess = 0;
        if (filter == 1) guess = left;
        else if (filter == 2) guess = up;
        else if (filter == 3) guess = (left + up) / 2;
        else if (filter == 4) guess = paeth(left, up, corner);
        out[i] = (unsigned char)((row[i] - guess) & 0xFF);
    }
}

/* The bytes' sum of magnitudes, taken as signed: the usual guess at how well a row will compress. */
static uint64_t magnitude(const unsigned char *row, size_t n) {
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += row[i] < 128 ? row[i] : 256U - row[i];
    return sum;
}

/* Appends every row, each with the number of the filter that makes it smallest. `scratch` holds two rows: zeros, and
   room for one candidate. */
static segfm_status filter_picture(const unsigned char *rgb, size_t height, size_t row_bytes, unsigned char *scratch,
                                   io_buffer *out, segfm_error *error) {
    const unsigned char *above = scratch;
    unsigned char *candidate = scratch + row_bytes;
    for (size_t y = 0; y < height; y++) {
        const unsigned char *row = rgb + y * row_bytes;
        uint64_t least = UINT64_MAX;
        unsigned char best = 0;
        for (unsigned char filter = 0; filter < filters; filter++) {
            filter_row(filter, row, above, row_bytes, candidate);
            uint64_t sum = magnitude(candidate, row_bytes);
            if (sum < least) {
                least = sum;
                best = filter;
            }
        }
        filter_row(best, row, above, row_bytes, candidate);
        segfm_status status = io_buffer_append(out, &best, 1, error);
        if (status == SEGFM_OK) status = io_buffer_append(out, candidate, row_bytes, error);
        if (status != SEGFM_OK) return status;
        above = row;
    }
    return SEGFM_OK;
}

/* ---- chunks -------------------------------------------------------------------------------------------------- */

static void put_be32(unsigned char *p, uint32_t v) {
    for (int i = 0; i < 4; i++) p[i] = (unsigned char)(v >> (24 - 8 * i) & 0xFFU);
}

/* Length, type, bytes, CRC of type and bytes. n < 2^31. */
static segfm_status append_chunk(io_buffer *png, const char *type, const unsigned char *bytes, size_t n,
                                 segfm_error *error) {
    unsigned char word[4];
    put_be32(word, (uint32_t)n);
    segfm_status status = io_buffer_append(png, word, 4, error);
    if (status == SEGFM_OK) status = io_buffer_append(png, type, 4, error);
    if (status == SEGFM_OK) status = io_buffer_append(png, bytes, n, error);
    if (status != SEGFM_OK) return status;
    put_be32(word, io_crc32(io_crc32(0, type, 4), bytes, n));
    return io_buffer_append(png, word, 4, error);
}

/* Builds the file around the compressed rows. */
static segfm_status build_png(int width, int height, const io_buffer *packed, io_buffer *png, segfm_error *error) {
    static const unsigned char signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    unsigned char header[13] = {0}; /* the last three: deflate, the five filters, no interlacing */
    put_be32(header, (uint32_t)width);
    put_be32(header + 4, (uint32_t)height);
    header[8] = 8; /* bits per sample */
    header[9] = 2; /* RGB */
    segfm_status status = io_buffer_append(png, signature, sizeof signature, error);
    if (status == SEGFM_OK) status = append_chunk(png, "IHDR", header, sizeof header, error);
    for (size_t at = 0; at < packed->size && status == SEGFM_OK; at += idat_bytes) {
        size_t n = packed->size - at < idat_bytes ? packed->size - at : idat_bytes;
        status = append_chunk(png, "IDAT", packed->data + at, n, error);
    }
    return status == SEGFM_OK ? append_chunk(png, "IEND", NULL, 0, error) : status;
}

/* Filters and compresses the picture. */
static segfm_status pack_picture(const unsigned char *rgb, size_t height, size_t row_bytes, io_buffer *packed,
                                 segfm_error *error) {
    unsigned char *scratch = calloc(2, row_bytes);
    if (scratch == NULL) return base_fail(error, SEGFM_NO_MEMORY, "out of memory for two rows of %zu bytes", row_bytes);
    io_buffer filtered = {0};
    segfm_status status = io_buffer_reserve(&filtered, height * (row_bytes + 1), error);
    if (status == SEGFM_OK) status = filter_picture(rgb, height, row_bytes, scratch, &filtered, error);
    if (status == SEGFM_OK) status = io_zlib(filtered.data, filtered.size, packed, error);
    io_buffer_free(&filtered);
    free(scratch);
    return status;
}

segfm_status io_png_write(const char *path, int width, int height, const unsigned char *rgb, segfm_error *error) {
    segfm_status status = SEGFM_OK;
    if (width < 1 || height < 1)
        status = base_fail(error, SEGFM_BAD_USAGE, "the picture is %d x %d pixels, need at least 1 x 1", width, height);
    else if ((uint64_t)height * ((uint64_t)width * pixel_bytes + 1) > PTRDIFF_MAX) /* 64 bits hold it */
        status = base_fail(error, SEGFM_NO_MEMORY, "the picture of %d x %d pixels cannot be addressed", width, height);
    io_buffer packed = {0}, png = {0};
    if (status == SEGFM_OK) status = pack_picture(rgb, (size_t)height, (size_t)width * pixel_bytes, &packed, error);
    if (status == SEGFM_OK) status = build_png(width, height, &packed, &png, error);
    if (status == SEGFM_OK) status = io_write_file(path, png.data, png.size, error);
    io_buffer_free(&packed);
    io_buffer_free(&png);
    return status == SEGFM_OK ? status : base_fail_where(error, status, path);
}
