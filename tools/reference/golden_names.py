"""Names of the golden files' tensors → our names (segvol.py's module paths, and step names), one to one.

`golden_to_ours['block0.attn.qkv']` is 'image_encoder.blocks.0.attn.qkv'; names that are equal on both sides are in the
dictionary too. The full-size samples put `enc.` before the encoder's names: full_to_ours knows them."""

_BLOCK = ['norm1', 'attn.qkv', 'attn', 'norm2', 'mlp.linear1', 'mlp']
_LAYER = ['self_attn', 'norm1', 'cross_attn_token_to_image', 'norm2', 'mlp', 'norm3', 'cross_attn_image_to_token',
          'queries', 'keys']
_EQUAL = ['dense_pe', 'sparse', 'transformer.hs', 'transformer.src', 'upscaled_embedding', 'hyper_in', 'masks_all4',
          'iou_pred_all4', 'low_res_masks', 'iou_pred', 'logits']

golden_to_ours = {
    'patch_embedding': 'image_encoder.patch_embedding',
    **{f'block{i}': f'image_encoder.blocks.{i}' for i in range(12)},
    **{f'block{i}.{part}': f'image_encoder.blocks.{i}.{part}' for i in range(12) for part in _BLOCK},
    'norm': 'image_encoder.norm',
    'image_embedding_NCDHW': 'image_embedding',
    **{f'layer{i}.{part}': f'mask_decoder.transformer.layers.{i}.{part}' for i in range(2) for part in _LAYER},
    'final_attn': 'mask_decoder.transformer.final_attn_token_to_image',
    'up.convt1': 'mask_decoder.output_upscaling.0',
    'up.ln': 'mask_decoder.output_upscaling.1',
    'up.convt2': 'mask_decoder.output_upscaling.3',
    **{name: name for name in _EQUAL},
}


def full_to_ours(name):
    return golden_to_ours[name[4:] if name.startswith('enc.') else name]
