/* io: bytes in and out. Files, gzip, zip, npy/npz, pickles, NIfTI, PNG. Knows no network and does no arithmetic beyond
   converting a voxel's type. Every parser works on a memory buffer, checks every size before using it, never recurses
   on its input, and leaves its outputs empty when it fails. */
#ifndef SEGFM_IO_H
#define SEGFM_IO_H

#include "../base/base.h"

/* ---- buffers and files (file.c) ------------------------------------------------------------------------------ */

/* A growing byte buffer; all zero = empty. Freed by io_buffer_free, which leaves it empty again. */
typedef struct io_buffer {
    unsigned char *data;
    size_t size, capacity;
} io_buffer;

void io_buffer_free(io_buffer *b);
/* capacity ≥ `capacity` afterwards, at least doubled when it grows. SEGFM_NO_MEMORY: the buffer is as it was. */
segfm_status io_buffer_reserve(io_buffer *b, size_t capacity, segfm_error *error);
segfm_status io_buffer_append(io_buffer *b, const void *bytes, size_t n, segfm_error *error);

/* Reads a whole regular file into *out (which must be empty). Errors name the file: SEGFM_BAD_INPUT (missing,
   unreadable, a folder), SEGFM_NO_MEMORY. */
segfm_status io_read_file(const char *path, io_buffer *out, segfm_error *error);

/* A file's bytes, mapped read-only where the system can (POSIX mmap), else read into memory. */
typedef struct io_mapping {
    const unsigned char *data;
    size_t size;
    bool mapped; /* false: data was allocated */
    int file;    /* the system's handle of a mapped file */
} io_mapping;
segfm_status io_map_file(const char *path, io_mapping *out, segfm_error *error);
/* n of the mapping's bytes, which nobody will read again: memory that holds them is given back, in whole pages. */
void io_release(const io_mapping *m, const void *bytes, size_t n);
void io_unmap_file(io_mapping *m);

/* Writes a file as a whole or not at all: bytes go to a temporary name beside `path`; io_output_commit flushes, syncs,
   closes and renames, each step checked. Anything else removes the temporary file. Errors: SEGFM_WRITE_FAILED, naming
   the file. After a failure every further call fails too, and commit/abort still frees. */
typedef struct io_output io_output;
segfm_status io_output_open(const char *path, io_output **out, segfm_error *error);
segfm_status io_output_write(io_output *o, const void *bytes, size_t n, segfm_error *error);
segfm_status io_output_commit(io_output *o, segfm_error *error); /* frees o in every case */
void io_output_abort(io_output *o);                              /* frees o; NULL is fine */
/* The three steps above for bytes that are already together. */
segfm_status io_write_file(const char *path, const void *bytes, size_t n, segfm_error *error);
/* Says that `path` could not be opened, read, written…: "what: code's reason", code being errno, in words that are the same on all
   systems. Returns the status, or SEGFM_NO_MEMORY where that was the reason. */
segfm_status io_fail(segfm_error *error, segfm_status status, const char *path, const char *what, int code);

/* ---- deflate (inflate.c, deflate.c) -------------------------------------------------------------------------- */

/* CRC-32 (IEEE 802.3, as gzip and zip use it); start with crc = 0 and feed pieces. */
uint32_t io_crc32(uint32_t crc, const void *bytes, size_t n);
/* Adler-32 (zlib, PNG); start with 1. */
uint32_t io_adler32(uint32_t adler, const void *bytes, size_t n);
/* Inflates one raw deflate stream (RFC 1951) from src, appending to *out, which may grow by at most `limit` bytes.
   *consumed = input bytes used. Errors name the input offset: SEGFM_BAD_INPUT (also when limit is passed); out->size is
   then as before. Memory grows with what the input has given, at most 1032 times the input. */
segfm_status io_inflate(const unsigned char *src, size_t n, size_t *consumed, io_buffer *out, size_t limit,
                        segfm_error *error);
/* Inflates a gzip file (RFC 1952), all its members one after another, checking each CRC and size. `limit` bounds the
   total. Trailing zero bytes after the last member are allowed (tapes), any other trailing byte is an error. */
segfm_status io_gunzip(const unsigned char *src, size_t n, io_buffer *out, size_t limit, segfm_error *error);
bool io_is_gzip(const unsigned char *src, size_t n);
/* Appends a raw deflate stream / a gzip member (mtime 0, no name: same input, same bytes) / a zlib stream. LZ77 with
   hash chains, lazy matching and dynamic Huffman codes; falls back to stored blocks when they are smaller. */
