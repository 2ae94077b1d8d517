"""What DeepSeek V3.2's indexers chose during a forward pass, and how near each choice was to another one."""

import torch
from transformers.models.deepseek_v32 import modeling_deepseek_v32


def _scores(indexer, hidden, query_latent, position_embeddings):
    """[tokens, tokens], before the causal mask: transformers' formula, whose module returns the choice only."""
    cos, sin = position_embeddings
    heads, dim, rotated = indexer.n_heads, indexer.head_dim, indexer.qk_rope_head_dim
    q = indexer.wq_b(query_latent).unflatten(-1, (heads, dim))
    k = indexer.k_norm(indexer.wk(hidden)).unsqueeze(2)
    q_rotated, k_rotated = modeling_deepseek_v32.apply_rotary_pos_emb(
        q[..., :rotated], k[..., :rotated], cos, sin, unsqueeze_dim=2
    )
    q = torch.cat([q_rotated, q[..., rotated:]], -1)[0].float()
    k = torch.cat([k_rotated, k[..., rotated:]], -1)[0, :, 0].float()
    products = torch.einsum("thd,sd->ths", q, k).relu() * dim**-0.5
    weights = indexer.weights_proj(hidden.to(indexer.weights_proj.weight.dtype))[0].float()
    return torch.einsum("th,ths->ts", weights * heads**-0.5, products)


class IndexTap:
    """(gaps, choices) of each indexer, in layer order, for each forward pass; none in other models.

    A gap is between the last position that a token chooses and the next best, in standard deviations of the
    token's scores; infinite where the token sees no more than it may choose.
    """

    def __init__(self, model):
        self.calls = []
        for layer in model.model.layers:
            indexer = getattr(getattr(layer, "self_attn", None), "indexer", None)
            if indexer is not None:
                indexer.register_forward_hook(self._record)

    def _record(self, indexer, inputs, chosen):
        scores = _scores(indexer, *inputs[:3])
        top_k, gaps, sets = indexer.index_topk, [], []
        for token in range(len(scores)):
            if token < top_k:
                gaps.append(float("inf"))
                continue
            visible = scores[token, : token + 1]
            best = visible.sort(descending=True).values
            gaps.append(float((best[top_k - 1] - best[top_k]) / visible.std()))
            sets.append(chosen[0, token].long().sort().values)
            expected = visible.topk(top_k).indices.sort().values
            if gaps[-1] > 1e-3:
                assert torch.equal(expected, sets[-1]), "not the scores that transformers compares"
        self.calls.append((gaps, torch.stack(sets) if sets else None))

    def take(self):
        calls, self.calls = self.calls, []
        return calls


def min_gap(calls):
    return min((min(gaps) for gaps, _ in calls), default=float("inf"))


def same_choice(calls, others):
    return all(
        (a is None and b is None) or torch.equal(a, b)
        for (_, a), (_, b) in zip(calls, others, strict=True)
    )


@torch.no_grad()
def gaps_of_steps(model, tap, ids, continuation):
    """The smallest gap of the token that each greedy step computes; 1000 where nothing is chosen."""
    model(torch.tensor([ids + continuation[:-1]]), use_cache=False)
    tap.take()
    layers = [gaps for gaps, _ in tap.indexers.take()]
    steps = range(len(ids) - 1, len(ids) + len(continuation) - 1)
    return [round(min(1e3, *(gaps[token] for gaps in layers)), 6) for token in steps]
