"""Run folders as mhmoe train leaves them, with invented numbers: for tests of what reads them."""
import json
import math
import random


def config_of(name, experts, heads, top_k, steps, sets, capacity):
    return {
        "name": name, "seed": 1, "output_dir": "runs",
        "data": {"train": [{"path": "data/train", "weight": 1}],
                 "validation": [{"name": set_name, "path": f"data/{set_name}"} for set_name in sets],
                 "tokenizer": "data/tokenizer.model", "sequence_length": 256},
        "model": {"vocab_size": 4096, "layers": 12, "hidden_size": 192, "attention_heads": 4, "attention_bias": False,
                  "tie_embeddings": True, "ffn": {"activation": "swiglu", "hidden_size": 512, "bias": False},
                  "moe": {"every_n_layers": 2 if experts else 0, "experts": experts or 8, "top_k": top_k, "heads": heads,
                          "expert_hidden_size": 512 // top_k, "head_layer": None, "merge_layer": None,
                          "projection_bias": True, "shared_expert_hidden_size": 0, "capacity_factor": capacity}},
        "train": {"steps": steps, "batch_tokens": 8192, "learning_rate": {"peak": 0.002}},
    }


def routing_record(chance, step, steps, experts, heads, top_k):
    """Loads that start uneven and even out; different experts a token by drawing them for some tokens."""
    evenness = 1 - 0.9 * math.exp(-3 * step / steps)
    layers = []
    for layer in range(1, 12, 2):
        weights = [[(1 - evenness) * chance.expovariate(1.0) ** 2 + evenness for _ in range(experts)] for _ in range(heads)]
        different = [0] * min(heads * top_k, experts)
        head_load = [[0] * experts for _ in range(heads)]
        for _ in range(160):
            reached = set()
            for head in range(heads):
                for expert in chance.choices(range(experts), weights[head], k=top_k):
                    head_load[head][expert] += 50
                    reached.add(expert)
            different[len(reached) - 1] += 50
        load = [sum(counts) for counts in zip(*head_load)]
        mean = sum(n * count for n, count in enumerate(different, 1)) / sum(different)
        layers.append({"layer": layer, "load": load, "dropped": [max(0, count - 3 * sum(load) // experts) for count in load],
                       "head_load": head_load, "different_experts": different, "different_experts_mean": mean,
                       "load_entropy": 1.0, "load_max_over_mean": max(load) * experts / sum(load), "balance_loss": 1.1})
    return {"step": step, "layers": layers}


def make_run(folder, name, *, experts=0, heads=1, top_k=1, steps=2000, done=None, log_every=20, validate_every=100,
             routing_every=100, sets=("books",), capacity=None, gain=0.0, state=None, seed=1):
    """gain: how much lower the loss ends, in nats. done: the last step so far. state: of status.json, absent if None."""
    chance = random.Random(f"{seed} {name}")
    path = folder / name
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config_of(name, experts, heads, top_k, steps, sets, capacity), indent=2))
    seconds, lines, routing = 0.0, [], []
    for step in range(1, (done or steps) + 1):
        seconds += 0.6 if step > 1 else 2.0
        loss = 3.2 + 5.1 * math.exp(-9 * step / steps) + 1.6 / (1 + 8 * step / steps) - gain * min(1, 3 * step / steps)
        record = {"step": step, "tokens": step * 8192, "flops": step * 8192 * 21e6, "seconds": seconds}
        if step % log_every == 0 or step == 1:
            noisy = loss + chance.gauss(0, 0.03)
            record |= {"train/loss": noisy, "train/perplexity": math.exp(noisy), "train/grad_norm": chance.uniform(0.3, 0.6),
                       "train/learning_rate": 0.002 * min(1, 10 * step / steps) * (1 - step / steps / 1.1)}
            if step > 1:
                record |= {"train/tokens_per_second": chance.gauss(13500, 300), "train/mfu": chance.uniform(0.55, 0.6)}
            if experts:
                even = 1 - math.exp(-6 * step / steps)
                record |= {"train/balance_loss": 1 + 0.8 * (1 - even), "moe/load_max_over_mean": 1.2 + 3 * (1 - even),
                           "moe/dropped_fraction": 0.2 * (1 - even) if capacity else 0.0,
                           "moe/expert_activation": 0.6 + 0.4 * even}
        if step % validate_every == 0 or step == steps:
            for i, set_name in enumerate(sets):
                nats = loss + 0.08 + 0.15 * i + chance.gauss(0, 0.004)
                record |= {f"validation/{set_name}/loss": nats, f"validation/{set_name}/perplexity": math.exp(nats),
                           f"validation/{set_name}/perplexity_dropless": math.exp(nats - (0.02 if capacity else 0)),
                           f"validation/{set_name}/bits_per_byte": nats / 2.9}
        if len(record) > 4:
            lines.append(json.dumps(record))
        if experts and routing_every and (step % routing_every == 0 or step == 1):
            routing.append(json.dumps(routing_record(chance, step, steps, experts, heads, top_k)))
    (path / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
    if routing:
        (path / "routing.jsonl").write_text("".join(line + "\n" for line in routing))
    if state:
        (path / "status.json").write_text(json.dumps({"state": state, "step": done or steps, "steps": steps, "message": None}))
    return path


def five_runs(folder):
    """Dense, sparse and two MH-MoE over two sets; one of them goes on."""
    sets = ("books", "news")
    return [make_run(folder, "dense", sets=sets, steps=400),
            make_run(folder, "smoe_8", sets=sets, steps=400, experts=8, gain=0.1, capacity=1.0),
            make_run(folder, "mhmoe_h2", sets=sets, steps=400, experts=24, heads=2, top_k=2, gain=0.2, capacity=1.0),
            make_run(folder, "mhmoe_h3", sets=sets, steps=400, experts=32, heads=3, gain=0.15, done=300, state="running"),
            make_run(folder, "fine <16>", sets=sets, steps=400, experts=16, top_k=2, gain=0.12)]
