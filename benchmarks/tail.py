"""What draws from the tail are worth: the squared error of the prior's gradient, at about equal cost.

    python benchmarks/tail.py
    python benchmarks/tail.py --squad FOLDER

Synthetic worlds: prior logits are normal with standard deviation 2; one gold passage of each query stands at a given
rank of the prior and explains the target, a share of the others explains it in part, the rest hardly. In the sharp
world next to nothing is explained outside the gold passage, in the soft one much of it is, and in the even one all
others explain it about equally. The posterior retriever adds to the prior's logits a share of the log-likelihood, and
noise. Errors are E‖ĝ - g‖² of the gradient of a query in the prior's logits against enumeration, times 10⁴: bias and
variance together. Forwards are those with and without gradient, and "outside" is the share of the exact
responsibilities that the union of 9 + 9 does not hold.

With ``--squad`` the world is real but for the generator: questions and passages of FOLDER (train.jsonl,
passages.jsonl), the untrained MiniLM as prior, the same reading the answer as posterior, and the copy likelihood of the
warm start with its noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import retrograd as rg
from retrograd.evaluation.laboratory.measure import Estimator, measure
from retrograd.evaluation.laboratory.tables import Tables
from retrograd.objectives import JointStochasticApproximation, TopKMarginal
from retrograd.rag.likelihood import CopySettings

JSA = JointStochasticApproximation()
SPREAD = 2.0
WORLDS = {"sharp": (-9.0, 1.0, 0.02, -5.0), "soft": (-6.0, 1.0, 0.1, -3.0), "even": (-5.0, 0.3, 0.0, -3.0)}
"""Log-likelihood (nats) of passages that hardly explain the target, and its standard deviation; the share of those that
explain it in part, and theirs."""
POSTERIORS = {"good": (0.5, 0.5), "poor": (0.1, 2.0)}
"""Share of the log-likelihood in the posterior's logits, and the standard deviation of its noise, in nats."""


def estimators() -> list[Estimator]:
    return [
        Estimator("top 14, full", TopKMarginal(), 14),
        Estimator("union 9 + 9", JSA, 9),
        Estimator("union 6 + 6, 5 of the prior's tail", JSA, 6, tail=5),
        Estimator("union 6 + 6, 5 of the tail of (p + q)/2", JSA, 6, tail=5, tail_posterior_share=0.5),
        Estimator("union 6 + 6, 5 of the tail of 0.1 p + 0.9 q", JSA, 6, tail=5, tail_posterior_share=0.9),
    ]


def world(options: argparse.Namespace, kind: str, posterior: str, rank: int) -> Tables:
    (hardly, spread, share, in_part), (knows, noise) = WORLDS[kind], POSTERIORS[posterior]
    queries, passages = options.queries, options.passages
    rng = torch.Generator().manual_seed(options.seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    prior = (SPREAD * normal(queries, passages)).sort(dim=-1, descending=True).values
    log_likelihood = hardly + spread * normal(queries, passages)
    helps = torch.rand(queries, passages, generator=rng) < share
    log_likelihood = torch.where(helps, in_part + normal(queries, passages), log_likelihood).clamp(max=-0.1)
    log_likelihood[:, rank] = -0.5
    log_posterior = prior + knows * log_likelihood + noise * normal(queries, passages)
    return Tables(
        prior.log_softmax(-1),
        log_posterior.log_softmax(-1),
        log_likelihood.unsqueeze(-1),
        torch.ones(queries, 1, dtype=torch.bool),
        whole_base=True,
    )


@torch.no_grad()
def squad(options: argparse.Namespace, noise: float) -> Tables:
    """Return the tables of questions that some passage answers, over the first passages of a folder."""
    folder = Path(options.squad)
    base = rg.KnowledgeBase.from_jsonl(folder / "passages.jsonl")
    base = rg.KnowledgeBase.from_passages(base.passages(range(options.squad_passages)))
    task = rg.QuestionAnswering()
    model = rg.RagModel.from_pretrained(
        retriever="builtin:minilm", generator="builtin:minilm-seq2seq", task=task, base=base, posterior=True
    )
    model.refresh_index()
    rows = torch.arange(len(base)).unsqueeze(0)
    examples = [e for e in rg.read_questions(folder / "train.jsonl") if bool(model.supports([e], rows).any())]
    chosen = torch.randperm(len(examples), generator=torch.Generator().manual_seed(options.seed))[: options.queries]
    examples = [examples[i] for i in chosen.tolist()]
    candidates = model.retrieve_all(examples, with_posterior=True)
    likelihood = model.copy_likelihood(examples, candidates, CopySettings(noise, 1 / 20))
    assert candidates.scores.log_posterior is not None
    tokens = likelihood.at(candidates.rows).double().unsqueeze(-1)
    return Tables(
        candidates.scores.log_prior.double(),
        candidates.scores.log_posterior.double(),
        tokens.masked_fill(tokens == -torch.inf, 0.0),
        torch.ones(len(examples), 1, dtype=torch.bool),
        whole_base=True,
    )


def report(title: str, names: Sequence[str], tables: Sequence[Tables], options: argparse.Namespace) -> None:
    outside = " | ".join(f"{mass_outside(table):.1%}" for table in tables)
    print(f"\n{title}\n\n| estimator | forwards | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 2) + f"|\n| outside | | {outside} |")
    for estimator in estimators():
        cells, forwards = [], 0.0
        for table in tables:
            found = measure(estimator, table, options.redraws, torch.Generator().manual_seed(options.seed))
            assert found.prior is not None
            scale = float(table.exact().prior.square().sum()) / options.queries
            cells.append(f"{1e4 * found.prior.error * scale:.0f}")
            forwards += found.diagnostics["generator_forwards"] / len(tables)
        print(f"| {estimator.name} | {forwards:.1f} | " + " | ".join(cells) + " |", flush=True)


def mass_outside(table: Tables) -> float:
    weight = (table.log_prior + table.log_likelihood).softmax(-1)
    best = table.best(9, with_posterior=True)
    held = weight.gather(1, best.clamp(min=0)).masked_fill(best < 0, 0.0)
    return 1 - float(held.sum(-1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=1_000)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--redraws", type=int, default=200)
    parser.add_argument("--ranks", type=int, nargs="+", default=[0, 4, 15, 60, 150])
    parser.add_argument("--squad", default="", help="a folder with train.jsonl and passages.jsonl")
    parser.add_argument("--squad-passages", type=int, default=400)
    parser.add_argument("--worlds", nargs="+", choices=tuple(WORLDS), default=list(WORLDS))
    parser.add_argument("--posteriors", nargs="+", choices=tuple(POSTERIORS), default=list(POSTERIORS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="0 keeps torch's choice")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    if options.squad:
        noises = (0.05, 0.2)
        names = [f"noise {noise:g}" for noise in noises]
        report(f"{options.squad_passages} passages", names, [squad(options, noise) for noise in noises], options)
        return
    for kind in options.worlds:
        for posterior in options.posteriors:
            tables = [world(options, kind, posterior, rank) for rank in options.ranks]
            report(f"{kind} world, {posterior} posterior", [f"gold at {r}" for r in options.ranks], tables, options)


if __name__ == "__main__":
    main()
