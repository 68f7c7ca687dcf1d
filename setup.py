"""What pyproject.toml cannot say: the top-level folder ``models`` is installed as ``audioldm/models``.

Beside the packages in site-packages it would take the name ``models`` from everybody; in a checkout it stays
at the top, where people look for it. The recipes that train the weights are not installed.
"""

from setuptools import find_packages, setup

CODE = ["audioldm", "audioldm.*", "translator", "translator.*", "prior_steps", "prior_steps.*"]

setup(
    packages=[*find_packages(include=CODE), "audioldm.models"],
    package_dir={"audioldm.models": "models"},
    package_data={
        "audioldm.models": ["*.json", "*.md", "starter/**/*", "translators/**/*"],
        "audioldm": ["py.typed"],
        "audioldm.web": ["*.html", "*.css", "*.js"],
        "translator": ["py.typed"],
        "prior_steps": ["py.typed", "audiocaps/*.csv.gz"],
    },
)
