"""io/nifti.c against nibabel: what we read is what nibabel reads, what we write keeps the geometry that nibabel finds.

    gcc -std=c11 -D_POSIX_C_SOURCE=200809L -ffp-contract=off -O2 base/base.c io/*.c test/nifti_roundtrip.c \\
        -o build/nifti_roundtrip -lm
    verify_nifti.py HELPER [SCAN ...]      HELPER: the program built above; SCAN: images to compare besides

Images are made with nibabel's headers in every combination of datatype, byte order, version and kind of file, with
scalings, transforms, units, extensions and numbers of axes taken in turn. Last line: N passed, N failed."""
import argparse
import logging
import os
import subprocess
import sys
import tempfile

import nibabel
import numpy as np
from nibabel.nifti1 import Nifti1Extension, Nifti1Header, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
from nibabel.openers import ImageOpener

nibabel.imageglobals.logger.setLevel(logging.CRITICAL)

DTYPES = ['uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32', 'uint64', 'int64', 'float32', 'float64']
KINDS = ['.nii', '.nii.gz', '.hdr', '.hdr.gz']
HEADERS = {(1, False): Nifti1Header, (1, True): Nifti1PairHeader, (2, False): Nifti2Header, (2, True): Nifti2PairHeader}
# slope, inter; the first keep whole numbers whole, for the label types
SCALINGS = [(np.nan, np.nan), (1, 0), (0, 7), (np.inf, 3), (2, 1), (0.125, -3.5), (-1.7, 1e-3), (1, -1024), (3e-5, 0)]
SHAPES = [(7, 5, 3), (6, 1, 4, 3), (9, 4), (4, 3, 5, 1, 2), (11,), (3, 8, 2, 2), (5, 4, 6, 1)]
UNITS = [('mm', 'sec'), ('mm', None), ('micron', 'msec'), ('meter', 'sec'), (None, None)]
TO_MM = {'mm': lambda x: x, 'unknown': lambda x: x, 'micron': lambda x: x / 1000, 'meter': lambda x: x * 1000}
TRANSFORMS = ['both', 'sform', 'qform', 'none', 'qform flipped', 'different']

passed = failed = 0


def check(ok, what, name):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print(f'{name}: failed: {what}')


def oblique(rng, flip=False):
    """A rotation times zooms plus a translation, in float32 numbers."""
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    if (np.linalg.det(q) < 0) != flip:
        q[:, 2] *= -1
    affine = np.eye(4)
    affine[:3, :3] = q * [0.8, 1.3, 2.75]
    affine[:3, 3] = rng.normal(size=3) * 50
    return affine.astype(np.float32).astype(float)


def set_transform(header, how, rng):
    zooms = [0.8, 1.3, 2.75, 1.5, 1, 1, 1][:len(header.get_data_shape())]
    header.set_zooms(zooms)
    if how in ('both', 'qform', 'qform flipped', 'different'):
        header.set_qform(oblique(rng, flip='flipped' in how), code=int(rng.integers(1, 5)))
        header.set_zooms([header['pixdim'][i + 1] if i < 3 else z for i, z in enumerate(zooms)])
    if how in ('both', 'sform', 'different'):
        header.set_sform(oblique(rng), code=int(rng.integers(1, 5)))
    if how == 'both':
        header.set_sform(header.get_qform(), code='scanner')


def make_values(dtype, shape, whole, rng):
    dtype = np.dtype(dtype)
    if whole:
        return rng.integers(0, 120, size=shape).astype(dtype)
    if dtype.kind == 'f':
        values = (rng.normal(size=shape) * 10.0 ** rng.integers(-30, 6, size=shape)).astype(dtype)
        values.flat[0] = -0.0
        return values
    limits = np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max, size=shape, dtype=dtype, endpoint=True)
    values.flat[0], values.flat[-1] = limits.min, limits.max
    return values


def write_image(path, header, values, offset):
    """Header and voxels as they are: nibabel's image classes would choose a scaling of their own."""
    pair = '.hdr' in path
    stored = values.astype(header.get_data_dtype()).tobytes(order='F')
    header['vox_offset'] = offset
    with ImageOpener(path, 'wb') as f:
        header.write_to(f)
        if not pair:
            f.write(b'\0' * (int(header['vox_offset']) - f.tell()))
            f.write(stored)
    if pair:
        with ImageOpener(path.replace('.hdr', '.img'), 'wb') as f:
            f.write(b'\x55' * offset)
            f.write(stored)


def run(helper, *arguments):
    return subprocess.run([helper, *arguments], capture_output=True, text=True)


def parse_dump(text):
    return {line.split()[0]: [float(x) for x in line.split()[1:]] for line in text.splitlines()}


def in_mm(header, lengths):
    return TO_MM[header.get_xyzt_units()[0]](np.asarray(lengths, float))


