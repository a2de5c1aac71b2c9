#!/usr/bin/env python3
"""Writes testdata/quant/auto_round.{json,bin}: what auto-round 0.16.1 makes of small random weights.

Run in an environment with auto-round 0.16.1 and torch:
    python scripts/peers/grid_goldens.py testdata/quant

auto_round.json lists the cases; every array of a case is [offset, count] in f32 values of auto_round.bin.
  grid        one forward and backward pass of a quantization function: w, v, alpha, beta, d_y -> y, scale, zero and the
              autograd gradients d_v, d_alpha, d_beta of <d_y, y>
  opt_rtn     scale search: w, importance (may be absent) -> y, scale
  trajectory  `steps` steps of SignSGD from v = 0, alpha = beta = 1 under the gradients d_y (steps, out, in):
              -> v, alpha, beta

The gradient of clamp at its bounds: torch passed it from 0.4.1 (pull request 7049) until pull request 191142 of 2026;
torch 2.15 does not, so there the offsets of the outermost codes no longer learn. The quantization functions were
written, tuned and published with the former, and signround has it; this script puts it back where torch lost it.
"""
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy
import torch
from auto_round.algorithms.quantization.sign_round.sign_sgd import SignSGD
from auto_round.data_type import int as grids
from auto_round.data_type.utils import reshape_pad_tensor_by_group_size, revert_tensor_by_pad

FUNCTIONS = {
    "full_range": grids.quant_tensor_sym,
    "asym": grids.quant_tensor_asym,
    "classic": grids.quant_tensor_sym_gptq,
}
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
THRESHOLD = {"F32": 1e-8, "F16": 1e-5, "BF16": 1e-5}



class InclusiveClamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high):
        inside = torch.ones_like(x, dtype=torch.bool)
        if low is not None:
            inside &= x >= low
        if high is not None:
            inside &= x <= high
        ctx.save_for_backward(inside)
        return plain_clamp(x, min=low, max=high)

    @staticmethod
    def backward(ctx, gradient):
        return torch.where(ctx.saved_tensors[0], gradient, 0), None, None


plain_clamp = torch.clamp
torch.clamp = lambda x, min=None, max=None: InclusiveClamp.apply(x, min, max)

values = []
cases = []


def put(case, **arrays):
    for name, array in arrays.items():
        flat = array.detach().to(torch.float32).reshape(-1).numpy().astype("<f4")
        case[name] = [sum(len(v) for v in values), len(flat)]
        values.append(flat)
    cases.append(case)


