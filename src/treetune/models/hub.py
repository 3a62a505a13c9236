"""Models of the Hugging Face hub: fetched whole into the hub's cache, or found there; looked at as a folder."""

from __future__ import annotations

import json
from pathlib import Path

from treetune.core.errors import ModelError

DESCRIPTION = ["*.json", "*.txt", "*.model", "*.jinja"]
WEIGHTS = ["*.safetensors"]
INDEX = "model.safetensors.index.json"


def fetch(name: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """The folder of a hub model in the local cache, fetched first where the network is there and it is not.

    A fetch that was cut off leaves no file under its own name and goes on where it stopped. Only safetensors weights
    of the top folder are fetched.

    Args:
        revision: a branch, a tag or a commit; None: the main branch. weights: False for configuration and tokenizer.

    Raises:
        ModelError: E3002 no such model here or in reach, E3013 the owner's permission is needed, E3014 no such
            revision, E3015 the fetch was cut off.
    """
    import huggingface_hub
    from huggingface_hub import errors

    wanted = [*DESCRIPTION, *(WEIGHTS if weights else [])]
    try:
        found = Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted,
                                                       ignore_patterns=["*/*"]))
    except errors.GatedRepoError as error:
        raise ModelError(
            "E3013", "the model is shared only with people its owner has let in", where=name, found=_short(error),
            do="accept its terms on its page of the hub, log in with hf auth login, and try again",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError("E3014", "the model has no revision {revision!r}", revision=revision or "main", where=name,
                         found=_short(error), do="name a branch, a tag or a commit of its page") from error
    except getattr(errors, "IncompleteSnapshotError", TimeoutError) as error:  # not in every version of the client
        raise _cut_off(name, error) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError, errors.LocalEntryNotFoundError,
            errors.OfflineModeIsEnabled) as error:
        raise ModelError("E3002", "there is no model {name!r} here or in the cache", name=name, where=name,
                         found=_short(error), do="check the name; offline, give a folder or gpt3") from error
    except (OSError, getattr(errors, "HTTPError", OSError)) as error:  # whatever the network does
        raise _cut_off(name, error) from error
    if weights:
        refuse_partial(found, name)
    return found


def refuse_partial(folder: Path, name: str) -> None:
    """A cached model may lack files when its fetch was cut off and there is no network now.

    Raises:
        ModelError: E3015 names what is missing.
    """
    missing = [] if (folder / "config.json").exists() else ["config.json"]
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        files = sorted(set(index["weight_map"].values()))
    except FileNotFoundError:
        files = []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError("E3005", "a file of the model is broken", where=str(folder / INDEX), found=_short(error),
                         do="fetch the model again") from error
    missing += [file for file in files if not (folder / str(file)).exists()]
    if missing:
        raise ModelError("E3015", "the model could not be fetched whole", where=name,
                         found="no " + ", ".join(map(str, missing))[:200],
                         do="run the same command again; it goes on where it stopped")


def _cut_off(name: str, error: Exception) -> ModelError:
    return ModelError("E3015", "the model could not be fetched whole", where=name, found=_short(error),
                      do="run the same command again; it goes on where it stopped")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
