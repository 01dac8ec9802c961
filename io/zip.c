/* Zip archives (PKWARE's APPNOTE 6.3, with zip64), in memory.

   Reading trusts the central directory and checks the local headers against it. What a writer leaves open in a local
   header (sizes and CRC when flag bit 3 is set) is not needed. The directory must lie right before the end records, so
   bytes before or between the members are tolerated and bytes after the directory are not. */
#include "io.h"

#include <stdlib.h>
#include <string.h>

enum {
    local_magic = 0x04034B50,
    central_magic = 0x02014B50,
    end_magic = 0x06054B50,
    end64_magic = 0x06064B50,
    locator64_magic = 0x07064B50,
    local_size = 30, /* bytes of each record without its variable parts */
    central_size = 46,
    end_size = 22,
    end64_size = 56,
    locator64_size = 20,
    zip64_extra = 1,        /* id of the extra field with 64-bit sizes */
    padding_extra = 0x4246, /* "FB", as torch.save names what it pads with */
    alignment = 64,
    flag_encrypted = 1,
    flag_descriptor = 8, /* sizes and CRC follow the data */
    flag_patch = 32,
    flag_strong_encryption = 64,
    flag_utf8 = 0x800,
    flag_masked = 0x2000,
    dos_date = 0x21 /* 1980-01-01, the earliest that the format knows */
};

/* A 32-bit field of this value or more lives in the zip64 extra field. The test build lowers it, so that small
   archives are written as zip64. */
#ifdef SEGFM_TINY
#define WRITE_MAX_32 100U
#define WRITE_MAX_16 3U
#else
#define WRITE_MAX_32 0xFFFFFFFFU
#define WRITE_MAX_16 0xFFFFU
#endif

/* ---- reading: the end records ------------------------------------------------------------------------------- */

static segfm_status bad(segfm_error *error, const char *what, uint64_t offset) {
    return base_fail(error, SEGFM_BAD_INPUT, "zip archive, byte %llu: %s", (unsigned long long)offset, what);
}

bool io_is_zip(const unsigned char *bytes, size_t n) {
    if (n < end_size) return false;
    uint32_t magic = base_le32(bytes);
    return magic == local_magic || magic == end_magic; /* the latter: an empty archive */
}

/* The end record: the last one whose comment reaches exactly to the end of the file. */
static bool find_end(const unsigned char *bytes, size_t n, size_t *at) {
    for (size_t comment = 0; comment <= 0xFFFF && comment + end_size <= n; comment++) {
        const unsigned char *p = bytes + (n - end_size - comment);
        if (p[0] == 'P' && base_le32(p) == end_magic && base_le16(p + 20) == comment) {
            *at = n - end_size - comment;
            return true;
        }
    }
    return false;
}

/* Where the central directory is: [begin, end), `count` entries. */
typedef struct {
    uint64_t begin, end, count;
} directory_place;

/* Replaces the 16- and 32-bit fields in *place by those of the zip64 end record, whose locator is at `locator`. A field
   that was not saturated must agree. */
static segfm_status read_end64(const unsigned char *bytes, size_t locator, directory_place *place, segfm_error *error) {
    const unsigned char *l = bytes + locator;
    uint64_t at = base_le64(l + 8);
    if (base_le32(l + 4) != 0 || base_le32(l + 16) > 1)
        return bad(error, "the archive is split over several disks", locator);
    if (locator < end64_size || at > locator - end64_size || base_le32(bytes + at) != end64_magic)
        return bad(error, "the zip64 end record is not where its locator says", locator);
    const unsigned char *p = bytes + at;
    if (base_le64(p + 4) != locator - at - 12) /* the record's size does not count its first 12 bytes */
        return bad(error, "the zip64 end record does not reach to its locator", at);
    if (base_le32(p + 16) != 0 || base_le32(p + 20) != 0 || base_le64(p + 24) != base_le64(p + 32))
        return bad(error, "the archive is split over several disks", at);
    uint64_t count = base_le64(p + 32), size = base_le64(p + 40), begin = base_le64(p + 48);
    if ((place->count != 0xFFFF && place->count != count) || (place->end != 0xFFFFFFFFU && place->end != size) ||
        (place->begin != 0xFFFFFFFFU && place->begin != begin))
        return bad(error, "the end record and the zip64 end record disagree", at);
    if (begin > at || size != at - begin)
        return bad(error, "the central directory does not end at the zip64 end record", at);
    *place = (directory_place){begin, at, count};
    return SEGFM_OK;
}

