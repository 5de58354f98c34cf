"""Takes files and dependencies from tango-rt, so that they are defined only once."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface
from packaging.requirements import Requirement

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib


class SharedFiles(BuildHookInterface):
    """The files of the checkout, or their copies in a source distribution. An editable install points to them."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        here = Path(self.root)
        source = here if (here / "tango_rt").is_dir() else here.parents[1]
        for file in self.config["files"]:
            build_data["force_include"][str(source / file)] = file


class SharedDependencies(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        whole = tomllib.loads((Path(self.root).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
        shared = [wanted for wanted in whole["dependencies"] if Requirement(wanted).name in self.config["shared"]]
        metadata["dependencies"] = [*self.config["own"], *shared]
