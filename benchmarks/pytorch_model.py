"""The model that `switchyard train` trains, in plain PyTorch: an oracle for its numbers and a peer for its speed.

It reads the same configuration files, and its parameters have the names and shapes of our checkpoints. It computes
what Hugging Face's Qwen3MoeForCausalLM computes, with capacity, Switch's balance loss and ST-MoE's z-loss added.

Shape letters: B sequences, S tokens of one, T = B S, D width, H heads, F feed-forward width, E experts, K choices,
G routing groups,
N = T K choices, R of them computed.
"""

import math
import subprocess
from types import SimpleNamespace
from typing import NamedTuple

import torch
import yaml
from torch import nn
from torch.nn import functional as F


# Of keys that change what a step computes, the values that the peer has too.
IMPLEMENTED = {
    "model.positions": ["rope"],
    "moe.shared_experts": [0],
    "moe.expert_dropout": [0],
    "router.scores": ["softmax"],
    "router.jitter": [0],
    "router.noise": [False],
    "router.choice": ["tokens"],
    "router.bias": [False],
    "router.expert_groups": [1],
    "router.second_threshold": [0],
    "router.weight_scale": [1],
    "router.admission": ["token"],
    "router.balance_counts": ["first", "all"],
    "router.balance_scope": ["group", "micro_batch"],
    "router.importance_loss": [0],
    "router.load_loss": [0],
    "optim.kind": ["adamw"],
}


def resolved(switchyard, path):
    """What our program makes of a configuration file: every key, with the value that a preset or a 0 stands for."""
    done = subprocess.run([switchyard, "config", str(path)], text=True, capture_output=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr.strip())
    return yaml.safe_load(done.stdout)


def refuse_what_is_not_here(path, settings):
    for key, values in IMPLEMENTED.items():
        section, name = key.split(".")
        value = settings.get(section, {}).get(name, values[0])
        if value not in values:
            wanted = " or ".join(str(each) for each in values)
            raise SystemExit(f"{path}: {key} is {value}: the PyTorch model has {wanted} alone")


def load_config(path):
    """The sections of a configuration file, best a resolved one, as attributes, values that stand for others (0, auto)
    replaced by these. Refuses what this model does not compute."""

    def attributes(value):
        if isinstance(value, dict):
            return SimpleNamespace(**{key: attributes(v) for key, v in value.items()})
        return value

    with open(path) as file:
        settings = yaml.safe_load(file)
    refuse_what_is_not_here(path, settings)
    config = attributes(settings)
    model, moe = config.model, config.moe
    model.n_kv_heads = model.n_kv_heads or model.n_heads
    model.head_dim = model.head_dim or model.d_model // model.n_heads
    gated_width = -(-(8 * model.d_model // 3) // 64) * 64
    model.d_ff = model.d_ff or (gated_width if is_gated(model.activation) else 4 * model.d_model)
    moe.d_ff = moe.d_ff or model.d_ff
    if getattr(moe, "activation", "auto") == "auto":
        moe.activation = model.activation
    moe.router = config.router
    moe.router.group_size = moe.router.group_size or config.train.seq_len
    return config


def is_moe_block(moe, i):
    if moe.experts == 0:
        return False
    if getattr(moe, "layers", None):
        return i in moe.layers
    return i >= moe.first_dense and (i + 1) % moe.every == 0


def is_gated(activation):
    return activation in ("swiglu", "geglu")


def activate(x, activation):
    if activation == "relu":
        return F.relu(x)
    if activation == "gelu":
        return F.gelu(x, approximate="tanh")
    gate, up = x.chunk(2, dim=-1)
    return (F.silu(gate) if activation == "swiglu" else F.gelu(gate, approximate="tanh")) * up


grouped_mm = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)  # the name before torch 2.10


class Losses(NamedTuple):
    total: torch.Tensor  # what is trained on
    cross_entropy: torch.Tensor
    balance: torch.Tensor  # of the MoE blocks, coefficients left out: mean
    z: torch.Tensor  # likewise
    dropped: torch.Tensor  # share of the choices that found no room


class Routed(NamedTuple):
    balance: torch.Tensor
    z: torch.Tensor
    dropped: torch.Tensor


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = c.n_heads, c.n_kv_heads, c.head_dim
        self.qkv_proj = nn.Linear(c.d_model, (c.n_heads + 2 * c.n_kv_heads) * c.head_dim, bias=False)
        self.q_norm = nn.RMSNorm(c.head_dim, eps=c.norm_eps) if c.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(c.head_dim, eps=c.norm_eps) if c.qk_norm else nn.Identity()
        self.o_proj = nn.Linear(c.n_heads * c.head_dim, c.d_model, bias=False)

    def forward(self, x_BSD, cos, sin):
        B, S, _ = x_BSD.shape
        qkv = self.qkv_proj(x_BSD).view(B, S, -1, self.head_dim)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=2)
        q = rotate(self.q_norm(q), cos, sin)
        k = rotate(self.k_norm(k), cos, sin)
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2).to(q.dtype),
            is_causal=True, enable_gqa=self.heads != self.kv_heads)
        return self.o_proj(y.transpose(1, 2).reshape(B, S, -1))


