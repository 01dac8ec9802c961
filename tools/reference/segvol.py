"""SegVol with GRU correction in PyTorch: the network, to be read.

A volume and prompts go in, the logits of one object come out:

    window (B,1,D,H,W) ── image encoder (ViT) ──────────────► image embedding (B, dim, gz, gy, gx)
    box, points, text  ── prompt encoder ───────────────────► sparse tokens (B, n, dim), dense (B, dim, gz, gy, gx)
    both               ── mask decoder (two-way transformer) ► 4 masks (B, 4, 4gz, 4gy, 4gx), 4 IoU estimates
    mask 0             ── trilinear ────────────────────────► logits (B, 1, D, H, W)
    logits and a click ── sampling, GRU blocks ─────────────► 2K voxels to be corrected, and their logits (`correct`)

D,H,W = spatial size, gz,gy,gx = spatial / patch = the token grid. All axes are (z, y, x). Modules carry the names of the
upstream checkpoint without its prefix `model.`, so that a checkpoint loads strictly (`load_upstream`). The last part of the file is
the formula that stands in for trained weights in all tests. It runs in float32 and in float64 (`model.double()`).
"""
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
import torch.nn.functional as F


@dataclass(frozen=True)
class Config:
    """The sizes of a network; the same fields as weights_config in weights/weights.h. Axes are (z, y, x)."""
    spatial: tuple       # voxels of the input window
    patch: tuple         # voxels of a patch
    dim: int             # width of all tokens
    depth: int           # image encoder: blocks, heads, hidden width of the MLP
    heads: int
    mlp: int
    decoder_depth: int   # two-way transformer
    decoder_heads: int
    decoder_mlp: int
    iou_hidden: int
    up1: int             # channels after the two transposed convolutions
    up2: int
    gru_blocks: int      # corrector: one block per click; 0: none
    gru_hidden: int
    topk: int            # K: uncertain and error voxels per click
    mask_tokens: int = 4
    iou_layers: int = 3
    hyper_layers: int = 3
    text_dim: int = 512  # 0: no text prompts
    gru_offsets: bool = False  # the corrector's second head, which upstream does not have

    @property
    def grid(self):
        return tuple(s // p for s, p in zip(self.spatial, self.patch))

    @property
    def decoder_cross_dim(self):
        return self.dim // 2


TINY = Config(spatial=(16, 64, 64), patch=(4, 16, 16), dim=96, depth=2, heads=6, mlp=192,
              decoder_depth=2, decoder_heads=8, decoder_mlp=128, iou_hidden=64, up1=24, up2=12,
              gru_blocks=5, gru_hidden=64, topk=20)
FULL = Config(spatial=(32, 256, 256), patch=(4, 16, 16), dim=768, depth=12, heads=12, mlp=3072,
              decoder_depth=2, decoder_heads=8, decoder_mlp=2048, iou_hidden=256, up1=192, up2=96,
              gru_blocks=5, gru_hidden=2000, topk=200)
# The fixtures in test/fixtures: hardly two sizes are equal, none is a power of two and the three axes differ everywhere, so
# that no transposition and no edge of a tile goes unseen.
FIXTURE = Config(spatial=(10, 18, 35), patch=(5, 6, 7), dim=48, depth=2, heads=3, mlp=80,
                 decoder_depth=2, decoder_heads=6, decoder_mlp=56, iou_hidden=20, up1=14, up2=5,
                 gru_blocks=5, gru_hidden=26, topk=11)
CONFIGS = {'tiny': TINY, 'full': FULL, 'fixture': FIXTURE}


# ---- image encoder: a plain pre-norm vision transformer ----------------------------------------------------------------

class Patches(nn.Module):
    """(B,1,D,H,W) → (B, tokens, voxels of a patch). Tokens and the voxels inside a patch are both in raster order."""
    def __init__(self, patch):
        super().__init__()
        self.patch = patch

    def forward(self, x):
        (pz, py, px), (batch, _, d, h, w) = self.patch, x.shape
        x = x.reshape(batch, d // pz, pz, h // py, py, w // px, px)
        return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(batch, -1, pz * py * px)


class PatchEmbedding(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.position_embeddings = nn.Parameter(torch.zeros(1, math.prod(c.grid), c.dim))
        self.patch_embeddings = nn.Sequential(Patches(c.patch), nn.Linear(math.prod(c.patch), c.dim))

    def forward(self, x):
        return self.patch_embeddings(x) + self.position_embeddings


class SelfAttention(nn.Module):
    """The three projections are one matrix without bias; its rows are ordered (q|k|v, head, channel of the head)."""
    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x):
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.out_proj((weights @ v).transpose(1, 2).reshape(batch, tokens, dim))


class MLP(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        return self.linear2(F.gelu(self.linear1(x)))  # the exact GELU, x·(1 + erf(x/√2))/2


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(c.dim), nn.LayerNorm(c.dim)  # eps is 1e-5, here and everywhere below
        self.attn, self.mlp = SelfAttention(c.dim, c.heads), MLP(c.dim, c.mlp)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ImageEncoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.grid = c.grid
        self.patch_embedding = PatchEmbedding(c)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.dim)

    def forward(self, x):
        x = self.patch_embedding(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x).transpose(1, 2).reshape(len(x), -1, *self.grid)  # (B, dim, gz, gy, gx)


# ---- prompt encoder: box, points and text become tokens -----------------------------------------------------------------

class FourierFeatures(nn.Module):
    """Three coordinates in [0,1] → dim features: sin and cos of random projections."""
    def __init__(self, c):
        super().__init__()
        self.grid, self.spatial = c.grid, c.spatial
        self.register_buffer('positional_encoding_gaussian_matrix', torch.zeros(3, c.dim // 2))

    def encode(self, coordinates):
        angles = 2 * math.pi * ((2 * coordinates - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def forward(self):
        """The dense encoding of the token grid, (1, dim, gz, gy, gx). Cell (i,j,k) has the coordinates (y, z, x) of its
        centre: the first two axes are exchanged."""
        matrix = self.positional_encoding_gaussian_matrix
        z, y, x = ((torch.arange(n, dtype=matrix.dtype, device=matrix.device) + 0.5) / n for n in self.grid)
        z, y, x = torch.meshgrid(z, y, x, indexing='ij')
        return self.encode(torch.stack([y, z, x], dim=-1)).permute(3, 0, 1, 2)[None]

    def encode_voxels(self, voxels):
        """Voxel coordinates (…,3) → features. The quirk: the order is (z, y, x) here, but z is divided by the window's
        y size and y by its z size. Trained weights rely on it."""
        size_z, size_y, size_x = self.spatial
        divisor = voxels.new_tensor([size_y, size_z, size_x])
        return self.encode((voxels + 0.5) / divisor)


class LayerNorm2d(nn.Module):
    """Only there to hold two tensors of mask_downscaling, which no code runs."""
    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))


class PromptEncoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.grid = c.grid
        self.pe_layer = FourierFeatures(c)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, c.dim) for _ in range(4))  # label 0, label 1, box min, box max
        self.not_a_point_embed = nn.Embedding(1, c.dim)
        self.no_mask_embed = nn.Embedding(1, c.dim)
        self.mask_downscaling = nn.Sequential(  # in every checkpoint, never used
            nn.Conv2d(1, 4, 2, 2), LayerNorm2d(4), nn.GELU(), nn.Conv2d(4, 16, 2, 2), LayerNorm2d(16), nn.GELU(),
            nn.Conv2d(16, c.dim, 1))

    def embed_points(self, voxels, labels, pad):
        """voxels (B,n,3), labels (B,n) → (B, n or n+1, dim). Label 1: object, 0: background, −1: not a point (its features
        are replaced)."""
        if pad:
            voxels = torch.cat([voxels, torch.zeros_like(voxels[:, :1])], dim=1)
            labels = torch.cat([labels, -torch.ones_like(labels[:, :1])], dim=1)
        features = self.pe_layer.encode_voxels(voxels)
        labels = labels[..., None]
        features = torch.where(labels == -1, torch.zeros_like(features), features)
        for label, embedding in ((-1, self.not_a_point_embed), (0, self.point_embeddings[0]), (1, self.point_embeddings[1])):
            features = features + (labels == label) * embedding.weight
        return features

    def embed_boxes(self, boxes):
        """boxes (B,6), z0 y0 x0 z1 y1 x1 → (B, 2, dim), one token per corner."""
        corner_kinds = torch.cat([self.point_embeddings[2].weight, self.point_embeddings[3].weight])
        return self.pe_layer.encode_voxels(boxes.reshape(-1, 2, 3)) + corner_kinds

    def forward(self, boxes=None, points=None, text=None):
        """Sparse tokens in the order points, box corners, text; and the dense prompt."""
        sparse = []
        if points is not None:
            sparse.append(self.embed_points(*points, pad=boxes is None))
        if boxes is not None:
            sparse.append(self.embed_boxes(boxes))
        if text is not None:
            sparse.append(text[:, None])
        sparse = torch.cat(sparse, dim=1)
        dense = self.no_mask_embed.weight.reshape(1, -1, 1, 1, 1).expand(len(sparse), -1, *self.grid)
        return sparse, dense


# ---- mask decoder: tokens and image attend to each other -------------------------------------------------------------------

class Attention(nn.Module):
    """Multi-head attention; `inner` is the total width of the heads (dim for self-attention, dim/2 between tokens and image)."""
    def __init__(self, dim, inner, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, dim)

    def split(self, x):
        return x.reshape(len(x), x.shape[1], self.heads, -1).transpose(1, 2)  # (B, heads, tokens, inner/heads)

    def forward(self, q, k, v):
        q, k, v = self.split(self.q_proj(q)), self.split(self.k_proj(k)), self.split(self.v_proj(v))
        weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2))


