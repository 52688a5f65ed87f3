"""Say what a release has in it: `parts.py NAME SOURCE SITE BUILT` writes NAME.cdx.json and
NAME-licences.txt.

SOURCE is the tree, SITE a folder of site-packages with all that the Debian package brings along:
what wheels ask for, and extras. BUILT is one with mypy, whose runtime is in the modules that are
compiled ahead. The list is CycloneDX, checked against its schema; both files are the same for the
same SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import os
import sys
import tomllib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

LINE = "-" * 100
OLD = {"BSD": "BSD-3-Clause", "MIT": "MIT", "ISC": "ISC"}
"""Licences by the word that older metadata has."""
INSIDE = {"backports.zstd": ("zstd", "BSD-3-Clause"), "cffi": ("libffi", "MIT")}
"""What their binaries are linked with. The wheel of cffi says neither which libffi nor its licence,
which is in libffi-licence."""
RUNTIME = "MIT AND PSF-2.0 AND 0BSD"
"""Of mypyc's, as LICENSE of mypy and the heads of its files say."""


def licence(part: Distribution) -> str:
    """As an SPDX expression. Raises: ValueError if its metadata do not say."""
    said = part.metadata.get("License-Expression") or part.metadata.get("License", "")
    if said:
        return OLD.get(said.removesuffix(" License"), said)
    for line in part.metadata.get_all("Classifier", []):
        if line.startswith("License :: OSI Approved :: "):
            word = line.rpartition(" :: ")[2].split()[0]
            if word in OLD:
                return OLD[word]
    raise ValueError(f"{part.name}: what is its licence?")


def texts(part: Distribution) -> Iterator[str]:
    """Of its licence, and what else it has to be given with."""
    for path in sorted(part.files or []):
        if "licenses" in path.parts:
            yield path.read_text()


def version_inside(library: str) -> str | None:
    """Of what a binary is linked with, if that can be known."""
    if library != "zstd":
        return None
    from backports.zstd import zstd_version  # noqa: PLC0415  SITE is in the path by now

    return str(zstd_version)


def component(name: str, version: str, expression: str, scope: ComponentScope) -> Component:
    """A library of PyPI."""
    url = PackageURL("pypi", name=name.lower(), version=version)
    return Component(
        name=name, version=version, type=ComponentType.LIBRARY, scope=scope, purl=url,
        bom_ref=str(url), licenses=[LicenseFactory().make_from_string(expression)],
    )  # fmt: skip


def main(name: str, source: Path, site: str, built: str) -> None:
    """Write both."""
    sys.path.append(site)
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    needed = {line.partition(">")[0] for line in project["dependencies"]} | {"pycparser"}
    itself = component(
        project["name"], project["version"], project["license"], ComponentScope.REQUIRED
    )
    itself.type = ComponentType.APPLICATION
    itself.description = project["description"]
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, str(itself.purl)))
    seconds = int(os.environ["SOURCE_DATE_EPOCH"])
    bom.metadata.timestamp = datetime.fromtimestamp(seconds, UTC)
    bom.metadata.component = itself
    parts = [part for part in distributions(path=[site]) if part.name not in ("pip", "setuptools")]
    parts += [part for part in distributions(path=[built]) if part.name == "mypy"]
    said = [f"{project['name']} {project['version']}: {project['license']}", ""]
    said += [(source / "LICENSE").read_text()]
    for part in sorted(parts, key=lambda part: part.name.lower()):
        scope = ComponentScope.REQUIRED if part.name in needed else ComponentScope.OPTIONAL
        expression = RUNTIME if part.name == "mypy" else licence(part)
        made = component(part.name, part.version, expression, scope)
        if part.name == "mypy":
            made.description = "its runtime for C, mypyc/lib-rt, in the modules compiled ahead"
        if part.name in INSIDE:
            library, its = INSIDE[part.name]
            made.components.add(Component(
                name=library, version=version_inside(library), type=ComponentType.LIBRARY,
                bom_ref=f"{part.name}#{library}",
                licenses=[LicenseFactory().make_from_string(its)],
            ))  # fmt: skip
        bom.components.add(made)
        said += [LINE, f"{part.name} {part.version}: {expression}", "", *texts(part)]
        if part.name == "cffi":
            text = Path(__file__).with_name("libffi-licence").read_text()
            said += ["libffi, in its binary: MIT", "", text]
    bom.register_dependency(itself, bom.components)
    text = JsonV1Dot6(bom).output_as_string(indent=1)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"{name}.cdx.json: {error}")
    Path(f"{name}.cdx.json").write_text(text + "\n")
    Path(f"{name}-licences.txt").write_text("\n".join(said) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4])