def rotate(x_BSHd, cos, sin):
    a, b = x_BSHd.chunk(2, dim=-1)
    return x_BSHd * cos + torch.cat((-b, a), dim=-1) * sin


def rope_table(seq_len, head_dim, theta):
    """Cosines and sines (S, 1, head_dim) of position * theta^(-2i / head_dim), the second half as the first."""
    frequency = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle = torch.outer(torch.arange(seq_len, dtype=torch.float64), frequency)
    angle = torch.cat((angle, angle), dim=-1)[:, None, :]
    return angle.cos(), angle.sin()


class FeedForward(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.activation = c.activation
        self.up_name = "gate_up_proj" if is_gated(c.activation) else "up_proj"
        width = 2 * c.d_ff if is_gated(c.activation) else c.d_ff
        setattr(self, self.up_name, nn.Linear(c.d_model, width, bias=False))
        self.down_proj = nn.Linear(c.d_ff, c.d_model, bias=False)

    def forward(self, x_BSD):
        return self.down_proj(activate(getattr(self, self.up_name)(x_BSD), self.activation))


class Experts(nn.Module):
    def __init__(self, c, moe, grouped):
        super().__init__()
        self.activation, self.grouped = moe.activation, grouped
        self.up_name = "gate_up_proj" if is_gated(moe.activation) else "up_proj"
        width = 2 * moe.d_ff if is_gated(moe.activation) else moe.d_ff
        setattr(self, self.up_name, nn.Parameter(torch.empty(moe.experts, width, c.d_model)))
        self.down_proj = nn.Parameter(torch.empty(moe.experts, c.d_model, moe.d_ff))

    def forward(self, x_TD, expert_TK, weight_TK, keep_TK):
        """sum_k weight[t, k] f_{expert[t, k]}(x[t]) over the choices that are kept."""
        T, K = expert_TK.shape
        E = self.down_proj.shape[0]
        expert_N = expert_TK.flatten()
        if not self.grouped:  # dropped choices go last and are not computed; grouped_mm computes and weighs them 0
            expert_N = expert_N.masked_fill(~keep_TK.flatten(), E)
        order_N = expert_N.argsort(stable=True)
        count_E = F.one_hot(expert_N, E + 1).sum(dim=0)[:E]
        run = self.run_grouped if self.grouped else self.run_loop
        token_N = order_N // K
        # On a GPU the gradient of indexing sorts; that of index_select adds.
        y_RD = run(x_TD.index_select(0, token_N) if x_TD.is_cuda else x_TD[token_N], count_E)
        order_R = order_N[:len(y_RD)]
        weight_R1 = (weight_TK * keep_TK).flatten()[order_R, None].to(y_RD.dtype)
        return torch.zeros_like(x_TD).index_add_(0, order_R // K, (y_RD * weight_R1).to(x_TD.dtype))

    def run_loop(self, x_ND, count_E):
        up, down = getattr(self, self.up_name).unbind(0), self.down_proj.unbind(0)
        counts = count_E.tolist()
        parts_RD = x_ND[:sum(counts)].split(counts)
        return torch.cat([F.linear(activate(F.linear(x, up[e]), self.activation), down[e])
                          for e, x in enumerate(parts_RD)])

    def run_grouped(self, x_ND, count_E):
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x_ND.dtype
        offsets = count_E.cumsum(0).to(torch.int32)
        up, down = getattr(self, self.up_name).to(dtype), self.down_proj.to(dtype)
        h = activate(grouped_mm(x_ND.to(dtype), up.transpose(-2, -1), offs=offsets), self.activation)
        return grouped_mm(h, down.transpose(-2, -1), offs=offsets)


class SparseFeedForward(nn.Module):
    def __init__(self, c, moe, grouped):
        super().__init__()
        self.moe = moe
        self.gate = nn.Linear(c.d_model, moe.experts, bias=False)
        self.experts = Experts(c, moe, grouped)

    def forward(self, x_BSD):
        """y and what the router tells."""
        moe = self.moe
        x_TD = x_BSD.flatten(0, 1)
        with torch.autocast(x_BSD.device.type, enabled=False):  # the router computes in the masters' precision
            logits_TE = self.gate(x_TD.to(self.gate.weight.dtype))
            p_TE = logits_TE.softmax(dim=-1)
            weight_TK, expert_TK = p_TE.topk(moe.router.top_k, dim=-1)
            if moe.router.renormalise:
                weight_TK = weight_TK / weight_TK.sum(dim=-1, keepdim=True)
            keep_TK = within_capacity(expert_TK, moe)
            routed = Routed(balance=balance_loss(p_TE, expert_TK, moe),
                            z=logits_TE.logsumexp(dim=-1).square().mean(),
                            dropped=1 - keep_TK.to(p_TE.dtype).mean())
        y_TD = self.experts(x_TD, expert_TK, weight_TK, keep_TK)
        return y_TD.view_as(x_BSD), routed


def within_capacity(expert_TK, moe):
    """Which choices find room: an expert takes C rows of a group, all first choices before any second, by token."""
    router = moe.router
    if router.capacity_factor == 0:
        return torch.ones_like(expert_TK, dtype=torch.bool)
    T, K = expert_TK.shape
    capacity = math.ceil(router.capacity_factor * K * router.group_size / moe.experts - 1e-9)  # 1.1 is not exactly 1.1
    queue = expert_TK.view(-1, router.group_size, K).transpose(1, 2).flatten(1)  # (G, K * group)
    taken = F.one_hot(queue, moe.experts)
    position = (taken.cumsum(dim=1) * taken).sum(dim=-1)  # counted from 1
    return (position <= capacity).view(-1, K, router.group_size).transpose(1, 2).reshape(T, K)


def balance_loss(p_TE, expert_TK, moe):
    """E sum_e f_e P_e (Switch, eq. 4), averaged over groups; f counts choices before capacity."""
    T, E = p_TE.shape
    group = moe.router.group_size if moe.router.balance_scope == "group" else T
    counted = expert_TK[:, :1] if moe.router.balance_counts == "first" else expert_TK
    f_GE = F.one_hot(counted, E).sum(dim=1).view(-1, group, E).to(p_TE.dtype).mean(dim=1)
    P_GE = p_TE.view(-1, group, E).mean(dim=1)
    return E * (f_GE * P_GE).sum(dim=-1).mean()


class Block(nn.Module):
    def __init__(self, c, moe, i, grouped):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(c.d_model, eps=c.norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = nn.RMSNorm(c.d_model, eps=c.norm_eps)
        self.is_moe = is_moe_block(moe, i)
        self.mlp = SparseFeedForward(c, moe, grouped) if self.is_moe else FeedForward(c)

    def forward(self, x_BSD, cos, sin):
        x_BSD = x_BSD + self.self_attn(self.input_layernorm(x_BSD), cos, sin)
        h_BSD = self.post_attention_layernorm(x_BSD)
        if not self.is_moe:
            return x_BSD + self.mlp(h_BSD), None
        y_BSD, routed = self.mlp(h_BSD)
        return x_BSD + y_BSD, routed


class Decoder(nn.Module):
    def __init__(self, c, moe, seq_len, grouped):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.d_model)
        self.layers = nn.ModuleList(Block(c, moe, i, grouped) for i in range(c.n_layers))
        self.norm = nn.RMSNorm(c.d_model, eps=c.norm_eps)
        cos, sin = rope_table(seq_len, c.head_dim, c.rope_theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens_BS):
        x_BSD = self.embed_tokens(tokens_BS)
        cos, sin = self.cos.to(x_BSD.dtype), self.sin.to(x_BSD.dtype)
        routed = []
        for layer in self.layers:
            x_BSD, told = layer(x_BSD, cos, sin)
            if layer.is_moe:
                routed.append(told)
        return self.norm(x_BSD), routed


class Transformer(nn.Module):
    def __init__(self, config, grouped=False):
        """grouped: experts through torch's grouped_mm, else a loop over them."""
        super().__init__()
        c = config.model
        self.router = config.router
        self.model = Decoder(c, config.moe, config.train.seq_len, grouped)
        self.lm_head = None if c.tied_embeddings else nn.Linear(c.d_model, c.vocab_size, bias=False)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                deviation = (config.router.init_scale / c.d_model) ** 0.5
                nn.init.normal_(p, std=deviation if name.endswith("mlp.gate.weight") else c.init_std)
        self.float()

    def forward(self, tokens_BS, targets_BS):
        x_BSD, routed = self.model(tokens_BS)
        head = self.model.embed_tokens if self.lm_head is None else self.lm_head
        logits_TV = F.linear(x_BSD, head.weight).flatten(0, 1).to(torch.promote_types(head.weight.dtype, torch.float32))
        cross_entropy = F.cross_entropy(logits_TV, targets_BS.flatten())
        if not routed:
            return Losses(cross_entropy, cross_entropy, *[cross_entropy.new_zeros(())] * 3)
        balance, z, dropped = (torch.stack(told) for told in zip(*routed))
        total = cross_entropy + self.router.balance_loss * balance.sum() + self.router.z_loss * z.sum()
        return Losses(total, cross_entropy, balance.mean(), z.mean(), dropped.mean())


def adamw(parameters, optim):
    """AdamW that decays matrices only, and of those neither embedding, head nor router. parameters: name to tensor."""
    undecayed = ("embed_tokens.weight", "lm_head.weight", "mlp.gate.weight")
    decayed = [p for n, p in parameters.items() if p.dim() > 1 and not n.endswith(undecayed)]
    others = [p for n, p in parameters.items() if p.dim() == 1 or n.endswith(undecayed)]
    groups = [{"params": decayed, "weight_decay": optim.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps, fused=True)


class Training:
    """A model and its optimizer, in mixed precision as PyTorch's users have it: on a CPU bf16 autocast over fp32
    weights; on a GPU weights in bf16 (but the router's) with fp32 masters in the optimizer, as FSDP's mixed precision
    has them, which keeps activations and the residual stream in bf16 too and is faster than autocast there. fp32 and
    fp64 as the model is."""

    def __init__(self, model, config, compiled=False):
        self.model, self.clip = model, config.optim.clip
        self.autocast = self.masters = None
        if config.run.precision == "bf16":
            if next(model.parameters()).is_cuda:
                self.halve()
            else:
                self.autocast = torch.bfloat16
        self.forward = torch.compile(model) if compiled else model
        self.optimizer = adamw(self.masters or dict(model.named_parameters()), config.optim)

    def halve(self):
        self.masters = {n: p.detach().clone().requires_grad_() for n, p in self.model.named_parameters()}
        for name, p in self.model.named_parameters():
            if not name.endswith("mlp.gate.weight"):
                p.data = p.data.bfloat16()

    def step(self, tokens_BS, targets_BS, micro_batch=0):
        """One step, in parts of `micro_batch` sequences where that is not 0; the losses of the last part and the
        gradient's norm before clipping."""
        batch = tokens_BS.shape[0]
        parts = batch // micro_batch if micro_batch else 1
        device = tokens_BS.device.type
        for tokens, targets in zip(tokens_BS.chunk(parts), targets_BS.chunk(parts)):
            with torch.autocast(device, self.autocast, enabled=self.autocast is not None):
                losses = self.forward(tokens, targets)
            (losses.total / parts).backward()
        weights = list(self.model.parameters())
        if self.masters:
            masters = list(self.masters.values())
            for master in masters:
                master.grad = torch.empty_like(master)
            torch._foreach_copy_([m.grad for m in masters], [p.grad for p in weights])
        norm = torch.nn.utils.clip_grad_norm_(masters if self.masters else weights,
                                              self.clip if self.clip > 0 else math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.masters:
            with torch.no_grad():
                torch._foreach_copy_(weights, masters)
            self.model.zero_grad(set_to_none=True)
        return losses, norm