segfm_status io_deflate(const unsigned char *src, size_t n, io_buffer *out, segfm_error *error);
segfm_status io_gzip(const unsigned char *src, size_t n, io_buffer *out, segfm_error *error);
segfm_status io_zlib(const unsigned char *src, size_t n, io_buffer *out, segfm_error *error);

/* ---- zip (zip.c) --------------------------------------------------------------------------------------------- */

typedef struct io_zip_entry {
    char *name;                     /* terminated; a name with an embedded NUL is refused */
    uint64_t compressed_size, size; /* from the central directory, zip64 included */
    uint64_t data_offset;           /* of the compressed bytes, after the local header (checked to lie in the file) */
    uint32_t crc;
    int method; /* 0 stored, 8 deflated */
} io_zip_entry;

/* An archive read from memory, which must outlive it. */
typedef struct io_zip {
    const unsigned char *bytes;
    size_t size;
    io_zip_entry *entries;
    size_t count;
    const io_zip_entry **by_name; /* the entries in the order of their names */
} io_zip;

bool io_is_zip(const unsigned char *bytes, size_t n);
/* Reads the central directory (zip64 too). Refuses encryption, other methods, split archives, duplicate names,
   overlapping entries, local headers that disagree in name, method, sizes or CRC, and a directory that does not end
   right before its end records. Bytes before and between the members are allowed. */
segfm_status io_zip_open(const unsigned char *bytes, size_t n, io_zip *out, segfm_error *error);
void io_zip_close(io_zip *zip);
/* The entry of that name, or NULL. */
const io_zip_entry *io_zip_find(const io_zip *zip, const char *name);
/* Appends the entry's bytes to *out; checks size and CRC. */
segfm_status io_zip_read(const io_zip *zip, const io_zip_entry *e, io_buffer *out, segfm_error *error);
/* The bytes of a stored entry in place, CRC checked; SEGFM_BAD_INPUT when it is compressed. */
segfm_status io_zip_view(const io_zip *zip, const io_zip_entry *e, const unsigned char **data, segfm_error *error);

/* Writes an archive into a buffer: start from {0}, add, finish (appends the central directory, zip64 where needed).
   A member is deflated when that makes it smaller. Times are fixed (1980-01-01): same input, same bytes.
   SEGFM_BAD_USAGE: a name that is empty or too long (add), or that was added twice (finish). */
typedef struct io_zip_writer {
    io_buffer archive, directory;
    size_t count;
    uint64_t before; /* bytes of the archive that are no longer in `archive`, see io_zip_announce */
} io_zip_writer;
segfm_status io_zip_add(io_zip_writer *w, const char *name, const void *bytes, size_t n, segfm_error *error);
/* For what is too large for memory: the header of a member whose n bytes, stored as they are, the caller writes right behind
   it. They begin at a multiple of 64 in the archive, as torch.save's do. The caller writes what is in `archive` to where it
   belongs, empties it (size = 0), and adds to `before` what has been written: those bytes and the member's. Names that are
   added twice are then not noticed. */
segfm_status io_zip_announce(io_zip_writer *w, const char *name, uint64_t n, uint32_t crc, segfm_error *error);
segfm_status io_zip_finish(io_zip_writer *w, segfm_error *error);
void io_zip_writer_free(io_zip_writer *w);

/* ---- arrays and npy (npy.c) ---------------------------------------------------------------------------------- */

enum { IO_MAX_DIMS = 8 };

typedef enum io_dtype {
    IO_NONE = 0,
    IO_BOOL,
    IO_U8,
    IO_I8,
    IO_U16,
    IO_I16,
    IO_U32,
    IO_I32,
    IO_U64,
    IO_I64,
    IO_F16,
    IO_BF16,
    IO_F32,
    IO_F64,
    IO_OBJECT, /* npy only: the data is a pickle */
    IO_TEXT    /* io_npy_parse_texts only: strings of bytes / count bytes each, UTF-32, padded with zeros */
} io_dtype;

/* Bytes of one element (0 for IO_NONE, IO_OBJECT and IO_TEXT); its name as numpy spells it ("uint8", "float32", …). */
size_t io_dtype_size(io_dtype t);
const char *io_dtype_name(io_dtype t);

/* A view of an n-dimensional array in memory: element bytes, row-major (C order) unless `fortran`, not aligned.
   Borrowed from the buffer it was parsed from. ndim 0 is a scalar (count 1). */
typedef struct io_array {
    io_dtype dtype;
    bool big_endian, fortran;
    int ndim;
    size_t shape[IO_MAX_DIMS];
    size_t count;              /* product of shape */
    const unsigned char *data; /* count * io_dtype_size bytes (IO_OBJECT: `bytes` bytes of pickle) */
    size_t bytes;
} io_array;

