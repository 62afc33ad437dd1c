"""The state-space-duality scan of Mamba-2 (Dao and Gu 2024, arXiv 2405.21060, section 6) in plain torch.

For each head, with state s of shape (p, n):   s_t = exp(dt_t A) s_{t-1} + dt_t x_t B_t^T ,   y_t = s_t C_t + D x_t .
In chunks of q positions this is matrix products inside a chunk and a short recurrence over the chunks' states.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk: int,
    *,
    D: Tensor | None = None,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y like x, and the last state (b, h, p, n); computed in fp32, or in fp64 when x is fp64.

    x (b, l, h, p); dt (b, l, h), positive; A (h), negative; B and C (b, l, g, n) where h is a multiple of g; D (h) or
    (h, p). l need not be a multiple of `chunk`. seq_idx (b, l), non-decreasing document numbers: the state starts from
    zero at every change.
    """
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32
    batch, length, heads, p = x.shape
    groups, n = B.shape[-2:]
    chunk = min(chunk, length)
    xs, dts, Bs, Cs = (_chunks(t.to(kind), chunk) for t in (x, dt, B, C))
    count = xs.shape[1]
    per_group = (batch, count, chunk, groups, heads // groups)
    # Letters: c chunks, q i j positions in a chunk, g groups, r heads of a group.
    inputs = (xs * dts.unsqueeze(-1)).view(*per_group, p)
    decay = (
        (dts * A.to(kind)).view(per_group).cumsum(2).permute(0, 1, 3, 4, 2)
    )  # b c g r q, log since the chunk's start
    inputs = inputs.permute(0, 1, 3, 4, 2, 5)  # b c g r q p
    Bs, Cs = (t.permute(0, 1, 3, 2, 4) for t in (Bs, Cs))  # b c g q n

    same, carried, ending = _documents(seq_idx, length, chunk, x.device)
    within = _inside(inputs, decay, Bs, Cs, same)
    last = decay[..., -1]
    to_end = (last.unsqueeze(-1) - decay).exp() * ending.to(kind)
    added = (inputs * to_end.unsqueeze(-1)).transpose(-1, -2) @ Bs.unsqueeze(3)  # b c g r p n
    state = (
        added.new_zeros(added[:, 0].shape)
        if initial_state is None
        else initial_state.to(kind).view(batch, groups, heads // groups, p, n)
    )
    kept = last.exp() * carried[..., -1].to(kind)
    before = []
    for i in range(count):
        before.append(state)
        state = state * kept[:, i, ..., None, None] + added[:, i]
    carry = Cs.unsqueeze(3) @ torch.stack(before, 1).transpose(-1, -2)  # b c g r q p
    y = within + carry * (decay.exp() * carried.to(kind)).unsqueeze(-1)
    y = y.permute(0, 1, 4, 2, 3, 5).reshape(batch, count * chunk, heads, p)[:, :length]
    if D is not None:
        y = y + x.to(kind) * (D.to(kind).unsqueeze(-1) if D.ndim == 1 else D.to(kind))
    return y.to(x.dtype), state.reshape(batch, heads, p, n)


def _chunks(t: Tensor, chunk: int) -> Tensor:
    """(b, l, ...) -> (b, l / chunk, chunk, ...), zero-padded at the end (dt = 0 leaves the state alone)."""
    padding = -t.shape[1] % chunk
    if padding:
        t = F.pad(t, [0, 0] * (t.ndim - 2) + [0, padding])
    return t.view(t.shape[0], -1, chunk, *t.shape[2:])


def _inside(inputs: Tensor, decay: Tensor, Bs: Tensor, Cs: Tensor, same: Tensor) -> Tensor:
    """What positions of a chunk receive from earlier positions of that chunk."""
    span = decay.unsqueeze(-1) - decay.unsqueeze(-2)  # b c g r i j
    weight = span.masked_fill(~same, float("-inf")).exp()
    return ((Cs @ Bs.transpose(-1, -2)).unsqueeze(3) * weight) @ inputs


def _documents(seq_idx: Tensor | None, length: int, chunk: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Three masks that broadcast over (b, c, g, r, ...).

    (i, j): j precedes or is i, in the same document; (q): the state before the chunk reaches q; (q): q's document is
    the one that the chunk ends with.
    """
    causal = torch.ones(chunk, chunk, dtype=torch.bool, device=device).tril()
    if seq_idx is None:
        ones = torch.ones(chunk, dtype=torch.bool, device=device)
        return causal, ones.view(1, 1, 1, 1, -1), ones
    padded = F.pad(seq_idx.to(torch.float64).unsqueeze(1), (0, -length % chunk), mode="replicate").squeeze(1)
    idx = padded.view(seq_idx.shape[0], -1, chunk)
    previous = torch.cat([idx[:, :1, 0], idx[:, :-1, -1]], 1)
    same = causal & (idx.unsqueeze(-1) == idx.unsqueeze(-2))
    masks = (same, idx == previous.unsqueeze(-1), idx == idx[..., -1:])
    return tuple(mask.unsqueeze(2).unsqueeze(2) for mask in masks)