class DecoderMLP(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        return self.lin2(F.relu(self.lin1(x)))


class TwoWayLayer(nn.Module):
    """queries: the tokens (B,n,dim); keys: the image (B,cells,dim); query_pe and key_pe are added again wherever a
    position matters, but never to the values."""
    def __init__(self, c, first):
        super().__init__()
        self.first = first
        self.self_attn = Attention(c.dim, c.dim, c.decoder_heads)
        self.cross_attn_token_to_image = Attention(c.dim, c.decoder_cross_dim, c.decoder_heads)
        self.cross_attn_image_to_token = Attention(c.dim, c.decoder_cross_dim, c.decoder_heads)
        self.mlp = DecoderMLP(c.dim, c.decoder_mlp)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(c.dim) for _ in range(4))

    def forward(self, queries, keys, query_pe, key_pe):
        if self.first:  # no positions and no residual: the queries ARE query_pe here
            queries = self.self_attn(queries, queries, queries)
        else:
            q = queries + query_pe
            queries = queries + self.self_attn(q, q, queries)
        queries = self.norm1(queries)
        queries = self.norm2(queries + self.cross_attn_token_to_image(queries + query_pe, keys + key_pe, keys))
        queries = self.norm3(queries + self.mlp(queries))
        keys = self.norm4(keys + self.cross_attn_image_to_token(keys + key_pe, queries + query_pe, queries))
        return queries, keys