/* Parses an npy file, versions 1-3. Structured, string and complex types are refused by name; so are bytes after the
   data. */
segfm_status io_npy_parse(const unsigned char *bytes, size_t n, io_array *out, segfm_error *error);
/* The same, and strings are fine too: IO_TEXT. */
segfm_status io_npy_parse_texts(const unsigned char *bytes, size_t n, io_array *out, segfm_error *error);
/* Is element i (storage order) of IO_TEXT this ASCII text? */
bool io_array_is_text(const io_array *a, size_t i, const char *text);
/* Element i (storage order) as a number; i < count, not IO_OBJECT. 64-bit integers round to double. */
double io_array_get(const io_array *a, size_t i);
/* The whole array in C order, converted; dst has count elements. Undoes fortran order. Half and float NaNs pass
   through. to_i64: SEGFM_BAD_INPUT when a value is not a whole number that fits. */
void io_array_to_f32(const io_array *a, float *dst);
void io_array_to_f64(const io_array *a, double *dst);
segfm_status io_array_to_i64(const io_array *a, int64_t *dst, segfm_error *error);
/* Turns the bytes of each of `count` elements of `size` bytes around. */
void io_turn_elements(unsigned char *p, size_t count, size_t size);
/* Appends an npy file (version 1.0, little-endian, C order, header padded to 64 bytes) of native-endian `data`. */
segfm_status io_npy_write(io_buffer *out, io_dtype dtype, int ndim, const size_t *shape, const void *data,
                          segfm_error *error);

/* ---- pickles (pickle.c) -------------------------------------------------------------------------------------- */

/* A restricted unpickler: protocols 0-5, only the opcodes that numpy and torch write, only the globals in its
   allow-list, nothing is ever executed. The result is a graph of nodes in one pool, addressed by index: no cycles, at
   most 64 levels, but a node may be shared (memo), so a walk over every path can be far longer than the pickle: readers
   go to the depth that they expect. Integers beyond int64 are IO_PICKLE_OPAQUE.

   Calls of allowed globals become nodes:
     numpy.core.multiarray._reconstruct / scalar / dtype, numpy._core…  (numpy 2 spelling)   → IO_PICKLE_ARRAY or number
     collections.OrderedDict                                                                → IO_PICKLE_DICT
     torch._utils._rebuild_tensor_v2, _rebuild_parameter                                    → IO_PICKLE_TENSOR
     persistent id ('storage', torch.XStorage, key, location, count)                        → IO_PICKLE_STORAGE
     argparse.Namespace, torch.device, Counter, Path                                        → IO_PICKLE_OPAQUE
   Anything else is refused by its name and offset. */
typedef enum io_pickle_kind {
    IO_PICKLE_NONE, /* Python's None */
    IO_PICKLE_BOOL,
    IO_PICKLE_INT,
    IO_PICKLE_FLOAT,
    IO_PICKLE_STRING, /* str or bytes */
    IO_PICKLE_LIST,   /* list, tuple or set */
    IO_PICKLE_DICT,   /* children: key, value, key, value… in insertion order */
    IO_PICKLE_ARRAY,  /* a numpy array: `array` for numbers; object arrays have children in C order and `array.shape` */
    IO_PICKLE_STORAGE,
    IO_PICKLE_TENSOR,
    IO_PICKLE_GLOBAL, /* an allowed class or function not (yet) called, by name */
    IO_PICKLE_OPAQUE  /* an allowed object whose content does not matter here (an optimizer's or config's) */
} io_pickle_kind;

typedef struct io_pickle_tensor {
    uint32_t storage; /* node */
    size_t offset;    /* elements into the storage */
    int ndim;
    size_t shape[IO_MAX_DIMS], stride[IO_MAX_DIMS]; /* elements; checked to stay inside the storage's count */
} io_pickle_tensor;

typedef struct io_pickle_node {
    io_pickle_kind kind;
    int64_t integer;       /* BOOL, INT */
    double number;         /* FLOAT */
    const char *string;    /* STRING (not terminated), STORAGE: its key, GLOBAL: "module name" */
    size_t length;         /* of string */
    uint32_t first, count; /* children: io_pickle.children[first … first+count) (pairs count twice) */
    io_dtype dtype;        /* STORAGE */
    size_t elements;       /* STORAGE */
    union {
        io_array array;          /* ARRAY */
        io_pickle_tensor tensor; /* TENSOR */
    };
} io_pickle_node;

typedef struct io_pickle {
    io_pickle_node *nodes;
    uint32_t *children;
    uint32_t root;
    void *private_data;
} io_pickle;

