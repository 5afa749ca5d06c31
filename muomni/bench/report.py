"""The figures of `muomni bench` as a table."""

from typing import Any


def quantity(value: float) -> str:
    """A number with three digits that say something, thousands set apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def share(value: float | None) -> str:
    """A ratio as a share of 1, or nothing."""
    return "" if value is None else f"{value:.2f}"


def rows_of(found: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """What, how fast, of the machine's limit, against the other checkout, memory."""
    rows = []
    for name, entry in found.get("components", {}).items():
        rate = f"{quantity(entry['rate'])} {entry['unit']}/s"
        rows.append((name, rate, share(entry.get("of_limit")), share(entry.get("against")), ""))
    for name, entry in found.get("memory", {}).items():
        rows.append((name, "", "", share(entry.get("against")), f"{entry['peak_mb']:,.0f} MB"))
    for axis, points in found.get("scaling", {}).items():
        for point in points:
            rows.append(
                (f"step, {axis} {point['value']:,}", f"{point['seconds']:.3g} s", "", "", f"{point['peak_mb']:,.0f} MB")
            )
    for name, entry in found.get("stages", {}).items():
        rate = f"{quantity(entry['rate'])} {entry['unit']}/s, waits {100 * entry['waiting']:.0f} %"
        rows.append((f"stage {name}", rate, "", "", f"{entry['peak_mb']:,.0f} MB"))
    for name, entry in found.get("generation", {}).items():
        rate = f"{quantity(entry['rate'])} {entry['unit']}/s"
        rows.append((f"generation, {name}", rate, share(entry.get("of_limit")), share(entry.get("against")), ""))
    for name, seconds in found.get("answer", {}).items():
        rows.append((name, f"after {1000 * seconds:.0f} ms", "", "", ""))
    for name, entry in found.get("speech", {}).items():
        rows.append((name, f"real-time factor {1 / entry['rate']:.3g}", "", "", ""))
    for name, entry in found.get("reading", {}).items():
        rows.append((name, f"{quantity(entry['rate'])} {entry['unit']}/s", "", "", ""))
    return rows


def render(found: dict[str, Any]) -> str:
    """Markdown: the machine, its limits, and a row a figure."""
    machine, limits = found["machine"], found["limits"]
    lines = [f"{machine['device']}; {machine['cpu']}; PyTorch {machine['torch']}; profile {found['profile']}", ""]
    said = [f"{name} products {limits[name] / 1e9:,.0f} GFLOP/s" for name in ("fp32", "bf16") if name in limits]
    lines += [", ".join([*said, f"memory {limits['bandwidth'] / 1e9:.1f} GB/s"]), ""]
    lines += ["| What | Rate | Of the limit | Time against the other | Peak memory |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {' | '.join(row)} |" for row in rows_of(found)]
    return "\n".join(lines)
