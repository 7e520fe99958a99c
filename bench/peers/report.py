"""The table of `make bench-peers`, and the replier's targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.contenders import Figures
from bench.ground import PACKAGE
from bench.table import Rounds, cell, markdown

TITLES = {
    "bare-100": "ONNX Runtime alone, batches of 100",
    "bare-5": "ONNX Runtime alone, batches of 5",
    "echo": "echo without a model",
    "replier": "**replier.py**",
    "careful-loop": "careful loop",
    "quix": "Quix Streams",
    "faststream": "FastStream, in batches",
    "faststream-single": "FastStream, message by message",
    "mlserver": "MLServer",
    "keras-loop": "loop with Keras `predict`",
}
COLUMNS = (
    ("images/s", "images_per_s", ",.0f"),
    ("of bare", "images_of_bare", ".3f"),
    ("CPU ms / 1,000", "cpu_ms_per_1000", ",.1f"),
    ("alone p50 ms", "p50_ms", ".2f"),
    ("p99", "p99_ms", ".2f"),
    ("half load p50", "half_p50_ms", ".2f"),
    ("p99", "half_p99_ms", ".2f"),
    ("90% load p50", "most_p50_ms", ".2f"),
    ("p99", "most_p99_ms", ".2f"),
    ("ready s", "ready_s", ".2f"),
    ("MB", "resident_mb", ".0f"),
)
KILLED = "killed: lost, repeated"


@dataclass(frozen=True)
class Target:
    """A target for a figure of the replier: an upper or a lower limit."""

    text: str
    wanted: float
    value: Callable[[dict[str, Figures]], float]  # of one round
    at_least: bool = False
    contenders: tuple[str, ...] = ("replier",)  # that must have been measured

    def line(self, rounds: Rounds) -> str:
        """Met or missed, by the median of the rounds."""
        names = [name for name in self.contenders if name in rounds]
        if names != list(self.contenders):
            return ""
        each_round = zip(*(rounds[name] for name in names), strict=True)
        value = statistics.median(self.value(dict(zip(names, each, strict=True))) for each in each_round)
        met = value >= self.wanted if self.at_least else value <= self.wanted
        limit = f"at {'least' if self.at_least else 'most'} {self.wanted:g}"
        return f"- {'met' if met else '**missed**'}: {self.text}: {value:.3g}, wanted {limit}"


def times(peer: str, title: str, wanted: float) -> Target:
    """Of the images a second, so many times those of a peer."""
    return Target(
        f"times the images per second of {title}",
        wanted,
        lambda each: each["replier"]["images_per_s"] / each[peer]["images_per_s"],
        at_least=True,
        contenders=("replier", peer),
    )


def above_its_parts(each: dict[str, Figures]) -> float:
    """Milliseconds of a lone package that are neither the bus's nor the model's."""
    predict_ms = PACKAGE / each["bare-5"]["images_per_s"] * 1000
    return each["replier"]["p50_ms"] - each["echo"]["p50_ms"] - predict_ms


ALWAYS = (
    Target(
        "milliseconds of p50 alone above echo and bare prediction",
        0.15,
        above_its_parts,
        contenders=("replier", "echo", "bare-5"),
    ),
    Target(
        "times the echo's p99 alone (2.5 ms where it has 2.0)",
        1.25,
        lambda each: each["replier"]["p99_ms"] / each["echo"]["p99_ms"],
        contenders=("replier", "echo"),
    ),
    Target(
        "p99 at half load, in its p50s",
        3.0,
        lambda each: each["replier"]["half_p99_ms"] / each["replier"]["half_p50_ms"],
    ),
    Target("seconds until it is ready", 0.5, lambda each: each["replier"]["ready_s"]),
    Target("MB resident", 120, lambda each: each["replier"]["resident_mb"]),
)


def of_bare(wanted: float) -> Target:
    """Of the images a second of ONNX Runtime alone, at least so much."""
    return Target(
        "of the images per second of ONNX Runtime alone",
        wanted,
        lambda each: each["replier"]["images_of_bare"],
        at_least=True,
        contenders=("replier", "bare-100"),
    )


OF_A_NETWORK = (
    of_bare(0.90),
    Target(
        "times the CPU time of ONNX Runtime alone",
        1.06,
        lambda each: each["replier"]["cpu_of_bare"],
        contenders=("replier", "bare-100"),
    ),
)
OF_A_TINY_NETWORK = (
    of_bare(0.80),
    times("quix", "Quix Streams", 2.5),
    times("mlserver", "MLServer", 5),
    times("faststream", "FastStream in batches", 15),
    times("faststream-single", "FastStream message by message", 15),
    times("keras-loop", "the loop with Keras", 500),
)


def render(rounds: Rounds, *, tiny: bool) -> str:
    """The table, and a line for each target; `tiny` is for the network `tiny`, which has higher ones."""
    rows = [
        [title, *(cell([rounds[name]], figure, form) for _, figure, form in COLUMNS), counts(rounds[name])]
        for name, title in TITLES.items()
        if name in rounds
    ]
    table = markdown(["", *(title for title, _, _ in COLUMNS), KILLED], rows)
    return "\n".join([*table, "", *targets(rounds, tiny=tiny), *notes(rounds)])


def targets(rounds: Rounds, *, tiny: bool) -> list[str]:
    """Met or missed, one line for each target whose contenders were measured."""
    wanted = (*(OF_A_TINY_NETWORK if tiny else OF_A_NETWORK), *ALWAYS)
    lines = [target.line(rounds) for target in wanted]
    if served := rounds.get("replier"):
        bad = {word: total(served, word) + total(served, f"killed_{word}") for word in ("lost", "wrong")}
        said = f"{bad['lost']} lost, {bad['wrong']} wrong, wanted none"
        lines.append(f"- {'**missed**' if any(bad.values()) else 'met'}: of the replier's replies {said}")
    return [line for line in lines if line]


def notes(rounds: Rounds) -> list[str]:
    """The measurement's own share of the latencies."""
    lines = []
    if echo := rounds.get("echo"):
        p50, p99, late = (
            statistics.median(each[f"check_{figure}"] for each in echo)
            for figure in ("p50_ms", "p99_ms", "late_p99_ms")
        )
        rate = statistics.median(each["check_packages_per_s"] for each in echo)
        cores = statistics.median(each["check_cores"] for each in echo)
        lines.append(
            f"- the load generator and the bus alone, {rate:,.0f} packages a second to the echo: "
            f"p50 {p50:.2f} ms, p99 {p99:.2f} ms; p99 of its own delay {late:.2f} ms, for {cores:.2f} of a core"
        )
    behind = [
        each[figure]
        for measured in rounds.values()
        for each in measured
        for figure in ("half_late_p99_ms", "most_late_p99_ms")
        if figure in each
    ]
    if behind:
        lines.append(
            f"- behind its own moments the load generator was by at most {max(behind):.1f} ms (p99 of a load)"
        )
    return lines


def counts(measured: Sequence[Figures]) -> str:
    """Packages lost and repeated by all kills."""
    if "killed_packages" not in measured[0]:
        return ""
    lost, repeated, sent = (total(measured, f"killed_{word}") for word in ("lost", "repeated", "packages"))
    return f"{lost:,}, {repeated:,} of {sent:,}"


def total(measured: Sequence[Figures], figure: str) -> int:
    """The sum over all rounds."""
    return int(sum(each[figure] for each in measured))
