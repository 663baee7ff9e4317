"""The evaluations of a run as one line of JSON: losses.py FOLDER KEY=VALUE...; `eval` in the folder's place reads what `lowchurn eval
--json` says from the input."""

import json
import sys
from pathlib import Path


def main(folder: str, *pairs: str) -> None:
    said: dict[str, object] = dict(pair.split("=", 1) for pair in pairs)
    for key, kind in (("seed", int), ("lambda", float)):
        if key in said:
            said[key] = kind(said[key])
    if folder == "eval":
        found = [json.loads(line) for line in sys.stdin if line.startswith("{")]
        scores = next(line for line in reversed(found) if "loss" in json.dumps(line))
        scores = scores.get("metrics", scores.get("scores", scores))
        said |= {"loss": scores["loss"], "accuracy": scores["accuracy"]}
    else:
        state = json.loads((Path(folder) / "trainer_state.json").read_text(encoding="utf-8"))
        log = [entry for entry in state["log_history"] if "eval_loss" in entry]
        said |= {"steps": [entry["step"] for entry in log], "losses": [round(entry["eval_loss"], 7) for entry in log]}
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