static segfm_status find_directory(const unsigned char *bytes, size_t n, directory_place *place, segfm_error *error) {
    size_t at;
    if (!find_end(bytes, n, &at))
        return base_fail(error, SEGFM_BAD_INPUT, "zip archive of %zu bytes: has no end record (cut short?)", n);
    const unsigned char *p = bytes + at;
    if (base_le16(p + 4) != 0 || base_le16(p + 6) != 0 || base_le16(p + 8) != base_le16(p + 10))
        return bad(error, "the archive is split over several disks", at);
    uint64_t count = base_le16(p + 10), size = base_le32(p + 12), begin = base_le32(p + 16);
    if (at >= locator64_size && base_le32(p - locator64_size) == locator64_magic) {
        *place = (directory_place){begin, size, count}; /* for the comparison there */
        return read_end64(bytes, at - locator64_size, place, error);
    }
    if (begin > at || size != at - begin) return bad(error, "the central directory does not end at the end record", at);
    *place = (directory_place){begin, at, count};
    return SEGFM_OK;
}

/* ---- reading: entries --------------------------------------------------------------------------------------- */

/* Finds the zip64 extra field's content; *n = 0 when there is none. False when the extra fields are malformed. */
static bool find_zip64(const unsigned char *extra, size_t size, const unsigned char **content, size_t *n) {
    *content = extra;
    *n = 0;
    while (size >= 4) {
        size_t id = base_le16(extra), length = base_le16(extra + 2);
        if (length > size - 4) return false;
        if (id == zip64_extra) {
            if (*n != 0) return false;
            *content = extra + 4;
            *n = length;
        }
        extra += 4 + length;
        size -= 4 + length;
    }
    return true; /* up to 3 bytes left over: Android's zipalign pads so */
}

/* Takes a 64-bit value from the zip64 field if the 32-bit one is saturated. False when it ought to be there and is
   not. */
static bool widen(uint64_t *value, const unsigned char **content, size_t *n) {
    if (*value != 0xFFFFFFFFU) return true;
    if (*n < 8) return false;
    *value = base_le64(*content);
    *content += 8;
    *n -= 8;
    return true;
}

/* The bytes [begin, end) that an entry occupies, for the overlap check. */
typedef struct {
    uint64_t begin, end;
} extent;

/* Checks the local header at `at` against *e, whose name is `name_size` bytes, and sets its data_offset. `end` = the
   first byte that is not a member's. */
static segfm_status read_local(const unsigned char *bytes, uint64_t at, uint64_t end, size_t name_size, io_zip_entry *e,
                               segfm_error *error) {
    if (at > end || end - at < local_size || base_le32(bytes + at) != local_magic)
        return bad(error, "a local header is not where the directory says", at);
    const unsigned char *p = bytes + at;
    size_t flags = base_le16(p + 6), local_name_size = base_le16(p + 26), extra_size = base_le16(p + 28);
    if (end - at - local_size < local_name_size + extra_size) return bad(error, "a local header does not fit", at);
    if (local_name_size != name_size || memcmp(p + local_size, e->name, name_size) != 0)
        return bad(error, "local header and directory disagree in the name", at);
    if (base_le16(p + 8) != e->method) return bad(error, "local header and directory disagree in the method", at);
    if ((flags & (flag_encrypted | flag_strong_encryption | flag_masked)) != 0)
        return bad(error, "the member is encrypted, which is not supported", at);
    if ((flags & flag_descriptor) == 0) {
        const unsigned char *content;
        uint64_t compressed = base_le32(p + 18), size = base_le32(p + 22);
        size_t n;
        if (!find_zip64(p + local_size + name_size, extra_size, &content, &n) || !widen(&size, &content, &n) ||
            !widen(&compressed, &content, &n))
            return bad(error, "a local header's extra fields are malformed", at);
        if (compressed != e->compressed_size || size != e->size || base_le32(p + 14) != e->crc)
            return bad(error, "local header and directory disagree in sizes or CRC", at);
    }
    e->data_offset = at + local_size + local_name_size + extra_size;
    if (end - e->data_offset < e->compressed_size) return bad(error, "a member's data do not fit in the archive", at);
    return SEGFM_OK;
}

