"""What the numbers say, and what they do not, in plain sentences."""

from experiments.inference import SIGNIFICANT, PowerLaw, mean_and_deviation
from experiments.results import BAD, ArmResult, Comparison, Results
from experiments.specialisation import information

QUANTITY = {"flops": "training FLOPs", "active_parameters": "active parameters", "tokens": "training tokens"}


def plus_minus(value: tuple[float, float | None] | None, digits: int) -> str:
    if value is None:
        return "—"
    mean, deviation = value
    return f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if deviation is not None else "")


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def probability(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def told_apart(comparison: Comparison) -> bool:
    return comparison.difference is not None and comparison.p < SIGNIFICANT


def compared(c: Comparison) -> str:
    a, b, d = c.a.arm.label, c.b.arm.label, c.difference
    if not d:
        return f"{a} and {b} cannot be compared: a test takes two good runs of each, and there are {len(c.a.good_runs)} and {len(c.b.good_runs)}."
    test = (
        f"95 % interval {signed(d.low)} to {signed(d.high)}, of this pair alone; Welch's test, Holm's correction over all pairs, "
        f"{probability(c.p)}, n = {d.n[0]} and {d.n[1]}"
    )
    if not told_apart(c):
        return f"{a} and {b} are not distinguishable: they end {abs(d.mean):.4f} nats a token apart ({test})."
    return f"{a} ends {abs(d.mean):.4f} nats a token {'below' if d.mean < 0 else 'above'} {b} ({test})."


def sped_up(arm: ArmResult, reference: ArmResult) -> str:
    s, name = arm.speedup, f"{reference.arm.label}'s final loss"
    if not s:
        return ""  # an arm has no good run, as the comparison before this says
    if not s.reached:
        return f"{arm.arm.label} does not reach {name} in any of {counted(s.runs, 'run')}."
    took = {axis: plus_minus(mean_and_deviation(values), 0) for axis, values in s.took.items()}
    ratio = {axis: plus_minus(mean_and_deviation(values), 2) for axis, values in s.ratios.items()}
    runs = "its one run" if s.runs == 1 else f"all {s.runs} runs"
    if s.reached < s.runs:
        part = f"{s.reached} of {s.runs} runs"
        runs = f"{part}; over the {part} that reached it"
    return (
        f"{arm.arm.label} reaches {name} in {runs}, after {took['step']} steps and {took['seconds']} s: {reference.arm.label}'s whole "
        f"run takes {ratio['step']} times those steps, {ratio['flops']} times those FLOPs and {ratio['seconds']} times that time."
    )


def headline(results: Results) -> str:
    reference, plan = results.reference, results.plan
    finals = [arm for arm in results.arms if arm.finals]
    if not finals:
        states = [run.state for run in results.runs]
        bad = [f"{states.count(state)} {what}" for state, what in BAD.items() if state in states]
        if not bad:
            return "No run has come to its end, so there is nothing to say yet."
        return f"No run of {len(states)} has come to a good end ({', '.join(bad)}), so there is nothing to compare."
    against = [c for c in results.comparisons if c.b is reference]
    tested = [c for c in against if c.difference]
    better = [c for c in tested if told_apart(c) and c.difference.mean < 0]
    worse = [c for c in tested if told_apart(c) and c.difference.mean > 0]
    equal, said = f"At equal {QUANTITY[plan.equal]}", ""
    if tested:
        said = (
            f"{equal}, {len(better)} of {len(against)} arms end below {reference.arm.label} by more than the seeds explain, "
            f"{len(worse)} above, and {len(tested) - len(better) - len(worse)} cannot be told from it. "
        )
    untested = [c.a for c in against if not c.difference]
    if untested:
        few = [arm for arm in (reference, *untested) if len(arm.good_runs) < 2]
        lack = ", ".join(f"{arm.arm.label} has {len(arm.good_runs)} of {len(arm.runs)}" for arm in few)
        number = f"{counted(len(untested), 'arm')} could not" if tested else f"{equal}, no arm could"
        said += f"{number} be tested, which takes two good runs of it and of {reference.arm.label}: {lack}. "
    best = min(finals, key=lambda arm: arm.final()[0])
    return f"{said}The lowest mean final loss, {plus_minus(best.final(), 4)} nats a token, is that of {best.arm.label}."


def law_says(family: str, law: PowerLaw | None, results: Results) -> str:
    if law is None:
        return f"{family}: a power law needs three numbers of experts; there are fewer, so none was fitted."
    interval = f"95 % interval {signed(-law.high)} to {signed(-law.low)}, R² = {law.r2:.3f}, {law.n} runs"
    fitted = f"{family}: loss = {law.scale:.4f} · experts to the power {signed(-law.exponent)} ({interval})"
    if law.objection:
        return f"{fitted}. This fit is not meaningful: {law.objection}."
    dense = results.reference.final()
    lack = f"; nothing speaks against its form (lack of fit, p = {law.misfit_p:.2g})" if law.misfit_p is not None else ""
    beyond = f" For one expert it gives {law.at(1):.4f}; {results.reference.arm.label} has {dense[0]:.4f}." if dense else ""
    share = 100 * (1 - 2**-law.exponent)  # of the loss, that a doubling takes off
    doubling = f"takes {share:.2f} % off the loss" if share > 0 else f"adds {-share:.2f} % to the loss"
    return f"{fitted}{lack}: each doubling of the experts {doubling}.{beyond}"


def health_says(results: Results) -> list[str]:
    arms = [arm for arm in results.arms if arm.experts()]
    if not arms:
        return []
    drops = max(arms, key=lambda arm: arm.mean("drop_fraction"))
    said = [f"At the end {drops.arm.label} drops most: {100 * drops.mean('drop_fraction'):.1f} % of its choices."]
    starved = [f"{arm.arm.label} ({arm.starved()})" for arm in arms if arm.starved()]
    if starved:
        said.append(f"Experts that take less than a tenth of an equal share at the end, over all blocks and seeds: {', '.join(starved)}.")
    else:
        said.append("No expert takes less than a tenth of an equal share at the end.")
    return said


def alarms_say(results: Results) -> list[str]:
    """Of all runs, also those that are in no mean: what fired, or that nothing did that could have."""
    routed = [run for run in results.runs if run.curve.routed()]
    able = [run for run in routed if run.alarms.can_fire]
    said = []
    fired = [f"{run.run.title}: {alarm}" for run in routed for alarm in run.alarms.fired]
    if fired:
        said.append(f"Alarms: {'; '.join(fired)}.")
    elif able:
        said.append(f"No alarm fired in {sum(run.alarms.readings for run in able):,} readings of {counted(len(able), 'run')}.")
    raised = [run.run.title for run in routed if any(alarm.action == "raise_balance" for alarm in run.alarms.fired)]
    if raised:
        said.append(
            f"An alarm raised the coefficients of its router's losses (raise_balance) in {'; '.join(raised)}: from there on such a run "
            "trained on another loss than its arm's other runs."
        )
    mute = [run.run.title for run in routed if not run.alarms.can_fire]
    if mute:
        said.append(
            f"No alarm could have fired in {len(mute)} of {counted(len(routed), 'run')} with experts, which have no alarm, or fewer "
            f"readings than one wants: {'; '.join(mute)}."
        )
    return said


def specialisation_says(results: Results) -> list[str]:
    """Of runs that were analysed: what experts tell about their tokens' domain, beside what chance does."""
    said, margins = [], []
    for arm in results.arms:
        runs = [run for run in (information(good.run.folder) for good in arm.good_runs) if run]
        if not runs:
            continue
        margins += [(each.margin, each, arm) for run in runs for each in run]
        blocks = [
            f"{plus_minus(mean_and_deviation([each.nats for each in block]), 4)} nats in block {block[0].block}" for block in zip(*runs)
        ]
        every = [each for run in runs for each in run]
        said.append(
            f"{arm.arm.label}: which expert a token goes to tells {', '.join(blocks)} about its domain, of at most "
            f"{max(each.bound for each in every):.3f} that could be told; with labels dealt to other tokens, at most "
            f"{max(each.shuffled_max for each in every):.4f}."
        )
    if not margins:
        return []
    least, each, arm = min(margins, key=lambda entry: entry[0])
    above = least > 0
    return said + [
        f"The mutual information between expert and domain is {'' if above else 'NOT '}above the largest of {each.shuffles} shuffles in every "
        f"block of every run that was analysed; the least margin is {least:.4f} nats, in block {each.block} of {arm.arm.label}."
    ]


def trouble(results: Results) -> list[str]:
    said = []
    for state, what in BAD.items():
        for run in results.runs:
            if run.state == state:
                said.append(f"{run.run.title} {what} and is in no mean: {run.reason}")
    unfinished = [run for run in results.runs if run.state in ("cut", "waiting")]
    if unfinished:
        names = "; ".join(run.run.title for run in unfinished)
        said.append(f"{len(unfinished)} of {len(results.runs)} runs are not at their end and in no mean: {names}.")
    return said


def says(results: Results) -> list[str]:
    said = trouble(results)
    for c in results.comparisons:
        against_reference = c.b is results.reference
        said.append(f"{compared(c)} {sped_up(c.a, c.b)}".strip() if against_reference else compared(c))
    said += [law_says(family, law, results) for family, (_, law) in results.laws.items()]
    return said + health_says(results) + alarms_say(results) + specialisation_says(results)


def does_not_say(results: Results) -> list[str]:
    plan = results.plan
    seeds, sizes = len(plan.seeds), results.reference.arm.sizes
    hosts = sorted({a["host"] for run in results.runs for a in run.run.attempts()})
    worst = max(abs(arm.ratio - 1) for arm in plan.arms)
    said = [
        f"{seeds} seed{'s' * (seeds != 1)} an arm: a standard deviation from so few is itself uncertain by a factor of several, and a "
        "difference that is not distinguishable here may be real.",
        "Learning rate, batch and all else that the arms share were chosen once and tuned for none of them; another arm may gain more from tuning.",
        f"Equal means equal {QUANTITY[plan.equal]} as `switchyard inspect` counts the model's, to {100 * worst:.2f} % ({plan.adjust} "
        f"is rounded). Empty and dropped places of capacity, memory and communication are not in it.",
        f"A model of {sizes.parameters / 1e6:.2g} million parameters on {sizes.tokens / 1e6:.3g} million tokens says how arms order at this "
        "size; what holds at a thousand times as many needs runs there.",
        f"Wall time is of training steps on {' and '.join(hosts) or 'one machine'}, as busy as it was; FLOPs and steps do not depend on that.",
        "Held-out loss drops no token, whatever the capacity in training; it is of text like the training text.",
    ]
    if results.laws:
        said.append("A power law over so short a range of experts cannot be told from many other curves; do not extend it.")
    commits = sorted({a["commit"] for run in results.runs for a in run.run.attempts() if a.get("commit")})
    if len(commits) > 1:
        said.append(f"Runs were made by different commits, {', '.join(commits)}: differences between arms may be theirs.")
    return said
