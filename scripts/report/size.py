"""A model's parameters from its configuration, as `mhmoe plan` counts them: a run that has saved nothing yet has them too."""


def linear(rows, columns, bias):
    return rows * columns + (rows if bias else 0)


def feed_forward(width, hidden, ffn):
    into = 2 if ffn["activation"] == "swiglu" else 1
    return into * linear(hidden, width, ffn["bias"]) + linear(width, hidden, ffn["bias"])


def count_parameters(model):
    """All, and those one token can use: of the routed experts at most heads x top_k."""
    d, ffn, moe = model["hidden_size"], model["ffn"], model["moe"]
    every, layers = moe["every_n_layers"], model["layers"]
    moe_layers = layers // every if every else 0
    embeddings = model["vocab_size"] * d * (1 if model["tie_embeddings"] else 2)
    attention = 4 * linear(d, d, model["attention_bias"])
    dense = embeddings + layers * (attention + 2 * d) + d + (layers - moe_layers) * feed_forward(d, ffn["hidden_size"], ffn)
    if not moe_layers:
        return dense, dense
    width = d // moe["heads"]
    for layer in ("head_layer", "merge_layer"):
        has = moe["heads"] > 1 if moe[layer] is None else moe[layer]
        dense += moe_layers * linear(d, d, moe["projection_bias"]) if has else 0
    dense += moe_layers * moe["experts"] * width
    if moe["shared_expert_hidden_size"]:
        dense += moe_layers * feed_forward(d, moe["shared_expert_hidden_size"], ffn)
    expert = moe_layers * feed_forward(width, moe["expert_hidden_size"], ffn)
    return dense + moe["experts"] * expert, dense + min(moe["experts"], moe["heads"] * moe["top_k"]) * expert
