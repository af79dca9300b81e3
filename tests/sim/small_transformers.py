"""Any small transformer with its token selectors, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from spvit.config import ModelConfig, PruningConfig
from spvit.schema import choices

MLP_RATIOS = (0.5, 1.0, 1.5, 2.75, 4.0)


@st.composite
def small_transformers(draw: st.DrawFn) -> tuple[ModelConfig, PruningConfig]:
    """At most 3 blocks, 4 heads of 40 channels, 27 tokens, 70 classes, 4 channels of 20 pixels."""
    depth, heads = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    locations = tuple(sorted(draw(st.sets(st.integers(0, depth - 1)))))
    head_dim = 4 * draw(st.integers(1, 10)) if locations else draw(st.integers(1, 40))
    patch = draw(st.integers(1, 4))
    model = ModelConfig(
        "random",
        img_size=patch * draw(st.integers(1, 5)),
        patch_size=patch,
        in_chans=draw(st.integers(1, 4)),
        embed_dim=heads * head_dim,
        depth=depth,
        num_heads=heads,
        mlp_ratio=draw(st.sampled_from([ratio for ratio in MLP_RATIOS if heads * head_dim * ratio % 1 == 0])),
        num_classes=draw(st.integers(1, 70)),
        distilled=draw(st.booleans()),
    )
    pruning = PruningConfig(
        locations=locations,
        package=draw(st.sampled_from(choices(PruningConfig, "package"))),
        share_heads=draw(st.booleans()),
        features=draw(st.sampled_from(choices(PruningConfig, "features"))),
    )
    return model, pruning
