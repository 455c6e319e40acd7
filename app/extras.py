"""What is told whoever lacks an extra of pyproject.toml."""


def install_command(*extras: str) -> str:
    """The command that installs these extras, in words: from the checkout, for no package index has Lathe."""
    return f"`pip install -c constraints.txt -e '.[{','.join(extras)}]'` in Lathe's checkout"
