"""Parameters of a RAT+ model by name, without PyTorch: of an object with width, vocab_size, layers and recurrence."""


def parameter_shapes(config):
    """Name and shape of every parameter. The head shares the embedding's weight and has no entry."""
    d = config.width
    shapes = {"embedding.wte.weight": (config.vocab_size, d)}
    for i in range(config.layers):
        layer = f"backbone.layers.{i}."
        shapes[layer + "seq_layer.input_norm.weight"] = (d,)
        shapes[layer + "seq_layer.in_proj.weight"] = ((5 if config.recurrence else 4) * d, d)
        shapes[layer + "seq_layer.out_proj.weight"] = (d, d)
        shapes[layer + "hidden_layer.ln.weight"] = (d,)
        shapes[layer + "hidden_layer.fc1.weight"] = (4 * d, d)
        shapes[layer + "hidden_layer.fc2.weight"] = (d, 4 * d)
    shapes["backbone.ln.weight"] = (d,)
    return shapes
