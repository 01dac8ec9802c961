"""SegVol's way from a scan to a label map: normalise, crop, zoom out, predict, zoom in, stitch.

Numpy and PyTorch, one function per step, in the order in which a volume passes through them. The network is a
function `predict(window, box, points) -> logits` (see `window_predictor`), so that everything here can be checked without it.
Arrays are (z, y, x); a box is six numbers z0 y0 x0 z1 y1 x1, bounds inclusive; the box of nothing is six times −1.

What upstream does and its description does not say
---------------------------------------------------
All of it is needed to match ../shared/golden/tiny/pipe_*.npz exactly (check_golden.py does), except those marked (?),
which no golden file decides.

Normalisation
 N1  Everything is float32: the volume is cast first; numpy's float32 pairwise mean and standard deviation are used. Only
     np.percentile answers in float64, and np.clip rounds both bounds to float32 before it compares. With this the golden
     image is reproduced bit for bit; with float64 statistics it differs by 1e-7. (dtype=float64 below gives that image, for
     comparisons with the double build; the clip bounds are float32 there, too.)
 N2  "Foreground" is v > mean of ALL voxels (strict). The rank of percentile q over n voxels is q/100·(n−1), linear in between.
     The standard deviation divides by n.
 N3  The clip's lower bound becomes exactly 0 after min-max (v − min with v == min), and the crop keeps v > 0 (strict): every
     voxel at or below the 0.05 percentile of the foreground is background for the crop.
     (?) A constant volume has no voxel > mean: no statistics; upstream crashes. Here: all zeros, nothing is cropped.
 N4  The crop is [start, end) with end = last foreground index + 1. Labels and box cubes are cropped by the same slices:
     a box that sticks out is cut, a box outside of the crop becomes the empty cube.

Boxes
 B1  A challenge box becomes a cube of ones in the full volume, bounds inclusive, z_min..z_max × y × x of the middle slice;
     the cube is cropped (N4), then resized like the image (nearest). The prompt of the global pass is the box of the
     RESIZED cube (mask_box), not a rescaled pair of corners: 15..45 of 60 voxels becomes 16..49 of 64 (one more than 15·64/60..45·64/60
     would give). Per axis it is {i : lo <= nearest_source(i) <= hi}; a thin box can fall between the sources: then it is empty
     and the prompt is six times −1, which the prompt encoder takes as coordinates, without complaint.
 B2  mask_box: z range over the whole mask, y/x range of ONE slice: the z of voxel n//2 (0-based) of the raster-ordered list of
     the n foreground voxels. Not the middle of the z range.
 B3  Nearest source index = min(floor(float32(i)·(float32(in)/float32(out))), in − 1), product rounded to float32. The clamp has never
     been seen to act; it is PyTorch's.

Zoom out, zoom in
 Z1  The global logits (window size) go back to the cropped volume's size by nearest, too; NOT trilinear.
 Z2  ROI: bounding box (plain, not B2) of {sigmoid(global logits, resized) > 0.5} ∪ {box cube}. Extent = max − min + 1,
     deficit = window − extent, each side moves by floor(deficit/2) when the deficit is positive; then lo = max(lo, 0) and
     hi = min(hi, AXIS LENGTH). What was cut at one border is not added at the other one, so an ROI can be thinner than a window
     although the volume is larger. hi is inclusive and may equal the axis length (only when padding reached the border); the slice
     [lo : hi+1] then just ends with the axis. No padding at all: hi = last index (21 84 99 for 22x85x100).
     An odd deficit leaves the ROI one voxel short of the window (16,64,64 → 15.., 63..), so it is zero-padded again (W1).
 Z3  If the union is empty the resized global logits are the answer. (With a box cube that is not empty this cannot happen.)
 Z4  The stitched logits overwrite the resized global logits inside the ROI; outside the global ones stay and do count for the mask.

Windows
 W1  The ROI of image, global prediction and box cube is zero-padded to at least a window per axis: deficit//2 before, the rest
     (the odd one) after. The image's padding value is 0, i.e. the darkest foreground value, after normalisation.
 W2  Interval per axis: the window if the padded size equals it, else int(window·0.5). Number of starts: smallest d with
     d·interval + window >= size, plus one; start = min(d·interval, size − window). The last two windows can thus overlap by
     more than half, as much as all but one voxel (65 → starts 0, 1). Order: z slowest, x fastest.
 W3  Exactly one window in all: its box is mask_box of the cropped and padded BOX CUBE (so the prompt is the user's box).
     Two or more: every window's box is mask_box of the cropped and padded global PREDICTION inside that window, the user's
     box is not used any more, not even as a limit; empty → six times −1, and the window is predicted with it all the same.
     Window boxes are in the window's own coordinates, padding included.
 W4  Sums run in window order in the network's precision, weight 1 each, and are divided by the count (float32 sums of the
     float32 run are reproduced bit for bit this way). Then the padding is cut off.
 W5  Windows go through one at a time (batch 1), each with the image encoder run anew.

Points (box + points, "pipe_infer_boxpoints")
 P1  The global call gets the points as given by the caller, already in the zoomed-out grid, each with its label (1 or 0).
 P2  The windows do not get these points. They get a point MAP (one byte per voxel of the cropped volume, non-zero = a positive
     point), cropped to the ROI and padded like the rest, and per window five points drawn from the map's non-zero voxels
     inside the window, all with label 1: first one by torch.randint(n, (1,)), then four by torch.randperm(n)[:4], both
     indexing the raster-ordered list: repeats are normal. So a negative point of the global call reaches the windows, if at all, only as
     a voxel of the map, as a POSITIVE one. Draws happen in window order from torch's global generator.
 P3  (?) A window without map voxels is not among the golden ones. Here: one point (−1,−1,−1) with label −1.

Label map
 L1  mask = sigmoid(logits) > 0.5 in the network's precision: in float32 that is false for 0 < x <= 6e-8, where x > 0 is true.
 L2  Class k (1-based position in the list of boxes, not a field of the dictionary) writes k over whatever earlier classes
     wrote; voxels outside of the foreground crop are 0.
"""
import math

