"""The token selector: which patches are informative enough to live on (paper, section 4.2; Eq. 1 to 7).

Enters: the residual stream's patches (B, N, C) and which of them are candidates (B, N). Leaves: for each token the
heads' weighted votes Σ tᵢaᵢ and the votes' weight Σ aᵢ, whose ratio is the keep probability of Eq. 6.
Shapes: B images, N patches, C channels, H heads of d = C / H channels.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, gelu, hardswish, relu

from spvit.config import ModelConfig, PruningConfig
from spvit.cost import head_branch_width, kernel_size, scored_heads, scorer_layers
from spvit.distributed import draw_exponential
from spvit.model_config import Stage

ACTIVATIONS = {"gelu": gelu, "relu": relu, "hardswish": hardswish}


def masked_mean(x: Tensor, candidates: Tensor) -> Tensor:
    """Mean over the candidates alone; zero without any (Eq. 2).

    x (B, H, N, d), candidates (B, N) of 0 and 1 -> (B, H, 1, d)
    """
    counted = candidates[:, None, :, None]
    return (x * counted).sum(dim=2, keepdim=True) / counted.sum(dim=2, keepdim=True).clamp(min=1)


def keep_probability(votes: Tensor, weight: Tensor) -> Tensor:
    """Eq. 6, keep channel: Σ tᵢaᵢ / Σ aᵢ."""
    return votes / weight.clamp(min=torch.finfo(weight.dtype).tiny)


def keep_decision(votes: Tensor, weight: Tensor, threshold: Tensor) -> Tensor:
    """1 where the keep probability reaches the threshold, compared as hardware does, without dividing.

    A token to which no head gives any weight is kept.
    """
    return (votes >= threshold * weight).to(votes.dtype)


def gumbel_decision(probability: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A draw of Eq. 7 at temperature 1: exactly 0 or 1 forwards, the soft sample's gradient backwards."""
    tiny = torch.finfo(probability.dtype).tiny
    scores = torch.stack([probability, 1 - probability], dim=-1).clamp(min=tiny).log()
    noise = draw_exponential(scores, generator).clamp(min=tiny).log()
    soft = (scores - noise).softmax(dim=-1)[..., 0]
    return (soft >= 0.5).to(soft.dtype) + (soft - soft.detach())