class TwoWayTransformer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.layers = nn.ModuleList(TwoWayLayer(c, first=i == 0) for i in range(c.decoder_depth))
        self.final_attn_token_to_image = Attention(c.dim, c.decoder_cross_dim, c.decoder_heads)
        self.norm_final_attn = nn.LayerNorm(c.dim)

    def forward(self, image, image_pe, tokens):
        """image, image_pe (B,dim,gz,gy,gx), tokens (B,n,dim) → tokens (B,n,dim), image (B,cells,dim)"""
        keys, key_pe = image.flatten(2).transpose(1, 2), image_pe.flatten(2).transpose(1, 2)
        queries = tokens
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, key_pe)
        queries = queries + self.final_attn_token_to_image(queries + tokens, keys + key_pe, keys)
        return self.norm_final_attn(queries), keys


class TokenMLP(nn.Module):
    """Linear layers with ReLU between them."""
    def __init__(self, dim, hidden, out, layers):
        super().__init__()
        widths = [dim] + [hidden] * (layers - 1) + [out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class MaskDecoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.transformer = TwoWayTransformer(c)
        self.iou_token = nn.Embedding(1, c.dim)
        self.mask_tokens = nn.Embedding(c.mask_tokens, c.dim)
        twice = [2 * n for n in c.grid]
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose3d(c.dim, c.up1, kernel_size=2, stride=2),
            nn.LayerNorm((c.up1, *twice)),  # over ALL channels and positions at once, with a weight for each of them
            nn.GELU(),
            nn.ConvTranspose3d(c.up1, c.up2, kernel_size=2, stride=2),
            nn.GELU())
        self.output_hypernetworks_mlps = nn.ModuleList(
            TokenMLP(c.dim, c.dim, c.up2, c.hyper_layers) for _ in range(c.mask_tokens))
        self.iou_prediction_head = TokenMLP(c.dim, c.iou_hidden, c.mask_tokens, c.iou_layers)
        if c.text_dim:
            self.txt_align_upscaled_embedding = nn.Linear(c.dim, c.up2)

    def forward(self, image, image_pe, sparse, dense, text=None):
        """→ all masks (B, 4, 4gz, 4gy, 4gx) and their estimated IoU (B, 4); mask 0 is the answer to an unambiguous prompt."""
        batch = len(sparse)
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(batch, -1, -1), sparse], dim=1)
        image = image + dense
        hs, src = self.transformer(image, image_pe.expand_as(image), tokens)
        upscaled = self.output_upscaling(src.transpose(1, 2).reshape(image.shape))
        mask_tokens = hs[:, 1:1 + len(self.output_hypernetworks_mlps)]
        hyper_in = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        masks = (hyper_in @ upscaled.flatten(2)).reshape(batch, -1, *upscaled.shape[2:])
        if text is not None:
            aligned = self.txt_align_upscaled_embedding(text)[:, None]
            masks = masks + (aligned @ upscaled.flatten(2)).reshape(batch, 1, *upscaled.shape[2:])
        return masks, self.iou_prediction_head(hs[:, 0])