/* Reads the directory entry at *at, moves *at past it, and reads its local header. */
static segfm_status read_entry(const unsigned char *bytes, uint64_t *at, const directory_place *place, io_zip_entry *e,
                               extent *x, segfm_error *error) {
    uint64_t left = place->end - *at;
    const unsigned char *p = bytes + *at, *content;
    if (left < central_size || base_le32(p) != central_magic)
        return bad(error, "the central directory is cut short or damaged", *at);
    size_t name_size = base_le16(p + 28), extra_size = base_le16(p + 30), comment_size = base_le16(p + 32), n;
    if (left - central_size < name_size + extra_size + comment_size)
        return bad(error, "the central directory is cut short or damaged", *at);
    if (name_size == 0 || memchr(p + central_size, 0, name_size) != NULL)
        return bad(error, "a member's name is empty or contains a zero byte", *at);
    size_t flags = base_le16(p + 8), method = base_le16(p + 10);
    if ((flags & (flag_encrypted | flag_strong_encryption | flag_masked)) != 0)
        return bad(error, "the member is encrypted, which is not supported", *at);
    if ((flags & flag_patch) != 0) return bad(error, "the member is patch data, which is not supported", *at);
    if (method != 0 && method != 8)
        return base_fail(error, SEGFM_BAD_INPUT,
                         "zip archive, byte %llu: the member's method is %zu, need 0 (stored) or 8 (deflated)",
                         (unsigned long long)*at, method);
    e->method = (int)method;
    e->crc = base_le32(p + 16);
    e->compressed_size = base_le32(p + 20);
    e->size = base_le32(p + 24);
    x->begin = base_le32(p + 42);
    if (!find_zip64(p + central_size + name_size, extra_size, &content, &n) || !widen(&e->size, &content, &n) ||
        !widen(&e->compressed_size, &content, &n) || !widen(&x->begin, &content, &n))
        return bad(error, "the extra fields are malformed", *at);
    size_t disk = base_le16(p + 34);
    if (disk != 0 && !(disk == 0xFFFF && n >= 4 && base_le32(content) == 0))
        return bad(error, "the archive is split over several disks", *at);
    /* Deflate gives at most 1032 bytes per byte: a larger size is a lie and not worth any memory. */
    if (method == 0 ? e->size != e->compressed_size : e->size / 1032 > e->compressed_size)
        return bad(error, "the member's sizes contradict each other", *at);
    e->name = malloc(name_size + 1);
    if (e->name == NULL)
        return base_fail(error, SEGFM_NO_MEMORY, "zip archive: no memory for a name of %zu bytes", name_size);
    memcpy(e->name, p + central_size, name_size);
    e->name[name_size] = '\0';
    *at += central_size + name_size + extra_size + comment_size;
    segfm_status status = read_local(bytes, x->begin, place->begin, name_size, e, error);
    if (status == SEGFM_OK) x->end = e->data_offset + e->compressed_size;
    return status;
}

