"""Make a soft prompt: selected instances become soft tokens in a generator's input.

As in ETRAG (Makino et al. 2024, arXiv 2406.03790): a query has a vector for each role (head, tail, context), a slot has
a value vector for each role (those and the label, say), and every vector v becomes one token. Published form: one
linear map, W v + b. Improved form, for role c of slot r (rank 0 is the query, rank r the r-th slot that is present):

    u = W LayerNorm(v) + b + rank[r] + role[c]
    token = gain · s · u / ‖u‖,     s the median norm of the generator's word embeddings

The norms of word embeddings differ widely between pretrained generators. Scaled like this, the tokens begin as a small
addition to any of them, and how much they weigh is one learned number.

Letters beyond the legend of `retrograd.types`: F width of a role vector, D width of the generator, R slots, Rq and Rv
roles of a query and of a value, S soft tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from retrograd.models.compute.precision import full_precision
from retrograd.models.inputs.soft_input import SoftTokens
from retrograd.types import UserError
from retrograd.util.guards import require_file

__all__ = ["SoftPrompt", "SoftPromptForm", "SoftPromptOptions"]

SoftPromptForm = Literal["improved", "published"]

_FILE = "soft_prompt.safetensors"
_EMBEDDING_STD = 0.3
_MOST = 1 << 16


@dataclass(frozen=True)
class SoftPromptOptions:
    """Frozen options of a soft prompt.

    ``width`` is that of a role vector, usually of the retriever's hidden states.

    ``slots`` is the largest number of slots; ``gain`` is where the improved form's learned gain starts; ``null`` adds a
    learned value for the null instance. Raises `UserError` for numbers out of range.
    """

    width: int
    slots: int = 10
    query_roles: int = 3
    value_roles: int = 4
    form: SoftPromptForm = "improved"
    gain: float = 0.1
    null: bool = False

    def __post_init__(self) -> None:
        sizes = {
            "width": self.width,
            "slots": self.slots,
            "query_roles": self.query_roles,
            "value_roles": self.value_roles,
        }
        for name, size in sizes.items():
            if not 1 <= size <= _MOST:
                raise UserError(f"soft prompt: {name} is {size}; expected from 1 to {_MOST}")
        if self.form not in get_args(SoftPromptForm):
            raise UserError(
                f"soft prompt: form is {self.form!r}; expected one of {', '.join(get_args(SoftPromptForm))}"
            )
        if not 0 < self.gain < math.inf:
            raise UserError(f"soft prompt: gain is {self.gain}; expected a positive number, usually 0.01 to 1")


class SoftPrompt(nn.Module):
    """The map from role vectors to soft tokens: those of the query first, then those of each slot, best first.

    ``words`` is a sample of the generator's word embeddings, from which the tokens take their width and, in the
    improved form, their norm; ``rng`` draws every weight. ``null_value`` [Rv F] is what a slot holds where its weight
    is on the null instance (None unless ``options.null``): a learned vector, which the caller mixes like any value.
    """

    word_norm: Tensor

    def __init__(self, options: SoftPromptOptions, words: Float[Tensor, "V D"], rng: torch.Generator) -> None:
        super().__init__()
        self.options = options
        width = words.shape[1]
        with torch.random.fork_rng(devices=[]):  # torch draws from the global random state; leave it as it was
            self.projection = nn.Linear(options.width, width)
        self.null_value = nn.Parameter(torch.empty(options.value_roles, options.width)) if options.null else None
        if options.form == "improved":
            self.norm = nn.LayerNorm(options.width)
            self.rank = nn.Parameter(torch.empty(1 + options.slots, width))
            self.role = nn.Parameter(torch.empty(max(options.query_roles, options.value_roles), width))
            self.gain = nn.Parameter(torch.tensor(options.gain))
            self.register_buffer("word_norm", words.detach().float().norm(dim=-1).median().cpu())
        self._draw(rng)

    @torch.no_grad()
    def _draw(self, rng: torch.Generator) -> None:
        """Draw every weight from ``rng``."""
        bound = 1 / math.sqrt(self.options.width)
        # torch's own start for a linear layer: the weights and the bias are uniform on ± 1 / √width.
        self.projection.weight.uniform_(-bound, bound, generator=rng)
        self.projection.bias.uniform_(-bound, bound, generator=rng)
        if self.options.form == "improved":
            # LayerNorm gives components of size 1; so do these weights, and rank and role are a little beside them.
            self.projection.weight.normal_(std=bound, generator=rng)
            self.projection.bias.zero_()
            self.rank.normal_(std=_EMBEDDING_STD, generator=rng)
            self.role.normal_(std=_EMBEDDING_STD, generator=rng)
        if self.null_value is not None:  # of length about 1, as role vectors are
            self.null_value.normal_(std=bound, generator=rng)

    def forward(
        self,
        query: Float[Tensor, "B Rq F"],
        value: Float[Tensor, "B R Rv F"],
        present: Bool[Tensor, "B R"],
    ) -> SoftTokens:
        """Return Rq + R · Rv tokens, in fp32 under autocast as well.

        Slots that are not ``present`` are absent from the input.

        The rank of a slot is its place among those that are present, so the positions of absent slots do not matter.
        Raises `UserError` for more slots, or other numbers of roles, than the soft prompt was made for.
        """
        self._require_fit(query.shape[1], *value.shape[1:3])
        value = value.masked_fill(~present[:, :, None, None], 0.0)
        with full_precision(value.device):
            vectors = torch.cat([query.float(), value.float().flatten(1, 2)], dim=1)
            if self.options.form == "published":
                tokens = self.projection(vectors)
            else:
                place = self._place(query.shape[1], value.shape[2], present)
                tokens = (
                    nn.functional.normalize(self.projection(self.norm(vectors)) + place, dim=-1)
                    * self.gain
                    * self.word_norm
                )
        always = present.new_ones(query.shape[:2])
        return SoftTokens(tokens, torch.cat([always, present.repeat_interleave(value.shape[2], dim=1)], dim=1))

    def _place(self, query_roles: int, value_roles: int, present: Bool[Tensor, "B R"]) -> Float[Tensor, "B S D"]:
        """Return rank[r] + role[c] for every token, in their order."""
        rank = nn.functional.pad(present.cumsum(dim=1).repeat_interleave(value_roles, dim=1), (query_roles, 0))
        role = torch.cat([self.role[:query_roles], self.role[:value_roles].repeat(present.shape[1], 1)])
        return self.rank[rank] + role

    def _require_fit(self, query_roles: int, slots: int, value_roles: int) -> None:
        """Raise `UserError` unless the soft prompt was made for these numbers."""
        options = self.options
        if slots > options.slots or (query_roles, value_roles) != (options.query_roles, options.value_roles):
            raise UserError(
                f"{slots} slots of {value_roles} roles beside {query_roles} roles of the query, but the soft prompt "
                f"was made for {options.slots} of {options.value_roles} beside {options.query_roles}; make one that "
                f"fits"
            )

    def save_weights(self, folder: Path) -> None:
        """Write ``soft_prompt.safetensors``; the options are the caller's to keep."""
        save_file({name: weight.contiguous() for name, weight in self.state_dict().items()}, folder / _FILE)

    def load_weights(self, folder: Path) -> None:
        """Read what `save_weights` wrote. Raises `UserError` when it is missing or was made for another generator."""
        require_file(folder / _FILE)
        try:
            self.load_state_dict(load_file(folder / _FILE))
        except (SafetensorError, OSError, RuntimeError) as error:
            raise UserError(
                f"the soft prompt {folder / _FILE} does not fit this generator ({str(error).splitlines()[0]}); "
                "name the generator it was trained with"
            ) from error
