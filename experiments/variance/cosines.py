"""What `diagnose --gradients` found as one line of JSON: cosines.py gradients.json KEY=VALUE..., with the teacher's own scores from the
input, where `lowchurn eval --json` says them."""

import json
import sys
from pathlib import Path


def main(path: str, *pairs: str) -> None:
    said: dict[str, object] = dict(pair.split("=", 1) for pair in pairs)
    said["seed"] = int(said["seed"])
    scores = json.loads([line for line in sys.stdin if line.startswith("{")][-1])["metrics"]
    report = json.loads(Path(path).read_text(encoding="utf-8"))["report"]
    kept = ("variance", "lambda_hat_centred", "rho2_centred", "measured_ratio", "student_of_mean", "teacher_of_mean", "product_of_means")
    said |= {"loss": scores["loss"], "accuracy": scores["accuracy"], "lambda": report["lambda"]}
    said |= {"batches": report["batches"], "own_batches": report["own_batches"]}
    said["groups"] = {group["group"]: {key: group[key] for key in kept} for group in report["groups"]}
    said["own"] = {key: report["own"][0][key] for key in kept} if report["own"] else None
    for key in ("cosines", "label_cosines"):
        said[key] = [round(value, 3) for value in report[key]]
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