static int compare_extents(const void *a, const void *b) {
    const extent *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int compare_names(const void *a, const void *b) {
    const io_zip_entry *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static segfm_status check_overlaps(extent *extents, size_t count, segfm_error *error) {
    qsort(extents, count, sizeof *extents, compare_extents);
    for (size_t i = 1; i < count; i++)
        if (extents[i].begin < extents[i - 1].end) return bad(error, "two members overlap", extents[i].begin);
    return SEGFM_OK;
}

/* Sorts the entries by name, so that finding one takes no time even among hundreds of thousands. */
static segfm_status sort_names(io_zip *zip, segfm_error *error) {
    zip->by_name = malloc(zip->count * sizeof *zip->by_name);
    if (zip->by_name == NULL)
        return base_fail(error, SEGFM_NO_MEMORY, "zip archive: no memory for %zu names", zip->count);
    for (size_t i = 0; i < zip->count; i++) zip->by_name[i] = &zip->entries[i];
    qsort(zip->by_name, zip->count, sizeof *zip->by_name, compare_names);
    for (size_t i = 1; i < zip->count; i++)
        if (strcmp(zip->by_name[i]->name, zip->by_name[i - 1]->name) == 0)
            return base_fail(error, SEGFM_BAD_INPUT, "zip archive: two members have the name '%s'",
                             zip->by_name[i]->name);
    return SEGFM_OK;
}

/* Fills zip->entries; the caller frees them whatever comes. */
static segfm_status read_entries(io_zip *zip, const directory_place *place, extent *extents, segfm_error *error) {
    uint64_t at = place->begin;
    for (uint64_t i = 0; i < place->count; i++) {
        segfm_status status = read_entry(zip->bytes, &at, place, &zip->entries[i], &extents[i], error);
        if (status != SEGFM_OK) return status;
    }
    if (at != place->end) return bad(error, "the central directory has more bytes than entries", at);
    segfm_status status = check_overlaps(extents, zip->count, error);
    return status == SEGFM_OK ? sort_names(zip, error) : status;
}

segfm_status io_zip_open(const unsigned char *bytes, size_t n, io_zip *out, segfm_error *error) {
    directory_place place = {0};
    segfm_status status = find_directory(bytes, n, &place, error);
    if (status != SEGFM_OK) return status;
    if (place.count > (place.end - place.begin) / central_size)
        return bad(error, "the central directory is too small for its number of entries", place.begin);
    io_zip zip = {bytes, n, NULL, (size_t)place.count, NULL};
    extent *extents = NULL;
    if (zip.count > 0) { /* at most 2.2 times the bytes of the directory */
        zip.entries = calloc(zip.count, sizeof *zip.entries);
        extents = calloc(zip.count, sizeof *extents);
        if (zip.entries == NULL || extents == NULL)
            status = base_fail(error, SEGFM_NO_MEMORY, "zip archive: no memory for %zu entries", zip.count);
        else status = read_entries(&zip, &place, extents, error);
    } else if (place.begin != place.end) {
        status = bad(error, "the central directory has more bytes than entries", place.begin);
    }
    free(extents);
    if (status == SEGFM_OK) *out = zip;
    else io_zip_close(&zip);
    return status;
}

void io_zip_close(io_zip *zip) {
    if (zip->entries != NULL)
        for (size_t i = 0; i < zip->count; i++) free(zip->entries[i].name);
    free(zip->entries);
    free(zip->by_name);
    *zip = (io_zip){0};
}

const io_zip_entry *io_zip_find(const io_zip *zip, const char *name) {
    size_t low = 0, high = zip->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, zip->by_name[middle]->name);
        if (order == 0) return zip->by_name[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

/* ---- reading: data ------------------------------------------------------------------------------------------ */

static segfm_status check_crc(const io_zip_entry *e, const unsigned char *data, segfm_error *error) {
    uint32_t crc = io_crc32(0, data, (size_t)e->size);
    if (crc == e->crc) return SEGFM_OK;
    return base_fail(error, SEGFM_BAD_INPUT, "zip member '%s': CRC of the data is %x, need %x", e->name, crc, e->crc);
}

segfm_status io_zip_view(const io_zip *zip, const io_zip_entry *e, const unsigned char **data, segfm_error *error) {
    if (e->method != 0)
        return base_fail(error, SEGFM_BAD_INPUT, "zip member '%s': is compressed, but must be stored here", e->name);
    const unsigned char *p = zip->bytes + e->data_offset;
    segfm_status status = check_crc(e, p, error);
    if (status == SEGFM_OK) *data = p;
    return status;
}

static segfm_status read_deflated(const io_zip *zip, const io_zip_entry *e, io_buffer *out, segfm_error *error) {
    size_t size = (size_t)e->size, before = out->size, after, consumed;
    if (e->size > SIZE_MAX || !base_add(before, size, &after))
        return base_fail(error, SEGFM_NO_MEMORY, "zip member '%s': its size does not fit in memory", e->name);
    segfm_status status = io_buffer_reserve(out, after, error);
    if (status != SEGFM_OK) return status;
    status = io_inflate(zip->bytes + e->data_offset, (size_t)e->compressed_size, &consumed, out, size, error);
    if (status != SEGFM_OK)
        return error == NULL ? status : base_fail(error, status, "zip member '%s': %s", e->name, error->message);
    if (out->size != after || consumed != e->compressed_size)
        return base_fail(error, SEGFM_BAD_INPUT, "zip member '%s': %zu bytes inflate to %zu, need %llu to %zu", e->name,
                         consumed, out->size - before, (unsigned long long)e->compressed_size, size);
    return check_crc(e, out->data + before, error);
}

segfm_status io_zip_read(const io_zip *zip, const io_zip_entry *e, io_buffer *out, segfm_error *error) {
    size_t before = out->size;
    segfm_status status;
    if (e->method == 0) {
        const unsigned char *data;
        status = io_zip_view(zip, e, &data, error);
        if (status == SEGFM_OK) status = io_buffer_append(out, data, (size_t)e->size, error);
    } else {
        status = read_deflated(zip, e, out, error);
    }
    if (status != SEGFM_OK) out->size = before;
    return status;
}

/* ---- writing ------------------------------------------------------------------------------------------------ */

static uint32_t narrow32(uint64_t v) { return v < WRITE_MAX_32 ? (uint32_t)v : 0xFFFFFFFFU; }

/* What local header and directory entry have in common, from "version needed" to the length of the extra field. */
static void put_common(unsigned char *p, const char *name, size_t name_size, const io_zip_entry *e, size_t extra_size) {
    bool ascii = true;
    for (size_t i = 0; i < name_size; i++)
        if ((unsigned char)name[i] >= 0x80) ascii = false;
    base_put_le16(p, extra_size > 0 ? 45 : 20); /* the version of the format that knows zip64, or deflate */
    base_put_le16(p + 2, ascii ? 0 : flag_utf8);
    base_put_le16(p + 4, (uint16_t)e->method);
    base_put_le16(p + 6, 0);
    base_put_le16(p + 8, dos_date);
    base_put_le32(p + 10, e->crc);
    base_put_le32(p + 14, narrow32(e->compressed_size));
    base_put_le32(p + 18, narrow32(e->size));
    base_put_le16(p + 22, (uint16_t)name_size);
    base_put_le16(p + 24, (uint16_t)extra_size);
}

/* Writes a zip64 field with those of the n values that do not fit in 32 bits; returns its size, 0 when all fit. */
static size_t put_zip64(unsigned char *p, const uint64_t *values, int n) {
    size_t size = 0;
    for (int i = 0; i < n; i++)
        if (values[i] >= WRITE_MAX_32) {
            base_put_le64(p + 4 + size, values[i]);
            size += 8;
        }
    if (size == 0) return 0;
    base_put_le16(p, zip64_extra);
    base_put_le16(p + 2, (uint16_t)size);
    return size + 4;
}

/* Appends the data, deflated when that is smaller; fills in method and sizes. */
static segfm_status append_data(io_buffer *archive, const unsigned char *bytes, size_t n, io_zip_entry *e,
                                segfm_error *error) {
    size_t before = archive->size;
    segfm_status status = SEGFM_OK;
    e->method = 8;
    if (n > 4) status = io_deflate(bytes, n, archive, error); /* up to 4 bytes never become fewer */
    if (status == SEGFM_OK && (n <= 4 || archive->size - before >= n)) {
        archive->size = before;
        e->method = 0;
        status = io_buffer_append(archive, bytes, n, error);
    }
    e->compressed_size = archive->size - before;
    e->size = n;
    return status;
}

static segfm_status append_directory_entry(io_zip_writer *w, const char *name, size_t name_size, const io_zip_entry *e,
                                           uint64_t local_at, segfm_error *error) {
    unsigned char p[central_size] = {0}, extra[28];
    const uint64_t values[3] = {e->size, e->compressed_size, local_at};
    size_t extra_size = put_zip64(extra, values, 3), before = w->directory.size;
    base_put_le32(p, central_magic);
    base_put_le16(p + 4, extra_size > 0 ? 45 : 20); /* written under DOS conventions: no permissions to carry */
    put_common(p + 6, name, name_size, e, extra_size);
    base_put_le32(p + 42, narrow32(local_at));
    segfm_status status = io_buffer_append(&w->directory, p, sizeof p, error);
    if (status == SEGFM_OK) status = io_buffer_append(&w->directory, name, name_size, error);
    if (status == SEGFM_OK) status = io_buffer_append(&w->directory, extra, extra_size, error);
    if (status != SEGFM_OK) w->directory.size = before;
    return status;
}

/* A local header's zip64 field holds both sizes; `extra` has 20 bytes. */
static void put_local_zip64(unsigned char *header, unsigned char *extra, const io_zip_entry *e) {
    base_put_le32(header + 18, 0xFFFFFFFFU);
    base_put_le32(header + 22, 0xFFFFFFFFU);
    base_put_le16(extra, zip64_extra);
    base_put_le16(extra + 2, 16);
    base_put_le64(extra + 4, e->size);
    base_put_le64(extra + 12, e->compressed_size);
}

static segfm_status check_name(size_t size, segfm_error *error) {
    if (size > 0 && size <= 0xFFFF) return SEGFM_OK;
    return base_fail(error, SEGFM_BAD_USAGE, "zip: a member's name has %zu bytes, need 1 to 65535", size);
}

segfm_status io_zip_add(io_zip_writer *w, const char *name, const void *bytes, size_t n, segfm_error *error) {
    size_t name_size = strlen(name), local_at = w->archive.size;
    segfm_status status = check_name(name_size, error);
    if (status != SEGFM_OK) return status;
    io_zip_entry e = {0};
    e.crc = io_crc32(0, bytes, n);
    /* The header is completed when the compressed size is known; whether it has a zip64 field must be known now. Both
       sizes are in it then: a local header may not have one alone. */
    unsigned char p[local_size + 20] = {0};
    size_t extra_size = n >= WRITE_MAX_32 ? 20 : 0;
    status = io_buffer_append(&w->archive, p, local_size, error);
    if (status == SEGFM_OK) status = io_buffer_append(&w->archive, name, name_size, error);
    if (status == SEGFM_OK) status = io_buffer_append(&w->archive, p + local_size, extra_size, error);
    if (status == SEGFM_OK) status = append_data(&w->archive, bytes, n, &e, error);
    if (status == SEGFM_OK) status = append_directory_entry(w, name, name_size, &e, w->before + local_at, error);
    if (status != SEGFM_OK) {
        w->archive.size = local_at;
        return status;
    }
    unsigned char *header = w->archive.data + local_at, *extra = header + local_size + name_size;
    base_put_le32(header, local_magic);
    put_common(header + 4, name, name_size, &e, extra_size);
    if (extra_size > 0) put_local_zip64(header, extra, &e);
    w->count++;
    return SEGFM_OK;
}

segfm_status io_zip_announce(io_zip_writer *w, const char *name, uint64_t n, uint32_t crc, segfm_error *error) {
    size_t name_size = strlen(name), at = w->archive.size, zip64_size = n >= WRITE_MAX_32 ? 20 : 0;
    segfm_status status = check_name(name_size, error);
    if (status != SEGFM_OK) return status;
    io_zip_entry e = {.size = n, .compressed_size = n, .crc = crc};
    unsigned char header[local_size] = {0}, extra[20 + 4 + alignment] = {0}, *padding = extra + zip64_size;
    size_t data_at = (size_t)((w->before + at + local_size + name_size + zip64_size + 4) % alignment),
           padding_size = (alignment - data_at) % alignment, extra_size = zip64_size + 4 + padding_size;
    base_put_le32(header, local_magic);
    put_common(header + 4, name, name_size, &e, extra_size);
    base_put_le16(header + 4, zip64_size > 0 ? 45 : 20);
    if (zip64_size > 0) put_local_zip64(header, extra, &e);
    base_put_le16(padding, padding_extra);
    base_put_le16(padding + 2, (uint16_t)padding_size);
    status = io_buffer_append(&w->archive, header, local_size, error);
    if (status == SEGFM_OK) status = io_buffer_append(&w->archive, name, name_size, error);
    if (status == SEGFM_OK) status = io_buffer_append(&w->archive, extra, extra_size, error);
    if (status == SEGFM_OK) status = append_directory_entry(w, name, name_size, &e, w->before + at, error);
    if (status == SEGFM_OK) w->count++;
    else w->archive.size = at;
    return status;
}

/* The zip64 end record and its locator. */
static segfm_status append_end64(io_zip_writer *w, uint64_t begin, uint64_t size, segfm_error *error) {
    unsigned char p[end64_size + locator64_size] = {0}, *l = p + end64_size;
    base_put_le32(p, end64_magic);
    base_put_le64(p + 4, end64_size - 12);
    base_put_le16(p + 12, 45);
    base_put_le16(p + 14, 45);
    base_put_le64(p + 24, w->count);
    base_put_le64(p + 32, w->count);
    base_put_le64(p + 40, size);
    base_put_le64(p + 48, begin);
    base_put_le32(l, locator64_magic);
    base_put_le64(l + 8, w->before + w->archive.size);
    base_put_le32(l + 16, 1);
    return io_buffer_append(&w->archive, p, sizeof p, error);
}

static segfm_status append_directory(io_zip_writer *w, segfm_error *error) {
    io_buffer *archive = &w->archive;
    uint64_t begin = w->before + archive->size, size = w->directory.size, count = w->count;
    segfm_status status = io_buffer_append(archive, w->directory.data, w->directory.size, error);
    if (status == SEGFM_OK && (count >= WRITE_MAX_16 || begin >= WRITE_MAX_32 || size >= WRITE_MAX_32))
        status = append_end64(w, begin, size, error);
    if (status != SEGFM_OK) return status;
    unsigned char p[end_size] = {0};
    uint16_t narrow_count = count < WRITE_MAX_16 ? (uint16_t)count : 0xFFFFU;
    base_put_le32(p, end_magic);
    base_put_le16(p + 8, narrow_count);
    base_put_le16(p + 10, narrow_count);
    base_put_le32(p + 12, narrow32(size));
    base_put_le32(p + 16, narrow32(begin));
    return io_buffer_append(archive, p, sizeof p, error);
}

segfm_status io_zip_finish(io_zip_writer *w, segfm_error *error) {
    size_t before = w->archive.size;
    segfm_status status = append_directory(w, error);
    if (status == SEGFM_OK && w->before == 0) {
        /* Reading the result's directory finds names that were added twice, the one thing io_zip_add does not see. */
        io_zip check;
        status = io_zip_open(w->archive.data, w->archive.size, &check, error);
        if (status == SEGFM_OK) io_zip_close(&check);
        else if (status == SEGFM_BAD_INPUT) {
            status = SEGFM_BAD_USAGE;
            if (error != NULL) error->status = status;
        }
    }
    if (status != SEGFM_OK) w->archive.size = before;
    return status;
}

void io_zip_writer_free(io_zip_writer *w) {
    io_buffer_free(&w->archive);
    io_buffer_free(&w->directory);
    *w = (io_zip_writer){0};
}