import numpy as np
import torch
import torch.nn.functional as F

NO_BOX = np.full(6, -1, dtype=np.int64)


# ---- from a scan to the network's image ------------------------------------------------------------------------------

def foreground_statistics(volume, dtype=np.float32):
    """(threshold, lower, upper, mean, std, count) of the voxels above the mean (N1, N2)."""
    voxels = volume.astype(dtype).ravel()
    threshold = voxels.mean()
    foreground = voxels[voxels > threshold]
    if foreground.size == 0:
        return threshold, threshold, threshold, threshold, dtype(0), 0
    lower, upper = np.percentile(foreground, 0.05), np.percentile(foreground, 99.95)
    return threshold, lower, upper, foreground.mean(), foreground.std(), foreground.size


def foreground_normalise(volume, dtype=np.float32):
    _, lower, upper, mean, std, _ = foreground_statistics(volume, dtype)
    clipped = np.clip(volume.astype(dtype), np.float32(lower), np.float32(upper))
    return (clipped - mean) / max(std, dtype(1e-8))


def min_max(image):
    image = image - image.min()
    return image / max(image.max(), image.dtype.type(1e-8))


def foreground_bounds(image):
    """Start and end (exclusive) of the voxels > 0; the whole volume when there are none (N3, N4)."""
    box = bounding_box(image > 0)
    if box[0] < 0:
        return np.zeros(3, dtype=np.int64), np.array(image.shape)
    return box[:3], box[3:] + 1


# ---- boxes -----------------------------------------------------------------------------------------------------------

def bounding_box(mask):
    where = np.argwhere(mask)
    return np.concatenate([where.min(0), where.max(0)]) if len(where) else NO_BOX


