#!/usr/bin/env python3
"""Packs small layers with the peers' own code and stores what they wrote: testdata/formats/packed.safetensors.

Peers: auto-round 0.16.1 (qlinear_torch_zp: v1 zero points, qlinear_torch: v2, WQLinear_GEMM: AWQ) and gptqmodel 7.7.0
(TorchLinear: v2, and its own conversion to v1). Where two peers write the same layout their bytes are compared here.
Every peer also dequantizes what it packed; that must be scale * (code - zero).

Usage: format_goldens.py OUT.safetensors
"""

import sys

import numpy as np
import torch
from safetensors.torch import save_file

OUT, IN = 32, 96
BITS = (2, 3, 4, 8)
GROUPS = (32, 64, -1)  # 64: the last group has 32


def case(bits, sym, group, rng):
    groups = 1 if group == -1 else -(-IN // group)
    codes = rng.integers(0, 2**bits, (OUT, IN))
    scales = (0.001 + 0.05 * rng.random((OUT, groups))).astype(np.float16)
    if sym:
        zeros = np.full((OUT, groups), 2 ** (bits - 1))
        scales *= rng.choice([-1, 1], scales.shape).astype(np.float16)
    else:
        zeros = rng.integers(1, 2**bits, (OUT, groups))  # v1 cannot store 0
    return torch.tensor(codes), torch.tensor(scales), torch.tensor(zeros)


def dense(codes, scales, zeros, group):
    of = torch.arange(IN) // (IN if group == -1 else group)
    return scales.float()[:, of] * (codes - zeros[:, of]).float()


def linear_of(weight):
    linear = torch.nn.Linear(IN, OUT, bias=False)
    linear.weight.data = weight.clone()
    return linear


def check_weight(layer, weight, what):
    got = layer(torch.eye(IN, dtype=torch.float32)).float().T
    if not torch.allclose(got, weight, rtol=2**-10, atol=0):
        raise SystemExit(f"{what}: the peer's own forward differs from scale * (code - zero)")


def auto_round(module, bits, group, codes, scales, zeros, sym):
    layer = module.QuantLinear(bits, group, IN, OUT, False)
    layer.device = "cpu"
    zero = int(zeros[0, 0]) if sym else zeros.float()
    layer.pack(linear_of(dense(codes, scales, zeros, group)), scales.float(), zero, None, device="cpu")
    if group == -1 or IN % group == 0:  # its forward cannot cope with a short group
        check_weight(layer, dense(codes, scales, zeros, group), f"{module.__name__} {bits} {group}")
    return layer.qweight, layer.qzeros, layer.scales


def awq(group, codes, scales, zeros):
    from auto_round.export.export_to_awq.utils import WQLinear_GEMM

    weight = dense(codes, scales, zeros, group)
    layer = WQLinear_GEMM.from_linear(
        linear_of(weight), 4, group, scales=scales.float().T.contiguous(), zeros=zeros.T.contiguous(), device="cpu"
    )
    got = layer(torch.eye(IN, dtype=torch.float16)).float().reshape(IN, OUT).T
    if not torch.allclose(got, weight, rtol=2**-10, atol=0):
        raise SystemExit("awq: the peer's own forward differs")
    return layer.qweight, layer.qzeros, layer.scales


def gptqmodel(bits, sym, group, codes, scales, zeros):
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization.config import QuantizeConfig
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

    weight = dense(codes, scales, zeros, group)
    layer = TorchLinear(
        bits=bits, group_size=group, sym=sym, desc_act=False, in_features=IN, out_features=OUT, bias=False,
        pack_dtype=torch.int32, register_buffers=True,
    )
    g_idx = (torch.arange(IN) // (IN if group == -1 else group)).int()
    layer.pack_original(linear_of(weight), scales.float(), zeros.float(), g_idx)
    v2 = layer.qzeros.clone()
    layer.post_init()
    got = layer.dequantize_weight().float().T
    if not torch.allclose(got, weight, rtol=2**-10, atol=0):
        raise SystemExit(f"gptqmodel {bits} {group}: the peer's own dequantization differs")
    convert_gptq_v2_to_v1_format_module(layer, QuantizeConfig(bits=bits, group_size=group, sym=sym))
    return layer.qweight, v2, layer.qzeros.clone(), layer.scales, layer.g_idx


def main():
    from auto_round_extension.torch import qlinear_torch, qlinear_torch_zp

    rng = np.random.default_rng(20)
    stored = {}
    for bits in BITS:
        for sym in (True, False):
            for group in GROUPS:
                codes, scales, zeros = case(bits, sym, group, rng)
                name = f"{bits}.{'sym' if sym else 'asym'}.{group}"
                qweight, v1, s = auto_round(qlinear_torch_zp, bits, group, codes, scales, zeros, sym)
                qweight2, v2, s2 = auto_round(qlinear_torch, bits, group, codes, scales, zeros, sym)
                gm_qweight, gm_v2, gm_v1, gm_s, g_idx = gptqmodel(bits, sym, group, codes, scales, zeros)
                for a, b in ((qweight, qweight2), (s, s2), (qweight, gm_qweight), (v1, gm_v1), (v2, gm_v2), (s, gm_s)):
                    if not torch.equal(a, b):
                        raise SystemExit(f"{name}: the peers disagree")
                stored |= {
                    f"{name}.codes": codes.to(torch.uint8),
                    f"{name}.zeros": zeros.to(torch.uint8),
                    f"{name}.qweight": qweight,
                    f"{name}.qzeros_v1": v1,
                    f"{name}.qzeros_v2": v2,
                    f"{name}.scales": s,
                    f"{name}.g_idx": g_idx,
                }
                if bits == 4 and (group == -1 or IN % group == 0):
                    aq, az, a_s = awq(group, codes, scales, zeros)
                    if not torch.equal(a_s, s):
                        raise SystemExit(f"{name}: AWQ's scales differ")
                    stored |= {f"{name}.awq_qweight": aq, f"{name}.awq_qzeros": az}
    save_file({k: v.contiguous() for k, v in stored.items()}, sys.argv[1])
    print(len(stored), "tensors")


if __name__ == "__main__":
    main()
