"""python -m tests.parity FOLDER [FOLDER ...]: exit code 0 when every check of every set passes."""

import json
import math
import sys
from pathlib import Path

from tests.parity import run


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    report = {}
    try:
        for root in arguments:
            report |= run(Path(root))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    for checks in report.values():
        for check in checks:
            if not math.isfinite(check["error"]):
                check["error"] = str(check["error"])  # JSON knows no infinity
    print(json.dumps(report, indent=1, ensure_ascii=False))
    return 0 if all(check["passed"] for checks in report.values() for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
