"""The formula's full-size model with one bias changed, once for all sides of the benchmark.

    export.py DIR           full.pt: a PyTorch checkpoint (without corrector), which `segfm convert` reads too;
                            window.f32, box.f32, tokens.f32: the inputs as plain floats
    export.py --onnx DIR    three graphs of that checkpoint for ONNX Runtime: encoder.onnx, decoder.onnx, blocks.onnx"""
import os
import sys
import warnings

import torch

import network


def export_checkpoint(folder):
    """The formula's weights, but the first mask's logits are negative everywhere: the region of interest of a scan is then the box
    alone, where pseudo-random logits would make it the whole scan. The features that the filter is multiplied with sum to about 6 to 27
    at every voxel, their product with the formula's filter stays below 6."""
    model = network.segvol.formula_model(network.segvol.FULL)
    with torch.no_grad():
        model.mask_decoder.output_hypernetworks_mlps[0].layers[-1].bias -= 4
    state = {'model.' + name: tensor for name, tensor in model.state_dict().items()}
    torch.save(state, os.path.join(folder, 'full.pt'))


def export_inputs(folder):
    for name, tensor in (('window', network.window()), ('box', network.box()), ('tokens', network.tokens(network.MAX_TOKENS))):
        tensor.numpy().tofile(os.path.join(folder, name + '.f32'))


def export_graph(module, inputs, path, names, outputs, dynamic=None):
    torch.onnx.export(module, inputs, path, opset_version=17, input_names=names, output_names=outputs, dynamic_axes=dynamic)


def export_onnx(folder):
    warnings.simplefilter('ignore')  # the tracer's remarks on Python numbers
    model = network.load(os.path.join(folder, 'full.pt'))
    with torch.no_grad():
        window = network.window()
        embedding = model.image_encoder(window)
        export_graph(model.image_encoder, window, os.path.join(folder, 'encoder.onnx'), ['window'], ['embedding'])
        export_graph(network.Decoder(model), (embedding, network.box()), os.path.join(folder, 'decoder.onnx'),
                     ['embedding', 'box'], ['masks', 'logits'])
        export_graph(network.blocks(model), network.tokens(128), os.path.join(folder, 'blocks.onnx'),
                     ['tokens'], ['out'], {'tokens': {1: 'tokens'}, 'out': {1: 'tokens'}})


if __name__ == '__main__':
    if sys.argv[1] == '--onnx':
        export_onnx(sys.argv[2])
    else:
        export_inputs(sys.argv[1])
        export_checkpoint(sys.argv[1])
