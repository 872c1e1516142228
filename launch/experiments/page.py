"""The report as one HTML file, which needs nothing beside it."""

from html import escape

from experiments.curves import AXES
from experiments.figures import Figure, Figures
from experiments.inference import mean_and_deviation
from experiments.results import BAD, Results
from experiments.sentences import QUANTITY, does_not_say, headline, plus_minus, says
from experiments.specialisation import information

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: #1b1f24; background: #fff;
  max-width: 1120px; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin-bottom: .25rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #d5dae0; padding-bottom: .25rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p.lead { font-size: 1.08rem; background: #f3f6fa; border-left: 4px solid #08519c; padding: .7rem 1rem; }
li { margin: .25rem 0; }
figure { margin: 1rem 0 1.6rem; break-inside: avoid; }
.pictures { display: flex; flex-wrap: wrap; gap: .8rem; }
.pictures svg { flex: 1 1 480px; width: 100%; height: auto; font-family: inherit; }
figcaption, p.note { color: #57606a; font-size: .88rem; max-width: 62rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; min-width: 45%; }
th, td { padding: .28rem .45rem; text-align: right; border-bottom: 1px solid #e3e6ea; white-space: nowrap; }
th { border-bottom: 2px solid #8c959f; vertical-align: bottom; white-space: normal; }
th.left, td.left { text-align: left; }
td.note { white-space: normal; overflow-wrap: anywhere; }
tr.bad td { background: #fff4ef; }
code { font: .85em ui-monospace, "DejaVu Sans Mono", monospace; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .9rem; }
dt { color: #57606a; } dd { margin: 0; }
@page { size: A4 landscape; margin: 12mm; }
@media print {
  body { max-width: none; margin: 0; padding: 0; font-size: 10pt; }
  h2, h3 { break-after: avoid; } thead { display: table-header-group; } tr { break-inside: avoid; }
  .pictures { display: block; } .pictures svg { display: inline-block; width: 49%; }
  .pictures svg:only-child { width: 75%; } .wide { overflow: visible; } table { font-size: 7.5pt; }
  p.lead, tr.bad td { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


def table(head: list[str], rows: list[list[str]], bad=(), note: int = -1) -> str:
    """The first column is text, as is that numbered `note`, which may be long; `bad` are numbers of rows to mark."""
    kind = lambda i: ' class="left"' if i == 0 else ' class="left note"' if i == note else ""
    lines = ["".join(f"<th{kind(i)}>{escape(cell)}</th>" for i, cell in enumerate(head))]
    body = ["".join(f"<td{kind(i)}>{escape(cell)}</td>" for i, cell in enumerate(row)) for row in rows]
    marked = [f'<tr class="bad">{line}</tr>' if i in bad else f"<tr>{line}</tr>" for i, line in enumerate(body)]
    return f'<div class="wide"><table><thead><tr>{lines[0]}</tr></thead><tbody>\n' + "\n".join(marked) + "\n</tbody></table></div>"


def bullets(sentences: list[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "\n</ul>"


def figure(name: str, shown: Figure | None) -> str:
    if not shown:
        return ""
    pictures = "\n".join(shown.pictures)
    return f'<figure id="{name}"><div class="pictures">{pictures}</div><figcaption>{escape(shown.caption)}</figcaption></figure>'


def optional(value: float | None, form: str) -> str:
    return "—" if value is None or value != value else format(value, form)


def about(results: Results) -> str:
    plan = results.plan
    attempts = [attempt for run in results.runs for attempt in run.run.attempts()]
    commits = sorted({attempt["commit"] for attempt in attempts if attempt.get("commit")}) or [plan.commit]
    days = sorted(attempt["begin"][:10] for attempt in attempts)
    facts = {
        "experiment": f"{plan.file}, on {plan.base}",
        "command": plan.command,
        "equal": f"{QUANTITY[plan.equal]}, by {plan.adjust}; reference: {results.reference.arm.label}",
        "seeds": ", ".join(map(str, plan.seeds)),
        "program and commit": f"switchyard {plan.version}; {', '.join(commits)}",
        "runs": f"{sum(run.good for run in results.runs)} of {len(results.runs)} came to a good end"
        + (f"; begun {days[0]}" + (f" to {days[-1]}" if days[-1] != days[0] else "") if days else ""),
        "held-out text": ", ".join(plan.held_out),
    }
    return "<dl>" + "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items()) + "</dl>"


def arms_table(results: Results) -> str:
    plan = results.plan
    head = ["arm", "parameters", "active a token", "MFLOPs a token", "steps", "tokens, M", "FLOPs, 1e12",
            f"{QUANTITY[plan.equal]}, ratio", "seconds", "tokens a second"]  # fmt: skip
    rows = []
    for arm in results.arms:
        sizes, good = arm.arm.sizes, arm.good_runs
        mean = lambda values: sum(values) / len(values) if values else None
        rows.append([arm.arm.label, f"{sizes.parameters:,}", f"{sizes.active_parameters:,}", f"{sizes.flops_per_token / 1e6:.3f}",
                     f"{sizes.steps:,}", f"{sizes.tokens / 1e6:.3f}", f"{sizes.flops / 1e12:,.2f}", f"{arm.arm.ratio:.5f}",
                     optional(mean([run.curve.seconds for run in good]), ".0f"),
                     optional(mean([run.curve.tokens_per_second() for run in good]), ",.0f")])  # fmt: skip
    return table(head, rows)


def results_table(results: Results) -> str:
    whole = f"{results.reference.arm.label}'s run over it"
    head = ["arm", "good runs", "final held-out loss", "training loss at the end", f"steps to {results.reference.arm.label}'s loss",
            "seconds to it", f"{whole}: steps", "FLOPs", "tokens", "seconds", "dropped, %", "entropy, nats"]  # fmt: skip
    rows = []
    for arm in results.arms:
        s = arm.speedup
        ratios = [plus_minus(mean_and_deviation(s.ratios[axis]), 2) if s else "—" for axis in AXES]
        steps, seconds = (plus_minus(mean_and_deviation(s.took[axis]), 0) if s else "—" for axis in ("step", "seconds"))
        if s and s.reached < s.runs:
            steps = f"{steps} ({s.reached} of {s.runs} runs)" if s.reached else "not reached"
        drop, entropy = (arm.mean(name) if arm.experts() else None for name in ("drop_fraction", "router_entropy"))
        rows.append([arm.arm.label, f"{len(arm.good_runs)} of {len(arm.runs)}", plus_minus(arm.final(), 4), optional(arm.mean("loss"), ".4f"),
                     steps, seconds, *ratios, optional(None if drop is None else 100 * drop, ".2f"), optional(entropy, ".3f")])  # fmt: skip
    return table(head, rows)


def domains_table(results: Results) -> str:
    """Held-out loss by domain; empty where it was not measured."""
    measured = {arm.arm.label: [d for run in arm.good_runs if (d := run.run.domains())] for arm in results.arms}
    names = next((list(runs[0]) for runs in measured.values() if runs), [])
    rows = []
    for label, runs in measured.items():
        if runs:
            columns = [[run[name] for run in runs] for name in names]
            rows.append([label, *(plus_minus(mean_and_deviation(column), 4) for column in columns)])
    if not rows:
        return ""
    return f"<h3>Held-out loss by domain, nats a token, on all of each domain's held-out text</h3>{table(['arm', *names], rows)}"


def runs_table(results: Results) -> str:
    head = ["arm", "seed", "state", "steps", "held-out loss", "training loss", "dropped, %", "entropy, nats", "seconds",
            "tokens a second", "alarms", "attempts", "commit", "what went wrong"]  # fmt: skip
    rows, bad = [], []
    for i, result in enumerate(results.runs):
        run, curve = result.run, result.curve
        attempts, routed = run.attempts(), curve.routed()
        drop, entropy = (curve.at_end(name) if routed else None for name in ("drop_fraction", "router_entropy"))
        rows.append([results.plan.arm(run.arm).label, str(run.seed), result.state, f"{len(curve.metrics)} of {run.steps}",
                     optional(curve.final, ".4f"), optional(curve.at_end("loss"), ".4f"),
                     optional(None if drop is None else 100 * drop, ".2f"), optional(entropy, ".3f"),
                     f"{curve.seconds:.0f}", optional(curve.tokens_per_second(), ",.0f"),
                     str(result.alarms.times) if routed else "—", str(len(attempts)),
                     attempts[-1]["commit"] if attempts else "—", result.reason])  # fmt: skip
        bad += [i] if result.state in BAD else []
    return table(head, rows, bad, len(head) - 1)


def information_table(results: Results) -> str:
    """What experts tell about their tokens, by arm and block, over the seeds that were analysed."""
    kinds = ("domain", "domain given token", "class", "token")
    head = ["arm", "block", "runs", *(f"{kind}, nats" for kind in kinds), "domain: at most", "domain: largest shuffle"]
    rows = []
    for arm in results.arms:
        by_kind = {kind: list(zip(*(run for run in (information(good.run.folder, kind) for good in arm.good_runs) if run))) for kind in kinds}
        for i, block in enumerate(by_kind["domain"]):
            nats = [plus_minus(mean_and_deviation([each.nats for each in by_kind[kind][i]]), 4) for kind in kinds]
            rows.append([arm.arm.label, str(block[0].block), str(len(block)), *nats, f"{max(each.bound for each in block):.4f}",
                         f"{max(each.shuffled_max for each in block):.5f}"])  # fmt: skip
    if not rows:
        return ""
    note = ("Mutual information between the expert of a choice and the token's domain, its domain where the token itself is known already, "
            "its class (letters of either case, digits, punctuation, spaces), and the token. Domains differ in their tokens, so an expert "
            "that goes by tokens alone tells about domains too; “domain given token” is what it tells beyond that.")  # fmt: skip
    return f'<h3>What the choice of an expert tells about its token</h3>{table(head, rows)}<p class="note">{escape(note)}</p>'


def page(results: Results) -> str:
    figures = Figures(results).all()
    title = escape(results.plan.title)
    loads = figure("load", figures.get("load")) + figure("domains", figures.get("domains")) + information_table(results)
    parts = [
        f"<h1>{title}</h1>",
        about(results),
        f'<p class="lead">{escape(headline(results))}</p>',
        f"<h2>What the numbers say</h2>{bullets(says(results))}",
        f"<h2>What they do not say</h2>{bullets(does_not_say(results))}",
        f"<h2>The arms, and what is equal</h2>{arms_table(results)}",
        f"<h2>Results</h2>{results_table(results)}{figure('final', figures.get('final'))}{domains_table(results)}",
        f"<h2>Loss over training</h2>{figure('curves', figures.get('curves'))}{figure('training', figures.get('training'))}",
        f"<h2>What it takes to reach {escape(results.reference.arm.label)}'s final loss</h2>{figure('speedup', figures['speedup'])}" if "speedup" in figures else "",
        f"<h2>Loss against the number of experts</h2>{figure('experts', figures['experts'])}" if "experts" in figures else "",
        f"<h2>Routing</h2>{figure('health', figures.get('health'))}{loads}" if "health" in figures else "",
        f"<h2>Every run</h2>{runs_table(results)}",
    ]
    body = "\n".join(part for part in parts if part)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""
