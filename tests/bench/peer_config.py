"""Reads mhmoe's configurations for the peer benchmark, and refuses what its PyTorch models do not have."""
import json
import sys
from pathlib import Path

# Defaults as `mhmoe config` prints them.
DEFAULTS = {
    "seed": 1,
    "data": {"sequence_length": 1024},
    "model": {
        "layers": 12, "hidden_size": 768, "attention_heads": 12, "attention_bias": False, "norm_eps": 1e-5,
        "rope_base": 10000, "tie_embeddings": True,
        "ffn": {"activation": "swiglu", "hidden_size": 2048, "bias": False},
        "moe": {"every_n_layers": 0, "experts": 8, "top_k": 1, "heads": 1, "expert_hidden_size": 2048, "head_layer": None,
                "merge_layer": None, "projection_bias": True, "residual": "outer",
                "router": {"kind": "linear", "normalize_top_k": False}, "capacity_factor": 1.0, "balance_loss_weight": 0.01,
                "balance_loss_counts": "first_choice", "shared_expert_hidden_size": 0},
    },
    "train": {
        "batch_tokens": None, "micro_batch_sequences": None, "gradient_clip_norm": 2.0,
        "optimizer": {"kind": "adamw", "beta1": 0.9, "beta2": 0.95, "eps": 1e-6, "weight_decay": 0.1, "weight_decay_on": "all"},
        "learning_rate": {"peak": 6e-4, "warmup_steps": 375},
    },
}
# The only values that peer_model.py and peer_torch.py know.
FIXED = {
    "model.attention_bias": [False], "model.tie_embeddings": [True], "model.ffn.activation": ["swiglu", "gelu"],
    "model.ffn.bias": [False], "train.optimizer.kind": ["adamw"], "train.optimizer.weight_decay_on": ["all"],
}
FIXED_WITH_EXPERTS = {
    "head_layer": [None], "merge_layer": [None], "projection_bias": [True], "residual": ["outer"],
    "router": [DEFAULTS["model"]["moe"]["router"]], "capacity_factor": [None], "balance_loss_counts": ["first_choice"],
    "shared_expert_hidden_size": [0],
}


def merge(under, over):
    if not isinstance(under, dict) or not isinstance(over, dict):
        return over
    return {key: merge(under[key], over[key]) if key in under and key in over else over.get(key, under.get(key))
            for key in {**under, **over}}


def read(path):
    own = json.loads(path.read_text())
    base = own.pop("extends", None)
    return merge(read(path.parent / base), own) if base else own


def load_config(path, overrides=()):
    try:
        config = merge(DEFAULTS, read(Path(path)))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {path}: {error}")
    for pair in overrides:
        keys, _, value = pair.partition("=")
        try:
            value = json.loads(value)
        except ValueError:
            pass  # a word
        for key in reversed(keys.split(".")):
            value = {key: value}
        config = merge(config, value)
    refuse_unknown(path, config)
    return config


def refuse_unknown(path, config):
    allowed = dict(FIXED)
    if config["model"]["moe"]["every_n_layers"]:
        allowed.update({f"model.moe.{key}": values for key, values in FIXED_WITH_EXPERTS.items()})
    for keys, values in allowed.items():
        value = config
        for key in keys.split("."):
            value = value[key]
        if value not in values:
            sys.exit(f"error: {path}: {keys} is {json.dumps(value)}, the PyTorch peer knows only "
                     f"{' and '.join(json.dumps(value) for value in values)}")


def micro_batches(config):
    """How many a step has, and the shape of one: sequences, tokens."""
    shape = config["train"]["micro_batch_sequences"], config["data"]["sequence_length"]
    return config["train"]["batch_tokens"] // (shape[0] * shape[1]), shape