# ---- corrector ---------------------------------------------------------------------------------------------------------------

class GRUBlock(nn.Module):
    """One step of the correction. The sequence holds two rows of K·8 numbers per click so far (uncertain voxels, likely
    errors); the results are for the last click's 2K voxels."""
    def __init__(self, c):
        super().__init__()
        self.gru = nn.GRU(8 * c.topk, c.gru_hidden, batch_first=True)
        self.fc_prob = nn.Linear(c.gru_hidden + 6 * c.topk, 2 * c.topk)
        if c.gru_offsets:
            self.fc_coord = nn.Linear(c.gru_hidden + 6 * c.topk, 6 * c.topk)

    def heads(self, sequence, coordinates):
        """sequence (B,T,8K), coordinates (B,2K,3) → hidden states (B,T,H), logits (B,2K), refinements (B,2K,3) in voxels"""
        states, _ = self.gru(sequence)
        last = torch.cat([states[:, -1], coordinates.to(states.dtype).flatten(1)], dim=1)
        refinements = self.fc_coord(last) if hasattr(self, 'fc_coord') else torch.zeros_like(coordinates.to(states.dtype))
        return states, self.fc_prob(last), refinements.reshape(coordinates.shape)

    def forward(self, sequence, coordinates):
        """As upstream has it: coordinates are raw voxel indices → hidden states (B,T,H), probabilities (B,2K)"""
        states, logits, _ = self.heads(sequence, coordinates)
        return states, logits.sigmoid()


RADIUS = 20  # around a click, in voxels
TAU = 0.1    # p in (τ, 1 − τ) is uncertain


def smallest(score, k):
    """Indices of the k smallest, equal ones in raster order. Upstream's torch.topk leaves the order of equal ones open."""
    return torch.sort(score, stable=True).indices[:k]


def uncertain_points(p, k, variant):
    """The K voxels of the volume p (D,H,W) whose probability is nearest to ½, and what the block is told of each: the
    probability, upstream |p − ½|. Equal ones in raster order; upstream sorts only when there are more than K."""
    score = (p - 0.5).abs()
    points = ((p > TAU) & (p < 1 - TAU)).nonzero()
    if variant == 'seed' or len(points) > k:
        points = points[smallest(score[tuple(points.T)], k)]
    return points, (p if variant == 'seed' else score)[tuple(points.T)]


def likely_errors(p, k, click, truth, variant):
    """click (z,y,x,label). Seed: the K voxels nearest to the click, within RADIUS, whose predicted label is not the click's.
    Upstream: a random K of the predicted foreground in a cube around the click; in training the first K errors."""
    inside = p > 0.5
    if variant == 'upstream' and truth is not None:
        return (inside != truth).nonzero()[:k]
    points = inside.nonzero() if variant == 'upstream' else (inside != bool(click[3])).nonzero()
    offsets = points - points.new_tensor(click[:3])
    if variant == 'upstream':
        points = points[(offsets.abs() <= RADIUS).all(dim=1)]
        return points[torch.randperm(len(points))[:k]] if len(points) > k else points
    distance = (offsets ** 2).sum(dim=1)
    near = distance <= RADIUS ** 2
    return points[near][torch.sort(distance[near], stable=True).indices[:k]]


def padded(points, values, k, padding):
    """→ (K,3) with −1 where there are fewer points, (K) values, (K) validity"""
    at, value, valid = points.new_full((k, 3), -1), values.new_full((k,), padding), values.new_zeros(k)
    at[:len(points)], value[:len(points)], valid[:len(points)] = points, values, 1
    return at, value, valid


