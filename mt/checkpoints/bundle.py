"""A model in one file, X.mt, with checksums and a model card.

It is an uncompressed zip archive, and the same model makes the same bytes:

    MANIFEST.json README.md config.yaml resolved.json state.json report.json scores.json
    vocabulary.json vocabulary*.model model.safetensors

MANIFEST.json lists the others with size and sha256. Reading a bundle of any origin runs no code
of it, writes nothing, and takes no more memory than the file has bytes.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt.checkpoints import checkpoint, run_directory
from mt.checkpoints.checkpoint import FILE_NAME, MANIFEST, MODEL, STATE, Manifest
from mt.checkpoints.run_directory import LoadedModel, Report, Resolved, run_of
from mt.config.recipe import Recipe
from mt.errors import ConfigError, ModelError
from mt.runtime import files, model_files
from mt.runtime.model_files import MAX_JSON, JsonObject
from mt.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import nn

FORMAT = 1
CARD = "README.md"
LARGE_MEMBERS = ("model.safetensors", "vocabulary")
"""Beginnings of the names of members that may be larger than MAX_JSON."""
MAX_MEMBERS = 32
_AGAIN = "fetch it again, or export the run again with mt export RUN --to bundle"


# ------------------------------------------------------------------------------- writing


def write_bundle(path: Path, opened: LoadedModel, model: nn.Module) -> None:
    """Write a bundle to a new file; `model` has the weights to translate with."""
    from safetensors.torch import save

    # A run may have a shortlist, the bundle has none.
    search = opened.recipe.search.model_copy(update={"shortlist": False})
    recipe = opened.recipe.model_copy(update={"search": search})
    parts = {
        CARD: model_card(opened).encode(),
        "config.yaml": run_directory.recipe_text(recipe).encode(),
        "resolved.json": files.as_json(opened.resolved).encode(),
        STATE: files.as_json(asdict(opened.state)).encode(),
        "report.json": files.as_json(opened.report).encode(),
        "scores.json": files.as_json(opened.scores).encode(),
        **opened.vocabulary.parts(),
        MODEL: save(checkpoint.model_weights(model)),
    }
    facts = {"format": FORMAT, "files": files.describe_parts(parts)}
    manifest = files.as_json(facts).encode()
    with files.open_new(path) as stream, zipfile.ZipFile(stream, "w") as archive:
        for name, data in {MANIFEST: manifest, **parts}.items():
            member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            member.create_system, member.external_attr = 3, 0o644 << 16
            archive.writestr(member, data, zipfile.ZIP_STORED)


def model_card(opened: LoadedModel) -> str:
    """Describe a model in Markdown."""
    recipe, vocabulary = opened.recipe, opened.vocabulary
    languages = recipe.direction
    targets = opened.vocabulary.languages or (languages.target,)
    sizes = {key: value for key, value in recipe.model if key != "kind" and value is not None}
    kind = "joint" if vocabulary.joint else "one a side"
    return "\n".join(
        [
            f"# Translation, {languages.source} to {', '.join(targets)}",
            "",
            "Made by mt; `mt translate FILE.mt` translates with it, one line in, one line out.",
            "",
            "## Model",
            "",
            f"- kind: {recipe.model.kind}",
            *(f"- {key}: {value}" for key, value in sizes.items()),
            f"- vocabulary: {vocabulary.kind}, {kind}, "
            f"{vocabulary.source_size} source and {vocabulary.target_size} target ids, "
            f"digest {vocabulary.digest}",
            f"- search: {json.dumps(recipe.search.model_dump(mode='json'))}",
            "",
            "## Training",
            "",
            f"- updates: {opened.state.step}, target tokens: {opened.state.tokens}, "
            f"epochs: {opened.state.epoch}",
            *_data_facts(opened.report),
            "",
            "## Scores",
            "",
            *(_scores(opened.scores) or ["Unknown."]),
            "",
            "## Licence and use",
            "",
            "To be stated by the publisher: the licence of the weights, which that of the "
            "data may bind, and what the model is fit and unfit for.",
            "",
        ]
    )


def _data_facts(report: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each file that the model was trained, validated or tested on."""
    for section in ("corpora", "held_out"):
        for name, corpus in sorted(dict(report.get(section) or {}).items()):
            pairs = f", {corpus['pairs']} pairs" if "pairs" in corpus else ""
            for side, file in sorted(dict(corpus.get("files") or {}).items()):
                digest, path = file.get("sha256", "unknown"), Path(str(file.get("path", "")))
                yield f"- {name}, {side}: {path.name}{pairs}, sha256 {digest}"


def _scores(scores: dict[str, Any]) -> list[str]:
    return [
        f"- {name}: {metric} {value['score']} ({value['signature']})"
        for name, metrics in scores.items()
        for metric, value in metrics.items()
    ]