def random_weights(out, columns, dtype):
    w = 0.05 * torch.randn(out, columns)
    w[0] = w[0].abs()  # groups without negative weights
    w[1] = -w[1].abs()  # and without positive ones
    w[2, : columns // 2] = 0
    w[3, 0], w[3, 1] = 0.2, -0.2  # a tie of the range
    w[4] *= 1e-6  # below the floor
    return w.to(dtype)


def grid_case(symmetry, bits, group_size, columns, scale_dtype, w_dtype):
    out = 6
    w = random_weights(out, columns, DTYPES[w_dtype])
    padded, shape, pad = reshape_pad_tensor_by_group_size(w, group_size)
    groups = padded.shape[0]
    v = 1.2 * torch.rand(padded.shape) - 0.6
    v = (torch.round(v * 2**15) / 2**15).requires_grad_()  # signround keeps whole numbers of 16 bits
    alpha, beta = torch.rand(groups), torch.rand(groups)
    alpha[::3] = 1
    beta[::4] = 1
    alpha[3 * (groups // out) :][: groups // out] = 1  # the row with the tie
    beta[3 * (groups // out) :][: groups // out] = 1
    alpha[groups - 1] = 0
    alpha.requires_grad_()
    beta.requires_grad_()
    d_y = torch.randn(out, columns).to(torch.bfloat16)  # what a bf16 model sends back is bf16
    y, scale, zero = FUNCTIONS[symmetry](
        w,
        bits=bits,
        group_size=group_size,
        v=v,
        min_scale=alpha,
        max_scale=beta,
        scale_dtype=DTYPES[scale_dtype],
        tensor_min=torch.clamp(padded.min(-1)[0], max=0),
        tensor_max=torch.clamp(padded.max(-1)[0], min=0),
        q_scale_thresh=THRESHOLD[scale_dtype],
    )
    (y.float() * d_y.float()).sum().backward()
    zero = zero if torch.is_tensor(zero) else torch.full((groups,), float(zero))
    trim = lambda t: revert_tensor_by_pad(t, orig_shape=shape, pad_len=pad)
    put(
        dict(kind="grid", symmetry=symmetry, bits=bits, group_size=group_size, out=out, columns=columns,
             scale_dtype=scale_dtype, w_dtype=w_dtype),
        w=w, v=trim(v), alpha=alpha, beta=beta, d_y=d_y, y=y, scale=scale, zero=zero,
        d_v=trim(v.grad), d_alpha=alpha.grad, d_beta=beta.grad,
    )  # fmt: skip


def opt_rtn_case(bits, group_size, columns, importance):
    out = 8
    w = 0.05 * torch.randn(out, columns)
    w[0] = w[0].abs()
    w[2, : columns // 2] = 0
    arrays = dict(w=w)
    imatrix = None
    if importance != "none":
        imatrix = torch.randn(columns) ** 2
        if importance == "some_zero":
            imatrix[3] = imatrix[17] = imatrix[40] = 0
        if importance == "many_zero":
            imatrix[: columns // 3] = 0
        arrays["importance"] = imatrix.clone()
    y, scale, _ = grids.quant_tensor_opt_rtn_sym(
        w, bits=bits, group_size=group_size, q_scale_thresh=1e-8, imatrix=imatrix
    )
    put(
        dict(kind="opt_rtn", symmetry="full_range", bits=bits, group_size=group_size, out=out, columns=columns,
             scale_dtype="F32", w_dtype="F32", importance_kind=importance),
        **arrays, y=y, scale=scale,
    )  # fmt: skip


def trajectory_case(symmetry, bits, momentum):
    out, columns, group_size, steps = 3, 40, 32, 12
    w = 0.05 * torch.randn(out, columns)
    padded, shape, pad = reshape_pad_tensor_by_group_size(w, group_size)
    v = torch.zeros(padded.shape).requires_grad_()
    alpha = torch.ones(padded.shape[0]).requires_grad_()
    beta = torch.ones(padded.shape[0]).requires_grad_()
    lr = 1.0 / steps
    optimizer = SignSGD([{"params": [v]}, {"params": [alpha, beta]}], lr=lr, momentum=momentum)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=steps)
    d_y = torch.randn(steps, out, columns) + 0.5 * torch.sign(w)
    for step in range(steps):
        alpha.data.clamp_(0, 1)
        beta.data.clamp_(0, 1)
        y, _, _ = FUNCTIONS[symmetry](
            w, bits=bits, group_size=group_size, v=v, min_scale=alpha, max_scale=beta,
            scale_dtype=torch.float32, tensor_min=torch.clamp(padded.min(-1)[0], max=0),
            tensor_max=torch.clamp(padded.max(-1)[0], min=0), q_scale_thresh=1e-8,
        )  # fmt: skip
        (y * d_y[step]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    put(
        dict(kind="trajectory", symmetry=symmetry, bits=bits, group_size=group_size, out=out, columns=columns,
             scale_dtype="F32", w_dtype="F32", steps=steps, momentum=momentum),
        w=w, d_y=d_y, v=revert_tensor_by_pad(v, orig_shape=shape, pad_len=pad),
        alpha=alpha.data.clamp(0, 1), beta=beta.data.clamp(0, 1),
    )  # fmt: skip


def main(folder):
    torch.manual_seed(20240607)
    torch.set_num_threads(1)
    for symmetry in FUNCTIONS:
        for bits in (2, 3, 4, 8):
            grid_case(symmetry, bits, 32, 40, "F32", "F32")
        grid_case(symmetry, 4, -1, 40, "F32", "F32")
        grid_case(symmetry, 4, 128, 40, "F16", "F32")
        grid_case(symmetry, 4, 32, 64, "F16", "BF16")
        grid_case(symmetry, 2, 32, 40, "BF16", "BF16")
        for momentum in (0.0, 0.9):
            trajectory_case(symmetry, 3, momentum)
    for bits in (2, 3, 4, 8):
        for importance in ("none", "all", "some_zero", "many_zero"):
            opt_rtn_case(bits, 32, 72, importance)
    for importance in ("none", "all"):
        opt_rtn_case(4, 128, 256, importance)
    opt_rtn_case(4, -1, 72, "none")
    folder = Path(folder)
    numpy.concatenate(values).tofile(folder / "auto_round.bin")
    record = dict(auto_round=version("auto-round"), torch=torch.__version__, cases=cases)
    text = json.dumps(record).replace('{"kind"', '\n{"kind"')
    (folder / "auto_round.json").write_text(text + "\n")


main(sys.argv[1])
