"""The reference network in the parts that are timed."""
import os
import sys
from dataclasses import replace

import torch
from torch import nn
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'tools', 'reference'))
import segvol  # noqa: E402

BLOCKS = 2         # of the encoder, timed for other numbers of tokens, at most
MAX_TOKENS = 4096


def load(checkpoint):
    model = segvol.SegVol(replace(segvol.FULL, gru_blocks=0)).eval()
    segvol.load_upstream(model, torch.load(checkpoint))
    return model


def window():
    return torch.from_numpy(segvol.formula_image((1, 1, *segvol.FULL.spatial)))


def box():
    """The box that `segfm bench` gives."""
    z, y, x = segvol.FULL.spatial
    return torch.tensor([[1., 2., 3., z - 2., y - 3., x - 4.]])


def tokens(count):
    return torch.from_numpy(segvol.formula_image((1, count, segvol.FULL.dim)))


def blocks(model):
    return nn.Sequential(*model.image_encoder.blocks[:BLOCKS])


class Decoder(nn.Module):
    """embedding, box → masks of all four tokens, logits of the first. The position encoding of the grid is made once."""
    def __init__(self, model):
        super().__init__()
        self.prompt_encoder, self.mask_decoder = model.prompt_encoder, model.mask_decoder
        self.spatial = model.config.spatial
        with torch.no_grad():
            self.register_buffer('dense_pe', model.prompt_encoder.pe_layer())

    def forward(self, embedding, box):
        sparse, dense = self.prompt_encoder(boxes=box)
        masks, _ = self.mask_decoder(embedding, self.dense_pe, sparse, dense)
        return masks, F.interpolate(masks[:, :1], size=self.spatial, mode='trilinear', align_corners=False)
