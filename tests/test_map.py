"""The map in CONTRIBUTING.md shows the house as it stands."""

from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_module_that_stands_alone_is_on_the_map() -> None:
    told = (ROOT / "CONTRIBUTING.md").read_text().split("```")[1]
    parts = {"app": told.partition("\nworker/")[0], "worker": told.partition("\nworker/")[2]}
    for folder, part in parts.items():
        names = {path.name for path in (ROOT / folder).glob("*.py")} - {"__init__.py"}
        assert {name for name in names if name not in part} == set()
