"""Show the measurements of `guidino cost`: a table, the same as CSV, everything as JSON, and a bar chart."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import kendalltau, quantile_test

from nnunetv2_guidino.files import filled_folder, read_json
from nnunetv2_guidino.lab.cost.timing import ENCODER, GUIDED, LORA, MEASURES, PLAIN, Costs, Key
from nnunetv2_guidino.printable import align

RATIOS = {  # column -> heading in the table
    "times_plain": "× plain",
    "times_limit": "× (plain + encoder)",
    "encoder_passes": "encoder passes beyond plain",
}
COLUMNS = ["measure", "unit", "plans", "network", "median", "lower_quartile", "upper_quartile"]
COLUMNS += [column + ending for column in RATIOS for ending in ("", "_low", "_high")]


def results(costs: Costs) -> pd.DataFrame:
    """Return a row for each measure and network: the median and the quartiles over the rounds, and ratios.

    `times_plain` is the ratio to the plain network of the first plans, `times_limit` the ratio to plain network and
    encoder of the same plans together, and `encoder_passes` the time beyond that plain network in passes of the
    encoder. A ratio is the median of the rounds' ratios with its 95 % interval. It is NaN without a network to compare
    with, with too few rounds for an interval, and if the measure drifts.
    """
    first = next(iter(costs.about["plans"]))
    values = {key: np.array(of_rounds) for key, of_rounds in costs.values.items()}
    drifting = {name for name in MEASURES if drifts(costs, name)}
    lines = []
    for key, own in values.items():
        low, middle, high = np.percentile(own, (25, 50, 75))
        line = {**key._asdict(), "unit": MEASURES[key.measure][1], "median": middle}
        line |= {"lower_quartile": low, "upper_quartile": high}
        reference = values.get(Key(key.measure, first, PLAIN))
        plain, encoder = (values.get(key._replace(network=network)) for network in (PLAIN, ENCODER))
        if key.measure not in drifting and reference is not None:
            line |= _ratio("times_plain", own / reference)
            if plain is not None and encoder is not None and key.network not in (PLAIN, ENCODER):
                line |= _ratio("times_limit", own / (plain + encoder)) | _ratio(
                    "encoder_passes", (own - plain) / encoder
                )
        lines.append(line)
    return pd.DataFrame(lines, columns=COLUMNS)


def drifts(costs: Costs, measure: str) -> bool:
    """Return whether the rounds of a measure became faster or slower: Kendall's test on their totals gives p < 0.1."""
    totals = np.sum([values for key, values in costs.values.items() if key.measure == measure], axis=0)
    return np.size(totals) > 2 and bool(kendalltau(range(len(totals)), totals).pvalue < 0.1)