/* `bytes` must outlive the result (strings and arrays point into it). */
segfm_status io_pickle_parse(const unsigned char *bytes, size_t n, io_pickle *out, segfm_error *error);
void io_pickle_free(io_pickle *p);
/* The value of a string key in a dict node, or NULL. */
const io_pickle_node *io_pickle_get(const io_pickle *p, const io_pickle_node *dict, const char *key);
/* Child i of a list, dict or object array. */
const io_pickle_node *io_pickle_child(const io_pickle *p, const io_pickle_node *node, uint32_t i);
/* INT, BOOL or FLOAT (or a one-element ARRAY) as a whole number; false otherwise. */
bool io_pickle_int(const io_pickle_node *node, int64_t *out);

/* ---- NIfTI (nifti.c) ----------------------------------------------------------------------------------------- */

/* A NIfTI-1 or -2 image: the header as it stood in the file, and what it means. */
typedef struct io_nifti {
    int version;         /* 1 or 2 */
    bool big_endian;     /* of the file */
    bool pair;           /* came as .hdr/.img */
    int64_t nx, ny, nz;  /* voxels along i, j, k (missing axes are 1) */
    int64_t volumes;     /* product of dim[4..7], at least 1 */
    double spacing[3];   /* |pixdim[1..3]| in mm along i, j, k (units µm and m are converted); 0 or NaN read as 1 */
    double affine[3][4]; /* voxel (i,j,k,1) → mm: sform if its code > 0, else qform if its code > 0, else nibabel's
                             base affine; lengths converted to mm as in spacing, which nibabel does not do */
    int datatype;        /* NIfTI code */
    io_dtype dtype;      /* its scalar type */
    double slope, inter; /* value = stored * slope + inter, as nibabel: slope 0 or not finite → 1, 0; an inter that is
                             not finite with a valid slope is an error */
    unsigned char header[540]; /* 348 (version 1) or 540 bytes, unchanged, in the file's byte order */
    io_buffer extensions;      /* the bytes from the 4 extension flags to vox_offset (a .hdr: to its end), unchanged */
    io_buffer data;            /* the voxels of all volumes, unchanged, in the file's byte order */
} io_nifti;

/* Reads .nii, .nii.gz, .hdr/.img (either name given, also gzipped); gzip is recognised by content. RGB, complex, 1-bit
   and float128 types are refused by name. Refused where nibabel is lenient: a wrong sizeof_hdr or bitpix, a vox_offset
   of 0 or with a fraction, an affine in use that is not finite, more than 1 MiB after the voxels. Errors name file,
   field, what it holds, what is needed. */
segfm_status io_nifti_read(const char *path, io_nifti *out, segfm_error *error);
/* The same from memory (a single-file image, gzip allowed). */
segfm_status io_nifti_parse(const unsigned char *bytes, size_t n, io_nifti *out, segfm_error *error);
void io_nifti_free(io_nifti *image);
/* Volume `index` as floats, scaled: out (nz, ny, nx), x fastest, as the file. The scaling is done in double and rounded
   once. SEGFM_BAD_INPUT when index ≥ volumes or a voxel is not finite (its index is named); `out` may then hold a part
   of the volume. */
segfm_status io_nifti_voxels(const io_nifti *image, int64_t index, float *out, segfm_error *error);
/* The same for a label image: whole numbers 0…65535, anything else is refused, naming voxel and value. */
segfm_status io_nifti_labels(const io_nifti *image, int64_t index, uint16_t *out, segfm_error *error);
/* Writes an image of one volume with the geometry of `like`: same version, byte order, qform, sform, codes, pixdim, units,
   intent cleared, extensions kept; dim[0] is kept, but 3 where `like` has several volumes, dim[4…] becomes 1, datatype
   `dtype` (IO_U8, IO_U16, IO_F32), slope 1, inter 0, cal_min/max 0. data (nz, ny, nx) native-endian. `path` ends in .nii, or in .hdr or .img
   (writes the pair), each with or without .gz; another ending is SEGFM_BAD_USAGE. */
segfm_status io_nifti_write_like(const char *path, const io_nifti *like, io_dtype dtype, const void *data,
                                 segfm_error *error);
/* A fresh NIfTI-1 header for a scan that came without one (npz): spacing (x,y,z) in mm, sform = diagonal, code 1. */
void io_nifti_init(io_nifti *out, int64_t nx, int64_t ny, int64_t nz, const double spacing[3]);

/* ---- PNG (png.c) --------------------------------------------------------------------------------------------- */

/* Writes an 8-bit RGB picture, rgb (height, width, 3). */
segfm_status io_png_write(const char *path, int width, int height, const unsigned char *rgb, segfm_error *error);

#endif
