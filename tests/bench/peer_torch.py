#!/usr/bin/env python3
"""PyTorch trains the models of mhmoe's configurations, to be compared with `mhmoe bench train`.

peer_torch.py bench CONFIG --variant sorted,compile --precision bf16     times micro-batches, updates and steps
peer_torch.py check CONFIG --mhmoe build/cpu/mhmoe                       compares losses and gradients with mhmoe's
"""
import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
try:
    import torch
except ImportError:
    print(f"skipped: {sys.executable} has no torch; scripts/bench_peers.sh installs it into build/peers")
    sys.exit(77)
from peer_config import load_config, micro_batches  # noqa: E402
from peer_model import Experts, Model  # noqa: E402

PRECISIONS = ("fp32", "autocast", "bf16")  # autocast: fp32 weights, bf16 products; bf16: bf16 weights with fp32 masters


class Variant:
    """FORM[,compile|whole][,autotune]: how experts are computed and what torch.compile is asked for."""

    def __init__(self, text):
        words = text.split(",")
        self.form, self.compile, self.whole, self.autotune = words[0], "compile" in words, "whole" in words, "autotune" in words
        unknown = set(words[1:]) - {"compile", "whole", "autotune"}
        if self.form not in Experts.FORMS or unknown:
            sys.exit(f"error: --variant {text}: expected one of {', '.join(Experts.FORMS)} and then ,compile ,whole ,autotune")

    def apply(self, model):
        if self.compile or self.whole:
            options = {"mode": "max-autotune-no-cudagraphs"} if self.autotune else {}
            model.compile(self.whole, **options)


class Trainer:
    def __init__(self, config, variant, precision):
        self.config, self.autocast = config, precision == "autocast"
        self.micro_batches, shape = micro_batches(config)
        self.model = Model(config, variant.form)
        self.masters = list(self.model.parameters())
        if precision == "bf16":
            self.use_masters()
        variant.apply(self.model)
        settings = config["train"]["optimizer"]
        self.rate = config["train"]["learning_rate"]["peak"] / config["train"]["learning_rate"]["warmup_steps"]
        self.optimizer = torch.optim.AdamW(self.masters, lr=self.rate, betas=(settings["beta1"], settings["beta2"]),
                                           eps=settings["eps"], weight_decay=settings["weight_decay"], fused=True)
        self.generator = torch.Generator().manual_seed(config["seed"])
        self.shape = shape
        self.targets = self.micro_batches * shape[0] * shape[1]

    def use_masters(self):
        """Gradients are added up in fp32, as mhmoe does, as soon as a weight's is complete."""
        weights = list(self.model.parameters())
        self.masters = [torch.nn.Parameter(weight.detach().clone()) for weight in weights]
        for weight, master in zip(weights, self.masters):
            weight.data = weight.data.to(torch.bfloat16)
            master.grad = torch.zeros_like(master)

            def take(weight, master=master):
                master.grad.add_(weight.grad)
                weight.grad = None
            weight.register_post_accumulate_grad_hook(take)
        self.weights = weights

    def batch(self):
        vocabulary = self.config["model"]["vocab_size"]
        return (torch.randint(vocabulary, self.shape, generator=self.generator) for _ in range(2))

    def micro_batch(self):
        tokens, targets = self.batch()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            loss, balance = self.model(tokens, targets)
        weight = self.config["model"]["moe"]["balance_loss_weight"]
        (loss / self.targets + weight / self.micro_batches * balance).backward()
        return loss.detach()

    def update(self):
        clip = self.config["train"]["gradient_clip_norm"]
        if clip > 0:
            torch.nn.utils.clip_grad_norm_(self.masters, clip, foreach=True)
        self.optimizer.step()
        if self.masters[0] is self.model.embed:
            self.optimizer.zero_grad(set_to_none=True)
        else:
            torch._foreach_zero_([master.grad for master in self.masters])
            torch._foreach_copy_([weight.data for weight in self.weights], [master.data for master in self.masters])

    def step(self):
        loss = sum(self.micro_batch() for _ in range(self.micro_batches))
        self.update()
        return float(loss) / self.targets


