"""Upload a finished run's model, or a saved model, to the Hugging Face hub. Only this file uses the hub's API.

What is uploaded is a folder that `RagModel.from_pretrained` opens once it is downloaded: of a run, the task and the
knowledge base go with the model. The token is the one that huggingface_hub finds (``HF_TOKEN``, or ``hf auth login``).
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  (of the library that the client uses, whichever it is)
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

from retrograd.studies.upload_files import collect_files
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, first_line
from retrograd.util.progress import say

__all__ = ["Pushed", "push"]


@dataclass(frozen=True)
class Pushed:
    """An upload: the repository, its address, the files, and whether it is private."""

    repo: str
    url: str
    files: tuple[str, ...]
    private: bool

    def record(self) -> JsonObject:
        """Return all of it as JSON."""
        return {"repo": self.repo, "url": self.url, "files": [*self.files], "private": self.private}


def push(folder: Path, repo: str, public: bool = False) -> Pushed:
    """Upload the model of a finished run, or a folder of `RagModel.save_pretrained`, in one commit.

    The repository is made where it does not exist, private unless ``public``. The knowledge base is a part of the
    model: its passages are uploaded; models that were folders are named by the folder's last name. Raises `UserError`
    for anything but a finished run or a whole saved model, for adapters of a model that only this machine has, for a
    public repository without ``public``, and where the hub refuses.
    """
    with tempfile.TemporaryDirectory() as temporary:
        files = collect_files(folder, Path(temporary))
        with _explain_errors(repo):
            api = HfApi()
            api.create_repo(repo, private=not public, exist_ok=True)
            private = bool(api.model_info(repo).private)
        if not private and not public:
            raise UserError(f"{repo} exists and is public; add --public to upload to it, or name another repository")
        operations = [CommitOperationAdd(name, path) for name, path in sorted(files.items())]
        with _explain_errors(repo), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "It seems that you are about to commit a data file", UserWarning)
            done = api.create_commit(repo, operations, commit_message=f"Upload {folder.resolve().name} from retrograd")
    if private and public:
        say(f"{repo} existed and is private, and stays so in spite of --public; make it public in its settings there")
    return Pushed(repo, str(done.repo_url), tuple(sorted(files)), private)


@contextmanager
def _explain_errors(repo: str) -> Iterator[None]:
    """Turn an error of the hub into a `UserError` with the remedy."""
    try:
        yield
    except LocalTokenNotFoundError:
        raise UserError("the hub asks for a token; set HF_TOKEN, or log in with: hf auth login") from None
    except HFValidationError as error:
        raise UserError(f"{repo!r} is no name of a repository ({first_line(error)}); give OWNER/NAME") from None
    except OfflineModeIsEnabled:
        raise UserError("HF_HUB_OFFLINE is set, so that nothing can be uploaded; unset it") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        advice = {
            401: "set HF_TOKEN to a token that may write, or log in with: hf auth login",
            403: "the token may not write there; use another one, or another repository",
        }.get(status, "try again later")
        raise UserError(f"the hub refused the upload to {repo} ({status}: {first_line(error)}); {advice}") from None
    except (HTTPError, ConnectionError, TimeoutError) as error:
        raise UserError(
            f"the upload to {repo} failed ({type(error).__name__}: {first_line(error)}); try again where the hub can "
            f"be reached"
        ) from None