def sample(logits, k, click, truth, variant):
    """logits (D,H,W) → the step's 2K points (2,K,3), their values (2,K) and validity (2,K): uncertain ones, likely errors"""
    p = logits.sigmoid()
    uncertain, value = uncertain_points(p, k, variant)
    errors = likely_errors(p, k, click, truth, variant)
    label = p.new_full((len(errors),), float(click[3]))
    return [torch.stack(pair) for pair in zip(padded(uncertain, value, k, -1.0), padded(errors, label, k, float(click[3])))]


def state(at, value, valid, click, shape, variant):
    """What the block sees: features (2,K,8) and coordinates (2K,3). Seed divides coordinates by (D−1, H−1, W−1)."""
    points, clicked = at.to(value.dtype), value.new_tensor(click[:3])
    if variant == 'seed':
        scale = value.new_tensor([n - 1 for n in shape]).clamp(min=1)
        points, clicked = torch.where(valid[..., None] > 0, points / scale, points), clicked / scale
    features = torch.cat([points, value[..., None], valid[..., None], clicked.expand_as(points)], dim=-1)
    return features, points.reshape(-1, 3)


class Writes(torch.autograd.Function):
    """values (n) into a copy of the flat logits at `where` (n): of several for one voxel the last holds. It alone gets the voxel's
    gradient; upstream each of them, as PyTorch differentiates index_put (whose choice among them is left open, though)."""
    @staticmethod
    def forward(ctx, logits, where, values, variant):
        order = torch.arange(len(where), device=where.device)
        last = ((where[:, None] == where) * order).amax(dim=1) if len(where) else order
        ctx.save_for_backward(where, last == order if variant == 'seed' else torch.ones_like(where))
        return logits.index_put((where,), values[last])

    @staticmethod
    def backward(ctx, gradient):
        where, counts = ctx.saved_tensors
        return gradient.index_fill(0, where, 0), None, gradient[where] * counts, None


def write_corrections(logits, at, valid, outputs, refinements, variant):
    """outputs (2K) go into a copy of the logits; of several for one voxel the last holds. Upstream scales voxel coordinates as if
    they were in [0,1], so that it only ever writes to corners, and stores probabilities as logits: the published code's defect."""
    depth, height, width = logits.shape
    last = torch.tensor(logits.shape, device=at.device) - 1
    points = at.reshape(-1, 3)
    where = (points + refinements).round() if variant == 'seed' else points * last
    where = torch.minimum(where.long().clamp(min=0), last)
    where = (where[:, 0] * height + where[:, 1]) * width + where[:, 2]
    if variant == 'seed':
        where, outputs = where[valid.flatten() > 0], outputs[valid.flatten() > 0]
    return Writes.apply(logits.flatten(), where, outputs, variant).reshape(depth, height, width)


def correct(blocks, k, logits, next_click, steps, truth=None, variant='seed'):
    """Steps of correction of logits (D,H,W); next_click(step, logits) → (z,y,x,label), label −1 when there is nothing to correct.
    Yields a dictionary for each, under the names of `segfm trace --correct`."""
    rows = []
    for step in range(steps):
        click = next_click(step, logits)
        if variant == 'seed' and click[3] < 0:
            return
        at, value, valid = sample(logits, k, click, truth, variant)
        features, coordinates = state(at, value, valid, click, logits.shape, variant)
        rows.append(features.flatten(1))
        block = blocks[min(step, len(blocks) - 1)]
        _, outputs, refinements = block.heads(torch.cat(rows)[None], coordinates[None])
        outputs, refinements = outputs[0], refinements[0]
        found = {'click': logits.new_tensor(click), 'gru_in': features, 'coords': at.reshape(-1, 3).to(logits.dtype)}
        if variant == 'upstream':
            outputs = found['prob'] = outputs.sigmoid()
        else:
            found['delta'] = outputs
            if hasattr(block, 'fc_coord'):
                found['offset'] = refinements
        logits = found['corrected'] = write_corrections(logits, at, valid, outputs, refinements, variant)
        yield found


# ---- the whole ----------------------------------------------------------------------------------------------------------------

class TextEncoder(nn.Module):
    """CLIP's text model is not part of this file; its pooled output (B, 512) is what comes in."""
    def __init__(self, c):
        super().__init__()
        self.dim_align = nn.Linear(c.text_dim, c.dim)

    def forward(self, pooled):
        return self.dim_align(pooled)


