"""Draws what a training run logged: DIR/log.csv and DIR/evaluation.csv → DIR/curve.png. Needs matplotlib.

    curve.py DIR [--window 50] [-o FILE]

Left the loss of each step, pale, and its mean over the last --window steps; right, where there were evaluations, the mean DSC
after the box and after each click. A dashed line stands where stage box_points began."""
import argparse
import csv
import os

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def running_mean(values, window):
    out, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - window] if i >= window else 0.0)
        out.append(total / min(i + 1, window))
    return out


def draw_losses(axes, rows, window):
    steps = [int(row["step"]) for row in rows]
    losses = [float(row["loss"]) for row in rows]
    axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8)
    axes.plot(steps, running_mean(losses, window), color="tab:blue", label=f"loss, mean of {window} steps")
    second = [int(row["step"]) for row in rows if row["stage"] == "box_points"]
    if second and second[0] > 0:
        axes.axvline(second[0], color="grey", linestyle="--", linewidth=0.8, label="stage box_points")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def draw_scores(axes, rows):
    steps = [int(row["step"]) for row in rows]
    names = [name for name in rows[0] if name.startswith("DSC_") and name != "DSC_mean"]
    for i, name in enumerate(names):
        label = "box" if i == 0 else f"{i} click" + ("s" if i > 1 else "")
        axes.plot(steps, [float(row[name]) for row in rows], marker=".", color=plt.cm.viridis(i / max(1, len(names) - 1)),
                  label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("mean DSC")
    axes.set_ylim(0, 1)
    axes.legend(frameon=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--window", type=int, default=50)
    parser.add_argument("-o", "--output")
    options = parser.parse_args()
    losses = read(os.path.join(options.folder, "log.csv"))
    scores = read(os.path.join(options.folder, "evaluation.csv"))
    if not losses:
        raise SystemExit(f"{options.folder}/log.csv has no step yet")
    figure, axes = plt.subplots(1, 2 if scores else 1, figsize=(11 if scores else 6, 4), squeeze=False)
    draw_losses(axes[0][0], losses, max(1, options.window))
    if scores:
        draw_scores(axes[0][1], scores)
    figure.tight_layout()
    figure.savefig(options.output or os.path.join(options.folder, "curve.png"), dpi=150)


if __name__ == "__main__":
    main()