# ------------------------------------------------------------------------------- reading


def is_bundle(path: Path) -> bool:
    """Whether `path` is a file with the name or the first bytes of a bundle."""
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as stream:
            return path.suffix == ".mt" or stream.read(4) == b"PK\x03\x04"
    except OSError:  # opening it reports why
        return True


def open_loaded_model(path: Path, choice: str | None = None) -> LoadedModel:
    """Open a run at the checkpoint `choice`, a checkpoint folder, or a bundle.

    Raises:
        ConfigError: a bundle has no checkpoint to choose.
        ModelError: there is no model, or it is damaged.
    """
    if run_directory.is_run(path) or not path.is_file():
        return run_directory.open_run(path, choice)
    if choice is not None:
        what = "a bundle holds one model"
        raise ConfigError("ENGINE", f"--checkpoint {choice}", what, "leave it out")
    with _open_archive(path) as archive:
        _verify(path, archive)
        inside = zipfile.Path(archive)
        shapes = {"resolved": Resolved, "report": Report, "scores": None}
        return LoadedModel(
            path, path, _parse_recipe(path, archive), Vocabulary.load(inside),
            checkpoint.read_state(inside), serialised=archive.read(MODEL),
            **{name: _read_json(inside / f"{name}.json", shape) for name, shape in shapes.items()},
        )  # fmt: skip


def _read_json(
    path: zipfile.Path, shape: type[JsonObject] | None, newest: int | None = None
) -> dict[str, Any]:
    return model_files.read_json(path, shape, code="BUNDLE-DAMAGED", advice=_AGAIN, newest=newest)


def _parse_recipe(path: Path, archive: zipfile.ZipFile) -> Recipe:
    text = archive.read("config.yaml").decode("utf-8")
    return checkpoint.parse_recipe(text, f"{path}/config.yaml", path.parent)


@contextmanager
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open the archive after checking its table of contents."""
    try:
        with open(path, "rb") as stream, zipfile.ZipFile(stream) as archive:
            problem = _archive_problem(archive)
            if problem:
                raise ModelError("BUNDLE-DAMAGED", path, problem, _AGAIN)
            yield archive
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError) as error:
        what = f"not a run, and no sound bundle ({error})"
        raise ModelError("BUNDLE-DAMAGED", path, what, _AGAIN) from None
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        what = f"a part is missing or damaged ({error})"
        raise ModelError("BUNDLE-DAMAGED", path, what, _AGAIN) from None


def _archive_problem(archive: zipfile.ZipFile) -> str | None:
    """Return what is wrong with the table of contents, or None."""
    members = archive.infolist()
    names = [member.filename for member in members]
    if len(members) > MAX_MEMBERS or len(set(names)) != len(names):
        return "too many members, or one twice"
    for member in members:
        if not FILE_NAME.fullmatch(member.filename):
            return f"a member called {member.filename!r}"
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            return f"{member.filename} is compressed or encrypted"
        if member.file_size != member.compress_size:
            return f"{member.filename} has two sizes"
        if member.file_size > MAX_JSON and not member.filename.startswith(LARGE_MEMBERS):
            return f"{member.filename} has {member.file_size} bytes"
    return None if MANIFEST in names else f"{MANIFEST} is missing"


def _verify(path: Path, archive: zipfile.ZipFile) -> None:
    """Compare every byte with the manifest; raise a ModelError when one differs."""
    manifest = _read_json(zipfile.Path(archive) / MANIFEST, Manifest, FORMAT)
    listed = manifest["files"]
    sizes = {member.filename: member.file_size for member in archive.infolist()}
    wrong = sorted(listed.keys() ^ (sizes.keys() - {MANIFEST}))
    if wrong:
        what = f"{wrong[0]} is missing, or not in {MANIFEST}"
        raise ModelError("BUNDLE-DAMAGED", path, what, _AGAIN)
    for name, facts in listed.items():
        digest = hashlib.sha256()
        with archive.open(name) as stream:
            while part := stream.read(1 << 20):
                digest.update(part)
        if sizes[name] != facts["bytes"] or digest.hexdigest() != facts["sha256"]:
            what = f"{name} does not have the bytes that {MANIFEST} says"
            raise ModelError("BUNDLE-DAMAGED", path, what, _AGAIN)


def read_any_recipe(path: Path) -> Recipe:
    """Read the recipe of a run, a bundle or an exported model; raise a ModelError when none."""
    if run_directory.is_run(path):
        return run_directory.read_recipe(run_of(path))
    if path.is_file():
        with _open_archive(path) as archive:
            return _parse_recipe(path, archive)
    if (path / "config.yaml").is_file():
        return run_directory.read_recipe(path)
    advice = "give the run directory that it came from"
    raise ModelError("RUN-NONE", path, "not a run; there is no recipe to evaluate by", advice)
