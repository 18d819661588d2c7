"""A sweep over the initial plasticity rate, with a figure.

    python sweep.py [--updates 300] [--out sweep.png]

Needs matplotlib.
"""

import argparse
import tempfile

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import hebbian_engine as he

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--updates", type=int, default=300)
parser.add_argument("--out", default="sweep.png")
arguments = parser.parse_args()

figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
with tempfile.TemporaryDirectory() as folder:
    sweep = he.train(
        "patterns",
        preset="small",
        out=folder,
        networks=3,
        batch=16,
        updates=arguments.updates,
        log_every=10,
        sweep={"eta": [0.001, 0.01, 0.1]},
    )
    for values, run in sweep:
        metrics = run.metrics
        update, error = metrics["update"], 100 * metrics["error"]
        line = axes.plot(update, error.mean(1), label=str(values["eta"]))[0]
        axes.fill_between(update, error.min(1), error.max(1), color=line.get_color(), alpha=0.2, lw=0)
        print(f"eta starts at {values['eta']}: error {error[-1].mean():.1f} % at the end")
axes.set(xlabel="updates", ylabel="wrong hidden bits (%)", ylim=(0, None))
axes.legend(title="initial eta", frameon=False)
axes.set_title("Mean of three networks; the band is from the best to the worst")
figure.savefig(arguments.out, dpi=150)
print(f"figure: {arguments.out}")
