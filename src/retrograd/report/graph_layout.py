"""Places for the entities of a graph, computed once when its page is written: seconds for thousands of edges.

Each connected part is laid out by itself with springs along its edges and repulsion between all pairs (Fruchterman &
Reingold 1991); in parts of more than 600 entities repulsion is estimated from 300 of them, other ones in each round.
The parts are then put on shelves, the largest first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

__all__ = ["place_nodes"]

_SPACING = 90.0
_MARGIN = 110.0
_ROUNDS = 60
_MOST_EXACT, _SAMPLED = 600, 300


def place_nodes(count: int, edges: Sequence[tuple[int, int]]) -> Float64[np.ndarray, "nodes 2"]:
    """Return a place in pixels for each of ``count`` nodes; the same ones for the same graph."""
    places = np.zeros((count, 2))
    if not count:
        return places
    parts = _connected_parts(count, edges)
    within = [_own_edges(part, edges) for part in parts]
    boxes = [_SPACING * _place_part(len(part), own) for part, own in zip(parts, within, strict=True)]
    for part, corner, box in zip(parts, _shelves(boxes), boxes, strict=True):
        places[part] = corner + box - box.min(axis=0)
    return places


def _connected_parts(count: int, edges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the nodes of each connected part, the largest part first."""
    parents = list(range(count))

    def root(node: int) -> int:
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for first, second in edges:
        parents[root(first)] = root(second)
    parts: dict[int, list[int]] = {}
    for node in range(count):
        parts.setdefault(root(node), []).append(node)
    return sorted(parts.values(), key=lambda part: -len(part))


def _own_edges(part: Sequence[int], edges: Sequence[tuple[int, int]]) -> Int64[np.ndarray, "edges 2"]:
    """Return the edges of a part, as positions in it, each pair once and no loop."""
    position = {node: place for place, node in enumerate(part)}
    pairs = {
        (min(position[first], position[second]), max(position[first], position[second]))
        for first, second in edges
        if first in position and first != second
    }
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def _place_part(count: int, edges: Int64[np.ndarray, "edges 2"]) -> Float64[np.ndarray, "nodes 2"]:
    """Return places at distances of about 1."""
    angle = 2 * math.pi * np.arange(count) / count
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if count <= 3:
        return circle
    rng = np.random.default_rng(0)
    places = circle * math.sqrt(count) + rng.normal(0.0, 0.1, circle.shape)
    for step in range(_ROUNDS):
        move = _repulsion(places, rng)
        pull = places[edges[:, 0]] - places[edges[:, 1]]
        pull *= np.linalg.norm(pull, axis=1, keepdims=True)
        np.add.at(move, edges[:, 0], -pull)
        np.add.at(move, edges[:, 1], pull)
        length = np.maximum(np.linalg.norm(move, axis=1, keepdims=True), 1e-9)
        limit = 0.3 * math.sqrt(count) * (1 - step / _ROUNDS)
        places = places + move / length * np.minimum(length, limit)
    return places


def _repulsion(places: Float64[np.ndarray, "nodes 2"], rng: np.random.Generator) -> Float64[np.ndarray, "nodes 2"]:
    count = len(places)
    others = places if count <= _MOST_EXACT else places[rng.choice(count, _SAMPLED, replace=False)]
    away = places[:, None, :] - others[None, :, :]
    force = away / (np.square(away).sum(axis=2, keepdims=True) + 0.01)
    return force.sum(axis=1) * (count / len(others))


def _shelves(boxes: Sequence[Float64[np.ndarray, "_ 2"]]) -> list[Float64[np.ndarray, " 2"]]:
    """Return the upper left corner of each box, row by row, in an area that is wider than high."""
    sizes = [box.max(axis=0) - box.min(axis=0) + _MARGIN for box in boxes]
    width = max(float(max(size[0] for size in sizes)), 1.4 * math.sqrt(float(sum(size[0] * size[1] for size in sizes))))
    corners: list[Float64[np.ndarray, " 2"]] = []
    x, y, height = 0.0, 0.0, 0.0
    for size in sizes:
        if x > 0 and x + size[0] > width:
            x, y, height = 0.0, y + height, 0.0
        corners.append(np.array([x, y]))
        x, height = x + float(size[0]), max(height, float(size[1]))
    return corners