def check_reading(helper, path, name, scratch):
    """Our voxels, shape, spacing, scaling and affine against nibabel's. Returns nibabel's image and volume 0."""
    image = nibabel.load(path)
    header = image.header
    want = image.get_fdata().astype(np.float32).ravel(order='F')
    raw = os.path.join(scratch, 'dump.raw')
    done = run(helper, '--dump', path, raw)
    check(done.returncode == 0, f'reading: {done.stderr.strip()}', name)
    if done.returncode != 0:
        return None, None
    got = np.fromfile(raw, np.float32)
    found = parse_dump(done.stdout)
    same = got.size == want.size and np.array_equal(got.view(np.uint32), want.view(np.uint32))
    check(same, 'voxels, bit by bit', name)
    shape = list(image.shape) + [1] * (7 - image.ndim)
    check(found['shape'] == shape[:3] + [np.prod(shape[3:])], f'shape {found["shape"]} {shape}', name)
    check(found['datatype'] == [int(header['datatype'])], 'datatype', name)
    check(found['big_endian'] == [header.endianness == '>'], 'byte order', name)
    check(found['scaling'] == [image.dataobj.slope, image.dataobj.inter], f'scaling {found["scaling"]}', name)
    zooms = in_mm(header, header.get_zooms()[:3])
    check(found['spacing'][:len(zooms)] == zooms.tolist(), f'spacing {found["spacing"]}', name)
    affine = in_mm(header, image.affine[:3])
    ours = np.array(found['affine']).reshape(3, 4)
    if header['sform_code'] > 0:
        check(np.array_equal(ours, affine), 'affine from sform, exactly', name)
    else:  # nibabel computes a qform in 80-bit numbers
        if header['qform_code'] <= 0:  # an axis that the image lacks has 1 mm, whatever the unit
            affine[range(image.ndim, 3), range(image.ndim, 3)] = 1
        check(np.abs(ours - affine).max() <= 1e-12 * np.abs(affine).max(), 'affine', name)
    return image, want[:int(np.prod(shape[:3]))]


def same_header_field(a, b, field):
    return a[field].tobytes() == b[field].tobytes()


KEPT = ['pixdim', 'xyzt_units', 'qform_code', 'sform_code', 'quatern_b', 'quatern_c', 'quatern_d', 'qoffset_x',
        'qoffset_y', 'qoffset_z', 'srow_x', 'srow_y', 'srow_z', 'descrip', 'aux_file', 'dim_info', 'slice_code',
        'slice_start', 'slice_end', 'slice_duration', 'toffset', 'sizeof_hdr']


def check_writing(helper, path, image, volume, out, name):
    """Volume 0 written by us `like` the image, as nibabel reads it."""
    types = ['float32']
    if np.all((volume >= 0) & (volume == np.floor(volume))):
        types += [t for t, most in (('uint8', 255), ('uint16', 65535)) if volume.max() <= most]
    for dtype in types:
        done = run(helper, path, out, dtype)
        check(done.returncode == 0, f'writing {dtype}: {done.stderr.strip()}', name)
        if done.returncode != 0:
            continue
        back = nibabel.load(out)
        header, like = back.header, image.header
        axes = image.ndim if np.prod(image.shape[3:]) == 1 else 3
        check(back.shape == image.shape[:axes], f'{dtype}: shape {back.shape}', name)
        check(header.endianness == like.endianness, f'{dtype}: byte order', name)
        check(back.get_data_dtype() == np.dtype(dtype).newbyteorder(like.endianness), f'{dtype}: datatype', name)
        check(np.array_equal(back.affine, image.affine), f'{dtype}: affine', name)
        for form in ('get_qform', 'get_sform'):
            (a, code_a), (b, code_b) = getattr(back, form)(coded=True), getattr(image, form)(coded=True)
            check(code_a == code_b and (a is None) == (b is None) and (a is None or np.array_equal(a, b)),
                  f'{dtype}: {form}', name)
        check(header.get_xyzt_units() == like.get_xyzt_units(), f'{dtype}: units', name)
        check(header.get_zooms()[:3] == like.get_zooms()[:3], f'{dtype}: zooms', name)
        check(all(same_header_field(header, like, field) for field in KEPT),
              f'{dtype}: {[f for f in KEPT if not same_header_field(header, like, f)]} kept', name)
        check((back.dataobj.slope, back.dataobj.inter) == (1, 0), f'{dtype}: scaling', name)
        check(header.get_intent() == ('none', (), ''), f'{dtype}: intent', name)
        check([(e.get_code(), e.get_content()) for e in header.extensions] ==
              [(e.get_code(), e.get_content()) for e in like.extensions], f'{dtype}: extensions', name)
        stored = np.asanyarray(back.dataobj).astype(np.float32).ravel(order='F')
        check(np.array_equal(stored.view(np.uint32), volume.view(np.uint32)), f'{dtype}: voxels', name)
        for file in (out, out.replace('.hdr', '.img')):
            if os.path.exists(file):
                os.remove(file)


