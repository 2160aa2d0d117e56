"""The models of mhmoe in PyTorch, in the forms that PyTorch runs fastest: see docs/mh_moe.md for the mathematics."""
import math

import torch
import torch.nn.functional as F
from torch import nn

GROUPED_MM = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)


def activate(pre, kind):
    if kind == "gelu":
        return F.gelu(pre)
    gate, up = pre.chunk(2, -1)
    return F.silu(gate) * up


def pre_width(kind, hidden):
    return 2 * hidden if kind == "swiglu" else hidden


def uniform(*shape, bound):
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


class Attention(nn.Module):
    def __init__(self, model, sequence_length):
        super().__init__()
        d, self.heads = model["hidden_size"], model["attention_heads"]
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        half = d // self.heads // 2
        frequencies = model["rope_base"] ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(sequence_length)[:, None] * frequencies
        # [T, 1, 1, half], beside [B, T, (q, k), heads, half]
        self.register_buffer("cosine", angles.cos().float()[:, None, None], persistent=False)
        self.register_buffer("sine", angles.sin().float()[:, None, None], persistent=False)

    def forward(self, x):
        b, t, d = x.shape
        qkv = self.qkv(x).view(b, t, 3, self.heads, -1)
        first, second = qkv[:, :, :2].chunk(2, -1)
        rotated = torch.cat((first * self.cosine - second * self.sine, second * self.cosine + first * self.sine), -1)
        q, k = rotated.to(qkv.dtype).transpose(1, 3).unbind(2)
        context = F.scaled_dot_product_attention(q, k, qkv[:, :, 2].transpose(1, 2), is_causal=True)
        return self.out(context.transpose(1, 2).reshape(b, t, d))


class FeedForward(nn.Module):
    def __init__(self, model):
        super().__init__()
        d, self.kind, hidden = model["hidden_size"], model["ffn"]["activation"], model["ffn"]["hidden_size"]
        self.up = nn.Linear(d, pre_width(self.kind, hidden), bias=False)
        self.down = nn.Linear(hidden, d, bias=False)

    def forward(self, x):
        return self.down(activate(self.up(x), self.kind)), None


