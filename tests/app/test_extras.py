"""Where what is missing can be had."""

import tomllib

import pytest

from app.embedded import EmbeddedError
from app.embedded.bundled import postgres_program
from app.extras import install_command
from app.processes import PROJECT_FOLDER


def test_extras_are_installed_as_the_readme_says() -> None:
    command, place = install_command("training").rsplit("` ", 1)
    assert command.removeprefix("`") in (PROJECT_FOLDER / "README.md").read_text()
    assert place == "in Lathe's checkout"


def test_a_missing_program_names_an_extra_that_there_is() -> None:
    with pytest.raises(EmbeddedError) as caught:
        postgres_program("no-such-program")
    assert str(caught.value) == f"no-such-program is not installed; {install_command('embedded')} brings it"
    project = tomllib.loads((PROJECT_FOLDER / "pyproject.toml").read_text())["project"]
    assert "embedded" in project["optional-dependencies"]