def _ratio(column: str, values: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return the median with its interval by order statistics; nothing with fewer than six rounds."""
    low, high = quantile_test(values, p=0.5).confidence_interval(0.95)
    return {} if np.isnan(low) else {column: median(values), f"{column}_low": low, f"{column}_high": high}


def table(costs: Costs) -> str:
    """Return aligned columns of text under a heading for each measure."""
    parts = []
    for name, lines in results(costs).groupby("measure", sort=False):
        meaning, unit = MEASURES[name]
        drift = "; the rounds drift, so there are no ratios" if drifts(costs, name) else ""
        head = ("network", "median", "quartiles", *RATIOS.values())
        cells = [_cells(line, 0 if unit == "MiB" else 3) for _, line in lines.iterrows()]
        parts.append(f"{name}: {meaning}, {unit}{drift}\n" + align([head, *cells]))
    return "\n\n".join([*parts, _parts_of_step(costs)])


def _cells(line: pd.Series, digits: int) -> tuple[str, ...]:
    middle, low, high = (f"{line[name]:.{digits}f}" for name in ("median", "lower_quartile", "upper_quartile"))
    ratios = (
        "" if pd.isna(line[name]) else f"{line[name]:.2f} ({line[f'{name}_low']:.2f} to {line[f'{name}_high']:.2f})"
        for name in RATIOS
    )
    return f"{line['plans']}, {line['network']}", middle, f"{low} – {high}", *ratios


def _parts_of_step(costs: Costs) -> str:
    if "parts" not in costs.about:
        return "The parts of a step (encoder, gates, loss terms, picture) are measured on a GPU only; go by the ratios."
    seconds = (f"{name} {value:.4f} s" for name, value in costs.about["parts"].items())
    return "What a guide adds to a step, eager: " + ", ".join(seconds)


def title(costs: Costs) -> str:
    """Return one line on the data set, the patch, the machine and the date."""
    about = costs.about
    first = next(iter(about["plans"].values()))
    patch = "×".join(map(str, first["patch_size"]))
    where = f"{about['device']}, {about['threads']} threads" if about["device"] == "cpu" else about["device"]
    return (
        f"{about['dataset']} {about['configuration']}: patch {patch}, batch {first['batch_size']}; "
        f"{about['machine']} ({where}), {about['rounds']} rounds, {about['date']}"
    )


def write_report(costs: Costs, folder: Path) -> None:
    """Write cost.txt, cost.csv, cost.json and cost.png.

    Raises:
        GuidinoError: If they cannot be written; the files of an earlier run stay then.
    """
    with filled_folder(folder) as new:
        (new / "cost.txt").write_text(f"{title(costs)}\n\n{table(costs)}\n", encoding="utf-8")
        full = results(costs).replace({"network": {LORA: LORA.replace(",", "")}})
        full.to_csv(new / "cost.csv", index=False, float_format="%.6g", lineterminator="\n", encoding="utf-8")
        (new / "cost.json").write_text(json.dumps(as_json(costs), indent=1) + "\n", encoding="utf-8")
        draw(costs, new / "cost.png")


def as_json(costs: Costs) -> dict[str, Any]:
    """Return all measurements and their conditions."""
    return {**costs.about, "values": [{**key._asdict(), "values": values} for key, values in costs.values.items()]}


def read_costs(file: Path) -> Costs:
    """Read the cost.json that `write_report` wrote; raise GuidinoError if it cannot be read."""
    content = read_json(file, dict)
    values = {Key(row["measure"], row["plans"], row["network"]): row["values"] for row in content.pop("values")}
    return Costs(content, values)


def draw(costs: Costs, file: Path) -> None:
    """Draw a panel for each steady measure, with a bar for each network and a line at plain network plus encoder."""
    drawn = results(costs)
    drawn = drawn[[not drifts(costs, name) for name in drawn["measure"]]]
    panels = dict(list(drawn.groupby("measure", sort=False)))
    figure = Figure(figsize=(12, 1.6 + 0.5 * max(map(len, panels.values()))), layout="constrained")
    axes = figure.subplots(2, -(-len(panels) // 2), squeeze=False).flat
    for (name, lines), panel in zip(panels.items(), axes, strict=False):
        _draw_bars(panel, lines)
        panel.set_title(fill(", ".join(MEASURES[name]), width=28), fontsize=9)
    for panel in axes[len(panels) :]:  # one may be left over
        panel.set_axis_off()
    figure.suptitle(title(costs), fontsize=9, parse_math=False)
    figure.savefig(file, dpi=120)


def _draw_bars(axes: Any, lines: pd.DataFrame) -> None:
    places, medians = np.arange(len(lines)), lines["median"]
    errors = [medians - lines["lower_quartile"], lines["upper_quartile"] - medians]
    colours = [f"C{(PLAIN, ENCODER, GUIDED, LORA).index(network)}" for network in lines["network"]]
    axes.barh(places, medians, xerr=errors, color=colours)
    axes.set_yticks(places, lines["plans"] + ", " + lines["network"], fontsize=7, parse_math=False)
    axes.tick_params(axis="x", labelsize=7)
    axes.invert_yaxis()
    limits = medians / lines["times_limit"]  # NaN is not drawn
    axes.plot(np.tile(limits, (2, 1)), [places - 0.45, places + 0.45], "k:", linewidth=1.5)