def timed(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def answer(**values):
    print(json.dumps(values), flush=True)


def bench(arguments):
    config = load_config(arguments.config, arguments.set)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(config["seed"])
    trainer = Trainer(config, Variant(arguments.variant), arguments.precision)
    # The first calls compile, the second ones see how row counts vary.
    warmup, _ = timed(lambda: [trainer.micro_batch(), trainer.micro_batch(), trainer.update()])
    answer(ready=True, warmup_seconds=warmup, torch=torch.__version__, threads=torch.get_num_threads())
    requests = (line.split() for line in sys.stdin) if arguments.serve else [["parts"]] + [["step"]] * arguments.steps
    for request in requests:
        if request == ["step"]:
            seconds, loss = timed(trainer.step)
            answer(seconds=seconds, loss=loss, tokens_per_second=trainer.targets / seconds, peak_memory_bytes=peak_memory())
        else:
            micro = min(timed(trainer.micro_batch)[0] for _ in range(2))
            update, _ = timed(trainer.update)
            total = trainer.micro_batches * micro + update
            answer(micro_batch_seconds=micro, update_seconds=update, tokens_per_second=trainer.targets / total)


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def check(arguments):
    from safetensors.torch import load_file, save_file
    config = load_config(arguments.config, arguments.set)
    torch.manual_seed(config["seed"])
    shape = micro_batches(config)[1]
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        weights, inputs, output = (str(Path(folder) / f"{name}.safetensors") for name in "WTO")
        tokens, targets = (torch.randint(config["model"]["vocab_size"], shape) for _ in range(2))
        save_file({"tokens": tokens, "targets": targets}, inputs)
        for text in arguments.variants:
            model = Model(config, Variant(text).form)
            save_file({name: tensor.detach().contiguous().clone() for name, tensor in model.named(lambda p: p)}, weights)
            trace = [arguments.mhmoe, "trace", "--config", arguments.config, "--weights", weights, "--tokens", inputs,
                     "--output", output, "--device", "cpu", "--set", "train.precision=fp32"]
            done = subprocess.run(trace + [word for pair in arguments.set for word in ("--set", pair)], capture_output=True,
                                  text=True)
            if done.returncode != 0:
                sys.exit(f"error: mhmoe trace ended with code {done.returncode}: {done.stderr.strip()}")
            Variant(text).apply(model)
            loss, balance = model(tokens, targets)
            loss = loss / tokens.numel()
            (loss + config["model"]["moe"]["balance_loss_weight"] * balance).backward()
            loss, theirs = loss.item(), load_file(output)
            ours = {f"grad.{name}": tensor
                    for name, tensor in model.named(lambda p: torch.zeros_like(p) if p.grad is None else p.grad)}
            ours["cross_entropy"] = torch.tensor(loss)
            name, error = worst_difference(ours, theirs)
            print(f"{Path(arguments.config).name} {text}: loss {loss:.6f}, mhmoe {float(theirs['cross_entropy']):.6f}; "
                  f"{len(ours) - 1} gradients, the farthest apart {name} by {error:.1e} of its norm")
            worst = max(worst, error)
    if not worst <= arguments.tolerance:
        sys.exit(f"error: PyTorch's model is not mhmoe's: {worst:.1e} apart, allowed {arguments.tolerance:.0e}")


def worst_difference(ours, theirs):
    missing = {name for name in theirs if name.startswith("grad.")} ^ {name for name in ours if name.startswith("grad.")}
    if missing:
        sys.exit(f"error: only one side has {', '.join(sorted(missing)[:5])}")
    errors = {}
    for name, mine in ours.items():
        scale = theirs[name].double().norm() + 1e-12
        errors[name] = float((mine.double() - theirs[name].double()).norm() / scale)
    return max(errors.items(), key=lambda item: item[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measure, compare = commands.add_parser("bench"), commands.add_parser("check")
    for command in (measure, compare):
        command.add_argument("config", metavar="CONFIG")
        command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    measure.add_argument("--variant", default="sorted",
                         help="FORM[,compile|whole][,autotune]; forms: " + ", ".join(Experts.FORMS))
    measure.add_argument("--precision", choices=PRECISIONS, default="fp32")
    measure.add_argument("--threads", type=int)
    measure.add_argument("--steps", type=int, default=2)
    measure.add_argument("--serve", action="store_true", help="answer each line of stdin, `parts` or `step`, by one of JSON")
    compare.add_argument("--mhmoe", required=True)
    compare.add_argument("--variants", nargs="+", default=list(Experts.FORMS))
    compare.add_argument("--tolerance", type=float, default=1e-5)
    arguments = parser.parse_args()
    {"bench": bench, "check": check}[arguments.command](arguments)


if __name__ == "__main__":
    main()
