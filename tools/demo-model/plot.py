"""A loss curve as SVG: steps along, loss on a logarithmic scale upwards."""
import json
import math

COLORS = {"loss": "#1b6ca8", "kl": "#b3541e"}


def plot(log_path, out):
    with open(log_path) as f:
        lines = list(map(json.loads, f))
    settings, points = [x for x in lines if "steps" in x][-1], [x for x in lines if "step" in x]
    kinds = [k for k in points[-1] if k not in ("step", "seconds")] + [k for p in points[-20:] for k in p if k.startswith("exit")]
    kinds = sorted(set(kinds), key=lambda k: (k.startswith("exit"), k))
    values = [p[k] for p in points for k in kinds if k in p]
    low, high = math.log10(max(min(values), 1e-4)), math.log10(max(values))
    W, H, L, B = 760, 380, 60, 40

    def x(step):
        return L + (W - L - 110) * step / settings["steps"]

    def y(v):
        return H - B - (H - B - 20) * (math.log10(max(v, 1e-4)) - low) / ((high - low) or 1)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {W} {H}" font-family="sans-serif" font-size="12">', f'<rect width="{W}" height="{H}" fill="white"/>']
    for e in range(math.floor(low) , math.ceil(high) + 1):
        for m in (1, 2, 5):
            v = m * 10.0 ** e
            if low <= math.log10(v) <= high:
                parts.append(f'<line x1="{L}" x2="{W - 110}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#ddd"/><text x="{L - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>')
    for i in range(6):
        s = settings["steps"] * i // 5
        parts.append(f'<text x="{x(s):.1f}" y="{H - B + 18}" text-anchor="middle">{s:,}</text>')
    parts.append(f'<text x="{(L + W - 110) / 2}" y="{H - 6}" text-anchor="middle">steps of {settings["batch"]:,} tokens ({settings["name"]})</text>')
    for n, k in enumerate(kinds):
        color = COLORS.get(k, f"hsl({130 + 40 * n}, 35%, 55%)")
        line = " ".join(f"{x(p['step']):.1f},{y(p[k]):.1f}" for p in points if k in p)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="{1.5 if k in COLORS else 1}"/>')
        parts.append(f'<text x="{W - 102}" y="{40 + 18 * n}" fill="{color}">{k}</text>')
    with open(out, "w") as f:
        f.write("\n".join(parts + ["</svg>"]) + "\n")
