"""Log the numbers of `lowchurn gate REPORT.json --format metrics` to a tracker: python log_metrics.py metrics.json [--run NAME]

To MLflow where MLFLOW_TRACKING_URI is set, to Weights & Biases where WANDB_API_KEY or WANDB_MODE is, else to stdout. The file is one
flat object of numbers, which is what both take as it is.
"""

import argparse
import json
import os


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("metrics")
    parser.add_argument("--run", default="update")
    args = parser.parse_args()
    with open(args.metrics, encoding="utf-8") as file:
        metrics = json.load(file)
    if os.environ.get("MLFLOW_TRACKING_URI"):
        import mlflow

        with mlflow.start_run(run_name=args.run):
            mlflow.log_metrics(metrics)
    elif os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE"):
        import wandb

        with wandb.init(project="lowchurn", name=args.run) as run:
            run.log(metrics)
    else:
        for name, value in metrics.items():
            print(f"{name} {value:g}")


if __name__ == "__main__":
    main()
