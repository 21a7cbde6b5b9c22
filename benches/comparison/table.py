"""Medians of what was measured, and the table of bars."""
import statistics

from comparison.cases import BARS, BY_NAME


class Results:
    def __init__(self, notes):
        self.runs = {}
        for pair in notes.pairs:
            for name, figures in pair["figures"].items():
                self.runs.setdefault(pair["case"], {}).setdefault(name, []).append(figures)

    def median(self, case, name, figure):
        values = [run[figure] for run in self.runs.get(case, {}).get(name, []) if figure in run]
        return statistics.median(values) if values else None

    def spread(self, case, name, figure):
        """Of a figure that was measured several times: its least and largest."""
        values = [run[figure] for run in self.runs.get(case, {}).get(name, []) if figure in run]
        return (min(values), max(values)) if values else None

    def cases(self):
        return [case for case in BY_NAME.values() if case.name in self.runs]

    def bars(self):
        """Of each bar: case, figure, ours, etcd's, their ratio, what is asked, whether it holds. What was not measured is left out."""
        rows = []
        for bar in BARS:
            ours = self.median(bar.case, "ringd", bar.figure)
            theirs = self.median(bar.case, "etcd", bar.figure)
            base, says = self.base(bar)
            if ours is None or base is None:
                continue
            limit = bar.factor * base + bar.more
            holds = ours >= limit if bar.at_least else ours <= limit
            sign = ">=" if bar.at_least else "<="
            text = f"{sign} {amount(limit)}: {says}"
            rows.append((bar.case, bar.figure, ours, theirs, ours / theirs if theirs else None, text, "holds" if holds else "falls short"))
        return rows

    def base(self, bar):
        factor = f"1/{1 / bar.factor:.0f}" if bar.factor < 0.9 else f"{bar.factor:g} x"
        if bar.of == "etcd":
            return self.median(bar.case, "etcd", bar.figure), f"{factor} etcd's"
        if isinstance(bar.of, tuple):
            case, figure, *name = bar.of
            who = name[0] if name else "ringd"
            return self.median(case, who, figure), f"{factor} {'' if who == 'ringd' else who + chr(39) + 's '}{case}"
        figure = bar.of.removeprefix("figure ")
        more = f" + {bar.more:g}" if bar.more else ""
        return self.median(bar.case, "ringd", figure), f"{factor} {figure}{more}"

    def lines(self):
        """Everything that was measured, a line for each case and server."""
        lines = []
        for case in self.cases():
            for name in self.runs[case.name]:
                value = lambda figure: self.median(case.name, name, figure)
                count = len(self.runs[case.name][name])
                lines.append(f"{case.name:32} {name:6} {count} x  {line(case, value)}")
        return lines


def line(case, value):
    if case.kind == "keys":
        return (f"RssAnon {value('anon_mib'):.0f} MiB, listing {value('anon_listing_mib'):.0f}; a list takes {value('list_ms'):.0f} ms; "
                f"restart {value('restart_s'):.2f} s")
    if case.kind == "h2load":
        return f"{value('per_second'):.0f}/s, h2load {value('h2load_per_second'):.0f}/s: {value('h2load_ratio'):.2f} x"
    text = f"{value('per_second'):9.0f}/s  mean {amount(value('mean_us')):>7}  p50 {amount(value('p50_us')):>7}  p99 {amount(value('p99_us')):>7}  "
    text += f"p99.9 {amount(value('p99.9_us')):>7}  max {amount(value('max_us')):>7} us; server {value('server_us'):.1f} us each"
    if value("server_us_event") is not None:
        text += f", {value('server_us_event'):.2f} us an event"
    if value("device_us") is not None:
        text += f"; device {value('device_us'):.0f} us"
    if value("wal_fsync_count"):
        text += f"; wal_fsync {value('wal_fsync_us'):.0f} us x {value('wal_fsync_count'):.0f}"
    if value("backend_commit_count"):
        text += f"; backend_commit {value('backend_commit_us') / 1000:.1f} ms x {value('backend_commit_count'):.0f}"
    if case.kind == "clients":
        text += f"; peak {value('resident_mib'):.0f} MiB, of it own {value('anon_peak_mib'):.0f}; {value('resting_bytes'):.0f} B a resting connection"
    if value("refusals"):
        text += f"; {value('refusals'):.0f} times refused and sent again"
    text += f"; generator {100 * value('generator_busy'):.0f} % busy"
    if value("generator_late_us"):
        text += f", late by {amount(value('generator_late_us'))} us at p99.9"
    if value("stolen_share") is not None and value("stolen_share") > 0.01:
        text += f"; {100 * value('stolen_share'):.0f} % of the processors stolen"
    return text


def amount(number):
    """With as many digits as are worth reading."""
    if number is None:
        return "-"
    return f"{number:.2f}" if number < 10 else f"{number:.1f}" if number < 100 else f"{number:.0f}"


def text_of(rows):
    lines = [f"{'case':32} {'figure':17} {'ringd':>9} {'etcd':>9} {'ratio':>6}  bar"]
    for case, figure, ours, theirs, ratio, bar, verdict in rows:
        shown = "-" if ratio is None else f"{ratio:.2f}"
        lines.append(f"{case:32} {figure:17} {amount(ours):>9} {amount(theirs):>9} {shown:>6}  {bar:52} {verdict}")
    return lines