class SegVol(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.config = c
        self.image_encoder = ImageEncoder(c)
        self.prompt_encoder = PromptEncoder(c)
        self.mask_decoder = MaskDecoder(c)
        if c.text_dim:
            self.text_encoder = TextEncoder(c)
        self.gru_blocks = nn.ModuleList(GRUBlock(c) for _ in range(c.gru_blocks))

    def forward(self, window, boxes=None, points=None, text=None):
        """window (B,1,D,H,W) in [0,1]; boxes (B,6) and points ((B,n,3), (B,n)) in voxels of the window; text (B,512)
        → logits (B,1,D,H,W)"""
        text = None if text is None else self.text_encoder(text)
        image = self.image_encoder(window)
        sparse, dense = self.prompt_encoder(boxes, points, text)
        masks, _ = self.mask_decoder(image, self.prompt_encoder.pe_layer(), sparse, dense, text)
        return F.interpolate(masks[:, :1], size=self.config.spatial, mode='trilinear', align_corners=False)


def load_upstream(model, state):
    """Loads a checkpoint's tensors, whose names start with `model.` or `module.`, strictly. CLIP's own tensors are left out."""
    names = {name: name.split('.', 1)[1] for name in state if '.clip_text_model.' not in name}
    model.load_state_dict({short: state[name] for name, short in names.items()}, strict=True)


# ---- the formula: weights and inputs without a file ---------------------------------------------------------------------------

def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(name, count, start=0):
    """Elements start … start+count−1 of the stream `name`: numbers in [0,1) with 24 bits. FNV-1a of the name is the
    seed of a splitmix64 counter."""
    seed = 0xcbf29ce484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001b3 % 2 ** 64
    counter = np.arange(start, start + count, dtype=np.uint64)
    return (_mix(counter * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)) >> np.uint64(40)).astype(np.float64) / 2 ** 24


def formula_image(shape, name='input.image'):
    return uniform(name, math.prod(shape)).astype(np.float32).reshape(shape)


NORMS = {'norm', 'norm1', 'norm2', 'norm3', 'norm4', 'norm_final_attn',
         'output_upscaling.1', 'mask_downscaling.1', 'mask_downscaling.4'}
EMBEDDINGS = {'iou_token', 'mask_tokens', 'not_a_point_embed', 'no_mask_embed'} | {f'point_embeddings.{i}' for i in range(4)}


def formula_kind(name, shape):
    """(offset, scale) of a tensor's uniform numbers: chosen such that activations keep a unit scale through the network."""
    owner, leaf = name.rsplit('.', 1)
    last, last_two = owner.rsplit('.', 1)[-1], '.'.join(owner.rsplit('.', 2)[-2:])
    fan_in = math.prod(shape[1:])
    if leaf == 'positional_encoding_gaussian_matrix':
        return 0, math.sqrt(3)
    if leaf in ('bias', 'bias_ih_l0', 'bias_hh_l0'):
        return 0, 0.02
    if leaf == 'position_embeddings' or last in EMBEDDINGS or last_two in EMBEDDINGS:
        return 0, 0.5
    if last in NORMS or last_two in NORMS:
        return 1, 0.1
    if last_two in ('output_upscaling.0', 'output_upscaling.3'):
        return 0, math.sqrt(3 / shape[0])
    if leaf == 'weight_ih_l0':
        return 0, math.sqrt(3 / fan_in) / 64
    if last == 'fc_prob':
        return 0, math.sqrt(3 / fan_in) / 16
    return 0, math.sqrt(3 / fan_in)


def formula_tensor(name, shape, chunk=1 << 20):
    """name: the full upstream name, with `model.`"""
    offset, scale = formula_kind(name, shape)
    flat = np.empty(math.prod(shape), dtype=np.float32)
    for start in range(0, flat.size, chunk):
        part = flat[start:start + chunk]
        part[:] = offset + scale * (2 * uniform(name, part.size, start) - 1)
    return torch.from_numpy(flat.reshape(tuple(shape)))


def formula_state_dict(config):
    """All tensors of the configuration under their upstream names. replace(config, gru_blocks=0) leaves the corrector out."""
    return {'model.' + name: formula_tensor('model.' + name, tensor.shape)
            for name, tensor in SegVol(config).state_dict().items()}


def formula_model(config, dtype=torch.float32, corrector=False):
    if not corrector:
        config = replace(config, gru_blocks=0)
    model = SegVol(config)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(formula_tensor('model.' + name, tensor.shape))
    return model.to(dtype).eval()
