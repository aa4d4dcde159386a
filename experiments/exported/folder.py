"""One form of folder: a description in JSON, which names the digests of the safetensors files beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT = 1
"""Version of the layout."""
Tensors = Mapping[str, Tensor]


def write_folder(folder: Path, name: str, plain: Mapping[str, Any], parts: Mapping[str, Tensors]) -> Path:
    """Write the files, the description last, so that whoever finds it finds all; its path.

    Args:
        folder: Where.
        name: Name of the description.
        plain: What it says.
        parts: Tensors by the name of their file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    for file, tensors in parts.items():
        save_file({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, str(folder / file))
    digests = {file: _digest(folder / file) for file in parts}
    draft = folder / f"{name}.draft"
    draft.write_text(
        json.dumps({"format": FORMAT, **plain, "sha256": digests}, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    return draft.replace(folder / name)


def read_folder(path: Path | str, name: str, maker: str) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """The description and the tensors of each file.

    Args:
        path: The folder, or the description in it.
        name: Name of the description.
        maker: The command that writes such folders, for errors.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is of another format, or a file beside it is not the one that it was written with.
    """
    path = Path(path)
    path = path / name if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no {name} at {path}; {maker!r} writes one")
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version, digests = found["format"], dict(found.get("sha256", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no description that {maker!r} wrote ({error!r})") from error
    if version != FORMAT:
        raise ValueError(f"{path} has format {version}, and this version reads {FORMAT}; write it again with {maker!r}")
    for file, digest in digests.items():
        if not (path.parent / file).is_file() or _digest(path.parent / file) != digest:
            raise ValueError(
                f"{path.parent / file} is not the file that {path.name} was written with; write both again"
            )
    return found, {file: load_file(str(path.parent / file)) for file in digests}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
