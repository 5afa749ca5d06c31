"""A drawing of dvc.yaml: docs/pictures/graph.svg. An edge means that a stage reads what another writes."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import networkx
import yaml

PICTURE = Path("docs/pictures/graph.svg")
BOX, GAP = (146, 30), (12, 34)  # width and height of a stage, and the space between two, in pixels
# Legible on white and on black: the picture has no background of its own.
KEYS = ("outs", "metrics", "plots")  # of a stage: what it writes
COLOURS = {"data": "#d6e6fb", "train": "#ffe2b8", "end": "#d8efd3"}
BEND = 8  # width of the place that an edge takes where it passes a row
TURNS = 24  # of ordering the rows; it no longer changes after some ten


Node = str | tuple[str, str, int]


def stage_graph(stages: Mapping[str, Any]) -> networkx.DiGraph:
    """Stages as nodes in the order of the file; edges that follow from others are left out."""
    graph = networkx.DiGraph()
    graph.add_nodes_from(stages)
    written = {name(out): stage for stage, body in stages.items() for key in KEYS for out in body.get(key) or []}
    for stage, body in stages.items():
        for dep in map(name, body.get("deps") or []):
            for out, writer in written.items():
                if writer != stage and (dep == out or dep.startswith(f"{out}/") or out.startswith(f"{dep}/")):
                    graph.add_edge(writer, stage)
    reduced = networkx.DiGraph()
    reduced.add_nodes_from(stages)
    reduced.add_edges_from(networkx.transitive_reduction(graph).edges)
    return reduced


def name(entry: Any) -> str:
    """Path of an entry of ``deps`` or ``outs``: a string, or a mapping with one key."""
    return str(next(iter(entry)) if isinstance(entry, dict) else entry)


def with_bends(graph: networkx.DiGraph) -> networkx.DiGraph:
    """The graph with a bend, ``(stage, stage, row)``, in each row that an edge passes, so that none crosses a box."""
    row = {stage: y for y, layer in enumerate(networkx.topological_generations(graph)) for stage in layer}
    bent = networkx.DiGraph()
    bent.add_nodes_from(graph)
    for one, other in graph.edges:
        networkx.add_path(bent, [one, *((one, other, y) for y in range(row[one] + 1, row[other])), other])
    return bent


def rows(graph: networkx.DiGraph) -> list[list[Node]]:
    """Nodes from top to bottom, each below all that it reads; in a row, near what they are joined to."""
    order = {node: number for number, node in enumerate(graph)}
    layers = [sorted(layer, key=order.__getitem__) for layer in networkx.topological_generations(graph)]
    for turn in range(TURNS):
        place = {node: x - len(layer) / 2 for layer in layers for x, node in enumerate(layer)}

        def middle(node: Node, down: bool = turn % 2 == 0, place: dict[Node, float] = place) -> tuple[float, int]:
            joined = list(graph.predecessors(node) if down else graph.successors(node)) or [node]
            return sum(place[other] for other in joined) / len(joined), order[node]

        layers = [sorted(layer, key=middle) for layer in layers]
    return layers


def wide(node: Node) -> int:
    """Pixels that a node takes in its row."""
    return BOX[0] if isinstance(node, str) else BEND


def kind(stage: str) -> str:
    """Which colour a stage has."""
    if stage in ("evaluate", "register"):
        return "end"
    return "train" if stage[1:2] == "-" else "data"


def drawn(stages: Mapping[str, Any]) -> str:
    """The SVG text."""
    graph = with_bends(stage_graph(stages))
    layers = rows(graph)
    (width, height), (across, down) = BOX, GAP
    sizes = [sum(wide(node) + across for node in layer) - across for layer in layers]
    whole, tall = max(sizes) + 2 * across, len(layers) * (height + down) - down + 8
    place = {}
    for y, (layer, size) in enumerate(zip(layers, sizes, strict=True)):
        left = (whole - size) / 2
        for node in layer:
            place[node] = (left + wide(node) / 2, 4 + y * (height + down))
            left += wide(node) + across
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole:g} {tall}" width="{whole:g}" height="{tall}" '
        'font-family="sans-serif" font-size="13" role="img">',
        "<title>The stages of dvc.yaml, from raw data at the top to a registered model at the bottom</title>",
        '<g fill="none" stroke="#888" stroke-width="1.4">',
    ]
    for one, other in sorted(graph.edges, key=lambda edge: (place[edge[0]], place[edge[1]])):
        (x, y), (to, end) = place[one], place[other]
        y += height
        through = "" if isinstance(other, str) else f"V{end + height}"  # past the boxes of this row
        lines.append(f'<path d="M{x:g} {y} C{x:g} {y + down:g} {to:g} {end - down:g} {to:g} {end}{through}"/>')
    lines.append("</g>")
    for stage, (x, y) in place.items():
        if isinstance(stage, str):
            lines.append(
                f'<rect x="{x - width / 2:g}" y="{y}" width="{width}" height="{height}" rx="5" '
                f'fill="{COLOURS[kind(stage)]}" stroke="#667"/><text x="{x:g}" y="{y + height / 2 + 4.5:g}" '
                f'text-anchor="middle" fill="#111">{html.escape(stage)}</text>'
            )
    return "\n".join([*lines, "</svg>", ""])


def from_file(path: Path) -> str:
    """The drawing of a dvc.yaml."""
    return drawn(yaml.safe_load(path.read_text(encoding="utf-8"))["stages"])
