"""Muon: the numbers of torch's own, with several matrices in one parameter."""

import torch
from torch import nn

from vit.muon import Muon


def test_muon_steps_as_torchs_does_with_q_k_and_v_apart():
    torch.manual_seed(0)
    begin = [torch.randn(48, 16), torch.randn(16, 32), torch.randn(32, 16)]  # q over k over v, wide, tall
    ours = [nn.Parameter(x.clone()) for x in begin]
    apart = [nn.Parameter(x.clone()) for x in (*begin[0].chunk(3), *begin[1:])]
    muon = Muon([dict(params=ours[:1], parts=3), dict(params=ours[1:])], lr=0.02, weight_decay=0.05)
    reference = torch.optim.Muon(apart, lr=0.02, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        gradients = [torch.randn_like(x) for x in begin]
        for p, gradient in zip(ours, gradients):
            p.grad = gradient
        for p, gradient in zip(apart, (*gradients[0].chunk(3), *gradients[1:])):
            p.grad = gradient.clone()
        muon.step(), reference.step()
    for mine, theirs, old in zip((*ours[0].chunk(3), *ours[1:]), apart, (*begin[0].chunk(3), *begin[1:])):
        assert (mine - theirs).norm() < 0.01 * (theirs - old).norm()  # bf16 inside, summed in any order