def mask_box(mask):
    """The box upstream derives from a mask: y and x come from the slice of the median voxel only (B2)."""
    where = np.argwhere(mask)  # raster order
    if len(where) == 0:
        return NO_BOX
    z, y, x = where.T
    middle = z == z[len(z) // 2]
    return np.array([z[0], y[middle].min(), x[middle].min(), z[-1], y[middle].max(), x[middle].max()])


def challenge_box(entry):
    """The challenge's dictionary → box (B1)."""
    return np.array([entry['z_min'], entry['z_mid_y_min'], entry['z_mid_x_min'],
                     entry['z_max'], entry['z_mid_y_max'], entry['z_mid_x_max']])


def box_slices(box):
    """Inclusive bounds → slices. A bound past the end of an axis is cut off by the slice itself (Z2)."""
    return tuple(slice(int(lo), int(hi) + 1) for lo, hi in zip(box[:3], box[3:]))


def box_cube(shape, box):
    cube = np.zeros(shape, dtype=np.uint8)
    if box[0] >= 0:
        cube[box_slices(box)] = 1
    return cube


def jittered_box(mask, draw):
    """Training's box jitter: mask_box with y and x extended by int(draw·size/256) on each side, clamped to the slice."""
    box, limits = mask_box(mask).copy(), mask.shape
    for axis in (1, 2):
        shift = int(draw * limits[axis] / 256)
        box[axis] = max(0, box[axis] - shift)
        box[axis + 3] = min(limits[axis] - 1, box[axis + 3] + shift)
    return box


# ---- resizing --------------------------------------------------------------------------------------------------------

def nearest_sources(n_in, n_out):
    """Source index of every output index (B3)."""
    scale = np.float32(n_in) / np.float32(n_out)
    sources = np.floor(np.arange(n_out, dtype=np.float32) * scale).astype(np.int64)
    return np.minimum(sources, n_in - 1)


def resize_nearest(volume, shape):
    z, y, x = (nearest_sources(n_in, n_out) for n_in, n_out in zip(volume.shape, shape))
    return volume[np.ix_(z, y, x)]


def resize_area(volume, shape):
    """Training's resize: every output voxel is the mean of the source voxels floor(i·in/out) .. ceil((i+1)·in/out) − 1.
    Integer labels are averaged too and then truncated: only fully covered voxels survive."""
    mean = F.interpolate(torch.from_numpy(volume.astype(np.float32))[None, None], size=tuple(shape), mode='area')
    return mean[0, 0].numpy().astype(volume.dtype)


def pad_amounts(shape, window):
    """Zeros (before, after) per axis up to the window; the odd one goes after (W1). Training pads the same way."""
    return [(d // 2, d - d // 2) for d in (max(0, w - n) for n, w in zip(shape, window))]


# ---- zoom out --------------------------------------------------------------------------------------------------------

def prepare(volume, boxes, window, dtype=np.float32):
    """Everything upstream computes before the network runs. boxes: list of boxes in the volume's coordinates."""
    normalised = foreground_normalise(volume, dtype)
    full_image = min_max(normalised)
    start, end = foreground_bounds(full_image)
    crop = tuple(slice(a, b) for a, b in zip(start, end))
    image = full_image[crop]
    cubes = [box_cube(volume.shape, box)[crop] for box in boxes]
    zoomed_cubes = [resize_nearest(cube, window) for cube in cubes]
    return {'normalised': normalised, 'start': start, 'end': end, 'image': image, 'cubes': cubes,
            'zoom_out_image': resize_nearest(image, window), 'zoom_out_cubes': zoomed_cubes,
            'zoom_out_boxes': [mask_box(cube) for cube in zoomed_cubes]}


# ---- zoom in ---------------------------------------------------------------------------------------------------------

def region_of_interest(prediction, cube, window):
    """ROI with inclusive bounds, hi at most the axis length; None when there is nothing to look at (Z2, Z3)."""
    box = bounding_box((prediction != 0) | (cube != 0))
    if box[0] < 0:
        return None
    lo, hi = box[:3].copy(), box[3:].copy()
    for axis, length in enumerate(prediction.shape):
        margin = max(0, window[axis] - (hi[axis] - lo[axis] + 1)) // 2
        lo[axis] = max(0, lo[axis] - margin)
        hi[axis] = min(length, hi[axis] + margin)
    return np.concatenate([lo, hi])


def window_interval(shape, window, overlap=0.5):
    return [w if n == w else max(1, int(w * (1 - overlap))) for n, w in zip(shape, window)]


def window_starts(shape, window):
    """Corners of all windows over a (padded) shape, z slowest (W2)."""
    per_axis = []
    for n, w, step in zip(shape, window, window_interval(shape, window)):
        count = math.ceil((n - w) / step) + 1
        per_axis.append([min(d * step, n - w) for d in range(count)])
    return [(z, y, x) for z in per_axis[0] for y in per_axis[1] for x in per_axis[2]]


def draw_points(point_map):
    """Upstream's random points of a window: one by randint, four by randperm, all positive (P2). (n, 4) z y x label."""
    where = np.argwhere(point_map)
    if len(where) == 0:
        return np.full((1, 4), -1.0)
    first = torch.randint(len(where), (1,))
    more = torch.randperm(len(where))[:4]
    chosen = where[torch.cat([first, more]).numpy()]
    return np.concatenate([chosen, np.ones((len(chosen), 1))], axis=1)


def slide(image, prediction, cube, window, predict, point_map=None):
    """Sliding-window prediction of a region. All arrays have the region's shape; returns logits of that shape (W1-W4)."""
    padding = pad_amounts(image.shape, window)
    image, prediction, cube = (np.pad(a, padding) for a in (image, prediction, cube))
    if point_map is not None:
        point_map = np.pad(point_map, padding)
    starts = window_starts(image.shape, window)
    total = count = None
    for start in starts:
        part = tuple(slice(s, s + w) for s, w in zip(start, window))
        box = mask_box(cube[part] if len(starts) == 1 else prediction[part])
        points = None if point_map is None else draw_points(point_map[part])
        logits = predict(image[part], box, points)
        if total is None:
            total, count = np.zeros(image.shape, logits.dtype), np.zeros(image.shape, logits.dtype)
        total[part] += logits
        count[part] += 1
    unpad = tuple(slice(before, before + n - before - after) for n, (before, after) in zip(image.shape, padding))
    return (total / count)[unpad]


def foreground(logits):
    """sigmoid > 0.5 in the logits' own precision (L1)."""
    return (torch.sigmoid(torch.from_numpy(logits)) > 0.5).numpy()


def segment_object(image, zoomed_image, cube, zoomed_box, window, predict, zoomed_points=None, point_map=None):
    """Zoom-out pass, ROI, zoom-in pass for one object of the cropped image. Returns a dictionary: logits (image shape),
    global_logits (window shape), region (or None)."""
    global_logits = predict(zoomed_image, zoomed_box, zoomed_points)
    logits = resize_nearest(global_logits, image.shape)
    prediction = foreground(logits).astype(np.uint8)
    region = region_of_interest(prediction, cube, window)
    if region is not None:
        part = box_slices(region)
        region_map = None if point_map is None else point_map[part]
        logits[part] = slide(image[part], prediction[part], cube[part], window, predict, region_map)
    return {'logits': logits, 'global_logits': global_logits, 'region': region}


def segment_volume(volume, boxes, window, predict, dtype=np.float32):
    """Label map (uint8) of a volume, one class per box (L1, L2), and what segment_object returned for each."""
    prepared = prepare(volume, boxes, window, dtype)
    crop = tuple(slice(a, b) for a, b in zip(prepared['start'], prepared['end']))
    labels = np.zeros(volume.shape, dtype=np.uint8)
    objects = []
    for k, (cube, zoomed_box) in enumerate(zip(prepared['cubes'], prepared['zoom_out_boxes'])):
        found = segment_object(prepared['image'], prepared['zoom_out_image'], cube, zoomed_box, window, predict)
        labels[crop][foreground(found['logits'])] = k + 1
        objects.append(found)
    return labels, objects


def window_predictor(model):
    """A SegVol model (segvol.py) as the function `predict` of this file. It remembers the prompts of every call."""
    calls = []
    dtype = next(model.parameters()).dtype

    def predict(window, box, points=None):
        calls.append((np.asarray(box, dtype=np.float32), points))
        image = torch.from_numpy(np.ascontiguousarray(window))[None, None].to(dtype)
        boxes = torch.as_tensor(np.asarray(box, dtype=np.float64))[None].to(dtype)
        prompts = None
        if points is not None:
            points = torch.as_tensor(np.asarray(points, dtype=np.float64)).to(dtype)
            prompts = points[None, :, :3], points[None, :, 3]
        with torch.no_grad():
            return model(image, boxes, prompts)[0, 0].numpy()

    predict.calls = calls
    return predict