def make_header(version, endian, pair, dtype, shape, turn, rng):
    header = HEADERS[version, pair](endianness=endian)
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    set_transform(header, TRANSFORMS[turn % len(TRANSFORMS)], rng)
    header.set_xyzt_units(*UNITS[turn % len(UNITS)])
    header['scl_slope'], header['scl_inter'] = SCALINGS[turn % len(SCALINGS)]
    header['descrip'] = b'made for verify_nifti'
    header['toffset'] = 1.5
    header.set_intent('t test', (9,), name='some score')
    header['cal_max'] = 100
    if len(shape) >= 3:
        header.set_dim_info(0, 1, 2)
        header.set_slice_duration(0.25)
    if turn % 3 == 1:
        header.extensions.append(Nifti1Extension('comment', b'first of two'))
        header.extensions.append(Nifti1Extension('afni', bytes(range(1, 200))))
    return header


def check_made_images(helper, scratch):
    rng = np.random.default_rng(7)
    turn = 0
    for version in (1, 2):
        for endian in '<>':
            for kind in KINDS:
                for dtype in DTYPES:
                    turn += 1
                    shape = SHAPES[turn % len(SHAPES)]
                    header = make_header(version, endian, 'hdr' in kind, dtype, shape, turn, rng)
                    name = f'NIfTI-{version} {endian} {kind} {dtype} {shape} turn {turn}'
                    path = os.path.join(scratch, 'in' + kind)
                    offset = 0  # right behind header and extensions
                    if turn % 4 == 0 and not header.extensions:  # nibabel takes padding for an extension
                        offset = 32 if 'hdr' in kind else 2048
                    whole = turn % 9 < 5
                    write_image(path, header, make_values(dtype, shape, whole, rng), offset)
                    image, volume = check_reading(helper, path, name, scratch)
                    if image is not None:
                        for out in [kind, KINDS[(KINDS.index(kind) + 2) % 4]]:  # the same kind, and pair for single
                            check_writing(helper, path, image, volume, os.path.join(scratch, 'out' + out), name)
                    for file in (path, path.replace('.hdr', '.img')):
                        if os.path.exists(file):
                            os.remove(file)


def refused(helper, path, text, name, scratch):
    done = run(helper, '--dump', path, os.path.join(scratch, 'dump.raw'))
    check(done.returncode == 3 and text in done.stderr and path in done.stderr,
          f'refused by name, got {done.returncode} {done.stderr.strip()}', name)


def check_refusals(helper, scratch):
    path = os.path.join(scratch, 'bad.nii')
    rgb, rgba = np.dtype([(c, 'u1') for c in 'RGB']), np.dtype([(c, 'u1') for c in 'RGBA'])
    for version in (1, 2):
        for endian in '<>':
            for dtype, text in [(np.complex64, 'complex64'), (np.complex128, 'complex128'), (rgb, 'RGB24'),
                                (rgba, 'RGBA32')]:
                header = HEADERS[version, False](endianness=endian)
                header.set_data_dtype(dtype)
                header.set_data_shape((3, 4, 5))
                write_image(path, header, np.zeros((3, 4, 5), dtype), 0)
                refused(helper, path, text, f'NIfTI-{version} {endian} {text}', scratch)
            for code, bits, text in [(1536, 128, 'float128'), (2048, 256, 'complex256'), (1, 1, '1-bit')]:
                header = HEADERS[version, False](endianness=endian)  # nibabel cannot write these everywhere
                header.set_data_shape((3, 4, 5))
                values = np.zeros((3, 4, 5), 'u1')
                header.set_data_dtype('u1')
                header['vox_offset'] = 0
                with open(path, 'wb') as f:
                    header.write_to(f)
                    f.write(values.tobytes() * (bits // 8 + 1))
                patch_datatype(path, header, code, bits)
                refused(helper, path, text, f'NIfTI-{version} {endian} {text}', scratch)
            for inter in (np.nan, np.inf, -np.inf):
                header = make_header(version, endian, False, 'int16', (3, 4, 5), 4, np.random.default_rng(1))
                header['scl_slope'], header['scl_inter'] = 2, inter
                write_image(path, header, np.zeros((3, 4, 5), 'i2'), 0)
                name = f'NIfTI-{version} {endian} inter {inter}'
                refused(helper, path, 'scl_inter', name, scratch)
                try:
                    nibabel.load(path)
                    check(False, 'nibabel refuses it too', name)
                except nibabel.spatialimages.HeaderDataError:
                    check(True, 'nibabel refuses it too', name)


def patch_datatype(path, header, code, bits):
    at = 70 if header['sizeof_hdr'] == 348 else 12
    with open(path, 'r+b') as f:
        f.seek(at)
        f.write(np.array([code, bits], header.endianness + 'i2').tobytes())


def check_scans(helper, scans, scratch):
    for scan in scans:
        name = os.path.basename(scan)
        image, volume = check_reading(helper, scan, name, scratch)
        if image is not None:
            check_writing(helper, scan, image, volume, os.path.join(scratch, 'out.nii'), name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('helper', help='the program built from test/nifti_roundtrip.c')
    parser.add_argument('scans', nargs='*', help='further images to compare')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        check_made_images(arguments.helper, scratch)
        check_refusals(arguments.helper, scratch)
        check_scans(arguments.helper, arguments.scans, scratch)
    print(f'{passed} passed, {failed} failed')
    sys.exit(failed > 0)


if __name__ == '__main__':
    main()
