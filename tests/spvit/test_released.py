"""rules = "released": the function of the authors' code, their draw replaced by its likelier outcome.

The reference is written here from what that code does, row by row: every token stays in place and a policy of 0 and 1
says which may be attended to; selectors pool over all living rows behind the class token, packages among them.
"""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import gelu, layer_norm, linear

from spvit.config import PruningConfig, resolve_model
from spvit.cost import tokens_per_stage
from spvit.errors import ConfigError
from spvit.initialisation import seeded
from spvit.pruned_vit import SPViT

MICRO = resolve_model("micro")
F64 = torch.float64


def random_images(model, count=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, model.in_chans, model.img_size, model.img_size, generator=generator, dtype=F64)


def apply(state, name, x):
    return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def normed(state, name, x, eps):
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def authors_scores(state, stage, rows, policy, heads):
    """The heads' weighted mean of log-softmaxes (n, 2), and of softmaxes' keep channel (n)."""
    dim = rows.shape[1] // heads
    branch = f"selectors.{stage}.head_branch"
    means = rows.reshape(len(rows), heads, dim).mean(dim=2)
    a = torch.sigmoid(apply(state, f"{branch}.fc2", gelu(apply(state, f"{branch}.fc1", means))))
    logs, shares = [], []
    for head in range(heads):
        scorer = f"selectors.{stage}.scorers.0"
        x = normed(state, f"{scorer}.norm", rows[:, head * dim : (head + 1) * dim], 1e-5)
        x = gelu(apply(state, f"{scorer}.embed", x))
        pooled = (x[:, dim // 2 :] * policy[:, None]).sum(dim=0) / policy.sum()
        x = torch.cat([x[:, : dim // 2], pooled.expand(len(rows), -1)], dim=1)
        x = apply(state, f"{scorer}.fc3", gelu(apply(state, f"{scorer}.fc2", gelu(apply(state, f"{scorer}.fc1", x)))))
        logs.append(a[:, head, None] * x.log_softmax(dim=1))
        shares.append(a[:, head] * x.softmax(dim=1)[:, 0])
    return sum(logs) / a.sum(dim=1, keepdim=True), sum(shares) / a.sum(dim=1)


def authors_block(state, index, x, policy, config):
    name, heads = f"blocks.{index}", config.num_heads
    qkv = apply(state, f"{name}.attn.qkv", normed(state, f"{name}.norm1", x, config.layer_norm_eps))
    q, k, v = qkv.reshape(len(x), 3, heads, -1).permute(1, 2, 0, 3)
    logits = q @ k.transpose(1, 2) * k.shape[-1] ** -0.5
    seen = policy[None, :] * (1 - torch.eye(len(x), dtype=x.dtype)) + torch.eye(len(x), dtype=x.dtype)
    weights = logits.masked_fill(seen == 0, -torch.inf).softmax(dim=2)
    x = x + apply(state, f"{name}.attn.proj", (weights @ v).transpose(0, 1).reshape(len(x), -1))
    hidden = gelu(apply(state, f"{name}.mlp.fc1", normed(state, f"{name}.norm2", x, config.layer_norm_eps)))
    return x + apply(state, f"{name}.mlp.fc2", hidden)


def authors_forward(net, image):
    """Logits of one image (1, C, S, S), and how many patches each selector leaves."""
    state, config = net.state_dict(), net.config
    kernel = state["patch_embed.proj.weight"]
    patches = torch.nn.functional.conv2d(image, kernel, state["patch_embed.proj.bias"], stride=config.patch_size)[0]
    x = torch.cat([state["cls_token"][0], patches.flatten(1).T]) + state["pos_embed"][0]
    n = config.num_patches
    policy = torch.ones(1 + n, dtype=x.dtype)
    kept = []
    for index in range(config.depth):
        if index in net.pruning.locations:
            log_scores, shares = authors_scores(state, len(kept), x[1:], policy[1:], config.num_heads)
            alive = policy[1 : 1 + n]
            decision = (log_scores.argmax(dim=1) == 0)[:n].to(x.dtype) * alive
            away = alive - decision
            package = ((shares[:n] * away)[:, None] * x[1 : 1 + n]).sum(dim=0, keepdim=True)  # zero where all stay
            kept.append(int(decision.sum()))
            older = policy[1 + n :]
            if net.pruning.package == "append" or len(older) == 0:
                x, older = torch.cat([x, package]), torch.cat([older, older.new_ones(1)])
            else:
                x = torch.cat([x[: 1 + n], x[1 + n :] + package])
            policy = torch.cat([policy[:1], decision, older])
        x = authors_block(state, index, x, policy, config)
    normed_class = normed(state, "norm", x[:1], config.layer_norm_eps)
    return apply(state, "head", normed_class), kept


def released(spec, seed=0, **pruning):
    return seeded(spec.model, replace(spec.pruning, rules="released", **pruning), seed).double()


@pytest.mark.parametrize("package", ["append", "add"])
@pytest.mark.parametrize("form", ["forward_masked", "forward_gathered"])
def test_it_is_the_authors_function(package, form):
    spread = 0.0
    for seed in range(6):
        net, images = released(MICRO, seed, package=package), random_images(MICRO.model, 3, seed)
        with torch.no_grad():
            output = getattr(net, form)(images)
            for place in range(3):
                expected, kept = authors_forward(net, images[place : place + 1])
                torch.testing.assert_close(output.logits[place : place + 1], expected, rtol=0, atol=1e-10)
                assert [int(record.keep[place].sum()) for record in output.records] == kept
            spread = max(spread, float(output.logits.std()))
    assert spread > 0.1


def balance(net, image):
    """Biases that make each selector keep about two thirds of its candidates at 0.5, and no score lie close to it."""
    for stage, selector in enumerate(net.selectors):
        scores = net.forward_gathered(image).records[stage].probability[0]
        log_odds = torch.logit(scores[scores > 0]).sort().values
        middle = log_odds[len(log_odds) // 4 : len(log_odds) // 2]
        widest = middle.diff().argmax()
        selector.scorers[0].fc3.bias[0] -= middle[widest : widest + 2].mean()


def test_it_is_the_authors_function_in_float32_on_deit_t():
    spec = resolve_model("deit_t")
    net, image = released(spec), random_images(spec.model)
    with torch.no_grad():
        balance(net, image)
        expected, kept = authors_forward(net, image)
        output = net.float().forward_gathered(image.float())
    assert [int(record.keep.sum()) for record in output.records] == kept and 0 < kept[2] < kept[0] < 196
    torch.testing.assert_close(output.logits.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["forward_masked", "forward_gathered"])
@pytest.mark.parametrize("bias", [50.0, -50.0])
def test_where_nothing_or_everything_is_dropped(form, bias):
    """Nothing: a zero token is appended and takes part. Everything: the later selectors see no candidate."""
    net, images = released(MICRO), random_images(MICRO.model, 2)
    net.selectors[0].scorers[0].fc3.bias.data += torch.tensor([bias, -bias], dtype=F64)
    with torch.no_grad():
        output = getattr(net, form)(images)
        expected, kept = authors_forward(net, images[:1])
    assert kept[0] == (16 if bias > 0 else 0)
    assert output.records[0].num_tokens.tolist() == [1 + kept[0] + 1] * 2
    assert output.records[2].num_tokens[0] == 1 + kept[2] + 3
    torch.testing.assert_close(output.logits[:1], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("package", ["append", "add", "none"])
def test_masked_is_gathered(package):
    for seed in range(8):
        net = released(MICRO, seed, package=package, share_heads=seed % 2 == 0)
        net.thresholds.copy_(torch.tensor([[0.5] * 3, [2.0**-16, 0.5, 2.0], [0.45, 0.4, 0.4]][seed % 3]))
        images = random_images(MICRO.model, 3, seed)
        with torch.no_grad():
            masked, gathered = net.forward_masked(images), net.forward_gathered(images)
        torch.testing.assert_close(masked.logits, gathered.logits, rtol=0, atol=1e-10)
        for ours, theirs in zip(masked.records, gathered.records, strict=True):
            assert torch.equal(ours.keep, theirs.keep) and torch.equal(ours.num_tokens, theirs.num_tokens)
            torch.testing.assert_close(ours.probability, theirs.probability, rtol=0, atol=1e-10)


def test_it_is_another_function_than_the_papers():
    net = released(MICRO)
    ours = SPViT(MICRO.model, MICRO.pruning).double().eval()
    ours.load_state_dict(net.state_dict())
    with torch.no_grad():
        one, other = (each.forward_gathered(random_images(MICRO.model, 4)).logits for each in (net, ours))
    assert (one - other).abs().max() > 0.01


def test_it_learns():
    net = seeded(MICRO.model, replace(MICRO.pruning, rules="released")).train()
    output = net.forward_masked(random_images(MICRO.model, 8).float(), torch.Generator().manual_seed(0))
    (output.logits.square().sum() + sum(record.keep.mean() for record in output.records)).backward()
    for name, parameter in net.named_parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.any(), name


def test_a_package_is_counted_whether_or_not_something_was_dropped():
    pruning = PruningConfig((1, 2, 3), rules="released")
    assert tokens_per_stage(MICRO.model, pruning, [16, 9, 9]) == (17, 18, 12, 13)
    assert tokens_per_stage(MICRO.model, replace(pruning, rules="paper"), [16, 9, 9]) == (17, 17, 11, 11)


def test_the_accelerator_has_the_papers_rules_alone(tmp_path):
    from quant.build import refuse_what_has_no_unit

    spec = replace(MICRO, pruning=replace(MICRO.pruning, rules="released"))
    with pytest.raises(ConfigError) as refused:
        refuse_what_has_no_unit(spec, "own.toml")
    assert str(refused.value) == (
        'own.toml: [pruning] rules = "released": the accelerator has units for rules = "paper" alone; '
        "set that for the hardware, or only train, evaluate and count the model"
    )