class Experts(nn.Module):
    """y[s] = sum over k of gate[s, k] * expert[index[s, k]](z[s]), nothing dropped; `form` says how."""
    FORMS = ("loop", "sorted", "grouped", "padded")

    def __init__(self, width, moe, kind, form):
        super().__init__()
        self.count, self.kind, hidden = moe["experts"], kind, moe["expert_hidden_size"]
        self.run = getattr(self, form)
        up, down = (self.count, pre_width(kind, hidden), width), (self.count, width, hidden)
        bounds = 1 / math.sqrt(width), 1 / math.sqrt(hidden)
        if form in ("loop", "sorted"):  # a parameter an expert: its gradient is then added to in place
            self.up, self.down = (nn.ParameterList(uniform(*shape[1:], bound=bound) for _ in range(shape[0]))
                                  for shape, bound in zip((up, down), bounds))
        else:
            self.up, self.down = (uniform(*shape, bound=bound) for shape, bound in zip((up, down), bounds))

    def forward(self, z, index, gate):
        return self.run(z, index, gate)

    def expert(self, rows, e):
        return F.linear(activate(F.linear(rows, self.up[e]), self.kind), self.down[e])

    @torch.compiler.disable
    def loop(self, z, index, gate):
        """The textbook's form: each expert fetches its rows and adds its results to where they belong."""
        y = torch.zeros(z.shape, dtype=torch.float32)
        for e in range(self.count):
            row, choice = torch.where(index == e)
            if len(row):
                result = self.expert(z.index_select(0, row), e) * gate[row, choice].unsqueeze(1)
                y = y.index_add(0, row, result.to(y.dtype))
        return y.to(z.dtype)

    def sort(self, index):
        """Assignments by expert; where each went; how many each expert has."""
        order = index.flatten().argsort(stable=True)
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        return order, place, torch.bincount(index.flatten(), minlength=self.count)

    @staticmethod
    def combine(results, place, gate):
        rows = results.index_select(0, place).view(*gate.shape, -1)
        return torch.bmm(gate.unsqueeze(1).to(rows.dtype), rows).squeeze(1)

    @torch.compiler.disable
    def sorted(self, z, index, gate):
        """Rows are fetched once in the experts' order and cut into contiguous pieces."""
        order, place, counts = self.sort(index)
        pieces = z.index_select(0, order // index.shape[1]).split(counts.tolist())
        results = torch.cat([self.expert(piece, e) for e, piece in enumerate(pieces) if len(piece)])
        return self.combine(results, place, gate)

    def grouped(self, z, index, gate):
        order, place, counts = self.sort(index)
        ends = counts.cumsum(0).to(torch.int32)
        rows, up, down = self.operands(z.index_select(0, order // index.shape[1]))
        hidden = activate(GROUPED_MM(rows, up.transpose(1, 2), offs=ends), self.kind)
        return self.combine(GROUPED_MM(hidden, down.transpose(1, 2), offs=ends), place, gate)

    def operands(self, rows):
        """autocast knows nothing of grouped products."""
        if not torch.is_autocast_enabled("cpu"):
            return rows, self.up, self.down
        return tuple(x.to(torch.bfloat16) for x in (rows, self.up, self.down))

    @torch.compiler.disable
    def padded(self, z, index, gate):
        """All experts have as many rows as the busiest one: batched products of equal shape."""
        order, place, counts = self.sort(index)
        longest, experts = int(counts.max()), index.flatten()
        slot = experts * longest + place - (counts.cumsum(0) - counts)[experts]
        source = torch.full((self.count * longest,), z.shape[0]).scatter_(
            0, slot, torch.arange(len(slot)) // index.shape[1])
        rows = F.pad(z, (0, 0, 0, 1)).index_select(0, source).view(self.count, longest, -1)
        hidden = activate(torch.bmm(rows, self.up.transpose(1, 2)), self.kind)
        results = torch.bmm(hidden, self.down.transpose(1, 2)).flatten(0, 1)
        return self.combine(results, slot, gate)


class MhMoe(nn.Module):
    def __init__(self, model, form):
        super().__init__()
        moe, d = model["moe"], model["hidden_size"]
        self.width, self.moe = d // moe["heads"], moe
        projections = moe["heads"] > 1
        self.head = nn.Linear(d, d) if projections else nn.Identity()
        self.merge = nn.Linear(d, d) if projections else nn.Identity()
        if projections:
            nn.init.xavier_uniform_(self.head.weight, gain=1 / math.sqrt(2))
            nn.init.xavier_uniform_(self.merge.weight)
            nn.init.zeros_(self.merge.bias)
        self.router = nn.Linear(self.width, moe["experts"], bias=False)
        self.experts = Experts(self.width, moe, model["ffn"]["activation"], form)

    def forward(self, x):
        z = self.head(x).reshape(-1, self.width)
        with torch.autocast("cpu", enabled=False):
            probabilities = F.linear(z.float(), self.router.weight.float()).softmax(-1)
        gate, index = probabilities.topk(self.moe["top_k"], -1)
        share = torch.bincount(index[:, 0], minlength=self.moe["experts"]) / len(index)
        balance = self.moe["experts"] * (share * probabilities.mean(0)).sum()
        y = self.experts(z, index, gate).view_as(x)
        return self.merge(y), balance


class Block(nn.Module):
    def __init__(self, model, layer, sequence_length, form):
        super().__init__()
        d, every = model["hidden_size"], model["moe"]["every_n_layers"]
        self.attention_norm, self.ffn_norm = (nn.RMSNorm(d, eps=model["norm_eps"]) for _ in range(2))
        self.attention = Attention(model, sequence_length)
        self.layer = MhMoe(model, form) if every and (layer + 1) % every == 0 else FeedForward(model)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        y, balance = self.layer(self.ffn_norm(x))
        return x + y, balance


class Model(nn.Module):
    """forward: the sum of the targets' cross-entropies, and the sum over MoE layers of the balance losses."""

    def __init__(self, config, form="sorted"):
        super().__init__()
        model = config["model"]
        self.embed = nn.Parameter(torch.randn(model["vocab_size"], model["hidden_size"]) / math.sqrt(model["hidden_size"]))
        self.blocks = nn.ModuleList(
            Block(model, layer, config["data"]["sequence_length"], form) for layer in range(model["layers"]))
        self.norm = nn.RMSNorm(model["hidden_size"], eps=model["norm_eps"])
        self.output = output_loss

    def forward(self, tokens, targets):
        x, balances = F.embedding(tokens, self.embed), []
        for block in self.blocks:
            x, balance = block(x)
            if balance is not None:
                balances.append(balance)
        loss = self.output(self.norm(x).flatten(0, 1), self.embed, targets.flatten())
        return loss, sum(balances) if balances else torch.zeros(())

    def compile(self, whole=False, **options):
        """Block by block: alike blocks share what is compiled. `whole`: as one graph where nothing breaks it."""
        if whole:
            self.forward = torch.compile(self.forward, **options)
            return
        for block in self.blocks:
            block.compile(**options)
        self.output = torch.compile(output_loss, **options)

    def named(self, pick):
        """pick(parameter) of every parameter under mhmoe's names, cut up as mhmoe's are."""
        yield "embed.weight", pick(self.embed)
        yield "final_norm.weight", pick(self.norm.weight)
        for i, block in enumerate(self.blocks):
            for name in ("attention_norm", "ffn_norm"):
                yield f"layers.{i}.{name}.weight", pick(getattr(block, name).weight)
            yield from cut(f"layers.{i}.attention", pick(block.attention.qkv.weight), "qkv")
            yield f"layers.{i}.attention.out.weight", pick(block.attention.out.weight)
            if isinstance(block.layer, FeedForward):
                yield from cut_feed_forward(f"layers.{i}.ffn", block.layer.kind, pick(block.layer.up.weight),
                                            pick(block.layer.down.weight))
            else:
                yield from named_moe(f"layers.{i}.moe", block.layer, pick)


def output_loss(hidden, embed, targets):
    return F.cross_entropy(F.linear(hidden, embed).float(), targets, ignore_index=-1, reduction="sum")


def cut(prefix, tensor, names):
    for name, part in zip(names, tensor.chunk(len(names))):
        yield f"{prefix}.{name}.weight", part


def cut_feed_forward(prefix, kind, up, down):
    yield from cut(prefix, up, ("gate", "up") if kind == "swiglu" else ("up",))
    yield f"{prefix}.down.weight", down


def named_moe(prefix, layer, pick):
    yield f"{prefix}.router.weight", pick(layer.router.weight)
    for name in ("head", "merge"):
        for kind, parameter in getattr(layer, name).named_parameters():
            yield f"{prefix}.{name}.{kind}", pick(parameter)
    experts, stacked = layer.experts, isinstance(layer.experts.up, nn.Parameter)
    up, down = (pick(p) if stacked else [pick(q) for q in p] for p in (experts.up, experts.down))
    for e in range(experts.count):
        yield from cut_feed_forward(f"{prefix}.experts.{e}", experts.kind, up[e], down[e])
