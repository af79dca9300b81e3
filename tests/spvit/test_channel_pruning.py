"""Narrow blocks against masked ones, and how channels are ranked."""

import torch

from spvit.channel_pruning import SPREAD, ChannelSelector, run_narrow, run_narrow_norm, spare_the_best
from spvit.config import resolve_model
from spvit.initialisation import seeded

MICRO = resolve_model("micro")
LIVING = torch.tensor([0, 3, 4, 9, 17, 31])


def block_and_tokens():
    net = seeded(MICRO.model, MICRO.pruning).double()
    mask = torch.zeros(1, 1, 32, dtype=torch.float64)
    mask[..., LIVING] = 1
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return net, mask, x * mask


@torch.no_grad()
def test_a_narrow_block_is_the_masked_one_on_what_is_left():
    net, mask, x = block_and_tokens()
    masked = net.blocks[0](x, channels=mask)
    assert not masked[..., mask[0, 0] == 0].any()
    torch.testing.assert_close(
        run_narrow(net.blocks[0], x[..., LIVING], LIVING), masked[..., LIVING], rtol=0, atol=1e-13
    )


@torch.no_grad()
def test_a_norm_of_the_living_is_pytorchs_on_them():
    net, mask, x = block_and_tokens()
    norm = net.norm
    alone = torch.nn.functional.layer_norm(x[..., LIVING], (6,), norm.weight[LIVING], norm.bias[LIVING], norm.eps)
    torch.testing.assert_close(run_narrow_norm(norm, x[..., LIVING], LIVING), alone, rtol=0, atol=1e-14)
    torch.testing.assert_close(norm(x, mask)[..., LIVING], alone, rtol=0, atol=1e-13)
    assert not norm(x, mask)[..., mask[0, 0] == 0].any()


def test_channels_are_ranked_by_what_the_blocks_behind_make_of_them():
    net = seeded(MICRO.model, MICRO.pruning)
    with torch.no_grad():
        for block in net.blocks[2:]:
            block.attn.qkv.weight[:, 5] *= 100  # the largest
            block.attn.qkv.weight[:, 7] *= 1e-3
            block.mlp.fc1.weight[:, 7] *= 1e-3
    selector = ChannelSelector(32)
    selector.rank_by_magnitude(net.blocks[2:])
    assert (selector.log_odds.argmax().item(), selector.log_odds.argmin().item()) == (5, 7)
    torch.testing.assert_close(selector.log_odds.mean(), torch.tensor(0.0), rtol=0, atol=1e-5)
    torch.testing.assert_close(selector.log_odds.std(correction=0), torch.tensor(SPREAD))


def test_votes_are_the_same_for_every_image():
    selector = ChannelSelector(4)
    votes, weight = selector(torch.ones(3, 4))
    assert votes.tolist() == [[0.5] * 4] * 3 and weight.tolist() == [[1.0] * 4] * 3


def test_the_best_candidate_is_spared():
    probability = torch.tensor([[0.1, 0.3, 0.9], [0.5, 0.2, 0.1]])
    candidates = torch.tensor([[1.0, 1, 0], [1, 1, 1]])
    assert spare_the_best(torch.zeros(2, 3), probability, candidates).tolist() == [[0, 1, 0], [1, 0, 0]]
    decision = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    assert spare_the_best(decision, probability, candidates).tolist() == [[1, 1, 0], [1, 1, 0]]
