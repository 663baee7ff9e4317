"""The points of a sweep with one seed as one line of JSON: points.py FOLDER KEY=VALUE..."""

import json
import sys
from pathlib import Path


def main(folder: str, *pairs: str) -> None:
    said: dict[str, object] = dict(pair.split("=", 1) for pair in pairs)
    said["seed"] = int(said["seed"])
    points, old = [], None
    for path in sorted(Path(folder).glob("points/*/*/point.json")):
        file = json.loads(path.read_text(encoding="utf-8"))
        point = {key: file["point"][key] for key in ("method", "init", "setting", "accuracy", "churn", "nfr")}
        points.append(point | {"seconds": round(file["train_seconds"], 1)})
        old = file["flips"]
    print(json.dumps(said | {"flips_of_last": old, "points": points}, ensure_ascii=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
