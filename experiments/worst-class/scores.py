"""What is kept of an evaluation's last line: its scores and its worst classes, no folder and no time."""

import json
import sys

last = json.loads(sys.stdin.read().strip().splitlines()[-1])
print(json.dumps({key: last[key] for key in ("metrics", "worst_class")}))
