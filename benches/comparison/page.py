"""`report.html`: the table of bars and the curves side by side, in one file, without scripts."""
import html, math

from comparison.table import amount

COLOURS = {"ringd": "#0072b2", "etcd": "#d55e00"}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 520, 270, 64, 16, 14, 44


def drawing(curves):
    """Percentile curves on logarithmic axes, as SVG. `curves`: points (1 / (1 - percentile), microseconds) by name."""
    everything = [point for points in curves.values() for point in points]
    right = max(100.0, max(x for x, _ in everything))
    low = 10 ** math.floor(math.log10(max(0.1, min(y for _, y in everything))))
    high = 10 ** math.ceil(math.log10(max(y for _, y in everything)) + 1e-9)
    at_x = lambda x: LEFT + (WIDTH - LEFT - RIGHT) * math.log10(x) / math.log10(right)
    at_y = lambda y: HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * math.log10(max(y, low) / low) / math.log10(high / low)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" xmlns="http://www.w3.org/2000/svg">']
    step = 1.0
    while step <= right:
        label = "0 %" if step == 1 else f"{100 * (1 - 1 / step):.10g} %"
        parts.append(f'<line x1="{at_x(step):.1f}" y1="{TOP}" x2="{at_x(step):.1f}" y2="{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        # The last one must not stick out.
        anchor = "end" if at_x(step) > WIDTH - RIGHT - 16 else "middle"
        x = WIDTH - 2 if anchor == "end" else at_x(step)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="{anchor}">{label}</text>')
        step *= 10
    step = low
    while step <= high * 1.0001:
        label = f"{step:g} us" if step < 1000 else f"{step / 1000:g} ms" if step < 1e6 else f"{step / 1e6:g} s"
        parts.append(f'<line x1="{LEFT}" y1="{at_y(step):.1f}" x2="{WIDTH - RIGHT}" y2="{at_y(step):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at_y(step) + 4:.1f}" text-anchor="end">{label}</text>')
        step *= 10
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">share of requests that took no longer</text>')
    for number, (name, points) in enumerate(sorted(curves.items(), reverse=True)):
        line = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[name]}" stroke-width="2" stroke-linejoin="round"/>')
        # On a ground of its own: a curve may pass behind it.
        parts.append(f'<rect x="{LEFT + 8}" y="{TOP + 4 + 17 * number}" width="46" height="16" fill="#fff" opacity=".85"/>')
        parts.append(f'<text x="{LEFT + 12}" y="{TOP + 16 + 17 * number}" style="fill:{COLOURS[name]};font-weight:bold">{name}</text>')
    return "".join(parts) + "</svg>"


def middle(runs):
    """The run in the middle by its p99 stands for the others."""
    return sorted(runs, key=lambda run: run["p99_us"])[len(runs) // 2]["curve"]


def page(results, rows, facts, failures):
    cell = lambda text: f"<td>{html.escape(text)}</td>"
    bars = "".join(
        f'<tr class="{"good" if verdict == "holds" else "bad"}">'
        + "".join(map(cell, (case, figure, amount(ours), amount(theirs), amount(ratio), bar, verdict))) + "</tr>"
        for case, figure, ours, theirs, ratio, bar, verdict in rows)
    drawings = ""
    for case in results.cases():
        curves = {name: middle(runs) for name, runs in results.runs[case.name].items() if all("curve" in run for run in runs)}
        if curves:
            drawings += f"<figure><figcaption>{html.escape(case.name)}</figcaption><p>{html.escape(case.about)}</p>{drawing(curves)}</figure>"
    missing = "".join(f"<li>{html.escape(case)}: {html.escape(why)}</li>" for case, why in failures.items())
    missing = f"<h2>Not reported</h2><ul>{missing}</ul>" if missing else ""
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>ringd and etcd</title>
<style>body{{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1120px;padding:0 1em;color:#222}}table{{border-collapse:collapse}}
td,th{{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:right}}td:first-child,td:nth-child(2),td:nth-last-child(-n+2),th:first-child,th:nth-child(2),th:nth-last-child(-n+2){{text-align:left}}
.good td:last-child{{color:#00704a}}.bad td:last-child{{color:#b03a00;font-weight:bold}}figure{{display:inline-block;margin:.6em;vertical-align:top}}
figcaption{{font-weight:600}}figure p{{margin:0;color:#666;font-size:13px;max-width:520px}}svg text{{font:11px system-ui,sans-serif;fill:#444}}pre{{overflow-x:auto;background:#f6f6f6;padding:1em;font-size:12px}}</style>
<h1>ringd and etcd on one machine</h1><p>{"<br>".join(html.escape(fact) for fact in facts)}</p>
<h2>Bars</h2><table><tr><th>case<th>figure<th>ringd<th>etcd<th>ratio<th>bar<th></tr>{bars}</table>{missing}
<h2>Latency by percentile</h2><p>Of the repetition in the middle by its p99.</p>{drawings}<h2>All medians</h2><pre>{html.escape(chr(10).join(results.lines()))}</pre></html>
"""
