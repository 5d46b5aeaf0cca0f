"""``retrograd validate``: faults of data, before a run."""

from __future__ import annotations

from typing import Annotated

import typer

from retrograd.commands import AsJson, FileKind, SettingsOption, print_json, table_console

__all__ = ["validate"]


def validate(
    names: Annotated[list[str], typer.Argument(help="A recipe, an experiment file, or files of data.")],
    changes: SettingsOption = None,
    kind: Annotated[
        FileKind | None, typer.Option(help="What bare data files hold, where it is not to be guessed.")
    ] = None,
    format: Annotated[str, typer.Option(help="Their format, where it is not to be guessed.")] = "auto",  # noqa: A002
    json: AsJson = False,
) -> None:
    """Check data before a run: malformed records, duplicates, leaks between parts, labels, gold passages, lengths.

    Of bare files it says what they are taken for, and shows the first record as it is read; --kind, --format and
    `--set data.fields.question=NAME` change that. Exit status 1 where a run would break or test data leak into
    training, 0 with warnings alone.

    Example: `retrograd validate semeval-joint --set data.train=mine.jsonl --set data.labels=from_train`
    """
    from retrograd.studies.validation.subject import read_subject

    experiment = read_subject(names, changes or [], kind, format)  # mistakes are reported before torch is imported
    from retrograd.data.hub import data_path
    from retrograd.report.validation import print_validation
    from retrograd.studies.validation.validate import validate_experiment, validate_files

    if experiment is not None:
        validation = validate_experiment(experiment)
    else:
        validation = validate_files([data_path(name) for name in names], kind, format, changes or [])
    if json:
        print_json(validation.record())
    else:
        print_validation(validation, table_console(120))
    if not validation.is_sound:
        raise typer.Exit(1)
