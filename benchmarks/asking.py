"""What every comparison is asked on its command line."""

import argparse
from collections.abc import Sequence


def parser_of(module: str, text: str | None, metavar: str, parts: Sequence[str]) -> argparse.ArgumentParser:
    """For a comparison that has these parts, each of which can be named; by default all."""
    parser = argparse.ArgumentParser(prog=module, description=(text or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar=metavar, help=f"by default all: {', '.join(parts)}")
    parser.add_argument("--quick", action="store_true", help="few samples and rounds")
    parser.add_argument("--threads", type=int, default=2)
    return parser


def answers(parser: argparse.ArgumentParser, what: str, parts: Sequence[str]) -> argparse.Namespace:
    """Ends with a message where a part is named that is none; `what` says of what kind they are."""
    asked = parser.parse_args()
    unknown = set(asked.parts) - set(parts)
    if unknown:
        parser.error(f"no such {what}: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    return asked