class Scorer(nn.Module):
    """One head's vote on each token, from its own and the candidates' mean features (Eq. 1 to 3)."""

    def __init__(self, dim: int, pruning: PruningConfig) -> None:
        super().__init__()
        embed, fc1, fc2, fc3 = scorer_layers(dim, pruning.features)
        self.split = pruning.features == "split"
        self.activation = ACTIVATIONS[pruning.activation]
        self.kernel = 0 if pruning.scorer == "mlp" else kernel_size(pruning.scorer)
        if self.kernel:
            self.embed = nn.Conv1d(*embed, self.kernel, padding=self.kernel // 2)
            self.norm = nn.BatchNorm1d(embed[1])
        else:
            self.norm = nn.LayerNorm(dim, eps=1e-5)
            self.embed = nn.Linear(*embed)
        self.fc1 = nn.Linear(*fc1)
        self.fc2 = nn.Linear(*fc2)
        self.fc3 = nn.Linear(*fc3)  # channel 0 is keep

    def forward(self, x: Tensor, candidates: Tensor) -> Tensor:
        """(B, H, N, d), (B, N) -> (B, H, N) the log-odds of Eq. 3's softmax, whose sigmoid is its keep channel t."""
        act = self.activation
        # (B, H, N, d) split, (B, H, N, d/2) single
        features = act(self._convolve(x, candidates) if self.kernel else self.embed(self.norm(x)))
        local, pooled = features.chunk(2, dim=-1) if self.split else (features, features)
        whole = masked_mean(pooled, candidates).expand_as(local)
        both = torch.cat([local, whole], dim=-1)  # (B, H, N, d)
        keep, drop = self.fc3(act(self.fc2(act(self.fc1(both))))).unbind(dim=-1)
        return keep - drop

    def _convolve(self, x: Tensor, candidates: Tensor) -> Tensor:
        """Conv1d and BatchNorm1d over the candidates, which are neighbours in their order, as when the others are
        really gone (Table 10). (B, H, N, d), (B, N) -> (B, H, N, outputs), 0 where there is no candidate.
        """
        batch, heads = x.shape[:2]
        alive = candidates.detach().bool()
        order = torch.argsort(~alive, dim=1, stable=True)  # the candidates first
        places = order[:, None, :, None].expand(-1, heads, -1, -1)
        packed = (x * alive[:, None, :, None]).gather(2, places.expand_as(x))
        convolved = self.embed(packed.flatten(0, 1).transpose(1, 2)).transpose(1, 2).unflatten(0, (batch, heads))
        result = torch.zeros_like(convolved).scatter(2, places.expand_as(convolved), convolved)
        chosen = alive[:, None, :].expand(-1, heads, -1)
        rows = result[chosen]  # (candidates of all images and heads, outputs)
        if self.training and len(rows) < 2:  # no statistics of a batch: the running ones
            normed = batch_norm(rows, self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias)
        else:
            normed = self.norm(rows)
        return torch.zeros_like(result).masked_scatter(chosen.unsqueeze(-1), normed)


class HeadBranch(nn.Module):
    """What each head's vote weighs, from the mean of its channels (Eq. 4 and 5)."""

    def __init__(self, num_heads: int, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.fc1 = nn.Linear(num_heads, head_branch_width(num_heads))
        self.fc2 = nn.Linear(head_branch_width(num_heads), num_heads)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, H, d) -> a (B, N, H) in 0..1."""
        return torch.sigmoid(self.fc2(self.activation(self.fc1(x.mean(dim=-1)))))


class TokenSelector(nn.Module):
    def __init__(self, stage: Stage | ModelConfig, pruning: PruningConfig) -> None:
        """stage  whose heads are scored; a model stands for its first one"""
        super().__init__()
        self.num_heads, head_dim = scored_heads(stage, pruning)
        num_scorers = 1 if pruning.share_heads else self.num_heads
        self.scorers = nn.ModuleList(Scorer(head_dim, pruning) for _ in range(num_scorers))
        self.head_branch = HeadBranch(self.num_heads, pruning.activation) if pruning.heads == "weighted" else None

    def forward(self, x: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Σ tᵢaᵢ and Σ aᵢ over the heads, both (B, N), meaningful where a patch is a candidate.

        x           (B, N, C) the patches of the residual stream, without prefix and packages
        candidates  (B, N) of 0 and 1: the patches still alive
        """
        log_odds, a = self._votes(x, candidates)
        return (torch.sigmoid(log_odds) * a).sum(dim=-1), a.sum(dim=-1)

    def released(self, x: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """As the authors' code scores: (B, N) of which the first decides and the second weighs in a package.

        x        (B, N, C) patches, and packages behind them
        counted  (B, N) of 0 and 1: what the pooled features are the mean of
        It draws from the heads' weighted mean of log-softmaxes, Σ aᵢ log tᵢ / Σ aᵢ against Σ aᵢ log(1 - tᵢ) / Σ aᵢ:
        the larger one wins where the sigmoid of the mean log-odds is a half or more. Eq. 6 is the package's weight.
        """
        log_odds, a = self._votes(x, counted)
        weight = a.sum(dim=-1)
        return (
            torch.sigmoid(keep_probability((log_odds * a).sum(dim=-1), weight)),
            keep_probability((torch.sigmoid(log_odds) * a).sum(dim=-1), weight),
        )

    def _votes(self, x: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Each head's log-odds and what its vote weighs, both (B, N, H)."""
        heads = x.unflatten(-1, (self.num_heads, -1))  # (B, N, H, d)
        slices = heads.transpose(1, 2)  # (B, H, N, d)
        if len(self.scorers) == 1:
            log_odds = self.scorers[0](slices, counted)  # (B, H, N)
        else:
            each = zip(self.scorers, slices.split(1, dim=1), strict=True)
            log_odds = torch.cat([scorer(head, counted) for scorer, head in each], dim=1)
        log_odds = log_odds.transpose(1, 2)  # (B, N, H)
        return log_odds, torch.ones_like(log_odds) if self.head_branch is None else self.head_branch(heads)
